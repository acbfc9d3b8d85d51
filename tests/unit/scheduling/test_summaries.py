"""Log lines that come again and again are summed up, a line a minute."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling import summaries
from ws4redis_tx.scheduling.summaries import DIFFERENT, PERIOD, Summaries


class SummariesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, int, bool]] = []
        self.patch(summaries, "write_sum", lambda *told: self.told.append(told))
        self.sums = Summaries(self.clock)

    def admitted(self, *lines: str, kind: object = "kind") -> list[bool]:
        return [self.sums.admits(kind, line) for line in lines]

    def test_the_first_of_equal_lines_is_written_and_the_others_are_told_a_minute_later(
        self,
    ) -> None:
        self.assertEqual(self.admitted("a", "a", "b", "a"), [True, False, True, False])
        self.clock.advance(PERIOD - 1)
        self.assertEqual(self.told, [])
        self.clock.advance(1)
        self.assertEqual(self.told, [("a", 2, True)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_line_that_goes_on_coming_makes_one_line_a_minute(self) -> None:
        self.admitted("a", "a")
        for minute in range(5):
            self.clock.advance(PERIOD)
            self.assertEqual(self.told, [("a", 1, True)] * (minute + 1))
            self.assertEqual(self.admitted("a"), [False])

    def test_after_a_quiet_minute_it_is_new_again(self) -> None:
        self.admitted("a", "a")
        self.clock.advance(PERIOD)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(PERIOD)
        self.assertEqual(self.admitted("a"), [True])

    def test_of_one_kind_so_many_different_lines_are_written(self) -> None:
        lines = [str(number) for number in range(DIFFERENT + 3)]
        self.assertEqual(self.admitted(*lines), [True] * DIFFERENT + [False] * 3)
        self.assertEqual(self.admitted("0", kind="other"), [True])
        self.clock.advance(PERIOD)
        self.assertEqual(self.told, [(lines[-1], 3, False)])
        self.assertEqual(self.admitted("new"), [True])

    def test_lines_with_one_key_are_equal(self) -> None:
        self.assertTrue(self.sums.admits("kind", "a 1", key="a"))
        self.assertFalse(self.sums.admits("kind", "a 2", key="a"))
        self.clock.advance(PERIOD)
        self.assertEqual(self.told, [("a 1", 1, True)])

    def test_a_line_may_be_left_out_at_once(self) -> None:
        self.sums.leave_out("kind", "a")
        self.sums.leave_out("kind", "b")
        self.clock.advance(PERIOD)
        self.assertEqual(self.told, [("b", 2, False)])

    def test_the_kinds_are_bounded(self) -> None:
        for number in range(1000):
            self.sums.admits(number, f"line {number}")
            self.sums.leave_out(number, f"line {number}")
        self.clock.advance(PERIOD)
        self.assertLess(len(self.told), 200)
        self.assertGreater(sum(count for _, count, _ in self.told), 1000)

    def test_the_end_tells_what_was_counted(self) -> None:
        self.admitted("a", "a")
        self.sums.stop()
        self.sums.stop()
        self.assertEqual(self.told, [("a", 1, True)])
        self.assertEqual(self.clock.getDelayedCalls(), [])
