"""A client that never reads costs the server no more than its bound, under any policy."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.slow_reader import MEBIBYTE, measure
from ws4redis_tx.core.limits import SLOW_READER_POLICIES


class MemoryTests(SynchronousTestCase):
    def test_200_mebibytes_past_a_client_that_never_reads_take_less_than_6(self) -> None:
        for policy in SLOW_READER_POLICIES:
            outcome = measure(policy, 200, rounds=1, readers_number=1)
            self.assertLess(outcome.growth, 6 * MEBIBYTE, policy)
