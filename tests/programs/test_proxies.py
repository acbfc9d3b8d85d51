"""docs/proxies.md: events come through proxies one by one, also where they compress (fault 10), and
the clients of its table survive a restart, or do not (fault 9).
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import EncodingResourceWrapper
from twisted.web.server import GzipEncoderFactory, Site

from tests.support import TIMEOUT
from tests.support.clients import open_websocket
from tests.support.cutting import HERE
from tests.support.event_sources import Said, site, start_chromium, start_node
from tests.support.events import open_events
from tests.support.pages import DOCS, blocks_of, broken_links
from tests.support.programs import twistd
from tests.support.proxies import start_apache, start_haproxy, start_nginx
from tests.support.servers import ServerTestCase
from tests.support.sizes import FULL
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import make_broker, make_factory, make_resource, make_service
from ws4redis_tx.sse import transport
from ws4redis_tx.twistd.embedded_redis import free_port

PAGE = DOCS / "proxies.md"
MESSAGES = 10
FLAGS = "?subscribe-broadcast"
TARGET = f"/ws/{FLAGS}"
LATER = ("error_page",)


class ProxyTestCase(ServerTestCase):
    """A server, and a site that takes what clients hear."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.patch(transport, "_retry", lambda: b"retry: 20\n\n")
        self.said = Said()
        pages = Site(site(self.said))
        pages.noisy = False
        port = yield serverFromString(reactor, HERE).listen(pages)
        self.addCleanup(port.stopListening)
        self.site_port = port.getHost().port
        self.port = free_port()

    @inlineCallbacks
    def start(self, **options: Any) -> Any:
        config = ServerConfig(
            **options,
            redis=self.redis.address,
            listen=(f"tcp:{self.port}:interface=127.0.0.1",),
            history=(("", 100, 600),),
        )
        service = make_service(config)
        self.launch(service)
        yield service.when_ready()
        return service

    def publish(self, message: str) -> None:
        self.redis.command("SETEX", "broadcast:", 600, message)
        self.redis.command("PUBLISH", "broadcast:", message)


class Head(Protocol):
    """Reads the head of an answer."""

    def __init__(self) -> None:
        self.whole: Deferred[bytes] = Deferred()
        self._read = b""

    def dataReceived(self, data: bytes) -> None:
        self._read += data
        head, end, _ = self._read.partition(b"\r\n\r\n")
        if end and not self.whole.called:
            self.whole.callback(head)


class FlushedTests(ProxyTestCase):
    """Each message is published when the client has heard the one before it: a proxy that holds an
    event back makes a test fail.
    """

    @inlineCallbacks
    def check(self, proxy: int) -> Any:
        origin = f"http://127.0.0.1:{proxy}"
        start_node(self, "eventsource", origin, TARGET)  # it asks for compression
        yield self.said.first("live")
        for number in range(MESSAGES):
            self.publish(str(number))
            heard = yield self.said.next()
            self.assertEqual(heard[:2], ["message", str(number)])
        websocket = yield open_websocket(f"ws://127.0.0.1:{proxy}{TARGET}", origin=origin)
        self.assertEqual((yield websocket.next()), str(MESSAGES - 1))
        websocket.sendClose(1000)
        yield websocket.closed

    @inlineCallbacks
    def head(self, proxy: int) -> Any:
        """Fire with the head of the answer to a client that asks for compression."""
        reader = Head()
        yield connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", proxy), reader)
        self.addCleanup(reader.transport.abortConnection)
        reader.transport.write(
            f"GET {TARGET} HTTP/1.1\r\nHost: 127.0.0.1:{proxy}\r\n"
            "Accept: text/event-stream\r\nAccept-Encoding: gzip\r\n\r\n".encode()
        )
        head = yield reader.whole.addTimeout(TIMEOUT, reactor)
        return head.lower()

    @inlineCallbacks
    def test_nginx(self) -> Any:
        yield self.start()
        port = yield start_nginx(self, self.port, self.site_port)
        yield self.check(port)
        self.assertIn(b"content-encoding: gzip", (yield self.head(port)))

    @inlineCallbacks
    def test_apache(self) -> Any:
        yield self.start()
        port = yield start_apache(self, self.port, self.site_port)
        yield self.check(port)
        self.assertNotIn(b"content-encoding", (yield self.head(port)))

    @inlineCallbacks
    def test_haproxy(self) -> Any:
        if not FULL:
            raise SkipTest("make test-all runs it")
        yield self.start()
        port = yield start_haproxy(self, self.port, self.site_port)
        yield self.check(port)
        self.assertNotIn(b"content-encoding", (yield self.head(port)))


class CompressingTests(ServerTestCase):
    """Where Twisted or Django compress the pages, streams are not compressed."""

    @inlineCallbacks
    def check(self, port: int) -> Any:
        source = yield open_events(port, TARGET, Accept_Encoding="gzip")
        self.addCleanup(lambda: source.closed)
        self.addCleanup(source.transport.abortConnection)
        self.assertNotIn("content-encoding", source.head.lower())
        opened, live = yield source.take(2)
        self.assertEqual((opened.type, live.type), ("open", "live"))
        for number in range(MESSAGES):
            self.redis.command("PUBLISH", "broadcast:", str(number))
            self.assertEqual((yield source.next()).data, str(number))

    @inlineCallbacks
    def test_a_resource_that_twisted_compresses(self) -> Any:
        config = ServerConfig(redis=self.redis.address)
        broker = make_broker(config)
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        factory = make_factory(config, broker=broker)
        root = site(Said())
        compressed = EncodingResourceWrapper(make_resource(factory), [GzipEncoderFactory()])
        root.putChild(b"ws", compressed)
        pages = Site(root)
        pages.noisy = False
        port = yield serverFromString(reactor, HERE).listen(pages)
        self.addCleanup(port.stopListening)
        yield self.check(port.getHost().port)

    @inlineCallbacks
    def test_a_site_that_django_compresses(self) -> Any:
        port = free_port()
        program = twistd(
            "--serve-django",
            "--settings=tests.projects.compressed_site",
            f"--redis={self.redis.address}",
            f"--listen=tcp:{port}:interface=127.0.0.1",
        )
        self.addCleanup(program.end)
        yield program.wait_for("Ready: ")
        yield self.check(port)


class RestartTests(ProxyTestCase):
    @inlineCallbacks
    def restart(self, service: Any, gives_up: bool) -> Any:
        """Stop the server under a client, wait until the client has asked the proxy in vain, and
        start it again.
        """
        yield service.stopService()
        state = yield self.said.first("error")
        while gives_up and state[1] != "2":
            state = yield self.said.first("error")
        if not gives_up:
            for _ in range(2):
                self.assertNotEqual((yield self.said.first("error"))[1], "2")
        self.publish("meanwhile")
        yield self.start()

    @inlineCallbacks
    def outlives(self, package: str, gives_up: bool, *without: str) -> Any:
        service = yield self.start()
        proxy = yield start_nginx(self, self.port, self.site_port, *without)
        start_node(self, package, f"http://127.0.0.1:{proxy}", TARGET)
        yield self.said.first("live")
        yield self.restart(service, gives_up)
        if not gives_up:
            yield self.said.first("message", "meanwhile")

    def test_a_502_ends_eventsource_for_good(self) -> Any:
        return self.outlives("eventsource", True, *LATER)

    def test_a_502_ends_event_source_polyfill_for_good(self) -> Any:
        return self.outlives("event-source-polyfill", True, *LATER)

    def test_launchdarkly_eventsource_outlives_a_502(self) -> Any:
        return self.outlives("launchdarkly-eventsource", False, *LATER)

    def test_fetch_event_source_outlives_a_502(self) -> Any:
        return self.outlives("@microsoft/fetch-event-source", False, *LATER)

    def test_eventsource_outlives_a_restart_if_the_proxy_answers_as_documented(self) -> Any:
        return self.outlives("eventsource", False)

    @inlineCallbacks
    def browse(self, *without: str) -> Any:
        """Fire with a server, with a page open that has a bare EventSource and both of our
        clients.
        """
        service = yield self.start()
        proxy = yield start_nginx(self, self.port, self.site_port, *without)
        start_chromium(self, f"http://127.0.0.1:{proxy}/both{FLAGS}")
        found: set[str] = set()
        while not found >= {"live", "connected", "module is open"}:
            found.add((yield self.said.next())[0])
        return service

    @inlineCallbacks
    def test_a_502_ends_the_browsers_own_and_not_ours(self) -> Any:
        service = yield self.browse(*LATER)
        yield self.restart(service, True)
        yield self.hear("meanwhile", "websocket", "module")

    @inlineCallbacks
    def test_all_outlive_a_restart_if_the_proxy_answers_as_documented(self) -> Any:
        service = yield self.browse()
        yield self.restart(service, False)
        yield self.hear("meanwhile", "message", "websocket", "module")

    @inlineCallbacks
    def hear(self, message: str, *clients: str) -> Any:
        kinds = set(clients)
        while kinds:
            kind, data, _ = yield self.said.next()
            if kind in kinds:
                self.assertEqual(data, message)
                kinds.remove(kind)

    @inlineCallbacks
    def test_all_outlive_a_server_that_drains(self) -> Any:
        service = yield self.browse(*LATER)
        yield self.drain(service)
        yield self.hear("meanwhile", "message", "websocket", "module")

    @inlineCallbacks
    def drain(self, service: Any) -> Any:
        """Serve nobody until the client has asked in vain."""
        server = service.factory.session_server
        yield server.drain(1012)
        for _ in range(3):
            yield self.said.first("error", "0")
        server.open_up()
        self.publish("meanwhile")

    @inlineCallbacks
    def test_a_page_of_an_allowed_origin_outlives_it_too(self) -> Any:
        origin = f"http://127.0.0.1:{self.site_port}"
        service = yield self.start(allowed_origins=(origin,))
        start_chromium(self, f"{origin}/#http://127.0.0.1:{self.port}{TARGET}")
        yield self.said.first("live")
        yield self.drain(service)
        yield self.said.first("message", "meanwhile")


class PageTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        languages = [block.language for block in blocks_of(PAGE)]
        self.assertEqual(languages, ["nginx", "apache", "text"])

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(PAGE), [])
