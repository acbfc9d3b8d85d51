"""``twistd ws4redis`` and SIGHUP, SIGUSR1 and SIGQUIT; its pidfile and its version."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import autobahn
from twisted import version as twisted_version
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

import ws4redis_tx
from tests.support import ROOT
from tests.support.clients import open_websocket
from tests.support.programs import (
    OWN_GROUP,
    TWISTD,
    UNSHARE,
    Program,
    children,
    python,
    until,
)
from tests.support.redis import shared_redis
from ws4redis_tx.twistd.embedded_redis import free_port

CHANNEL = "foobar?subscribe-broadcast"
LISTEN = "--listen=tcp:0:interface=127.0.0.1"


class SignalsTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.redis = shared_redis()
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)

    @inlineCallbacks
    def start(self, *options: str, before: tuple[str, ...] = ("--pidfile=",)) -> Any:
        """Fire with a server that is the leader of its process group."""
        program = Program(
            *(sys.executable, "-c", OWN_GROUP, TWISTD, "-n", *before, "ws4redis"),
            *(LISTEN, f"--redis={self.redis.address}", *options),
            folder=self.folder,
        )
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"process#info\] Ready: websockets at (ws://\S+/)")
        self.url = ready.group(1)
        return program

    def open(self, count: int = 1) -> Any:
        return gatherResults([open_websocket(self.url + CHANNEL) for _ in range(count)])

    @inlineCallbacks
    def assert_live(self, clients: Any) -> Any:
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        for client in clients:
            self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def close(self, clients: Any) -> Any:
        for client in clients:
            client.sendClose(1000)
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(set(codes), {1000})

    @inlineCallbacks
    def assert_restarting(self, clients: Any) -> Any:
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(set(codes), {1012})


class ReopeningTests(SignalsTestCase):
    """SIGHUP reopens the log; nobody's websocket notices."""

    @inlineCallbacks
    def assert_reopened(self, *options: str) -> Any:
        log, moved = self.folder / "log", self.folder / "log.1"
        program = Program(
            *(sys.executable, "-c", OWN_GROUP, TWISTD, "-n", "--pidfile=", f"--logfile={log}"),
            *("ws4redis", LISTEN, f"--redis={self.redis.address}", *options),
        )
        self.addCleanup(program.end)
        yield until(lambda: log.exists() and "process#info] Ready: " in log.read_text())
        head = log.read_text().rpartition("Ready: websockets at ")[2]
        self.url = head.partition(",")[0]
        clients = yield self.open(4)
        log.rename(moved)
        os.killpg(program.pid, signal.SIGHUP)
        yield until(lambda: log.exists() and "SIGHUP" in log.read_text())
        self.assertNotIn("SIGHUP", moved.read_text())
        yield self.assert_live(clients)
        yield self.close(clients)
        yield program.signal_and_wait("TERM")

    def test_of_a_single_process(self) -> Any:
        return self.assert_reopened()

    def test_of_all_workers_whoever_is_sent_it(self) -> Any:
        return self.assert_reopened("--workers=2")

    @inlineCallbacks
    def test_where_there_is_nothing_to_reopen(self) -> Any:
        for workers in "1", "2":
            program = yield self.start(f"--workers={workers}")
            clients = yield self.open(4)
            for name in "HUP", "USR1":
                os.killpg(program.pid, signal.Signals[f"SIG{name}"])
                yield program.wait_for(f"SIG{name}")
            yield self.assert_live(clients)
            self.assertNotIn("has ended", program.printed)
            yield self.close(clients)
            yield program.signal_and_wait("TERM")


class TerminalTests(SignalsTestCase):
    """A terminal that is closed takes along what was started in it."""

    @inlineCallbacks
    def test_the_server_drains_when_its_terminal_is_gone(self) -> Any:
        for workers in "1", "2":
            terminal, output = os.openpty()
            port = free_port()
            program = Program(
                *(sys.executable, "-c", OWN_GROUP, TWISTD, "-n", "--pidfile=", "ws4redis"),
                *(f"--listen=tcp:{port}:interface=127.0.0.1", f"--workers={workers}"),
                *(f"--redis={self.redis.address}", "--drain=0.1"),
                output=output,
            )
            os.close(output)
            self.addCleanup(program.end)
            self.url = f"ws://127.0.0.1:{port}/ws/"
            printed = b""
            while b"process#info] Ready: " not in printed:
                printed += yield deferToThread(os.read, terminal, 1000)
            clients = yield self.open(2)
            program.send_signal("HUP")
            while b"SIGHUP" not in printed:
                printed += yield deferToThread(os.read, terminal, 1000)
            yield self.assert_live(clients)
            os.close(terminal)
            program.send_signal("HUP")
            yield self.assert_restarting(clients)
            yield program.exited


class QuittingTests(SignalsTestCase):
    """SIGQUIT does not wait for the drain, and yet tells the clients."""

    @inlineCallbacks
    def test_clients_are_closed_with_1012_whatever_the_drain(self) -> Any:
        program = yield self.start("--drain=3600")
        clients = yield self.open(20)
        yield program.signal_and_wait("QUIT")
        yield self.assert_restarting(clients)
        self.assertEqual(program.status, 0)

    @inlineCallbacks
    def test_also_after_a_drain_has_begun(self) -> Any:
        for workers in "1", "2":
            program = yield self.start("--drain=3600", f"--workers={workers}")
            clients = yield self.open(20)
            program.send_signal("TERM")
            yield program.wait_for("Port [0-9]+ Closed")
            yield program.signal_and_wait("QUIT")
            yield self.assert_restarting(clients)

    @inlineCallbacks
    def test_a_client_that_does_not_answer_is_not_waited_for(self) -> Any:
        program = yield self.start("--drain=3600")
        (client,) = yield self.open()
        client.transport.pauseProducing()
        yield program.signal_and_wait("QUIT")
        client.transport.resumeProducing()
        yield self.assert_restarting([client])

    @inlineCallbacks
    def test_of_all_workers(self) -> Any:
        for whole_group in False, True:
            program = yield self.start("--drain=3600", "--workers=2")
            clients = yield self.open(20)
            below = children(program.pid)
            (os.killpg if whole_group else os.kill)(program.pid, signal.SIGQUIT)
            yield program.ended
            yield self.assert_restarting(clients)
            self.assertEqual(program.status, 0)
            self.assertNotIn("Traceback", program.printed)
            for pid in below:
                self.assertFalse(Path(f"/proc/{pid}").exists())

    @inlineCallbacks
    def test_of_one_worker_which_is_started_again(self) -> Any:
        program = yield self.start("--drain=3600", "--workers=2")
        clients = yield self.open(20)
        first = program.printed.partition("[worker 1] Process ")[2].partition(".")[0]
        os.kill(int(first), signal.SIGQUIT)
        yield program.wait_for(r"(?s)\[worker 1\] It has ended.*\[worker 1\] Ready: ")
        yield program.signal_and_wait("QUIT")
        yield self.assert_restarting(clients)


class PidfileTests(SignalsTestCase):
    """No pidfile stops a process in the foreground, whatever it says."""

    @inlineCallbacks
    def test_twistds_own_is_neither_read_nor_written(self) -> Any:
        file = self.folder / "twistd.pid"
        for content in (str(os.getpid()), "1", "not a number", None):
            if content is None:
                file.unlink()
            else:
                file.write_text(content)
            program = yield self.start(before=())
            yield program.signal_and_wait("TERM")
            self.assertEqual(file.read_text() if file.exists() else None, content)

    @inlineCallbacks
    def test_a_folder_that_cannot_be_written_to_is_no_obstacle(self) -> Any:
        (self.folder / "twistd.pid").mkdir()
        program = yield self.start(before=())
        yield program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_the_one_that_was_asked_for_is_overwritten_and_removed(self) -> Any:
        file = self.folder / "my.pid"
        for content in (str(os.getpid()), "1", "not a number"):
            file.write_text(content)
            program = yield self.start(before=("--pidfile=my.pid",))
            self.assertEqual(file.read_text(), str(program.pid))
            yield program.signal_and_wait("TERM")
            self.assertFalse(file.exists())

    @inlineCallbacks
    def test_one_that_cannot_be_written_is_said_and_no_obstacle(self) -> Any:
        program = yield self.start(before=("--pidfile=no/such/folder/pid",))
        self.assertIn("no/such/folder/pid", program.printed)
        yield program.signal_and_wait("TERM")
        self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_a_second_start_that_fails_leaves_the_first_ones(self) -> Any:
        file = self.folder / "my.pid"
        program = yield self.start(before=("--pidfile=my.pid",))
        port = self.url.rpartition(":")[2].partition("/")[0]
        second = Program(
            *(sys.executable, TWISTD, "-n", "--pidfile=my.pid", "ws4redis"),
            *(f"--listen=tcp:{port}:interface=127.0.0.1", f"--redis={self.redis.address}"),
            folder=self.folder,
        )
        yield second.ended
        self.assertEqual(second.status, 1)
        self.assertIn("Is something running there already?", second.printed)
        self.assertEqual(file.read_text(), str(program.pid))
        yield program.signal_and_wait("TERM")
        self.assertFalse(file.exists())

    @inlineCallbacks
    def test_one_of_another_process_is_left_to_it(self) -> Any:
        file = self.folder / "my.pid"
        program = yield self.start(before=("--pidfile=my.pid",))
        file.write_text("1")
        yield program.signal_and_wait("TERM")
        self.assertEqual(file.read_text(), "1")

    @inlineCallbacks
    def test_as_process_1_killed_and_started_again(self) -> Any:
        if UNSHARE is None:
            self.skipTest("unshare makes no process namespace here")
        for name in "KILL", "KILL", "TERM":
            program = Program(
                *(*UNSHARE, TWISTD, "-n", "ws4redis", LISTEN, f"--redis={self.redis.address}"),
                folder=self.folder,
            )
            self.addCleanup(program.end)
            yield program.wait_for("Ready: ")
            (first,) = children(program.pid)
            os.kill(first, signal.Signals[f"SIG{name}"])
            yield program.ended
        self.assertEqual(program.status, 0)

    def test_as_process_1_it_ends_though_a_thread_hangs(self) -> None:
        code = (
            "import time; from ws4redis_tx.system import signals; signals._STOP_NOW_TIMEOUT = 0.1; "
            "signals.set_exit_alarm(); time.sleep(600)"
        )
        self.assertEqual(python("-c", code).returncode, 1)
        if UNSHARE is not None:
            ended = subprocess.run([*UNSHARE, sys.executable, "-c", code], timeout=60, cwd=ROOT)
            self.assertEqual(ended.returncode, 1)


class VersionTests(SignalsTestCase):
    def test_the_option_prints_ours_and_that_of_what_it_stands_on(self) -> None:
        printed = python(TWISTD, "ws4redis", "--version").stdout
        self.assertIn(f"ws4redis_tx {ws4redis_tx.__version__}", printed)
        self.assertIn(f"Twisted {twisted_version.short()}", printed)
        self.assertIn(f"autobahn {autobahn.__version__}", printed)
        self.assertIn(f"Python {sys.version.split()[0]}", printed)

    @inlineCallbacks
    def test_the_first_line_of_the_log_tells_it(self) -> Any:
        for workers in "1", "2":
            program = yield self.start(f"--workers={workers}")
            first = program.printed.splitlines()[0]
            self.assertIn(f"ws4redis_tx {ws4redis_tx.__version__}", first)
            self.assertIn(f"Twisted {twisted_version.short()}", first)
            yield program.signal_and_wait("TERM")
        self.assertIn(f"[worker 2] ws4redis_tx {ws4redis_tx.__version__}", program.printed)
