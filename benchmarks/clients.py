"""Cheap websocket clients for measurements: plain sockets, and one ``epoll`` for all of them."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator

_HANDSHAKE = (
    "GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PING = b"\x89\x00"
_PONG = b"\x8a\x80\0\0\0\0"


class Clients:
    """Open websockets; ``received`` counts the bytes that each has received after its 101."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self.received: dict[int, int] = {}

    def open(
        self, port: int, target: str, number: int, at_once: int = 200, *, reads: bool = True
    ) -> list[int]:
        """Open ``number`` websockets and return their descriptors. With ``reads=False`` they have a
        small buffer, so that the server soon notices that they do not read.
        """
        opened: list[int] = []
        while len(opened) < number:
            some = [
                self._connect(port, target, reads)
                for _ in range(min(at_once, number - len(opened)))
            ]
            for each in some:
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    head += each.recv(1)
                if not head.startswith(b"HTTP/1.1 101"):
                    raise SystemExit(head.decode())
                each.setblocking(False)
                opened.append(each.fileno())
                self._sockets[each.fileno()] = each
                if reads:
                    self.received[each.fileno()] = 0
                    self._epoll.register(each, select.EPOLLIN)
            for _ in self.read(0):
                pass
        return opened

    def _connect(self, port: int, target: str, reads: bool) -> socket.socket:
        client = socket.socket()
        if not reads:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(30)
        client.connect(("127.0.0.1", port))
        client.sendall(_HANDSHAKE.format(target=target, port=port).encode())
        return client

    def read(self, timeout: float) -> Iterator[tuple[int, bytes]]:
        """Yield the data that arrives within ``timeout`` seconds, client by client."""
        for descriptor, _ in self._epoll.poll(timeout):
            try:
                data = self._sockets[descriptor].recv(1 << 20)
            except BlockingIOError:
                continue
            pings = data.count(_PING)
            if pings:  # no message in a measurement looks like a ping
                self._sockets[descriptor].send(_PONG)
            self.received[descriptor] += len(data) - pings * len(_PING)
            yield descriptor, data

    def wait_for(self, clients: list[int], size: int) -> dict[int, float]:
        """Read until each of ``clients`` has ``size`` bytes. Return the time of each."""
        missing = {client for client in clients if self.received[client] < size}
        when = {}
        while missing:
            for client, _ in self.read(30):
                if client in missing and self.received[client] >= size:
                    when[client] = time.perf_counter()
                    missing.discard(client)
        return when

    def end(self) -> None:
        self.close(list(self._sockets))
        self._epoll.close()

    def close(self, clients: list[int]) -> None:
        for client in clients:
            self._sockets.pop(client).close()
            self.received.pop(client, None)
