"""A crowd of clients that take memory, and what it costs the server.

Three crowds come one after another, each to a fresh server: clients that send nearly all of a
message of 1 MiB and stop, clients that read nothing while each is sent 4 messages of 1 MiB of its
own, and clients that read nothing while all are sent the same 4 messages. Prints how much the
server's resident memory grew at most and after the crowd has left, how many clients it closed, and
how newcomers were answered meanwhile.
"""

from __future__ import annotations

import argparse
import select
import socket
import time
from contextlib import suppress
from typing import NamedTuple

import valkey

from benchmarks.servers import Twistd
from ws4redis_tx.testing import client_frame

MEBIBYTE = 1024 * 1024
CROWDS = ("half-sent", "not reading", "not reading the same")
SENT = 4
SETTLED = 5.0
"""Seconds after which all clients that were closed are gone."""

_HANDSHAKE = (
    "GET /ws/{facility}?subscribe-broadcast HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Outcome(NamedTuple):
    """Growth in bytes at most and after the crowd has left, closed clients, newcomers' statuses."""

    most: int
    left: int
    closed: int
    newcomers: frozenset[int]


class _Crowd:
    def __init__(self, server: Twistd, redis: valkey.Valkey, kind: str) -> None:
        self._server = server
        self._redis = redis
        self._kind = kind
        self._clients: list[socket.socket] = []
        self._first = server.memory()
        self.most = 0
        self.newcomers: set[int] = set()

    def come(self, number: int) -> None:
        for each in range(number):
            client, status = self._open(f"f{each}" if self._kind == "not reading" else "all")
            self.newcomers.add(status)
            self._clients.append(client)
            if self._kind == "half-sent" and status == 101:
                with suppress(OSError):
                    client.sendall(client_frame(2, bytes(MEBIBYTE))[:-1])
            elif self._kind == "not reading":
                for message in range(SENT):
                    self._redis.publish(f"broadcast:f{each}", bytes([message]) * MEBIBYTE)
            self._look()
        if self._kind == "not reading the same":
            for message in range(SENT):
                self._redis.publish("broadcast:all", bytes([message]) * MEBIBYTE)
                self._look()

    def closed(self) -> int:
        """Wait until those that were closed are gone; return their number."""
        end = time.monotonic() + SETTLED
        while time.monotonic() < end:
            self._look()
            time.sleep(0.05)
        gone = select.poll()
        for client in self._clients:
            gone.register(client, 0)  # an error or a hang-up
        return len(gone.poll(0))

    def leave(self) -> int:
        """The crowd leaves; return how much the server has grown then."""
        for client in self._clients:
            client.close()
        time.sleep(SETTLED)
        return self._server.memory() - self._first

    def _look(self) -> None:
        self.most = max(self.most, self._server.memory() - self._first)

    def _open(self, facility: str) -> tuple[socket.socket, int]:
        client = socket.socket()
        if self._kind != "half-sent":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", self._server.port))
        client.sendall(_HANDSHAKE.format(facility=facility).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        return client, int(head.split(b" ", 2)[1])


def measure(kind: str, number: int, *options: str) -> Outcome:
    server = Twistd(*options)
    redis = valkey.Valkey(port=server.redis_port)
    try:
        crowd = _Crowd(server, redis, kind)
        crowd.come(number)
        closed = crowd.closed()
        return Outcome(crowd.most, crowd.leave(), closed, frozenset(crowd.newcomers))
    finally:
        redis.close()
        server.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=400)
    parser.add_argument("--bound", type=int, default=64, help="MiB; 0: the server's default")
    options = parser.parse_args()
    given = [f"--max-pending-total={options.bound * MEBIBYTE}"] if options.bound else []
    for kind in CROWDS:
        outcome = measure(kind, options.clients, *given)
        print(
            f"{kind:21} {options.clients} clients: the server grew by "
            f"{outcome.most / MEBIBYTE:.0f} MiB, and by {outcome.left / MEBIBYTE:.0f} MiB after "
            f"they left; {outcome.closed} were closed, newcomers got {sorted(outcome.newcomers)}",
            flush=True,
        )
