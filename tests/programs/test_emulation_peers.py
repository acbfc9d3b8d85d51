"""The JavaScript library over HTTP, unmodified: one of today, and the last one with two faults."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import SkipTest

from tests.support import ROOT
from tests.support.memory import AllowAll
from tests.support.npm import node_modules
from tests.support.programs import Program
from tests.support.servers import ServerTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.emulation.stream import EARLIEST
from ws4redis_tx.service import make_broker, make_factory

FOLDER = ROOT / "tests" / "projects" / "centrifuge"
HERE = "tcp:0:interface=127.0.0.1"
NEW, OLD = "centrifuge", "centrifuge-5.7.4"
"""Releases up to the old one come back at once after an answer that ends the connection, and break
messages in protobuf that come in several reads.
"""
PIECE = 1000
ATTEMPTS = 4


class Broken:
    """An authorizer that raises, and knows when it was asked."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.enough: Deferred[None] = Deferred()

    def authorize(self, handshake: Any, rights: Any) -> Any:
        self.times.append(reactor.seconds())
        if len(self.times) == ATTEMPTS:
            self.enough.callback(None)
        raise ZeroDivisionError


class Piecewise(Protocol):
    """One direction of a connection through a proxy, which sends a piece in each turn."""

    peer: Piecewise

    def __init__(self) -> None:
        self._waiting = b""
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)

    def dataReceived(self, data: bytes) -> None:
        busy, self._waiting = bool(self._waiting), self._waiting + data
        if not busy:
            self._send()

    def _send(self) -> None:
        piece, self._waiting = self._waiting[:PIECE], self._waiting[PIECE:]
        self.peer.transport.write(piece)
        if self._waiting:
            reactor.callLater(0, self._send)
        elif self._over:
            self.peer.transport.loseConnection()

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._over = True
        if not self._waiting and self.peer.transport is not None:
            self.peer.transport.loseConnection()


class JavaScriptTests(ServerTestCase):
    timeout = 180

    def setUp(self) -> None:
        super().setUp()
        node = shutil.which("node")
        if node is None:
            raise SkipTest("there is no node (Debian: apt install nodejs)")
        self.node: str = node
        self.modules = str(node_modules(FOLDER / "package.json"))

    @inlineCallbacks
    def serve(self, authorizer: Any) -> Any:
        """Fire with the port of a server."""
        config = ServerConfig(redis=self.redis.address, centrifuge_url="/connection/")
        self.broker = make_broker(config)
        self.broker.startService()
        self.addCleanup(self.broker.stopService)
        yield self.broker.when_available()
        self.factory = make_factory(config, broker=self.broker, authorizer=authorizer)
        return (yield self.listen(self.factory))

    @inlineCallbacks
    def listen(self, factory: Any) -> Any:
        port = yield serverFromString(reactor, HERE).listen(factory)
        self.addCleanup(self.factory.drain, 1001)
        self.addCleanup(port.stopListening)
        return port.getHost().port

    def start(self, library: str, port: int, transport: str, form: str = "json") -> Program:
        program = Program(
            self.node, str(FOLDER / "stream.mjs"), self.modules, library, str(port), transport, form
        )
        self.addCleanup(program.end)
        return program

    def publish(self, payload: bytes) -> Any:
        return self.broker.publish([b"broadcast:f"], payload, 0)

    def through_pieces(self, port: int) -> Callable[[object], Piecewise]:
        """Builds the near end of each connection through a proxy."""

        def build(_: object) -> Piecewise:
            near, far = Piecewise(), Piecewise()
            near.peer, far.peer = far, near
            made = connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), far)

            def pass_on(data: bytes) -> None:
                made.addCallback(lambda _: Piecewise.dataReceived(near, data))

            near.dataReceived = pass_on  # type: ignore[method-assign]
            return near

        return build

    @inlineCallbacks
    def test_it_connects_subscribes_publishes_and_hears(self) -> Any:
        port = yield self.serve(AllowAll())
        for library in (NEW, OLD):
            for transport, form in (
                ("http_stream", "json"), ("http_stream", "protobuf"), ("sse", "json"),
            ):  # fmt: skip
                client = self.start(library, port, transport, form)
                yield client.wait_for(f'connected {transport}\nsubscribed\nheard "its own"')
                yield self.publish(b'{"a":"\xf0\x9f\x98\x80"}')
                yield client.wait_for('heard {"a":"\U0001f600"}')
                yield client.end()

    @inlineCallbacks
    def test_a_message_in_many_reads_is_whole(self) -> Any:
        """Fault 15. The old release breaks in protobuf, as the documentation says."""
        port = yield self.serve(AllowAll())
        proxy = Factory()
        proxy.noisy = False
        proxy.buildProtocol = self.through_pieces(port)  # type: ignore[method-assign]
        cut = yield self.listen(proxy)
        long = json.dumps("\U0001f600" * 50_000, ensure_ascii=False)
        for library, transport, form in (
            (NEW, "http_stream", "json"),
            (NEW, "http_stream", "protobuf"),
            (NEW, "sse", "json"),
        ):
            client = self.start(library, cut, transport, form)
            yield client.wait_for("subscribed")
            yield self.publish(long.encode())
            yield client.wait_for(r'heard \[100000,"\U0001f600"\]')
            yield client.end()

    @inlineCallbacks
    def test_an_error_in_answer_to_connect_brings_it_back_once_a_second_at_most(self) -> Any:
        """Fault 13."""
        for library in (NEW, OLD):
            for transport in ("http_stream", "sse"):
                broken = Broken()
                port = yield self.serve(broken)
                client = self.start(library, port, transport)
                yield broken.enough
                yield client.end()
                waits = [b - a for a, b in zip(broken.times, broken.times[1:], strict=False)]
                self.assertGreaterEqual(min(waits), EARLIEST, (library, transport))
        self.flushLoggedErrors(ZeroDivisionError)
