"""A process that runs out of file descriptors still answers, and says so once."""

from __future__ import annotations

import re
import shutil
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.clients import exchange, open_wire
from tests.support.django import SETTINGS, environment
from tests.support.programs import TWISTD, Program
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes, status_of

LIMIT = 160
GET = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class DescriptorTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def serve(self, *options: str) -> Any:
        """Fire with a server that may have ``LIMIT`` descriptors, on ``self.port``."""
        if shutil.which("prlimit") is None:
            self.skipTest("prlimit of util-linux is missing")
        program = Program(
            *("prlimit", f"--nofile={LIMIT}:{LIMIT}"),
            *(TWISTD, "-n", "--pidfile=", "ws4redis", f"--redis={shared_redis().address}"),
            "--listen=tcp:0:interface=127.0.0.1",
            *options,
            **environment(),
        )
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"Ready: websockets at ws://127\.0\.0\.1:(\d+)/ws/")
        self.port = int(ready[1])
        return program

    @inlineCallbacks
    def fill(self) -> Any:
        """Fire with as many open websockets as the server takes."""
        wires: list[Any] = []
        self.addCleanup(self.leave, wires)
        while True:
            try:
                wires.append((yield open_wire(self.port, handshake_bytes())))
            except AssertionError as refused:
                self.assertIn(b" 503 ", refused.args[0])
                return wires

    def leave(self, wires: list[Any]) -> Any:
        ended = [wire.ended for wire in wires]
        for wire in wires:
            wire.transport.abortConnection()
        wires.clear()
        return gatherResults(ended)

    @inlineCallbacks
    def test_at_the_limit_each_client_gets_503_however_many_come_at_once(self) -> Any:
        program = yield self.serve()
        wires = yield self.fill()
        self.assertGreater(len(wires), LIMIT // 2)
        answers = yield gatherResults([exchange(self.port, handshake_bytes()) for _ in range(300)])
        self.assertEqual(answers.count(b""), 0, program.printed)
        self.assertEqual({status_of(answer) for answer in answers}, {503})
        for answer in answers:
            self.assertRegex(answer, rb"Retry-After: [1-5]\r\n")
        yield self.leave(wires)
        yield (yield self.fill())[0].opened
        lines = [line for line in program.printed.splitlines() if "descriptor" in line]
        self.assertEqual(len(lines), 1, program.printed)
        self.assertIn("ulimit -n", lines[0])
        self.assertIsNone(re.search("Traceback|Too many open files", program.printed))

    @inlineCallbacks
    def test_so_does_each_that_wants_a_page(self) -> Any:
        program = yield self.serve("--serve-django", f"--settings={SETTINGS}")
        wires = yield self.fill()
        answers = yield gatherResults([exchange(self.port, GET) for _ in range(100)])
        self.assertEqual(answers.count(b""), 0, program.printed)
        self.assertEqual({status_of(answer) for answer in answers}, {503})
        for answer in answers:
            self.assertRegex(answer, rb"(?i)Retry-After: [1-5]\r\n")
            self.assertRegex(answer, rb"(?i)Connection: close\r\n")
        yield self.leave(wires)
        answer = yield exchange(self.port, GET[:-2] + b"Connection: close\r\n\r\n")
        self.assertEqual(status_of(answer), 404)
        self.assertIsNone(re.search("Traceback|Too many open files", program.printed))
