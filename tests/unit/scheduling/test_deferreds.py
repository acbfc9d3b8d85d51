"""Waiting for several Deferreds at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling.deferreds import gather, succeeded


class GatherTests(SynchronousTestCase):
    def test_all_results_come_in_order_however_they_arrive(self) -> None:
        for number in range(5):
            waiting: list[Deferred[Any]] = [Deferred() for _ in range(number)]
            gathered = gather(iter(waiting))
            for index in reversed(range(number)):
                self.assertNoResult(gathered)
                waiting[index].callback(index)
            self.assertEqual(self.successResultOf(gathered), list(range(number)))
        self.assertEqual(self.successResultOf(gather([succeed(1), succeed(2)])), [1, 2])

    def test_the_first_failure_is_the_outcome_as_it_is(self) -> None:
        late: Deferred[Any] = Deferred()
        for others in ([], [succeed(1)], [succeed(1), fail(ValueError()), late]):
            self.failureResultOf(gather([fail(KeyError()), *others]), KeyError)
        late.callback(None)

    def test_no_other_failure_is_logged_and_nothing_that_comes_later_counts(self) -> None:
        waiting: list[Deferred[Any]] = [Deferred() for _ in range(3)]
        gathered = gather(waiting)
        waiting[1].errback(KeyError())
        waiting[0].errback(ValueError())
        waiting[2].callback(None)
        self.failureResultOf(gathered, KeyError)
        del waiting
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_to_cancel_it_cancels_all(self) -> None:
        for number in (1, 3):
            cancelled: list[object] = []
            gathered = gather([Deferred(cancelled.append) for _ in range(number)])
            gathered.cancel()
            self.failureResultOf(gathered, CancelledError)
            self.assertEqual(len(cancelled), number)

    def test_one_that_has_fired_has_no_result_while_that_of_its_callback_is_awaited(self) -> None:
        outer, inner = Deferred[Any](), Deferred[Any]()
        self.assertFalse(succeeded(outer))
        outer.addCallback(lambda _: inner)
        outer.callback(None)
        self.assertFalse(succeeded(outer))
        inner.callback(None)
        self.assertTrue(succeeded(outer))

    def test_a_failure_is_none(self) -> None:
        failed: Deferred[Any] = fail(ZeroDivisionError())
        self.assertFalse(succeeded(failed))
        self.failureResultOf(failed, ZeroDivisionError)
