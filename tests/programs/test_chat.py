"""The chat demo: a Django view's messages reach the intended browsers, and no others."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import urllib.request
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.browsers import WATCHED_SOCKETS, Page, start_browser
from tests.support.clients import Client, open_websocket
from tests.support.django import SETTINGS, cookies_of, environment, log_in, post
from tests.support.programs import Program, twistd
from tests.support.redis import RedisServer


def page_from(path: str, request: bytes) -> Any:
    """Fire with all that the server at the Unix socket ``path`` answers."""

    def work() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                return answer.read()

    return deferToThread(work)


class ChatTests(TestCase):
    """John in one browser, Mary in another; the site and its websockets in one ``twistd``."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.socket = os.path.join(folder, "site")
        self.twistd = twistd(
            "--listen=tcp:0:interface=127.0.0.1",
            f"--listen=unix:{self.socket}",
            "--embedded-redis",
            f"--settings={SETTINGS}",
            "--serve-django",
            **environment(),
        )
        self.addCleanup(self.twistd.end)
        ready = yield self.twistd.wait_for(r"Ready: .*http://([^/]+)/, Redis at (\S+)\n")
        self.host, self.redis_url = ready.groups()
        self.site = f"http://{self.host}"
        self.john, self.mary = map(
            cookies_of, (yield gatherResults([log_in("john"), log_in("mary")]))
        )

    @inlineCallbacks
    def open(self, flags: str, cookies: dict[str, str]) -> Any:
        client = yield open_websocket(
            f"ws://{self.host}/ws/foobar?{flags}", cookies=cookies, origin=self.site
        )
        self.addCleanup(self.close, client)
        return client

    def close(self, client: Client) -> Any:
        client.sendClose(1000)
        return client.closed

    @inlineCallbacks
    def chat(self, site: str) -> Any:
        """Publish to all, to Mary and to the group: each client gets exactly its own, in order."""
        flags = "subscribe-broadcast&subscribe-user&subscribe-group"
        john = yield self.open(flags, self.john)
        mary = yield self.open(flags, self.mary)
        guest = yield self.open("subscribe-broadcast", {})
        for path, fields in (
            ("/broadcast/", {"message": "to all"}),
            ("/user/", {"message": "to mary", "user": "mary"}),
            ("/group/", {"message": "to the chatters", "group": "chatters"}),
            ("/broadcast/", {"message": "bye"}),
        ):
            self.assertEqual((yield post(site + path, self.john, **fields)), 200)
        self.assertEqual(
            (yield mary.take(4)),
            ["john: to all", "john: to mary", "john: to the chatters", "john: bye"],
        )
        self.assertEqual(
            (yield john.take(3)), ["john: to all", "john: to the chatters", "john: bye"]
        )
        self.assertEqual((yield guest.take(2)), ["john: to all", "john: bye"])

    @inlineCallbacks
    def test_the_site_has_pages_on_a_unix_socket_too(self) -> Any:
        request = b"GET /login/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        answer = yield page_from(self.socket, request)
        self.assertIn(b" 200 ", answer.splitlines()[0])
        self.assertIn(b"csrfmiddlewaretoken", answer)

    def test_views_inside_twistd_publish_to_the_browsers_they_mean(self) -> Any:
        return self.chat(self.site)

    @inlineCallbacks
    def test_views_of_an_ordinary_django_server_do_too(self) -> Any:
        import sys

        server = Program(
            sys.executable,
            "-m",
            "tests.projects.wsgi_server",
            WS4REDIS_CONNECTION=self.redis_url,
            **environment(),
        )
        self.addCleanup(server.end)
        port = yield server.wait_for(r"port (\d+)")
        yield self.chat(f"http://127.0.0.1:{port[1]}")

    @inlineCallbacks
    def test_a_message_to_the_own_session_reaches_that_browser_alone(self) -> Any:
        john = yield self.open("subscribe-session&publish-session&echo", self.john)
        mary = yield self.open("subscribe-session&subscribe-broadcast", self.mary)
        john.sendMessage(b"to myself")
        self.assertEqual((yield john.next()), "to myself")
        yield post(self.site + "/broadcast/", self.john, message="to all")
        self.assertEqual((yield mary.next()), "john: to all")

    @inlineCallbacks
    def test_pages_and_static_files_are_served(self) -> Any:
        def get(path: str) -> Any:
            return deferToThread(
                lambda: urllib.request.urlopen(self.site + path, timeout=20).read().decode()
            )

        self.assertIn("john", (yield get("/")))
        self.assertIn("WS4Redis", (yield get("/static/js/ws4redis.js")))
        self.assertIn(f"ws://{self.host}/ws/", (yield get("/broadcast/")))


LIVE = "document.querySelector('[data-status]').dataset.status === 'live'"


class BrowserTests(TestCase):
    """The page in Chromium shows each line once, whatever is cut off. Other servers publish."""

    timeout = 180

    @inlineCallbacks
    def setUp(self) -> Any:
        browser = yield start_browser(self)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.server, self.other = self.start("0"), self.start("0")
        self.port = yield self.server.site_port()
        other = yield self.other.site_port()
        self.publishing = f"http://127.0.0.1:{other}/broadcast/"
        self.john = cookies_of((yield log_in("john")))
        self.page: Page = yield browser.new_page()
        # Without a pause before an attempt.
        script = f"{WATCHED_SOCKETS}; Math.random = () => 0;"
        yield self.page.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def start(self, port: int | str) -> Program:
        server = twistd(
            f"--listen=tcp:{port}:interface=127.0.0.1",
            "--settings=tests.projects.chat_settings",
            "--serve-django",
            WS4REDIS_CONNECTION=str(self.redis.address),
            **environment(),
        )
        self.addCleanup(server.end)
        return server

    @inlineCallbacks
    def say(self, *lines: str) -> Any:
        for line in lines:
            yield post(self.publishing, self.john, message=line)

    def open_chat(self) -> Any:
        return self.page.open(f"http://127.0.0.1:{self.port}/broadcast/")

    @inlineCallbacks
    def open_and_say_one(self) -> Any:
        yield self.open_chat()
        yield self.page.until(LIVE)
        yield self.say("one")
        yield self.assert_shown("one")

    @inlineCallbacks
    def assert_shown(self, *lines: str) -> Any:
        """Each once, in this order, and nothing else: what is behind the last would be here."""
        texts = "[...document.querySelectorAll('.log .text')].map((each) => each.textContent)"
        yield self.page.until(f"{texts}.includes({lines[-1]!r})")
        self.assertEqual((yield self.page.run(texts)), list(lines))

    @inlineCallbacks
    def test_a_line_that_was_said_before_is_shown_once_whatever_is_cut_off(self) -> Any:
        yield self.say("long ago", "before")
        yield self.open_chat()
        yield self.page.until(LIVE)
        yield self.assert_shown("before")
        yield self.page.run("sockets.at(-1).close()")
        yield self.page.until(f"sockets.length === 2 && {LIVE}")
        yield self.say("after the connection was cut")
        yield self.assert_shown("before", "after the connection was cut")

    @inlineCallbacks
    def test_what_is_said_while_the_server_is_down_is_shown_once(self) -> Any:
        yield self.open_and_say_one()
        yield self.server.end()
        yield self.page.until(f"!({LIVE})")
        yield self.say("two", "three", "three")
        yield self.start(self.port).site_port()
        yield self.page.until(LIVE)
        yield self.say("four")
        yield self.assert_shown("one", "two", "three", "three", "four")

    @inlineCallbacks
    def test_what_is_said_while_the_connection_of_redis_is_down_is_shown_once(self) -> Any:
        yield self.open_and_say_one()
        for number in range(5):
            self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            yield self.say(f"cut {number}")
        yield self.say("five")
        yield self.assert_shown("one", *(f"cut {number}" for number in range(5)), "five")

    @inlineCallbacks
    def test_a_page_that_is_reloaded_shows_the_same_and_what_was_said_meanwhile(self) -> Any:
        yield self.say("before")
        yield self.open_chat()
        yield self.page.until(LIVE)
        yield self.say("one", "one")
        yield self.assert_shown("before", "one", "one")
        yield self.page.open("about:blank")
        yield self.say("two", "three")
        yield self.open_chat()
        yield self.assert_shown("before", "one", "one", "two", "three")
        yield self.page.reload()
        yield self.page.until(LIVE)
        yield self.say("four")
        yield self.assert_shown("before", "one", "one", "two", "three", "four")

    @inlineCallbacks
    def test_the_page_tells_where_something_may_be_missing(self) -> Any:
        yield self.open_and_say_one()
        yield self.server.end()
        yield self.page.until(f"!({LIVE})")
        self.redis.command("DEL", "pos:broadcast:foobar", "stream:broadcast:foobar")
        yield self.say("two", "three")
        yield self.start(self.port).site_port()
        yield self.assert_shown("one", "three")
        kinds = "[...document.querySelectorAll('.log > *')].map((each) => each.className)"
        found = yield self.page.run(kinds)
        self.assertEqual([each.split()[0] for each in found], ["message", "missing", "message"])

    @inlineCallbacks
    def test_the_last_line_is_not_repeated_after_a_gap(self) -> Any:
        yield self.open_and_say_one()
        yield self.server.end()
        yield self.page.until(f"!({LIVE})")
        self.redis.command("SET", "birth", "1")  # positions of before are of another data set
        yield self.start(self.port).site_port()
        yield self.page.until(LIVE)
        yield self.say("two")
        yield self.assert_shown("one", "two")
