"""The contract, section 8: what was before a subscription does not come again after an outage."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.centrifuge import open_centrifuge
from tests.support.sites import ContractTestCase

NAME = "broadcast:foobar"


class OutageTests(ContractTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.serve_centrifuge(WS4REDIS_HISTORY={"foobar": (100, 600)})

    @inlineCallbacks
    def test_what_was_published_before_the_subscription_does_not_come(self) -> Any:
        client = yield open_centrifuge(self.port)
        self.addCleanup(lambda: client.closed)
        self.addCleanup(client.websocket.sendClose, 1000)
        yield self.say("one", "two")
        found = yield client.subscribe(NAME)
        self.assertEqual(found["offset"], 2)
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.say("three")
        self.assertEqual((yield client.data()), "three")

    @inlineCallbacks
    def test_nor_what_was_recovered(self) -> Any:
        client = yield open_centrifuge(self.port)
        self.addCleanup(lambda: client.closed)
        self.addCleanup(client.websocket.sendClose, 1000)
        first = yield client.subscribe(NAME)
        yield client.ask("unsubscribe", channel=NAME)
        yield self.say("one", "two")
        found = yield client.subscribe(NAME, recover=True, epoch=first["epoch"], offset=0)
        self.assertEqual([each["data"] for each in found["publications"]], ["one", "two"])
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.say("three")
        self.assertEqual((yield client.data()), "three")

    @inlineCallbacks
    def say(self, *messages: str) -> Any:
        for each in messages:
            yield self.publish(json.dumps(each), broadcast=True)
