"""The examples run. ``test_chat`` and ``test_own_authorizers`` test the others."""

from __future__ import annotations

import os
import shutil
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.clients import exchange, open_websocket
from tests.support.programs import TWISTD, Program, python
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes, status_of


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
            self.assertRegex((yield client.next()), r"\d\d:\d\d:\d\d, \d here")
        client.sendMessage(b"today")
        answer = yield client.next()
        while "here" in answer:
            self.assertIn("1 here", answer)
            answer = yield client.next()
        self.assertRegex(answer, "It is .+day")
        rude = yield open_websocket(f"ws://127.0.0.1:{port}/ws/clock")
        rude.sendMessage(b"x" * 21)
        self.assertEqual((yield rude.closed), 1008)
        plain = yield exchange(port, b"GET /ws/clock HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(status_of(plain), 426)
        yield program.signal_and_wait("TERM")
        self.assertEqual((yield client.closed), 1001)


# Python runs a module of this name when it starts.
NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen"):
        raise AssertionError(f"{event} {arguments}")

sys.addaudithook(refuse)
"""


class TrialTests(SynchronousTestCase):
    def run_trial(self, tests: str) -> str:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        (Path(folder) / "sitecustomize.py").write_text(NO_NETWORK)
        result = python(
            str(Path(TWISTD).with_name("trial")),
            f"--temp-directory={folder}/trial",
            tests,
            PYTHONPATH=os.pathsep.join([folder, str(ROOT)]),
        )
        return result.stdout + result.stderr

    def test_the_tests_of_a_user_pass_without_a_socket_and_without_a_program(self) -> None:
        printed = self.run_trial("examples/trial_tests")
        files = (ROOT / "examples" / "trial_tests").glob("test_*.py")
        number = sum(path.read_text().count("def test_") for path in files)
        self.assertIn(f"PASSED (successes={number})", printed)

    def test_they_would_not_if_they_opened_one(self) -> None:
        self.assertIn("AssertionError: socket.", self.run_trial("tests.integration.redis.test_acl"))

    def test_they_show_each_helper_that_works_in_memory(self) -> None:
        files = (ROOT / "examples" / "trial_tests").glob("*.py")
        text = "".join(path.read_text() for path in files)
        for name in (
            *("connect(", "make_memory_factory(", "MemoryClient", "capture_messages("),
            *(".messages", ".send(", ".close(", ".refused", ".flush(", "cookies=", "origin="),
            *(".delay", ".fail_next(", ".lose_connection(", ".restore(", ".publish_elsewhere("),
            *(".assert_published(", ".assert_not_published("),
        ):
            self.assertIn(name, text)


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
