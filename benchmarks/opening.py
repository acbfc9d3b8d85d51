"""A server whose websockets are opened and then say nothing, as by browsers: headers and all."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.load import Load
from benchmarks.servers import Server

# Opened before anything is measured, so that what is made once for all is there.
WARM = 100

ALL_AT_ONCE = 0

# A server that uses less than this share of a core for so many seconds, so many times, has done
# all that a handshake left to do.
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
# What a Django site sets besides the session.
_COOKIE = "csrftoken=J7rPCsWDgjaWKZeQ1yQ0zSMv5JvKwKqU"


def browser_headers(port: int) -> list[str]:
    """What Chrome says besides the handshake itself and its cookies; 700 bytes with them."""
    return [header.format(port=port) for header in _HEADERS]


def settle(server: Server) -> None:
    """Wait until ``server`` has nothing left to do."""
    quiet, before = 0, server.cpu()
    while quiet < _TIMES:
        time.sleep(_PAUSE)
        now = server.cpu()
        quiet = quiet + 1 if now - before < _QUIET * _PAUSE else 0
        before = now


class Opening:
    """A server, from here to the end of the ``with``, and the websockets that are open to it.

    Begins with a few, so that what it imports and makes at first use is there.
    """

    def __init__(self, server: Server, targets: Sequence[str] = ()) -> None:
        self.server = server
        self.load = Load()
        self._targets = targets or server.targets()
        self._cookies = [f"{_COOKIE}; {cookie}" for cookie in server.cookies] or [_COOKIE]

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
        settle(self.server)

    def open(self, number: int, at_once: int = 100, *, refusals: bool = False) -> float:
        """Open more, so many at a time; return the µs of the server's CPU for each.

        Raise when one fails, unless ``refusals`` are expected.
        """
        before = self.server.cpu()
        self.load.open(
            self.server.port,
            self._targets,
            number,
            cookies=self._cookies,
            headers=browser_headers(self.server.port),
            at_once=at_once,
            refusals=refusals,
        )
        settle(self.server)
        return (self.server.cpu() - before) / number * 1e6
