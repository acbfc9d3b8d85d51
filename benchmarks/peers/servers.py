"""Other people's servers, each run as its own users would run it, and driven like ours.

Compression is off in all of them, as it is by default in ours. They raise ``Unavailable`` if they
cannot be installed.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.environments import (
    Unavailable,
    nginx_with_nchan,
    python_versions,
    python_with_channels,
)
from benchmarks.servers import FACILITY, Program, Redis, RedisServer, Server, Site
from ws4redis_tx.twistd.embedded_redis import free_port

__all__ = [
    "PEERS",
    "Channels",
    "DaphneCoreLayer",
    "DaphnePubSub",
    "NchanInMemory",
    "NchanRedis",
    "PlainAutobahn",
    "Unavailable",
    "UvicornPubSub",
]

_TRIES = 100

_PEERS = Path(__file__).resolve().parent


class Channels(RedisServer):
    """Django Channels: a consumer that joins a group, behind sessions and ``request.user``."""

    layer = "pubsub"

    def __init__(self, site: Site | None = None, redis: Redis | None = None) -> None:
        python = python_with_channels()
        self.versions = python_versions(python)
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
        folder = Path(python).parent
        self.run(self.command(folder), self.ready, **self._environment)
        _wait_until_it_listens(self.port)
        publish = str(_PEERS / "channels_site" / "publish.py")
        self._publisher = Program([python, publish], "ready", **self._environment)

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


def _wait_until_it_listens(port: int) -> None:
    """Wait for a server that would report it only in a log with a line for every connection."""
    for _ in range(_TRIES):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise SystemExit(f"Nothing listens on port {port}.")


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


_NGINX = """\
load_module {module};
pid {folder}/nginx.pid;
error_log stderr notice;
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 1d;
    nchan_message_buffer_length 1000;
    {redis}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        location ~ ^/ws/(\\w+)$ {{
            nchan_subscriber websocket;
            nchan_subscriber_first_message newest;
            nchan_channel_id $1;
            {use}
        }}
        location ~ ^/publish/(\\w+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            {use}
        }}
    }}
}}
"""
# The number of file descriptors. nginx refuses a number above its limit.
_FILES = 20_000


class NchanInMemory(Server):
    """nginx with the module nchan and one worker. A POST sends its body to all listeners."""

    name = "nginx + nchan, in memory"
    ready = "start worker process [0-9]"

    def __init__(self, site: Site | None = None) -> None:  # it does not know visitors
        nginx = nginx_with_nchan()
        self.versions = nginx.versions
        self.port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        settings = Path(self._folder.name) / "nginx.conf"
        redis, use = self.redis_settings()
        settings.write_text(
            (f"user {_owner()};\n" if os.geteuid() == 0 else "")
            + _NGINX.format(
                module=nginx.module,
                folder=self._folder.name,
                files=_FILES,
                port=self.port,
                redis=redis,
                use=use,
            )
        )
        command = [nginx.program, "-e", "stderr", "-p", self._folder.name, "-c", str(settings)]
        self.program = Program(command, self.ready)
        self._publisher = socket.create_connection(("127.0.0.1", self.port))
        self._answers = self._publisher.makefile("rb")

    def redis_settings(self) -> tuple[str, str]:
        """Return the lines about Redis in its configuration: global, and for each location."""
        return "", ""

    def targets(self) -> list[str]:
        return [f"/ws/{FACILITY}"]

    def publish(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self._publisher.sendall(
                b"POST /publish/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (FACILITY.encode(), len(message), message)
            )
            self._read_answer()

    def _read_answer(self) -> None:
        status = self._answers.readline()
        length = 0
        while (line := self._answers.readline().lower()).strip():
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self._answers.read(length)
        if not status.split()[1:2] or not status.split()[1].startswith(b"2"):
            raise SystemExit(f"nchan did not publish: {status.decode()}")

    def cpu(self) -> float:
        return self.program.cpu()

    def memory(self) -> int:
        return self.program.memory()

    def end(self) -> None:
        self._answers.close()
        self._publisher.close()
        self.program.end()
        self._folder.cleanup()


def _owner() -> str:
    """Return the user to run the worker as: our own, because that user owns the folder."""
    return pwd.getpwuid(os.geteuid()).pw_name


class NchanRedis(NchanInMemory):
    name = "nginx + nchan, Redis"
    ready = "Redis upstream redis: ready"

    def __init__(self, site: Site | None = None, redis: Redis | None = None) -> None:
        nginx_with_nchan()  # raises before a Redis is started
        self._owned = None if redis else Redis()
        self.redis = redis or self._owned
        super().__init__(site)

    def redis_settings(self) -> tuple[str, str]:
        redis = f"upstream redis {{ nchan_redis_server redis://127.0.0.1:{self.redis.port}; }}"
        return redis, "nchan_redis_pass redis;"

    def redis_cpu(self) -> float:
        return self.redis.cpu()

    def end(self) -> None:
        super().end()
        if self._owned is not None:
            self._owned.end()


class PlainAutobahn(Server):
    """A server with Autobahn's defaults that opens websockets and publishes nothing."""

    name = "plain Autobahn"

    def __init__(self) -> None:
        self.port = free_port()
        program = ["-m", "benchmarks.peers.plain_autobahn", str(self.port)]
        self.program = Program([sys.executable, *program], "ready")

    def cpu(self) -> float:
        return self.program.cpu()

    def memory(self) -> int:
        return self.program.memory()

    def end(self) -> None:
        self.program.end()


PEERS: tuple[type[Channels | NchanInMemory], ...] = (
    NchanRedis,
    NchanInMemory,
    DaphnePubSub,
    DaphneCoreLayer,
    UvicornPubSub,
)
