"""The contract, section 6: an epoch of one generation of a channel is never taken for another's."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.centrifuge import open_centrifuge
from tests.support.sites import ContractTestCase

NAME = "broadcast:foobar"


class LostPlaceTests(ContractTestCase):
    """Redis has evicted the place of the last message, and five others follow. Fault 6."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.serve_centrifuge(WS4REDIS_HISTORY={"foobar": (100, 600)})

    @inlineCallbacks
    def subscribe(self, **request: Any) -> Any:
        client = yield open_centrifuge(self.port)
        self.addCleanup(lambda: client.closed)
        self.addCleanup(client.websocket.sendClose, 1000)
        return (yield client.subscribe(NAME, **request))

    @inlineCallbacks
    def say_five(self) -> Any:
        for number in range(5):
            yield self.publish(str(number), broadcast=True)

    @inlineCallbacks
    def check(self, epoch: str, *evicted: str) -> Any:
        self.redis.command("DEL", *evicted)
        yield self.say_five()
        for offset in range(1, 7):
            found = yield self.subscribe(recover=True, epoch=epoch, offset=offset)
            self.assertNotIn("recovered", found)
            self.assertNotIn("publications", found)
            self.assertEqual(found["offset"], 6)
        again = yield self.subscribe(recover=True, epoch=found["epoch"], offset=3)
        self.assertTrue(again["recovered"])
        self.assertEqual([each["data"] for each in again["publications"]], [2, 3, 4])

    @inlineCallbacks
    def test_who_had_heard_a_message_is_not_recovered(self) -> Any:
        yield self.say_five()
        first = yield self.subscribe()
        self.assertEqual(first["offset"], 5)
        yield self.check(first["epoch"], f"pos:{NAME}")

    @inlineCallbacks
    def test_who_subscribed_to_an_empty_channel_is_not_recovered(self) -> Any:
        first = yield self.subscribe()
        yield self.say_five()
        yield self.check(first["epoch"], f"pos:{NAME}")

    @inlineCallbacks
    def test_nor_if_only_the_persisted_message_is_left(self) -> Any:
        yield self.say_five()
        first = yield self.subscribe()
        yield self.check(first["epoch"], f"pos:{NAME}", f"stream:{NAME}")
