"""Where the log goes: a file that is rotated and opened again, syslog, standard output."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from twisted.logger import LogLevel
from twisted.python import syslog
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TIMEOUT
from ws4redis_tx.twistd import log_output


class OutputTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.path = self.folder / "log"
        self.patch(sys, "stdout", sys.stdout)
        self.patch(sys, "stderr", sys.stderr)
        self.patch(log_output, "_output", None)
        self.patch(log_output, "_options", {})
        self.patch(atexit, "register", lambda function: None)
        self.addCleanup(signal.signal, signal.SIGUSR1, signal.getsignal(signal.SIGUSR1))

    def open(self, **options: Any) -> None:
        log_output.take_over(options)
        self.observe = log_output.open_log()
        output = log_output._output
        assert output is not None
        self.writer = output.writer
        self.writer.begin()

    def log(self, text: str) -> None:
        event = {"log_level": LogLevel.info, "log_time": 0.0, "log_format": "{text}", "text": text}
        self.observe(event)

    def settle(self) -> None:
        self.writer.finish(TIMEOUT)


class LogFileTests(OutputTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.open(logfile=str(self.path))

    def texts(self, path: Path) -> list[str]:
        return [line.rpartition(" ")[2] for line in path.read_text().splitlines()]

    def test_a_file_that_was_moved_is_opened_again_at_its_place(self) -> None:
        self.log("before")
        self.path.rename(self.folder / "moved")
        self.log("still")
        log_output.reopen()
        self.log("after")
        self.settle()
        self.assertEqual(self.texts(self.folder / "moved"), ["before", "still"])
        self.assertEqual(self.texts(self.path), ["after"])

    def test_a_file_that_cannot_be_opened_again_is_kept(self) -> None:
        self.log("before")
        self.path.rename(self.folder / "moved")
        self.path.mkdir()
        log_output.reopen()
        self.log("after")
        self.settle()
        self.assertEqual(self.texts(self.folder / "moved"), ["before", "after"])

    def test_a_file_is_rotated_and_only_so_many_old_ones_are_kept(self) -> None:
        self.patch(log_output, "FILE_SIZE", 1000)
        log_output.reopen()
        for _ in range(30):
            self.log("x" * 1000)
        self.settle()
        names = {"log", *(f"log.{number}" for number in range(1, log_output.OLD_FILES + 1))}
        self.assertEqual(set(os.listdir(self.folder)), names)
        self.assertEqual(log_output.FILE_SIZE, 1000)

    def test_all_old_files_and_the_current_one_take_100_mb(self) -> None:
        self.assertEqual(log_output.FILE_SIZE * (log_output.OLD_FILES + 1), 100_000_000)

    def test_sigusr1_rotates_as_it_does_under_twistd(self) -> None:
        self.log("before")
        os.kill(os.getpid(), signal.SIGUSR1)
        self.log("after")
        self.settle()
        self.assertEqual(self.texts(self.folder / "log.1"), ["before"])
        self.assertEqual(self.texts(self.path), ["after"])

    def test_a_rotation_that_fails_in_the_middle_loses_one_line_at_most(self) -> None:
        self.log("before")
        self.settle()

        def fail(*paths: object) -> None:
            raise OSError("no")

        rename = os.rename
        self.patch(os, "rename", fail)
        log_output.rotate()
        self.settle()
        self.patch(os, "rename", rename)
        self.log("after")
        self.settle()
        self.assertEqual(self.texts(self.path)[:1], ["before"])
        self.assertIn("after", self.texts(self.path))


class OtherTests(OutputTestCase):
    def test_syslog_is_written_by_the_thread_too(self) -> None:
        written: list[Any] = []
        self.patch(syslog.syslog, "openlog", lambda *arguments: None)
        self.patch(syslog.syslog, "syslog", lambda *item: written.append(item))
        self.open(syslog=1, prefix="ws")
        self.log("hello\nworld")
        self.settle()
        self.assertEqual([text for _, text in written], ["[-] hello", "[-] \tworld"])
        log_output.reopen()
        log_output.rotate()

    def test_a_logger_of_somebodys_own_stays_in_charge(self) -> None:
        options = {"logger": "some.observer"}
        log_output.take_over(options)
        self.assertEqual(options, {"logger": "some.observer"})

    def test_a_logging_handler_that_was_made_before_writes_into_the_log(self) -> None:
        log_output.take_over({})
        handlers = [logging.StreamHandler(), logging.StreamHandler(sys.stdout)]
        self.patch(sys, "stderr", StringIO())  # as `twistd` does when it starts to log
        self.patch(sys, "stdout", StringIO())
        for handler in handlers:
            handler.emit(logging.LogRecord("a", logging.INFO, "", 0, "hello", None, None))
        self.assertEqual((sys.stderr.getvalue(), sys.stdout.getvalue()), ("hello\n", "hello\n"))

    def test_until_then_the_streams_are_those_of_the_process(self) -> None:
        first = sys.stdout = StringIO()
        log_output.take_over({})
        print("hello")
        self.assertEqual(first.getvalue(), "hello\n")

    def test_a_daemon_cannot_log_to_standard_output(self) -> None:
        log_output.take_over({"logfile": "-", "nodaemon": 0})
        self.assertRaises(SystemExit, log_output.open_log)

    def test_an_event_of_any_length_fits(self) -> None:
        self.open(logfile=str(self.path))
        self.log("\U0001f600" * 1_000_000)
        self.settle()
        self.assertLess(self.path.stat().st_size, 500_000)
