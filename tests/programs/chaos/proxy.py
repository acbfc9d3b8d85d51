"""A TCP proxy in front of Redis that treats connections as networks do.

It knows which connection is for pub/sub, so a fault can hit one and spare the other. Swallowed
bytes are lost for good, as on a real network whose peer is gone. A frozen connection therefore
stays dead even after ``thaw``, while later ones work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone

PUBSUB, COMMANDS = "pubsub", "commands"
TO_REDIS, FROM_REDIS = "to Redis", "from Redis"

_END = None  # the last item in a pipe


class Proxy:
    """Listens on ``port`` and connects to ``target``, both on the loopback interface."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.seconds = 0.0
        self.rate: float | None = None
        self.frozen: set[tuple[str, str]] = set()
        # Called with each piece that comes from Redis, before it is passed on.
        self.on_answer: Callable[[], object] = lambda: None
        self.links: list[Link] = []
        self._ends: list[Deferred[None]] = []
        self._factory = Factory.forProtocol(lambda: Link(self).client)
        self._factory.noisy = False
        self._listening: Any = None
        self.port = 0
        self.accept()

    def accept(self) -> None:
        """Accept connections, after ``refuse``."""
        self._listening = reactor.listenTCP(self.port, self._factory, interface="127.0.0.1")
        self.port = self._listening.getHost().port

    def refuse(self) -> Deferred[None]:
        """Fire when the port is closed. Existing connections stay."""
        return self._listening.stopListening()

    def cut(self) -> None:
        """Abort all connections."""
        for link in self.links:
            link.abort()

    def delay(self, seconds: float) -> None:
        """Delay everything by that many seconds, in order."""
        self.seconds = seconds

    def slow_down(self, rate: float | None) -> None:
        """Pass on so many bytes a second in each direction of each connection, or any number. A
        peer is read no faster, so that it has to wait.
        """
        self.rate = rate
        for pipe in self._pipes():
            pipe.begin_anew()

    def freeze(
        self,
        kinds: Collection[str] = (PUBSUB, COMMANDS),
        directions: Collection[str] = (TO_REDIS, FROM_REDIS),
    ) -> None:
        """Half-open: accept everything, even new connections, and pass on neither bytes nor the
        end of a connection.
        """
        self.frozen = {(kind, direction) for kind in kinds for direction in directions}
        for pipe in self._pipes():
            pipe.obey()

    def thaw(self) -> None:
        """Serve new connections, and end those that one side has closed."""
        self.frozen = set()
        for pipe in self._pipes():
            pipe.thaw()

    def half_close(self, direction: str, kinds: Collection[str] = (PUBSUB, COMMANDS)) -> None:
        """End the connections in one direction only."""
        for pipe in self._pipes():
            if pipe.direction == direction and pipe.link.kind in kinds:
                pipe.half_close()

    @inlineCallbacks
    def stop(self) -> Any:
        """Fire when all is closed."""
        yield self.refuse()
        self.cut()
        yield DeferredList(self._ends)

    def note_end(self, gone: Deferred[None]) -> None:
        self._ends.append(gone)

    def _pipes(self) -> list[Pipe]:
        return [pipe for link in self.links for pipe in (link.to_redis, link.from_redis)]


class Link:
    """A connection to the proxy, and the one that the proxy made for it."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.kind = COMMANDS  # until it subscribes
        self.to_redis = Pipe(self, TO_REDIS)
        self.from_redis = Pipe(self, FROM_REDIS)
        self.client = _End(self.to_redis, self.from_redis)
        self.server = _End(self.from_redis, self.to_redis)
        self._aborted = False
        proxy.links.append(self)
        proxy.note_end(self.client.gone)

    def connect(self) -> None:
        """Connect to Redis; called when the client has connected."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.target)
        connecting = connectProtocol(endpoint, self.server)
        connecting.addCallbacks(self._connected, lambda _: self.abort())
        self.proxy.note_end(connecting)

    def _connected(self, server: _End) -> Deferred[None]:
        if self._aborted:
            server.transport.abortConnection()
        return server.gone

    def abort(self) -> None:
        self._aborted = True
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abortConnection()


class Pipe:
    """One direction of a link: bytes come out as they went in, in order, unless it is frozen."""

    def __init__(self, link: Link, direction: str) -> None:
        self.link = link
        self.direction = direction
        self._sink: Any = None
        self._dead = False
        self._ended = False
        self._half_closed = False
        self.bytes = 0
        """How many were put in."""
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._timer: Any = None
        # With a rate: when the next byte may be passed on, and the end that is not read until then.
        self._next = 0.0
        self._source: Any = None
        self._reading: Any = None

    def open(self, sink: Any) -> None:
        self._sink = sink
        if self._half_closed:
            self.half_close()
        self._pass_due()

    def attach(self, source: Any) -> None:
        """``source`` is the transport whose data is put here."""
        self._source = source

    def begin_anew(self) -> None:
        """Pass on what waits; the rate is another from here on."""
        self._next = 0.0
        self._queue = deque((0.0, piece) for _, piece in self._queue)
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._pass_due()
        self.keep_pace()

    def keep_pace(self) -> None:
        """Read on, or wait until what was read may be passed on."""
        if self._reading is not None and self._reading.active():
            self._reading.cancel()
        if self._source is None:
            return
        wait = self._next - reactor.seconds()
        if wait > 0 and self.link.proxy.rate and not self._dead:
            self._source.pauseProducing()
            self._reading = reactor.callLater(wait, self.keep_pace)
        else:
            self._source.resumeProducing()

    def put(self, piece: bytes | None) -> None:
        self.bytes += len(piece or b"")
        if piece is _END:
            self._ended = True
        elif self.direction == TO_REDIS and b"SUBSCRIBE" in piece:
            self.link.kind = PUBSUB
        elif self.direction == FROM_REDIS:
            self.link.proxy.on_answer()
        self.obey()
        if not self._dead:
            due = reactor.seconds() + self.link.proxy.seconds
            rate = self.link.proxy.rate
            if rate and piece is not _END:
                self._next = max(self._next, reactor.seconds()) + len(piece) / rate
                due = max(due, self._next)
                self.keep_pace()
            self._queue.append((max(due, self._queue[-1][0]) if self._queue else due, piece))
            self._pass_due()
        elif piece is _END and not self.link.proxy.frozen:
            self._finish()

    def obey(self) -> None:
        """Swallow from here on, if this pipe is frozen."""
        if (self.link.kind, self.direction) in self.link.proxy.frozen:
            self._dead = True
            self._queue.clear()
            self.keep_pace()

    def thaw(self) -> None:
        if self._dead and self._ended:
            self._finish()

    def half_close(self) -> None:
        self._dead = self._half_closed = True
        self._queue.clear()
        if self._sink is not None:
            self._sink.loseWriteConnection()

    def stop(self) -> None:
        """Stop: the far end is gone."""
        self._sink = None
        self._dead = True
        self._queue.clear()
        for timer in (self._timer, self._reading):
            if timer is not None and timer.active():
                timer.cancel()

    def _pass_due(self) -> None:
        if self._sink is None or (self._timer is not None and self._timer.active()):
            return
        now = reactor.seconds()
        while self._queue and self._queue[0][0] <= now and self._sink is not None:
            _, piece = self._queue.popleft()
            if piece is _END:
                self._finish()
            else:
                self._sink.write(piece)
        if self._queue:
            self._timer = reactor.callLater(self._queue[0][0] - now, self._pass_due)

    def _finish(self) -> None:
        if self._sink is not None:
            self._sink.loseConnection()


class _End(Protocol):
    """One end of a link: feeds one pipe, and writes the output of the other."""

    def __init__(self, into: Pipe, out_of: Pipe) -> None:
        self._into = into
        self._out_of = out_of
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._into.attach(self.transport)
        if self._into.direction == TO_REDIS:
            self._into.link.connect()
        self._out_of.open(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._into.put(data)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self._out_of.stop()
        self._into.attach(None)
        self._into.put(_END)
        self.gone.callback(None)
