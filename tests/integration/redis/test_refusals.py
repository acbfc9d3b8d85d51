"""Redis that refuses is told apart from Redis that is not reached, each with its own remedy."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

import valkey
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.brokers import Listener, start_broker
from tests.support.clients import exchange
from tests.support.redis import RedisServer, Sentinel, end_script, make_busy
from tests.support.servers import ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.redis.persisted import Persisted, PersistedMessages
from ws4redis_tx.twistd.embedded_redis import free_port


class OutageTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.lines: list[str] = []
        self._waiting: list[tuple[str, Deferred[None]]] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        if event["log_level"] < LogLevel.warn and "available again" not in str(event["log_format"]):
            return
        self.lines.append(formatEvent(event))
        for words, waiting in self._waiting:
            if words in self.lines[-1] and not waiting.called:
                waiting.callback(None)

    def line_with(self, words: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append((words, waiting))
        if any(words in line for line in self.lines):
            waiting.callback(None)
        return waiting.addTimeout(TIMEOUT, reactor)

    def redis(self, *options: str) -> RedisServer:
        redis = RedisServer(*options)
        self.addCleanup(redis.stop)
        return redis


class RefusalTests(OutageTests):
    def cluster(self) -> RedisServer:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        bus = str(free_port())
        return self.redis("--cluster-enabled", "yes", "--cluster-port", bus, "--dir", folder)

    @inlineCallbacks
    def assert_refused(self, url: str, answer: str, remedy: str) -> Any:
        """The log and a caller are told of ``answer`` and ``remedy``, once."""
        broker = start_broker(self, parse_redis_address(url))
        yield self.line_with("Redis is unavailable")
        error = yield self.assertFailure(broker.commands.when_connected(), BrokerUnavailable)
        self.assertFalse(broker.available)
        self.assertEqual(len(self.lines), 1, self.lines)
        for text in (self.lines[0], str(error)):
            self.assertIn(answer, text)
            self.assertIn(remedy, text)
            self.assertNotIn("running there", text)
            self.assertNotIn("wr0ng", text)
        self.assertIsInstance(error, BrokerRefused)

    @inlineCallbacks
    def test_a_wrong_password(self) -> Any:
        redis = self.redis("--requirepass", "s3cret")
        url = f"redis://:wr0ng@127.0.0.1:{redis.port}/0"
        yield self.assert_refused(url, "WRONGPASS", "Correct the user and the password")

    @inlineCallbacks
    def test_no_password(self) -> Any:
        redis = self.redis("--requirepass", "s3cret")
        url = f"redis://127.0.0.1:{redis.port}/0"
        yield self.assert_refused(url, "NOAUTH", "Correct the user and the password")

    @inlineCallbacks
    def test_a_database_that_is_not_there(self) -> Any:
        redis = self.redis()
        url = f"redis://127.0.0.1:{redis.port}/99"
        yield self.assert_refused(url, "DB index", "Correct the number of the database")

    @inlineCallbacks
    def test_a_user_without_permissions(self) -> Any:
        redis = self.redis()
        redis.command("ACL", "SETUSER", "web", "on", ">wr0ng", "+auth")
        url = f"redis://web:wr0ng@127.0.0.1:{redis.port}/3"
        yield self.assert_refused(url, "NOPERM", "docs/security.md")

    @inlineCallbacks
    def test_a_cluster(self) -> Any:
        url = f"redis://127.0.0.1:{self.cluster().port}/0"
        yield self.assert_refused(url, "CROSSSLOT", "Redis Cluster, which is not supported")

    @inlineCallbacks
    def test_a_cluster_that_has_all_its_slots(self) -> Any:
        redis = self.cluster()
        redis.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        url = f"redis://127.0.0.1:{redis.port}/0"
        with valkey.Valkey(port=redis.port) as client:
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                pass
        yield self.assert_refused(url, "CROSSSLOT", "Redis Cluster, which is not supported")

    @inlineCallbacks
    def test_one_that_is_not_reached_is_asked_to_run_there(self) -> Any:
        broker = start_broker(self, RedisAddress(host="127.0.0.1", port=free_port()))
        yield self.line_with("Redis is unavailable")
        error = yield self.assertFailure(broker.commands.when_connected(), BrokerUnavailable)
        self.assertNotIsInstance(error, BrokerRefused)
        for text in (self.lines[0], str(error)):
            self.assertIn("running there?", text)

    @inlineCallbacks
    def test_a_sentinel_that_refuses_the_password(self) -> Any:
        sentinel = Sentinel(self.redis().port)
        self.addCleanup(sentinel.stop)
        url = f"sentinel://127.0.0.1:{sentinel.port}/mymaster/0?sentinel_password=wr0ng"
        start_broker(self, parse_redis_address(url))
        yield self.line_with("Redis is unavailable")
        self.assertIn("Correct the user and the password", self.lines[0])
        self.assertNotIn("running there", self.lines[0])


class NoScriptsTests(OutageTests):
    """EVAL is renamed, disabled, or lacks a command that the scripts call."""

    @inlineCallbacks
    def assert_serves_without_scripts(self, *options: str) -> Any:
        broker = start_broker(self, self.redis(*options).address)
        yield broker.when_available()
        listener = Listener()
        yield broker.listen(b"broadcast:f", listener)
        self.assertEqual((yield broker.publish([b"broadcast:f"], b"1", 60)), 1)
        self.assertEqual((yield broker.publish([b"broadcast:f"], b"2", 0)), 1)
        self.assertEqual((yield broker.get(b"broadcast:f")), b"1")
        persisted = PersistedMessages(broker.commands, "")
        clock, found = yield persisted.find([b"broadcast:f"])
        self.assertEqual((clock, found), (None, [Persisted(b"broadcast:f", 1)]))
        self.assertEqual((yield persisted.read([(found[0], "")])), [b"1"])
        yield listener.wait_for(2)
        (line,) = self.lines
        self.assertIn("not atomically", line)

    @inlineCallbacks
    def test_disabled(self) -> Any:
        yield self.assert_serves_without_scripts("--rename-command", "EVAL", "")

    @inlineCallbacks
    def test_renamed(self) -> Any:
        yield self.assert_serves_without_scripts("--rename-command", "EVAL", "my_eval")

    @inlineCallbacks
    def test_a_command_that_the_scripts_call_is_disabled(self) -> Any:
        yield self.assert_serves_without_scripts("--rename-command", "TIME", "")

    @inlineCallbacks
    def test_a_script_that_is_refused_later_is_replaced(self) -> Any:
        redis = self.redis()
        redis.command("ACL", "SETUSER", "web", "on", ">s3cret", "~*", "&*", "+@all")
        broker = start_broker(
            self, RedisAddress(host="127.0.0.1", port=redis.port, username="web", password="s3cret")
        )
        yield broker.when_available()
        redis.command("ACL", "SETUSER", "web", "-time")
        listener = Listener()
        yield broker.listen(b"broadcast:f", listener)
        self.assertEqual((yield broker.publish([b"broadcast:f"], b"1", 60)), 1)
        self.assertEqual((yield broker.get(b"broadcast:f")), b"1")
        self.assertEqual(len(self.lines), 1, self.lines)


class BusyTests(OutageTests):
    """A script of somebody else's keeps Redis busy."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.server = self.redis("--busy-reply-threshold", "1")
        self.served = start_broker(self, self.server.address)
        yield self.served.when_available()

    @inlineCallbacks
    def test_it_is_an_outage_with_one_line_that_ends_with_the_script(self) -> Any:
        listener = Listener()
        yield self.served.listen(b"broadcast:f", listener)
        yield make_busy(self, self.server)
        error = yield self.assertFailure(
            self.served.publish([b"broadcast:f"], b"lost", 60), BrokerRefused
        )
        self.assertFalse(error.maybe_published)
        self.assertFalse(self.served.available)
        error = yield self.assertFailure(self.served.commands.when_connected(), BrokerRefused)
        self.assertIn("SCRIPT KILL", str(error))
        (line,) = self.lines
        self.assertIn("BUSY ", line)
        self.assertNotIn("running there", line)
        end_script(self.server)
        yield self.served.when_available()
        self.assertEqual((yield self.served.publish([b"broadcast:f"], b"kept", 60)), 1)
        yield listener.wait_for(1)
        self.assertEqual(listener.heard, [(b"broadcast:f", b"kept")])

    @inlineCallbacks
    def test_a_subscription_that_it_refuses_begins_the_outage(self) -> Any:
        yield make_busy(self, self.server)
        yield self.assertFailure(self.served.listen(b"broadcast:f", Listener()), BrokerUnavailable)
        yield self.line_with("Redis is unavailable")
        self.assertFalse(self.served.available)
        end_script(self.server)
        yield self.line_with("available again")
        yield self.served.listen(b"broadcast:f", Listener())

    @inlineCallbacks
    def test_one_that_connects_meanwhile_waits_for_it(self) -> Any:
        yield make_busy(self, self.server)
        newcomer = start_broker(self, self.server.address)
        yield self.line_with("Redis is unavailable")
        self.assertIn("BUSY ", self.lines[0])
        end_script(self.server)
        yield newcomer.when_available()
        self.assertEqual((yield newcomer.publish([b"broadcast:f"], b"hi", 60)), 0)
        self.assertEqual([line for line in self.lines if "permit" in line or "let" in line], [])


class BusyServerTests(ServerTestCase):
    """The clients of a server whose Redis is busy."""

    def setUp(self) -> None:
        self.redis = RedisServer("--busy-reply-threshold", "1")
        self.addCleanup(self.redis.stop)

    @inlineCallbacks
    def test_a_replay_waits_and_later_handshakes_get_503(self) -> Any:
        service = yield self.start_server()
        yield self.open("f?subscribe-broadcast")
        yield service.factory.broker.publish([b"broadcast:f"], b"kept", 60)
        yield make_busy(self, self.redis)
        # Redis is not asked to subscribe to the same channel again, so it is open at once.
        first = yield self.open("f?subscribe-broadcast")
        down = DeferredQueue()
        globalLogPublisher.addObserver(down.put)
        self.addCleanup(globalLogPublisher.removeObserver, down.put)
        while service.factory.broker.available:
            yield down.get()
        data = handshake_bytes("/ws/f?subscribe-broadcast", Host=f"127.0.0.1:{self.port}")
        answer = yield exchange(self.port, data)
        self.assertEqual(status_of(answer), 503)
        self.assertIn(b"\r\nRetry-After: ", answer)
        end_script(self.redis)
        self.assertEqual((yield first.next()), "kept")
        self.assertFalse(first.closed.called)
        self.assertEqual(self.flushLoggedErrors(), [])
