"""Lookups that block, in threads of their own. Knows threads; not what is looked up.

One thread does them, in the order in which they are asked for. Only while that is slow, as it waits
for a database or hangs, others help: two that compute take longer than one.

Under load a thread does not wake the reactor for each answer: the two would wait for each other
thousands of times a second. It does when it has nothing left to do; until then the reactor comes
for the answers by itself, every few milliseconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()

COLLECT = 0.01
"""Seconds that an answer may wait for others."""

SLOW = 3
"""Answers in that time; fewer, while more are asked for, and another thread helps."""

_TIDY = 1.0  # seconds between two tidyings of a thread that is never idle


class Lookups:
    """At most ``threads`` threads, of which one stays.

    :param tidy: called in a thread before and after a row of lookups, and now and then within a
        long one; with whether the thread ends.
    """

    def __init__(
        self, reactor: Any, threads: int, name: str, tidy: Callable[[bool], object]
    ) -> None:
        self._reactor = reactor
        self._most = threads
        self._name = name
        self._tidy_up = tidy
        self._threads = 0
        self._asked: SimpleQueue[_Question | None] = SimpleQueue()
        self._answered: deque[tuple[_Question, Any]] = deque()
        self.outstanding = 0
        """How many were asked for and not collected yet."""
        self._collected = 0
        self._timer: Any = None
        self._stopped = False

    def ask(self, look_up: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Fire with what ``look_up`` returns, or fail with what it raises. What is cancelled before
        its turn comes costs nothing.
        """
        question = _Question(look_up, arguments)
        self.outstanding += 1
        self._asked.put(question)
        if not self._threads:
            self._start_thread(self._serve)
        if self._timer is None:
            self._collected = 0
            self._timer = self._reactor.callLater(COLLECT, self._come_for_answers)
        return question.answer

    def stop(self) -> None:
        """End the threads, after what they are at; waits for nothing, and begins nothing more."""
        self._stopped = True
        self._asked.put(None)
        self._end_timer()

    # In the threads

    def _serve(self) -> None:
        """For the one that stays."""
        while not self._stopped:
            self._answer_all(self._asked.get())
        self._tidy(True)

    def _help(self) -> None:
        """For one that ends when nobody waits any more."""
        with suppress(Empty):
            self._answer_all(self._asked.get_nowait())
        self._tidy(True)
        self._reactor.callFromThread(self._helped)
        if self._stopped:
            self._asked.put(None)  # in case that it was taken from the one that stays

    def _answer_all(self, question: _Question | None) -> None:
        self._tidy(False)
        tidied = monotonic()
        with suppress(Empty):
            while question is not None and not self._stopped:
                self._answered.append((question, question.look_up()))
                if monotonic() - tidied > _TIDY:
                    self._tidy(False)
                    tidied = monotonic()
                question = self._asked.get_nowait()
        self._reactor.callFromThread(self._collect)
        self._tidy(False)

    def _tidy(self, ending: bool) -> None:
        """What it raises, such as a connection that fails to close, ends no thread."""
        try:
            self._tidy_up(ending)
        except Exception:
            log = partial(_log.failure, "Tidying after lookups failed", failure=Failure())
            self._reactor.callFromThread(log)

    # In the reactor's

    def _start_thread(self, work: Callable[[], None]) -> None:
        self._threads += 1
        # It must not keep the process from ending, as long as what it is at may take.
        Thread(target=work, name=self._name, daemon=True).start()

    def _helped(self) -> None:
        self._threads -= 1

    def _come_for_answers(self) -> None:
        self._timer = self._reactor.callLater(COLLECT, self._come_for_answers)
        self._collect()
        if (
            self._collected < SLOW
            and self.outstanding > self._threads
            and self._threads < self._most
        ):
            self._start_thread(self._help)
        self._collected = 0

    def _collect(self) -> None:
        while self._answered:
            question, outcome = self._answered.popleft()
            self.outstanding -= 1
            self._collected += 1
            if question.arguments is not None:
                question.answer.callback(outcome)
        if not self.outstanding:
            self._end_timer()

    def _end_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Question:
    __slots__ = ("_look_up", "answer", "arguments")

    def __init__(self, look_up: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._look_up = look_up
        self.arguments: tuple[Any, ...] | None = arguments
        self.answer: Deferred[Any] = Deferred(self._cancel)

    def _cancel(self, _: object) -> None:
        self.arguments = None

    def look_up(self) -> Any:
        """In the thread: what it is, or the Failure; ``None`` if nobody wants to know."""
        arguments = self.arguments
        if arguments is None:
            return None
        try:
            return self._look_up(*arguments)
        except GeneratorExit as error:
            # To whoever waits for this it would mean something else.
            return Failure(RuntimeError(f"a callback raised {error!r}"))
        except BaseException:
            return Failure()
