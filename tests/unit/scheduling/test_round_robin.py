"""Whoever has much to do takes turns with the others, and with the reactor."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import ReactorClock
from ws4redis_tx.scheduling.round_robin import SLICE, TURN, TURN_STEPS, RoundRobin


class Worker:
    """Has a number of steps to do. Each moves the clock by ``cost``."""

    def __init__(self, name: str, steps: int, cost: float = 0.0) -> None:
        self.name = name
        self.left = steps
        self.cost = cost
        self.on_step: Callable[[], object] = lambda: None


class RoundRobinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ReactorClock()
        self.steps: list[str] = []
        self.turns: RoundRobin[Worker] = RoundRobin(self.step, self.clock)

    def step(self, worker: Worker) -> bool:
        worker.left -= 1
        self.steps.append(worker.name)
        self.clock.rightNow += worker.cost
        worker.on_step()
        return worker.left > 0

    def join(self, name: str, steps: int, cost: float = 0.0) -> Worker:
        worker = Worker(name, steps, cost)
        self.turns.join(worker)
        return worker

    def pass_slice(self) -> str:
        """What is done in the next slice."""
        self.steps.clear()
        self.clock.advance(0)
        return "".join(self.steps)

    def test_a_little_is_done_at_once_and_leaves_no_timer(self) -> None:
        self.join("a", 3)
        self.join("b", 1)
        self.assertEqual(self.steps, list("aaab"))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_turn_has_a_number_of_steps(self) -> None:
        self.join("a", TURN_STEPS + 1)
        self.assertEqual(self.steps, ["a"] * TURN_STEPS)
        self.assertEqual(self.pass_slice(), "a")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_turn_has_a_time(self) -> None:
        self.join("a", 4, cost=TURN / 2)
        self.assertEqual(self.steps, ["a"] * 2)

    def test_all_have_their_turns_one_after_another(self) -> None:
        for name in "abc":
            self.join(name, 2 * TURN_STEPS + 1)
        self.assertEqual(self.steps, ["a"] * TURN_STEPS)
        turn = {name: name * TURN_STEPS for name in "abc"}
        rounds = [turn["a"], turn["b"], turn["c"], "a", turn["b"], turn["c"], "b", "c"]
        self.assertEqual(self.pass_slice(), "".join(rounds))

    def test_a_slice_takes_no_longer_than_it_may(self) -> None:
        for name in "abc":
            self.join(name, 100, cost=TURN)
        for _ in range(10):
            done = self.pass_slice()
            self.assertEqual(len(done), round(SLICE / TURN))
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_what_is_done_at_once_takes_no_longer_than_a_slice_either(self) -> None:
        for number in range(100):
            self.join(str(number), 1, cost=TURN)
        self.assertEqual(len(self.steps), round(SLICE / TURN))
        self.assertEqual(len(self.pass_slice()), round(SLICE / TURN))

    def test_after_a_slice_a_little_is_done_at_once_again(self) -> None:
        self.join("a", 1, cost=SLICE)
        self.join("b", 1)
        self.assertEqual(self.steps, ["a"])
        self.assertEqual(self.pass_slice(), "b")
        self.join("c", 1)
        self.assertEqual(self.steps, ["b", "c"])

    def test_a_clock_that_is_set_back_does_not_make_a_slice_longer(self) -> None:
        self.join("a", 1, cost=-3600)
        for number in range(1, 10):
            self.join(str(number), 1, cost=TURN)
        self.assertEqual(len(self.steps), 1 + round(SLICE / TURN))

    def test_who_waits_already_keeps_the_place(self) -> None:
        first = self.join("a", 2 * TURN_STEPS)
        self.join("b", 1)
        self.turns.join(first)
        self.assertEqual(self.pass_slice(), "a" * TURN_STEPS + "b")

    def test_one_step_that_fails_harms_nobody_else(self) -> None:
        broken = self.join("a", TURN_STEPS + 1)
        self.join("b", 1)
        broken.on_step = lambda: 1 / 0
        self.assertEqual(self.pass_slice(), "ab")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_joins_during_a_turn_of_another_comes_after_it(self) -> None:
        first = Worker("a", 3)
        first.on_step = lambda: first.left == 1 and self.join("b", 1)
        self.turns.join(first)
        self.assertEqual(self.steps, list("aaa"))
        self.assertEqual(self.pass_slice(), "b")
