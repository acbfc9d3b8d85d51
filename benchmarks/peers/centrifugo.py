"""Centrifugo with its JSON protocol. Each client connects with a token (HMAC) of a user of its own,
and messages are published through the HTTP API.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import Dialect
from benchmarks.peers.programs import go_program
from benchmarks.peers.protocol_peers import JsonApi, ProtocolPeer
from benchmarks.servers import FACILITY, Program, Redis, Site, free_port
from ws4redis_tx.testing import client_frame

_MODULE, _VERSION = "github.com/centrifugal/centrifugo/v6", "v6.9.1"
_SECRET = "the secret of the benchmarks' tokens"
_KEY = "the benchmarks' key"
_DAY = 86400
_TEXT = 1


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


_HEADER = _encoded(b'{"alg":"HS256","typ":"JWT"}')


def token(user: str) -> str:
    """Return a JSON Web Token for a user, which is valid for a day."""
    now = int(time.time())
    claims = {"sub": user, "iat": now, "exp": now + _DAY}
    signed = _HEADER + b"." + _encoded(json.dumps(claims, separators=(",", ":")).encode())
    digest = hmac.digest(_SECRET.encode(), signed, hashlib.sha256)
    return (signed + b"." + _encoded(digest)).decode()


class CentrifugoInMemory(ProtocolPeer):
    name = "Centrifugo, in memory"
    dialect = Dialect(
        marker=b'"data":"',
        ready=b'"subscribe":{',
        ping=b"{}",
        pong=client_frame(_TEXT, b"{}"),
    )

    def __init__(self, site: Site | None = None) -> None:  # the users are those of the tokens
        program = go_program(_MODULE, _VERSION)
        self.versions = {"Centrifugo": _VERSION.removeprefix("v")}
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        settings = Path(self._folder.name) / "config.json"
        settings.write_text(json.dumps(self.settings()))
        self.program = Program([program, "--config", str(settings)], "serving .*websocket")
        self._api = JsonApi(self.port, "/api/publish", **{"X-API-Key": _KEY})

    def settings(self) -> dict[str, Any]:
        return {
            "http_server": {"address": "127.0.0.1", "port": self.port},
            "http_api": {"key": _KEY},
            "client": {
                "token": {"hmac_secret_key": _SECRET},
                "allowed_origins": [f"http://127.0.0.1:{self.port}"],
            },
            "channel": {"without_namespace": {"allow_subscribe_for_client": True}},
            "usage_stats": {"disabled": True},
        }

    def targets(self) -> list[str]:
        return ["/connection/websocket"]

    def subscribing(self, client: int) -> bytes:
        commands: Sequence[object] = (
            {"id": 1, "connect": {"token": token(str(client)), "name": "js"}},
            {"id": 2, "subscribe": {"channel": FACILITY}},
        )
        return client_frame(_TEXT, "\n".join(map(json.dumps, commands)).encode())

    def publish(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._api.post({"channel": FACILITY, "data": message.decode()})

    def end(self) -> None:
        self._api.end()
        super().end()
        self._folder.cleanup()


class CentrifugoRedis(CentrifugoInMemory):
    name = "Centrifugo, Redis"

    def __init__(self, site: Site | None = None, redis: Redis | None = None) -> None:
        go_program(_MODULE, _VERSION)  # raises before a Redis is started
        self._owned = None if redis else Redis()
        self.redis = redis or self._owned
        super().__init__(site)

    def settings(self) -> dict[str, Any]:
        engine = {"type": "redis", "redis": {"address": [f"127.0.0.1:{self.redis.port}"]}}
        return {**super().settings(), "engine": engine}

    def redis_cpu(self) -> float:
        return self.redis.cpu()

    def end(self) -> None:
        super().end()
        if self._owned is not None:
            self._owned.end()


class CentrifugoHistory(CentrifugoRedis):
    """Keeps the last messages, so that clients that reconnect receive what they have missed."""

    name = "Centrifugo, Redis with history"

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        settings["channel"]["without_namespace"].update(
            history_size=100, history_ttl="300s", force_recovery=True
        )
        return settings
