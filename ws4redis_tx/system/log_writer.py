"""A thread that writes lines, so that nobody who logs waits for the log's output."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import Event, RLock, Thread, current_thread
from typing import Any

MAX_WAITING = 1 << 20
"""Bytes that may wait for the output. Further lines are dropped."""

EXIT_TIMEOUT = 1.0
"""Seconds for which the end of the process waits for the output."""


class LogWriter:
    """Has a thread hand lines to ``write``, in order. ``write`` may block or raise.

    ``notice`` makes the line that says that so many were dropped. Any thread may call any method.
    """

    def __init__(self, write: Callable[[Any], object], notice: Callable[[int], Any]) -> None:
        self._write = write
        self._notice = notice
        # Reentrant, and so is SimpleQueue.put: an object that is garbage collected during a call
        # may log a failure in the same thread.
        self._lock = RLock()
        self._tasks: SimpleQueue[tuple[Callable[[], object], int]] = SimpleQueue()
        self._thread: Thread | None = None
        # Bytes that were put, and those of them that are done with.
        self._put = self._done = 0
        self._dropped = 0
        self._begun = self._finishing = False
        # Seconds for which callers may still wait at the end.
        self._patience = 0.0
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """In a child, the thread is gone, and another one may hold the lock for ever."""
        self._lock = RLock()
        if self._begun:  # else this is the daemon, and nobody has written its first lines yet
            self._thread = None
            self._tasks = SimpleQueue()
            self._put = self._done = 0

    def put(self, line: Any, size: int) -> None:
        """Write ``line``, which counts as ``size`` bytes, unless too many are waiting."""
        with self._lock:
            # Once lines were dropped, wait until half of the room is free: one notice for many.
            most = MAX_WAITING // 2 if self._dropped else MAX_WAITING
            if self._put - self._done + size > most:
                self._dropped += 1
                return
            if self._dropped:
                self._tell_dropped()
            self.do(partial(self._write, line), size)
        if self._finishing:
            self._wait()

    def do(self, task: Callable[[], object], size: int = 0) -> None:
        """Have the thread call ``task`` after everything that was put before."""
        self._put += size
        self._tasks.put((task, size))
        if self._begun and self._thread is None:
            self._start()

    def begin(self) -> None:
        """Start to write."""
        with self._lock:
            self._begun = True
            if self._thread is None:
                self._start()

    def finish(self, seconds: float = EXIT_TIMEOUT) -> None:
        """Write everything that waits. From now on, ``put`` waits for its line too. All this waits
        for ``seconds`` at most.
        """
        if not self._finishing:
            self._finishing, self._patience = True, seconds
            self.begin()
        self._wait()

    def _wait(self) -> None:
        if self._patience <= 0 or current_thread() is self._thread:
            return
        done, since = Event(), time.monotonic()
        self.do(done.set)
        done.wait(self._patience)
        self._patience -= time.monotonic() - since

    def _start(self) -> None:
        self._thread = Thread(target=self._run, name="log", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # Python starts no more threads at the end of a process
            while not self._tasks.empty():
                self._run_one()
            self._thread = None

    def _run(self) -> None:
        while True:
            self._run_one()

    def _run_one(self) -> None:
        task, size = self._tasks.get()
        try:
            task()
        except Exception:  # a full disk, a reader that has gone: nothing would tell anybody
            with self._lock:
                self._dropped += 1
                self._done += size
            return
        with self._lock:
            self._done += size
            if self._dropped and self._tasks.empty():
                self._tell_dropped()

    def _tell_dropped(self) -> None:
        count, self._dropped = self._dropped, 0
        self.do(partial(self._tell, count))

    def _tell(self, count: int) -> None:
        try:
            self._write(self._notice(count))
        except Exception:
            with self._lock:
                self._dropped += count - 1  # the caller counts this failure as one
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, however long that takes."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program that has it open made it non-blocking
            poll = select.poll()
            poll.register(descriptor, select.POLLOUT)
            poll.poll()
