"""Embedded in applications: several servers in one reactor, beside the applications' own code."""

from __future__ import annotations

from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from twisted.web.util import DeferredResource

from tests.support.brokers import Listener
from tests.support.clients import exchange, open_websocket
from tests.support.redis import RedisServer, shared_redis
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.core.interfaces import NullHooks
from ws4redis_tx.service import (
    Publisher,
    ServerConfig,
    WebSocketService,
    make_broker,
    make_factory,
    make_resource,
    make_service,
)
from ws4redis_tx.testing import MemoryBroker, client_frame, connect, make_memory_factory

HERE = "tcp:0:interface=127.0.0.1"


class Page(Resource):
    def __init__(self, text: bytes) -> None:
        super().__init__()
        self._text = text

    def render_GET(self, request: Any) -> bytes:  # noqa: N802
        return self._text


class TwoServersTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def site(self, root: Resource) -> Any:
        """Fire with the port on which a site listens."""
        site = Site(root)
        site.noisy = False
        port = yield serverFromString(reactor, HERE).listen(site)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    @inlineCallbacks
    def page(self, port: int, path: str = "/") -> Any:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        return (yield exchange(port, request.encode()))

    @inlineCallbacks
    def start(self, redis: RedisServer, **options: Any) -> Any:
        service = make_service(ServerConfig(redis=redis.address, listen=LISTEN, **options))
        service.startService()
        self.addCleanup(lambda: service.running and service.stopService())
        yield service.when_ready()
        port = service.ports[0].getHost().port
        return service, f"ws://127.0.0.1:{port}/ws/news?subscribe-broadcast"

    @inlineCallbacks
    def test_each_has_its_own_redis_and_names_and_goes_on_when_the_other_stops(self) -> Any:
        ours, theirs = shared_redis(), RedisServer()
        self.addCleanup(theirs.stop)
        root = Resource()
        root.putChild(b"", Page(b"unrelated"))
        site = yield self.site(root)
        first, url = yield self.start(ours, prefix="one")
        second, other_url = yield self.start(theirs, prefix="two")
        one, two = (yield open_websocket(url)), (yield open_websocket(other_url))
        for redis in (ours, theirs):
            for name in ("one", "two"):
                redis.command("PUBLISH", f"{name}:broadcast:news", f"{name} on {redis.port}")
        self.assertEqual((yield one.next()), f"one on {ours.port}")
        self.assertEqual((yield two.next()), f"two on {theirs.port}")

        yield first.stopService()
        self.assertEqual((yield one.closed), 1001)
        self.assertEqual(ours.connections(), 0)
        theirs.command("PUBLISH", "two:broadcast:news", "still here")
        self.assertEqual((yield two.next()), "still here")
        self.assertIn(b"unrelated", (yield self.page(site)))
        three = yield open_websocket(other_url)
        yield second.stopService()
        self.assertEqual(((yield two.closed), (yield three.closed)), (1001, 1001))
        self.assertIn(b"unrelated", (yield self.page(site)))
        # Neither heard a message of the other.
        self.assertEqual([client.received.pending for client in (one, two, three)], [[], [], []])

    @inlineCallbacks
    def test_those_of_one_redis_do_not_see_each_other_but_for_the_prefix(self) -> Any:
        redis = shared_redis()
        _, url = yield self.start(redis, prefix="one")
        _, other_url = yield self.start(redis, prefix="two")
        one, two = (yield open_websocket(url)), (yield open_websocket(other_url))
        redis.command("PUBLISH", "one:broadcast:news", "1")
        redis.command("PUBLISH", "two:broadcast:news", "2")
        self.assertEqual(((yield one.next()), (yield two.next())), ("1", "2"))

    @inlineCallbacks
    def test_one_that_cannot_listen_leaves_the_other_alone(self) -> Any:
        service, url = yield self.start(shared_redis())
        port = service.ports[0].getHost().port
        other = make_service(
            ServerConfig(redis=shared_redis().address, listen=(f"tcp:{port}:interface=127.0.0.1",))
        )
        self.assertRaises(CannotListenError, other.startService)
        yield open_websocket(url)
        self.assertEqual(shared_redis().connections(), 2)


class SharedBrokerTests(ServerTestCase):
    """One broker for two factories, and for the application's own code."""

    @inlineCallbacks
    def test_it_serves_them_all_over_two_connections(self) -> Any:
        config = ServerConfig(redis=self.redis.address)
        broker = make_broker(config)
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        clients = []
        for _ in range(2):
            factory = make_factory(config, broker=broker)
            port = yield serverFromString(reactor, HERE).listen(factory)
            self.addCleanup(port.stopListening)
            self.addCleanup(factory.drain, 1001)
            url = f"ws://127.0.0.1:{port.getHost().port}/ws/news?subscribe-broadcast"
            clients.append((yield open_websocket(url)))
        listener = Listener()
        yield broker.listen(b"broadcast:news", listener)
        self.assertEqual(self.redis.connections(), 2)

        self.assertEqual((yield broker.publish([b"broadcast:news"], b"hello", 0)), 1)
        publisher = Publisher(config, broker, facility="news", broadcast=True)
        yield publisher.publish_message("again")
        for client in clients:
            self.assertEqual((yield client.take(2)), ["hello", "again"])
        yield listener.wait_for(2)
        self.assertEqual([payload for _, payload in listener.heard], [b"hello", b"again"])

        broker.unlisten(b"broadcast:news", listener)
        yield broker.publish([b"broadcast:news"], b"without you", 0)
        self.assertEqual((yield clients[0].next()), "without you")
        self.assertEqual(len(listener.heard), 2)

    @inlineCallbacks
    def test_a_service_leaves_a_broker_that_it_was_given_to_its_owner(self) -> Any:
        config = ServerConfig(redis=self.redis.address, listen=LISTEN)
        broker = make_broker(config)
        application = MultiService()
        broker.setServiceParent(application)
        services = [make_service(config, broker=broker) for _ in range(2)]
        for service in services:
            service.setServiceParent(application)
        application.startService()
        self.addCleanup(application.stopService)
        yield services[0].when_ready()
        yield services[0].disownServiceParent()
        self.assertTrue(broker.available)
        port = services[1].ports[0].getHost().port
        yield open_websocket(f"ws://127.0.0.1:{port}/ws/news")


class ResourceTests(ServerTestCase):
    """Websockets under an existing site, beside its pages."""

    @inlineCallbacks
    def serve(self, websocket_url: str, *path: bytes) -> Any:
        """Fire with the port of a site that has websockets at ``path``, beside its pages."""
        config = ServerConfig(redis=self.redis.address, websocket_url=websocket_url)
        broker = make_broker(config)
        broker.startService()
        self.addCleanup(broker.stopService)
        yield broker.when_available()
        factory = make_factory(config, broker=broker)
        root = parent = Resource()
        for name in path[:-1]:
            child = Resource()
            child.putChild(b"page", Page(b"a page in " + name))
            parent.putChild(name, child)
            parent = child
        parent.putChild(path[-1], make_resource(factory))
        site = Site(root)
        site.noisy = False
        port = yield serverFromString(reactor, HERE).listen(site)
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.drain, 1001)
        return port.getHost().port

    @inlineCallbacks
    def test_they_may_be_at_any_path(self) -> Any:
        for url, path in (
            ("/ws/", (b"ws",)),
            ("/shop/live/ws/", (b"shop", b"live", b"ws")),
            ("/a-b/~c/", (b"a-b", b"~c")),
        ):
            port = yield self.serve(url, *path)
            client = yield open_websocket(
                f"ws://127.0.0.1:{port}{url}news/today?subscribe-broadcast"
            )
            self.redis.command("PUBLISH", "broadcast:news/today", url)
            self.assertEqual((yield client.next()), url)
            for folder in path[:-1]:
                prefix = url[: url.index(folder.decode()) + len(folder)]
                request = f"GET {prefix}/page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                page = yield exchange(port, request.encode() + b"\r\n")
                self.assertIn(b"a page in " + folder, page)

    @inlineCallbacks
    def test_a_service_that_listens_nowhere_starts_and_ends_them(self) -> Any:
        service = make_service(ServerConfig(redis=self.redis.address), endpoints=())
        root = Resource()
        root.putChild(b"ws", make_resource(service.factory))
        site = Site(root)
        site.noisy = False
        port = yield serverFromString(reactor, HERE).listen(site)
        self.addCleanup(port.stopListening)
        for _ in range(2):
            service.startService()
            yield service.when_ready()
            client = yield open_websocket(f"ws://127.0.0.1:{port.getHost().port}/ws/news")
            yield service.stopService()
            self.assertEqual((yield client.closed), 1001)
            answer = yield exchange(port.getHost().port, handshake_bytes("/ws/news"))
            self.assertEqual(status_of(answer), 503)
            self.assertEqual(self.redis.connections(), 0)

    @inlineCallbacks
    def test_where_they_do_not_answer_the_log_says_why_once(self) -> Any:
        said: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] is LogLevel.warn:
                said.append(event["log_format"].format(**event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        port = yield self.serve("/ws/", b"live", b"ws")
        for _ in range(2):
            answer = yield exchange(port, handshake_bytes("/live/ws/news"))
            self.assertEqual(status_of(answer), 404)
        (text,) = said
        self.assertIn("at /live/ws, but their URLs begin with /ws/", text)
        self.assertIn("WEBSOCKET_URL", text)

    @inlineCallbacks
    def test_where_they_do_answer_it_says_nothing_whatever_is_asked_for(self) -> Any:
        said: list[Any] = []

        def observe(event: Any) -> None:
            if event["log_namespace"] == "ws4redis_tx.websocket.resource":
                said.append(event)

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        port = yield self.serve("/ws/", b"ws")
        answer = yield exchange(port, handshake_bytes("/ws"))
        self.assertEqual(status_of(answer), 404)
        self.assertEqual(said, [])

    @inlineCallbacks
    def test_what_follows_a_handshake_before_its_answer_is_refused_here_too(self) -> Any:
        port = yield self.serve("/ws/", b"ws")
        for surplus in (client_frame(1, b"a"), b"x" * 1000, b"GET /ws/news HTTP/1.1\r\n\r\n"):
            answer = yield exchange(port, handshake_bytes("/ws/news") + surplus)
            self.assertEqual(status_of(answer), 400)


class LateTests(SynchronousTestCase):
    def test_who_left_while_the_site_looked_for_the_resource_harms_nobody(self) -> None:
        found: Deferred[Any] = Deferred()
        factory = make_memory_factory()
        site = Site(DeferredResource(found), reactor=Clock())
        channel = site.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        channel.makeConnection(StringTransport())
        channel.dataReceived(handshake_bytes("/ws/news"))
        channel.connectionLost(Failure(ConnectionDone()))
        found.callback(make_resource(factory))
        self.assertEqual(self.flushLoggedErrors(), [])


class InterfaceTests(SynchronousTestCase):
    def test_what_is_made_is_what_twisted_expects(self) -> None:
        config, broker = ServerConfig(), MemoryBroker()
        for hooks in (None, NullHooks()):
            factory = make_factory(config, broker=broker, hooks=hooks, reactor=Clock())
            self.assertTrue(IProtocolFactory.providedBy(factory))
            self.assertTrue(IResource.providedBy(make_resource(factory)))
        self.assertTrue(IService.providedBy(make_service(config, broker=broker)))
        self.assertTrue(IService.providedBy(make_broker(config)))

    def test_a_service_stops_its_hooks_after_its_websockets_and_before_its_broker(self) -> None:
        order: list[str] = []
        waiting: Deferred[None] = Deferred()

        class Hooks(NullHooks):
            def closed(self, connection: Any, closing: Any) -> None:
                order.append("websockets")

            def stop(self) -> Deferred[None]:
                order.append("hooks")
                return waiting

        class Broker(MemoryBroker):
            def startService(self) -> None:
                order.append("start")

            def stopService(self) -> None:
                order.append("broker")

        broker, hooks = Broker(), Hooks()
        factory = make_memory_factory(broker=broker, hooks=hooks)
        service = WebSocketService(factory, (), broker, [hooks.stop])
        service.startService()
        client = connect(factory, "ws://localhost/ws/x")
        stopped = service.stopService()
        client.lose_connection()
        self.assertEqual(order, ["start", "websockets", "hooks"])
        waiting.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(order, ["start", "websockets", "hooks", "broker"])

    def test_to_make_a_service_touches_nothing(self) -> None:
        before = reactor.getDelayedCalls()
        make_service(ServerConfig(listen=("tcp:1",)))
        self.assertEqual(reactor.getDelayedCalls(), before)
