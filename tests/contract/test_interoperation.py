"""Old and new side by side, at the wire.

Messages of an old publisher reach the new server's clients, and an old server reads messages of
the new side. An old publisher sends ``PUBLISH`` and then ``SETEX``, as two commands. An old server
subscribes, reads the keys with ``GET``, and hands everything on unchanged.
"""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support.clients import Client
from tests.support.django import in_thread
from tests.support.redis import RawSubscriber
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from ws4redis_tx.policies import allow_all
from ws4redis_tx.publisher import RedisPublisher

PAYLOADS = [b"hello", "grüße 🎉".encode(), b'{"a": [1, 2.50]}', b"007", b"\xff\0\r\n", b""]


class InteroperationTests(ContractTestCase):
    prefix: str | None = None

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.serve(WS4REDIS_PREFIX=self.prefix, WS4REDIS_ALLOWED_CHANNELS=allow_all)
        self.john = yield self.log_in("john")
        start = f"{self.prefix}:" if self.prefix else ""
        self.names = {
            "broadcast": f"{start}broadcast:foobar",
            "group": f"{start}group:chatters:foobar",
            "user": f"{start}user:john:foobar",
            "session": f"{start}session:{self.john['sessionid']}:foobar",
        }

    def publish_as_the_old_publisher(self, channel: str, message: bytes, expire: int) -> Any:
        def work() -> None:
            with valkey.Valkey(host="127.0.0.1", port=self.redis.port) as redis:
                redis.publish(channel, message)
                if expire:
                    redis.setex(channel, expire, message)

        return deferToThread(work)

    def get_as_the_old_server(self, channel: str) -> bytes | None:
        self.assertEqual(self.redis.command("TYPE", channel), b"string")
        found: bytes | None = self.redis.command("GET", channel)
        return found


class OldPublisherTests(InteroperationTests):
    """An old publisher feeds the new server."""

    @inlineCallbacks
    def test_its_messages_reach_the_clients_of_each_audience(self) -> Any:
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}", cookies=self.john)
        for channel in self.names.values():
            for payload in PAYLOADS:
                yield self.publish_as_the_old_publisher(channel, payload, 60)
            received = yield client.take(len(PAYLOADS))
            self.assertEqual([as_bytes(message) for message in received], PAYLOADS)

    @inlineCallbacks
    def test_what_it_persisted_is_the_first_that_a_later_client_gets(self) -> Any:
        for audience, channel in self.names.items():
            yield self.publish_as_the_old_publisher(channel, f"to {audience}".encode(), 60)
            client = yield self.open(f"foobar?subscribe-{audience}", cookies=self.john)
            yield self.publish_as_the_old_publisher(channel, b"live", 0)
            self.assertEqual((yield client.take(2)), [f"to {audience}", "live"])

    @inlineCallbacks
    def test_what_it_persisted_is_fetched_by_the_new_publisher(self) -> Any:
        yield self.publish_as_the_old_publisher(self.names["broadcast"], b"\xff", 60)
        fetch = RedisPublisher().fetch_message
        self.assertEqual((yield in_thread(fetch, None, "foobar", "broadcast")), b"\xff")


class OldServerTests(InteroperationTests):
    """The new side feeds an old server."""

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        self.raw = RawSubscriber(self, self.redis.port, *self.names.values())

    @inlineCallbacks
    def test_the_new_publishers_messages_arrive_raw_and_are_persisted_raw(self) -> Any:
        audiences: dict[str, dict[str, Any]] = {
            "broadcast": {"broadcast": True},
            "group": {"groups": ["chatters"]},
            "user": {"users": ["john"]},
            "session": {"sessions": [self.john["sessionid"]]},
        }
        for audience, arguments in audiences.items():
            channel = self.names[audience]
            for payload in PAYLOADS:
                self.assertEqual((yield self.publish(payload, 60, **arguments)), 1)
                self.assertEqual((yield self.raw.take(1)), [(channel, payload)])
                self.assertEqual(self.get_as_the_old_server(channel), payload)
                self.assertTrue(55 < self.redis.command("TTL", channel) <= 60)

    @inlineCallbacks
    def test_the_messages_of_the_new_servers_clients_too(self) -> Any:
        client: Client = yield self.open(f"foobar?{PUBLISH_ALL}", cookies=self.john)
        for payload in PAYLOADS:
            client.sendMessage(payload, isBinary=True)
            arrived = yield self.raw.take(4)
            self.assertEqual(
                sorted(arrived), sorted((name, payload) for name in self.names.values())
            )
            for channel in self.names.values():
                self.assertEqual(self.get_as_the_old_server(channel), payload)

    @inlineCallbacks
    def test_old_and_new_clients_talk_to_each_other_through_redis(self) -> Any:
        """An old server publishes for its clients as it does for its views."""
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast", cookies=self.john)
        client.sendMessage(b"from new")
        channel = self.names["broadcast"]
        self.assertEqual((yield self.raw.take(1)), [(channel, b"from new")])
        yield self.publish_as_the_old_publisher(channel, b"from old", 60)
        self.assertEqual((yield client.next()), "from old")


class OldPublisherWithPrefixTests(OldPublisherTests):
    prefix = "site"


class OldServerWithPrefixTests(OldServerTests):
    prefix = "site"


def as_bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message
