"""The process's one pub/sub connection: who listens to what, through outages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.redis.arrivals import Arrivals
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.connection import RedisConnection
from ws4redis_tx.redis.probe import Probe
from ws4redis_tx.redis.protocol import PubSubProtocol
from ws4redis_tx.scheduling.deferreds import gather

_log = Logger()

_MOST_BACKLOG = 1 << 20  # bytes that have come from Redis and wait for earlier fan-outs

_PROBE_EARLY = 50_000  # messages, which are remembered until the next probe


class Subscriptions:
    """Listeners and what they hear.

    When the connection is made anew, every channel is subscribed again and what is persisted there
    is looked up. Messages that arrive meanwhile are held; then those that were missed go out, then
    the held ones, and then, and not before, the connection counts as up.
    """

    def __init__(
        self,
        address: RedisAddress,
        prefix: str,
        reactor: Any,
        commands: Commands,
        *,
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
    ) -> None:
        self.hub = Hub(lambda: _log.failure("A listener failed; the others get the message"))
        self.notes = EchoNotes()
        self.generation = 0
        self._fanout = Fanout(self.hub, reactor.seconds, lambda run: reactor.callLater(0, run))
        self._commands = commands
        self._connection = RedisConnection(
            address,
            reactor,
            lambda: PubSubProtocol(self._on_messages),
            prepare=self._resubscribe,
            on_up=on_up,
            on_down=on_down,
        )
        # The protocol while it is prepared, and after; the connection's own only after.
        self._protocol: PubSubProtocol | None = None
        self._subscribing: dict[bytes, list[Deferred[None]]] = {}
        self._fenced: list[Deferred[None]] = []
        self._fencing = False
        self._arrivals = Arrivals()
        # What was read from its key and is not yet known to have reached all who listened then:
        # since the last probe came back, and before.
        self._read: list[tuple[bytes, bytes]] = []
        self._read_earlier: list[tuple[bytes, bytes]] = []
        self._held: list[tuple[bytes, bytes]] | None = None
        # What attempts to connect that came to nothing had held.
        self._held_earlier: list[tuple[bytes, bytes]] = []
        self.probe = Probe(
            prefix,
            commands,
            reactor,
            on_deaf=self._deaf,
            on_refused=self._arrivals.forget_recent,
        )

    def start(self) -> None:
        self._connection.start()
        self.probe.start()

    def stop(self) -> Deferred[None]:
        self.probe.stop()
        return self._connection.stop()

    @property
    def up(self) -> bool:
        return self._connection.protocol is not None

    def fileno(self) -> int | None:
        return None if self._protocol is None else self._protocol.transport.fileno()

    # Listeners

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        protocol = self._connection.protocol
        if protocol is None:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        if self.hub.add(channel, listener):
            waiting = self._subscribing[channel] = []
            protocol.subscribe(channel).addBoth(self._subscribed, channel, waiting)
        elif channel in self._subscribing:
            waiting = self._subscribing[channel]
        else:
            return succeed(None)
        stands: Deferred[None] = Deferred()
        waiting.append(stands)
        return stands.addErrback(self._not_subscribed, channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        if self.hub.discard(channel, listener):
            self._subscribing.pop(channel, None)
            self._arrivals.forget(channel)
            if self._protocol is not None:
                self._protocol.unsubscribe(channel).addErrback(lambda _: None)

    def _subscribed(self, answer: object, channel: bytes, waiting: list[Deferred[None]]) -> None:
        if self._subscribing.get(channel) is waiting:
            del self._subscribing[channel]
        for stands in waiting:
            if isinstance(answer, Failure):
                stands.errback(BrokerUnavailable(f"Redis did not subscribe: {answer.value}"))
            else:
                stands.callback(None)

    def _not_subscribed(self, failure: Failure, channel: bytes, listener: IListener) -> Failure:
        self.unlisten(channel, listener)
        return failure

    # Messages

    def read(self, channel: bytes, payload: bytes) -> None:
        """Somebody who listens to ``channel`` was given its persisted message.

        It counts as arrived only after a fence: it may be one that others are still to hear, and
        will not if the connection is lost, or is dead already.
        """
        if channel in self.hub.channels:
            self._read.append((channel, payload))

    def _note_read(self, messages: list[tuple[bytes, bytes]]) -> None:
        for channel, payload in messages:
            if channel in self.hub.channels:
                self._arrivals.note_read(channel, payload)

    def _on_messages(self, messages: list[tuple[bytes, bytes]]) -> None:
        if self._held is not None:
            self._held += messages
            return
        self.probe.heard = True
        self._dispatch(messages)
        if (
            self._fanout.busy
            and self._fanout.backlog > _MOST_BACKLOG
            and self._protocol is not None
        ):
            # The rest waits in Redis. Not sooner: acknowledgements come the same way.
            self.probe.paused = True
            self._protocol.transport.pauseProducing()
            self._fanout.then(partial(self._go_on, self._protocol))

    def _go_on(self, protocol: PubSubProtocol) -> None:
        self.probe.paused = False
        self.probe.heard = True
        protocol.transport.resumeProducing()

    def _dispatch(self, messages: list[tuple[bytes, bytes]]) -> None:
        listeners, arrivals, notes = self.hub.listeners, self._arrivals, self.notes
        publications = []
        for channel, payload in messages:
            if channel not in listeners or channel in self._subscribing:
                if channel == self.probe.channel:
                    self._proven(payload)
                continue  # else it was on its way when the last listener left
            arrivals.note(channel, payload)
            sender = notes.take(channel, payload) if notes.senders else None
            publications.append(Publication(channel, payload, sender))
        if publications:
            self._fanout.hand_over(publications)
        if len(arrivals.recent) > _PROBE_EARLY and not self.probe.out:
            self.probe.send()
            if not self.probe.out:
                # Without a proof. What arrived last, an outage now would bring once more.
                self._arrivals.forget_recent()

    def _proven(self, probe: bytes) -> None:
        moment = self.probe.returned(probe)
        if moment is not None:
            self._arrivals.prove(moment)
            self._read_earlier, self._read = self._read, []

    # Outages

    @inlineCallbacks
    def _resubscribe(self, protocol: PubSubProtocol) -> Any:
        self._protocol = protocol
        self.generation += 1
        protocol.whenDisconnected().addCallback(self._lost)
        self._held_earlier += self._held or ()
        self._held = []
        channels = list(self.hub.channels)
        probed = self.probe.subscribe(protocol)
        yield gather([probed, *(protocol.subscribe(channel) for channel in channels)])
        missed: list[tuple[bytes, bytes]] = []
        if channels:
            # What comes until then waits in Redis, not here.
            protocol.transport.pauseProducing()
            yield self._commands.when_connected()
            protocol.transport.resumeProducing()
            persisted = yield self._commands.recall(channels)
            # What was published before that was read has arrived when this is answered.
            yield protocol.ping()
            missed = self._missed(persisted)
        held, self._held = self._held, None
        earlier, self._held_earlier = self._held_earlier, []
        # Whoever published meanwhile may hear itself, as its note cannot be told from an old one.
        self.notes.clear()
        self.probe.forget()
        self._dispatch(earlier + missed + held)
        self.probe.send()

    def _missed(
        self, persisted: list[tuple[bytes, bytes, int | None]]
    ) -> list[tuple[bytes, bytes]]:
        """In the order of their stamps."""
        held = {*self._held_earlier, *(self._held or ())}
        missed = [
            (stamp or 0, channel, payload)
            for channel, payload, stamp in persisted
            if (channel, payload) not in held and self._arrivals.missed(channel, payload, stamp)
        ]
        return [(channel, payload) for _, channel, payload in sorted(missed)]

    def _lost(self, protocol: PubSubProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
            self.probe.paused = False
            self.notes.clear()
            self._read, self._read_earlier = [], []

    def _deaf(self) -> None:
        protocol = self._connection.protocol
        if protocol is not None:
            _log.warn("Redis is connected but nothing it publishes arrives; connecting anew.")
            self._connection.drop(protocol)

    # Fences

    def fence(self) -> Deferred[None]:
        stands: Deferred[None] = Deferred()
        self._fenced.append(stands)
        if not self._fencing:
            self._ping()
        return stands

    def _ping(self) -> None:
        """One PING serves all who asked before it was sent."""
        fenced, self._fenced = self._fenced, []
        protocol = self._connection.protocol
        if protocol is None:
            for stands in fenced:
                stands.errback(BrokerUnavailable("The connection to Redis was lost."))
            return
        self._fencing = True
        read = self._read_earlier + self._read
        self._read, self._read_earlier = [], []
        protocol.ping().addBoth(self._ponged, fenced, read)

    def _ponged(
        self, answer: object, fenced: list[Deferred[None]], read: list[tuple[bytes, bytes]]
    ) -> None:
        self._fencing = False
        if not isinstance(answer, Failure):
            self._note_read(read)
        if self._fenced:
            self._ping()
        if isinstance(answer, Failure):
            for stands in fenced:
                stands.errback(BrokerUnavailable("The connection to Redis was lost."))
            return

        def stand() -> None:
            for stands in fenced:
                stands.callback(None)

        self._fanout.then(stand)
