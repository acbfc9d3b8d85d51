"""The log of ``twistd ws4redis``: an output that stalls, files, syslog."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import open_websocket
from tests.support.django import environment
from tests.support.programs import TWISTD, Program, wait_readable
from tests.support.redis import shared_redis

LISTEN = "--listen=tcp:0:interface=127.0.0.1"

# A site that writes 100 kB at each handshake.
NOISY = """
from tests.projects.django_project.settings import *

def noisy(request, rights):
    for _ in range(10):
        print("x" * 10_000)
    return rights

WS4REDIS_ALLOWED_CHANNELS = noisy
"""
HANDSHAKES = 30


class FolderTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def run_twistd(self, *options: str, twistd: tuple[str, ...] = ("-n",)) -> Program:
        program = Program(
            *(TWISTD, *twistd, "--pidfile=", "ws4redis"),
            *(f"--redis={shared_redis().address}", LISTEN, "--drain=0", *options),
            folder=self.folder,
            PYTHONPATH=os.pathsep.join([os.environ.get("PYTHONPATH", ""), os.getcwd()]),
            **environment(),
        )
        self.addCleanup(program.end)
        return program


class StalledOutputTests(FolderTestCase):
    """Nobody reads the log's output: websockets are served all the same."""

    @inlineCallbacks
    def assert_it_serves(self, workers: int) -> Any:
        (self.folder / "noisy_settings.py").write_text(NOISY)
        program = self.run_twistd("--settings=noisy_settings", f"--workers={workers}")
        ready = yield program.wait_for(r"process#info\] Ready: .* ws://127.0.0.1:(\d+)/")
        url = f"ws://127.0.0.1:{ready.group(1)}/ws/f?subscribe-broadcast&publish-broadcast&echo"
        program.transport.pauseProducing()
        for number in range(HANDSHAKES):
            client = yield open_websocket(url).addTimeout(TIMEOUT, reactor)
            client.sendMessage(b"%d" % number)
            while (yield client.next()) != str(number):
                pass
            client.sendClose(1000)
            yield client.closed
        return program

    @inlineCallbacks
    def test_and_how_many_lines_were_dropped_is_told_when_it_flows_again(self) -> Any:
        for workers in 1, 2:
            program = yield self.assert_it_serves(workers)
            program.transport.resumeProducing()
            yield program.wait_for(r"[1-9]\d* log lines were dropped")
            yield program.signal_and_wait("TERM")
            self.assertIn("Server Shut Down.", program.printed)
            self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_and_the_program_ends_when_it_is_told(self) -> Any:
        for workers in 1, 2:
            program = yield self.assert_it_serves(workers)
            ended = program.signal_and_wait("TERM")
            yield self.when_ended(program)
            program.transport.resumeProducing()
            yield ended

    def when_ended(self, program: Program) -> Any:
        """Fire when the process has ended, though its output was not read."""
        return wait_readable(os.pidfd_open(program.pid))
