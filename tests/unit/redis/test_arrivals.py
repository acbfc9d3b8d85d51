"""Arrivals before an outage, and the persisted messages that were missed in it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.redis.arrivals import Arrivals


class ArrivalsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.arrivals = Arrivals()

    def test_what_was_stamped_after_the_last_probe_and_did_not_arrive_was_missed(self) -> None:
        self.arrivals.prove(100)
        self.assertTrue(self.arrivals.missed(b"c", b"new", 101))

    def test_what_was_stamped_before_the_last_probe_has_arrived(self) -> None:
        self.arrivals.prove(100)
        self.assertFalse(self.arrivals.missed(b"c", b"old", 100))

    def test_what_arrived_since_the_last_probe_was_not_missed(self) -> None:
        self.arrivals.prove(100)
        self.arrivals.note(b"c", b"new")
        self.assertFalse(self.arrivals.missed(b"c", b"new", 101))
        self.assertTrue(self.arrivals.missed(b"d", b"new", 101))

    def test_equal_bytes_published_again_during_the_outage_are_another_message(self) -> None:
        self.arrivals.note(b"c", b"same")
        self.arrivals.prove(100)
        self.assertTrue(self.arrivals.missed(b"c", b"same", 101))

    def test_what_was_read_by_all_who_listened_was_not_missed(self) -> None:
        self.arrivals.prove(100)
        self.arrivals.note_read(b"c", b"read")
        self.assertFalse(self.arrivals.missed(b"c", b"read", 101))

    def test_what_arrived_is_newer_than_what_was_read(self) -> None:
        self.arrivals.note(b"c", b"arrived")
        self.arrivals.note_read(b"c", b"read")
        self.arrivals.prove(100)
        self.assertFalse(self.arrivals.missed(b"c", b"arrived", None))

    def test_without_a_stamp_equal_bytes_count_as_the_last_message_again(self) -> None:
        self.arrivals.note(b"c", b"last")
        self.arrivals.prove(100)
        self.arrivals.prove(200)
        self.assertFalse(self.arrivals.missed(b"c", b"last", None))
        self.assertTrue(self.arrivals.missed(b"c", b"other", None))
        self.arrivals.forget(b"c")
        self.assertTrue(self.arrivals.missed(b"c", b"last", None))

    def test_only_what_arrived_since_the_last_probe_is_counted(self) -> None:
        self.arrivals.note(b"c", b"1")
        self.arrivals.note(b"c", b"2")
        self.assertEqual(len(self.arrivals.recent), 2)
        self.arrivals.prove(1)
        self.assertEqual(len(self.arrivals.recent), 0)
