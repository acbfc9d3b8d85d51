"""socket.io with its adapter for Redis. Messages are published as its emitter for other programs
publishes them: in MessagePack, on the channel of a room in Redis.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.load import Dialect
from benchmarks.peers.environments import Environment, node_with
from benchmarks.peers.plain_peers import JavaScript
from benchmarks.peers.protocol_peers import ProtocolPeer
from benchmarks.servers import FACILITY
from ws4redis_tx.testing import client_frame

_EVENT = 2
_TEXT = 1


def packed(value: object) -> bytes:
    """Return ``value`` in MessagePack: a small number, a text, or a short list or dictionary."""
    if isinstance(value, int):
        return bytes((value,))
    if isinstance(value, str):
        text = value.encode()
        return b"\xda" + len(text).to_bytes(2, "big") + text
    if isinstance(value, dict):
        pairs = [part for pair in value.items() for part in pair]
        return bytes((0x80 | len(value),)) + b"".join(map(packed, pairs))
    assert isinstance(value, list)
    return bytes((0x90 | len(value),)) + b"".join(map(packed, value))


def emitted(message: str) -> bytes:
    """Return what the emitter publishes to send ``message`` to the room."""
    packet = {"type": _EVENT, "data": ["message", message], "nsp": "/"}
    return packed(["emitter", packet, {"rooms": [FACILITY], "except": [], "flags": {}}])


class SocketIO(ProtocolPeer, JavaScript):
    name = "socket.io + redis-adapter"
    dialect = Dialect(
        marker=b'42["message","', ready=b'40{"sid":', ping=b"2", pong=client_frame(_TEXT, b"3")
    )

    source = "socketio_server.js"

    def environment(self) -> Environment:
        return node_with("socket.io", "@socket.io/redis-adapter", "ioredis")

    def targets(self) -> list[str]:
        return ["/socket.io/?EIO=4&transport=websocket"]

    def subscribing(self, client: int) -> bytes:
        return client_frame(_TEXT, b"40")

    def publish(self, messages: Sequence[bytes]) -> None:
        channel = f"socket.io#/#{FACILITY}#"
        self.redis.publish([(channel, emitted(message.decode())) for message in messages])
