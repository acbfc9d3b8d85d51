"""The reactor that publishes for the threads of this process, and calls into its thread.

If a reactor is already running (``twistd``, Daphne, an embedding application), it is used.
Otherwise crochet starts one in a thread of its own on first use. If a process is forked while its
reactor runs, the child has no reactor thread, and shares the sockets with its parent. The child
then makes a fresh reactor, and touches nothing of its parent's.
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
    """A call in the reactor thread, for which another thread waits."""

    done: threading.Event

    def start(self) -> None: ...

    def stopped(self) -> None:
        """The reactor was stopped before the call was done."""


class ReactorThread:
    """A running reactor, and the calls for which threads are waiting."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._pending: set[Call] = set()
        self._stopped = False

    def watch(self) -> None:
        """Tell waiting calls when the reactor stops. Call this in its thread, or before it runs."""
        self.reactor.addSystemEventTrigger("before", "shutdown", self.stopped)

    def stopped(self) -> None:
        self._stopped = True
        for call in list(self._pending):
            call.stopped()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function`` in the reactor thread, soon. Raises ``BrokerUnavailable`` once the
        reactor has stopped.
        """
        if self._stopped:
            raise BrokerUnavailable(STOPPED)
        self.reactor.callFromThread(function)

    def wait_for(self, call: Call, timeout: float) -> bool:
        """Start ``call`` in the reactor thread; return whether it was done within ``timeout``
        seconds.
        """
        self._pending.add(call)
        try:
            self.call(call.start)
            return call.done.wait(timeout)
        finally:
            self._pending.discard(call)


_reserved = False
_was_forked = False
_thread: ReactorThread | None = None
# The thread that runs the fresh reactor of a forked process.
_forked_thread: threading.Thread | None = None
_lock = threading.Lock()


def reserve_reactor() -> None:
    """Announce that this process will run the reactor itself, and then call ``release_reactor``.
    Until then nothing may start it in a thread: publishing raises ``RuntimeError``.
    """
    global _reserved
    _reserved = True


def release_reactor(*, runs_here: bool) -> None:
    """End the reservation. ``runs_here``: a server's reactor runs in this process, even if the
    process was forked.
    """
    global _reserved, _thread, _was_forked
    _reserved = False
    if runs_here and _was_forked:
        _was_forked, _thread = False, None


def get_reactor() -> Any:
    """The reactor that this process publishes with, running or not."""
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
        raise RuntimeError(f"This call would block the event loop of this thread. Use {instead}.")


def in_reactor_thread() -> bool:
    """Whether this thread runs the reactor that talks to Redis."""
    if _was_forked:
        return _forked_thread is threading.current_thread()
    from twisted.internet import reactor
    from twisted.python.threadable import isInIOThread

    running: bool = reactor.running
    return running and isInIOThread()


def get_thread() -> ReactorThread:
    """The thread of the running reactor, which is started if there is none."""
    if _reserved:
        raise RuntimeError(
            "The server of this process has not started yet. Nothing can be published before that."
        )
    if _thread is not None:
        return _thread
    return _start_after_fork() if _was_forked else _start_with_crochet()


def _start_with_crochet() -> ReactorThread:
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


def _start_after_fork() -> ReactorThread:
    """Start this process's own reactor, in a daemon thread."""
    global _forked_thread, _thread
    from twisted.internet.pollreactor import PollReactor

    with _lock:
        if _thread is None:
            reactor = PollReactor()
            thread = ReactorThread(reactor)
            thread.watch()
            _forked_thread = threading.Thread(
                target=reactor.run,
                kwargs={"installSignalHandlers": False},
                name="ws4redis-reactor",
                daemon=True,
            )
            _forked_thread.start()
            _thread = thread
        return _thread


def _after_fork_in_child() -> None:
    global _forked_thread, _lock, _thread, _was_forked
    reactor = sys.modules.get("twisted.internet.reactor")
    started = reactor is not None and (reactor.running or "crochet" in sys.modules)
    _was_forked = _was_forked or started
    # A reference keeps the parent's reactor: garbage collection would close its sockets.
    _inherited.append(_thread)
    _forked_thread, _thread = None, None
    _lock = threading.Lock()


_inherited: list[Any] = []
os.register_at_fork(after_in_child=_after_fork_in_child)
