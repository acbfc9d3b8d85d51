"""The chat demo: a Django view's messages reach the intended browsers, and no others."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import urllib.parse
import urllib.request
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.clients import Client, open_websocket
from tests.support.django import SETTINGS, cookies_of, environment, log_in
from tests.support.programs import Program, twistd


def page_from(path: str, request: bytes) -> Any:
    """Fire with all that the server at the Unix socket ``path`` answers."""

    def work() -> bytes:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(request)
            with connection.makefile("rb") as answer:
                return answer.read()

    return deferToThread(work)


def post(url: str, cookies: dict[str, str], **fields: str) -> Any:
    """Fire with the status of an ordinary POST, as the page's form sends it."""

    def work() -> int:
        request = urllib.request.Request(
            url,
            data=urllib.parse.urlencode(fields).encode(),
            headers={
                "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
                "X-CSRFToken": cookies["csrftoken"],
                "Accept": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status

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
