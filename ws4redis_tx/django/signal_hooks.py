"""Hooks that send Django's signals from a worker thread."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from django.dispatch import Signal
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.interfaces import Closing, IConnection, NullHooks
from ws4redis_tx.django.databases import close_broken, tidy
from ws4redis_tx.signals import (
    client_connected,
    client_disconnected,
    client_subscribed,
    client_unsubscribed,
    message_received,
)
from ws4redis_tx.threads.lookups import Lookups

_log = Logger()

# Limits for the events that wait for receivers: all events, messages among them, and their bytes.
MOST_EVENTS = 10_000
MOST_MESSAGES = MOST_EVENTS // 2
MOST_BYTES = 16 * 1024 * 1024
# Seconds for which a stop waits for receivers.
STOP_WAIT = 5.0

_SIGNALS = (
    client_connected,
    client_disconnected,
    client_subscribed,
    client_unsubscribed,
    message_received,
)


class SignalHooks(NullHooks):
    """Sends the signals in a separate daemon thread, in the order of the events. The thread ends
    with the reactor, or through ``stop``.
    """

    def __init__(
        self,
        reactor: Any,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """The thread enters ``context`` around each event."""
        self._reactor = reactor
        self._context = context
        self._events: _EventQueue | None = None
        self._at_shutdown: Any = None

    @property
    def idle(self) -> bool:
        """Whether the signals have no receivers."""
        return not any(signal.receivers for signal in _SIGNALS)

    def connected(self, connection: IConnection, /) -> None:
        self._queue(client_connected, connection, {})

    def message(self, connection: IConnection, message: bytes, /) -> bytes:
        self._queue(message_received, connection, {"message": message}, len(message))
        return message

    def closed(self, connection: IConnection, closing: Closing, /) -> None:
        self._queue(client_disconnected, connection, {"closing": closing})

    def subscribed(self, connection: IConnection, channel: str, /) -> None:
        self._queue(client_subscribed, connection, {"channel": channel})

    def unsubscribed(self, connection: IConnection, channel: str, /) -> None:
        self._queue(client_unsubscribed, connection, {"channel": channel})

    def stop(self) -> Deferred[None]:
        """End the thread when it has sent all waiting events, or after 5 s."""
        if self._events is not None:
            self._reactor.removeSystemEventTrigger(self._at_shutdown)
        return self._end()

    def all_sent(self) -> Deferred[None]:
        """Fire when the receivers of all events so far have returned."""
        return succeed(None) if self._events is None else self._events.all_sent()

    def _end(self) -> Deferred[None]:
        events, self._events = self._events, None
        return succeed(None) if events is None else events.end()

    def _queue(
        self, signal: Signal, connection: IConnection, values: dict[str, Any], size: int = 0
    ) -> None:
        if not signal.has_listeners(IConnection):
            return
        if self._events is None:
            self._events = _EventQueue(self._reactor, self._send)
            self._at_shutdown = self._reactor.addSystemEventTrigger("during", "shutdown", self._end)
        self._events.put(signal, connection, values, size)

    def _send(self, signal: Signal, connection: IConnection, values: dict[str, Any]) -> None:
        """Runs in the thread. Django logs the exceptions of receivers."""
        with self._context():
            try:
                signal.send_robust(sender=IConnection, connection=connection, **values)
            finally:
                close_broken()


class _EventQueue:
    """A thread, and the events that wait for it."""

    def __init__(self, reactor: Any, send: Callable[..., None]) -> None:
        self._reactor = reactor
        self._send = send
        self._thread = Lookups(reactor, 1, "ws4redis-signals", tidy)
        self._size = 0
        self._dropped = 0

    def put(
        self, signal: Signal, connection: IConnection, values: dict[str, Any], size: int
    ) -> None:
        if not self._has_room(size, MOST_MESSAGES if signal is message_received else MOST_EVENTS):
            if not self._dropped:
                _log.warn(
                    "Receivers of websocket signals are too slow: {number} events wait for them, "
                    "and further events are dropped",
                    number=self._thread.outstanding,
                )
            self._dropped += 1
            return
        self._size += size
        self._thread.ask(self._send, signal, connection, values).addBoth(self._sent, size)

    def end(self) -> Deferred[None]:
        """Fire when all events were sent, or after ``STOP_WAIT``."""
        return self.all_sent().addTimeout(STOP_WAIT, self._reactor).addBoth(self._stop)

    def all_sent(self) -> Deferred[None]:
        return self._thread.ask(_nothing)

    def _has_room(self, size: int, limit: int) -> bool:
        fits = not size or not self._size or self._size + size <= MOST_BYTES
        return fits and self._thread.outstanding < limit

    def _sent(self, outcome: object, size: int) -> None:
        self._size -= size
        if isinstance(outcome, Failure):
            _log.failure("Sending a websocket signal failed", failure=outcome)
        if not self._thread.outstanding:
            self._log_dropped()

    def _log_dropped(self) -> None:
        if self._dropped:
            _log.warn("{dropped} websocket signals were not sent", dropped=self._dropped)
            self._dropped = 0

    def _stop(self, outcome: object) -> None:
        if isinstance(outcome, Failure):
            self._dropped += self._thread.outstanding - 1
        self._log_dropped()
        self._thread.stop()


def _nothing() -> None:
    """Runs after all earlier events, and shows that they are done."""
