"""Arrivals before an outage, and the persisted messages that were missed in it."""

from __future__ import annotations

import hashlib

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.redis.arrivals import Arrivals
from ws4redis_tx.redis.persisted import PORTION_BYTES, Persisted, RedisClock, portions


class ArrivalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.arrivals = Arrivals()
        self.arrivals.read_clock(RedisClock(1000))

    def test_what_was_stamped_after_the_last_probe_and_did_not_arrive_was_missed(self) -> None:
        self.arrivals.prove(RedisClock(100))
        self.assertTrue(self.arrivals.missed(b"c", b"new", 101))

    def test_what_was_stamped_before_the_last_probe_has_arrived(self) -> None:
        self.arrivals.prove(RedisClock(100))
        self.assertFalse(self.arrivals.missed(b"c", b"old", 100))

    def test_what_arrived_since_the_last_probe_was_not_missed(self) -> None:
        self.arrivals.prove(RedisClock(100))
        self.arrivals.note(b"c", b"new")
        self.assertFalse(self.arrivals.missed(b"c", b"new", 101))
        self.assertTrue(self.arrivals.missed(b"d", b"new", 101))

    def test_equal_bytes_published_again_during_the_outage_are_another_message(self) -> None:
        self.arrivals.note(b"c", b"same")
        self.arrivals.prove(RedisClock(100))
        self.assertTrue(self.arrivals.missed(b"c", b"same", 101))

    def test_what_was_read_by_all_who_listened_was_not_missed(self) -> None:
        self.arrivals.prove(RedisClock(100))
        self.arrivals.note_read(b"c", b"read")
        self.assertFalse(self.arrivals.missed(b"c", b"read", 101))

    def test_what_arrived_is_newer_than_what_was_read(self) -> None:
        self.arrivals.note(b"c", b"arrived")
        self.arrivals.note_read(b"c", b"read")
        self.arrivals.prove(RedisClock(100))
        self.assertFalse(self.arrivals.missed(b"c", b"arrived", None))

    def test_without_a_stamp_equal_bytes_count_as_the_last_message_again(self) -> None:
        self.arrivals.note(b"c", b"last")
        self.arrivals.prove(RedisClock(100))
        self.arrivals.prove(RedisClock(200))
        self.assertFalse(self.arrivals.missed(b"c", b"last", None))
        self.assertTrue(self.arrivals.missed(b"c", b"other", None))
        self.arrivals.forget(b"c")
        self.assertTrue(self.arrivals.missed(b"c", b"last", None))

    def test_only_what_arrived_since_the_last_probe_is_counted(self) -> None:
        self.arrivals.note(b"c", b"1")
        self.arrivals.note(b"c", b"2")
        self.assertEqual(len(self.arrivals.recent), 2)
        self.arrivals.prove(RedisClock(1))
        self.assertEqual(len(self.arrivals.recent), 0)

    def test_of_another_server_or_of_one_whose_clock_was_set_back_no_stamp_is_compared(
        self,
    ) -> None:
        for proven, now in (
            (RedisClock(500, b"one"), RedisClock(1000, b"another")),
            (RedisClock(500, b"one"), RedisClock(499, b"one")),
        ):
            self.arrivals.read_clock(now)
            self.arrivals.note(b"c", b"heard")
            self.arrivals.prove(proven)
            for stamp in (300, 501):
                self.assertTrue(self.arrivals.may_be_missed(b"c", stamp))
                self.assertTrue(self.arrivals.missed(b"c", b"missed", stamp))
                self.assertFalse(self.arrivals.missed(b"c", b"heard", stamp))
        self.arrivals.read_clock(RedisClock(501, b"one"))
        self.assertFalse(self.arrivals.may_be_missed(b"c", 300))
        self.assertTrue(self.arrivals.missed(b"c", b"heard", 501))
        # One in the future is of a server that was here before.
        self.assertFalse(self.arrivals.missed(b"c", b"heard", 502))
        self.assertTrue(self.arrivals.missed(b"c", b"missed", 502))

    def test_of_a_channel_that_is_behind_nothing_more_is_proven(self) -> None:
        self.arrivals.prove(RedisClock(100))
        self.arrivals.note(b"c", b"heard")
        self.arrivals.fall_behind([b"c", b"d"])
        self.arrivals.prove(RedisClock(200))
        self.assertTrue(self.arrivals.may_be_missed(b"c", 150))
        self.assertTrue(self.arrivals.missed(b"c", b"not heard", 150))
        self.assertFalse(self.arrivals.missed(b"c", b"heard", 150))
        self.assertFalse(self.arrivals.may_be_missed(b"e", 150))
        self.arrivals.fall_behind([b"c", b"e"])
        self.assertTrue(self.arrivals.may_be_missed(b"c", 150))
        self.arrivals.catch_up([b"c"])
        self.assertFalse(self.arrivals.may_be_missed(b"c", 150))
        self.arrivals.forget(b"d")
        self.assertFalse(self.arrivals.may_be_missed(b"d", 150))

    def test_a_long_message_that_does_not_count_as_missed_is_known_by_its_sha1(self) -> None:
        long = b"x" * 2000
        sha1 = hashlib.sha1(long).hexdigest()
        self.arrivals.prove(RedisClock(100))
        self.arrivals.note(b"c", long)
        self.arrivals.note(b"d", b"short")
        self.assertEqual(self.arrivals.known_sha1(b"c", 101), sha1)
        self.assertEqual(self.arrivals.known_sha1(b"c", None), sha1)
        self.assertEqual(self.arrivals.known_sha1(b"d", 101), "")
        self.assertEqual(self.arrivals.known_sha1(b"e", None), "")
        self.assertFalse(self.arrivals.missed(b"c", long, 101))
        self.arrivals.prove(RedisClock(200))
        # The same bytes would be another message.
        self.assertEqual(self.arrivals.known_sha1(b"c", 201), "")
        self.assertTrue(self.arrivals.missed(b"c", long, 201))
        self.assertEqual(self.arrivals.known_sha1(b"c", None), sha1)
        self.arrivals.note_read(b"e", long)
        self.assertEqual(self.arrivals.known_sha1(b"e", 201), sha1)


class PortionTests(SynchronousTestCase):
    def test_each_has_a_bounded_size_and_one_message_at_least(self) -> None:
        sizes = [PORTION_BYTES, 1, PORTION_BYTES - 1, 3 * PORTION_BYTES, 0, 0]
        found = [Persisted(b"%d" % number, size) for number, size in enumerate(sizes)]
        self.assertEqual(
            [[each.size for each in portion] for portion in portions(found)],
            [[PORTION_BYTES], [1, PORTION_BYTES - 1], [3 * PORTION_BYTES], [0, 0]],
        )
        small = [Persisted(b"%d" % number, 1) for number in range(1200)]
        self.assertEqual([len(portion) for portion in portions(small)], [500, 500, 200])
        self.assertEqual(list(portions([])), [])
