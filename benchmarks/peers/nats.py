"""nats-server with its websocket listener. Messages are published over a connection of TCP."""

from __future__ import annotations

import select
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Dialect, Failed
from benchmarks.peers.programs import go_program
from benchmarks.peers.protocol_peers import ProtocolPeer
from benchmarks.servers import FACILITY, Program, Site, free_port
from ws4redis_tx.testing import client_frame

_MODULE, _VERSION = "github.com/nats-io/nats-server/v2", "v2.15.2"
_BINARY = 2
_SETTINGS = """\
listen: 127.0.0.1:{tcp}
websocket {{
    listen: 127.0.0.1:{port}
    no_tls: true
}}
"""
_CONNECT = (
    b'CONNECT {"verbose":false,"pedantic":false,"protocol":1,"lang":"nats.ws",'
    b'"version":"3.4.0","headers":true,"no_responders":true}\r\n'
)


class Nats(ProtocolPeer):
    name = "NATS"
    dialect = Dialect(
        marker=b"\r\n",
        ready=b"PONG\r\n",
        ping=b"PING\r\n",
        pong=client_frame(_BINARY, b"PONG\r\n"),
    )

    def __init__(self, site: Site | None = None) -> None:  # it does not know visitors
        program = go_program(_MODULE, _VERSION)
        self.versions = {"nats-server": _VERSION.removeprefix("v")}
        self.port, tcp = free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        settings = Path(self._folder.name) / "nats.conf"
        settings.write_text(_SETTINGS.format(tcp=tcp, port=self.port))
        self.program = Program([program, "--config", str(settings)], "Server is ready")
        self._publisher = socket.create_connection(("127.0.0.1", tcp))
        self._publisher.sendall(_CONNECT)

    def targets(self) -> list[str]:
        return ["/"]

    def subscribing(self, client: int) -> bytes:
        said = (_CONNECT, b"SUB %s 1\r\n" % FACILITY.encode(), b"PING\r\n")
        return b"".join(client_frame(_BINARY, each) for each in said)

    def publish(self, messages: Sequence[bytes]) -> None:
        self._answer_pings()
        self._publisher.sendall(
            b"".join(
                b"PUB %s %d\r\n%s\r\n" % (FACILITY.encode(), len(message), message)
                for message in messages
            )
        )

    def _answer_pings(self) -> None:
        """Otherwise the server would close the publisher's connection after some minutes."""
        while select.select([self._publisher], [], [], 0)[0]:
            said = self._publisher.recv(65536)
            if not said:
                raise Failed("It has closed the connection of the publisher.")
            if b"PING" in said:
                self._publisher.sendall(b"PONG\r\n")

    def end(self) -> None:
        self._publisher.close()
        super().end()
        self._folder.cleanup()
