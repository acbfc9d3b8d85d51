"""From a thread or coroutine that waits to the reactor that talks to Redis, and back.

Everything in Django reaches Redis through ``redis()``. Tests replace it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable, remedy_in_test
from ws4redis_tx.core.positions import NOT_KEPT, Kept
from ws4redis_tx.threads.loop_event import LoopEvent
from ws4redis_tx.threads.port import FORGET, POSITION, PUBLISH, Instead, IRedis
from ws4redis_tx.threads.reactor_thread import (
    STOPPED,
    ReactorThread,
    get_ready_thread,
    get_thread,
    in_reactor_thread,
    must_not_wait_on_event_loop,
    on_event_loop,
    use,
)

if TYPE_CHECKING:
    from ws4redis_tx.core.messages import PersistedMessage, Published
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.redis.commands import Commands

__all__ = [
    "PUBLISH",
    "IRedis",
    "Instead",
    "in_reactor_thread",
    "must_not_wait_on_event_loop",
    "on_event_loop",
    "redis",
    "replaced",
    "share_commands",
]


class _Redis:
    """``IRedis`` by way of the reactor thread."""

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        kept: Kept = NOT_KEPT,
        *,
        instead: Instead = PUBLISH,
    ) -> Published:
        published: Published = _wait_for(
            "publish", channels, message, expire, kept, instead=instead
        )
        return published

    async def apublish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept = NOT_KEPT
    ) -> Published:
        published: Published = await _await("publish", channels, message, expire, kept)
        return published

    def get(self, channels: Sequence[bytes]) -> Sequence[PersistedMessage | None]:
        found: Sequence[PersistedMessage | None] = _wait_for("get", channels)
        return found

    def forget(self, channels: Sequence[bytes]) -> None:
        _wait_for("forget", channels, instead=FORGET)

    async def aforget(self, channels: Sequence[bytes]) -> None:
        await _await("forget", channels)

    def position(self, began: float | None = None) -> str:
        position: str = _wait_for("position", began, instead=POSITION)
        return position

    async def aposition(self) -> str:
        position: str = await _await("position")
        return position

    def ask(self, command: str, *arguments: Any, instead: Instead) -> Any:
        return _wait_for(command, *arguments, instead=instead)

    async def aask(self, command: str, *arguments: Any) -> Any:
        return await _await(command, *arguments)

    def put(self, key: bytes, value: bytes, seconds: int, *, instead: Instead) -> None:
        _wait_for("put", key, value, seconds, instead=instead)

    async def aput(self, key: bytes, value: bytes, seconds: int) -> None:
        await _await("put", key, value, seconds)

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
        seconds: int = 60,
    ) -> bool:
        timeout = django_settings.get_timeout()
        thread = get_ready_thread()
        finished = threading.Event()
        record = entries is not None
        arguments = (*channels, message, entries, seconds) if record else (channels, message, 0)
        call = _make_call(thread, "record" if record else "publish", arguments, finished)

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
    call = _make_call(thread, command, arguments, threading.Event())
    if not thread.wait_for(call, timeout):
        raise call.give_up(timeout)
    return call.outcome()


async def _await(command: str, *arguments: Any) -> Any:
    """``_wait_for`` for a coroutine, which neither blocks nor holds a thread. If it is cancelled,
    nothing is sent that was not sent yet.
    """
    timeout = django_settings.get_timeout()
    done = LoopEvent()
    thread = get_thread()
    call = _make_call(thread, command, arguments, done)
    try:
        with thread.calling(call), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await done.wait()
    except asyncio.CancelledError:
        call.withdraw()
        raise
    if not done.is_set():
        raise call.give_up(timeout)
    return call.outcome()


def _make_call(thread: ReactorThread, command: str, arguments: tuple[Any, ...], done: Any) -> _Call:
    address, prefix = django_settings.get_redis_address(), django_settings.get_prefix()
    return _Call(thread, address, prefix, command, arguments, done)


class _Call:
    """One command on its way through the reactor thread."""

    def __init__(
        self,
        thread: ReactorThread,
        address: RedisAddress,
        prefix: str,
        command: str,
        arguments: tuple[Any, ...],
        done: Any,
    ) -> None:
        self.address = address
        self.sent = False
        self.abandoned = False
        self.done = done
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

    def outcome(self) -> Any:
        """The result of a call that is done. Raises its error."""
        if self.error is not None:
            raise self.error
        return self.result

    def give_up(self, timeout: float) -> BrokerUnavailable:
        """Cancel the call, and return the error that says so. A connection on which it was sent is
        dropped.
        """
        self._end(lambda: True)
        return BrokerUnavailable(
            f"Redis at {self.address} did not answer within {timeout:g} s.{remedy_in_test()}",
            maybe_published=self.sent,
        )

    def withdraw(self) -> None:
        """Cancel the call if it has not been sent yet. The connection stays, for others' calls."""
        self._end(lambda: not self.sent)

    def _end(self, may_cancel: Callable[[], bool]) -> None:
        def cancel() -> None:
            if self._deferred is not None and may_cancel():
                self._deferred.cancel()

        self.abandoned = True
        with contextlib.suppress(BrokerUnavailable):  # the reactor was stopped meanwhile
            self._thread.call(cancel)

    def fail(self, error: BaseException) -> None:
        hint = remedy_in_test()
        if type(error) is BrokerUnavailable and hint:
            error = BrokerUnavailable(f"{error}{hint}", maybe_published=error.maybe_published)
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
