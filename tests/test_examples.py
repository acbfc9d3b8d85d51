"""The examples run. The chat demo has a module of its own, ``test_chat``."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import urllib.request
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.processes import TWISTD, Program
from tests.support import (
    ROOT,
    exchange,
    handshake_bytes,
    open_websocket,
    python,
    shared_redis,
    status_of,
)

FOLDER = ROOT / "examples" / "standalone"


class EmbeddedTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_site_serves_its_pages_and_the_websockets_on_one_port(self) -> Any:
        program = Program(
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "--python",
            str(ROOT / "examples" / "embedded.tac"),
            WS4REDIS_CONNECTION=str(shared_redis().address),
            LISTEN="tcp:0:interface=127.0.0.1",
        )
        self.addCleanup(program.end)
        port = int((yield program.wait_for(r"Site starting on (\d+)"))[1])

        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as response:
                return response.read().decode()

        self.assertIn("/ws/clock?subscribe-broadcast", (yield deferToThread(get)))
        foreign = handshake_bytes("/ws/clock", Origin="http://evil.example")
        refused = yield exchange(port, foreign)
        while status_of(refused) == 503:  # not connected to Redis yet
            refused = yield exchange(port, foreign)
        self.assertEqual(status_of(refused), 403)
        client = yield open_websocket(f"ws://127.0.0.1:{port}/ws/clock?subscribe-broadcast")
        for _ in range(2):
            self.assertRegex((yield client.next()), r"\d\d:\d\d:\d\d")
        plain = yield exchange(port, b"GET /ws/clock HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(status_of(plain), 426)
        yield program.signal_and_wait("TERM")
        self.assertEqual((yield client.closed), 1001)


class StandaloneTests(TestCase):
    """No Django: who shows a signed token gets in."""

    timeout = 60
    key = "k" * 32

    @inlineCallbacks
    def setUp(self) -> Any:
        self.program = Program(
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "--python",
            str(FOLDER / "standalone.tac"),
            TOKEN_KEY=self.key,
            WS4REDIS_CONNECTION=str(shared_redis().address),
            LISTEN="tcp:0:interface=127.0.0.1",
        )
        self.addCleanup(self.program.end)
        self.port = int((yield self.program.wait_for(r"Site starting on (\d+)"))[1])
        self.url = f"ws://127.0.0.1:{self.port}/ws/chat?subscribe-broadcast"

    @inlineCallbacks
    def token(self, *options: str, key: str = key) -> Any:
        """As the program prints it."""
        command = (sys.executable, str(FOLDER / "tokens.py"), "john", *options)
        program = yield Program(*command, TOKEN_KEY=key).ended
        self.assertEqual(program.status, 0, program.printed)
        return program.printed.strip()

    @inlineCallbacks
    def status(self, target: str = "/ws/chat", **headers: str) -> Any:
        status = 503
        while status == 503:  # not connected to Redis yet
            answer = yield exchange(self.port, handshake_bytes(target, **headers))
            status = status_of(answer)
        for header in headers.values():
            self.assertNotIn(header[-20:].encode(), answer)
        return status

    @inlineCallbacks
    def test_the_page_and_a_program_talk(self) -> Any:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=20) as response:
                return response.read().decode()

        page = yield deferToThread(get)
        path = re.search(r"/ws/\S+?(?=`)", page)[0]
        first, second = re.search(r"\[\"(\w+)\", `(\w+\.)", page).groups()
        token = yield self.token("chat")
        yield self.status()
        client = Program(
            sys.executable, str(FOLDER / "client.py"), self.url, TOKEN=(yield self.token("chat"))
        )
        self.addCleanup(client.end)
        yield client.wait_for("Listening")
        browser = yield open_websocket(
            f"ws://127.0.0.1:{self.port}{path}",
            protocols=[first, second + token],
            origin=f"http://127.0.0.1:{self.port}",
        )
        self.assertEqual(browser.selected_protocol, first)
        browser.sendMessage(b"hello")
        self.assertEqual((yield browser.next()), "hello")
        yield client.wait_for("hello")
        yield self.program.signal_and_wait("TERM")
        self.assertEqual((yield browser.closed), 1001)
        yield client.wait_for(r"Closed \(1001\)")
        yield client.ended

    @inlineCallbacks
    def test_who_has_no_good_token_for_the_facility_stays_outside(self) -> Any:
        good = yield self.token("chat")
        forged = yield self.token("chat", key="another key" * 4)
        expired = yield self.token("chat", "--seconds=-1")
        elsewhere = yield self.token("other")
        self.assertEqual((yield self.status()), 401)
        self.assertEqual((yield self.status(f"/ws/chat?token={good}&access_token={good}")), 401)
        for token, status in ((forged, 401), (expired, 401), (elsewhere, 403)):
            self.assertEqual((yield self.status(Authorization=f"Bearer {token}")), status)
            offered = f"chat, token.{token}"
            self.assertEqual((yield self.status(Sec_WebSocket_Protocol=offered)), status)
        for _ in range(2):  # it is a token, not a ticket
            client = yield open_websocket(self.url, headers={"Authorization": f"Bearer {good}"})
            client.sendClose(1000)
            yield client.closed
        foreign = {"Origin": "https://evil.example", "Authorization": f"Bearer {good}"}
        self.assertEqual((yield self.status(**foreign)), 403)
        self.assertNotIn(good, self.program.printed)

    @inlineCallbacks
    def test_a_key_that_can_be_guessed_is_refused_with_the_remedy(self) -> Any:
        for name in ("tokens.py", "standalone.tac"):
            command = [sys.executable, str(FOLDER / name), "john", "chat"]
            if name.endswith(".tac"):
                command = [TWISTD, "--nodaemon", "--pidfile=", "--python", str(FOLDER / name)]
            program = yield Program(*command, TOKEN_KEY="secret").ended
            self.assertIn("TOKEN_KEY has 6 bytes", program.printed)
            self.assertIn("secrets.token_hex(32)", program.printed)
            self.assertNotEqual(program.status, 0)


class ChatTests(SynchronousTestCase):
    def test_its_preparation_says_how_to_log_in_and_nothing_of_a_redis_yet_to_start(self) -> None:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        manage = str(ROOT / "examples" / "chatserver" / "manage.py")
        for _ in range(2):
            done = python(
                manage,
                "prepare_demo",
                CHATSERVER_DB=f"{folder}/db",
                DJANGO_SETTINGS_MODULE="chatserver.settings",
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"\AReady: log in as john or mary[^\n]*\n\Z")
            self.assertEqual(done.stderr, "")
