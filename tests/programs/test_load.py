"""Under load: no connect among 400 sees a gap or a duplicate, and thousands of websockets that come
and go leave nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support.clients import Wire
from tests.support.servers import LoadTestCase, our_objects
from tests.support.sizes import CYCLES


class LoadTests(LoadTestCase):
    timeout = 120

    @inlineCallbacks
    def test_400_connects_under_200_messages_a_second_see_no_gap_and_no_duplicate(self) -> Any:
        yield self.start_server()
        yield self.connect_under_load(400)

    @inlineCallbacks
    def test_open_close_cycles_leave_no_object_no_subscription_no_connection(self) -> Any:
        yield self.start_server()
        yield self.assert_cycles_leave_nothing(CYCLES)


class OwnObjectsTests(SynchronousTestCase):
    """The check detects a leak."""

    def test_a_kept_object_of_ours_is_counted(self) -> None:
        before = our_objects()
        kept = Wire()
        self.assertEqual((our_objects() - before)["Wire"], 1)
        self.assertEqual((our_objects() - before)["Deferred"], 2)
        del kept
        self.assertEqual(our_objects() - before, Counter())
