"""A project that is developed: ``runserver`` in it, its clients, and edits of its files."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from tests.support import PATIENCE, ROOT, TIMEOUT
from tests.support.clients import Stream, exchange, get, open_websocket
from tests.support.events import open_events
from tests.support.programs import OWN_GROUP, Program, children
from tests.support.wires import status_of
from ws4redis_tx.twistd.embedded_redis import free_port

PROJECT = ROOT / "benchmarks" / "development"
READY = "Websockets at "
"""What runserver prints when it serves."""


class RunserverTestCase(TestCase):
    timeout = 240

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.project = self.folder / "project"
        shutil.copytree(PROJECT, self.project, ignore=shutil.ignore_patterns("__pycache__"))
        self.port, self.redis_port = free_port(), free_port()
        self.redis = f"embedded://localhost:{self.redis_port}"

    def run_command(self, *arguments: str, **environment: str) -> Program:
        """Run ``manage.py`` in a process group of its own, as a shell does."""
        return self.run_program(
            *(sys.executable, "manage.py", *arguments),
            **{"REDIS": self.redis, "PYTHONDONTWRITEBYTECODE": "1", **environment},
        )

    def run_program(self, *command: str, **environment: str) -> Program:
        own_group = (sys.executable, "-c", OWN_GROUP)
        program = Program(*own_group, *command, folder=self.project, **environment)
        program.patience = PATIENCE
        self.addCleanup(self.end, program)
        return program

    def end(self, program: Program) -> Any:
        if not program.exited.called:
            for pid in (program.pid, *children(program.pid)):
                with contextlib.suppress(ProcessLookupError):  # it may end with another one
                    os.kill(pid, signal.SIGKILL)
        return program.ended

    @inlineCallbacks
    def start(self, *options: str, **environment: str) -> Any:
        """Fire with the running program when it serves."""
        program = self.run_command("runserver", str(self.port), *options, **environment)
        yield program.wait_for(READY)
        yield self.page("/view")
        return program

    @inlineCallbacks
    def page(self, path: str) -> Any:
        """Fire with the response, whose status is 200."""
        answer = yield exchange(self.port, get(path))
        self.assertEqual(status_of(answer), 200, answer)
        return answer

    @inlineCallbacks
    def websocket(self, address: str = "127.0.0.1") -> Any:
        url = f"ws://localhost:{self.port}/ws/f?subscribe-broadcast"
        client = yield open_websocket(url, address=address)
        self.leave_at_end(client, client.closed)
        return client

    @inlineCallbacks
    def events(self) -> Any:
        source = yield open_events(self.port, "/ws/f?subscribe-broadcast")
        self.leave_at_end(source, source.closed)
        return source

    def leave_at_end(self, client: Any, gone: Deferred[Any]) -> None:
        def leave() -> Deferred[Any]:
            client.transport.abortConnection()
            return gone

        self.addCleanup(leave)

    @inlineCallbacks
    def stream(self, path: str, begins: bool = True) -> Any:
        endpoint = HostnameEndpoint(reactor, "127.0.0.1", self.port)
        stream = yield connectProtocol(endpoint, Stream())
        self.leave_at_end(stream, stream.ended)
        stream.transport.write(get(path))
        if begins:
            yield stream.begun.addTimeout(TIMEOUT, reactor)
        return stream

    @inlineCallbacks
    def streams(self) -> Any:
        """Fire when streams of all kinds are open, with them and a websocket."""
        paths = ["/stream"] * 5 + ["/silent"] * 2
        if find_spec("django_browser_reload"):
            paths.append("/__reload__/events/")
        found = yield gatherResults([self.stream(path) for path in paths])
        # WSGI collects all of an asynchronous response before it sends any.
        found.append((yield self.stream("/asynchronous", begins=False)))
        found.append((yield self.events()))
        return found, (yield self.websocket())

    @inlineCallbacks
    def save(self, program: Program, name: str, old: str, new: str) -> Any:
        """Change a file until the reloader says that it has: it misses what changes before it has
        looked for the first time.
        """
        file = self.project / "mysite" / name
        text = file.read_text()
        self.assertIn(old, text)
        program.printed = ""
        saving = LoopingCall(file.write_text, text.replace(old, new))
        saving.start(0.3)
        try:
            yield program.wait_for(f"{name} changed, reloading")
        finally:
            saving.stop()


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
