"""Limits on the messages that a peer sends and on the websockets that it has."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.limits import BURST, Allowance, Quota, Rate, make_rate


class AllowanceTests(SynchronousTestCase):
    def test_a_quiet_client_may_send_a_burst(self) -> None:
        allowance = Allowance(Rate(10, 1000), 0)
        for _ in range(int(10 * BURST)):
            self.assertTrue(allowance.take(0, messages=1))
        self.assertFalse(allowance.take(0, messages=1))

    def test_the_rate_itself_may_be_kept_up_for_ever(self) -> None:
        allowance = Allowance(Rate(10, 1000), 0)
        for tick in range(10_000):
            self.assertTrue(allowance.take(tick / 10, messages=1, size=100))

    def test_a_clock_that_is_set_back_takes_nothing_away(self) -> None:
        allowance = Allowance(Rate(1, 1000), 1000)
        self.assertTrue(allowance.take(1000, messages=1))
        self.assertTrue(allowance.take(0, messages=1))
        self.assertTrue(allowance.take(1, messages=1))

    def test_bytes_are_counted_as_well(self) -> None:
        allowance = Allowance(Rate(10, 1000), 0)
        self.assertTrue(allowance.take(0, size=10_000))
        self.assertFalse(allowance.take(0, size=1))

    @settings(deadline=None, max_examples=200)
    @given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 50)), max_size=40))
    def test_never_more_than_the_burst_and_the_rate_together(
        self, steps: list[tuple[float, int]]
    ) -> None:
        allowance, now, taken = Allowance(Rate(10, 1), 0), 0.0, 0
        for passed, messages in steps:
            now += passed
            if not allowance.take(now, messages=messages):
                break
            taken += messages
            self.assertLessEqual(taken, 10 * (BURST + now) + 1e-6)

    def test_a_rate_is_made_from_a_pair_and_no_rate_from_none(self) -> None:
        self.assertIsNone(make_rate(None))
        self.assertEqual(make_rate((5, 0.5)), Rate(5, 0.5))


class QuotaTests(SynchronousTestCase):
    def test_each_key_has_its_own_and_what_is_given_back_can_be_taken_again(self) -> None:
        quota = Quota(2)
        self.assertEqual([quota.take("a") for _ in range(3)], [True, True, False])
        self.assertTrue(quota.take("b"))
        quota.give_back("a")
        self.assertTrue(quota.take("a"))

    def test_nothing_is_remembered_of_who_has_nothing(self) -> None:
        quota = Quota(2)
        quota.take("a")
        quota.give_back("a")
        self.assertEqual(len(quota), 0)
