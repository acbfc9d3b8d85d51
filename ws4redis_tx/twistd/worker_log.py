"""Passes a worker's log events through a pipe to its parent's log: both ends, and the format.

An event is a line of JSON after a marker byte. Other lines come from elsewhere, such as a
``print``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from twisted.logger import LogLevel, eventAsText

from ws4redis_tx.system.log_writer import LogWriter, write_all
from ws4redis_tx.twistd.log_output import MAX_TEXT, LogOutput, dropped_event, summed_up, use

_EVENT_MARKER = b"\x1e"
_MAX_LINE = 1_000_000
# Every process logs these about itself, so the parent has logged them already.
_LOGGED_BY_PARENT = {"twisted.internet.base", "twisted.scripts._twistd_unix.UnixAppLogger"}


# The worker's end


def log_to_parent() -> Any:
    """The observer factory for ``twistd --logger``."""
    writer = LogWriter(partial(write_all, 1), lambda count: _line(dropped_event(count)))
    writer.begin()  # a worker does not daemonise
    use(LogOutput(writer))

    def observe(event: Any) -> None:
        level = event.get("log_level", LogLevel.info)
        if event.get("log_namespace") not in _LOGGED_BY_PARENT or level > LogLevel.info:
            line = _line(event)
            writer.put(line, len(line))

    return summed_up(observe)


def _line(event: Any) -> bytes:
    fields = {
        "level": event.get("log_level", LogLevel.info).name,
        "namespace": str(event.get("log_system") or event.get("log_namespace") or "-"),
        "text": eventAsText(event, includeTimestamp=False, includeSystem=False)[:MAX_TEXT],
        "ready": bool(event.get("ready")),
    }
    return _EVENT_MARKER + json.dumps(fields, ensure_ascii=False).encode(errors="replace") + b"\n"


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
