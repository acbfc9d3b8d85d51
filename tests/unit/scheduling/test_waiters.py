"""All who wait for an event are told of it, in order; nobody is told twice, or after they left."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling.waiters import Callbacks, Waiters


class WaitersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.waiters: Waiters[str] = Waiters()
        self.told: list[tuple[str, Any]] = []

    def wait(self, name: str) -> Deferred[str]:
        waiting = self.waiters.wait()
        waiting.addBoth(lambda result: self.told.append((name, result)))
        return waiting

    def test_they_fire_in_the_order_in_which_they_began_to_wait(self) -> None:
        for name in "abc":
            self.wait(name)
        self.assertEqual((len(self.waiters), self.told), (3, []))
        self.waiters.fire("now")
        self.assertEqual(self.told, [("a", "now"), ("b", "now"), ("c", "now")])
        self.assertEqual(len(self.waiters), 0)

    def test_they_fire_once(self) -> None:
        self.wait("a")
        self.waiters.fire("now")
        self.waiters.fire("again")
        self.waiters.fail(Failure(ValueError()))
        self.assertEqual(self.told, [("a", "now")])

    def test_they_fail_together(self) -> None:
        first, second = self.waiters.wait(), self.waiters.wait()
        self.waiters.fail(Failure(ValueError("lost")))
        for each in (first, second):
            self.assertEqual(str(self.failureResultOf(each, ValueError).value), "lost")
        self.assertEqual(len(self.waiters), 0)

    def test_one_that_was_cancelled_is_forgotten(self) -> None:
        cancelled, other = self.waiters.wait(), self.waiters.wait()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(len(self.waiters), 1)
        self.waiters.fire("now")
        self.assertEqual(self.successResultOf(other), "now")

    def test_a_callback_may_cancel_those_behind_it_and_those_before_it(self) -> None:
        for outcome in ("fire", "fail"):
            with self.subTest(outcome=outcome):
                first, second, third = (self.waiters.wait() for _ in range(3))
                second.addBoth(lambda _, others=(first, third): [each.cancel() for each in others])
                if outcome == "fire":
                    self.waiters.fire("now")
                    self.assertEqual(self.successResultOf(first), "now")
                else:
                    self.waiters.fail(Failure(ValueError()))
                    self.failureResultOf(first, ValueError)
                self.failureResultOf(third, CancelledError)

    def test_one_that_begins_to_wait_meanwhile_waits_for_the_next_time(self) -> None:
        self.waiters.wait().addCallback(lambda _: self.wait("later"))
        self.waiters.fire("first")
        self.assertEqual(self.told, [])
        self.waiters.fire("second")
        self.assertEqual(self.told, [("later", "second")])


class CallbacksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.callbacks = Callbacks()
        self.called: list[str] = []

    def add(self, name: str) -> Any:
        return self.callbacks.add(lambda: self.called.append(name))

    def test_they_are_called_each_time_in_the_order_they_were_added(self) -> None:
        for name in "ab":
            self.add(name)
        self.callbacks.call()
        self.callbacks.call()
        self.assertEqual(self.called, ["a", "b", "a", "b"])

    def test_one_that_was_removed_is_not_called(self) -> None:
        remove = self.add("a")
        self.add("b")
        remove()
        remove()
        self.callbacks.call()
        self.assertEqual((self.called, len(self.callbacks)), (["b"], 1))

    def test_a_function_that_was_added_twice_is_called_twice_and_removed_once(self) -> None:
        def function() -> None:
            self.called.append("x")

        remove = self.callbacks.add(function)
        self.callbacks.add(function)
        self.callbacks.call()
        remove()
        self.callbacks.call()
        self.assertEqual(self.called, ["x"] * 3)

    def test_one_may_remove_the_next_one(self) -> None:
        self.callbacks.add(lambda: remove())
        remove = self.add("a")
        self.add("b")
        self.callbacks.call()
        self.assertEqual(self.called, ["b"])

    def test_one_that_fails_is_logged_and_costs_the_others_nothing(self) -> None:
        self.callbacks.add(lambda: [][0])
        self.add("b")
        self.callbacks.call()
        self.assertEqual(self.called, ["b"])
        self.assertEqual(len(self.flushLoggedErrors(IndexError)), 1)
