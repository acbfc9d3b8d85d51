"""Client libraries of Centrifuge's protocol, unchanged, at the edge: behind proxies that are
configured as docs/proxies.md says, over TLS, and in Chromium. Issue 17.

Each message is published when the one before it was heard, so a proxy that holds one back makes a
test fail.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import SkipTest
from twisted.web.server import Site

from tests.support.centrifuge_clients import Go, JavaScript, Library, Python, start_client
from tests.support.certificates import make_certificate
from tests.support.cutting import HERE, CuttingProxy
from tests.support.event_sources import Said, site
from tests.support.exchanges import commands, emulated, open_stream, post
from tests.support.javascript_pages import inside, open_page
from tests.support.programs import write_file
from tests.support.proxies import start_apache, start_nginx
from tests.support.sites import ContractTestCase
from tests.support.sizes import FULL

CHANNEL = "broadcast:chat/1"
OTHER = "broadcast:other"
"""Without presence: no joins."""
MESSAGES = 10
NEWEST, OLDEST = "5.8.0", "4.0.0"

CONNECT = """
    const place = transport === "websocket" ? origin.replace("http", "ws") : origin;
    self.client = new Centrifuge([{transport, endpoint: `${place}/connection/${transport}`}], {
        emulationEndpoint: `${origin}/emulation`, minReconnectDelay: 20, maxReconnectDelay: 100,
    });
    self.room = client.newSubscription("broadcast:chat/1");
    self.subscribed = [];
    room.on("publication", ({data, info}) => show(data));
    room.on("subscribed", (context) => subscribed.push(context));
    self.errors = [];
    client.on("error", ({error}) => errors.push(error.code));
    room.on("unsubscribed", ({code}) => errors.push(code));
    room.subscribe();
    client.connect();
"""


def connect(transport: str, origin: str) -> str:
    """What a page does to hear the room."""
    return inside(f"const transport = {transport!r}, origin = {origin!r};", CONNECT)


def only_full() -> None:
    if not FULL:
        raise SkipTest("make test-all runs it")


class EdgeTestCase(ContractTestCase):
    timeout = 180

    @inlineCallbacks
    def start(self, **settings: Any) -> Any:
        """Start a server in which John may publish."""
        yield self.serve(
            WS4REDIS_CENTRIFUGE_URL="/connection/",
            WS4REDIS_HISTORY={"chat/*": (100, 3600)},
            WS4REDIS_PRESENCE=["chat/*"],
            WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: (
                channels if request.user.is_authenticated else ()
            ),
            **settings,
        )
        self.cookies = yield self.log_in("john")
        self.count = 0

    @inlineCallbacks
    def start_site(self) -> Any:
        """Fire with the port of a site of pages, on another origin than the server."""
        pages = Site(site(Said()))
        pages.noisy = False
        port = yield serverFromString(reactor, HERE).listen(pages)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def say(self, value: Any) -> Any:
        return self.publish(json.dumps(value), facility="chat/1", broadcast=True)

    @inlineCallbacks
    def check_flow(self, client: Any) -> Any:
        """What is published on either side arrives at once."""
        for number in range(MESSAGES):
            yield self.say(number)
            heard = yield client.next("publication", channel=CHANNEL)
            self.assertEqual(heard["data"], number)
        answer = yield client.ask("publish", channel=CHANNEL, data="by the client")
        self.assertNotIn("error", answer)
        heard = yield client.next("publication", channel=CHANNEL)
        self.assertEqual((heard["data"], heard["info"]["user"]), ("by the client", "john"))

    @inlineCallbacks
    def check(self, library: Library, port: int, trusts: str = "") -> Any:
        """Check that it hears all, and recovers, on a way that leads over ``port``."""
        cutting = CuttingProxy(port, [])
        way = yield cutting.start(self)
        client = start_client(self, library, way, cookies=self.cookies, trusts=trusts)
        client.do("connect")
        yield client.next("connected")
        client.do("subscribe", channel=CHANNEL)
        yield client.next("subscribed", channel=CHANNEL)
        yield self.check_flow(client)
        cutting.cut_all()
        yield self.say("meanwhile")
        yield client.next("publication", data="meanwhile")
        yield client.until(lambda: client.events("subscribed", wasRecovering=True, recovered=True))
        yield self.check_flow(client)
        once = [*range(MESSAGES), "by the client"]
        self.assertEqual(client.heard(CHANNEL), [*once, "meanwhile", *once])
        yield client.end()


class ProxyTests(EdgeTestCase):
    """Both proxies compress what they may."""

    @inlineCallbacks
    def check_behind(self, start_proxy: Any, *libraries: Library) -> Any:
        for library in libraries:
            library.command()
        yield self.start()
        proxy = yield start_proxy(self, self.port, (yield self.start_site()))
        for library in libraries:
            yield self.check(library, proxy)

    def test_http_stream_behind_nginx(self) -> Any:
        return self.check_behind(start_nginx, JavaScript(NEWEST, transport="http_stream"))

    def test_sse_behind_nginx(self) -> Any:
        return self.check_behind(start_nginx, JavaScript(NEWEST, transport="sse"))

    def test_protobuf_over_a_websocket_behind_nginx(self) -> Any:
        return self.check_behind(start_nginx, Python(protobuf=True))

    def test_every_codec_and_transport_behind_nginx(self) -> Any:
        only_full()
        return self.check_behind(
            start_nginx,
            JavaScript(NEWEST, protobuf=True, transport="http_stream"),
            JavaScript(OLDEST, transport="http_stream"),
            JavaScript(OLDEST, transport="sse"),
            JavaScript(NEWEST),
            JavaScript(NEWEST, protobuf=True),
            JavaScript(OLDEST, protobuf=True),
        )

    def test_go_behind_nginx(self) -> Any:
        only_full()
        return self.check_behind(start_nginx, Go(), Go(protobuf=False))

    def test_every_transport_behind_apache(self) -> Any:
        only_full()
        return self.check_behind(
            start_apache,
            JavaScript(NEWEST, transport="http_stream"),
            JavaScript(NEWEST, protobuf=True, transport="http_stream"),
            JavaScript(NEWEST, transport="sse"),
            JavaScript(NEWEST, protobuf=True),
        )


class TlsTestCase(EdgeTestCase):
    """The server itself speaks TLS."""

    @inlineCallbacks
    def start(self, **settings: Any) -> Any:
        public, both = make_certificate(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        self.trusts, key = write_file(self, public), write_file(self, both)
        self.endpoints = (f"ssl:0:interface=127.0.0.1:privateKey={key}:certKey={key}",)
        yield super().start(**settings)


class TlsTests(TlsTestCase):
    @inlineCallbacks
    def check_all(self, *libraries: Library) -> Any:
        for library in libraries:
            library.command()
        yield self.start()
        for library in libraries:
            yield self.check(library, self.port, self.trusts)

    def test_http_stream(self) -> Any:
        return self.check_all(JavaScript(NEWEST, transport="http_stream"))

    def test_every_codec_and_transport(self) -> Any:
        only_full()
        return self.check_all(
            JavaScript(NEWEST, protobuf=True, transport="http_stream"),
            JavaScript(NEWEST, transport="sse"),
            JavaScript(NEWEST, protobuf=True),
            Python(),
            Python(protobuf=True),
        )

    def test_go(self) -> Any:
        only_full()
        return self.check_all(Go())


class BrowserTestCase(EdgeTestCase):
    """The page has the session cookie, and no token."""

    @inlineCallbacks
    def check_page(self, port: int, *transports: str, scheme: str = "http") -> Any:
        for transport in transports:
            cutting = CuttingProxy(port, [])
            way = yield cutting.start(self)
            self.page = yield open_page(self, way, self.cookies, scheme)
            yield self.page.run(connect(transport, f"{scheme}://127.0.0.1:{way}"))
            yield self.page.until("subscribed.length === 1")
            yield self.hear(0)
            yield self.page.run("room.publish('by the page')")
            yield self.page.until("shown.at(-1) === 'by the page'")
            cutting.cut_all()
            yield self.say("meanwhile")
            yield self.page.until("subscribed.length === 2 && shown.at(-1) === 'meanwhile'")
            self.assertTrue((yield self.page.run("subscribed[1].recovered")))
            yield self.hear(MESSAGES)
            heard = [*range(MESSAGES), "by the page", "meanwhile", *range(MESSAGES, 2 * MESSAGES)]
            self.assertEqual((yield self.page.run("shown")), heard)

    @inlineCallbacks
    def hear(self, first: int) -> Any:
        for number in range(first, first + MESSAGES):
            yield self.say(number)
            yield self.page.until(f"shown.at(-1) === {number}")


class BrowserTests(BrowserTestCase):
    @inlineCallbacks
    def test_both_transports_over_http_behind_nginx(self) -> Any:
        yield self.start()
        proxy = yield start_nginx(self, self.port, (yield self.start_site()))
        yield self.check_page(proxy, "http_stream", "sse")

    @inlineCallbacks
    def test_every_transport_without_a_proxy(self) -> Any:
        only_full()
        yield self.start()
        yield self.check_page(self.port, "http_stream", "sse", "websocket")


class BrowserTlsTests(BrowserTestCase, TlsTestCase):
    @inlineCallbacks
    def test_every_transport(self) -> Any:
        only_full()
        yield self.start()
        yield self.check_page(self.port, "http_stream", "sse", "websocket", scheme="https")


class OriginTests(EdgeTestCase):
    """A page of another port is another origin, but the same site: browsers send the cookies."""

    @inlineCallbacks
    def open_foreign_page(self, **settings: Any) -> Any:
        port = yield self.start_site()
        self.origin = f"http://127.0.0.1:{port}"
        yield self.start(**{name: [self.origin] for name in settings})
        self.url = f"http://127.0.0.1:{self.port}"
        self.page = yield open_page(self, port, self.cookies)

    @inlineCallbacks
    def test_a_foreign_page_cannot_post_for_a_visitor(self) -> Any:
        """The server refuses it: the browser would have sent it with the cookie."""
        yield self.open_foreign_page()
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        subscribe = {"id": 2, "subscribe": {"channel": OTHER}}
        stream, said = yield open_stream(self.port, subscribe, Cookie=cookie)
        self.addCleanup(stream.transport.abortConnection)
        self.assertEqual((yield stream.message())["id"], 2)
        sent, answered = self.watch("requestWillBe", "Sent"), self.watch("response", "Received")
        publish = {"id": 3, "publish": {"channel": OTHER, "data": "forged"}}
        body = emulated(said, commands(publish)).decode()
        for path, content in (
            ("/emulation", body),
            ("/connection/emulation", body),
            ("/connection/http_stream", commands({"id": 1, "connect": {}}, publish).decode()),
        ):
            yield self.page.run(
                f"fetch('{self.url}{path}', {{method: 'POST', mode: 'no-cors',"
                f"credentials: 'include', body: {json.dumps(content)}}}).then(() => 0)"
            )
            self.assertIn("sessionid", (yield sent.get())["headers"]["Cookie"], path)
            self.assertEqual((yield answered.get())["statusCode"], 403, path)
        # The same from the site's own page is carried out, and nothing was before it.
        own = emulated(said, commands({"id": 4, "publish": {"channel": OTHER, "data": "own"}}))
        self.assertEqual((yield post(self.port, own, Origin=self.url, Cookie=cookie)), 204)
        told = [(yield stream.message()), (yield stream.message())]
        heard = [each["push"]["pub"]["data"] for each in told if "push" in each]
        self.assertEqual(heard, ["own"])

    def watch(self, event: str, kind: str) -> DeferredQueue[Any]:
        found: DeferredQueue[Any] = DeferredQueue()
        self.page.on_event(f"Network.{event}{kind}ExtraInfo", found.put)
        return found

    @inlineCallbacks
    def test_nor_does_its_browser_send_what_the_library_would(self) -> Any:
        """It asks first, because the library's POST is JSON."""
        yield self.open_foreign_page()
        answered = self.watch("response", "Received")
        yield self.page.run(
            f"fetch('{self.url}/emulation', {{method: 'POST', credentials: 'include', body: '{{}}',"
            "headers: {'Content-Type': 'application/json'}}).catch((error) => show(error.name))"
        )
        self.assertEqual((yield self.page.run("shown")), ["TypeError"])
        self.assertEqual((yield answered.get())["statusCode"], 403)
        for transport in ("http_stream", "sse"):
            yield self.page.run(connect(transport, self.url))
            yield self.page.until("errors.length > 1")  # it tries again
            self.assertEqual((yield self.page.run("[subscribed.length, client.state]")), [
                0, "connecting",
            ])  # fmt: skip
            yield self.page.run("client.disconnect()")

    @inlineCallbacks
    def test_from_an_allowed_one_the_library_sends_no_cookie_over_http(self) -> Any:
        yield self.open_foreign_page(WS4REDIS_ALLOWED_ORIGINS=True)
        for transport, errors in (("websocket", []), ("http_stream", [103]), ("sse", [103])):
            yield self.page.run(connect(transport, self.url))
            yield self.page.until("subscribed.length + errors.length === 1")
            self.assertEqual((yield self.page.run("errors")), errors, transport)
            yield self.page.run("client.disconnect()")
