"""The log of ``twistd ws4redis``: an output that stalls, a daemon's file, how fast it grows."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import exchange, open_websocket
from tests.support.django import SETTINGS, environment
from tests.support.programs import TWISTD, Program, twistd, wait_readable
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes
from ws4redis_tx.twistd.embedded_redis import free_port

LISTEN = "--listen=tcp:0:interface=127.0.0.1"
READY = r"process#info\] Ready: .* ws://127.0.0.1:(\d+)/"
HANDSHAKES = 30
NOISY = "--settings=tests.projects.django_project.noisy"


class StalledOutputTests(TestCase):
    """Nobody reads the log's output: websockets are served all the same."""

    timeout = 120

    @inlineCallbacks
    def assert_it_serves(self, workers: int) -> Any:
        redis = f"--redis={shared_redis().address}"
        program = twistd(redis, LISTEN, NOISY, "--drain=0", f"--workers={workers}", **environment())
        self.addCleanup(program.end)
        ready = yield program.wait_for(READY)
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
            # The end of the process itself: the rest of its output is read afterwards.
            gone = wait_readable(os.pidfd_open(program.pid))
            ended = program.signal_and_wait("TERM")
            yield gone
            program.transport.resumeProducing()
            yield ended


class LogFileTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_daemons_log_has_its_first_line_and_its_last(self) -> Any:
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        pid, log, port = folder / "pid", folder / "log", free_port()
        program = Program(
            *(TWISTD, f"--pidfile={pid}", f"--logfile={log}", "ws4redis"),
            *(f"--redis={shared_redis().address}", f"--listen=tcp:{port}:interface=127.0.0.1"),
        )
        self.addCleanup(program.end)
        yield program.ended.addTimeout(TIMEOUT, reactor)
        self.assertEqual(program.status, 0, program.printed)
        yield exchange(port, b"\r\n\r\n")  # its reactor runs
        daemon = int(pid.read_text())
        gone = wait_readable(os.pidfd_open(daemon))
        os.kill(daemon, signal.SIGTERM)
        yield gone
        first, *_, last = log.read_text().splitlines()
        self.assertIn("ws4redis_tx", first)
        self.assertIn("Server Shut Down.", last)


class GrowthTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_what_a_stranger_sends_makes_few_lines_whatever_process_answers(self) -> Any:
        """16 kB in each of 500 requests, and as many plain ones and garbage: 79 MB/s once."""
        for workers in 1, 2:
            redis = f"--redis={shared_redis().address}"
            program = twistd(redis, LISTEN, "--drain=0", f"--workers={workers}")
            self.addCleanup(program.end)
            port = int((yield program.wait_for(READY)).group(1))
            before = len(program.printed)
            for number in range(100):
                requests = (
                    handshake_bytes("/ws/f", Host="\x80" * 15_000),
                    handshake_bytes(
                        "/ws/f", Host=f"127.0.0.1:{port}", Origin=f"http://{number}.example"
                    ),
                    b"GET /ws/f HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    b"\x16\x03\x01\r\n\r\n",
                )
                yield gatherResults([exchange(port, request) for request in requests])
            yield program.signal_and_wait("TERM")
            self.assertLess(len(program.printed) - before, 20_000)
            self.assertIn(" more like this in the last minute: ", program.printed)

    @inlineCallbacks
    def test_requests_for_pages_have_a_line_without_their_query(self) -> Any:
        program = twistd(
            *(f"--redis={shared_redis().address}", LISTEN, "--drain=0"),
            *("--serve-django", f"--settings={SETTINGS}"),
            **environment(),
        )
        self.addCleanup(program.end)
        port = int((yield program.wait_for(READY)).group(1))
        head = f"HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUser-Agent: %s\r\nConnection: close\r\n\r\n"
        for _ in range(50):
            target = "/" + "x" * 5000 + "?token=s3cret"
            yield exchange(port, f"GET {target} {head % ('y' * 5000)}".encode())
        yield program.wait_for(r"'GET' '/x+… from '127.0.0.1': 404, \d+ bytes\n")
        yield program.signal_and_wait("TERM")
        self.assertNotIn("s3cret", program.printed)
        self.assertNotIn("yyyy", program.printed)
        # Django's own log of its pages, which a site in DEBUG mode has, is the site's.
        lines = [line for line in program.printed.splitlines() if "[ws4redis_tx." in line]
        self.assertLess(max(map(len, lines)), 400)
