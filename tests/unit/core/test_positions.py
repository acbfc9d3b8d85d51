"""Positions, and the facilities that keep a history."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.names import (
    audience_of,
    beside,
    channel_name,
    facility_of,
    namespace,
    with_history,
)
from ws4redis_tx.core.positions import History, history_of, position, read_position

STAMPS = st.integers(0, 2**52 - 1)
WORDS = st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"]), max_size=20)


class PositionTests(SynchronousTestCase):
    @given(STAMPS, STAMPS)
    def test_it_reads_what_it_writes_in_at_most_64_characters_of_a_url(
        self, stamp: int, birth: int
    ) -> None:
        written = position(stamp, birth)
        self.assertEqual(read_position(str(written)), written)
        self.assertTrue(re.fullmatch(r"[A-Za-z0-9._~-]{1,64}", str(written)))

    @given(STAMPS, STAMPS)
    def test_those_of_one_data_set_are_in_the_order_of_their_stamps(
        self, first: int, second: int
    ) -> None:
        self.assertEqual(position(first, 7) < position(second, 7), first < second)

    def test_anything_else_is_none(self) -> None:
        for text in ("", "x", "1", "1.", ".1", "1.1.1", "1.1 ", "A.1", "-1.1", "1" * 14 + ".1"):
            self.assertIsNone(read_position(text), text)


class HistoryTests(SynchronousTestCase):
    def test_the_first_pattern_that_matches_counts(self) -> None:
        rules = (("chat/private", 1, 2), ("chat/*", 3, 4), ("ORDERS", 5, 6))
        self.assertEqual(history_of(rules, "chat/private"), History(1, 2))
        self.assertEqual(history_of(rules, "chat/a/b"), History(3, 4))
        for facility in ("", "chat", "orders", "a/chat/b"):
            self.assertIsNone(history_of(rules, facility), facility)


class NameTests(SynchronousTestCase):
    @given(st.sampled_from(["", "site"]), st.sampled_from(["", "acme"]), WORDS, WORDS)
    def test_the_facility_and_the_audience_are_read_from_a_channels_name(
        self, prefix: str, tenant: str, facility: str, name: str
    ) -> None:
        ours = namespace(prefix, tenant)
        for audience in ("user", "group", "session"):
            channel = channel_name(ours, audience, facility, name).encode()
            self.assertEqual(facility_of(prefix, channel), facility)
            self.assertEqual(audience_of(channel), audience)
        for text in (facility, f"a:{facility}"):
            channel = channel_name(ours, "broadcast", text).encode()
            self.assertEqual(facility_of(prefix, channel), text)
            self.assertEqual(audience_of(channel), "broadcast")

    def test_other_names_have_none(self) -> None:
        for channel in (b"", b"news", b"ctl:revoke", b"\xff:a", b"site:news", b"t", b"t:a"):
            self.assertIsNone(facility_of("site", channel))
            self.assertEqual(audience_of(channel), "")

    def test_what_stands_beside_a_channel_is_of_the_same_tenant(self) -> None:
        channel = b"site:t:acme:user:john:f"
        start = b"site:t:acme:"
        self.assertEqual(beside(b"pos", "site", channel), start + b"pos:" + channel)
        self.assertEqual(
            with_history("site", [channel]),
            [channel, *(start + word + channel for word in (b"at:", b"pos:", b"stream:"))],
        )
