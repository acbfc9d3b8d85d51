"""From a blocking thread to the reactor that talks to Redis, and back.

Everything in Django reaches Redis through ``redis()``. Tests replace it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.threads.reactor_thread import (
    STOPPED,
    ReactorThread,
    get_ready_thread,
    in_reactor_thread,
    must_not_wait_on_event_loop,
    on_event_loop,
    use,
)

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.redis.commands import Commands

__all__ = [
    "IRedis",
    "in_reactor_thread",
    "must_not_wait_on_event_loop",
    "on_event_loop",
    "redis",
    "replaced",
    "share_commands",
]

Instead = tuple[str, str]
"""The calls to use instead of a blocking one: on an event loop, and in the reactor thread."""

PUBLISH: Instead = ("await publisher.apublish_message(…)", "ws4redis_tx.service.Publisher")


class IRedis(Protocol):
    """Redis for a blocking thread: each call blocks for at most ``WS4REDIS_TIMEOUT`` seconds.

    Raises ``BrokerUnavailable``. In a thread that must not block, raises ``RuntimeError``, whose
    text names the call to use ``instead``.
    """

    def publish(
        self, channels: Sequence[bytes], message: bytes, expire: int, *, instead: Instead = PUBLISH
    ) -> int:
        """Persist and publish, as ``IBroker.publish`` does."""

    def get(self, channels: Sequence[bytes]) -> Sequence[PersistedMessage | None]:
        """The messages persisted for the channels, all read at the same moment."""

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: Instead) -> None:
        """Store ``value`` for ``seconds``, for one ``take``."""

    def take(self, key: bytes) -> bytes | None:
        """Remove and return the stored value, or ``None``. Only one caller gets it."""

    def send(
        self,
        channels: Sequence[bytes],
        message: bytes,
        patience: float,
        done: Callable[[Any], object],
        entries: Mapping[bytes, bytes] | None = None,
    ) -> bool:
        """Publish without persisting, and call ``done`` in the reactor thread with the result or a
        ``Failure``.

        Blocks for at most ``patience`` seconds, and returns whether it was done by then. Otherwise
        it continues in the background. Callable from any thread.

        ``entries`` are added to the lists under their keys, for servers that do not listen yet. The
        message has one channel then.
        """


class _Redis:
    """``IRedis`` by way of the reactor thread."""

    def publish(
        self, channels: Sequence[bytes], message: bytes, expire: int, *, instead: Instead = PUBLISH
    ) -> int:
        receivers: int = _wait_for("publish", channels, message, expire, instead=instead)
        return receivers

    def get(self, channels: Sequence[bytes]) -> Sequence[PersistedMessage | None]:
        found: Sequence[PersistedMessage | None] = _wait_for("get", channels)
        return found

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: Instead) -> None:
        _wait_for("put", key, value, seconds, instead=instead)

    def take(self, key: bytes) -> bytes | None:
        taken: bytes | None = _wait_for("take", key)
        return taken

    def send(
        self,
        channels: Sequence[bytes],
        message: bytes,
        patience: float,
        done: Callable[[Any], object],
        entries: Mapping[bytes, bytes] | None = None,
    ) -> bool:
        timeout = django_settings.get_timeout()
        address, prefix = django_settings.get_redis_address(), django_settings.get_prefix()
        thread = get_ready_thread()
        if entries is None:
            call = _Call(thread, address, prefix, "publish", (channels, message, 0))
        else:
            call = _Call(thread, address, prefix, "record", (*channels, message, entries))
        finished = threading.Event()

        def run() -> None:
            from twisted.internet.defer import maybeDeferred

            result = maybeDeferred(call.run).addTimeout(timeout, thread.reactor)
            result.addBoth(done).addBoth(lambda _: finished.set())

        thread.call(run)
        return finished.wait(patience)


_redis: IRedis = _Redis()


def redis() -> IRedis:
    return _redis


@contextlib.contextmanager
def replaced(port: IRedis) -> Iterator[None]:
    """Make ``redis()`` return ``port`` in all threads. May be nested."""
    global _redis
    before, _redis = _redis, port
    try:
        yield
    finally:
        _redis = before


def _wait_for(command: str, *arguments: Any, instead: Instead = PUBLISH) -> Any:
    """Call a method of ``Commands`` in the reactor thread, and wait for its Deferred's result."""
    timeout = django_settings.get_timeout()
    must_not_wait_on_event_loop(instead[0])
    if in_reactor_thread():
        raise RuntimeError(
            f"This call would block the reactor thread. Use {instead[1]}, which returns a Deferred."
        )
    thread = get_ready_thread()
    address, prefix = django_settings.get_redis_address(), django_settings.get_prefix()
    call = _Call(thread, address, prefix, command, arguments)
    if not thread.wait_for(call, timeout):
        call.abandoned = True
        with contextlib.suppress(BrokerUnavailable):  # the reactor was stopped meanwhile
            thread.call(call.cancel)
        raise BrokerUnavailable(
            f"Redis at {call.address} did not answer within {timeout:g} s.",
            maybe_published=call.sent,
        )
    if call.error is not None:
        raise call.error
    return call.result


class _Call:
    """One command on its way through the reactor thread."""

    def __init__(
        self,
        thread: ReactorThread,
        address: RedisAddress,
        prefix: str,
        command: str,
        arguments: tuple[Any, ...],
    ) -> None:
        self.address = address
        self.sent = False
        self.abandoned = False
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._deferred: Any = None
        self._thread = thread
        self._prefix = prefix
        self._command = command
        self._arguments = arguments

    def start(self) -> None:
        from twisted.internet.defer import maybeDeferred

        self._deferred = maybeDeferred(self.run)
        self._deferred.addCallbacks(self._finish, lambda failure: self.fail(failure.value))

    def run(self) -> Any:
        commands = _commands(self._thread, self.address, self._prefix)
        if commands.connected:
            return self._send(commands)
        return commands.when_connected().addCallback(lambda _: self._send(commands))

    def cancel(self) -> None:
        if self._deferred is not None:
            self._deferred.cancel()

    def fail(self, error: BaseException) -> None:
        self._finish(None, error)

    def stopped(self) -> None:
        self.abandoned = True  # it may still be queued, and the reactor has some turns left
        self.fail(BrokerUnavailable(STOPPED, maybe_published=self.sent))

    def _finish(self, result: Any, error: BaseException | None = None) -> None:
        if not self.done.is_set():
            self.result, self.error = result, error
            self.done.set()

    def _send(self, commands: Commands) -> Any:
        self.sent = True
        if self.abandoned:  # the caller may already know that it was not sent
            raise BrokerUnavailable("Nobody is waiting for it any more.")
        return getattr(commands, self._command)(*self._arguments)


def share_commands(commands: Commands | None) -> None:
    """Let the publishers of this process use a server's connection and reactor in place of their
    own.
    """
    if commands is None:
        use(None)
    else:
        from twisted.internet import reactor

        use(ReactorThread(reactor, commands))


def _commands(thread: ReactorThread, address: RedisAddress, prefix: str) -> Commands:
    """Call this in the reactor thread."""
    if thread.shared is not None:
        return thread.shared
    commands = thread.connections.get((address, prefix))
    if commands is None:
        from ws4redis_tx.redis.commands import Commands

        commands = Commands(address, prefix, thread.reactor, timeout=django_settings.get_timeout())
        commands.start()
        thread.connections[address, prefix] = commands
    return commands
