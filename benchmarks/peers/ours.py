"""Our server's clients that speak Centrifuge's protocol, in JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.load import Dialect
from benchmarks.peers.centrifugo import token
from benchmarks.peers.protocol_peers import ProtocolPeer
from benchmarks.servers import FACILITY, Twistd
from ws4redis_tx.testing import client_frame

_TEXT = 1


class CentrifugeTwistd(ProtocolPeer, Twistd):
    """Each client subscribes to ``names`` in the frame with which it connects."""

    name = f"{Twistd.name}, Centrifuge's protocol"

    def __init__(
        self,
        *options: str,
        names: Sequence[str] = (f"broadcast:{FACILITY}",),
        tokens: bool = False,
        **server: Any,
    ) -> None:
        super().__init__("--centrifuge-url=/connection/", *options, **server)
        self._names = names
        self._tokens = tokens
        self.dialect = Dialect(
            marker=b'"data":"',
            ready=b'"id":%d,"subscribe":{' % (1 + len(names)),
            ping=b"{}",
            pong=client_frame(_TEXT, b"{}"),
        )

    def targets(self) -> list[str]:
        return ["/connection/websocket"]

    def subscribing(self, client: int) -> bytes:
        request = {"name": "js"}
        if self._tokens:
            request["token"] = token(str(client))
        commands: list[dict[str, Any]] = [{"id": 1, "connect": request}]
        commands += [
            {"id": number, "subscribe": {"channel": name}}
            for number, name in enumerate(self._names, start=2)
        ]
        return client_frame(_TEXT, "\n".join(map(json.dumps, commands)).encode())

    def publish(self, messages: Sequence[bytes]) -> None:
        super().publish([json.dumps(message.decode()).encode() for message in messages])
