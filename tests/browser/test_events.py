"""``examples/events``: server-sent events in Chromium and in Firefox, by a bare ``EventSource`` and
by htmx. The server is killed, and each headline is shown once.
"""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.example_sites import ExampleTestCase
from tests.support.firefox import start_firefox
from tests.support.npm import node_modules
from tests.support.programs import Program
from tests.support.screenshots import keep

HEADLINES = {
    "/": "A stream of events needs no library",
    "/htmx/": "htmx puts them into the page",
}


class NewsroomTestCase(ExampleTestCase):
    """Two servers with the same headlines. One is killed, and the other publishes."""

    example, settings = "events", "newsroom"

    @inlineCallbacks
    def setUp(self) -> Any:
        packages = yield deferToThread(node_modules, ROOT / "examples" / "events" / "package.json")
        yield super().setUp()
        self.folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.packages = str(packages)
        self.server, other = self.run_site(), self.run_site()
        self.port = yield self.server.site_port()
        self.editor = yield self.visit(f"http://127.0.0.1:{(yield other.site_port())}/")

    def run_site(self, port: int = 0) -> Program:
        headlines = f"{self.folder}/headlines.txt"
        return self.serve(port, HEADLINES=headlines, NODE_MODULES=self.packages)

    @inlineCallbacks
    def publish(self, *headlines: str) -> Any:
        """Publish one after the other, at the other server."""
        for headline in headlines:
            number = len((yield self.editor.texts("#news > li")))
            yield self.editor.type("#headline", headline)
            yield self.editor.click("#form button")
            yield self.editor.until(f"document.querySelectorAll('#news > li').length > {number}")

    @inlineCallbacks
    def assert_shown(self, page: Any, *headlines: str) -> Any:
        last = "[...document.querySelectorAll('#news > li')].at(-1).textContent"
        yield page.until(f"{last} === {headlines[-1]!r}")
        self.assertEqual((yield page.texts("#news > li")), list(headlines))


class Events:
    """Mixed into tests of one browser."""

    @inlineCallbacks
    def comes_back(self, path: str) -> Any:
        page = yield self.visit(f"http://127.0.0.1:{self.port}{path}")
        yield self.publish("one")
        yield self.assert_shown(page, "one")
        yield page.run("(self.loaded_once = true)")
        yield self.server.signal_and_wait("KILL")
        yield self.publish("two", "three", "three <b>times</b>")
        yield self.run_site(self.port).site_port()
        yield self.publish("four")
        yield self.assert_shown(page, "one", "two", "three", "three <b>times</b>", "four")
        self.assertTrue((yield page.run("self.loaded_once === true")))

    def test_a_bare_event_source_comes_back(self) -> Any:
        return self.comes_back("/")

    def test_htmx_comes_back(self) -> Any:
        return self.comes_back("/htmx/")


class ChromiumTests(Events, NewsroomTestCase):
    start_browser = start_browser

    @inlineCallbacks
    def test_the_pages_look_well(self) -> Any:
        for path in ("/", "/htmx/"):
            page = yield self.visit(f"http://127.0.0.1:{self.port}{path}")
            yield self.assert_faultless(page)
            yield self.publish(HEADLINES[path])
            yield page.until("document.querySelector('#news > li')")
            yield self.assert_faultless(page)
        yield self.publish("Headlines arrive as they are published")
        yield page.until("document.querySelectorAll('#news > li').length === 3")
        yield page.prefer("light")
        yield page.resize(960, 440)
        keep("events", (yield page.screenshot()))


class FirefoxTests(Events, NewsroomTestCase):
    start_browser = start_firefox
