"""From a thread that waits to the reactor that talks to Redis, and back."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.threads.reactor_thread import (
    STOPPED,
    get_reactor,
    get_thread,
    in_reactor_thread,
    must_not_wait_on_event_loop,
    on_event_loop,
    release_reactor,
    reserve_reactor,
)

if TYPE_CHECKING:
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.redis.commands import Commands

__all__ = [
    "in_reactor_thread",
    "must_not_wait_on_event_loop",
    "on_event_loop",
    "reserve_reactor",
    "send",
    "share_commands",
    "wait_for",
]


def wait_for(
    work: Callable[[Commands], Any],
    *,
    instead: tuple[str, str] = (
        "await publisher.apublish_message(…)",
        "ws4redis_tx.service.Publisher",
    ),
) -> Any:
    """Run ``work`` in the reactor thread, wait for what its Deferred brings, and return it.

    Raises ``BrokerUnavailable`` after ``WS4REDIS_TIMEOUT`` seconds, and ``RuntimeError`` in a
    thread that must not wait: ``instead`` is what to use on an event loop, and in the reactor
    thread.
    """
    timeout = django_settings.get_timeout()
    must_not_wait_on_event_loop(instead[0])
    if in_reactor_thread():
        raise RuntimeError(
            f"This is the reactor thread, which this would block: {instead[1]} returns a Deferred "
            "instead."
        )
    thread = get_thread()
    call = _Call(django_settings.get_redis_address(), django_settings.get_prefix(), work)
    if not thread.wait_for(call, timeout):
        call.abandoned = True
        with contextlib.suppress(BrokerUnavailable):  # the reactor was stopped since
            thread.call(call.cancel)
        raise BrokerUnavailable(
            f"Redis at {call.address} did not answer within {timeout:g} s.",
            maybe_published=call.sent,
        )
    if call.error is not None:
        raise call.error
    return call.result


def send(work: Callable[[Commands], Any], patience: float, done: Callable[[Any], object]) -> bool:
    """Have ``work`` done in the reactor thread, and call ``done`` there with what its Deferred
    brings, a result or a ``Failure``.

    Waits for that ``patience`` seconds at most; ``0`` in a thread that must not wait. Returns
    whether it was done by then. It goes on without us, up to ``WS4REDIS_TIMEOUT``.
    """
    timeout = django_settings.get_timeout()
    call = _Call(django_settings.get_redis_address(), django_settings.get_prefix(), work)
    finished = threading.Event()

    def run() -> None:
        from twisted.internet.defer import maybeDeferred

        working = maybeDeferred(call.run).addTimeout(timeout, get_reactor())
        working.addBoth(done).addBoth(lambda _: finished.set())

    get_thread().call(run)
    return finished.wait(patience)


class _Call:
    """One piece of work on its way through the reactor thread."""

    def __init__(self, address: RedisAddress, prefix: str, work: Callable[[Commands], Any]) -> None:
        self.address = address
        self.sent = False
        self.abandoned = False
        self.done = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._working: Any = None
        self._prefix = prefix
        self._work = work

    def start(self) -> None:
        from twisted.internet.defer import maybeDeferred

        self._working = maybeDeferred(self.run)
        self._working.addCallbacks(self._finish, lambda failure: self.fail(failure.value))

    def run(self) -> Any:
        commands = _commands(self.address, self._prefix)
        if commands.connected:
            return self._send(commands)
        return commands.when_connected().addCallbacks(
            lambda _: self._send(commands), self._unreachable
        )

    def cancel(self) -> None:
        if self._working is not None:
            self._working.cancel()

    def fail(self, error: BaseException) -> None:
        self._finish(None, error)

    def stopped(self) -> None:
        self.abandoned = True  # it may still be in line, and the reactor has some turns left
        self.fail(BrokerUnavailable(STOPPED, maybe_published=self.sent))

    def _finish(self, result: Any, error: BaseException | None = None) -> None:
        if not self.done.is_set():
            self.result, self.error = result, error
            self.done.set()

    def _send(self, commands: Commands) -> Any:
        self.sent = True
        if self.abandoned:  # and was told that it was not sent, perhaps
            raise BrokerUnavailable("Nobody waits for it any more.")
        return self._work(commands)

    def _unreachable(self, failure: Any) -> Any:
        raise BrokerUnavailable(
            f"Redis cannot be reached at {self.address} ({failure.getErrorMessage()}). Is it "
            "running there? The address is the setting WS4REDIS_CONNECTION."
        ) from failure.value


# Both belong to the reactor thread.
_own_commands: dict[tuple[RedisAddress, str], Commands] = {}
_shared_commands: Commands | None = None


def share_commands(commands: Commands | None) -> None:
    """Let the publishers of this process use a server's connection instead of one of their own."""
    global _shared_commands
    release_reactor(runs_here=commands is not None)
    _shared_commands = commands


def _commands(address: RedisAddress, prefix: str) -> Commands:
    if _shared_commands is not None:
        return _shared_commands
    commands = _own_commands.get((address, prefix))
    if commands is None:
        from ws4redis_tx.redis.commands import Commands

        commands = Commands(address, prefix, get_reactor(), timeout=django_settings.get_timeout())
        commands.start()
        _own_commands[address, prefix] = commands
    return commands


def _after_fork_in_child() -> None:
    global _own_commands, _shared_commands
    # The parent's stay where they are, referred to, so that nothing closes them.
    _inherited.append((_own_commands, _shared_commands))
    _own_commands, _shared_commands = {}, None


_inherited: list[Any] = []
os.register_at_fork(after_in_child=_after_fork_in_child)
