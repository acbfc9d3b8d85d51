"""A server for one test of the load client: it does what a script says."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from ws4redis_tx.websocket.frames import PING, server_frame

ACCEPT = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x02\x03\xe8"

# Seconds; later messages count as lost.
PATIENCE = 10

Script = Callable[[socket.socket], None]


class ScriptedServer:
    """Answers each client's handshake and then runs ``script``, one client after another."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self._clients: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            client.settimeout(PATIENCE)
            self._clients.append(client)
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                data = client.recv(65536)
                if not data:
                    return  # ``end``
                request += data
            self.requests.append(request)
            self._script(client)

    def end(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)):
            pass
        self._thread.join()
        for each in (self._listener, *self._clients):
            each.close()


def sends(*messages: bytes) -> Script:
    """A script that accepts, and sends text messages or raw frames."""
    frames = [each if each in (PING, CLOSE) else server_frame(each) for each in messages]
    return lambda client: client.sendall(ACCEPT + b"".join(frames))


def receive(client: socket.socket, size: int) -> bytes:
    """Wait for ``size`` bytes. (A socket with a timeout does not heed ``MSG_WAITALL``.)"""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data
