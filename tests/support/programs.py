"""Runs our programs, and tests such as our users write, as processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support import ROOT, TIMEOUT

TWISTD = str(Path(sys.executable).with_name("twistd"))

OWN_GROUP = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
"""Runs the rest of the command line as a process group of its own, such as a terminal's."""


def _unshare() -> tuple[str, ...] | None:
    path = shutil.which("unshare")
    if path is None:
        return None
    command = (path, "--pid", "--fork", "--kill-child", "--mount-proc")
    allowed = subprocess.run([*command, "true"], capture_output=True, check=False)
    return None if allowed.returncode else command


UNSHARE = _unshare()
"""What runs the rest of the command line as process 1 of a namespace; ``None`` if nothing may."""


class Program(ProcessProtocol):
    """A running program and its output, which goes to the descriptor ``output`` if there is one."""

    patience = TIMEOUT
    """Seconds for what it is to print."""

    def __init__(
        self,
        *command: str,
        folder: str | Path = ROOT,
        output: int | None = None,
        **environment: str,
    ) -> None:
        self.printed = ""
        self.exited: Deferred[None] = Deferred()
        """Fires when the process has ended, though others may still have its output open."""
        self.ended: Deferred[Program] = Deferred()
        self.status: int | None = None
        self.signal: int | None = None
        self._waiting: list[tuple[re.Pattern[str], Deferred[re.Match[str]]]] = []
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        variables.pop("DJANGO_SETTINGS_MODULE", None)
        variables.update(environment)
        outputs: dict[int, str | int] = {1: "r", 2: "r"}
        if output is not None:
            outputs = {1: output, 2: output}
        reactor.spawnProcess(
            self,
            command[0],
            command,
            env=variables,
            path=str(folder),
            childFDs={0: "w", **outputs},
        )

    @property
    def pid(self) -> int:
        pid: int = self.transport.pid
        return pid

    def wait_for(self, pattern: str) -> Deferred[re.Match[str]]:
        """Fire with the first match in its output; fail if the program ends first."""
        waiting: Deferred[re.Match[str]] = Deferred()
        self._waiting.append((re.compile(pattern), waiting))
        self._look()
        return waiting.addTimeout(self.patience, reactor).addErrback(self._explain, pattern)

    def site_port(self) -> Deferred[int]:
        """Fire with the port of the site that it serves, when that is ready."""
        ready = self.wait_for(r"Ready: .*http://[^/]+:(\d+)/")
        return ready.addCallback(lambda match: int(match[1]))

    def send_signal(self, name: str) -> None:
        self.transport.signalProcess(signal.Signals[f"SIG{name}"])

    def signal_and_wait(self, name: str) -> Deferred[Program]:
        self.send_signal(name)
        return self.ended.addTimeout(TIMEOUT, reactor)

    def end(self) -> Any:
        """End the program; for a test's clean-up."""
        if self.status is None and self.signal is None:
            self.transport.signalProcess("KILL")
        return self.ended

    def outReceived(self, data: bytes) -> None:
        self.printed += data.decode(errors="replace")
        self._look()

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        self.status, self.signal = reason.value.exitCode, reason.value.signal
        self.exited.callback(None)

    def processEnded(self, reason: Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for _, each in waiting:
            each.errback(AssertionError("it ended"))
        self.ended.callback(self)

    def _look(self) -> None:
        for entry in tuple(self._waiting):
            match = entry[0].search(self.printed)
            if match:
                self._waiting.remove(entry)
                entry[1].callback(match)

    def _explain(self, failure: Failure, pattern: str) -> None:
        raise AssertionError(
            f"{pattern!r} was not printed ({failure.value}) but only:\n{self.printed}"
        )


def twistd(*options: str, **environment: str) -> Program:
    """``twistd -n ws4redis``, with its log on standard output."""
    return Program(TWISTD, "-n", "--pidfile=", "ws4redis", *options, **environment)


def children(pid: int) -> list[int]:
    """All processes below ``pid``."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(path.parent.name)
            found += [child, *children(child)]
    return found


def until(condition: Callable[[], object], within: float = TIMEOUT) -> Deferred[None]:
    """Fire once ``condition`` holds; for what no event tells, such as another process's files."""
    done: Deferred[None] = Deferred(lambda _: looking.stop())

    def look() -> None:
        if condition():
            looking.stop()
            done.callback(None)

    looking = LoopingCall(look)
    looking.start(0.02).addErrback(done.errback)
    return done.addTimeout(within, reactor)


def wait_readable(descriptor: int) -> Deferred[None]:
    """Fire when the process of a pidfd has ended."""
    ended: Deferred[None] = Deferred()

    class Watch(FileDescriptor):
        def fileno(self) -> int:
            return descriptor

        def doRead(self) -> None:
            self.stopReading()
            os.close(descriptor)
            ended.callback(None)

    Watch(reactor).startReading()
    return ended.addTimeout(TIMEOUT, reactor)


def write_file(test: TestCase, text: str) -> str:
    """The path of a temporary file with ``text``, deleted after the test."""
    folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    test.addCleanup(shutil.rmtree, folder)
    path = Path(folder) / "file"
    path.write_text(text)
    return str(path)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a fresh process, from the project's folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


# crochet's own warning
_WARNINGS = ("-W", "error", "-W", "ignore:isSet:DeprecationWarning")
DJANGO_SETTINGS = """
from tests.projects.django_project.settings import *

WS4REDIS_REVOKE = True
WS4REDIS_CONNECTION = "redis://127.0.0.1:1"
"""


def run_pytest(tests: str, *options: str, **variables: str) -> str:
    """Run pytest on a file ``tests``, which must all pass; return its output."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        (Path(folder) / "test_project.py").write_text(tests)
        printed = _run(
            folder,
            ["-m", "pytest", *_WARNINGS, "-rA", *options],
            [str(ROOT)],
            variables,
        )
    assert f"{tests.count('def test_')} passed" in printed, printed
    return printed


def run_django_tests(tests: str, settings: str = DJANGO_SETTINGS, *options: str) -> None:
    """Run Django's test command on ``tests``, which must all pass. Settings may use ``HERE``."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        (Path(folder) / "user_settings.py").write_text(f"HERE = {folder!r}\n{settings}")
        (Path(folder) / "test_project.py").write_text(tests)
        printed = run_django(
            folder, "-m", "django", "test", *options, DJANGO_SETTINGS_MODULE="user_settings"
        )
    assert f"Ran {tests.count('def test_')} tests" in printed.replace(" test in", " tests in"), (
        printed
    )


def run_django(folder: str | Path, *arguments: str, **variables: str) -> str:
    printed = _run(folder, [*_WARNINGS, *arguments], [str(folder), str(ROOT)], variables)
    assert "\nOK\n" in printed, printed
    return printed


def _run(
    folder: str | Path, arguments: list[str], paths: list[str], variables: dict[str, str]
) -> str:
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
