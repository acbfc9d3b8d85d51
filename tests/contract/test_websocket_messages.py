"""The contract, section 2: messages, from Redis and from clients."""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet.defer import inlineCallbacks

from tests.support.brokers import Listener
from tests.support.django import set_up_django
from tests.support.memory import SlowBroker, WebSocketTests
from tests.support.redis import RawSubscriber
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from ws4redis_tx.core.errors import BrokerRefused
from ws4redis_tx.testing import client_frame

set_up_django()


from ws4redis_tx.policies import allow_all


class OrderTests(ContractTestCase):
    """2. Websocket: order is per connection, over all its channels, as Redis sent them"""

    @inlineCallbacks
    def test_messages_of_all_channels_arrive_in_the_order_redis_sent_them(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}", cookies=john)
        names = sorted(self.channels())
        with valkey.Valkey(host="127.0.0.1", port=self.redis.port) as redis:
            pipeline = redis.pipeline(transaction=False)
            for i in range(200):
                pipeline.publish(names[i * 7 % 4], i)
            pipeline.execute()
        self.assertEqual((yield client.take(200)), [str(i) for i in range(200)])


class TypesTests(ContractTestCase):
    """2. Websocket: types"""

    @inlineCallbacks
    def test_utf_8_is_text_anything_else_is_binary_and_all_keep_their_bytes(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        for payload, expected in (
            (b"", ""),
            (b"42", "42"),
            (b"007", "007"),
            (b"1.50", "1.50"),
            (b"1_000", "1_000"),
            (b"OK", "OK"),
            (b"QUEUED", "QUEUED"),
            (b"a\r\nb", "a\r\nb"),
            (b"a\0b", "a\0b"),
            ("grüße".encode(), "grüße"),
            (b"\xff\xfe", b"\xff\xfe"),
            (b"\xed\xa0\x80", b"\xed\xa0\x80"),
            (b"x" * 2**20, "x" * 2**20),
            (b"\xff" * 2**20, b"\xff" * 2**20),
        ):
            yield self.publish(payload, broadcast=True)
            received = yield client.next()
            self.assertEqual(type(received), type(expected))
            self.assertTrue(received == expected)

    @inlineCallbacks
    def test_a_clients_binary_frame_that_is_utf_8_reaches_others_as_text(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        sender = yield self.open("foobar?publish-broadcast")
        other = yield self.open("foobar?subscribe-broadcast")
        for payload, expected in ((b"as it happens", "as it happens"), (b"\xff", b"\xff")):
            sender.sendMessage(payload, isBinary=True)
            self.assertEqual((yield other.next()), expected)


class ClientMessagesTests(ContractTestCase):
    """2. Websocket: client messages"""

    @inlineCallbacks
    def test_they_go_to_every_publish_channel_granted_persisted_with_the_default_expiry(
        self,
    ) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all, WS4REDIS_EXPIRE=500)
        john = yield self.log_in("john")
        names = [
            "broadcast:foobar", "group:chatters:foobar", "user:john:foobar",
            f"session:{john['sessionid']}:foobar",
        ]  # fmt: skip
        raw = RawSubscriber(self, self.redis.port, *names)
        client = yield self.open(f"foobar?{PUBLISH_ALL}", cookies=john)
        client.sendMessage(b"hi")
        self.assertEqual({name for name, _ in (yield raw.take(4))}, set(names))
        for name in names:
            self.assertEqual(self.redis.command("GET", name), b"hi")
            self.assertTrue(490 < self.redis.command("TTL", name) <= 500)

    @inlineCallbacks
    def test_each_frame_is_published_in_order_however_packed_into_segments(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        other = yield self.open("foobar?subscribe-broadcast")
        sender = yield self.open("foobar?publish-broadcast")
        frames = b"".join(client_frame(1, b"%d" % i) for i in range(30))
        sender.transport.write(frames)
        self.assertEqual((yield other.take(30)), [str(i) for i in range(30)])
        for i in range(0, len(frames), 7):
            sender.transport.write(frames[i : i + 7])
            yield self.broker.fence()
        self.assertEqual((yield other.take(30)), [str(i) for i in range(30)])

    @inlineCallbacks
    def test_when_the_close_is_answered_the_earlier_messages_are_in_redis(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for i in range(20):
            client = yield self.open("foobar?publish-broadcast")
            client.sendMessage(b"%d" % i)
            client.sendClose(1000)
            yield client.closed
            self.assertEqual(self.redis.command("GET", "broadcast:foobar"), b"%d" % i)


class ClosingTests(WebSocketTests):
    """2. Websocket: client messages (the test moves the clock)"""

    def test_the_close_waits_for_acknowledgements_two_seconds_at_most(self) -> None:
        self.use(SlowBroker("publish"))
        client = self.connect("publish-broadcast")
        client.send("hi")
        client.close(1000)
        self.clock.advance(1.99)
        self.assertIsNone(client.close_code)
        self.clock.advance(0.02)
        self.assertEqual(client.close_code, 1000)


class EchoTests(WebSocketTests):
    """2. Websocket: echo"""

    BOTH = "subscribe-broadcast&publish-broadcast"

    def test_without_it_a_connection_does_not_get_back_its_own_messages(self) -> None:
        client, other = self.connect(self.BOTH), self.connect()
        client.send("hi")
        self.assertEqual((client.messages, other.messages), ([], ["hi"]))

    def test_with_it_it_does(self) -> None:
        client = self.connect(self.BOTH + "&echo")
        client.send("hi")
        self.assertEqual(client.messages, ["hi"])

    def test_a_strangers_equal_message_is_never_hidden_besides_that_one(self) -> None:
        client, stranger = self.connect(self.BOTH), self.connect("publish-broadcast")
        client.send("hi")
        stranger.send("hi")
        self.publish(b"hi")
        self.assertEqual(client.messages, ["hi", "hi"])

    def test_nor_is_an_equal_one_that_was_persisted_before_the_connection_opened(self) -> None:
        """The client answers at once, during the replay of the persisted message."""
        self.publish(b"hi", 60)
        self.use(SlowBroker("fence"))
        self.publish(b"hi", 60)
        client = self.connect(self.BOTH)
        client.send("hi")
        self.broker.answer("fence")  # type: ignore[attr-defined]
        self.assertEqual(client.messages, ["hi"])


class EchoNotesTests(ContractTestCase):
    """2. Websocket: echo (over a real Redis)"""

    @inlineCallbacks
    def test_notes_are_dropped_when_the_pub_sub_connection_is_replaced(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all, WS4REDIS_EXPIRE=0)
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast")
        yield self.broker.fence()
        listener = object()
        self.broker._notes.note(b"broadcast:foobar", b"hi", listener)
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.broker.fence().addErrback(lambda _: None)
        yield self.broker.when_available()
        self.assertEqual(len(self.broker._notes), 0)
        self.redis.command("PUBLISH", "broadcast:foobar", "hi")
        self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_a_note_is_dropped_when_the_publish_fails_or_the_sender_leaves(self) -> Any:
        """A note that stayed would hide a stranger's equal message later, or pile up."""
        yield self.serve()
        sender = Listener()
        yield self.broker.listen(b"a", sender)
        self.redis.command("CONFIG", "SET", "maxmemory", "1")
        self.addCleanup(self.redis.command, "CONFIG", "SET", "maxmemory", "0")
        refused = self.broker.publish([b"a"], b"hi", 60, sender)
        self.assertEqual(len(self.broker._notes), 1)
        with self.assertRaises(BrokerRefused):
            yield refused
        self.assertEqual(len(self.broker._notes), 0)
        published = self.broker.publish([b"a"], b"hi", 0, sender)
        self.assertEqual(len(self.broker._notes), 1)
        self.broker.forget(sender)
        self.assertEqual(len(self.broker._notes), 0)
        yield published

    @inlineCallbacks
    def test_nor_do_notes_made_while_it_was_away_outlive_its_replacement(self) -> Any:
        yield self.serve()
        sender = Listener()
        yield self.broker.listen(b"a", sender)
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        yield self.broker.fence().addErrback(lambda _: None)
        published = self.broker.publish([b"a"], b"hi", 0, sender)
        self.assertEqual(len(self.broker._notes), 1)
        yield published
        yield self.broker.when_available()
        self.assertEqual(len(self.broker._notes), 0)


class SubprotocolTests(ContractTestCase):
    """2. Websocket: subprotocol"""

    @inlineCallbacks
    def test_the_first_one_offered_is_selected_and_answered_alone(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar", protocols=["chat.v2", "chat.v1"])
        self.assertEqual(client.selected_protocol, "chat.v2")
        self.assertIsNone((yield self.open("foobar")).selected_protocol)


class HeartbeatTests(WebSocketTests):
    """2. Websocket: heartbeat (the test moves the clock)"""

    def test_it_is_sent_no_later_than_five_seconds_after_the_last_frame(self) -> None:
        self.use(heartbeat="--beat--")
        first = self.connect()
        self.clock.advance(2)
        second = self.connect()
        for _ in range(5):
            for client in (first, second):
                client.messages.clear()
            self.clock.pump([0.5] * 10)
            self.assertIn("--beat--", first.messages)
            self.assertIn("--beat--", second.messages)

    def test_it_is_dropped_when_a_client_sends_it_and_never_published(self) -> None:
        self.use(heartbeat="--beat--")
        client, other = self.connect("publish-broadcast"), self.connect()
        client.send("--beat--")
        client.send("hi")
        self.assertEqual(other.messages, ["hi"])
