"""The service on real sockets, with a real Redis and an independent websocket client."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.logger import LogLevel, globalLogPublisher

from tests.support.brokers import AWKWARD
from tests.support.clients import exchange, open_websocket
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.service import make_service
from ws4redis_tx.twistd.embedded_redis import free_port


class MessageTests(ServerTestCase):
    @inlineCallbacks
    def test_a_burst_arrives_complete_in_order_and_unchanged(self) -> Any:
        """100 publishes in one pipeline, written to Redis at once."""
        import valkey

        yield self.start_server()
        client = yield self.open("foobar?subscribe-broadcast")
        payloads = [*AWKWARD, *(b"%d" % i for i in range(100 - 2 * len(AWKWARD))), *AWKWARD]
        with valkey.Valkey(host="127.0.0.1", port=self.redis.port) as redis:
            pipeline = redis.pipeline(transaction=False)
            for payload in payloads:
                pipeline.publish("broadcast:foobar", payload)
            pipeline.execute()
        received = yield client.take(100)
        self.assertEqual([_bytes(message) for message in received], payloads)
        for message, payload in zip(received, payloads, strict=True):
            self.assertEqual(isinstance(message, str), _is_text(payload))

    @inlineCallbacks
    def test_many_websockets_share_two_connections_and_leave_nothing(self) -> Any:
        yield self.start_server()
        clients = yield gatherResults(
            [open_websocket(self.url + f"f{i % 7}?subscribe-broadcast") for i in range(100)]
        )
        self.assertEqual(self.redis.connections(), 2)
        self.assertEqual(len(self.redis.channels()), 7)
        for i in range(7):
            self.redis.command("PUBLISH", f"broadcast:f{i}", f"to {i}")
        received = yield gatherResults([client.next() for client in clients])
        self.assertEqual(received, [f"to {i % 7}" for i in range(100)])
        for client in clients:
            client.sendClose(1000)
        yield gatherResults([client.closed for client in clients])
        yield self.flush_server()
        self.assertEqual(self.redis.channels(), [])

    @inlineCallbacks
    def test_a_thousand_connects_at_once_are_all_served(self) -> Any:
        yield self.start_server()
        answers = yield gatherResults(
            [exchange(self.port, handshake_bytes(Upgrade=None)) for _ in range(1000)]
        )
        self.assertEqual({status_of(answer) for answer in answers}, {426})

    @inlineCallbacks
    def test_stopping_closes_the_websockets_with_1001_and_a_restart_with_1012(self) -> Any:
        for code in (1001, 1012):
            service = make_service(ServerConfig(redis=self.redis.address, listen=LISTEN))
            service.stop_code = code
            service.startService()
            self.url = f"ws://127.0.0.1:{service.ports[0].getHost().port}/ws/"
            yield service.when_ready()
            client = yield open_websocket(self.url + "foobar?subscribe-broadcast")
            yield service.stopService()
            self.assertEqual((yield client.closed), code)
        self.assertEqual(self.redis.connections(), 0)

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

    def flush_server(self) -> Any:
        return self.service.factory.broker.fence()

    @inlineCallbacks
    def start_server(self, *args: Any, **options: Any) -> Any:
        self.service = yield super().start_server(*args, **options)


class RefusalTests(ServerTestCase):
    @inlineCallbacks
    def answer(self, data: bytes) -> Any:
        return (yield exchange(self.port, data))

    @inlineCallbacks
    def test_each_bad_handshake_has_its_answer(self) -> Any:
        yield self.start_server()
        host = f"127.0.0.1:{self.port}"
        for expected, data in (
            (404, handshake_bytes("/elsewhere")),
            (405, handshake_bytes().replace(b"GET", b"POST", 1)),
            (426, handshake_bytes(Upgrade=None, Connection="close")),
            (426, handshake_bytes(Sec_WebSocket_Version="8")),
            (400, handshake_bytes(Sec_WebSocket_Key="short")),
            (400, handshake_bytes(Host="evil.example")),
            (403, handshake_bytes(Host=host, Origin="http://evil.example")),
            (401, handshake_bytes("/ws/foobar?subscribe-user")),
            (401, handshake_bytes("/ws/foobar?subscribe-group")),
            (403, handshake_bytes("/ws/foobar?subscribe-session")),
            (403, handshake_bytes("/ws/foobar?publish-broadcast")),
            (400, handshake_bytes("/ws/foo%00bar?subscribe-broadcast")),
            (400, handshake_bytes("/ws/foo%0abar?subscribe-broadcast")),
            (400, handshake_bytes("/ws/%ff?subscribe-broadcast")),
            (400, handshake_bytes(f"/ws/{'x' * 256}?subscribe-broadcast")),
            (400, b"\x16\x03\x01\x02\r\n\r\n"),
        ):
            answer = yield self.answer(data)
            self.assertEqual(status_of(answer), expected, data)

    @inlineCallbacks
    def test_a_plain_get_is_told_what_the_url_is_for(self) -> Any:
        yield self.start_server()
        answer = yield self.answer(b"GET /ws/foobar HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertIn(b"426 Upgrade Required", answer)
        self.assertIn(b"\r\nUpgrade: websocket\r\n", answer)
        self.assertIn(b"new WebSocket(", answer)

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
            # One more attempt to connect, which fails, and is not said again.
            with self.assertRaises(ConnectionRefusedError):
                yield service.factory.broker.commands.when_connected()
        self.assertEqual(len(said), 1)
        redis = RedisServer(port=port)
        self.addCleanup(redis.stop)
        yield service.when_ready()
        client = yield self.open("foobar?subscribe-broadcast")
        redis.command("PUBLISH", "broadcast:foobar", "here")
        self.assertEqual((yield client.next()), "here")

    @inlineCallbacks
    def test_after_redis_restarted_open_websockets_hear_again(self) -> Any:
        redis = RedisServer()
        self.addCleanup(lambda: redis.stop())
        service = yield self.start_server(ServerConfig(redis=redis.address, listen=LISTEN))
        client = yield self.open("foobar?subscribe-broadcast")
        redis.stop()
        redis = RedisServer(port=redis.port)
        while not redis.command("PUBLISH", "broadcast:foobar", "back"):
            yield service.factory.broker.when_available()
            yield service.factory.broker.fence().addErrback(lambda _: None)
        self.assertEqual((yield client.next()), "back")


def _bytes(message: str | bytes) -> bytes:
    return message.encode() if isinstance(message, str) else message


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
