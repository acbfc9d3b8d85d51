"""Starts the measured programs as their users start them, and measures their resources."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmarks.build import compiled
from benchmarks.load import Failed, Load
from benchmarks.processes import family, kill
from ws4redis_tx.twistd.embedded_redis import find_server, server_command, watched

ROOT = Path(__file__).resolve().parent.parent
FACILITY = "load"
SETTINGS = "benchmarks.site.settings"

# Linux: the number of the clock for the CPU time of a process with all of its threads, in ns.
_SCHEDULED = 2
_CLIENT_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST_PORT = 10_000
# Ten a second.
_TRIES = 100


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process, including threads that have ended."""
    return time.clock_gettime(~pid << 3 | _SCHEDULED)


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    if found is None:
        raise Failed(f"The process {pid} has ended.")
    return int(found[1]) * 1024


def free_port() -> int:
    """Return a port that nobody uses, and that the kernel gives to no client.

    Thousands of clients may open a connection before the server listens on it.
    """
    lowest_of_clients = int(_CLIENT_PORTS.read_text().split()[0])
    while True:
        port = random.randrange(_LOWEST_PORT, lowest_of_clients)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class Program:
    """A process with its children, and their use of resources. ``command`` runs until ``end()``.

    The constructor waits until the program prints a line that matches ``ready``, and raises
    ``Failed`` if it ends before that. ``match`` is the match object.
    """

    def __init__(self, command: Sequence[str], ready: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            match = re.search(ready, line)
            if match:
                self.match = match
                break
        else:
            self._process.kill()
            self._close()
            raise Failed(f"{Path(command[0]).name} did not start:\n{''.join(said)}")
        # If nobody read the pipe, the program would block.
        self._log = threading.Thread(target=self._read_log, daemon=True)
        self._log.start()

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if any(word in line for word in ("warn", "error", "critical", "Could not")):
                print(line, end="")

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu(self) -> float:
        """Return the CPU seconds of the process and of its running descendants."""
        return sum(map(cpu_seconds, family(self.pid)))

    def memory(self) -> int:
        """Return the resident bytes of the process and of its descendants."""
        return sum(map(resident_bytes, family(self.pid)))

    def tell(self, text: str) -> None:
        """Write to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def end(self) -> None:
        # Parents first, because a parent may restart a child that has ended.
        kill(family(self.pid))
        self._log.join()
        self._close()

    def _close(self) -> None:
        self._process.wait()
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it ended before it had read everything
            self._process.stdin.close()
        self._process.stdout.close()


def wait_until_it_listens(port: int) -> None:
    """Wait for a server that does not say when it listens, or only in a log with a line for every
    connection.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise Failed(f"Nothing listens on port {port}.")


class Redis(Program):
    """A separate Redis, whose CPU does not count as the server's."""

    def __init__(self) -> None:
        self.port = free_port()
        command = watched(server_command(find_server(), self.port))
        super().__init__(command, "Ready to accept connections")
        self._socket = socket.create_connection(("127.0.0.1", self.port))
        self._socket.setblocking(False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def publish(self, messages: Sequence[tuple[str, bytes]]) -> None:
        """Publish each message on its channel, all in one write, without waiting for replies."""
        with contextlib.suppress(BlockingIOError):
            if b"-" in self._socket.recv(1 << 20):
                raise Failed("Redis refuses to publish.")
        data = b"".join(
            b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n"
            % (len(channel), channel.encode(), len(message), message)
            for channel, message in messages
        )
        self._socket.setblocking(True)
        self._socket.sendall(data)
        self._socket.setblocking(False)

    def end(self) -> None:
        self._socket.close()
        super().end()


class Site:
    """A Django site's database with logged-in ``visitors``; ``cookies`` has a cookie for each."""

    def __init__(self, visitors: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        self.database = f"{self._folder.name}/site.sqlite3"
        self.environment = {
            "WS4REDIS_BENCHMARK_DB": self.database,
            "DJANGO_SETTINGS_MODULE": SETTINGS,
        }
        self.cookies = self.run("visitors", str(visitors)).split("\n")[:visitors]

    def run(self, program: str, *arguments: str, told: str = "") -> str:
        """Run a program of ``benchmarks.site`` and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.site.{program}", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **self.environment},
            input=told,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()


class Server:
    """A measured websocket server on ``port``, with its own Redis."""

    name: str
    port: int
    program: Program
    """The server's program, which may start others."""
    cookies: Sequence[str] = ()
    """The cookie headers that its clients use in turn."""
    versions: Mapping[str, str] = MappingProxyType({})
    """The versions of software that only this server uses."""

    def targets(self) -> list[str]:
        """Return the paths that its clients request to receive the messages of ``publish``."""
        return [f"/ws/{FACILITY}?subscribe-broadcast"]

    def open(self, load: Load, targets: Sequence[str], number: int, **how: Any) -> None:
        """Let ``load`` open ``number`` websockets that receive the messages of ``publish``. ``how``
        are further arguments of ``Load.open``.
        """
        load.open(self.port, targets, number, **how)

    def publish(self, messages: Sequence[bytes]) -> None:
        """Send ``messages`` to all clients of ``targets()``."""
        raise NotImplementedError

    def cpu(self) -> float:
        """Return the CPU seconds of the server, without its Redis."""
        return self.program.cpu()

    def redis_cpu(self) -> float:
        return 0.0

    def memory(self) -> int:
        """Return the resident bytes of the server, without its Redis."""
        return self.program.memory()

    def end(self) -> None:
        self.program.end()


class RedisServer(Server):
    """A server that listens to the same channels as ours, on a Redis that is started for it."""

    def __init__(self, redis: Redis | None = None) -> None:
        self._owned = None if redis else Redis()
        self.redis = redis or self._owned
        self.port = free_port()

    @property
    def redis_port(self) -> int:
        return self.redis.port

    def run(self, command: Sequence[str], ready: str, **environment: str) -> None:
        self.program = Program(command, ready, **environment)

    def publish(self, messages: Sequence[bytes]) -> None:
        self.redis.publish([(f"broadcast:{FACILITY}", message) for message in messages])

    def redis_cpu(self) -> float:
        return self.redis.cpu()

    def end(self) -> None:
        super().end()
        if self._owned is not None:
            self._owned.end()


class Twistd(RedisServer):
    """``twistd ws4redis`` with further ``options``. With a ``site``, it authorizes its visitors."""

    name = "ws4redis_tx"

    def __init__(self, *options: str, site: Site | None = None, redis: Redis | None = None) -> None:
        super().__init__(redis)
        if site is not None:
            self.cookies = site.cookies
            options = (f"--settings={SETTINGS}", *options)
        self.run(
            [
                str(Path(sys.executable).with_name("twistd")),
                *("-n", "--pidfile=", "ws4redis", f"--redis={self.redis.url}"),
                f"--listen=tcp:{self.port}:interface=127.0.0.1",
                *options,
            ],
            r"Ready: ",
            **({} if site is None else site.environment),
        )


class CLoop(RedisServer):
    """Calls ``send()`` on each socket, in C, and does nothing else."""

    name = "C loop over send()"

    def __init__(self, redis: Redis | None = None) -> None:
        super().__init__(redis)
        program = compiled("peers/c_loop.c")
        self.run([program, str(self.port), str(self.redis.port)], "ready")


class PythonLoop(RedisServer):
    """Calls ``socket.send`` on each socket, in Python, and does nothing else."""

    name = "Python loop over socket.send"

    def __init__(self, redis: Redis | None = None) -> None:
        super().__init__(redis)
        program = ["-m", "benchmarks.peers.python_loop", str(self.port), str(self.redis.port)]
        self.run([sys.executable, *program], "ready")


class MinimalRelay(RedisServer):
    """Uses hiredis, a dictionary and ``socket.send`` on Twisted's reactor, and nothing else."""

    name = "minimal relay"

    def __init__(self, redis: Redis | None = None) -> None:
        super().__init__(redis)
        program = ["-m", "benchmarks.peers.minimal_relay", str(self.port), str(self.redis.port)]
        self.run([sys.executable, *program], "ready")
