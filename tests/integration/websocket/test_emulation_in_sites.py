"""Centrifuge's protocol over HTTP through a site of ``twisted.web``, which reads requests."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.clients import exchange
from tests.support.exchanges import emulated, open_stream, post, request
from tests.support.servers import ServerTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import make_broker, make_factory, make_resource


class SiteTests(ServerTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        config = ServerConfig(redis=self.redis.address, centrifuge_url="/connection/")
        broker = make_broker(config)
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        factory = make_factory(config, broker=broker)
        resource, root = make_resource(factory), Resource()
        for name in (b"ws", b"connection", b"emulation"):
            root.putChild(name, resource)
        site = Site(root)
        site.noisy = False
        port = yield serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(site)
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.drain, 1001)
        self.port = port.getHost().port

    @inlineCallbacks
    def test_bodies_arrive_however_they_were_sent(self) -> Any:
        with capturedLogs() as events:
            stream, said = yield open_stream(self.port)
            self.addCleanup(stream.transport.abortConnection)
            body = emulated(said, b'{"id":2,"subscribe":{"channel":"broadcast:f"}}')
            self.assertEqual((yield post(self.port, body)), 204)
            self.assertEqual((yield stream.message()), {"id": 2, "subscribe": {}})
            chunked = request(
                "/connection/emulation", None, Host=f"127.0.0.1:{self.port}",
                Transfer_Encoding="chunked",
            )  # fmt: skip
            chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            answer = yield exchange(self.port, chunked)
            self.assertEqual(answer.split()[1], b"204")
            self.assertEqual((yield stream.message())["error"]["code"], 105)
        warnings = [each for each in events if "mounted" in each.get("log_format", "")]
        self.assertEqual(warnings, [])

    @inlineCallbacks
    def test_a_large_body_and_a_handshake_with_a_body_are_refused(self) -> Any:
        self.assertEqual((yield post(self.port, b"x" * 65_537)), 413)
        self.assertEqual((yield post(self.port, b"x", "/ws/foobar")), 405)
        self.assertEqual((yield post(self.port, b"x", "/connection/other")), 405)
