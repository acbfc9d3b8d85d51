"""From a thread that waits to the reactor that talks to Redis, and back.

The reactor runs in a thread of its own, which crochet starts at the first use in this process.
Where one runs already (``twistd``, Daphne, an embedding application), that one is used. In a
process that was forked from one whose reactor ran, the reactor's thread is gone and its sockets are
the parent's: a fresh one takes its place, and nothing of the parent's is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis_tx import conf
from ws4redis_tx.core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.server.commands import Commands


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
    timeout = conf.get_timeout()
    must_not_wait_on_event_loop(instead[0])
    if in_reactor_thread():
        raise RuntimeError(
            f"This is the reactor thread, which this would block: {instead[1]} returns a Deferred "
            "instead."
        )
    run_in_reactor = _way_to_the_reactor()
    call = _Call(conf.get_redis_address(), conf.get_prefix(), work)
    import crochet

    result = run_in_reactor(call.run)()
    try:
        return result.wait(timeout)
    except crochet.TimeoutError:
        call.abandoned = True
        result.cancel()
        raise BrokerUnavailable(
            f"Redis at {call.address} did not answer within {timeout:g} s.",
            maybe_published=call.sent,
        ) from None
    except crochet.ReactorStopped:
        raise BrokerUnavailable(
            "The reactor of this process was stopped.", maybe_published=call.sent
        ) from None


def send(work: Callable[[Commands], Any], patience: float, done: Callable[[Any], object]) -> bool:
    """Have ``work`` done in the reactor thread, and call ``done`` there with what its Deferred
    brings, a result or a ``Failure``.

    Waits for that ``patience`` seconds at most; ``0`` in a thread that must not wait. Returns
    whether it was done by then. It goes on without us, up to ``WS4REDIS_TIMEOUT``.
    """
    timeout = conf.get_timeout()
    call = _Call(conf.get_redis_address(), conf.get_prefix(), work)
    finished = threading.Event()

    def run() -> None:
        from twisted.internet.defer import maybeDeferred

        working = maybeDeferred(call.run).addTimeout(timeout, _reactor())
        working.addBoth(done).addBoth(lambda _: finished.set())

    _way_to_the_reactor()(run)()
    return finished.wait(patience)


class _Call:
    """One piece of work on its way through the reactor thread."""

    def __init__(self, address: RedisAddress, prefix: str, work: Callable[[Commands], Any]) -> None:
        self.address = address
        self.sent = False
        self.abandoned = False
        self._prefix = prefix
        self._work = work

    def run(self) -> Any:
        commands = _commands(self.address, self._prefix)
        if commands.connected:
            return self._send(commands).addErrback(self._failed)
        return (
            commands.when_connected()
            .addCallbacks(lambda _: self._send(commands), self._unreachable)
            .addErrback(self._failed)
        )

    def _failed(self, failure: Any) -> Any:
        # Nobody waits any more; crochet would log what nobody asked for.
        return None if self.abandoned else failure

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

# The loop of a forked process; None where crochet's own serves.
_forked_loop: Any = None
_was_forked = False
_reserved = False
_lock = threading.Lock()


def reserve_reactor() -> None:
    """This process is going to run the reactor itself, and then to call ``share_commands``. Until
    then nobody may start it in a thread: who would publish gets a ``RuntimeError``.
    """
    global _reserved
    _reserved = True


def share_commands(commands: Commands | None) -> None:
    """Let the publishers of this process use a server's connection instead of one of their own."""
    global _reserved, _shared_commands, _was_forked
    _reserved = False
    _shared_commands = commands
    # The server's reactor runs in this process, however the process came about.
    _was_forked = _was_forked and commands is None


def _commands(address: RedisAddress, prefix: str) -> Commands:
    if _shared_commands is not None:
        return _shared_commands
    if (address, prefix) not in _own_commands:
        from ws4redis_tx.server.commands import Commands

        commands = Commands(address, prefix, _reactor(), timeout=conf.get_timeout())
        commands.start()
        _own_commands[address, prefix] = commands
    return _own_commands[address, prefix]


def _reactor() -> Any:
    if _forked_loop is not None:
        return _forked_loop.reactor
    from twisted.internet import reactor

    return reactor


def on_event_loop() -> bool:
    """Whether this thread runs an asyncio event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def must_not_wait_on_event_loop(instead: str = "await publisher.apublish_message(…)") -> None:
    if on_event_loop():
        raise RuntimeError(
            f"This thread runs an event loop, which this would block: {instead} instead."
        )


def in_reactor_thread() -> bool:
    """Whether this thread runs the reactor that talks to Redis."""
    if _was_forked:
        return _forked_loop is not None and _forked_loop.thread is threading.current_thread()
    from twisted.internet import reactor
    from twisted.python.threadable import isInIOThread

    running: bool = reactor.running
    return running and isInIOThread()


def _way_to_the_reactor() -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """crochet's ``run_in_reactor``, of a reactor that runs."""
    if _reserved:
        raise RuntimeError("The server of this process has not started yet: nothing is published.")
    if _was_forked:
        return _loop_after_fork().run_in_reactor
    import crochet
    from twisted.internet import reactor

    if not reactor.running:
        crochet.setup()
    else:
        with contextlib.suppress(RuntimeError):  # raised when crochet is set up already
            crochet.no_setup()
    return crochet.run_in_reactor


class _LoopAfterFork:
    """A reactor of this process's own. Its thread ends with the process, and holds it up not."""

    def __init__(self) -> None:
        from crochet._eventloop import EventLoop
        from twisted.internet.pollreactor import PollReactor

        self.reactor = PollReactor()
        loop = EventLoop(lambda: self.reactor, lambda *_: None)
        loop.no_setup()
        self.run_in_reactor = loop.run_in_reactor
        self.thread = threading.Thread(
            target=self.reactor.run,
            kwargs={"installSignalHandlers": False},
            name="ws4redis-reactor",
            daemon=True,
        )
        self.thread.start()


def _loop_after_fork() -> _LoopAfterFork:
    global _forked_loop
    with _lock:
        if _forked_loop is None:
            _forked_loop = _LoopAfterFork()
    return _forked_loop  # type: ignore[no-any-return]


def _after_fork_in_child() -> None:
    global _forked_loop, _lock, _own_commands, _shared_commands, _was_forked
    reactor = sys.modules.get("twisted.internet.reactor")
    started = reactor is not None and (reactor.running or "crochet" in sys.modules)
    _was_forked = _was_forked or started
    # The parent's stay where they are, referred to, so that nothing closes them.
    _inherited.append((_own_commands, _shared_commands, _forked_loop))
    _own_commands, _shared_commands, _forked_loop = {}, None, None
    _lock = threading.Lock()


_inherited: list[Any] = []
os.register_at_fork(after_in_child=_after_fork_in_child)
