"""A thread writes the log: whoever logs never waits for the output."""

from __future__ import annotations

import os
import threading
from threading import Event
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TIMEOUT
from ws4redis_tx.system import log_writer
from ws4redis_tx.system.log_writer import LogWriter, write_all


class Output:
    """An output that takes each line while ``open`` is set, and stalls before ``stop``.

    ``error`` is raised instead, if it is set.
    """

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.lines: list[Any] = []
        self.threads: set[Any] = set()
        self.stalled, self.open = Event(), Event()
        self.open.set()
        self.stop: Any = None
        self.error: Exception | None = None

    def write(self, line: Any) -> None:
        self.threads.add(threading.current_thread())
        self.asked.append(line)
        if line == self.stop:
            self.open.clear()
        if not self.open.is_set():
            self.stalled.set()
        assert self.open.wait(TIMEOUT)
        if self.error is not None:
            raise self.error
        self.lines.append(line)

    def stall_at(self, line: Any) -> None:
        self.stop = line
        self.stalled.clear()


class LogWriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.output = Output()
        self.writer = LogWriter(self.output.write, "{} dropped".format)
        self.addCleanup(self.output.open.set)

    def put(self, *lines: str, size: int = 1) -> None:
        for line in lines:
            self.writer.put(line, size)

    def settle(self, error: Exception | None = None) -> None:
        """Wait until the thread has done what it was told, and what it told itself then. With an
        ``error`` the output is still broken.
        """
        for _ in range(2):
            done = Event()

            def look(done: Event = done) -> None:
                done.set()
                if error is not None:
                    raise error

            self.writer.do(look)
            self.assertTrue(done.wait(TIMEOUT))

    def block(self) -> None:
        """Stall the output, with one line on its way."""
        self.output.stall_at("stalled")
        self.put("stalled", size=0)
        self.assertTrue(self.output.stalled.wait(TIMEOUT))

    def test_lines_are_written_in_order_by_another_thread(self) -> None:
        self.writer.begin()
        lines = [str(number) for number in range(1000)]
        self.put(*lines)
        self.settle()
        self.assertEqual(self.output.lines, lines)
        self.assertNotIn(threading.current_thread(), self.output.threads)

    def test_what_is_logged_before_the_service_starts_is_written_then(self) -> None:
        self.put("early")
        self.assertEqual(self.output.asked, [])
        self.writer.begin()
        self.settle()
        self.assertEqual(self.output.lines, ["early"])

    def test_nobody_waits_for_an_output_that_stalls_and_what_waits_is_bounded(self) -> None:
        self.writer.begin()
        self.block()
        size = log_writer.MAX_WAITING // 4
        self.put("a", "b", "c", "d", "e", "f", size=size)
        self.output.open.set()
        self.settle()
        self.put("g")
        self.settle()
        self.assertEqual(self.output.lines, ["stalled", "a", "b", "c", "d", "2 dropped", "g"])

    def test_how_many_were_dropped_is_told_where_they_are_missing(self) -> None:
        self.writer.begin()
        self.block()
        size = log_writer.MAX_WAITING // 2 - 10
        self.put("a", "b", "dropped", size=size)
        self.put("c", size=20)
        # A slow reader: it takes some lines, so that never all of them are written.
        self.output.stall_at("b")
        self.output.open.set()
        self.assertTrue(self.output.stalled.wait(TIMEOUT))
        self.put("d")
        self.output.open.set()
        self.settle()
        self.assertEqual(self.output.lines, ["stalled", "a", "b", "2 dropped", "d"])

    def test_a_line_that_cannot_be_written_is_counted_too(self) -> None:
        self.writer.begin()
        self.output.error = OSError("the disk is full")
        self.put("a", "b")
        self.settle()
        self.assertEqual(self.output.lines, [])
        self.output.error = None
        self.put("c")
        self.settle()
        self.assertEqual(self.output.lines, ["2 dropped", "c"])

    def test_an_output_that_has_gone_is_not_tried_again_by_itself(self) -> None:
        self.writer.begin()
        self.output.error = BrokenPipeError()
        self.put("a")
        for _ in range(3):
            self.settle(BrokenPipeError())
        self.assertEqual(self.output.asked, ["a"])

    def test_whoever_logs_in_the_middle_of_logging_waits_for_nobody(self) -> None:
        """An object that is garbage collected may log a failure, wherever its thread is."""

        put, within = self.put, []

        class Size(int):
            def __radd__(self, other: int) -> int:
                if not within:
                    within.append(self)
                    put("within")
                return other + int(self)

        self.writer.begin()
        self.writer.put("around", Size(3))
        self.settle()
        self.assertEqual(sorted(self.output.lines), ["around", "within"])

    def test_the_end_writes_what_waits_and_each_later_line_at_once(self) -> None:
        self.put("waiting")
        self.writer.finish(TIMEOUT)
        self.assertEqual(self.output.lines, ["waiting"])
        self.put("late")
        self.assertEqual(self.output.lines, ["waiting", "late"])
        self.writer.finish(TIMEOUT)

    def test_the_end_does_not_wait_for_ever(self) -> None:
        self.writer.begin()
        self.block()
        self.writer.finish(0.01)
        self.put("late")
        self.writer.finish()
        self.assertEqual(self.output.lines, [])

    def test_where_no_thread_can_start_the_lines_are_written_all_the_same(self) -> None:
        def refuse(thread: Any) -> None:
            raise RuntimeError("can't create new thread at interpreter shutdown")

        self.put("a")
        self.patch(threading.Thread, "start", refuse)
        self.writer.finish(TIMEOUT)
        self.put("b")
        self.assertEqual(self.output.lines, ["a", "b"])

    def test_a_child_writes_its_own_lines_and_not_its_parents(self) -> None:
        reader, end = os.pipe()
        self.addCleanup(os.close, reader)
        writer = LogWriter(lambda line: write_all(end, line), lambda count: b"")
        writer.begin()
        gate = Event()
        writer.do(lambda: gate.wait(TIMEOUT))
        writer.put(b"parent's\n", 1)
        child = os.fork()
        if child == 0:
            writer.put(b"child's\n", 1)
            writer.finish(TIMEOUT)
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        gate.set()
        writer.finish(TIMEOUT)
        os.close(end)
        with open(reader, "rb", closefd=False) as pipe:
            self.assertEqual(pipe.read(), b"child's\nparent's\n")

    def test_a_daemon_writes_what_its_first_process_logged(self) -> None:
        reader, end = os.pipe()
        self.addCleanup(os.close, reader)
        writer = LogWriter(lambda line: write_all(end, line), lambda count: b"")
        writer.put(b"starting\n", 1)
        child = os.fork()
        if child == 0:
            writer.begin()
            writer.finish(TIMEOUT)
            os._exit(0)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        os.close(end)
        with open(reader, "rb", closefd=False) as pipe:
            self.assertEqual(pipe.read(), b"starting\n")


class WriteTests(SynchronousTestCase):
    def test_all_is_written_even_if_somebody_has_made_the_descriptor_non_blocking(self) -> None:
        reader, end = os.pipe()
        self.addCleanup(os.close, reader)
        os.set_blocking(end, False)
        data = os.urandom(1 << 20)
        thread = threading.Thread(target=lambda: (write_all(end, data), os.close(end)))
        thread.start()
        with open(reader, "rb", closefd=False) as pipe:
            self.assertEqual(pipe.read(), data)
        thread.join()
