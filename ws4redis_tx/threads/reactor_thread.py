"""The reactor that publishes for the threads of this process, and their way into its thread.

crochet starts it, in a thread of its own, at the first use. Where one runs already (``twistd``,
Daphne, an embedding application), that one is used. In a process that was forked from one whose
reactor ran, the reactor's thread is gone and its sockets are the parent's: a fresh one takes its
place, and nothing of the parent's is touched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from ws4redis_tx.core.errors import BrokerUnavailable

STOPPED = "The reactor of this process was stopped."


class Call(Protocol):
    """What a thread has the reactor do, and waits for."""

    done: threading.Event

    def start(self) -> None: ...

    def stopped(self) -> None:
        """The reactor was, meanwhile."""


class ReactorThread:
    """A reactor that runs, and the calls that are waited for."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._waited_for: set[Call] = set()
        self._stopped = False

    def watch(self) -> None:
        """Have those who wait told when the reactor stops. In its thread, or before it runs."""
        self.reactor.addSystemEventTrigger("before", "shutdown", self.stopped)

    def stopped(self) -> None:
        self._stopped = True
        for call in list(self._waited_for):
            call.stopped()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` there, soon. Raises ``BrokerUnavailable`` once the reactor stopped."""
        if self._stopped:
            raise BrokerUnavailable(STOPPED)
        self.reactor.callFromThread(function)

    def wait_for(self, call: Call, timeout: float) -> bool:
        """Start ``call`` there; return whether it was done within ``timeout`` seconds."""
        self._waited_for.add(call)
        try:
            self.call(call.start)
            return call.done.wait(timeout)
        finally:
            self._waited_for.discard(call)


_reserved = False
_was_forked = False
_thread: ReactorThread | None = None
# Which thread runs the reactor of a forked process.
_forked: threading.Thread | None = None
_lock = threading.Lock()


def reserve_reactor() -> None:
    """This process is going to run the reactor itself, and then to call ``release_reactor``. Until
    then nobody may start it in a thread: who would publish gets a ``RuntimeError``.
    """
    global _reserved
    _reserved = True


def release_reactor(*, runs_here: bool) -> None:
    """``runs_here``: a server's reactor runs in this process, however the process came about."""
    global _reserved, _thread, _was_forked
    _reserved = False
    if runs_here and _was_forked:
        _was_forked, _thread = False, None


def get_reactor() -> Any:
    """The one that is used, or would be."""
    if _was_forked and _thread is not None:
        return _thread.reactor
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
        return _forked is threading.current_thread()
    from twisted.internet import reactor
    from twisted.python.threadable import isInIOThread

    running: bool = reactor.running
    return running and isInIOThread()


def get_thread() -> ReactorThread:
    """Of a reactor that runs; it is started if there is none."""
    if _reserved:
        raise RuntimeError("The server of this process has not started yet: nothing is published.")
    if _thread is not None:
        return _thread
    return _after_fork() if _was_forked else _of_crochet()


def _of_crochet() -> ReactorThread:
    global _thread
    import crochet
    from twisted.internet import reactor

    if not reactor.running:
        crochet.setup()
    else:
        with contextlib.suppress(RuntimeError):  # raised when crochet is set up already
            crochet.no_setup()
    thread = ReactorThread(reactor)
    try:
        crochet.run_in_reactor(thread.watch)()
    except crochet.ReactorStopped:
        thread.stopped()
    _thread = thread
    return thread


def _after_fork() -> ReactorThread:
    """A reactor of this process's own. Its thread ends with the process, and holds it up not."""
    global _forked, _thread
    from twisted.internet.pollreactor import PollReactor

    with _lock:
        if _thread is None:
            reactor = PollReactor()
            thread = ReactorThread(reactor)
            thread.watch()
            _forked = threading.Thread(
                target=reactor.run,
                kwargs={"installSignalHandlers": False},
                name="ws4redis-reactor",
                daemon=True,
            )
            _forked.start()
            _thread = thread
        return _thread


def _after_fork_in_child() -> None:
    global _forked, _lock, _thread, _was_forked
    reactor = sys.modules.get("twisted.internet.reactor")
    started = reactor is not None and (reactor.running or "crochet" in sys.modules)
    _was_forked = _was_forked or started
    # The parent's stays where it is, referred to, so that nothing closes its sockets.
    _inherited.append(_thread)
    _forked, _thread = None, None
    _lock = threading.Lock()


_inherited: list[Any] = []
os.register_at_fork(after_in_child=_after_fork_in_child)
