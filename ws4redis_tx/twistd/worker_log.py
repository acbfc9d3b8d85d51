"""A worker's log on its way into its parent's: both ends of the pipe, and the lines between.

An event is a line of JSON behind a mark. Other lines were written by who knows whom.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import Any

from twisted.logger import ILogObserver, LogLevel, eventAsText
from zope.interface import provider

_EVENT = b"\x1e"
_LONGEST_TEXT, _LONGEST_LINE = 100_000, 1_000_000
# What each process says of itself, and the parent has said already.
_SILENT = {"twisted.internet.base", "twisted.scripts._twistd_unix.UnixAppLogger"}


# The worker's end


def log_to_parent() -> Any:
    """For the ``--logger`` option of ``twistd``."""
    return _tell_parent


@provider(ILogObserver)
def _tell_parent(event: Any) -> None:
    level = event.get("log_level", LogLevel.info)
    if event.get("log_namespace") in _SILENT and level <= LogLevel.info:
        return
    fields = {
        "level": level.name,
        "namespace": str(event.get("log_system") or event.get("log_namespace") or "-"),
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False)[:_LONGEST_TEXT],
        "ready": bool(event.get("ready")),
    }
    line = _EVENT + json.dumps(fields, ensure_ascii=False).encode(errors="replace") + b"\n"
    _lines.append(line)
    # Whoever is at it writes for all: waiting here could be waiting for oneself, as an object that
    # is collected in the middle of this may log its own failure.
    while _lines and _writing.acquire(blocking=False):
        try:
            while _lines:
                _write(_lines.popleft())
        finally:
            _writing.release()


def _write(line: bytes) -> None:
    try:
        while line:
            line = line[os.write(1, line) :]
    except OSError:
        pass  # The parent is gone, and so shall we be.


_lines: deque[bytes] = deque()
_writing = Lock()


# The parent's end


def read_event(line: bytes) -> Any:
    """What a worker logged; ``None`` for a line that somebody else wrote."""
    if not line.startswith(_EVENT):
        return None
    try:
        event = json.loads(line[len(_EVENT) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "text" in event else None


class Lines:
    """Bytes, as lines. What comes after the last end of a line waits for its own."""

    def __init__(self) -> None:
        self._rest = b""

    def of(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if len(self._rest) > _LONGEST_LINE:
            yield self._rest
            self._rest = b""
