"""Lookups that block, in threads of their own. Knows nothing about the data that they look up.

One thread does them, in FIFO order in each of two lanes: those that somebody waits for, and behind
them those that nobody waits for. Other threads help only while it is slow, because it waits for a
database or hangs: two threads that compute take longer than one.

A lookup may see which others wait behind it (``waiting``) and do a part of their work with its own.
They stay in the queue meanwhile, so that a helper takes them if it hangs. Lookups that share work
are handed over together, at the end of the reactor's turn in which they were asked for.

Under load a thread does not wake the reactor for each answer, because the two would wait for each
other thousands of times a second. It wakes the reactor when it has nothing left to do. Until then
the reactor collects the answers every few milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from queue import SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

COLLECT = 0.01
"""Seconds between two collections of answers under load."""

SLOW, SLOW_COLLECTIONS = 3, 3
"""If so many collections in a row find fewer answers than this while lookups are waiting, another
thread helps. A lookup that works for those behind it takes as long as a collection or two.
"""

FROM_BEHIND = 4
"""Each such turn belongs to the lane behind, so that a rush in front never stops it."""

_TIDY_INTERVAL = 1.0  # seconds, for a thread that is never idle


class Lookups:
    """A pool of at most ``threads`` threads. The first one stays; helpers end when they are idle.

    :param tidy: called in a thread before and after a series of lookups, and now and then during a
        long series. Its argument tells whether the thread is about to end.
    :param sharing: whether to hand over together what is asked for in one turn of the reactor.
    """

    def __init__(
        self,
        reactor: Any,
        threads: int,
        name: str,
        tidy: Callable[[bool], object],
        sharing: bool = False,
    ) -> None:
        self._reactor = reactor
        self._max_threads = threads
        self._name = name
        self._tidy_up = tidy
        self._sharing = sharing
        self._threads = 0
        self._in_front: deque[_Lookup] = deque()
        self._behind: deque[_Lookup] = deque()
        self._turns = 0
        self._answers: deque[tuple[_Lookup, Any]] = deque()
        # Wakes the thread that stays. A helper may have taken all lookups by then.
        self._wakes: SimpleQueue[None] = SimpleQueue()
        self._hand_over: Any = None
        self.outstanding = 0
        """Number of lookups whose answers have not been collected yet."""
        self._collected = self._slow_collections = 0
        self._timer: Any = None
        self._stopped = False

    def ask(
        self, look_up: Callable[..., Any], *arguments: Any, behind: bool = False
    ) -> Deferred[Any]:
        """Fire with the value that ``look_up`` returns, or fail with the exception that it raises.
        A lookup that is cancelled before its turn is skipped.

        :param behind: nobody waits for it, so that the others go first.
        """
        lookup = _Lookup(look_up, arguments)
        self.outstanding += 1
        (self._behind if behind else self._in_front).append(lookup)
        if not self._sharing:
            self._begin()
        elif self._hand_over is None:
            self._hand_over = self._reactor.callLater(0, self._begin)
        return lookup.answer

    def waiting(self, most: int) -> list[tuple[Any, ...]]:
        """The arguments of at most so many lookups that wait for their turn, the next one first.
        Any thread may call it. A helper may begin one of them at any time.
        """
        waiting = islice(chain(self._in_front.copy(), self._behind.copy()), most)
        return [found for each in waiting if (found := each.arguments) is not None]

    def stop(self) -> None:
        """Make the threads end after their current lookups. Does not wait for them."""
        self._stopped = True
        self._wakes.put(None)
        self._end_timer()
        if self._hand_over is not None:
            self._hand_over.cancel()

    # In the threads

    def _serve(self) -> None:
        """Runs in the thread that stays."""
        while not self._stopped:
            self._wakes.get()
            self._answer_all()
        self._tidy(True)

    def _help(self) -> None:
        """Runs in a helper, which ends when no lookup is waiting."""
        self._answer_all()
        self._tidy(True)
        self._reactor.callFromThread(self._helper_ended)

    def _answer_all(self) -> None:
        if not self._in_front and not self._behind:
            return
        self._tidy(False)
        tidied = monotonic()
        while not self._stopped:
            lookup = self._take()
            if lookup is None:
                break
            self._answers.append((lookup, lookup.look_up()))
            if monotonic() - tidied > _TIDY_INTERVAL:
                self._tidy(False)
                tidied = monotonic()
        self._reactor.callFromThread(self._collect)
        self._tidy(False)

    def _take(self) -> _Lookup | None:
        self._turns += 1
        lanes = self._in_front, self._behind
        for lane in lanes if self._turns % FROM_BEHIND else reversed(lanes):
            with suppress(IndexError):  # another thread may have taken the last one
                return lane.popleft()
        return None

    def _tidy(self, ending: bool) -> None:
        """Tidy up. A failure, such as a connection that fails to close, must not end the thread."""
        try:
            self._tidy_up(ending)
        except Exception:
            failed = partial(_log.failure, "Tidying after lookups failed", failure=Failure())
            self._reactor.callFromThread(failed)

    # In the reactor thread

    def _begin(self) -> None:
        """See that a thread takes what is waiting."""
        self._hand_over = None
        self._wakes.put(None)
        if not self._threads:
            self._start_thread(self._serve)
        if self._timer is None:
            self._collected = self._slow_collections = 0
            self._timer = self._reactor.callLater(COLLECT, self._poll)

    def _start_thread(self, work: Callable[[], None]) -> None:
        self._threads += 1
        # A daemon thread: a lookup that hangs must not keep the process from ending.
        Thread(target=work, name=self._name, daemon=True).start()

    def _helper_ended(self) -> None:
        self._threads -= 1

    def _poll(self) -> None:
        self._timer = self._reactor.callLater(COLLECT, self._poll)
        self._collect()
        slow = self._collected < SLOW and self.outstanding > self._threads
        self._slow_collections = self._slow_collections + 1 if slow else 0
        self._collected = 0
        if self._slow_collections >= SLOW_COLLECTIONS and self._threads < self._max_threads:
            self._slow_collections = 0
            self._start_thread(self._help)

    def _collect(self) -> None:
        while self._answers:
            lookup, outcome = self._answers.popleft()
            self.outstanding -= 1
            self._collected += 1
            if lookup.arguments is not None:
                lookup.answer.callback(outcome)
        if not self.outstanding:
            self._end_timer()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Lookup:
    __slots__ = ("_look_up", "answer", "arguments")

    def __init__(self, look_up: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._look_up = look_up
        self.arguments: tuple[Any, ...] | None = arguments
        self.answer: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.arguments = None

    def look_up(self) -> Any:
        """In the thread: return the result or a ``Failure``; ``None`` if it was cancelled."""
        arguments = self.arguments
        if arguments is None:
            return None
        try:
            return self._look_up(*arguments)
        except GeneratorExit as error:
            # A coroutine that awaits the answer would take it for its own end.
            return Failure(RuntimeError(f"a callback raised {error!r}"))
        except BaseException:
            return Failure()
