"""The panel for django-debug-toolbar, in a site with the real toolbar."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.clients import open_websocket
from tests.support.django import environment
from tests.support.pages import DOCS, blocks_of, broken_links
from tests.support.programs import TWISTD, Program, run_django_tests
from tests.support.screenshots import keep

SETTINGS = "from tests.projects.toolbar.settings import *"

TESTS = """
import asyncio
import html
import inspect
import json
import re
from unittest import mock

from django.db import connection
from django.test import AsyncClient, Client, SimpleTestCase, TestCase, TransactionTestCase

from tests.projects.toolbar.shop import views
from ws4redis_tx.testing import capture_messages


def line(view, text):
    "Where in a view ``text`` is."
    lines, first = inspect.getsourcelines(view)
    number = next(number for number, line in enumerate(lines) if text in line)
    return f"{views.__file__}:{first + number}"


def cells(content):
    "The texts of the rows of the panel."
    rows = re.findall("<tr>(.*?)</tr>", content, re.S)[1:]
    return [
        [" ".join(html.unescape(re.sub("<[^>]*>", " ", cell)).split())
         for cell in re.findall("<td>(.*?)</td>", row, re.S)]
        for row in rows
    ]


class Panel:
    def setUp(self):
        self.published = self.enterContext(capture_messages())

    def panel(self, response):
        "The content of the panel, asked for as the toolbar's script does."
        page = response.content.decode()
        self.page = page
        kind, request_id = re.search('data-(request|store)-id="([^"]+)"', page).groups()
        answer = Client().get(
            "/__debug__/render_panel/",
            {f"{kind}_id": request_id, "panel_id": "MessagesPanel"},
        )
        return answer.json()["content"]

    def get(self, path):
        return self.panel(self.client.get(path))


class CommittedTests(Panel, TransactionTestCase):
    def test_each_kind_of_message(self):
        rows = cells(self.get("/order/"))
        self.assertEqual(
            [row[:4] for row in rows],
            [
                ["published", "broadcast:orders", "29 bytes", "1"],
                ["published", "group:packers:orders user:mary:orders", "12 bytes", "2"],
                ["published", "nobody", "17 bytes", "0"],
                ["published on commit", "group:accounts:orders", "18 bytes", "1"],
                ["rolled back", "user:mary:orders", "9 bytes", ""],
            ],
        )
        for row in rows[:4]:
            self.assertRegex(row[4], r"^[0-9]+\\.[0-9][0-9] ms$")
        self.assertEqual(rows[4][4], "")
        self.assertEqual(
            [row[5] for row in rows],
            [line(views.order, text) for text in
             ("paid", "pack", "on duty", "invoice", "mistake")],
        )
        self.assertIn("3 published, 1 published on commit, 1 rolled back", self.page)

    def test_a_request_in_a_transaction_of_its_own(self):
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            rows = cells(self.get("/later/"))
        self.assertEqual(
            [row[:2] for row in rows],
            [["published on commit", "broadcast:orders"], ["rolled back", "user:mary:orders"]],
        )
        self.assertEqual(rows[0][5], line(views.later, "committed later"))

    def test_a_failure(self):
        self.published.fail_next()
        (row,) = cells(self.get("/survived/"))
        self.assertEqual(row[0], "failed: The test called fail_next of capture_messages.")
        self.assertEqual((row[1], row[3]), ("broadcast:orders", "0"))


class UncommittedTests(Panel, TestCase):
    def test_what_the_end_of_the_response_does_not_commit(self):
        rows = cells(self.get("/later/"))
        self.assertEqual(
            [row[:2] for row in rows],
            [["on commit, later", "broadcast:orders"], ["rolled back", "user:mary:orders"]],
        )
        self.assertEqual(rows[0][5], line(views.later, "committed later"))


class ShownTests(Panel, TestCase):
    def test_all_that_is_shown_is_escaped_and_session_keys_are_cut(self):
        content = self.get("/strange/")
        self.assertNotIn("<script>", content)
        self.assertNotIn("<b>", content)
        self.assertIn("user:&lt;script&gt;alert(1)&lt;/script&gt;:&lt;b&gt;&amp;", content)
        self.assertNotIn("kkkk", content)
        self.assertIn("session:…:orders", content)

    def test_a_request_that_publishes_nothing(self):
        self.assertIn("This request published nothing.", self.get("/nothing/"))

    def test_one_request_does_not_show_anothers(self):
        self.get("/strange/")
        self.assertIn("This request published nothing.", self.get("/nothing/"))

    def test_a_panel_that_is_switched_off(self):
        self.client.cookies["djdtMessagesPanel"] = "off"
        self.client.get("/strange/")
        del self.client.cookies["djdtMessagesPanel"]
        self.assertIn("This request published nothing.", self.get("/nothing/"))

    def test_an_async_view_of_a_sync_server(self):
        rows = cells(self.get("/orders/?facility=f"))
        self.assertEqual({row[1] for row in rows},
                         {"broadcast:f", "user:a:f", "user:b:f", "group:g:f"})


class AsyncTests(Panel, TransactionTestCase):
    async def gather(self, *names):
        client = AsyncClient()
        return await asyncio.gather(
            *(client.get(f"/orders/?facility={name}") for name in names)
        )

    def test_async_requests_at_the_same_time(self):
        for name, response in zip("xyz", asyncio.run(self.gather(*"xyz"))):
            rows = cells(self.panel(response))
            self.assertEqual(
                sorted(row[1] for row in rows),
                sorted([f"broadcast:{name}", f"user:a:{name}", f"user:b:{name}",
                        f"group:g:{name}"]),
            )
            by = {row[1]: row for row in rows}
            self.assertEqual(by[f"broadcast:{name}"][0], "published")
            self.assertEqual(by[f"broadcast:{name}"][5], line(views.orders, "awaited"))
            self.assertEqual(by[f"user:a:{name}"][5], "a task")

    def test_a_sync_view_of_an_async_server(self):
        async def get():
            return await AsyncClient().get("/order/")

        states = [row[0] for row in cells(self.panel(asyncio.run(get())))]
        self.assertEqual(states, ["published"] * 3 + ["published on commit", "rolled back"])
"""

PAGE_TESTS = """
from django.test import TestCase


class PageTests(TestCase):
    def test_the_panel_stands_with_the_others(self):
        page = self.client.get("/nothing/").content.decode()
        self.assertIn("Websocket messages", page)
        self.assertIn("SQL", page)
"""

RECEIVER_TESTS = """
from django.test import SimpleTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.testing import capture_messages


class ReceiverTests(SimpleTestCase):
    def test_what_failed_is_logged_and_nothing_else(self):
        with capture_messages() as published, self.assertLogs(log) as logged:
            publisher = RedisPublisher(facility="orders", broadcast=True)
            publisher.publish_message("hello")
            published.fail_next()
            with self.assertRaises(BrokerUnavailable):
                publisher.publish_message("hello")
        (line,) = logged.output
        self.assertRegex(line, r"test_project.py:[0-9]+: 5 bytes to .*broadcast:orders.* took 0")
        self.assertIn("fail_next", line)
"""


class PanelTests(SynchronousTestCase):
    def test_it_shows_what_a_request_published(self) -> None:
        run_django_tests(TESTS, SETTINGS, "-v2")


class PageTests(SynchronousTestCase):
    page = DOCS / "debugging.md"

    def code(self, number: int) -> str:
        return blocks_of(self.page)[number].code

    def test_every_block_is_known_here(self) -> None:
        languages = [block.language for block in blocks_of(DOCS / "debugging.md")]
        self.assertEqual(languages, ["python"] * 2)

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(self.page), [])

    def test_the_panel_is_added_to_the_toolbars(self) -> None:
        settings = f"{SETTINGS}\n{self.code(0)}"
        run_django_tests(PAGE_TESTS, settings)

    def test_the_receiver_logs_what_failed(self) -> None:
        run_django_tests(self.code(1) + RECEIVER_TESTS)


class BrowserTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_a_developer_sees_it(self) -> Any:
        browser = yield start_browser(self)
        server = Program(
            *(TWISTD, "-n", "--pidfile=", "ws4redis", "--embedded-redis", "--serve-django"),
            *("--listen=tcp:0:interface=127.0.0.1", "--settings=tests.projects.toolbar.settings"),
            folder=ROOT / "tests" / "projects" / "toolbar",
            **environment(),
        )
        self.addCleanup(server.end)
        port = yield server.site_port()
        client = yield open_websocket(f"ws://127.0.0.1:{port}/ws/orders?subscribe-broadcast")
        page = yield browser.new_page()
        yield page.call(
            "Emulation.setDeviceMetricsOverride",
            width=1100, height=420, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        yield page.open(f"http://127.0.0.1:{port}/order/")
        # Newer toolbars live in a shadow root.
        toolbar = "(document.querySelector('#djDebugRoot')?.shadowRoot || document)"
        link = f"{toolbar}.querySelector('a.MessagesPanel')"
        content = f"{toolbar}.querySelector('#MessagesPanel')"
        yield page.until(f"{link}?.checkVisibility()")
        yield page.run(f"{link}.click()")
        yield page.until(f"{content}.innerText.includes('rolled back')")
        text = yield page.run(f"{content}.innerText")
        self.assertIn("group:accounts:orders", text)
        self.assertIn("shop/views.py:", text)
        self.assertRegex(text, r"broadcast:orders\s+29.bytes\s+1\s")
        client.sendClose(1000)
        yield client.closed
        keep("panel", (yield page.screenshot()))
