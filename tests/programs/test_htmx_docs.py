"""The examples of ``docs/htmx.md``, in a browser, with htmx and its extensions from npm."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.list_site import ListSite
from tests.support.npm import node_modules
from tests.support.pages import DOCS, Block, blocks_of, broken_links
from tests.support.programs import python, twistd
from tests.support.redis import RedisServer

PAGE = DOCS / "htmx.md"
EXTENSIONS = (
    "htmx.org/dist/htmx.min.js",
    "htmx-ext-sse/dist/sse.min.js",
    "htmx-ext-ws/dist/ws.min.js",
)
WATCH = """
    self.opened = new Set();
    for (const name of ["htmx:sseOpen", "htmx:wsOpen"]) {
        document.addEventListener(name, () => opened.add(name));
    }
"""

URLS = """
from django.shortcuts import render
from django.urls import path

urlpatterns = [path("", lambda request: render(request, "page.html"))]
"""
PUBLISH = """
import sys
import django; django.setup()
from orders.models import Order
from ws4redis_tx.publisher import RedisPublisher

order = Order(pk=int(sys.argv[1]), title="a & <b>")
"""


def block(start: str) -> Block:
    [found] = [each for each in blocks_of(PAGE) if start in each.code]
    return found


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        kinds = [each.language for each in blocks_of(PAGE)]
        self.assertEqual(kinds, ["html", "python", "html", "html", "html", "html"])

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(PAGE), [])


class BrowserTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        package_json = ROOT / "tests" / "projects" / "htmx_pages" / "package.json"
        modules = yield deferToThread(node_modules, package_json)
        self.browser = yield start_browser(self)
        redis = RedisServer()
        self.addCleanup(redis.stop)
        self.site = ListSite()
        self.addCleanup(self.site.remove)
        self.site.write("mysite/urls.py", URLS)
        scripts = "".join(f'<script src="/static/npm/{each}"></script>' for each in EXTENSIONS)
        page = [
            each.code for each in blocks_of(PAGE)
            if each.language == "html" and "websocket_path" in each.code
        ]  # fmt: skip
        self.assertEqual(len(page), 3)
        templates = self.site.folder / "orders" / "templates"
        (templates / "page.html").write_text(f"<!doctype html>{scripts}{''.join(page)}")
        (templates / "orders" / "row.html").write_text(blocks_of(PAGE)[0].code)
        (templates / "orders" / "ws.html").write_text(block("hx-swap-oob").code)
        self.environment = self.site.environment(
            LISTS_REDIS=str(redis.address), LISTS_STATIC=json.dumps([("npm", str(modules))])
        )
        server = twistd(
            "--settings", "mysite.settings", "--serve-django",
            "--listen=tcp:0:interface=127.0.0.1", **self.environment,
        )  # fmt: skip
        self.addCleanup(server.end)
        self.port = yield server.site_port()

    @inlineCallbacks
    def publish(self, code: str, key: int) -> Any:
        done = yield deferToThread(python, "-c", PUBLISH + code, str(key), **self.environment)
        self.assertEqual(done.returncode, 0, done.stderr)

    @inlineCallbacks
    def test_each_shows_what_is_published_without_a_script_of_the_site(self) -> Any:
        page = yield self.browser.new_page()
        yield page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)
        yield page.open(f"http://127.0.0.1:{self.port}/")
        yield page.until("opened.size === 2 && source.readyState === 1")
        yield self.publish(block("publish_template").code, 1)
        for place in ("sse", "plain"):
            yield page.until(f"document.querySelectorAll('#{place} > li').length === 1")
            text = yield page.run(f"document.querySelector('#{place} > li').textContent")
            self.assertEqual(text, "a & <b>")
        code = block("publish_template").code.replace("row.html", "ws.html")
        yield self.publish(code, 2)
        yield page.until("document.querySelector('#ws li#order-2') !== null")
        self.assertEqual(
            (yield page.run("document.querySelector('#ws li').textContent")), "a & <b>"
        )
