"""``connect_centrifuge``: a client of Centrifuge's protocol in memory."""

from __future__ import annotations

import time
from typing import Any

import jwt
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll, SlowBroker
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import Denied, WS4RedisError
from ws4redis_tx.service import Publisher, ServerConfig
from ws4redis_tx.testing import (
    CentrifugeClient,
    CentrifugeError,
    Push,
    connect,
    connect_centrifuge,
    make_memory_factory,
)

KEPT, PLAIN = "broadcast:kept", "broadcast:plain"


class John(AllowAll):
    """Knows everybody as John, of the staff."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        identity = Identity(None, "john", ("staff",), "7")
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class ClientTestCase(SynchronousTestCase):
    protobuf = False

    def setUp(self) -> None:
        self.use()

    def use(self, authorizer: Any = None, broker: Any = None, **fields: Any) -> None:
        self.clock = Clock()
        self.config = ServerConfig(
            centrifuge_url="/connection/", history=(("kept", 3, 600),), **fields
        )
        self.factory = make_memory_factory(
            self.config, authorizer=authorizer or AllowAll(), broker=broker, clock=self.clock
        )
        self.broker = self.factory.broker

    def connect(self, **options: Any) -> CentrifugeClient:
        return connect_centrifuge(self.factory, protobuf=self.protobuf, **options)

    def say(self, *messages: str, facility: str = "kept") -> None:
        publisher = Publisher(self.config, self.broker, facility=facility, broadcast=True)
        for message in messages:
            self.successResultOf(publisher.publish_message(message))


class CommandTests(ClientTestCase):
    def test_it_connects_and_has_an_id(self) -> None:
        client, other = self.connect(), self.connect()
        self.assertTrue(client.connected)
        self.assertEqual(client.id, client.welcome["client"])
        self.assertNotEqual(client.id, other.id)
        self.assertEqual((client.error, client.refused, client.close_code), (None, None, None))

    def test_what_is_published_comes_as_pushes(self) -> None:
        client = self.connect()
        self.assertEqual(dict(client.subscribe(PLAIN)), {})
        self.say('{"n": 1}', facility="plain")
        self.assertEqual(client.pushes, [Push("pub", PLAIN, {"n": 1})])
        client.subscribe(KEPT)
        self.say("[2]")
        self.assertEqual(client.pushes[1:], [Push("pub", KEPT, [2], offset=1)])
        self.assertEqual(client.messages, [{"n": 1}, [2]])

    def test_clients_hear_each_other_and_classic_ones(self) -> None:
        self.use(John())
        client, other = self.connect(), self.connect()
        url = "ws://localhost/ws/plain?subscribe-broadcast&publish-broadcast"
        classic = connect(self.factory, url)
        client.subscribe(PLAIN)
        other.publish(PLAIN, {"n": 1})
        info = {"user": "john", "client": other.id}
        self.assertEqual(client.pushes, [Push("pub", PLAIN, {"n": 1}, info=info)])
        self.assertEqual(classic.messages, ['{"n": 1}'])
        classic.send("2")
        self.assertEqual(client.messages, [{"n": 1}, 2])

    def test_it_unsubscribes(self) -> None:
        client = self.connect()
        client.subscribe(PLAIN)
        client.unsubscribe(PLAIN)
        self.say("1", facility="plain")
        self.assertEqual((client.pushes, client.subscriptions), ([], {}))
        self.assertEqual(list(self.broker.hub.channels), [])

    def test_it_reads_the_history(self) -> None:
        client = self.connect()
        self.assertEqual(client.history(KEPT)["publications"], [])
        self.say("1", "2", "3", "4")
        history = client.history(KEPT)
        self.assertEqual([each["data"] for each in history["publications"]], [2, 3, 4])
        self.assertEqual(history["offset"], 4)
        epoch = history["epoch"]
        for expected, options in (
            ([3], {"limit": 1, "since": (epoch, 2)}),
            ([4, 3], {"limit": 2, "reverse": True}),
            ([2], {"since": (epoch, 3), "reverse": True}),
            ([], {"limit": 0}),
        ):
            found = client.history(KEPT, **options)["publications"]
            self.assertEqual([each["data"] for each in found], expected, options)

    def test_it_sees_who_is_there_and_who_comes_and_goes(self) -> None:
        self.use(John(), presence=("plain",))
        client, other = self.connect(), self.connect()
        for each in (client, other):
            each.subscribe(PLAIN)
        told = {each.id: {"user": "john", "client": each.id} for each in (client, other)}
        self.assertEqual(client.presence(PLAIN), told)
        other.unsubscribe(PLAIN)
        info = told[other.id]
        expected = [Push("join", PLAIN, info=info), Push("leave", PLAIN, info=info)]
        self.assertEqual(client.pushes[-2:], expected)

    def test_an_error_is_raised_with_its_code(self) -> None:
        client = self.connect()
        error = self.assertRaises(CentrifugeError, client.history, PLAIN)
        self.assertEqual(
            (error.code, error.message, error.temporary), (108, "not available", False)
        )
        self.assertEqual(self.assertRaises(CentrifugeError, client.subscribe, "x").code, 102)
        self.assertEqual(client.subscriptions, {})

    def test_an_error_to_connect_and_a_refusal_are_kept(self) -> None:
        class Refusing(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                raise Denied(401, "Who are you?")

        self.use(Refusing())
        client = self.connect()
        assert client.error is not None
        self.assertEqual((client.connected, client.error.code), (False, 101))
        self.assertEqual(self.connect(origin="https://evil.example").refused, 403)

    def test_a_disconnection_has_its_code(self) -> None:
        client = self.connect()
        self.factory.drain(1001)
        self.assertEqual((client.connected, client.close_code), (False, 3001))

    def test_several_commands_go_in_one_frame(self) -> None:
        client = self.connect()
        numbers = client.send_all(
            ("subscribe", {"channel": PLAIN}), ("history", {"channel": PLAIN}), ("rpc", {})
        )
        answers = [client.answers[each] for each in numbers]
        self.assertEqual(answers[0], {})
        self.assertEqual([each.code for each in answers[1:]], [108, 108])

    def test_a_command_that_waits_is_answered_later(self) -> None:
        self.use(broker=SlowBroker("publish"))
        client = self.connect()
        number = client.send("publish", channel=PLAIN, data=1)
        self.assertNotIn(number, client.answers)
        self.broker.answer("publish")
        self.assertEqual(client.answers[number], {})
        self.assertRaises(WS4RedisError, client.publish, PLAIN, 2)

    def test_pings_are_answered_unless_the_test_says_otherwise(self) -> None:
        client, gone = self.connect(), self.connect()
        gone.answers_pings = False
        self.clock.pump([1.0] * 120)
        self.assertGreater(client.pings, 3)
        self.assertTrue(client.connected)
        self.assertEqual((gone.pings, gone.close_code), (1, 3012))


class ProtobufCommandTests(CommandTests):
    protobuf = True

    def test_data_that_are_not_json_are_bytes(self) -> None:
        client, other = self.connect(), connect_centrifuge(self.factory)
        for each in (client, other):
            each.subscribe(PLAIN)
        client.publish(PLAIN, b"\xff\0")
        self.assertEqual(client.messages, [b"\xff\0"])
        (push,) = other.pushes
        self.assertEqual((push.data, push.tags), ("/wA=", {"ws4redis": "base64"}))


class ReconnectTests(ClientTestCase):
    def test_nothing_is_missed_and_nothing_comes_twice(self) -> None:
        client = self.connect()
        client.subscribe(KEPT)
        client.subscribe(PLAIN)
        self.say("1", "2")
        client.lose_connection()
        self.say("3", "4")
        again = client.reconnect()
        self.assertTrue(again.subscriptions[KEPT]["recovered"])
        self.assertEqual([(each.data, each.offset, each.recovered) for each in again.pushes],
                         [(3, 3, True), (4, 4, True)])  # fmt: skip
        self.say("5")
        self.say("6", facility="plain")
        self.assertEqual(again.messages, [3, 4, 5, 6])
        self.assertEqual(client.messages, [1, 2])
        third = again.reconnect()
        self.assertEqual((third.messages, list(third.subscriptions)), ([], [KEPT, PLAIN]))
        self.assertTrue(third.subscriptions[KEPT]["recovered"])

    def test_the_first_messages_of_all_are_recovered(self) -> None:
        client = self.connect()
        client.subscribe(KEPT)
        client.lose_connection()
        self.say("1", "2")
        self.assertEqual(client.reconnect().messages, [1, 2])

    def test_too_many_are_not_recovered(self) -> None:
        client = self.connect()
        client.subscribe(KEPT)
        client.lose_connection()
        self.say("1", "2", "3", "4")
        again = client.reconnect()
        self.assertEqual(again.messages, [])
        answer = again.subscriptions[KEPT]
        self.assertEqual((answer["was_recovering"], "recovered" in answer), (True, False))
        self.say("5")
        self.assertEqual(again.reconnect().messages, [])
        self.assertEqual(again.messages, [5])

    def test_server_side_subscriptions_are_recovered_too(self) -> None:
        self.use(John())
        url = "ws://localhost/connection/websocket?facility=kept&subscribe-user&subscribe-group"
        client = connect_centrifuge(self.factory, url, protobuf=self.protobuf)
        self.assertEqual(sorted(client.subscriptions), ["group:staff:kept", "user:kept"])
        client.lose_connection()
        publisher = Publisher(self.config, self.broker, facility="kept", users=["john"])
        publisher.publish_message("1")
        again = client.reconnect()
        self.assertEqual(again.pushes, [Push("pub", "user:kept", 1, offset=1, recovered=True)])
        self.assertEqual(sorted(again.subscriptions), ["group:staff:kept", "user:kept"])

    def test_it_connects_with_the_same_arguments(self) -> None:
        seen: list[Any] = []

        class Seeing(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                seen.append((handshake.headers["x"], handshake.headers["cookie"]))
                return super().authorize(handshake, rights)

        self.use(Seeing())
        client = self.connect(cookies={"a": "b"}, headers={"X": "y"})
        client.reconnect()
        self.assertEqual(seen, [("y", "a=b")] * 2)

    def test_it_shows_its_token_again(self) -> None:
        secret, now = "s" * 32, int(time.time())
        self.use(token_secret=(secret,))
        token = jwt.encode({"sub": "mary", "iat": now, "exp": now + 600}, secret, "HS256")
        client = self.connect(token=token)
        self.assertTrue(client.welcome["expires"])
        self.assertEqual(client.reconnect().welcome["ttl"], client.welcome["ttl"])

    def test_it_has_the_channels_that_another_token_brings(self) -> None:
        secret, now = "s" * 32, int(time.time())
        self.use(token_secret=(secret,))
        claims = {"sub": "mary", "iat": now, "exp": now + 600}
        token = jwt.encode(claims, secret, "HS256")
        more = jwt.encode({**claims, "channels": [KEPT]}, secret, "HS256")
        client = self.connect(token=token)
        client.ask("refresh", token=more)
        self.assertEqual([each.kind for each in client.pushes], ["subscribe"])
        self.assertIn("epoch", client.subscriptions[KEPT])
        self.say("1")
        self.assertEqual(client.messages, [1])
        client.ask("refresh", token=token)
        self.assertEqual((client.pushes[-1].kind, client.subscriptions), ("unsubscribe", {}))


class ProtobufReconnectTests(ReconnectTests):
    protobuf = True


class OutageTests(ClientTestCase):
    def test_an_outage_is_healed(self) -> None:
        client = self.connect()
        client.subscribe(KEPT)
        self.say("1")
        self.broker.lose_connection()
        self.broker.publish_elsewhere([b"broadcast:kept"], b"2")
        self.broker.restore()
        self.say("3")
        self.assertEqual([(each.offset, each.data) for each in client.pushes],
                         [(1, 1), (2, 2), (3, 3)])  # fmt: skip

    def test_one_that_is_not_healed_ends_the_subscription(self) -> None:
        client = self.connect()
        client.subscribe(KEPT)
        self.broker.lose_connection()
        for number in range(9):
            self.broker.publish_elsewhere([b"broadcast:kept"], b"%d" % number)
        self.broker.restore()
        expected = Push("unsubscribe", KEPT, code=2500, reason="insufficient state")
        self.assertEqual(client.pushes, [expected])
        self.assertEqual(list(client.subscriptions), [KEPT])  # as a library, which comes back
