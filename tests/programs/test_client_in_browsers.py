"""``ws4redis.mjs`` in Chromium: faults 22 and 23, and the ways in which a network fails."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.programs.chaos.proxy import Proxy
from tests.support import ROOT
from tests.support.browsers import Page, start_browser
from tests.support.servers import ServerTestCase
from tests.support.static_pages import serve_files
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.positions import History, Kept
from ws4redis_tx.service import make_broker, make_factory, make_resource

KEPT = Kept(History(100, 3600))
FOLDER = ROOT / "tests" / "projects" / "client"

NO_WEBSOCKETS = """
    self.WebSocket = class { constructor() { throw new Error("blocked"); } };
"""


class ClientInBrowserTests(ServerTestCase):
    """A page and its server, and a proxy between them."""

    timeout = 180

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.published = 0
        config = ServerConfig(redis=self.redis.address, history=(("news", 100, 3600),))
        self.broker = make_broker(config)
        self.broker.startService()
        self.addCleanup(self.broker.stopService)
        yield self.broker.when_available()
        yield self.broker.commands.forget([b"broadcast:news"])
        self.factory = make_factory(config, broker=self.broker)
        files = {
            "": (FOLDER / "page.html").read_bytes(),
            "page.js": (FOLDER / "page.js").read_bytes(),
            "other.html": b"<!DOCTYPE html><title>other</title>",
        }
        port = yield serve_files(self, files, {b"ws": make_resource(self.factory)})
        self.addCleanup(self.factory.drain, 1001)
        self.proxy = Proxy(port)
        self.addCleanup(self.proxy.stop)
        self.origin = f"http://127.0.0.1:{self.proxy.port}"

    @inlineCallbacks
    def open_page(self, before: str = "") -> Any:
        """Fire with the page when its feed is open. ``before`` is a script that runs first."""
        self.browser = yield start_browser(self)
        page: Page = yield self.browser.new_page()
        if before:
            yield page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        yield page.open(f"{self.origin}/")
        yield page.until("self.feed?.status.state === 'open'")
        return page

    @inlineCallbacks
    def publish(self, times: int = 1) -> Any:
        for _ in range(times):
            self.published += 1
            message = str(self.published).encode()
            yield self.broker.commands.publish([b"broadcast:news"], message, 3600, KEPT)

    @inlineCallbacks
    def assert_all_came(self, page: Page) -> Any:
        """Once each, in order, and no gap was told."""
        yield page.until(f"messages.at(-1) === '{self.published}'")
        heard = yield page.run("messages")
        self.assertEqual(heard, [str(number + 1) for number in range(self.published)])
        gaps = yield page.run("statuses.map(({gap}) => gap).filter((gap) => gap && gap.length)")
        self.assertEqual(gaps, [])

    @inlineCallbacks
    def away_and_back_five_times(self, page: Page) -> Any:
        yield self.publish()
        for _ in range(5):
            yield page.until(f"messages.at(-1) === '{self.published}'")
            yield page.open(f"{self.origin}/other.html")
            yield self.publish(2)
            yield page.run("history.back()")
            yield page.until("self.feed?.status.state === 'open' && messages.length")
            yield self.publish()
            yield self.assert_all_came(page)
        self.assertEqual((yield page.run("shown")), [False] + [True] * 5)
        # Nothing had to fail first.
        states = yield page.run("statuses.map(({state}) => state)")
        self.assertEqual(states[-10:], ["connecting", "open"] * 5)

    @inlineCallbacks
    def test_back_to_a_page_that_the_browser_kept_resumes_what_it_missed(self) -> Any:
        """Fault 22."""
        page = yield self.open_page()
        yield self.away_and_back_five_times(page)
        self.assertEqual((yield page.run("feed.status.transport")), "websocket")

    @inlineCallbacks
    def test_back_to_a_page_that_listens_to_events_resumes_what_it_missed(self) -> Any:
        """Fault 22."""
        page = yield self.open_page(NO_WEBSOCKETS)
        self.assertEqual((yield page.run("feed.status.transport")), "events")
        yield self.away_and_back_five_times(page)
        self.assertEqual((yield page.run("feed.status.transport")), "events")

    @inlineCallbacks
    def test_waking_leaves_a_connection_that_died_in_the_sleep(self) -> Any:
        """Fault 23: the proxy swallows all that the old connection carries, and the socket says
        that it is open.
        """
        page = yield self.open_page()
        yield self.publish()
        yield page.until("messages.length === 1")
        self.proxy.freeze()
        yield self.publish(2)
        self.proxy.frozen = set()  # other than thaw(), it leaves the old connection as it is
        yield page.run("""{
            const before = Date.now;
            Date.now = () => before() + 600000;
            document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
        }""")
        yield self.assert_all_came(page)
        states = yield page.run("statuses.map(({state}) => state)")
        self.assertEqual(states, ["connecting", "open", "connecting", "open"])

    @inlineCallbacks
    def test_offline_and_online_while_it_connects_to_a_port_that_is_silent(self) -> Any:
        """Fault 23."""
        page = yield self.open_page()
        yield self.publish()
        yield page.until("messages.length === 1")
        self.proxy.freeze()
        yield page.run("feed.reconnect()")
        self.assertEqual((yield page.run("feed.status.state")), "connecting")
        yield self.publish()
        yield self.set_offline(page, True)
        yield page.until("feed.status.state === 'waiting'")
        self.assertEqual((yield page.run("feed.status.reason")), "offline")
        self.proxy.frozen = set()
        yield self.set_offline(page, False)
        yield page.until("feed.status.state === 'open'")
        yield self.assert_all_came(page)

    @inlineCallbacks
    def set_offline(self, page: Page, offline: bool) -> Any:
        yield page.call("Network.enable")
        yield page.call(
            "Network.emulateNetworkConditions",
            offline=offline,
            latency=0,
            downloadThroughput=-1,
            uploadThroughput=-1,
        )

    @inlineCallbacks
    def test_a_refusal_ends_it_and_says_why(self) -> Any:
        """A browser's websocket does not."""
        page = yield self.open_page()
        for flags, code, reason in (
            ("subscribe-user", 401, "Log in first."),
            ("publish-broadcast", 403, "A websocket may not publish to this audience."),
        ):
            yield page.run(f"self.other = connect('/ws/news?{flags}'); 0")
            yield page.until("other.status.state === 'closed'")
            status = yield page.run("other.status")
            self.assertEqual((status["code"], status["reason"]), (code, reason))

    @inlineCallbacks
    def test_connections_that_are_cut_lose_nothing(self) -> Any:
        page = yield self.open_page()
        yield page.run("Math.random = () => 0; 0")
        for _ in range(5):
            yield self.publish()
            self.proxy.cut()
            yield self.publish(2)
            yield page.until("feed.status.state === 'open'")
            yield self.assert_all_came(page)
