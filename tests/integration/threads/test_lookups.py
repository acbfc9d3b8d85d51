"""Lookups in threads keep their order and are collected together; a hanging one stops nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.threads.lookups import COLLECT, FROM_BEHIND, Lookups


class Wakes(Clock):
    """A reactor that wakes on the test's command. Its clock never moves."""

    def __init__(self) -> None:
        super().__init__()
        self.woken: list[Callable[[], object]] = []
        self.called = threading.Semaphore(0)

    def callFromThread(self, function: Callable[[], object]) -> None:
        self.woken.append(function)
        self.called.release()

    def end_turn(self) -> None:
        self.advance(0)

    def wake(self) -> None:
        assert self.called.acquire(timeout=TIMEOUT)
        self.woken.pop(0)()


class LookupsTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.tidied: list[bool] = []

    def make(self, on: Any = reactor, threads: int = 2, sharing: bool = False) -> Lookups:
        lookups = Lookups(on, threads, "test", self.tidied.append, sharing)
        self.addCleanup(lookups.stop)
        return lookups

    def gate(self) -> threading.Event:
        gate = threading.Event()
        self.addCleanup(gate.set)
        return gate

    @inlineCallbacks
    def test_each_gets_its_answer_or_its_failure_and_in_order(self) -> Any:
        lookups = self.make(threads=1)
        order: list[int] = []
        asked = [lookups.ask(divmod, 7, number % 3) for number in range(300)]
        for number, each in enumerate(asked):
            each.addBoth(lambda found, number=number: (order.append(number), found)[1])
            each.addErrback(lambda failure: failure.type)
        answers = yield gather(asked).addTimeout(TIMEOUT, reactor)
        self.assertEqual(answers, [ZeroDivisionError, (7, 0), (3, 1)] * 100)
        self.assertEqual(order, list(range(300)))

    @inlineCallbacks
    def test_they_are_done_in_the_order_in_which_they_were_asked_for(self) -> Any:
        lookups = self.make(threads=1)
        done: list[int] = []
        yield gather(lookups.ask(done.append, number) for number in range(1000))
        self.assertEqual(done, list(range(1000)))

    def test_those_behind_wait_for_the_others_but_a_rush_never_stops_them(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock, threads=1)
        begin, done = self.gate(), list[str]()
        lookups.ask(begin.wait, TIMEOUT)
        for number in range(3):
            lookups.ask(done.append, f"behind {number}", behind=True)
        for number in range(3 * FROM_BEHIND):
            lookups.ask(done.append, f"in front {number}")
        clock.end_turn()
        begin.set()
        clock.wake()
        self.assertEqual(sorted(done[:2]), ["in front 0", "in front 1"])
        places = [done.index(f"behind {number}") for number in range(3)]
        self.assertEqual(places, [FROM_BEHIND - 2 + number * FROM_BEHIND for number in range(3)])
        self.assertEqual(len(done), 3 + 3 * FROM_BEHIND)
        rest = [each for each in done if each.startswith("in front")]
        self.assertEqual(rest, [f"in front {number}" for number in range(3 * FROM_BEHIND)])

    @inlineCallbacks
    def test_one_that_hangs_keeps_nobody_else_waiting(self) -> Any:
        lookups = self.make()
        gate = self.gate()
        hanging = lookups.ask(gate.wait, TIMEOUT)
        answers = yield gather(lookups.ask(str, number) for number in range(50))
        self.assertEqual(answers, [str(number) for number in range(50)])
        self.assertNoResult(hanging)
        gate.set()
        self.assertTrue((yield hanging))

    @inlineCallbacks
    def test_what_is_answered_already_does_not_wait_for_one_that_hangs(self) -> Any:
        lookups = self.make(threads=1)
        gate, begun = self.gate(), threading.Event()
        lookups.ask(lambda: begun.wait(TIMEOUT))
        first = lookups.ask(int, "7")
        lookups.ask(gate.wait, TIMEOUT)
        begun.set()
        self.assertEqual((yield first.addTimeout(TIMEOUT, reactor)), 7)
        gate.set()

    @inlineCallbacks
    def test_there_are_never_more_threads_than_allowed_and_helpers_end(self) -> Any:
        lookups = self.make(threads=3)
        gate, names, both = self.gate(), set(), threading.Semaphore(0)

        def hang() -> None:
            names.add(threading.get_ident())
            both.release()
            gate.wait(TIMEOUT)

        asked = [lookups.ask(hang) for _ in range(10)]
        for _ in range(3):
            while not both.acquire(blocking=False):
                yield deferLater(reactor, 0)
        yield deferLater(reactor, 3 * COLLECT)
        self.assertEqual(len(names), 3)
        gate.set()
        yield gather(asked)
        while lookups._threads > 1:
            yield deferLater(reactor, 0)
        self.assertEqual(self.tidied.count(True), 2)

    @inlineCallbacks
    def test_a_thread_wakes_the_reactor_once_for_all_that_it_has_done(self) -> Any:
        clock = Wakes()
        lookups = self.make(on=clock)
        begin = self.gate()
        asked = [lookups.ask(begin.wait, TIMEOUT) for _ in range(200)]
        clock.end_turn()
        begin.set()
        clock.wake()
        for each in asked:
            self.assertTrue(self.successResultOf(each))
        self.assertEqual(clock.woken, [])
        self.assertEqual(clock.getDelayedCalls(), [])
        yield None

    def test_what_is_cancelled_before_its_turn_is_not_looked_up(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock)
        begin, done = self.gate(), list[int]()
        first = lookups.ask(begin.wait, TIMEOUT)
        second = lookups.ask(done.append, 2)
        third = lookups.ask(done.append, 3)
        clock.end_turn()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        begin.set()
        clock.wake()
        self.successResultOf(third)
        self.assertEqual(done, [3])

    @inlineCallbacks
    def test_whatever_is_raised_fails_that_lookup_alone(self) -> Any:
        lookups = self.make()

        def fail(error: type[BaseException]) -> None:
            raise error("deliberate")

        for raised, told in (
            (SystemExit, SystemExit),
            (KeyboardInterrupt, KeyboardInterrupt),
            (GeneratorExit, RuntimeError),
        ):
            failing: Deferred[Any] = lookups.ask(fail, raised)
            failure = yield failing.addErrback(lambda failure: [failure])
            self.assertIsInstance(failure[0], Failure)
            self.assertIs(failure[0].type, told)
        self.assertEqual((yield lookups.ask(int, "7")), 7)

    @inlineCallbacks
    def test_a_thread_tidies_before_and_after_a_row_and_when_it_ends(self) -> Any:
        lookups = self.make(threads=1)
        begin = self.gate()
        asked = [lookups.ask(begin.wait, TIMEOUT), lookups.ask(list, self.tidied)]
        begin.set()
        self.assertEqual((yield gather(asked))[1], [False])
        while len(self.tidied) < 2:
            yield deferLater(reactor, 0)
        lookups.stop()
        while len(self.tidied) < 3:  # it was waiting
            yield deferLater(reactor, 0)
        self.assertEqual(self.tidied, [False, False, True])

    @inlineCallbacks
    def test_a_tidying_that_fails_is_logged_and_ends_no_thread(self) -> Any:
        failing = [ValueError("deliberate")] * 4

        def tidy(_: bool) -> None:
            if failing:
                raise failing.pop()

        lookups = Lookups(reactor, 1, "test", tidy)
        self.addCleanup(lookups.stop)
        logged = 0
        while logged < 4:
            found = lookups.ask(int, "7").addTimeout(TIMEOUT, reactor)
            self.assertEqual((yield found), 7)
            logged += len(self.flushLoggedErrors(ValueError))

    def test_after_a_stop_what_is_under_way_is_answered_and_nothing_else_begun(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock)
        begin, begun = self.gate(), self.gate()
        first = lookups.ask(lambda: (begun.set(), begin.wait(TIMEOUT)))
        second = lookups.ask(int, "7")
        clock.end_turn()
        self.assertTrue(begun.wait(TIMEOUT))
        lookups.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
        begin.set()
        clock.wake()
        self.assertEqual(self.successResultOf(first), (None, True))
        self.assertNoResult(second)


class SharingTests(LookupsTests):
    """Lookups that are asked for in one turn are handed over together."""

    def make(self, on: Any = reactor, threads: int = 2, sharing: bool = True) -> Lookups:
        """All other tests of lookups hold for these too."""
        return super().make(on, threads, sharing)

    def test_nothing_is_handed_over_before_the_turns_end(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock)
        first = lookups.ask(int, "7")
        self.assertEqual(lookups._threads, 0)
        clock.end_turn()
        clock.wake()
        self.assertEqual(self.successResultOf(first), 7)

    def test_those_in_the_lane_behind_are_seen_after_the_others(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock, threads=1)
        lookups.ask(int, "7", behind=True)
        first = lookups.ask(lambda: lookups.waiting(3))
        lookups.ask(int, "8")
        clock.end_turn()
        clock.wake()
        self.assertEqual(self.successResultOf(first), [("8",), ("7",)])

    def test_each_sees_those_that_wait_behind_it(self) -> None:
        clock = Wakes()
        lookups = self.make(on=clock, threads=1)
        asked = [lookups.ask(lambda _: lookups.waiting(3), number) for number in range(6)]
        for each in asked[0], asked[2]:
            each.cancel()
            self.failureResultOf(each, CancelledError)
        clock.end_turn()
        clock.wake()
        seen = [self.successResultOf(asked[number]) for number in (1, 3, 4, 5)]
        # The one that was cancelled still holds its place.
        self.assertEqual(seen, [[(3,), (4,)], [(4,), (5,)], [(5,)], []])
        self.assertEqual(lookups.outstanding, 0)
