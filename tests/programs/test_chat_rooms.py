"""The chat demo's page of rooms, in Chromium: one connection, and each line once whatever is
killed. Issue 17.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import urllib.request
from http import HTTPStatus
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.browsers import WATCHED_SOCKETS, Page, start_browser
from tests.support.django import cookies_of, environment, log_in, post
from tests.support.javascript_pages import CHAT
from tests.support.npm import node_modules
from tests.support.programs import Program, twistd
from tests.support.redis import RedisServer

LIVE = "document.querySelector('[data-status]').dataset.status === 'live'"
HERE = "document.querySelector('[data-here]').textContent"
TYPING = "document.querySelector('[data-typing-line]').textContent"
INLINE = re.compile(
    r"<script(?![^>]*\b(?:src|type=\"application/json\"))|\son\w+=|\sstyle=|javascript:"
)


class RoomsTestCase(TestCase):
    """Two servers with one Redis. The browsers use the first, and others publish at the second."""

    timeout = 240
    packages = ""

    @inlineCallbacks
    def set_up(self) -> Any:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.server, other = self.start(0), self.start(0)
        self.port = yield self.server.site_port()
        self.other = yield other.site_port()
        logins = yield gatherResults([log_in("john"), log_in("mary")])
        self.john, self.mary = map(cookies_of, logins)

    def start(self, port: int) -> Program:
        server = twistd(
            f"--listen=tcp:{port}:interface=127.0.0.1",
            "--settings=tests.projects.chat_settings",
            "--serve-django",
            WS4REDIS_CONNECTION=str(self.redis.address),
            NODE_MODULES=self.packages,
            **environment(),
        )
        self.addCleanup(server.end)
        return server

    def read(self, path: str = "/rooms/") -> Any:
        def work() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as page:
                assert page.status == HTTPStatus.OK
                return page.read().decode()

        return deferToThread(work)


class WithoutTheLibraryTests(RoomsTestCase):
    packages = "/nowhere"

    @inlineCallbacks
    def test_the_page_says_what_is_missing_and_the_others_work(self) -> Any:
        yield self.set_up()
        page = yield self.read()
        self.assertIn("npm install", page)
        self.assertNotIn("rooms.js", page)
        self.assertIn("data-websocket", (yield self.read("/broadcast/")))

    @inlineCallbacks
    def test_the_page_appears_when_npm_has_installed_the_library(self) -> Any:
        installed = yield deferToThread(node_modules, CHAT / "package.json")
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        self.packages = f"{folder}/node_modules"
        browser = yield start_browser(self)
        yield self.set_up()
        page = yield browser.new_page()
        yield page.open(f"http://127.0.0.1:{self.port}/rooms/")
        yield page.until("document.querySelector('[data-wait-for]')")
        os.symlink(installed, self.packages)
        yield page.until(f"document.querySelector('[data-rooms]') && {LIVE}")


class BrowserTests(RoomsTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        self.packages = str((yield deferToThread(node_modules, CHAT / "package.json")))
        browsers = yield gatherResults([start_browser(self), start_browser(self)])
        yield self.set_up()
        self.page = yield self.open(browsers[0], self.john)
        self.marys_browser = browsers[1]

    @inlineCallbacks
    def open(self, browser: Any, cookies: dict[str, str]) -> Any:
        """Fire with the page of rooms of a visitor, which counts its connections."""
        page: Page = yield browser.new_page()
        # Without a pause before an attempt.
        script = f"{WATCHED_SOCKETS}; Math.random = () => 0;"
        yield page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        yield page.call("Network.enable")
        for name, value in cookies.items():
            yield page.call(
                "Network.setCookie", name=name, value=value, domain="127.0.0.1", path="/"
            )
        yield page.open(f"http://127.0.0.1:{self.port}/rooms/")
        yield page.until(LIVE)
        return page

    @inlineCallbacks
    def say(self, path: str, *lines: str, **fields: str) -> Any:
        for line in lines:
            url = f"http://127.0.0.1:{self.other}/{path}/"
            yield post(url, self.mary, message=line, **fields)

    @inlineCallbacks
    def assert_shown(self, room: int, *lines: str) -> Any:
        """Each once, in this order, and nothing else: what is behind the last would be here."""
        texts = (
            f"[...document.querySelectorAll('.log')[{room}].querySelectorAll('.text, .missing')]"
            ".map((each) => each.textContent)"
        )
        yield self.page.until(f"{texts}.includes({lines[-1]!r})")
        self.assertEqual((yield self.page.run(texts)), list(lines))

    @inlineCallbacks
    def test_each_room_shows_its_lines_over_one_connection(self) -> Any:
        yield self.say("broadcast", "to all")
        yield self.say("group", "to the chatters", group="chatters")
        yield self.say("user", "to john", user="john")
        for room, line in enumerate(("to all", "to the chatters", "to john")):
            yield self.assert_shown(room, line)
        unread = "[...document.querySelectorAll('.unread')].map((each) => each.textContent)"
        self.assertEqual((yield self.page.run(unread)), ["0", "1", "1"])
        self.assertEqual((yield self.page.run("sockets.length")), 1)

    @inlineCallbacks
    def test_a_line_that_is_sent_is_shown_once(self) -> Any:
        yield self.send("hello")
        yield self.assert_shown(0, "hello")
        mine = yield self.page.run("document.querySelectorAll('.message.mine').length")
        self.assertEqual(mine, 1)
        yield self.page.run("document.querySelectorAll('[data-channel]')[2].click()")
        yield self.send("hello mary")
        yield self.assert_shown(2, "hello mary")

    def send(self, text: str) -> Any:
        return self.page.run(
            f"document.querySelector('#id_message').value = {text!r};"
            "document.querySelector('form.composer').requestSubmit()"
        )

    @inlineCallbacks
    def test_lines_are_shown_once_when_the_server_is_killed(self) -> Any:
        yield self.say("broadcast", "one")
        yield self.assert_shown(0, "one")
        yield self.server.signal_and_wait("KILL")
        yield self.page.until(f"!({LIVE})")
        yield self.say("broadcast", "two", "three", "three")
        yield self.say("group", "to the chatters", group="chatters")
        yield self.start(self.port).site_port()
        yield self.page.until(LIVE)
        yield self.say("broadcast", "four")
        yield self.assert_shown(0, "one", "two", "three", "three", "four")
        yield self.assert_shown(1, "to the chatters")

    @inlineCallbacks
    def test_lines_are_shown_once_when_redis_drops_its_connections(self) -> Any:
        yield self.say("broadcast", "one")
        yield self.assert_shown(0, "one")
        for number in range(5):
            self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            yield self.say("broadcast", f"cut {number}")
        yield self.say("broadcast", "five")
        yield self.assert_shown(0, "one", *(f"cut {number}" for number in range(5)), "five")

    @inlineCallbacks
    def test_a_reload_shows_the_same_and_what_was_said_meanwhile(self) -> Any:
        yield self.say("broadcast", "one", "one")
        yield self.assert_shown(0, "one", "one")
        yield self.page.open("about:blank")
        yield self.say("broadcast", "two")
        yield self.page.open(f"http://127.0.0.1:{self.port}/rooms/")
        yield self.assert_shown(0, "one", "one", "two")
        yield self.page.reload()
        yield self.page.until(LIVE)
        yield self.say("broadcast", "three")
        yield self.assert_shown(0, "one", "one", "two", "three")

    @inlineCallbacks
    def test_the_last_line_stays_in_sight_when_the_window_gets_smaller(self) -> Any:
        """As when the keyboard of a telephone opens."""
        lines = [*map(str, range(12))]
        yield self.say("broadcast", *lines)
        yield self.assert_shown(0, *lines)
        for width, height in ((800, 700), (375, 667), (375, 400)):
            yield self.page.call(
                "Emulation.setDeviceMetricsOverride",
                width=width, height=height, deviceScaleFactor=1, mobile=False,
            )  # fmt: skip
            yield self.page.until(f"innerWidth === {width} && innerHeight === {height}")
            yield self.page.until(
                "[document.querySelector('.log')].every((log) =>"
                "log.scrollHeight - log.scrollTop - log.clientHeight < 2)"
            )

    @inlineCallbacks
    def test_a_new_visitor_is_shown_what_was_said_before(self) -> Any:
        yield self.say("broadcast", *map(str, range(5)))
        john, self.page = self.page, (yield self.open(self.marys_browser, self.mary))
        yield self.assert_shown(0, *map(str, range(5)))
        self.page = john
        yield self.assert_shown(0, *map(str, range(5)))

    @inlineCallbacks
    def test_the_page_tells_where_something_may_be_missing(self) -> Any:
        yield self.say("broadcast", "one")
        yield self.assert_shown(0, "one")
        yield self.server.signal_and_wait("KILL")
        yield self.page.until(f"!({LIVE})")
        yield self.say("broadcast", "two")
        self.redis.command("DEL", "stream:broadcast:foobar")
        yield self.say("broadcast", "three")
        yield self.start(self.port).site_port()
        yield self.assert_shown(0, "one", "Some messages may be missing here.", "three")

    @inlineCallbacks
    def test_who_is_here_and_who_is_typing(self) -> Any:
        yield self.page.until(f"{HERE} === 'Here now: john'")
        mary = yield self.open(self.marys_browser, self.mary)
        yield self.page.until(f"{HERE} === 'Here now: john, mary'")
        yield mary.until(f"{HERE} === 'Here now: john, mary'")
        type_there = "document.querySelector('#id_message').dispatchEvent(new Event('input'));"
        yield mary.run(type_there)
        yield self.page.until(f"{TYPING} === 'mary is typing…'")
        self.assertEqual((yield mary.run(TYPING)), "")
        yield self.say("broadcast", "there it is")
        yield self.assert_shown(0, "there it is")
        self.assertEqual((yield self.page.run(TYPING)), "")
        yield mary.open("about:blank")
        yield self.page.until(f"{HERE} === 'Here now: john'")

    @inlineCallbacks
    def test_no_page_has_a_script_of_its_own(self) -> Any:
        for path in ("/", "/broadcast/", "/rooms/", "/login/"):
            self.assertIsNone(INLINE.search((yield self.read(path))), path)
