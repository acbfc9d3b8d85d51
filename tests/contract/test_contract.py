"""The contract, sections 1, 2 and 5: Redis layout, websocket, and what upstream got wrong.

Reads along with the page: a class for each heading, a test for each promise. Sections 3 and 4 are
in ``test_contract_python_api``. What other modules test in depth is said here once.
"""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, fail, gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.protocols import portforward

from tests.support.brokers import Listener as RecordingListener
from tests.support.clients import Client, exchange, open_websocket, open_wire
from tests.support.django import set_up_django
from tests.support.memory import AllowAll, SlowBroker, WebSocketTests
from tests.support.redis import RawSubscriber, RedisServer, shared_redis
from tests.support.servers import LISTEN, LoadTestCase
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable, ConfigError, Denied
from ws4redis_tx.core.handshake import judge_request, read_request
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.service import make_service
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, client_frame

set_up_django()

from django.core.exceptions import PermissionDenied
from django.test import override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.policies import allow_all

# Section 1


class RedisLayoutTests(ContractTestCase):
    """1. Redis layout (fixed: other programs depend on it)"""

    @inlineCallbacks
    def test_each_audience_has_its_channel_which_is_the_key_of_the_persisted_message(self) -> Any:
        """The table's four rows, as the publisher and as the server make them."""
        yield self.check_the_table("")

    @inlineCallbacks
    def test_the_prefix_stands_before_each_with_a_colon(self) -> Any:
        yield self.check_the_table("site:", WS4REDIS_PREFIX="site")

    @inlineCallbacks
    def check_the_table(self, prefix: str, **settings: Any) -> Any:
        yield self.serve(**settings)
        john = yield self.log_in("john")
        key = john["sessionid"]
        names = {
            f"{prefix}broadcast:foobar",
            f"{prefix}group:chatters:foobar",
            f"{prefix}user:john:foobar",
            f"{prefix}session:{key}:foobar",
        }
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}", cookies=john)
        self.assertEqual(self.channels(), names)
        audience = {"groups": ["chatters"], "users": ["john"], "sessions": [key]}
        yield self.publish("hi", broadcast=True, **audience)
        self.assertEqual((yield client.take(4)), ["hi"] * 4)
        self.assertEqual({name for name in self.keys() if "at:" not in name}, names)
        for name in names:
            self.assertEqual(self.redis.command("GET", name), b"hi")

    def test_a_prefix_that_is_an_audience_word_or_contains_a_colon_is_refused(self) -> None:
        for prefix in ("broadcast", "group", "user", "session", "a:b", ":"):
            with self.assertRaises(ConfigError):
                check_prefix(prefix)

    @inlineCallbacks
    def test_names_are_utf_8_and_the_payload_is_the_raw_message(self) -> Any:
        yield self.serve()
        raw = RawSubscriber(self, self.redis.port, "user:jürgen:grüße")
        yield self.publish(b'\xff{"a": 1}', facility="grüße", users=["jürgen"])
        self.assertEqual((yield raw.take(1)), [("user:jürgen:grüße", b'\xff{"a": 1}')])
        self.assertEqual(self.redis.command("GET", "user:jürgen:grüße"), b'\xff{"a": 1}')

    @inlineCallbacks
    def test_publishing_is_one_script_a_channel_that_persists_first_and_then_publishes(self) -> Any:
        yield self.serve()
        connected = valkey.Valkey(host="127.0.0.1", port=self.redis.port)
        with connected as client, client.monitor() as monitor:
            yield self.publish("hi", 50, broadcast=True)

            def watch() -> list[tuple[str, str]]:
                seen: list[tuple[str, str]] = []
                while not seen or not seen[-1][1].startswith("PUBLISH"):
                    command = monitor.next_command()
                    if "broadcast:foobar" in command["command"]:
                        seen.append((command["client_type"], command["command"]))
                return seen

            seen = yield deferToThread(watch)
        self.assertTrue(seen[0][1].startswith("EVAL"), seen)
        self.assertEqual({kind for kind, _ in seen[1:]}, {"lua"})
        written = [text for _, text in seen[1:]]
        self.assertEqual(written[0], "SETEX broadcast:foobar 50 hi")
        self.assertTrue(written[1].startswith("SETEX at:broadcast:foobar 50 "))
        self.assertEqual(written[2:], ["PUBLISH broadcast:foobar hi"])

    @inlineCallbacks
    def test_without_an_expiry_it_is_published_and_not_persisted(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        yield self.publish("hi", 0, broadcast=True)
        self.assertEqual((yield client.next()), "hi")
        self.assertEqual(self.keys(), set())

    @inlineCallbacks
    def test_all_channels_of_one_call_travel_in_one_round_trip(self) -> Any:
        """All of them reach Redis although not one answer comes back."""
        broker, proxy = yield self.behind_a_proxy()
        names = [b"user:a:f", b"user:b:f", b"broadcast:f"]
        raw = RawSubscriber(self, self.redis.port, *(name.decode() for name in names))
        proxy.deaf = True
        published = broker.publish(names, b"hi", 10)
        arrived = yield raw.take(3)
        self.assertEqual({name.encode() for name, _ in arrived}, set(names))
        self.assertNoResult(published)
        yield broker.stopService()
        yield self.assertFailure(published, BrokerUnavailable)

    @inlineCallbacks
    def test_the_script_stamps_the_message_with_redis_own_time_and_the_same_expiry(self) -> Any:
        yield self.serve(WS4REDIS_PREFIX="site")
        before = self.time()
        yield self.publish("hi", 77, broadcast=True)
        stamp = int(self.redis.command("GET", "site:at:site:broadcast:foobar"))
        self.assertTrue(before <= stamp <= self.time())
        self.assertTrue(70 < self.redis.command("TTL", "site:at:site:broadcast:foobar") <= 77)

    @inlineCallbacks
    def test_on_noperm_it_falls_back_to_a_pipeline_logged_once_as_not_atomic(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        self.redis = redis
        lines = self.log_lines()
        yield self.serve()
        raw = RawSubscriber(self, redis.port, "broadcast:foobar")
        for message in ("1", "2"):
            self.assertEqual((yield self.publish(message, broadcast=True)), 1)
        yield raw.take(2)
        self.assertEqual(redis.command("GET", "broadcast:foobar"), b"2")
        self.assertEqual(len([line for line in lines if "not atomic" in line]), 1)

    @inlineCallbacks
    def test_on_oom_the_call_raises_and_nothing_was_published(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        self.redis.command("CONFIG", "SET", "maxmemory", "1")
        self.addCleanup(self.redis.command, "CONFIG", "SET", "maxmemory", "0")
        with self.assertRaises(BrokerRefused):
            yield self.publish("lost", broadcast=True)
        self.redis.command("CONFIG", "SET", "maxmemory", "0")
        yield self.publish("next", broadcast=True)
        self.assertEqual((yield client.next()), "next")

    @inlineCallbacks
    def test_the_keys_are_strings_and_anything_new_lives_under_other_first_words(self) -> Any:
        yield self.serve(WS4REDIS_PREFIX="site", WS4REDIS_ALLOWED_CHANNELS=allow_all)
        john = yield self.log_in("john")
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}&echo", cookies=john)
        client.sendMessage(b"hi")
        yield client.take(4)
        audiences = {"broadcast", "group", "user", "session"}
        for key in self.keys():
            prefix, word = key.split(":")[:2]
            self.assertEqual(prefix, "site")
            if word in audiences:
                self.assertEqual(self.redis.command("TYPE", key), b"string")
            else:
                self.assertIn(word, {"at", "ctl", "stream", "presence"})

    @inlineCallbacks
    def test_pub_sub_ignores_the_database_number_and_keys_do_not(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        other = RedisBroker(RedisAddress("127.0.0.1", self.redis.port, db=1), "", reactor)
        other.startService()
        self.addCleanup(other.stopService)
        yield other.when_available()
        yield other.publish([b"broadcast:foobar"], b"from db 1", 60)
        self.assertEqual((yield client.next()), "from db 1")
        self.assertEqual(self.keys(), set())

    def time(self) -> int:
        seconds, microseconds = self.redis.command("TIME")
        return int(seconds) * 10**6 + int(microseconds)

    @inlineCallbacks
    def behind_a_proxy(self) -> Any:
        """Fire with a broker, and with the proxy through which it talks to Redis."""
        proxy = DeafProxy("127.0.0.1", self.redis.port)
        port = reactor.listenTCP(0, proxy, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        broker = RedisBroker(RedisAddress("127.0.0.1", port.getHost().port), "", reactor)
        broker.startService()
        self.addCleanup(proxy.all_gone)
        self.addCleanup(lambda: broker.stopService() if broker.running else None)
        yield broker.when_available()
        return broker, proxy


class DeafProxy(portforward.ProxyFactory):
    """Between a client and Redis; while ``deaf``, no answer of Redis comes through."""

    noisy = False
    deaf = False

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.protocol = _ToRedis
        self.ends: list[Deferred[None]] = []

    def all_gone(self) -> Deferred[Any]:
        return DeferredList(self.ends)


class _FromRedis(portforward.ProxyClient):
    def dataReceived(self, data: bytes) -> None:
        if not self.factory.server.factory.deaf:
            super().dataReceived(data)

    def connectionMade(self) -> None:
        super().connectionMade()
        self.gone: Deferred[None] = Deferred()
        self.factory.server.factory.ends.append(self.gone)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)


class _FromRedisFactory(portforward.ProxyClientFactory):
    protocol = _FromRedis
    noisy = False


class _ToRedis(portforward.ProxyServer):
    clientProtocolFactory = _FromRedisFactory  # noqa: N815


# Section 2


class FlagsTests(WebSocketTests):
    """2. Websocket: flags"""

    def test_flags_are_names_case_insensitive_in_any_order_collapsed_unknown_ignored(self) -> None:
        asked: list[Any] = []

        class Noting(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                asked.append(list(rights))
                return super().authorize(handshake, [])

        self.use(authorizer=Noting())
        flags = [
            "subscribe-session", "subscribe-group", "subscribe-user", "subscribe-broadcast",
            "publish-session", "publish-group", "publish-user", "publish-broadcast",
        ]  # fmt: skip
        for query, expected in (
            ("&".join(flags), flags),
            ("&".join(reversed(flags)), flags[::-1]),
            ("SUBSCRIBE-Broadcast=no&echo=0", ["subscribe-broadcast"]),
            ("publish-user&x=1&publish-user=&nonsense", ["publish-user"]),
            ("x=subscribe-user", []),
            ("", []),
        ):
            client = self.connect(query)
            self.assertTrue(client.open)
            self.assertEqual(asked.pop(), expected)

    def test_a_subscriber_subclass_may_extend_the_two_class_lists(self) -> None:
        granted: list[Any] = []

        class Extended(RedisSubscriber):
            subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
            publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]

            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                granted.append(set(channels))
                return super().set_pubsub_channels(request, channels)

        self.use(subscriber=Extended)
        self.assertTrue(self.connect("subscribe-server&publish-server&subscribe-other").open)
        self.assertEqual(granted, [{"subscribe-server", "publish-server"}])


class SubscriptionTests(ContractTestCase):
    """2. Websocket: the subscription stands before the 101 is sent"""

    @inlineCallbacks
    def test_what_is_published_after_the_client_sees_the_connection_open_reaches_it(self) -> Any:
        yield self.serve()
        for i in range(20):
            client = yield self.open(f"f{i}?subscribe-broadcast")
            self.assertEqual(self.redis.command("PUBLISH", f"broadcast:f{i}", i), 1)
            self.assertEqual((yield client.next()), str(i))

    @inlineCallbacks
    def test_without_flags_and_with_publish_flags_alone_it_is_subscribed_to_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for flags in ("", "?", "?publish-broadcast", "?echo"):
            yield self.open("foobar" + flags)
            self.assertEqual(self.channels(), set())


class FacilityTests(ContractTestCase):
    """2. Websocket: the facility"""

    @inlineCallbacks
    def test_it_is_percent_decoded_utf_8_may_be_empty_and_may_hold_a_slash(self) -> Any:
        yield self.serve()
        for path, facility in (
            ("gr%C3%BC%C3%9Fe", "grüße"),
            ("a%20b", "a b"),
            ("a+b", "a+b"),
            ("a%2Fb/c", "a/b/c"),
            ("a//b/", "a//b/"),
            ("ws/ws/", "ws/ws/"),
            ("%25", "%"),
            ("", ""),
            ("x" * 255, "x" * 255),
            ("a:b", "a:b"),
        ):
            client = yield self.open(path + "?subscribe-broadcast")
            self.assertIn(f"broadcast:{facility}", self.channels())
            self.redis.command("PUBLISH", f"broadcast:{facility}", "hi")
            self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_not_utf_8_control_characters_and_more_than_255_bytes_are_refused(self) -> Any:
        yield self.serve()
        for facility in ("%FF", "%C3", "a%00b", "a%0D%0Ab", "%7F", "%C2%85", "x" * 256):
            status, _ = yield self.refusal(f"/ws/{facility}?subscribe-broadcast")
            self.assertEqual(status, 400, facility)
        status, _ = yield self.refusal(f"/ws/{'%C3%BC' * 128}?subscribe-broadcast")
        self.assertEqual(status, 400)

    @inlineCallbacks
    def test_a_colon_is_refused_for_group_user_and_session_and_legal_for_broadcast(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        for verb in ("subscribe", "publish"):
            for audience in ("group", "user", "session"):
                for colon in (":", "%3A"):
                    target = f"/ws/a{colon}b?{verb}-{audience}&{verb}-broadcast"
                    status, _ = yield self.refusal(target, Cookie=cookie)
                    self.assertEqual(status, 400, target)


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
    """2. Websocket: client messages (the clock in our hands)"""

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
        """The client answers at once, while what is persisted is still being replayed to it."""
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
        """Else it would hide a stranger's equal message later, or pile up."""
        yield self.serve()
        sender = RecordingListener()
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
        sender = RecordingListener()
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
    """2. Websocket: heartbeat (the clock in our hands)"""

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


class HandshakeOrderTests(ContractTestCase):
    """2. Websocket: judged in this order, and the first thing that fails answers"""

    @inlineCallbacks
    def test_one_request_in_which_everything_is_wrong_is_mended_row_by_row(self) -> Any:
        calls: list[str] = []

        def identify(request: Any) -> None:
            raise AttributeError("deliberate")

        def refuse(request: Any, channels: Any) -> Any:
            calls.append("asked")
            raise PermissionDenied

        def of_john(session_key: str | None) -> Any:
            def process(request: Any) -> None:
                from django.contrib.auth.models import User

                request.user = User.objects.get(username="john")
                request.session = type("Session", (dict,), {"session_key": session_key})()

            return process

        broker = MemoryBroker()
        broker.available = False
        self.override(WS4REDIS_PROCESS_REQUEST=identify, WS4REDIS_ALLOWED_CHANNELS=refuse)
        self.launch(make_service(django_settings.server_config(LISTEN), broker=broker))
        host = f"127.0.0.1:{self.port}"
        method = "POST"
        target = "/elsewhere/a:b?subscribe-user&subscribe-session"
        headers: dict[str, Any] = {
            "Host": "evil.example",
            "Origin": "http://other.example",
            "Upgrade": None,
            "Sec_WebSocket_Version": "8",
            "Sec_WebSocket_Key": "short",
        }

        @inlineCallbacks
        def expect(status: int, words: str = "") -> Any:
            data = handshake_bytes(target, **headers).replace(b"GET", method.encode(), 1)
            answer = yield exchange(self.port, data)
            self.assertEqual(status_of(answer), status, answer)
            self.assertIn(words.lower(), answer.decode().lower())
            return answer

        yield expect(404)
        target = target.replace("/elsewhere/", "/ws/")
        yield expect(405, "\r\nAllow: GET\r\n")
        method = "GET"
        answer = yield expect(426, "\r\nUpgrade: websocket\r\n")
        self.assertNotIn(b"Sec-WebSocket-Version", answer)
        headers["Upgrade"] = "websocket"
        yield expect(426, "\r\nSec-WebSocket-Version: 13\r\n")
        headers["Sec_WebSocket_Version"] = "13"
        yield expect(400, "Sec-WebSocket-Key")
        headers["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        yield expect(503, "\r\nRetry-After: ")
        broker.available = True
        yield expect(400, "Host")
        headers["Host"] = host
        yield expect(403, "origin")
        headers["Origin"] = f"http://{host}"
        yield expect(500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(calls, [])
        self.override(WS4REDIS_PROCESS_REQUEST=lambda request: None)
        yield expect(403)
        self.assertEqual(calls, ["asked"])
        self.override(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        yield expect(401, "\r\nWWW-Authenticate: ")
        self.override(WS4REDIS_PROCESS_REQUEST=of_john(None))
        yield expect(403, "session")
        self.override(WS4REDIS_PROCESS_REQUEST=of_john("abc"))
        yield expect(400, "facility")
        target = target.replace("a:b", "ab")
        self.assertEqual(set(broker.hub.channels), set())
        client = yield self.open("ab?subscribe-user&subscribe-session")
        self.assertEqual(set(broker.hub.channels), {b"user:john:ab", b"session:abc:ab"})
        self.assertIsInstance(client, Client)

    @inlineCallbacks
    def test_a_body_does_not_change_which_row_answers(self) -> Any:
        yield self.serve()
        for method, target, status in (("POST", "/ws/foobar", 405), ("GET", "/elsewhere", 404)):
            head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
            answer = yield exchange(self.port, head.encode() + b"a=b")
            self.assertEqual(status_of(answer), status, target)


class HandshakeTests(ContractTestCase):
    """2. Websocket: the rows of the handshake's table, one by one"""

    @inlineCallbacks
    def test_the_path_is_under_websocket_url_else_404(self) -> Any:
        yield self.serve(WEBSOCKET_URL="/live/now/")
        for path in ("/", "/ws/foobar", "/live/foobar", "/live/now", "/LIVE/now/foobar", "*"):
            status, _ = yield self.refusal(path)
            self.assertEqual(status, 404, path)

    @inlineCallbacks
    def test_another_method_is_405_with_allow(self) -> Any:
        yield self.serve()
        for method in (b"POST", b"HEAD", b"OPTIONS", b"PUT", b"get"):
            answer = yield exchange(self.port, handshake_bytes().replace(b"GET", method, 1))
            self.assertEqual(status_of(answer), 405)
            self.assertIn(b"\r\nAllow: GET\r\n", answer)

    @inlineCallbacks
    def test_no_upgrade_is_426_with_one_line_that_explains_the_url(self) -> Any:
        yield self.serve()
        for headers in ({"Upgrade": None}, {"Connection": "keep-alive"}, {"Upgrade": "h2c"}):
            status, answer = yield self.refusal(**headers)
            self.assertEqual(status, 426)
            self.assertIn(b"\r\nUpgrade: websocket\r\n", answer)
            body = answer.partition(b"\r\n\r\n")[2]
            self.assertEqual(body.count(b"\n"), 1)
            self.assertIn(b"websocket", body)

    @inlineCallbacks
    def test_a_version_other_than_13_is_426_with_the_right_one(self) -> Any:
        yield self.serve()
        for version in (None, "8", "12", "14", "013", "13, 8"):
            status, answer = yield self.refusal(Sec_WebSocket_Version=version)
            self.assertEqual(status, 426, version)
            self.assertIn(b"\r\nSec-WebSocket-Version: 13\r\n", answer)

    @inlineCallbacks
    def test_what_is_not_well_formed_is_400(self) -> Any:
        yield self.serve()
        for headers in (
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "short"},
            {"Sec_WebSocket_Protocol": "a b"},
            {"Content_Length": "5"},
            {"X_A": "a\rb"},
        ):
            status, _ = yield self.refusal(**headers)
            self.assertEqual(status, 400, headers)
        without_host = handshake_bytes(Host=None)
        self.assertEqual(status_of((yield exchange(self.port, without_host))), 400)

    @inlineCallbacks
    def test_a_server_that_drains_or_has_no_redis_answers_503_with_retry_after(self) -> Any:
        redis = RedisServer()
        self.redis = redis
        service = yield self.serve()
        redis.stop()
        yield service.factory.broker.fence().addErrback(lambda _: None)
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertIn(b"\r\nRetry-After: ", answer)
        self.redis = shared_redis()
        service = yield self.serve()
        service.factory.drain(1012)
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertIn(b"\r\nRetry-After: ", answer)

    @inlineCallbacks
    def test_a_host_that_is_not_in_allowed_hosts_is_400(self) -> Any:
        yield self.serve(ALLOWED_HOSTS=["example.com", ".sub.example"])
        for host in ("127.0.0.1", "evil.example", "example.com.evil", "example.com, a", "a@b"):
            status, _ = yield self.refusal(Host=host)
            self.assertEqual(status, 400, host)
        for host in ("example.com", "EXAMPLE.com:8000", "a.sub.example"):
            status, _ = yield self.refusal(Host=host, Origin="http://not.there")
            self.assertEqual(status, 403, host)

    @inlineCallbacks
    def test_without_django_the_host_is_loopback_or_that_of_a_configured_origin(self) -> Any:
        yield self.start_server(allowed_origins=("https://chat.example",))
        for host, expected in (
            ("evil.example", 400), ("localhost", 403), ("[::1]:8000", 403), ("127.0.0.2", 403),
            ("chat.example", 403),
        ):  # fmt: skip
            status, _ = yield self.refusal(Host=host, Origin="http://not.there")
            self.assertEqual(status, expected, host)

    @inlineCallbacks
    def test_an_exception_in_the_lookup_is_500_with_neutral_text_and_a_traceback(self) -> Any:
        def process(request: Any) -> None:
            raise RuntimeError("a secret\r\nX-Injected: yes")

        yield self.serve(WS4REDIS_PROCESS_REQUEST=process)
        status, answer = yield self.refusal()
        self.assertEqual(status, 500)
        for words in (b"secret", b"Injected", b"RuntimeError", b"Traceback"):
            self.assertNotIn(words, answer)
        self.assertIn("process", self.flushLoggedErrors(RuntimeError)[0].getTraceback())

    @inlineCallbacks
    def test_permission_denied_is_403_and_its_text_stays_here(self) -> Any:
        def refuse(request: Any, channels: Any) -> Any:
            raise PermissionDenied("a secret reason")

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=refuse)
        status, answer = yield self.refusal()
        self.assertEqual(status, 403)
        self.assertNotIn(b"secret", answer)

    @inlineCallbacks
    def test_any_other_exception_or_answer_is_500_and_never_granted(self) -> Any:
        yield self.serve()

        def broken(request: Any, channels: Any) -> Any:
            raise AttributeError("deliberate")

        answers = (
            None, False, True, 7, object(), "subscribe-broadcast", b"subscribe-broadcast",
            ["subscribe-everything"], [None], ["subscribe-broadcast", 7], [["subscribe-user"]],
        )  # fmt: skip
        callbacks = [lambda request, channels, answer=answer: answer for answer in answers]
        for callback in (broken, *callbacks):
            with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
                status, answer = yield self.refusal()
            self.assertEqual(status, 500)
            self.assertNotIn(b"deliberate", answer)
            self.assertEqual(len(self.flushLoggedErrors()), 1)
        self.assertEqual(self.channels(), set())

    @inlineCallbacks
    def test_a_user_or_group_right_without_login_is_401_with_www_authenticate(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in ("subscribe-user", "subscribe-group", "publish-user", "publish-group"):
            status, answer = yield self.refusal(f"/ws/foobar?subscribe-broadcast&{right}")
            self.assertEqual(status, 401, right)
            self.assertIn(b"\r\nWWW-Authenticate: ", answer)

    @inlineCallbacks
    def test_a_session_right_without_a_session_key_is_403(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in ("subscribe-session", "publish-session"):
            for cookie in (None, "sessionid=", "sessionid=forged", "sessionid=" + "a" * 32):
                status, _ = yield self.refusal(f"/ws/foobar?{right}", Cookie=cookie)
                self.assertEqual(status, 403, right)

    @inlineCallbacks
    def test_with_signed_cookies_a_session_right_is_always_403(self) -> Any:
        yield self.serve(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        status, _ = yield self.refusal("/ws/foobar?subscribe-session", Cookie=cookie)
        self.assertEqual(status, 403)
        yield self.open("foobar?subscribe-user", cookies=john)
        self.assertEqual(self.channels(), {"user:john:foobar"})

    @inlineCallbacks
    def test_what_the_callback_leaves_out_is_narrowed_silently(self) -> Any:
        """Judged is only what was granted: here no login is needed any more."""
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: channels[:1])
        yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}")
        self.assertEqual(self.channels(), {"broadcast:foobar"})

    @inlineCallbacks
    def test_an_empty_answer_opens_subscribed_to_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: ())
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}")
        client.sendMessage(b"hi")
        client.sendClose(1000)
        yield client.closed
        self.assertEqual((self.channels(), self.keys()), (set(), set()))


class OriginTests(WebSocketTests):
    """2. Websocket: Origin"""

    def judge(self, host: str, origin: str | None, secure: bool = False, **policy: Any) -> int:
        """The status of a refusal, 101 if there is none."""
        data = handshake_bytes(Host=host, Origin=origin).removesuffix(b"\r\n\r\n")
        handshake = judge_request(read_request(data), "/ws/", secure=secure, peer="")
        try:
            OriginPolicy(allowed_hosts=("*",), **policy).check(handshake)
        except Denied as denied:
            return denied.status
        return 101

    def test_host_and_port_equal_the_host_headers(self) -> None:
        for host, origin, expected in (
            ("a.example", "http://a.example", 101),
            ("a.example", "http://a.example:80", 101),
            ("a.example:80", "http://a.example", 101),
            ("a.example:8000", "http://a.example:8000", 101),
            ("A.example", "http://a.EXAMPLE", 101),
            ("[::1]:8000", "http://[::1]:8000", 101),
            ("a.example", "http://b.example", 403),
            ("a.example", "http://a.example.b", 403),
            ("a.example", "http://a.example:8000", 403),
            ("a.example:8000", "http://a.example", 403),
            ("a.example:443", "https://a.example", 101),
        ):
            self.assertEqual(self.judge(host, origin), expected, (host, origin))

    def test_https_on_a_plain_listener_is_accepted_http_on_a_tls_listener_is_not(self) -> None:
        self.assertEqual(self.judge("a.example", "https://a.example"), 101)
        self.assertEqual(self.judge("a.example", "https://a.example", secure=True), 101)
        self.assertEqual(self.judge("a.example", "http://a.example", secure=True), 403)
        self.assertEqual(self.judge("a.example:80", "http://a.example", secure=True), 403)

    def test_csrf_trusted_origins_and_allowed_origins_are_allowed_too(self) -> None:
        with override_settings(
            CSRF_TRUSTED_ORIGINS=["https://trusted.example"],
            WS4REDIS_ALLOWED_ORIGINS=["https://*.example.com", "http://b.example:81"],
        ):
            origins = django_settings.server_config().allowed_origins
        for origin, expected in (
            ("https://trusted.example", 101),
            ("https://a.example.com", 101),
            ("https://a.b.example.com:443", 101),
            ("http://b.example:81", 101),
            ("https://example.com", 403),
            ("http://a.example.com", 403),
            ("https://aexample.com", 403),
            ("https://a.example.com.evil", 403),
            ("http://b.example", 403),
        ):
            self.assertEqual(self.judge("h", origin, allowed_origins=origins), expected, origin)

    def test_there_are_no_regular_expressions_and_a_star_allows_all(self) -> None:
        for wrong in ("https://.*", "https://a*.example", "*.example"):
            with self.assertRaises(ConfigError):
                OriginPolicy((wrong,))
        for text in ("https://(a|b).example", "https://..example", "https://a.example$"):
            self.assertEqual(self.judge("h", "https://a.example", allowed_origins=(text,)), 403)
        self.assertEqual(self.judge("h", "http://any.example", allowed_origins=("*",)), 101)

    def test_null_and_malformed_ones_are_refused_even_then(self) -> None:
        for origin in (
            "null",
            "",
            "a.example",
            "http://",
            "http://a/b",
            "http://a b",
            "http://a,b",
        ):
            for origins in ((), ("*",)):
                self.assertEqual(self.judge("a", origin, allowed_origins=origins), 403, origin)

    def test_a_missing_one_is_let_in_unless_it_is_required(self) -> None:
        self.assertEqual(self.judge("a.example", None), 101)
        self.assertEqual(self.judge("a.example", None, require_origin=True), 403)
        with override_settings(WS4REDIS_REQUIRE_ORIGIN=True):
            self.assertTrue(django_settings.server_config().require_origin)


class OriginLogTests(ContractTestCase):
    """2. Websocket: Origin"""

    @inlineCallbacks
    def test_the_log_line_of_a_403_names_origin_host_and_the_setting(self) -> Any:
        yield self.serve()
        lines = self.log_lines()
        yield self.refusal(Origin="https://evil.example")
        line = next(line for line in lines if "evil.example" in line)
        self.assertIn(f"127.0.0.1:{self.port}", line)
        self.assertIn("WS4REDIS_ALLOWED_ORIGINS", line)


class CloseCodeTests(WebSocketTests):
    """2. Websocket: close codes (1001 and 1012 on real sockets below)"""

    def test_1007_bad_utf_8(self) -> None:
        client = self.connect("publish-broadcast")
        client.send_bytes(client_frame(1, b"\xc3("))
        self.assertEqual(client.close_code, 1007)

    def test_1008_revoked(self) -> None:
        client = self.connect()
        client._server.close(1008, "Revoked.")
        self.assertEqual(client.close_code, 1008)

    def test_1009_too_big(self) -> None:
        self.use(max_message_size=10)
        client = self.connect("publish-broadcast")
        client.send("x" * 11)
        self.assertEqual(client.close_code, 1009)

    def test_1011_internal(self) -> None:
        class Failing(RedisSubscriber):
            def publish_message(self, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("deliberate")

        self.use(subscriber=Failing)
        client = self.connect("publish-broadcast")
        client.send("hi")
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_1013_too_slow(self) -> None:
        self.use(max_pending=100)
        client = self.connect()
        client._server.pauseProducing()
        for _ in range(3):
            self.publish(b"x" * 90)
        self.assertEqual(client.close_code, 1013)

    def test_1013_its_messages_fate_is_unknown(self) -> None:
        class Lossy(MemoryBroker):
            def publish(self, *args: Any) -> Deferred[int]:
                return fail(BrokerUnavailable("no answer", maybe_published=True))

        self.use(Lossy())
        client = self.connect("publish-broadcast")
        client.send("hi")
        self.assertEqual(client.close_code, 1013)

    def test_the_clients_own_code_is_echoed(self) -> None:
        for code in (1000, 1001, 1003, 1008, 1011, 3000, 4999):
            client = self.connect()
            client.close(code)
            self.assertEqual(client.close_code, code)


class StopCodeTests(ContractTestCase):
    """2. Websocket: close codes"""

    @inlineCallbacks
    def closed_with(self, stop_code: int | None) -> Any:
        service = make_service(django_settings.server_config(LISTEN))
        service.startService()
        self.url = f"ws://127.0.0.1:{service.ports[0].getHost().port}/ws/"
        yield service.when_ready()
        client = yield open_websocket(self.url + "foobar?subscribe-broadcast")
        if stop_code is not None:
            service.stop_code = stop_code
        yield service.stopService()
        return (yield client.closed)

    @inlineCallbacks
    def test_1001_an_embedding_application_stops_the_service(self) -> Any:
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        self.assertEqual((yield self.closed_with(None)), 1001)

    @inlineCallbacks
    def test_1012_the_server_restarts(self) -> Any:
        """As ``twistd`` sets it; that SIGTERM does so is tested where ``twistd`` is run."""
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        self.assertEqual((yield self.closed_with(1012)), 1012)


# Section 5


class UpstreamDefectTests(LoadTestCase, ContractTestCase):
    """5. What upstream got wrong (each is a test here)"""

    @inlineCallbacks
    def test_01_a_burst_of_publishes_is_complete_in_order_at_once(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        with valkey.Valkey(host="127.0.0.1", port=self.redis.port) as redis:
            pipeline = redis.pipeline(transaction=False)
            for i in range(500):
                pipeline.publish("broadcast:foobar", i)
            pipeline.execute()
        self.assertEqual((yield client.take(500)), [str(i) for i in range(500)])

    @inlineCallbacks
    def test_02_of_several_client_frames_in_one_segment_all_are_published(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        other = yield self.open("foobar?subscribe-broadcast")
        sender = yield self.open("foobar?publish-broadcast")
        sender.transport.write(b"".join(client_frame(1, b"%d" % i) for i in range(100)))
        self.assertEqual((yield other.take(100)), [str(i) for i in range(100)])

    @inlineCallbacks
    def test_03_connecting_while_a_publisher_is_busy_shows_no_duplicate_and_no_gap(self) -> Any:
        """A tenth of the 400 connects that ``test_load`` makes."""
        yield self.serve()
        yield self.connect_under_load(40)

    @inlineCallbacks
    def test_04_a_callback_by_name_that_raises_attribute_error_grants_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS="tests.contract.test_contract.broken_policy")
        status, _ = yield self.refusal()
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    @inlineCallbacks
    def test_05_another_sites_page_cannot_open_a_logged_in_users_websocket(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{self.port + 1}"):
            status, _ = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=cookie, Origin=origin
            )
            self.assertEqual(status, 403)
        own = f"http://127.0.0.1:{self.port}"
        yield self.open("foobar?subscribe-user", cookies=john, origin=own)

    @inlineCallbacks
    def test_06_anonymous_visitors_share_no_user_and_no_session_channel(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in (*SUBSCRIBE_ALL.split("&"), *PUBLISH_ALL.split("&")):
            if not right.endswith("broadcast"):
                status, _ = yield self.refusal(f"/ws/foobar?{right}")
                self.assertIn(status, (401, 403))
        self.assertEqual((self.channels(), self.keys()), (set(), set()))

    @inlineCallbacks
    def test_07_two_redis_connections_per_process_however_many_websockets(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        yield gatherResults(
            [self.open(f"f{i}?subscribe-broadcast&publish-broadcast") for i in range(150)]
        )
        yield self.publish("hi", broadcast=True)
        self.assertEqual(self.redis.connections(), 2)
        self.assertEqual(len(self.channels()), 150)

    @inlineCallbacks
    def test_08_a_closed_websocket_leaves_no_object_and_no_subscription(self) -> Any:
        """A fiftieth of the 10,000 cycles that ``test_load`` makes."""
        yield self.serve()
        yield self.assert_cycles_leave_nothing(200)

    @inlineCallbacks
    def test_09_no_byte_follows_the_close_frame(self) -> Any:
        """Messages keep coming, and a ping and a second close frame, while it is closing."""
        service = yield self.serve()
        handshake = handshake_bytes(Host=f"127.0.0.1:{self.port}")
        last_words = client_frame(9, b"ping") + client_frame(8, b"\x03\xe8")
        for sent in (client_frame(8, b"\x03\xe8") + last_words, client_frame(1, b"\xff")):
            wire = yield open_wire(self.port, handshake)
            published = []
            for i in range(20):
                published.append(self.broker.publish([b"broadcast:foobar"], b"x" * 1000, 0))
                if i == 10:
                    wire.transport.write(sent)
            rest = yield wire.ended
            yield gatherResults(published)
            while rest[0] != 0x88:
                self.assertEqual((rest[0], rest[1], len(rest) > 1004), (0x81, 126, True))
                rest = rest[1004:]
            self.assertEqual(len(rest), 2 + rest[1])
        self.assertEqual(len(service.factory._websockets), 0)

    @inlineCallbacks
    def test_10_after_redis_restarted_open_websockets_are_subscribed_again(self) -> Any:
        """That they get what was persisted meanwhile: ``RecoveryTests``."""
        client, redis = yield self.restart_redis()
        redis.command("PUBLISH", "broadcast:foobar", "live again")
        self.assertEqual((yield client.next()), "live again")

    @inlineCallbacks
    def test_11_a_slow_reader_is_bounded_isolated_and_dropped_with_1013(self) -> Any:
        """It reads on once it is dropped: who does not read the close frame soon is cut off."""
        service = yield self.serve()
        slow = yield self.open("foobar?subscribe-broadcast")
        other = yield self.open("foobar?subscribe-broadcast")
        slow.transport.pauseProducing()
        published = 0
        while not any(each.localCloseCode for each in service.factory._websockets):
            self.assertLess(published, 24)
            yield self.publish("x" * 2**20, 0, broadcast=True)
            published += 1
            yield other.next()
        slow.transport.resumeProducing()
        self.assertEqual((yield slow.closed), 1013)
        self.assertLess(len(slow.received.pending), published)

    @inlineCallbacks
    def test_12_binary_stays_binary_and_an_empty_text_frame_kills_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        for payload, binary, expected in (
            (b"\xff\xfe", True, b"\xff\xfe"),
            (b"", False, ""),
            (b"", True, ""),
            (b"still here", False, "still here"),
        ):
            client.sendMessage(payload, isBinary=binary)
            self.assertEqual((yield client.next()), expected)


def broken_policy(request: Any, channels: Any) -> Any:
    return request.no_such_attribute


class RecoveryTests(ContractTestCase):
    """5. What upstream got wrong, item 10: what was persisted meanwhile is delivered"""

    @inlineCallbacks
    def test_10_what_was_persisted_while_redis_was_away_is_delivered(self) -> Any:
        client, redis = yield self.restart_redis(("SETEX", "broadcast:foobar", 60, "missed"))
        self.assertEqual((yield client.next()), "missed")
        redis.command("PUBLISH", "broadcast:foobar", "live again")
        self.assertEqual((yield client.next()), "live again")
