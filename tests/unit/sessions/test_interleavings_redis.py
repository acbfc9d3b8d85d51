"""Websockets over the real broker, connected through fake wires to a small Redis.

The broker speaks its protocol, RESP, and the steps decide how the bytes flow.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.small_redis import RedisWorld
from tests.support.stories import CALM, TROUBLE, Story, stories
from ws4redis_tx.redis import persisted

DEAFNESS = (st.just(("deafen",)), st.tuples(st.just("wait"), st.sampled_from([0.5, 6.0])))


class AnyFlowOfBytesTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=300)
    @given(stories(*CALM))
    def test_every_client_gets_all_in_order_once(self, steps: list[tuple[Any, ...]]) -> None:
        Story(RedisWorld()).take(steps)

    @settings(deadline=None, max_examples=300)
    @given(stories(*TROUBLE, *DEAFNESS))
    def test_outages_cost_no_more_than_what_was_not_persisted(
        self, steps: list[tuple[Any, ...]]
    ) -> None:
        Story(RedisWorld()).take(steps)


class AnyFlowInPortionsTests(SynchronousTestCase):
    """A recovery reads the missed messages one by one."""

    def setUp(self) -> None:
        self.patch(persisted, "_PORTION_CHANNELS", 1)

    @settings(deadline=None, max_examples=300)
    @given(stories(*TROUBLE, *DEAFNESS))
    def test_outages_cost_no_more_than_what_was_not_persisted(
        self, steps: list[tuple[Any, ...]]
    ) -> None:
        Story(RedisWorld()).take(steps)


EVERYBODY = frozenset({"broadcast"})
JOIN = ("connect", EVERYBODY, None, False)
PUBLISH = ("publish", "broadcast", True)


class OneStoryTests(SynchronousTestCase):
    """Interleavings that once went wrong."""

    def tell(self, *steps: tuple[Any, ...]) -> list[list[str | bytes]]:
        story = Story(RedisWorld())
        story.take(steps)
        return [visitor.client.messages for visitor in story.visitors]

    def test_what_a_newcomer_reads_while_the_connection_is_deaf_reaches_the_others_too(
        self,
    ) -> None:
        heard = self.tell(
            JOIN,
            ("calm_down",),
            ("deafen",),
            JOIN,
            PUBLISH,
            ("execute", "commands", 1),
            ("arrive", "commands", 1),
            ("lose_pubsub",),
        )
        self.assertEqual(heard, [["1"], ["1"]])

    def test_what_an_unfinished_recovery_heard_comes_before_what_the_next_one_reads(self) -> None:
        heard = self.tell(
            JOIN,
            ("calm_down",),
            ("lose_pubsub",),
            ("recover",),
            ("recover",),
            ("execute", "pubsub", 3),
            PUBLISH,
            ("arrive", "pubsub", 4),
            ("lose_pubsub",),
            PUBLISH,
        )
        self.assertEqual(heard, [["1", "2"]])

    def test_a_connection_lost_while_a_recovery_reads_keys_is_made_anew(self) -> None:
        heard = self.tell(
            JOIN,
            ("calm_down",),
            ("lose_pubsub",),
            PUBLISH,
            ("recover",),
            ("recover",),
            ("execute", "pubsub", 5),
            ("arrive", "pubsub", 5),
            ("lose_pubsub",),
        )
        self.assertEqual(heard, [["1"]])

    def test_what_an_earlier_subscription_still_brings_is_not_mixed_into_the_next_one(
        self,
    ) -> None:
        heard = self.tell(
            JOIN,
            ("calm_down",),
            ("leave", 0),
            PUBLISH,
            ("execute", "pubsub", 1),
            PUBLISH,
            JOIN,
        )
        self.assertEqual(heard, [[], ["2"]])
