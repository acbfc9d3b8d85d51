"""mosquitto: MQTT over websockets, quality of service 0. Messages are published over TCP."""

from __future__ import annotations

import os
import pwd
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Dialect
from benchmarks.peers.programs import debian_packages
from benchmarks.peers.protocol_peers import ProtocolPeer
from benchmarks.servers import FACILITY, Program, Site, free_port
from ws4redis_tx.testing import client_frame

_BINARY = 2
_SETTINGS = """\
user {user}
allow_anonymous true
connection_messages false
log_dest stderr
listener {tcp} 127.0.0.1
listener {port} 127.0.0.1
protocol websockets
socket_domain ipv4
"""


def _text(text: str) -> bytes:
    return len(text).to_bytes(2, "big") + text.encode()


def packet(kind: int, content: bytes) -> bytes:
    """Return a packet of MQTT. Its length is written in groups of seven bits, the lowest first."""
    size, left = b"", len(content)
    while left >= 128:
        size += bytes((left & 127 | 128,))
        left >>= 7
    return bytes((kind,)) + size + bytes((left,)) + content


def _connect(client: str) -> bytes:
    """Version 3.1.1, a clean session, and no keep-alive, so that clients need not ping."""
    return packet(0x10, _text("MQTT") + bytes((4, 2, 0, 0)) + _text(client))


_SUBSCRIBE = packet(0x82, b"\0\1" + _text(FACILITY) + b"\0")
_SUBSCRIBED = b"\x90\x03\0\1\0"


class Mosquitto(ProtocolPeer):
    name = "mosquitto"
    dialect = Dialect(marker=_text(FACILITY), ready=_SUBSCRIBED)
    headers = ("Sec-WebSocket-Protocol: mqtt",)

    def __init__(self, site: Site | None = None) -> None:  # it does not know visitors
        unpacked = debian_packages("mosquitto")
        self.versions = unpacked.versions
        self.port, tcp = free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        settings = Path(self._folder.name) / "mosquitto.conf"
        user = pwd.getpwuid(os.geteuid()).pw_name  # to whom the folder belongs
        settings.write_text(_SETTINGS.format(user=user, tcp=tcp, port=self.port))
        command = [str(unpacked.folder / "usr/sbin/mosquitto"), "-c", str(settings)]
        self.program = Program(command, "mosquitto .* running", **unpacked.environment)
        self._publisher = socket.create_connection(("127.0.0.1", tcp))
        self._publisher.sendall(_connect("publisher"))

    def targets(self) -> list[str]:
        return ["/mqtt"]

    def subscribing(self, client: int) -> bytes:
        said = (_connect(f"client-{client}"), _SUBSCRIBE)
        return b"".join(client_frame(_BINARY, each) for each in said)

    def publish(self, messages: Sequence[bytes]) -> None:
        topic = _text(FACILITY)
        self._publisher.sendall(b"".join(packet(0x30, topic + each) for each in messages))

    def end(self) -> None:
        self._publisher.close()
        super().end()
        self._folder.cleanup()
