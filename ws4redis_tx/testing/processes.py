"""Runs a real Redis and a real server as processes. They end with this process, even if it is
killed.

All calls block, and this process needs no reactor.
"""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import quote

from ws4redis_tx.core.errors import WS4RedisError
from ws4redis_tx.system.programs import Program
from ws4redis_tx.twistd.embedded_redis import find_server, free_port, server_command

_ANSWER_TIMEOUT = 10.0  # seconds
# Another process may take a free port before the program does.
_ATTEMPTS = 5

# Runs in this process's folder. ``PYTHONPATH`` provides this process's modules.
_TWISTD = "import os; os.chdir({folder!r}); from twisted.scripts.twistd import run; run()"


class RedisProcess:
    """An empty Redis on a free loopback port. Raises ``ConfigError`` if none is installed."""

    def __init__(self) -> None:
        program = find_server()
        for attempt in range(_ATTEMPTS):
            self.port = free_port()
            try:
                self._program = Program(
                    server_command(program, self.port), "Ready to accept connections"
                )
            except WS4RedisError:
                if attempt == _ATTEMPTS - 1:
                    raise
            else:
                break

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def empty(self) -> None:
        """Remove all persisted messages. Subscriptions stay."""
        with socket.create_connection(("127.0.0.1", self.port), _ANSWER_TIMEOUT) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            with connection.makefile("rb") as answers:
                answer = answers.readline()
        if answer != b"+OK\r\n":
            raise WS4RedisError(f"Redis at {self.url} could not be emptied: {answer!r}")

    def stop(self) -> None:
        self._program.stop()


class ServerProcess:
    """``twistd ws4redis`` on a free loopback port, ready for websockets.

    If ``DJANGO_SETTINGS_MODULE`` is set, it serves that site's visitors, and uses the databases of
    those settings, not the test databases. Otherwise it serves anonymous broadcasts.
    """

    def __init__(self, redis_url: str) -> None:
        self.redis_url = redis_url
        paths = [os.path.abspath(path) for path in sys.path]
        self._program = Program(
            [
                *(sys.executable, "-c", _TWISTD.format(folder=os.getcwd())),
                *("--nodaemon", "--pidfile=", "ws4redis", "--redis", redis_url),
                *("--drain", "0", "--listen", "tcp:0:interface=127.0.0.1"),
            ],
            r"Ready: websockets at (\S+?),? ",
            {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"},
        )
        self._url = self._program.ready[1]

    def url(self, facility: str, *flags: str) -> str:
        """The URL of a websocket: ``server.url("news", "subscribe-broadcast")``."""
        query = "&".join(flags)
        return f"{self._url}{quote(facility)}" + (f"?{query}" if query else "")

    @property
    def log(self) -> str:
        """The server's log so far."""
        return self._program.output

    def stop(self) -> None:
        self._program.stop()
