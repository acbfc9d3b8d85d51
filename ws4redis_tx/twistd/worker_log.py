"""Passes a worker's log events through a pipe to its parent's log: both ends, and the format.

An event is a line of JSON after a marker byte. Other lines come from elsewhere, such as a
``print``.
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

_EVENT_MARKER = b"\x1e"
_MAX_TEXT, _MAX_LINE = 100_000, 1_000_000
# Every process logs these about itself, so the parent has logged them already.
_LOGGED_BY_PARENT = {"twisted.internet.base", "twisted.scripts._twistd_unix.UnixAppLogger"}


# The worker's end


def log_to_parent() -> Any:
    """The observer factory for ``twistd --logger``."""
    return _write_event


@provider(ILogObserver)
def _write_event(event: Any) -> None:
    level = event.get("log_level", LogLevel.info)
    if event.get("log_namespace") in _LOGGED_BY_PARENT and level <= LogLevel.info:
        return
    fields = {
        "level": level.name,
        "namespace": str(event.get("log_system") or event.get("log_namespace") or "-"),
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False)[:_MAX_TEXT],
        "ready": bool(event.get("ready")),
    }
    line = _EVENT_MARKER + json.dumps(fields, ensure_ascii=False).encode(errors="replace") + b"\n"
    _lines.append(line)
    # The thread that has the lock writes for all. Never wait for it here: an object that is garbage
    # collected during a write may log a failure in the same thread, which would deadlock.
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
        pass  # The parent has ended, so this worker ends too.


_lines: deque[bytes] = deque()
_writing = Lock()


# The parent's end


def read_event(line: bytes) -> Any:
    """The event that a worker logged; ``None`` for any other line."""
    if not line.startswith(_EVENT_MARKER):
        return None
    try:
        event = json.loads(line[len(_EVENT_MARKER) :])
    except ValueError:
        return None
    return event if isinstance(event, dict) and "text" in event else None


class LineSplitter:
    """Splits bytes into lines. Keeps an incomplete last line until its end arrives."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        yield from lines
        if len(self._rest) > _MAX_LINE:
            yield self._rest
            self._rest = b""
