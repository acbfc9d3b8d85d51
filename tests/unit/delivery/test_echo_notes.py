"""Echo notes: each hides one message from its sender, once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.brokers import Listener
from ws4redis_tx.delivery.hub import EchoNotes


class EchoNotesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.notes = EchoNotes()
        self.mary, self.john = Listener(), Listener()

    def test_the_first_matching_message_uses_the_note_up(self) -> None:
        self.notes.note(b"c", b"x", self.mary)
        self.assertIs(self.notes.take(b"c", b"x"), self.mary)
        self.assertIsNone(self.notes.take(b"c", b"x"))

    def test_without_a_note_nobody_is_skipped(self) -> None:
        self.assertIsNone(self.notes.take(b"c", b"x"))
        self.notes.note(b"d", b"x", self.mary)
        self.assertIsNone(self.notes.take(b"c", b"x"))

    def test_channel_and_bytes_must_both_match(self) -> None:
        self.notes.note(b"c", b"x", self.mary)
        for channel, payload in ((b"d", b"x"), (b"c", b"y"), (b"c", b""), (b"cx", b"")):
            self.assertIsNone(self.notes.take(channel, payload))
        self.assertIs(self.notes.take(b"c", b"x"), self.mary)

    def test_a_message_to_two_channels_is_noted_on_each(self) -> None:
        self.notes.note(b"c", b"x", self.mary)
        self.notes.note(b"d", b"x", self.mary)
        self.assertIs(self.notes.take(b"d", b"x"), self.mary)
        self.assertIs(self.notes.take(b"c", b"x"), self.mary)

    def test_equal_messages_are_used_in_the_order_they_were_noted(self) -> None:
        for sender in (self.mary, self.john, self.mary):
            self.notes.note(b"c", b"x", sender)
        self.assertEqual(
            [self.notes.take(b"c", b"x") for _ in range(4)],
            [self.mary, self.john, self.mary, None],
        )

    def test_a_strangers_equal_message_is_hidden_at_most_once_per_note(self) -> None:
        self.notes.note(b"c", b"x", self.mary)
        # A stranger's, the sender's own, and another stranger's.
        skipped = [self.notes.take(b"c", b"x") for _ in range(3)]
        self.assertEqual(skipped, [self.mary, None, None])

    def test_a_note_whose_publish_failed_is_dropped_alone(self) -> None:
        for sender in (self.mary, self.john, self.mary):
            self.notes.note(b"c", b"x", sender)
        self.notes.drop(b"c", b"x", self.mary)
        self.assertEqual(len(self.notes), 2)
        self.assertCountEqual(
            [self.notes.take(b"c", b"x") for _ in range(2)], [self.john, self.mary]
        )

    def test_dropping_what_was_used_up_is_no_error(self) -> None:
        self.notes.drop(b"c", b"x", self.mary)
        self.notes.note(b"c", b"x", self.john)
        self.notes.drop(b"c", b"x", self.mary)
        self.assertIs(self.notes.take(b"c", b"x"), self.john)

    def test_all_notes_of_a_sender_that_leaves_are_dropped_and_no_others(self) -> None:
        for channel in (b"c", b"d"):
            for sender in (self.mary, self.john, self.mary):
                self.notes.note(channel, b"x", sender)
        self.notes.note(b"e", b"x", self.mary)
        self.notes.forget(self.mary)
        self.assertEqual(len(self.notes), 2)
        for channel in (b"c", b"d"):
            self.assertIs(self.notes.take(channel, b"x"), self.john)
        self.assertIsNone(self.notes.take(b"e", b"x"))

    def test_all_notes_are_dropped_with_the_connection_that_would_have_used_them(self) -> None:
        self.notes.note(b"c", b"x", self.mary)
        self.notes.note(b"d", b"y", self.john)
        self.notes.clear()
        self.assertEqual(len(self.notes), 0)
        self.assertIsNone(self.notes.take(b"c", b"x"))

    @settings(deadline=None, max_examples=100)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["note", "take", "drop", "forget"]),
                st.sampled_from([b"c", b"d"]),
                st.sampled_from([b"x", b"y"]),
                st.integers(0, 1),
            )
        )
    )
    def test_any_sequence_matches_a_list_of_notes(
        self, steps: list[tuple[str, bytes, bytes, int]]
    ) -> None:
        notes = EchoNotes()
        senders = [self.mary, self.john]
        model: list[tuple[bytes, bytes, Listener]] = []
        for step, channel, payload, index in steps:
            sender = senders[index]
            if step == "note":
                notes.note(channel, payload, sender)
                model.append((channel, payload, sender))
            elif step == "take":
                matching = [note for note in model if note[:2] == (channel, payload)]
                oldest = matching[0][2] if matching else None
                self.assertIs(notes.take(channel, payload), oldest)
                if matching:
                    model.remove(matching[0])
            elif step == "drop":
                notes.drop(channel, payload, sender)
                if (channel, payload, sender) in model:
                    model.remove((channel, payload, sender))
            else:
                notes.forget(sender)
                model = [note for note in model if note[2] is not sender]
            self.assertEqual(len(notes), len(model))
