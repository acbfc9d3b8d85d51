"""What the tests share: a real Redis, real websocket clients, a server in this process."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.trial.unittest import TestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.service import WebSocketService, make_service
from ws4redis_tx.twistd.embedded_redis import find_server, free_port, server_command, watched

ROOT = Path(__file__).resolve().parents[2]

# A test that waits for longer than this has failed.
TIMEOUT = 20.0


class RedisServer:
    """A real server of our own; ends with this process at the latest."""

    def __init__(self, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.address = RedisAddress(host="127.0.0.1", port=self.port)
        self._process = subprocess.Popen(
            watched([*server_command(find_server(), self.port), *options]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self.stop)
        said = []
        for line in self._process.stdout:
            said.append(line)
            if b"Ready to accept connections" in line:
                break
        else:
            raise AssertionError(f"Redis did not start: {b''.join(said).decode()}")

    @property
    def pid(self) -> int:
        """Of the process whose only child the server is."""
        return self._process.pid

    def stop(self) -> None:
        if not self._process.stdin.closed:
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait()

    def command(self, *arguments: bytes | str | int) -> Any:
        """Send one command over a connection of its own; blocks."""
        import valkey

        with valkey.Valkey(host="127.0.0.1", port=self.port) as client:
            return client.execute_command(*arguments)

    def channels(self) -> list[bytes]:
        """The channels that are subscribed to, besides those that servers keep for themselves."""
        names = self.command("PUBSUB", "CHANNELS")
        return sorted(name for name in names if b"ctl:" not in name)

    def connections(self) -> int:
        """How many connections there are, besides the one that asks."""
        return self.command("CLIENT", "LIST").count(b"\n") - 1


class Written(list[bytes]):
    """A writer that keeps what was written, piece by piece."""

    def write(self, data: bytes) -> None:
        self.append(data)


_shared: RedisServer | None = None


def shared_redis() -> RedisServer:
    """The server that all tests of this process use which do not harm it; emptied."""
    global _shared
    if _shared is None:
        _shared = RedisServer()
    _shared.command("FLUSHALL")
    return _shared


class Client(WebSocketClientProtocol):
    """A websocket client: an independent implementation, over a real socket."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: Deferred[Client] = Deferred()
        self.received: DeferredQueue[str | bytes] = DeferredQueue()
        self.closed: Deferred[int | None] = Deferred()
        self.selected_protocol: str | None = None
        self.compressed: list[bool] = []
        """Of each message that came, whether it was compressed."""

    def onConnect(self, response: Any) -> None:
        self.selected_protocol = response.protocol

    def onOpen(self) -> None:
        self.opened.callback(self)

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)
        self.compressed.append(self._isMessageCompressed)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.received.put(payload if isBinary else payload.decode())

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if not self.opened.called:
            self.opened.errback(ConnectionError(reason))
        self.closed.callback(code)

    def next(self) -> Deferred[str | bytes]:
        return self.received.get().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def take(self, count: int) -> Any:
        messages = []
        for _ in range(count):
            messages.append((yield self.next()))
        return messages


@inlineCallbacks
def open_websocket(
    url: str,
    *,
    cookies: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    protocols: list[str] | None = None,
    origin: str | None = None,
    tls: Any = None,
    compression: PerMessageDeflateOffer | None = None,
) -> Any:
    """Fire with an open ``Client``; ``wss`` needs the options of its ``tls``."""
    fields = dict(headers or {})
    if cookies:
        fields["Cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    factory = WebSocketClientFactory(
        url, headers=fields, protocols=protocols, origin=origin, reactor=reactor
    )
    factory.noisy = False
    factory.setProtocolOptions(autoPingInterval=0, failByDrop=False)
    if compression is not None:
        factory.setProtocolOptions(
            perMessageCompressionOffers=[compression],
            perMessageCompressionAccept=PerMessageDeflateResponseAccept,
        )
    factory.protocol = Client
    endpoint: Any = HostnameEndpoint(reactor, factory.host, factory.port)
    if tls is not None:
        endpoint = wrapClientTLS(tls, endpoint)
    client = yield endpoint.connect(factory)
    yield client.opened.addTimeout(TIMEOUT, reactor)
    return client


class _Collector(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.done.callback(self.data)


@inlineCallbacks
def exchange(port: int, data: bytes) -> Any:
    """Send raw bytes; fire with all that comes back until the server ends the connection."""
    collector = yield connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), _Collector())
    collector.transport.write(data)
    return (yield collector.done.addTimeout(TIMEOUT, reactor))


def handshake_bytes(target: str = "/ws/foobar?subscribe-broadcast", **headers: str | None) -> bytes:
    """A well-formed handshake; headers by name with ``_`` for ``-``; ``None`` leaves one out."""
    fields: dict[str, str | None] = {
        "Host": "localhost",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    fields.update({name.replace("_", "-"): value for name, value in headers.items()})
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1")


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


class ServerTestCase(TestCase):
    """A server in this process, on a real socket, with a real Redis."""

    timeout = 60

    def setUp(self) -> None:
        self.redis = shared_redis()

    @inlineCallbacks
    def start_server(self, config: ServerConfig | None = None, **options: Any) -> Any:
        """Fire with a service that is ready; ``self.url`` and ``self.port`` lead to it."""
        config = config or ServerConfig(redis=self.redis.address, listen=LISTEN, **options)
        service = make_service(config)
        self.launch(service)
        yield service.when_ready()
        return service

    def launch(self, service: WebSocketService) -> None:
        service.startService()
        self.addCleanup(service.stopService)
        self.port = service.ports[0].getHost().port
        self.url = f"ws://127.0.0.1:{self.port}/ws/"

    @inlineCallbacks
    def open(self, path: str, **options: Any) -> Any:
        """Fire with an open client, which is closed when the test ends."""
        client = yield open_websocket(self.url + path, **options)
        self.addCleanup(self._close, client)
        return client

    def _close(self, client: Client) -> Deferred[Any]:
        client.sendClose(1000)
        return client.closed


def write_file(test: TestCase, text: str) -> str:
    """The path of a file with ``text`` that is gone after the test."""
    folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    test.addCleanup(shutil.rmtree, folder)
    path = Path(folder) / "file"
    path.write_text(text)
    return str(path)


LISTEN = ("tcp:0:interface=127.0.0.1",)


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run this Python in a fresh process, from the project's folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
