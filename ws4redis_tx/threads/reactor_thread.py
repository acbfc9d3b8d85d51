"""The reactor that publishes for the threads of this process, and calls into its thread.

If the process's reactor is running (``twistd``, Daphne, crochet, an embedding application), it is
used. Otherwise a daemon thread runs a reactor of our own from first use until the process ends. It
does not depend on the main thread, so it also serves ``atexit`` functions and threads that outlive
the main one. A forked process shares its parent's sockets but has none of its threads, so it starts
afresh and touches nothing of its parent's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis_tx.core.errors import BrokerUnavailable

if TYPE_CHECKING:
    from ws4redis_tx.core.redis_address import RedisAddress
    from ws4redis_tx.redis.commands import Commands

STOPPED = "The reactor of this process was stopped."

_LOOK_INTERVAL = 0.005  # seconds


class Call(Protocol):
    """A call in the reactor thread, for which a thread or a coroutine waits."""

    def start(self) -> None: ...

    def stopped(self) -> None:
        """The reactor was stopped before the call was done."""


class BlockingCall(Call, Protocol):
    done: threading.Event


class ReactorThread:
    """A running reactor, its connections to Redis, and the calls that are waited for.

    :param shared: a server's connection, which publishers use instead of their own.
    """

    def __init__(self, reactor: Any, shared: Commands | None = None) -> None:
        self.reactor = reactor
        self.shared = shared
        self.connections: dict[tuple[RedisAddress, str], Commands] = {}
        """Only the reactor thread uses these."""
        self.ended = False
        self._functions: deque[Callable[[], object]] = deque()
        self._pending: set[Call] = set()

    def start(self) -> bool:
        """Whether the thread runs, or will run, the reactor."""
        self.call(self._watch)
        return True

    def is_current(self) -> bool:
        """Whether the calling thread is the one that runs this reactor."""
        from twisted.python.threadable import isInIOThread

        running: bool = self.reactor.running
        return running and isInIOThread()

    def stopped(self) -> None:
        self.ended = True
        for call in list(self._pending):
            call.stopped()

    def call(self, function: Callable[[], object]) -> None:
        """Call ``function``, which must not raise, in the reactor thread, soon. Raises
        ``BrokerUnavailable`` once the reactor has stopped.
        """
        if self.ended:
            raise BrokerUnavailable(STOPPED)
        self._functions.append(function)
        if self.reactor is not None:
            self.reactor.callFromThread(self._call_all)

    @contextlib.contextmanager
    def calling(self, call: Call) -> Iterator[None]:
        """Start ``call`` in the reactor thread. Within the context, the call is told when the
        reactor stops.
        """
        self._pending.add(call)
        try:
            self.call(call.start)
            yield
        finally:
            self._pending.discard(call)

    def wait_for(self, call: BlockingCall, timeout: float) -> bool:
        """Start ``call`` in the reactor thread; return whether it was done within ``timeout``
        seconds.
        """
        with self.calling(call):
            return call.done.wait(timeout)

    def _watch(self) -> None:
        # If the reactor is already stopping, the first phase may be over.
        for phase in ("before", "during"):
            self.reactor.addSystemEventTrigger(phase, "shutdown", self.stopped)

    def _call_all(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._functions.popleft()()


class OwnReactorThread(ReactorThread):
    """A daemon thread that runs a reactor of our own. It also imports what that needs, so that an
    event loop does not wait for it: ``reactor`` is ``None`` until ``ready``.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ws4redis-reactor", daemon=True)

    def start(self) -> bool:
        try:
            self._thread.start()
        except RuntimeError:
            self._end()
            return False
        return True

    def is_current(self) -> bool:
        return self._thread is threading.current_thread()

    def _run(self) -> None:
        try:
            from twisted.logger import STDLibLogObserver, globalLogPublisher

            from ws4redis_tx.threads.own_reactor import make_reactor

            self._python_log = STDLibLogObserver("twisted")
            observer: Any = self._log
            globalLogPublisher.addObserver(observer)
            reactor = make_reactor()
            reactor.callWhenRunning(self._call_all)
            self.reactor = reactor
            self.ready.set()
            reactor.run(installSignalHandlers=False)
        finally:
            self._end()

    def _end(self) -> None:
        self.stopped()
        self.ready.set()

    def _log(self, event: dict[str, Any]) -> None:
        """Forward what this thread logs to Python's logger ``twisted``, as crochet does. The
        process may log everything else elsewhere, or begin to do so later.
        """
        if self.is_current():
            self._python_log(event)


class CallersThread(ReactorThread):
    """The thread that waits for a call runs a reactor for it, if no thread can be started: Python
    3.12 starts none when the process is about to end.
    """

    def __init__(self) -> None:
        super().__init__(None)
        self.ended = True  # for calls that do not wait

    def wait_for(self, call: BlockingCall, timeout: float) -> bool:
        from ws4redis_tx.threads.own_reactor import make_reactor

        reactor = self.reactor = make_reactor()
        end = reactor.seconds() + timeout

        done = False

        def look() -> None:
            nonlocal done
            done = call.done.is_set()
            if done or reactor.seconds() > end:
                reactor.stop()
            else:
                reactor.callLater(_LOOK_INTERVAL, look)

        reactor.callWhenRunning(call.start)
        reactor.callWhenRunning(look)
        reactor.run(installSignalHandlers=False)
        return done


class _Process:
    """The reactor threads of one process."""

    def __init__(self, reactor_was_running: bool) -> None:
        self.pid = os.getpid()
        self.reactor_was_running = reactor_was_running
        """Whether the process was forked while ``twisted.internet.reactor`` was running. Here it
        has no thread then, although it says that it runs.
        """
        self.thread: ReactorThread | None = None
        self.successors: dict[ReactorThread | None, ReactorThread] = {}
        """The thread that replaces one that ended. No lock guards it, because a fork could inherit
        one that is held: of several candidates, ``setdefault`` takes one for all.
        """


_process = _Process(False)
_inherited: list[_Process] = []
"""References to what belongs to the parents: garbage collection would close their sockets."""


def use(thread: ReactorThread | None) -> None:
    """Publish by ``thread``, whose reactor runs or will run in this process."""
    process = _this_process()
    process.thread = thread
    if thread is not None:
        process.reactor_was_running = False
        thread.start()


def get_thread() -> ReactorThread:
    """The thread of a reactor that runs, which is started if there is none. Does not block."""
    process = _this_process()
    thread = process.thread
    while thread is None or thread.ended:
        reactor = _running_reactor(process)
        candidate = OwnReactorThread() if reactor is None else ReactorThread(reactor)
        thread = process.successors.setdefault(thread, candidate)
        if thread is candidate and not thread.start():
            return CallersThread()
    process.thread = thread
    return thread


def get_ready_thread() -> ReactorThread:
    """``get_thread()``, when its reactor is there."""
    thread = get_thread()
    if isinstance(thread, OwnReactorThread):
        thread.ready.wait()
    return thread


def in_reactor_thread() -> bool:
    """Whether this thread runs the reactor that talks to Redis, or the one of the process."""
    process = _this_process()
    if process.thread is not None and process.thread.is_current():
        return True
    reactor = _running_reactor(process)
    return reactor is not None and ReactorThread(reactor).is_current()


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


def _running_reactor(process: _Process) -> Any:
    """The process's reactor if it is running. Installs none."""
    reactor = sys.modules.get("twisted.internet.reactor")
    running = getattr(reactor, "running", False) and not process.reactor_was_running
    return reactor if running else None


def _this_process() -> _Process:
    # uWSGI forks without telling Python.
    if _process.pid != os.getpid():
        _after_fork_in_child()
    return _process


def _after_fork_in_child() -> None:
    global _process
    _inherited.append(_process)
    reactor = sys.modules.get("twisted.internet.reactor")
    running = getattr(reactor, "running", False)
    _process = _Process(_process.reactor_was_running or running)


if hasattr(os, "register_at_fork"):  # Windows neither forks nor has it
    os.register_at_fork(after_in_child=_after_fork_in_child)
