"""The JavaScript library over HTTP, unmodified: one of today, and the last one with two faults."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.trial.unittest import SkipTest

from tests.support import PATIENCE, ROOT
from tests.support.memory import AllowAll
from tests.support.npm import node_modules
from tests.support.programs import Program
from tests.support.servers import ServerTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.positions import History
from ws4redis_tx.emulation.stream import EARLIEST
from ws4redis_tx.service import make_broker, make_factory

FOLDER = ROOT / "tests" / "projects" / "centrifuge"
HERE = "tcp:0:interface=127.0.0.1"
NEW, OLD, OLDER = "centrifuge", "centrifuge-5.7.4", "centrifuge-5.7.3"
"""Releases up to the old one come back at once after an answer that ends the connection, break
messages in protobuf that come in several reads, and let messages that come together overtake
each other. Those up to the older one break characters, too.
"""
PIECE = 999  # no multiple of the bytes of a character
TOGETHER = 400
"""Messages: more than Node takes from a connection at a time."""
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


class Gathering(Protocol):
    """One direction of a connection through a proxy: what follows the answer to ``connect`` is sent
    in one write, when the word ``last`` has come.
    """

    peer: Gathering

    def __init__(self, subscribed: Deferred[None]) -> None:
        self._subscribed = subscribed
        self._waiting = b""
        # Whether these are the answers, and not the requests, which may come in pieces.
        self._answers: bool | None = None

    def dataReceived(self, data: bytes) -> None:
        self._waiting += data
        if self._answers is None:
            self._answers = data.startswith(b"HTTP/")
        answered = self._answers and b'"subscribe":' in self._waiting
        if answered and not self._subscribed.called:
            self._subscribed.callback(None)
        if not answered or b"last" in self._waiting:
            self.peer.transport.write(self._waiting)
            self._waiting = b""

    def connectionLost(self, reason: Any = connectionDone) -> None:
        if self.peer.transport is not None:
            self.peer.transport.loseConnection()


class JavaScriptTests(ServerTestCase):
    timeout = 600

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
        config = ServerConfig(
            redis=self.redis.address, centrifuge_url="/connection/", history=(("kept*", 100, 600),)
        )
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

    def start(
        self, library: str, port: int, transport: str, form: str = "json", *more: str
    ) -> Program:
        program = Program(
            self.node, str(FOLDER / "stream.mjs"), self.modules, library, str(port), transport,
            form, *more,
        )  # fmt: skip
        self.addCleanup(program.end)
        program.patience = PATIENCE
        return program

    def publish(self, payload: bytes, channel: str = "broadcast:f") -> Any:
        kept = History(100, 600) if "kept" in channel else None
        return self.broker.publish([channel.encode()], payload, 0, None, kept)

    def through(self, port: int, direction: Callable[[], Any]) -> Any:
        """Fire with the port of a proxy that builds both directions of each connection so."""

        def build(_: object) -> Any:
            near, far = direction(), direction()
            near.peer, far.peer = far, near
            made = connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), far)
            receive = near.dataReceived

            def when_made(data: bytes) -> None:
                made.addCallback(lambda _: receive(data))

            near.dataReceived = when_made
            return near

        proxy = Factory()
        proxy.noisy = False
        proxy.buildProtocol = build  # type: ignore[method-assign]
        return self.listen(proxy)

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
        """Fault 15. Old releases break it, as the documentation says."""
        port = yield self.serve(AllowAll())
        cut = yield self.through(port, Piecewise)
        long = json.dumps("\U0001f600" * 50_000, ensure_ascii=False)
        whole, broken = r'heard \[100000,"\U0001f600"\]', 'heard .*"\ufffd"'
        for library, transport, form, becomes in (
            (NEW, "http_stream", "json", whole),
            (NEW, "http_stream", "protobuf", whole),
            (NEW, "sse", "json", whole),
            (OLD, "http_stream", "json", whole),
            (OLD, "http_stream", "protobuf", "connecting 1"),
            (OLDER, "http_stream", "json", broken),
            (OLDER, "sse", "json", whole),
        ):
            client = self.start(library, cut, transport, form)
            yield client.wait_for("subscribed")
            yield self.publish(long.encode())
            yield client.wait_for(becomes)
            yield client.end()

    @inlineCallbacks
    def test_messages_that_come_together_stay_in_order(self) -> Any:
        """Old releases mix them up, as the documentation says."""
        port = yield self.serve(AllowAll())
        for number, (library, transport) in enumerate(product((NEW, OLD), ("http_stream", "sse"))):
            subscribed: Deferred[None] = Deferred()
            way = yield self.through(port, partial(Gathering, subscribed))
            channel = f"broadcast:kept{number}"
            sent = [*map(str, range(TOGETHER)), '"last"']
            for each in sent[:2]:
                yield self.publish(each.encode(), channel)
            client = self.start(library, way, transport, "json", channel)
            yield subscribed
            for each in sent[2:]:
                yield self.publish(each.encode(), channel)
            # And its own.
            yield client.wait_for(rf"(heard .*\n([^h].*\n)*){{{len(sent) + 1}}}")
            heard = re.findall(r'heard (\d+|"last")', client.printed)
            self.assertEqual(heard == sent, library == NEW, (library, transport))
            self.assertEqual(sorted(heard), sorted(sent))
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
