"""The guide to the JavaScript client is true: Chromium runs its blocks."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.browsers import Page, start_browser
from tests.support.django import in_thread, set_up_django
from tests.support.pages import DOCS, blocks_of
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase
from tests.support.static_pages import serve_files

set_up_django()

from django.contrib.auth.models import User
from django.template import Context, Template
from django.test import RequestFactory

from ws4redis_tx.tickets import make_ticket

TEXT = (DOCS / "client.md").read_text()
TYPES = (ROOT / "ws4redis_tx" / "static" / "js" / "ws4redis.d.mts").read_text()
TEMPLATE, SCRIPT, SOURCE, LOOP = (block.code for block in blocks_of(DOCS / "client.md"))


def fields_of(interface: str) -> set[str]:
    found = re.search(rf"interface {interface}\b[^{{]*{{(.*?)\n}}", TYPES, re.S)
    assert found is not None
    return set(re.findall(r"^  (?:readonly )?(\w+)\??[:(]", found[1], re.M))


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        # This is the test of "client.md".
        languages = [block.language for block in blocks_of(DOCS / "client.md")]
        self.assertEqual(languages, ["html", "js", "js", "js"])

    def test_the_tables_are_complete(self) -> None:
        first_column = set(re.findall(r"^\| `(\w+)", TEXT, re.M))
        for interface in ("Options", "Status", "Feed"):
            self.assertLessEqual(fields_of(interface), first_column)


class PageTests(ContractTestCase):
    """John's browser, on a site beside the server."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        browser = yield start_browser(self)
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        self.html = ""
        files = {
            "": lambda: self.html.encode(),
            "orders.js": SCRIPT.encode(),
            "ticket": lambda: self.ticket.encode(),
        }
        site = yield serve_files(self, files)
        self.origin = f"http://127.0.0.1:{site}"
        yield self.serve(WS4REDIS_HISTORY={"*": (100, 600)}, WS4REDIS_ALLOWED_ORIGINS=[self.origin])
        self.page: Page = yield browser.new_page()

    @inlineCallbacks
    def open(self) -> Any:
        yield self.page.open(f"{self.origin}/")

    def render(self) -> str:
        request = RequestFactory(HTTP_HOST=f"127.0.0.1:{self.port}").get("/")
        html: str = Template(TEMPLATE).render(Context({"request": request}))
        return html.replace("/static/js/orders.js", "/orders.js")

    @inlineCallbacks
    def say(self, **order: Any) -> Any:
        yield self.publish(json.dumps(order), facility="orders", users=["john"])

    @inlineCallbacks
    def texts(self) -> Any:
        return (
            yield self.page.run("[...document.querySelectorAll('li')].map(li => li.textContent)")
        )

    @inlineCallbacks
    def test_the_page_shows_orders_and_resumes_from_its_position(self) -> Any:
        for name, value in (yield self.log_in("john")).items():
            yield self.page.call("Network.setCookie", name=name, value=value, url=f"{self.origin}/")
        yield self.say(id=1, state="paid")
        self.html = yield in_thread(self.render)
        yield self.say(id=2, state="paid")  # while the page is on its way
        yield self.open()
        yield self.page.until("document.querySelector('li')")
        yield self.say(id=2, state="sent")
        yield self.page.until("document.querySelector('li').textContent === '2: sent'")
        self.assertEqual((yield self.texts()), ["2: sent"])
        self.assertEqual((yield self.page.run("document.querySelector('ul').className")), "")

    @inlineCallbacks
    def run_block(self, block: str) -> Any:
        """Fire when the block has run, as the rest of a module that has ``connect``."""
        self.html = "<!DOCTYPE html>"
        yield self.open()
        yield self.page.run(
            "import('/ws4redis.mjs').then((module) => Object.assign(self, module)), 0"
        )
        yield self.page.until("self.connect")
        yield self.page.run(block)

    @inlineCallbacks
    def test_a_fresh_ticket_opens_each_connection(self) -> Any:
        mary = yield in_thread(lambda: User.objects.get(username="mary"))
        request = RequestFactory().get("/")
        request.user, request.session = mary, None  # type: ignore[assignment]

        def renew() -> Any:
            return in_thread(lambda: make_ticket(request, facility="news"))

        self.ticket = yield renew()
        block = SOURCE.replace("wss://live.example.com", f"ws://127.0.0.1:{self.port}")
        self.assertNotEqual(block, SOURCE)
        yield self.run_block(
            block.replace("const feed", "self.feed").replace("/ticket/", "/ticket")
            + "self.heard = []; feed.on('message', (data) => heard.push(data)); 0"
        )
        yield self.page.until("feed.status.state === 'open'")
        yield self.publish("one", facility="news", users=["mary"])
        yield self.page.until("heard.length === 1")
        self.ticket = yield renew()
        yield self.page.run("feed.reconnect()")
        yield self.page.until("feed.status.state === 'open'")
        yield self.publish("two", facility="news", users=["mary"])
        yield self.page.until("heard.length === 2")
        yield self.page.run("self.fetch = async () => ({ok: false}); feed.reconnect()")
        yield self.page.until("feed.status.state === 'closed'")

    @inlineCallbacks
    def test_a_loop_gets_each_message(self) -> Any:
        url = f"ws://127.0.0.1:{self.port}/ws/news?subscribe-broadcast"
        yield self.run_block(
            f"self.saved = []; self.save = async (data) => saved.push(data);"
            f"self.feed = connect('{url}');"
            f"(async () => {{ {LOOP} self.over = true; }})(); 0"
        )
        yield self.page.until("feed.status.state === 'open'")
        for number in "12":
            yield self.publish(number, facility="news", broadcast=True)
        yield self.page.until("saved.length === 2")
        self.assertEqual((yield self.page.run("saved")), ["1", "2"])
        yield self.page.run("feed.close()")
        yield self.page.until("self.over")
