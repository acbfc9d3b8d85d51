"""Django Channels, as its users run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.environments import python_with_channels
from benchmarks.servers import FACILITY, Program, Redis, RedisServer, Site, wait_until_it_listens

_PEERS = Path(__file__).resolve().parent


class Channels(RedisServer):
    """Django Channels: a consumer that joins a group, behind sessions and ``request.user``."""

    layer = "pubsub"

    def __init__(self, site: Site | None = None, redis: Redis | None = None) -> None:
        environment = python_with_channels()
        self.versions = environment.versions
        super().__init__(redis)
        self._environment = {
            # None of our code: only the site that it serves.
            "PYTHONPATH": str(_PEERS),
            "DJANGO_SETTINGS_MODULE": "channels_site.settings",
            "CHANNEL_LAYER": self.layer,
            "REDIS_URL": self.redis.url,
        }
        if site is not None:
            self.cookies = site.cookies
            self._environment["WS4REDIS_BENCHMARK_DB"] = site.database
        folder = Path(environment.program).parent
        self.run(self.command(folder), self.ready, **self._environment)
        wait_until_it_listens(self.port)
        publish = str(_PEERS / "channels_site" / "publish.py")
        self._publisher = Program([environment.program, publish], "ready", **self._environment)

    ready = "site loaded"

    def command(self, folder: Path) -> Sequence[str]:
        """Return the command line. ``folder`` has the programs of the environment."""
        raise NotImplementedError

    def targets(self) -> list[str]:
        return [f"/ws/{FACILITY}"]

    def publish(self, messages: Sequence[bytes]) -> None:
        self._publisher.tell("".join(f"{message.decode()}\n" for message in messages))

    def end(self) -> None:
        self._publisher.end()
        super().end()


class DaphnePubSub(Channels):
    name = "Channels, Daphne"

    def command(self, folder: Path) -> Sequence[str]:
        # Its default backlog of 50 is too small for so many clients.
        endpoint = f"tcp:port={self.port}:interface=127.0.0.1:backlog=2048"
        return [
            str(folder / "daphne"),
            *("--endpoint", endpoint, "--verbosity", "0"),
            "channels_site.asgi:application",
        ]


class DaphneCoreLayer(DaphnePubSub):
    name = "Channels, Daphne, core layer"
    layer = "core"


class UvicornPubSub(Channels):
    name = "Channels, uvicorn"

    def command(self, folder: Path) -> Sequence[str]:
        return [
            str(folder / "uvicorn"),
            *("--port", str(self.port), "--loop", "uvloop"),
            *("--no-access-log", "--log-level", "warning"),
            *("--lifespan", "off", "--ws-per-message-deflate", "false"),
            "channels_site.asgi:application",
        ]
