"""The timers of a reactor do not follow the system clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling.clock import use_monotonic_clock


class _Reactor(ReactorBase):
    """Twisted's timers, and nothing else."""

    def installWaker(self) -> None:  # noqa: N802
        pass


class ClockTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.time_of_day, self.elapsed = 1_800_000_000.0, 100.0
        self.reactor: Any = _Reactor()
        self.reactor.seconds = lambda: self.time_of_day
        self.called: list[float] = []

    def use(self) -> None:
        use_monotonic_clock(self.reactor, lambda: self.elapsed)

    def wait(self, seconds: float) -> None:
        self.time_of_day += seconds
        self.elapsed += seconds
        self.reactor.runUntilCurrent()

    def later(self, seconds: float) -> None:
        self.reactor.callLater(seconds, self.called.append, seconds)

    def test_a_step_in_either_direction_changes_nothing(self) -> None:
        self.use()
        for step in (-3600, 3600):
            self.called.clear()
            self.later(10)
            self.time_of_day += step
            self.later(5)
            self.wait(4)
            self.assertEqual(self.called, [])
            self.assertEqual(self.reactor.timeout(), 1)
            self.wait(2)
            self.assertEqual(self.called, [5])
            self.wait(5)
            self.assertEqual(self.called, [5, 10])

    def test_a_timer_that_was_set_before_keeps_its_time(self) -> None:
        self.later(10)
        self.use()
        self.time_of_day -= 3600
        self.wait(9)
        self.assertEqual(self.called, [])
        self.wait(2)
        self.assertEqual(self.called, [10])

    def test_a_loop_goes_on(self) -> None:
        self.use()
        loop = LoopingCall(lambda: self.called.append(self.elapsed))
        loop.clock = self.reactor
        loop.start(1, now=False)
        self.addCleanup(loop.stop)
        for step in (-3600, 0, 3600, 0):
            self.time_of_day += step
            self.wait(1.01)
        self.assertEqual(len(self.called), 4)

    def test_the_second_call_changes_nothing(self) -> None:
        self.use()
        self.later(10)
        self.time_of_day -= 3600
        self.use()
        self.wait(11)
        self.assertEqual(self.called, [10])

    def test_it_starts_from_the_time_of_day(self) -> None:
        self.use()
        self.assertEqual(self.reactor.seconds(), self.time_of_day)
