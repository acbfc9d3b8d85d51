"""The service on real sockets, with a real Redis and an independent websocket client."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, globalLogPublisher

from tests.support.clients import exchange, open_websocket
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.service import make_service
from ws4redis_tx.twistd.embedded_redis import free_port


class MessageTests(ServerTestCase):
    @inlineCallbacks
    def test_a_thousand_connects_at_once_are_all_served(self) -> Any:
        yield self.start_server()
        answers = yield gatherResults(
            [exchange(self.port, handshake_bytes(Upgrade=None)) for _ in range(1000)]
        )
        self.assertEqual({status_of(answer) for answer in answers}, {426})

    @inlineCallbacks
    def test_a_stopped_service_may_be_started_again(self) -> Any:
        service = make_service(ServerConfig(redis=self.redis.address, listen=LISTEN))
        for _ in range(2):
            service.startService()
            yield service.when_ready()
            url = f"ws://127.0.0.1:{service.ports[0].getHost().port}/ws/"
            client = yield open_websocket(url)
            yield service.stopService()
            self.assertEqual((yield client.closed), 1001)
            self.assertEqual(self.redis.connections(), 0)


class RefusalTests(ServerTestCase):
    def test_a_prefix_or_endpoint_that_cannot_work_is_said_before_anything_starts(self) -> None:
        with self.assertRaises(ConfigError):
            ServerConfig(prefix="group")
        with self.assertRaises(ConfigError) as caught:
            make_service(ServerConfig(listen=("udp:what",)))
        self.assertIn("listen is 'udp:what'", str(caught.exception))

    @inlineCallbacks
    def test_an_address_in_use_stops_the_start(self) -> Any:
        service = yield self.start_server()
        other = make_service(
            ServerConfig(
                redis=self.redis.address,
                listen=(*LISTEN, f"tcp:{self.port}:interface=127.0.0.1"),
            )
        )
        with self.assertRaises(CannotListenError):
            other.startService()
        self.assertEqual((other.running, other.ports), (0, []))
        yield service.stopService()
        other.startService()
        self.addCleanup(other.stopService)
        yield other.when_ready()
        self.assertEqual(len(other.ports), 2)


class OutageTests(ServerTestCase):
    @inlineCallbacks
    def test_without_redis_the_service_tries_on_answers_503_and_says_so_once(self) -> Any:
        said: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] >= LogLevel.warn and "Redis" in event["log_format"]:
                said.append(event["log_format"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        port = free_port()
        address = RedisAddress(host="127.0.0.1", port=port)
        service = make_service(ServerConfig(redis=address, listen=LISTEN))
        self.launch(service)
        for _ in range(3):
            answer = yield exchange(self.port, handshake_bytes())
            self.assertEqual(status_of(answer), 503)
            self.assertIn(b"\r\nRetry-After: ", answer)
            # One more attempt to connect fails, and is not logged again.
            with self.assertRaises(BrokerUnavailable):
                yield service.factory.broker.commands.when_connected()
        self.assertEqual(len(said), 1)
        redis = RedisServer(port=port)
        self.addCleanup(redis.stop)
        yield service.when_ready()
        client = yield self.open("foobar?subscribe-broadcast")
        redis.command("PUBLISH", "broadcast:foobar", "here")
        self.assertEqual((yield client.next()), "here")
