"""The contract, section 1: the Redis layout."""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.protocols import portforward

from tests.support.brokers import start_broker
from tests.support.django import set_up_django
from tests.support.redis import RawSubscriber, RedisServer
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable, ConfigError
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.broker import RedisBroker

set_up_django()


from ws4redis_tx.policies import allow_all


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
        """All of them reach Redis although no answer comes back."""
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
        other = start_broker(self, RedisAddress("127.0.0.1", self.redis.port, db=1))
        yield other.when_available()
        yield other.publish([b"broadcast:foobar"], b"from db 1", 60)
        self.assertEqual((yield client.next()), "from db 1")
        self.assertEqual(self.keys(), set())

    def time(self) -> int:
        seconds, microseconds = self.redis.command("TIME")
        return int(seconds) * 10**6 + int(microseconds)

    @inlineCallbacks
    def behind_a_proxy(self) -> Any:
        """Fire with a broker and the proxy through which it talks to Redis."""
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
    """A proxy between a client and Redis; while ``deaf``, it drops all answers of Redis."""

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
