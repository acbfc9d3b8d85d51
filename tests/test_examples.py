"""The examples run. Others have modules of their own: ``test_chat``, ``test_own_authorizers``."""

from __future__ import annotations

import shutil
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
