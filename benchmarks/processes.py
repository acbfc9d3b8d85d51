"""The processes that a benchmark starts, directly or not. None of them outlives it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.conditions import keep_orphans


def family(pid: int) -> list[int]:
    """Return a process and all of its descendants, parents first."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end meanwhile
            for child in (task / "children").read_text().split():
                with suppress(FileNotFoundError, ProcessLookupError):  # and so may a process
                    found += family(int(child))
    return found


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def end_descendants() -> None:
    """Kill all descendants of this process, which has to be the parent of orphans among them."""
    with suppress(ChildProcessError):  # there is none any more
        while True:
            # One may have started another one in the meantime.
            kill(family(os.getpid())[1:])
            os.waitpid(-1, 0)


@contextmanager
def no_descendants_left() -> Iterator[None]:
    """End all descendants at the end of the ``with`` block, even if SIGTERM ends it."""
    keep_orphans()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end_descendants()
