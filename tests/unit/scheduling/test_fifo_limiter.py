"""Turns at the authorizer: their order, their number, and turns that take too long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling.fifo_limiter import AT_ONCE, LONGEST_WAIT, FifoLimiter
from ws4redis_tx.scheduling.timeouts import Timeouts


class TimeoutsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.late: list[str] = []
        self.timeouts: Timeouts[str] = Timeouts(5, self.late.append, self.clock)

    def test_who_is_still_here_is_late_at_the_deadline_and_once(self) -> None:
        self.timeouts.add("a")
        self.clock.advance(4)
        self.timeouts.add("b")
        self.assertEqual(self.late, [])
        self.clock.advance(1)
        self.assertEqual(self.late, ["a"])
        self.clock.pump([1] * 20)
        self.assertEqual(self.late, ["a", "b"])

    def test_who_left_is_not_late_and_who_is_added_again_has_all_the_time_again(self) -> None:
        for member in "abc":
            self.timeouts.add(member)
        self.clock.advance(4)
        self.timeouts.discard("a")
        self.timeouts.add("b")
        self.clock.advance(1)
        self.assertEqual(self.late, ["c"])
        self.clock.advance(4)
        self.assertEqual(self.late, ["c", "b"])

    def test_there_is_one_timer_for_all_and_none_when_all_have_left(self) -> None:
        for number in range(1000):
            self.timeouts.add(str(number))
            self.clock.advance(0.001)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        for number in range(1000):
            self.timeouts.discard(str(number))
        self.clock.advance(5)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_leaves_nobody_and_no_timer(self) -> None:
        self.timeouts.add("a")
        self.timeouts.stop()
        self.assertEqual(len(self.timeouts), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.timeouts.add("b")
        self.clock.advance(5)
        self.assertEqual(self.late, ["b"])

    def test_one_that_is_late_may_end_others_and_start_again(self) -> None:
        def late(member: str) -> None:
            self.late.append(member)
            timeouts.discard("b")
            timeouts.add("c")
            timeouts.add(member)

        timeouts: Timeouts[str] = Timeouts(5, late, self.clock)
        for member in "abc":
            timeouts.add(member)
        self.clock.advance(5)
        self.assertEqual(self.late, ["a"])
        self.clock.advance(5)
        self.assertEqual(self.late, ["a", "c", "a"])


class FifoLimiterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[int] = []
        self.given_up: list[int] = []
        self.limiter = self.make()

    def make(self, most: int = 1000) -> FifoLimiter[int]:
        return FifoLimiter(most, self.begun.append, self.given_up.append, self.clock)

    def join(self, number: int) -> None:
        for member in range(number):
            self.assertTrue(self.limiter.join(member))

    def test_so_many_have_their_turn_at_a_time_and_the_others_in_the_order_they_came(self) -> None:
        self.join(1000)
        self.assertEqual(self.begun, list(range(AT_ONCE)))
        for member in range(1000):
            self.limiter.leave(member, served=True)
        self.assertEqual(self.begun, list(range(1000)))
        self.assertEqual(len(self.limiter), 0)

    def test_who_comes_later_does_not_pass_those_who_wait(self) -> None:
        self.join(AT_ONCE + 1)
        self.begun.clear()
        self.limiter.leave(AT_ONCE)  # the one that waits
        self.limiter.join(501)
        self.limiter.join(502)
        self.limiter.leave(7, served=True)
        self.limiter.leave(3, served=True)
        self.assertEqual(self.begun, [501, 502])

    def test_no_more_than_there_may_be_are_let_in(self) -> None:
        self.limiter = self.make(most=AT_ONCE + 2)
        self.join(AT_ONCE + 2)
        self.assertFalse(self.limiter.join(-1))
        self.limiter.leave(AT_ONCE + 1)
        self.limiter.leave(AT_ONCE + 1)
        self.assertTrue(self.limiter.join(-2))
        self.assertFalse(self.limiter.join(-3))

    def test_who_left_has_no_turn_any_more(self) -> None:
        self.join(AT_ONCE + 3)
        self.limiter.leave(AT_ONCE + 1)
        for member in range(3):
            self.limiter.leave(member)
        self.assertEqual(self.begun[AT_ONCE:], [AT_ONCE, AT_ONCE + 2])

    def test_turns_that_end_as_they_begin_need_no_stack(self) -> None:
        def begin(member: int) -> None:
            self.begun.append(member)
            if member >= AT_ONCE:
                limiter.leave(member, served=True)

        limiter: FifoLimiter[int] = FifoLimiter(100_000, begin, self.given_up.append, self.clock)
        for member in range(20_000):
            limiter.join(member)
        limiter.leave(0, served=True)
        self.assertEqual(self.begun, list(range(20_000)))

    def test_when_nobody_is_served_during_a_whole_turn_those_who_wait_are_given_up(self) -> None:
        self.join(AT_ONCE + 3)
        self.limiter.overdue(0)
        self.assertEqual(self.given_up, [AT_ONCE, AT_ONCE + 1, AT_ONCE + 2])
        self.assertEqual(self.begun, list(range(AT_ONCE)))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_those_who_are_many_are_given_up_by_and_by_in_the_order_they_came(self) -> None:
        self.join(1000)
        self.limiter.overdue(0)
        self.limiter.overdue(1)
        self.assertLess(len(self.given_up), 500)
        self.assertEqual(len(self.limiter), AT_ONCE)
        self.limiter.leave(0)
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.given_up, list(range(AT_ONCE, 1000)))
        self.assertEqual(self.begun, list(range(AT_ONCE)))

    def test_a_stop_leaves_nobody_to_be_given_up(self) -> None:
        self.join(1000)
        self.limiter.overdue(0)
        self.limiter.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_as_long_as_anybody_is_served_those_who_wait_wait_on(self) -> None:
        self.join(AT_ONCE + 3)
        self.limiter.leave(1, served=True)
        self.limiter.overdue(0)
        self.limiter.leave(0)
        self.assertEqual(self.given_up, [])
        self.assertEqual(self.begun[AT_ONCE:], [AT_ONCE, AT_ONCE + 1])

    def test_nobody_waits_for_ever(self) -> None:
        self.join(AT_ONCE + 2)
        self.clock.advance(LONGEST_WAIT - 1)
        self.limiter.leave(0, served=True)
        self.assertEqual(self.given_up, [])
        self.clock.advance(1)
        self.assertEqual(self.given_up, [AT_ONCE + 1])
        self.assertEqual(len(self.limiter), AT_ONCE)
