"""A broadcast to very many connections: how long do other clients wait in the meantime?

Opens ``--connections`` websockets and publishes one message to all of them. Until all have it, the
program sends pings over a connection that gets no broadcast, and opens further websockets. It
prints the longest time of a ping and of a handshake, next to those of an idle server.

The clients run in one process on the same machine and use a share of its CPU.
"""

from __future__ import annotations

import argparse
import multiprocessing
import socket
import time
from multiprocessing.connection import Connection

import valkey

from benchmarks.clients import Clients
from benchmarks.servers import Twistd
from ws4redis_tx.testing import client_frame

BROADCASTS = 5
_PING = client_frame(9, b"")


def audience(port: int, number: int, pipe: Connection) -> None:
    """Hold the connections. Report when they are open, and when all have received a message."""
    clients = Clients()
    readers = clients.open(port, "/ws/load?subscribe-broadcast", number)
    pipe.send(None)
    for count in range(1, BROADCASTS + 1):
        clients.wait_for(readers, count * 130)
        pipe.send(None)
    pipe.recv()


def round_trip(client: socket.socket) -> float:
    started = time.perf_counter()
    client.sendall(_PING)
    received = 0
    while received < 2:
        received += len(client.recv(2 - received))
    return time.perf_counter() - started


def handshake(port: int) -> float:
    started = time.perf_counter()
    clients = Clients()
    clients.close(clients.open(port, "/ws/other?subscribe-broadcast", 1))
    return time.perf_counter() - started


def longest(port: int, pinging: socket.socket, until: Connection) -> tuple[float, float]:
    """Return the longest ping and handshake until the other process reports."""
    pings, handshakes = [], []
    while not until.poll():
        pings.append(round_trip(pinging))
        handshakes.append(handshake(port))
    until.recv()
    return max(pings), max(handshakes)


def measure(number: int) -> None:
    server = Twistd()
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=audience, args=(server.port, number, theirs))
    process.start()
    ours.recv()
    pinging_clients = Clients()
    (descriptor,) = pinging_clients.open(server.port, "/ws/other", 1)
    pinging = pinging_clients._sockets[descriptor]
    pinging.setblocking(True)
    idle = [(round_trip(pinging), handshake(server.port)) for _ in range(50)]
    print(f"idle: ping {max(p for p, _ in idle) * 1000:.1f} ms, ", end="")
    print(f"handshake {max(h for _, h in idle) * 1000:.1f} ms at most")
    with valkey.Valkey(port=server.redis_port) as redis:
        for _ in range(BROADCASTS):
            started = time.perf_counter()
            redis.publish("broadcast:load", b"x" * 126)
            ping, opened = longest(server.port, pinging, ours)
            print(
                f"broadcast to {number:,}, {time.perf_counter() - started:.2f} s: "
                f"ping {ping * 1000:.1f} ms, handshake {opened * 1000:.1f} ms at most"
            )
    ours.send(None)
    process.join()
    server.end()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=19_000)
    measure(parser.parse_args().connections)
