"""A server with idle websockets, which are opened with all the headers that a browser sends."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.report import PATIENCE
from benchmarks.servers import Server

# Websockets that are opened before the measurement, to warm up.
WARM = 100

ALL_AT_ONCE = 0

# A server has finished the work of its handshakes when it uses less than this share of a core, for
# this many seconds, this many times in a row.
_QUIET, _PAUSE, _TIMES = 0.01, 0.05, 4

_HEADERS = (
    "Origin: http://127.0.0.1:{port}",
    "Pragma: no-cache",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/141.0.0.0 Safari/537.36",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,de-AT;q=0.8,de;q=0.7,en-US;q=0.6",
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
)
# A cookie that a Django site sets in addition to the session.
_COOKIE = "csrftoken=J7rPCsWDgjaWKZeQ1yQ0zSMv5JvKwKqU"


def browser_headers(port: int) -> list[str]:
    """Chrome's headers besides the handshake itself and cookies; with these, 700 bytes in all."""
    return [header.format(port=port) for header in _HEADERS]


def settle(server: Server) -> bool:
    """Wait until ``server`` is idle, for a bounded time. Return whether it is."""
    quiet, before = 0, server.cpu()
    end = time.monotonic() + PATIENCE
    while quiet < _TIMES and time.monotonic() < end:
        time.sleep(_PAUSE)
        now = server.cpu()
        quiet = quiet + 1 if now - before < _QUIET * _PAUSE else 0
        before = now
    return quiet == _TIMES


class Opening:
    """A server and the websockets that are open to it, until the end of the ``with`` block.

    It begins with a few websockets to warm the server up.
    """

    def __init__(self, server: Server, targets: Sequence[str] = ()) -> None:
        self.server = server
        self.load = Load()
        self._targets = targets or server.targets()
        self._cookies = [f"{_COOKIE}; {cookie}" for cookie in server.cookies] or [_COOKIE]
        self._never_idle = 0

    def __enter__(self) -> Opening:
        try:
            self.open(WARM)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        self.load.end()
        self.server.end()

    def close(self) -> None:
        self.load.close()
        self._settle()

    def _settle(self) -> None:
        self._never_idle += not settle(self.server)

    def never_idle(self) -> int:
        """Return how often the server has not become idle since the last call."""
        times, self._never_idle = self._never_idle, 0
        return times

    def open(self, number: int, at_once: int = 100, *, refusals: bool = False) -> float:
        """Open ``number`` more, ``at_once`` at a time. Return the µs of the server's CPU for each.

        Raise if one fails, unless ``refusals`` are expected.
        """
        before = self.server.cpu()
        self.server.open(
            self.load,
            self._targets,
            number,
            cookies=self._cookies,
            headers=browser_headers(self.server.port),
            at_once=at_once,
            refusals=refusals,
        )
        self._settle()
        return (self.server.cpu() - before) / number * 1e6
