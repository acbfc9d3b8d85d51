"""Servers that speak plain websockets: a library, a Redis client, and the few lines between them.

All do the same: they subscribe to one channel of Redis once, and send each message as one text
frame to all websockets that are open on ``/ws/load``. They know no visitors. Each is written as the
documentation of its library recommends for speed. Compression is off; pings are as the library
sends them by default.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.environments import (
    Environment,
    bun_with,
    node_with,
    npm_packages,
    python_with_websockets,
)
from benchmarks.servers import FACILITY, Redis, RedisServer, Site

_HERE = Path(__file__).resolve().parent


class PlainPeer(RedisServer):
    """``source PORT REDIS_PORT``, run by the program that ``environment()`` returns."""

    source: str

    def __init__(self, site: Site | None = None, redis: Redis | None = None) -> None:
        environment = self.environment()  # raises before a Redis is started
        self.versions = environment.versions
        super().__init__(redis)
        self.run(
            [
                environment.program,
                str(_HERE / self.source),
                *(str(self.port), str(self.redis.port)),
            ],
            "ready",
            **self.variables(),
        )

    def environment(self) -> Environment:
        raise NotImplementedError

    def variables(self) -> dict[str, str]:
        """Return the environment variables of the program."""
        raise NotImplementedError

    def targets(self) -> list[str]:
        return [f"/ws/{FACILITY}"]


class JavaScript(PlainPeer):
    def variables(self) -> dict[str, str]:
        return {"NODE_ENV": "production", "NODE_PATH": str(npm_packages())}


class Bun(JavaScript):
    """uWebSockets, as built into Bun. Its own ``publish`` sends to all websockets of a topic."""

    name = "Bun + ioredis"
    source = "bun_server.js"

    def environment(self) -> Environment:
        return bun_with("ioredis")


class Ws(JavaScript):
    name = "ws + ioredis"
    source = "ws_server.js"

    def environment(self) -> Environment:
        return node_with("ws", "ioredis")


class Asyncio(PlainPeer):
    """Python on uvloop, with redis.asyncio and hiredis."""

    def environment(self) -> Environment:
        return python_with_websockets()

    def variables(self) -> dict[str, str]:
        return {"PYTHONPATH": ""}  # none of our code


class Picows(Asyncio):
    name = "picows"
    source = "asyncio_servers/picows_server.py"


class Aiohttp(Asyncio):
    name = "aiohttp"
    source = "asyncio_servers/aiohttp_server.py"


class Websockets(Asyncio):
    name = "websockets.broadcast"
    source = "asyncio_servers/websockets_server.py"


class Tornado(Asyncio):
    name = "Tornado"
    source = "asyncio_servers/tornado_server.py"
