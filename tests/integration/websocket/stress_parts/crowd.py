"""A crowd of clients that takes the steps of a schedule.

The server's parts are its own, and the sockets are real ones, under the real reactor. Redis is a
small one in this process, so that the schedule decides what arrives when, and how long a slice of a
fan-out is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from twisted.internet import reactor, tcp, unix
from twisted.internet.address import IPv4Address
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.integration.websocket.stress_parts.ledger import Ledger
from tests.integration.websocket.stress_parts.schedules import FEW, THEMES, A, B, Schedule, Step
from tests.integration.websocket.stress_parts.visitors import (
    EVER,
    Interval,
    Kind,
    Own,
    Visitor,
    socket_pair,
)
from tests.support.memory import ReactorClock
from tests.support.servers import later
from tests.support.small_redis import ADDRESS, Reactor, RedisWorld
from tests.support.stories import Authorizer
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.interfaces import NullHooks
from ws4redis_tx.service import make_factory
from ws4redis_tx.sessions.log import ClientLog
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import client_frame

CLOSE_FRAME = b"\x88"


class Deliberate(Exception):
    """A listener of the test's fails."""


class SlicedClock(ReactorClock, Reactor):
    """Broker's time. It passes by ``tick`` whenever somebody asks for it, so that a fan-out that
    asks must go on later.
    """

    tick = 0.0

    def seconds(self) -> float:
        self.rightNow += self.tick
        return self.rightNow

    @property
    def busy(self) -> bool:
        """Whether a fan-out goes on in the next turn: nothing else is due at once."""
        return any(call.getTime() <= self.rightNow for call in self.getDelayedCalls())


class End(NamedTuple):
    """The end of a client's connection, as the server saw it."""

    closing: Any
    kept: bool
    """Whether something was never sent: messages that waited, or bytes that the transport kept."""
    completed: int
    arrived: int


class Ends(ClientLog):
    """A log that keeps the ends of all connections."""

    def __init__(self, crowd: Crowd) -> None:
        super().__init__(crowd.timers)
        self._crowd = crowd

    def ended(self, session: Any, closing: Any) -> None:
        kept = session.outbox.paused or bool(session.transport.outgoing)
        self._crowd.ends[session] = End(closing, kept, *self._crowd.progress)


class Hooks(NullHooks):
    def __init__(self) -> None:
        self.connections: dict[Any, Any] = {}
        self.closings: dict[Any, Any] = {}

    def connected(self, connection: Any) -> None:
        self.connections[connection._session] = connection

    def closed(self, connection: Any, closing: Any) -> None:
        self.closings[connection._session] = closing


class Meddler:
    """A listener of the application's own: in the middle of a fan-out it does something else."""

    def __init__(self, steps: Iterator[Step | None], take: Callable[[Step], object]) -> None:
        self._steps = steps
        self._take = take

    def deliver(self, publication: object) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._take(step)
            if step[0] == "fail":
                raise Deliberate


class _Watching:
    """Tells whether something was written although the transport had asked for a pause."""

    producerPaused: bool  # noqa: N815, Twisted's
    disobeyed = False

    def write(self, data: bytes) -> None:
        if self.producerPaused and not data.startswith(CLOSE_FRAME):
            self.disobeyed = True
        super().write(data)  # type: ignore[misc]


class TcpTransport(_Watching, tcp.Server):
    pass


class UnixTransport(_Watching, unix.Server):
    pass


class Subscriber(RedisSubscriber):
    """May leave a single channel."""

    def leave(self, channel: bytes) -> None:
        self._subscription.unsubscribe(channel.decode())


class Crowd:
    """Takes the steps of a schedule, and compares every client's stream with what it had to be."""

    def __init__(self, schedule: Schedule, certificates: Any = None) -> None:
        self.clock = SlicedClock()
        self.world = RedisWorld(clock=self.clock)
        self.history = self.world.redis.history
        self.ledger = Ledger(self.history)
        self.timers = Clock()
        self.happened: Counter[str] = Counter()
        self.failures = 0
        self.visitors: list[Visitor] = []
        self.ends: dict[Any, End] = {}
        self._schedule = schedule
        self._certificates = certificates
        self._servers = [self._server(**each) for each in THEMES[schedule.theme]]
        self._opening: set[Visitor] = set()
        self._forms: dict[bytes, bytes] = {}
        self._meddlers: list[tuple[bytes, Meddler]] = []
        self._own = 0
        # All messages before this one were handed to all who listened.
        self._completed = 0
        self._size = 0

    def _server(self, *, hooks: bool = False, **options: Any) -> tuple[Any, Hooks | None]:
        observer = Hooks() if hooks else None
        factory = make_factory(
            ServerConfig(redis=ADDRESS, compression=True, **options),
            broker=self.world.broker,
            authorizer=Authorizer(),
            subscriber=Subscriber,
            hooks=observer,
            reactor=self.timers,
        )
        factory.session_server.log = Ends(self)
        return factory, observer

    @inlineCallbacks
    def run(self) -> Any:
        for step in self._schedule.steps:
            self.clock.tick = self._schedule.tick
            if self.clock.busy:
                self.happened[f"{step[0]} amid"] += 1
            if step[0] in ("io", "settle"):
                yield getattr(self, f"_{step[0]}")()
            else:
                self._take(step)
            self._note()
        yield self._finish()

    def _take(self, step: Step) -> None:
        """Take a step that is over when this returns."""
        word, *arguments = step
        getattr(self, f"_{word}")(*arguments)

    # Redis and the fan-out

    @property
    def _arrived(self) -> int:
        """The number of the first message that has not arrived."""
        waiting = (each.number for _, each in self.world.pubsub.answers if each is not None)
        return next(waiting, len(self.history))

    @property
    def progress(self) -> tuple[int, int]:
        """All messages before the first number were handed to all who listened; none from the
        second one on.
        """
        return self._completed, self._arrived

    def _publish(self, channel: bytes, size: int, binary: bool, persist: bool) -> None:
        if self._size > 300_000:
            self._arrive(together=True)
            self._slices(1000)
        start = b"\xff%d" if binary else b"%d"
        payload = start % len(self.history) + (b" filler" * (size // 7 + 1))[:size]
        self._size += size
        self.world.redis.publish(channel, payload, persist=persist)

    def _arrive(self, together: bool) -> None:
        pubsub = self.world.pubsub
        while pubsub.execute():
            pass
        if together:
            pubsub.arrive_together()
        while pubsub.arrive():
            pass

    def _commands(self) -> None:
        commands = self.world.commands
        while commands.execute():
            pass
        while commands.arrive():
            pass

    def _slices(self, number: int) -> None:
        for _ in range(number):
            if not self.clock.busy:
                self._size = 0
                break
            self.clock.advance(0)
            self.happened["slices"] += 1
        self.happened["paused"] += sum(each.there and each.waits for each in self.visitors)

    def _note(self) -> None:
        """Note what is true by now."""
        if not self.clock.busy:
            self._completed = self._arrived
        for visitor in tuple(self._opening):
            session = visitor.session
            if session.ended or session.outbox.closed:
                self._opening.discard(visitor)
            elif session.opening is None and visitor.opened_at is None:
                visitor.opened_at = len(self.history)
                for interval in visitor.intervals:
                    interval.must_from = visitor.opened_at
            elif visitor.opened_at is not None and not session.feed.replaying:
                visitor.live_at = len(self.history)
                visitor.connection = session.state
                _, hooks = self._servers[visitor.kind.server]
                visitor.hooked = hooks and hooks.connections[session]
                self._opening.discard(visitor)

    # Clients

    def _one(self, which: int, fits: Callable[[Visitor], object]) -> Iterator[Visitor]:
        """The first one that fits, from any one on. There may be none."""
        start = which % len(self.visitors)
        found = chain(self.visitors[start:], self.visitors[:start])
        return islice((visitor for visitor in found if fits(visitor)), 1)

    def _join(self, kind: Kind, mode: str) -> None:
        number = len(self.visitors)
        factory, _ = self._servers[kind.server]
        ours, theirs = socket_pair(kind, f"{self._schedule.seed} {number}")
        peer: tuple[Any, ...] = ("127.0.0.1", number) if kind.socket != "unix" else ("", None)
        protocol = bottom = factory.buildProtocol(IPv4Address("TCP", *peer))
        if kind.socket == "tls":
            server_options, client_context = self._certificates
            listener = TLSMemoryBIOFactory(server_options, False, factory)
            bottom = listener.buildProtocol(IPv4Address("TCP", *peer))
            protocol = bottom.wrappedProtocol
            theirs = client_context.wrap_socket(
                theirs, server_hostname="localhost", do_handshake_on_connect=False
            )
        transport: Any
        if kind.socket == "unix":
            transport = UnixTransport(ours, bottom, "", None, number, reactor)
        else:
            transport = TcpTransport(ours, bottom, peer, None, number, reactor)
        transport.repstr = f"<{kind}>"
        transport.bufferSize = kind.high_water
        bottom.makeConnection(transport)
        policy, bound = factory.config.slow_reader, factory.config.max_pending
        if factory.config.max_pending_total < 1 << 20:
            bound = 0
        visitor = Visitor(
            number, kind, theirs, policy, bound, self._forms, protocol=protocol, mode=mode
        )
        visitor.intervals = [Interval(channel, self._completed) for channel in kind.channels]
        self.visitors.append(visitor)
        self._opening.add(visitor)
        rights = [f"subscribe-{_audience(channel)}" for channel in kind.channels]
        if kind.speaks is not None:
            rights.append(f"publish-{_audience(kind.speaks)}")
        if kind.echo:
            rights.append("echo")
        offer = "permessage-deflate" if kind.deflates else None
        visitor.write(handshake_bytes(f"/ws/f?{'&'.join(rights)}", Sec_WebSocket_Extensions=offer))

    def _mode(self, which: int, mode: str) -> None:
        for visitor in self._one(which, lambda one: not one.ended):
            visitor.mode = mode

    def _read(self, which: int, size: int) -> None:
        for visitor in self._one(which, lambda one: not one.ended):
            visitor.read(size)

    def _leave(self, which: int, how: str) -> None:
        for visitor in self._one(which, lambda one: not one.ended and not one.left):
            if how == "close" and visitor.there:
                visitor.closed_at = self._completed
                visitor.close(1000)
            elif how == "half" and visitor.there and visitor.kind.socket != "tls":
                visitor.half_close()
            else:
                visitor.end(reset=how == "reset" and visitor.kind.socket == "tcp")

    def _close(self, which: int, code: int) -> None:
        for visitor in self._one(which, lambda one: one.there):
            waits = visitor.session.outbox.paused
            (visitor.hooked or visitor.session).close(code)
            visitor.closed_by, visitor.closed_at = code, 0 if waits else self._completed

    def _send(self, which: int, size: int) -> None:
        for visitor in self._one(which, lambda one: one.there):
            self._own += 1
            payload = (b"own %d" % self._own).ljust(size)
            visitor.own.append(Own(payload, self._completed, self._arrived))
            (visitor.hooked or visitor.session).send(payload)

    def _say(self, which: int, size: int) -> None:
        for visitor in self._one(which, lambda one: one.there and one.kind.speaks is not None):
            visitor.said += 1
            payload = (b"%d said %d" % (visitor.number, visitor.said)).ljust(size)
            visitor.said_payloads.add(payload)
            visitor.write(client_frame(1, payload))

    def _ping(self, which: int) -> None:
        for visitor in self._one(which, lambda one: one.there):
            visitor.pings += 1
            visitor.write(client_frame(9, b"%d" % visitor.pings))

    def _check(self, which: int) -> None:
        for visitor in self._one(which, lambda one: one.there):
            visitor.session.transport.check_liveness()

    def _subscribe(self, which: int, channel: bytes) -> None:
        for visitor in self._one(which, lambda one: one.moves and not one.hears(channel)):
            earlier = [one.may_until for one in visitor.intervals if one.channel == channel]
            interval = Interval(channel, self._completed)
            interval.gapless_from = EVER if channel in FEW else max(earlier, default=0)
            visitor.intervals.append(interval)
            subscription = visitor.subscriptions[channel] = visitor.connection.pubsub()

            def subscribed(_: object, interval: Interval = interval) -> None:
                interval.must_from = len(self.history)

            subscription.subscribe(channel.decode()).addCallbacks(subscribed, lambda _: None)

    def _unsubscribe(self, which: int, channel: bytes) -> None:
        for visitor in self._one(which, lambda one: one.moves and one.hears(channel)):
            if channel in visitor.subscriptions:
                visitor.subscriptions.pop(channel).unsubscribe()
            else:
                visitor.connection.subscriber.leave(channel)
            interval = visitor.hears(channel)
            assert interval is not None
            interval.must_until = min(self._completed, interval.must_until)
            interval.may_until = self._arrived
            if not visitor.waits:
                # All that was sent is here.
                visitor.read(1 << 30)
                heard = self.ledger.heard(visitor, channel)
                interval.may_until = max(interval.must_until, heard + 1)
                self.happened["left for certain"] += 1

    def _meddle(self, channel: bytes, steps: list[Step | None]) -> None:
        meddler = Meddler(iter(steps), self._meddled)
        self._meddlers.append((channel, meddler))
        self.world.broker.listen(channel, meddler)

    def _meddled(self, step: Step) -> None:
        self.happened[f"{step[0]} within"] += 1
        self._take(step)

    def _fail(self) -> None:
        self.failures += 1

    # Turns of the reactor

    @inlineCallbacks
    def _io(self) -> Any:
        for visitor in self.visitors:
            if visitor.mode == "reads":
                visitor.read()
            elif visitor.mode == "sips":
                visitor.read(97)
            visitor.flush()
        self.timers.advance(0)
        yield later()

    @inlineCallbacks
    def _settle(self) -> Any:
        """Let everything arrive."""
        for channel in (A, B, *FEW):
            self._publish(channel, 0, False, False)
        yield self._calm_down()

    @inlineCallbacks
    def _calm_down(self) -> Any:
        quiet = turns = 0
        while quiet < 3:
            turns += 1
            assert turns < 20_000, "it does not come to rest"
            self._arrive(together=bool(quiet))
            self._commands()
            self.timers.advance(0)
            busy = self.clock.busy or bool(self.world.pubsub.requests)
            self._slices(1000)
            self._note()
            for visitor in self.visitors:
                busy |= visitor.read() > 0
                busy |= visitor.on_its_way()
            quiet = 0 if busy else quiet + 1
            yield later()
        for visitor in self.visitors:
            self.ledger.check(visitor, complete=True)

    @inlineCallbacks
    def _finish(self) -> Any:
        for visitor in self.visitors:
            visitor.stayed = visitor.there
        for channel, meddler in self._meddlers:
            self.world.broker.unlisten(channel, meddler)
        drained = [factory.drain(1001) for factory, _ in self._servers]
        yield self._calm_down()
        self.timers.advance(5)
        yield self._calm_down()
        yield gatherResults(drained)
        for visitor in self.visitors:
            factory, hooks = self._servers[visitor.kind.server]
            end = self.ends.get(visitor.session)
            visitor.closing = end and end.closing
            visitor.told = hooks and hooks.closings.get(visitor.session)
            self._judge(visitor, end, factory.config)
        remembered = {**self.world.remembered(), "messages": self.world.redis.lost}
        assert not any(remembered.values()), remembered

    @inlineCallbacks
    def abandon(self) -> Any:
        """Leave no connection after a failure."""
        for factory, _ in self._servers:
            factory.drain(1001)
            factory.abort()
        for visitor in self.visitors:
            visitor.sock.close()
        yield later()

    def _judge(self, visitor: Visitor, end: End | None, config: ServerConfig) -> None:
        """Its end, and the counts that the server keeps."""
        bounded = config.max_pending < 1 << 20 or config.max_pending_total < 1 << 20
        may_drop = config.max_pending_total < 1 << 20
        self.ledger.check(visitor, complete=True)
        assert visitor.ended, f"{visitor} has not ended"
        if visitor.status not in (0, 101):
            assert bounded and visitor.status == 503, f"{visitor}: {visitor.status}"
            return
        if end is None:
            assert visitor.left and not visitor.messages, f"{visitor}: it has no end"
            return
        allowed = {1001, *([1013] if bounded else []), *([1000] if visitor.left else [])}
        if visitor.code is None:
            assert visitor.left or may_drop, f"{visitor} was ended without a close frame"
        else:
            assert visitor.code in allowed | {visitor.closed_by}, f"{visitor}: {visitor.code}"
        closing = end.closing
        connection = visitor.session.transport.connection
        obeyed = visitor.kind.socket == "tls" or not connection.disobeyed
        assert obeyed, f"{visitor}: more was written while it was paused"
        assert visitor.told in (None, closing), f"{visitor}: {visitor.told}, {closing}"
        assert visitor.lossy or not closing.dropped, f"{visitor}: {closing}"
        number = len(visitor.messages)
        if visitor.whole and not end.kept:
            assert closing.sent == number, f"{visitor}: {number} came, {closing}"
            self.happened[f"counted with {visitor.code}"] += 1
        least, most = self.ledger.bounds(visitor, end.completed, end.arrived)
        if end.kept or visitor.lossy or closing.clean or closing.by_server:
            least = number
        assert max(least, number) <= closing.sent <= most, (
            f"{visitor}: {number} came, {least} to {most} were handed over, {closing}"
        )
        if visitor.stayed:
            assert closing.received == visitor.said, f"{visitor}: {visitor.said}, {closing}"
        assert visitor.pongs == sorted(set(visitor.pongs)), f"{visitor}: {visitor.pongs}"
        self.happened["dropped"] += closing.dropped
        self.happened["messages"] += number
        self.happened[f"closed with {visitor.code}"] += 1


def _audience(channel: bytes) -> str:
    return channel.split(b":")[0].decode()
