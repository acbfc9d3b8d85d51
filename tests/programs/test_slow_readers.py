"""A client that never reads costs the server no more than its bound, under any policy."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.slow_reader import MEBIBYTE, measure
from tests.support.sizes import MEBIBYTES
from ws4redis_tx.core.limits import SLOW_READER_POLICIES


class MemoryTests(SynchronousTestCase):
    def test_a_client_that_never_reads_costs_less_than_6_mebibytes(self) -> None:
        for policy in SLOW_READER_POLICIES:
            outcome = measure(policy, MEBIBYTES, rounds=1, readers_number=1)
            self.assertLess(outcome.growth, 6 * MEBIBYTE, policy)
