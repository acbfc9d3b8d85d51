"""One timer for all websockets: each has its turn once a period, and the turns are spread."""

from __future__ import annotations

import contextlib
from collections import Counter
from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from ws4redis_tx.scheduling.sweeps import PeriodicSweep


class PeriodicSweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.visited: Counter[int] = Counter()
        self.checked: Counter[int] = Counter()
        self.sweep: PeriodicSweep[int] = PeriodicSweep(
            25,
            lambda member: self.visited.update([member]),
            self.clock,
            Random(1),
            check_after=10,
            check=lambda member: self.checked.update([member]),
        )

    def test_each_member_is_visited_once_a_period_and_checked_later(self) -> None:
        for member in range(500):
            self.sweep.add(member)
        for periods in (1, 2, 3):
            self.clock.pump([0.25] * 100)
            self.assertEqual(set(self.visited.values()), {periods})
        self.assertEqual(set(self.checked.values()), {3})

    def test_those_who_came_together_are_spread_over_the_period(self) -> None:
        for member in range(1000):
            self.sweep.add(member)
        most = 0
        for _ in range(100):
            before = self.visited.total()
            self.clock.advance(0.25)
            most = max(most, self.visited.total() - before)
        self.assertEqual(self.visited.total(), 1000)
        self.assertLess(most, 40)

    def test_the_check_comes_when_it_should(self) -> None:
        self.sweep.add(1)
        while not self.visited:
            self.clock.advance(0.25)
        visited = self.clock.seconds()
        self.checked.clear()
        while not self.checked:
            self.clock.advance(0.25)
        self.assertEqual(self.clock.seconds() - visited, 10)

    def test_a_process_that_was_busy_leaves_nobody_out(self) -> None:
        for member in range(100):
            self.sweep.add(member)
        self.clock.advance(25)
        self.assertEqual(set(self.visited.values()), {1})

    def test_after_a_stall_nobody_is_checked_who_had_no_time_to_answer(self) -> None:
        for member in range(1000):
            self.sweep.add(member)
        for stall in (11, 20, 40, 400):
            self.checked.clear()
            self.clock.advance(stall)
            self.assertEqual(self.checked.total(), 0)
            self.clock.pump([0.25] * 140)
            self.assertEqual(self.checked.keys(), set(range(1000)))
            self.assertLessEqual(set(self.checked.values()), {1, 2})  # 35 s of a period of 25

    def test_nor_is_one_who_was_visited_late(self) -> None:
        for together in (0, 100):
            patience: list[float] = []
            visited: dict[int, float] = {}

            def visit(member: int, visited: dict[int, float] = visited) -> None:
                visited[member] = self.clock.seconds()

            def check(
                member: int,
                visited: dict[int, float] = visited,
                patience: list[float] = patience,
            ) -> None:
                patience.append(self.clock.seconds() - visited.get(member, -100.0))

            sweep: PeriodicSweep[int] = PeriodicSweep(
                25, visit, self.clock, Random(1), check_after=10, check=check, together=together
            )
            for member in range(1000):
                sweep.add(member)
            for stall in (3, 11, 30):
                self.clock.pump([0.25] * 140)
                self.clock.advance(stall)
            self.clock.pump([0.25] * 140)
            self.assertGreater(len(patience), 3000)
            self.assertGreaterEqual(min(patience), 10)

    def test_who_left_is_not_visited_and_without_members_no_timer_runs(self) -> None:
        self.sweep.add(1)
        self.sweep.add(2)
        self.sweep.discard(1)
        self.sweep.discard(1)
        self.clock.pump([0.25] * 100)
        self.assertEqual(list(self.visited), [2])
        self.sweep.discard(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.sweep.add(3)
        self.clock.pump([0.25] * 100)
        self.assertEqual(self.visited[3], 1)

    def test_a_member_may_leave_while_it_is_visited(self) -> None:
        sweep: PeriodicSweep[int] = PeriodicSweep(
            4, lambda member: sweep.discard(member), self.clock, Random()
        )
        for member in range(20):
            sweep.add(member)
        self.clock.pump([0.25] * 16)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def sweep_together(self) -> PeriodicSweep[int]:
        return PeriodicSweep(
            25,
            lambda member: self.visited.update([member]),
            self.clock,
            Random(1),
            check_after=10,
            check=lambda member: self.checked.update([member]),
            together=100,
        )

    def visits_at_once(self, sweep: PeriodicSweep[int], members: range) -> list[int]:
        """The numbers of members that are visited at once in a period."""
        for member in members:
            sweep.add(member)
        self.clock.pump([0.25] * 100)
        numbers = []
        for _ in range(100):
            before = self.visited.total()
            self.clock.advance(0.25)
            numbers.append(self.visited.total() - before)
        return [number for number in numbers if number]

    def test_a_few_members_are_visited_together(self) -> None:
        sweep = self.sweep_together()
        self.assertEqual(len(self.visits_at_once(sweep, range(2000))), 25)
        self.assertEqual(set(self.visited.values()), {2})
        self.assertEqual(len(self.visits_at_once(sweep, range(2000, 3000))), 50)
        self.assertEqual(len(self.visits_at_once(sweep, range(3000, 5000))), 50)
        self.assertEqual(len(self.visits_at_once(sweep, range(5000, 15_000))), 100)
        self.assertEqual(self.checked.keys(), self.visited.keys())

    def test_the_check_of_those_comes_when_it_should(self) -> None:
        sweep = self.sweep_together()
        self.clock.advance(0.1)
        sweep.add(1)
        self.clock.pump([1 / 64] * 2000)
        self.visited.clear()
        while not self.visited:
            self.clock.advance(1 / 64)
        visited = self.clock.seconds()
        self.checked.clear()
        while not self.checked:
            self.clock.advance(1 / 64)
        self.assertAlmostEqual(self.clock.seconds() - visited, 10)

    def test_of_those_too_nobody_is_checked_after_a_stall(self) -> None:
        sweep = self.sweep_together()
        for member in range(1000):
            sweep.add(member)
        self.clock.pump([0.25] * 100)
        for stall in (11, 20, 40, 400):
            self.checked.clear()
            self.clock.advance(stall)
            self.assertEqual(self.checked.total(), 0)
            self.clock.pump([0.25] * 144)
            self.assertEqual(self.checked.keys(), set(range(1000)))

    def test_a_check_is_left_out_where_it_is_not_needed(self) -> None:
        needed = {1, 2}
        sweep: PeriodicSweep[int] = PeriodicSweep(
            4,
            lambda member: None,
            self.clock,
            Random(1),
            check_after=1,
            check=lambda member: self.checked.update([member]),
            check_if=needed.__contains__,
        )
        for member in range(5):
            sweep.add(member)
        self.clock.pump([0.25] * 40)
        self.assertEqual(set(self.checked), needed)

    def test_a_visit_that_fails_is_not_the_last(self) -> None:
        def fail(member: int) -> None:
            self.visited.update([member])
            raise ZeroDivisionError

        sweep: PeriodicSweep[int] = PeriodicSweep(4, fail, self.clock, Random(1))
        sweep.add(1)
        for _ in range(48):
            with contextlib.suppress(ZeroDivisionError):
                self.clock.advance(0.25)
        self.assertEqual(self.visited[1], 3)

    def test_a_second_costs_three_calls(self) -> None:
        def advance() -> None:
            for _ in range(100):
                self.clock.advance(0.25)

        self.sweep_together().add(1)
        calls = counted_calls(advance, within="/ws4redis_tx/")
        self.assertLessEqual(calls.total(), 3 * 25, calls)
