"""From Redis' messages to the fan-out of publications, through outages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.positions import HistoryRules, read_position
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import EchoNotes, Hub
from ws4redis_tx.delivery.resuming import mark_listeners
from ws4redis_tx.redis.arrivals import Arrivals, Reads
from ws4redis_tx.redis.channel_table import ChannelTable
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.history.markers import MARK_DELAY, Markers
from ws4redis_tx.redis.missed import MissedMessages
from ws4redis_tx.redis.persisted import PersistedMessages
from ws4redis_tx.redis.pubsub import Probe, PubSub
from ws4redis_tx.redis.recovery import Recovery
from ws4redis_tx.redis.wire.refusals import Trouble, concerns_server
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Callbacks

_log = Logger()

_MOST_BACKLOG = 1 << 20  # bytes that have come from Redis and wait for earlier fan-outs

_PROBE_EARLY = 50_000  # messages, which are remembered until the next probe


class Dispatcher:
    """Listeners, and what they hear over the pub/sub connection.

    When the connection is made anew, every channel is subscribed again and the persisted messages
    that were missed are read. Messages that arrive meanwhile on their channels are held. The missed
    messages go out first, then the held ones. The connection counts as up as soon as it is known
    which channels missed something; those that did are served as their messages are read.
    """

    def __init__(
        self,
        address: RedisAddress,
        prefix: str,
        reactor: Any,
        commands: Commands,
        *,
        on_up: Callable[[], None],
        on_down: Callable[[Trouble], None],
        history: HistoryRules = (),
    ) -> None:
        self.hub = Hub(lambda: _log.failure("A listener or codec failed; others get the message"))
        self.table = ChannelTable(self.hub, self._subscribe, self._unsubscribe)
        self.notes = EchoNotes()
        self.markers = Markers(
            prefix, history, lambda: reactor.callLater(MARK_DELAY, self.probe.send)
        )
        self.on_lost = Callbacks()
        """After each loss of the connection, when all that has arrived was handed over."""
        self._pubsub = PubSub(
            address,
            reactor,
            on_messages=self.receive,
            recover=self._recover,
            on_lost=self._lost,
            on_up=on_up,
            on_down=on_down,
        )
        self._fanout = Fanout(self.hub, reactor.seconds, lambda run: reactor.callLater(0, run))
        self._commands = commands
        self._reactor = reactor
        self._arrivals = Arrivals()
        self._reads = Reads()
        self.missed = MissedMessages(commands, history, reactor)
        self._recovery = Recovery(
            self._pubsub,
            PersistedMessages(commands, prefix),
            self._arrivals,
            self.markers,
            self.missed,
            serve=self._serve,
            hand_over=self.receive,
            on_failure=self._pubsub.drop,
        )
        self.probe = Probe(
            prefix,
            commands,
            reactor,
            on_deaf=self._deaf,
            on_refused=self._arrivals.forget_recent,
        )

    def start(self) -> None:
        self._pubsub.start()
        self.probe.start()

    def stop(self) -> Deferred[Any]:
        self.probe.stop()
        self.markers.drop()
        return self._pubsub.stop()

    @property
    def up(self) -> bool:
        return self._pubsub.up

    @property
    def generation(self) -> int:
        return self._pubsub.generation

    def fileno(self) -> int | None:
        return self._pubsub.fileno()

    # Listeners

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        if not self._pubsub.up:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        return self.table.listen(channel, listener)

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        self.table.unlisten(channel, listener)

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        """As ``IBroker.fence``."""
        stands: Deferred[None] = Deferred()
        # These callbacks stand on a Deferred of their own: the one that is returned may be
        # cancelled, and the messages were read all the same.
        self._pubsub.fence().addCallbacks(
            self._fenced, stands.errback, callbackArgs=(self._reads.take(), channels, stands)
        )
        return stands

    def when_handed_over(self, function: Callable[[], object]) -> None:
        """Call ``function`` when all that has arrived was handed to its listeners: now, if it was.

        A failure is logged.
        """
        self._fanout.then(function)

    def read(self, channel: bytes, payload: bytes) -> None:
        """A listener of ``channel`` was given the persisted message.

        The message counts as arrived only after a fence: other listeners may not have heard it yet,
        and will not if the connection is lost, or is dead already.
        """
        if channel in self.hub.channels:
            self._reads.add(channel, payload)

    def _subscribe(self, channel: bytes) -> Deferred[None]:
        side, about = self.markers.side_of(channel), self.markers.about(channel)
        if about is not None:
            self.markers.listen(about, channel)
        if side is None:
            return self._pubsub.subscribe(channel).addErrback(self._not_subscribed)
        # The markers first: no message must come without its own.
        self.markers.listen(channel, side)
        both: Deferred[Any] = gather(map(self._pubsub.subscribe, (side, channel)))
        return both.addErrback(self._not_subscribed)

    def _unsubscribe(self, channel: bytes) -> None:
        self._arrivals.forget(channel)
        for each in self.markers.unlisten(channel, self.hub.channels):
            self._pubsub.unsubscribe(each)

    def _not_subscribed(self, failure: Failure) -> Failure:
        if concerns_server(failure.value) and not self.probe.out:
            self.probe.send()  # the command connection learns of it, and then everybody does
        return Failure(BrokerUnavailable(f"Redis did not subscribe: {failure.value}"))

    def _fenced(
        self,
        _: object,
        read: list[tuple[bytes, bytes]],
        channels: Iterable[bytes] | None,
        stands: Deferred[None],
    ) -> None:
        recovery = self._recovery
        for channel, payload in read:
            if channel in self.hub.channels and not recovery.is_behind((channel,)):
                self._arrivals.note_read(channel, payload)
        if recovery.holding:
            names = None if channels is None else tuple(channels)
            recovery.when_caught_up(names).addCallbacks(self._stands, stands.errback, (stands,))
        else:
            self._stands(None, stands)

    def _stands(self, _: object, stands: Deferred[None]) -> None:
        self._fanout.then(partial(stands.callback, None))

    # Messages

    def receive(self, messages: list[tuple[bytes, bytes]]) -> None:
        """Hand over what one read brought, or hold it while its channels recover."""
        if self._recovery.holding:
            messages = self._recovery.hold(messages)
        self.probe.heard = True
        listeners, subscribing = self.hub.listeners, self.table.subscribing
        arrivals, notes, markers = self._arrivals, self.notes, self.markers
        sides, publications = markers.sides, list[Publication]()
        # Most servers keep no history, and save a call.
        make = markers.publication if sides or markers.position is not None else Publication
        for channel, payload in messages:
            if channel not in listeners or channel in subscribing or channel in sides:
                if channel == self.probe.channel:
                    self._proven(payload)
                elif sides:
                    arrival = markers.take(channel, payload)
                    if arrival is not None and channel in listeners:
                        publications.append(arrival)
                continue  # any other was on its way when the last listener left
            arrivals.note(channel, payload)
            sender = notes.take(channel, payload) if notes.senders else None
            publications.append(make(channel, payload, sender))
        if publications:
            self._fanout.hand_over(publications)
        if self._fanout.busy and self._fanout.backlog > _MOST_BACKLOG:
            self._hold_back()
        if len(arrivals.recent) > _PROBE_EARLY and not self.probe.out:
            self._probe_early()

    def _hold_back(self) -> None:
        """Leave the rest in Redis until the listeners have what came. Not before it is necessary:
        acknowledgements come the same way.
        """
        self.probe.paused = True
        self._pubsub.pause()
        self._fanout.then(partial(self._go_on, self._pubsub.generation))

    def _go_on(self, generation: int) -> None:
        if generation == self._pubsub.generation:
            self.probe.paused = False
            self.probe.heard = True
            self._pubsub.resume()

    def _proven(self, probe: bytes) -> None:
        clock = self.probe.returned(probe)
        if clock is not None:
            self._arrivals.prove(clock)
            self._reads.age()
            if not self._recovery.holding:
                unmarked = self.markers.advance_to(clock.now)
                if unmarked:  # to be told behind the messages that came in the same read
                    mark = partial(mark_listeners, self.hub, unmarked, self.markers.position)
                    self._reactor.callLater(0, self._fanout.then, mark)
                if self.markers.is_beyond(clock.now):  # it was set back
                    self._find_position().addErrback(lambda _: None)  # or at the next probe

    def _probe_early(self) -> None:
        self.probe.send()
        if not self.probe.out:
            self._arrivals.forget_recent()  # an outage now would bring the last ones once more

    # Outages

    @inlineCallbacks
    def _recover(self) -> Any:
        yield self._recovery.run(
            [*dict.fromkeys((*self.markers.sides, *self.hub.channels))],
            partial(self.probe.subscribe, self._pubsub),
            self._commands.when_connected,
        )
        if self.missed.keeps_history:
            yield self._find_position()
        self.probe.send()

    @inlineCallbacks
    def _find_position(self) -> Any:
        """Advance to the present, in the data set that is there now."""
        seen, heard = self.markers.position, self.markers.heard
        found = yield self._commands.position(seen=seen, heard=heard)
        yield self._pubsub.ping()  # all that was published before has arrived
        position = read_position(found)
        if position is not None and not self._recovery.holding:
            self.markers.advance(position)

    def _serve(self) -> None:
        # A publisher may have its own message back after an outage: its note could be an old one.
        self.notes.clear()
        self.probe.forget()

    def _lost(self) -> None:
        self.probe.paused = False
        self.notes.clear()
        self._reads.forget()
        self.markers.drop()
        self._recovery.lost()
        self._fanout.then(self.on_lost.call)

    def _deaf(self) -> None:
        if self._pubsub.up and not self._recovery.holding:  # a slow link is not deaf
            _log.warn("Redis is connected but nothing it publishes arrives; connecting anew.")
            self._pubsub.drop()
