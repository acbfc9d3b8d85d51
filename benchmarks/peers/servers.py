"""Other people's servers, each run as its own users would run it, and driven like ours.

Compression is off in all of them, as it is by default in ours. They raise ``Unavailable`` if they
cannot be installed.
"""

from __future__ import annotations

import os
import pwd
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.load import Failed
from benchmarks.peers.centrifugo import CentrifugoHistory, CentrifugoInMemory, CentrifugoRedis
from benchmarks.peers.channels_peers import (
    Channels,
    DaphneCoreLayer,
    DaphnePubSub,
    UvicornPubSub,
)
from benchmarks.peers.mosquitto import Mosquitto
from benchmarks.peers.nats import Nats
from benchmarks.peers.plain_peers import Aiohttp, Bun, Picows, Tornado, Websockets, Ws
from benchmarks.peers.programs import nginx_with_nchan
from benchmarks.peers.pushpin import Pushpin
from benchmarks.peers.socketio_peer import SocketIO
from benchmarks.servers import FACILITY, Program, Redis, Server, Site, free_port

__all__ = [
    "PEERS",
    "Aiohttp",
    "Bun",
    "Channels",
    "DaphneCoreLayer",
    "DaphnePubSub",
    "NchanInMemory",
    "NchanRedis",
    "Picows",
    "PlainAutobahn",
    "Tornado",
    "UvicornPubSub",
    "Websockets",
    "Ws",
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
        self.versions = nginx.unpacked.versions
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
        self.program = Program(command, self.ready, **nginx.unpacked.environment)
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
            raise Failed(f"nchan did not publish: {status.decode()}")

    def end(self) -> None:
        self._answers.close()
        self._publisher.close()
        super().end()
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


PEERS: tuple[type[Server], ...] = (
    Bun,
    Picows,
    Aiohttp,
    Ws,
    Websockets,
    Tornado,
    Nats,
    Mosquitto,
    CentrifugoInMemory,
    CentrifugoRedis,
    CentrifugoHistory,
    SocketIO,
    Pushpin,
    NchanRedis,
    NchanInMemory,
    DaphnePubSub,
    DaphneCoreLayer,
    UvicornPubSub,
)
