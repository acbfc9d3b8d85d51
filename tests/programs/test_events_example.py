"""``examples/events``: pages with server-sent events close their own gaps, and show all once."""

from __future__ import annotations

import html
import re
import shutil
import tempfile
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import ROOT
from tests.support.browsers import Page, start_browser
from tests.support.events import open_events
from tests.support.npm import node_modules
from tests.support.programs import TWISTD, Program
from tests.support.redis import RedisServer

EXAMPLE = ROOT / "examples" / "events"


class NewsroomTestCase(TestCase):
    """Two servers with the same headlines. One may be killed while the other publishes."""

    timeout = 180
    node_modules = ""

    @inlineCallbacks
    def set_up(self) -> Any:
        self.folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.server, other = self.start("0"), self.start("0")
        self.port = yield self.server.site_port()
        self.other = yield other.site_port()
        jar = urllib.request.HTTPCookieProcessor(CookieJar())
        self.jar, self.opener = jar.cookiejar, urllib.request.build_opener(jar)

    def start(self, port: int | str) -> Program:
        server = Program(
            TWISTD,
            *("-n", "--pidfile=", "ws4redis", "--settings=newsroom", "--serve-django"),
            f"--listen=tcp:{port}:interface=127.0.0.1",
            folder=EXAMPLE,
            HEADLINES=str(Path(self.folder) / "headlines.txt"),
            NODE_MODULES=self.node_modules,
            WS4REDIS_CONNECTION=str(self.redis.address),
        )
        self.addCleanup(server.end)
        return server

    def get(self, path: str = "/") -> Any:
        def work() -> str:
            url = f"http://127.0.0.1:{self.other}{path}"
            with self.opener.open(url, timeout=20) as answer:
                return answer.read().decode()

        return deferToThread(work)

    @inlineCallbacks
    def publish(self, *headlines: str) -> Any:
        yield self.get()  # brings the cookie

        def work(headline: str) -> None:
            (token,) = [each.value for each in self.jar if each.name == "csrftoken"]
            fields = {"headline": headline, "csrfmiddlewaretoken": token}
            url = f"http://127.0.0.1:{self.other}/publish/"
            self.opener.open(url, urllib.parse.urlencode(fields).encode(), timeout=20).close()

        for headline in headlines:
            yield deferToThread(work, headline)


class ClientTests(NewsroomTestCase):
    """A client connects as the page says."""

    @inlineCallbacks
    def test_what_is_published_before_the_page_connects_arrives_once(self) -> Any:
        yield self.set_up()
        yield self.publish("before")
        page = yield self.get()
        self.assertIn(">before</li>", page)
        yield self.publish("between <the> two")
        (target,) = re.findall(r'data-events="([^"]+)"', page)
        source = yield open_events(self.port, html.unescape(target))
        self.addCleanup(source.transport.abortConnection)
        first, missed, live = yield source.take(3)
        self.assertEqual((first.type, live.type), ("open", "live"))
        self.assertIn('"recovered": true', first.data)
        self.assertIn(">between &lt;the&gt; two</li>", missed.data)
        yield self.publish("after")
        self.assertIn(">after</li>", (yield source.next()).data)


class BrowserTestCase(NewsroomTestCase):
    path = "/"

    @inlineCallbacks
    def setUp(self) -> Any:
        self.node_modules = str(self.npm())
        self.browser = yield start_browser(self)
        yield self.set_up()
        self.page: Page = yield self.browser.new_page()

    def npm(self) -> Path | str:
        return ""

    def open(self) -> Any:
        return self.page.open(f"http://127.0.0.1:{self.port}{self.path}")

    @inlineCallbacks
    def assert_shown(self, *headlines: str) -> Any:
        texts = "[...document.querySelectorAll('#news > li')].map((each) => each.textContent)"
        yield self.page.until(f"{texts}.includes({headlines[-1]!r})")
        self.assertEqual((yield self.page.run(texts)), list(headlines))


class PlainTests(BrowserTestCase):
    @inlineCallbacks
    def test_what_is_published_before_the_page_connects_arrives_once(self) -> Any:
        yield self.publish("before")
        asked = yield self.page.hold("*/ws/*")
        yield self.open()
        yield asked.wait()
        yield self.publish("between <the> two")
        yield asked.let_go()
        yield self.publish("after")
        yield self.assert_shown("before", "between <the> two", "after")

    @inlineCallbacks
    def test_what_is_published_while_the_server_is_down_arrives_once(self) -> Any:
        yield self.open()
        yield self.publish("one")
        yield self.assert_shown("one")
        yield self.server.end()
        yield self.publish("two", "three", "three")
        yield self.start(self.port).site_port()
        yield self.publish("four")
        yield self.assert_shown("one", "two", "three", "three", "four")

    @inlineCallbacks
    def test_behind_a_gap_the_page_loads_what_is_missing(self) -> Any:
        yield self.open()
        yield self.publish("one")
        yield self.assert_shown("one")
        yield self.server.end()
        yield self.publish("two", "three")
        self.redis.command("DEL", "stream:broadcast:news")
        yield self.start(self.port).site_port()
        texts = "[...document.querySelectorAll('#news > li')].map((each) => each.textContent)"
        yield self.page.until(f"{texts}.length === 3")
        self.assertEqual(sorted((yield self.page.run(texts))), ["one", "three", "two"])


class HtmxTests(PlainTests):
    path = "/htmx/"

    def npm(self) -> Path | str:
        return node_modules(EXAMPLE / "package.json")
