"""How the messages that an outage of pub/sub swallowed are found, and delivered afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, succeed
from twisted.internet.error import ConnectionClosed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.redis.arrivals import Arrivals
from ws4redis_tx.redis.history.markers import Markers
from ws4redis_tx.redis.missed import MissedMessages
from ws4redis_tx.redis.persisted import Persisted, PersistedMessages, portions
from ws4redis_tx.redis.pubsub import PubSub
from ws4redis_tx.redis.wire.protocol import LOST, ResponseError
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Waiters

_log = Logger()

Message = tuple[bytes, bytes]
"""A channel and a payload."""

_OF_THE_CONNECTION = (BrokerUnavailable, CancelledError, ConnectionClosed, LOST, ResponseError)

_SUBSCRIBED_AT_ONCE = 5000

_MOST_HELD = 8 << 20  # bytes of messages that wait here; more of them wait in Redis


class Recovery:
    """Subscribes to all channels on a new connection, and reads what was missed on them.

    The stamps of all channels come first. Then the missed messages are read in portions. A channel
    whose message has yet to be read is behind: messages that arrive there are held, while all other
    channels are served. Up to the first portion everything is held, so that a few messages keep
    their order.

    :param serve: called when the messages that were missed are known, before any is handed over.
    :param hand_over: called with messages in their order.
    :param on_failure: called when what is behind cannot be read, although the connection is there.
    """

    def __init__(
        self,
        pubsub: PubSub,
        persisted: PersistedMessages,
        arrivals: Arrivals,
        markers: Markers,
        histories: MissedMessages,
        *,
        serve: Callable[[], object],
        hand_over: Callable[[list[Message]], object],
        on_failure: Callable[[], object],
    ) -> None:
        self._pubsub = pubsub
        self._persisted = persisted
        self._arrivals = arrivals
        self._markers = markers
        self._histories = histories
        self._serve = serve
        self._hand_over = hand_over
        self._on_failure = on_failure
        self._caught_up = Waiters[None]()
        self.holding = False
        """Whether arriving messages go through ``hold``."""
        self._behind: set[bytes] | None = None  # None: all
        self._lost = range(0)  # the stamps of the time in which nothing was heard
        # Before the run that is under way.
        self._were_behind: set[bytes] = set()
        self._held: list[Message] = []
        self._held_bytes = 0
        # Messages that unfinished recoveries had held.
        self._earlier: list[Message] = []

    def hold(self, messages: list[Message]) -> list[Message]:
        """Keep those that must wait, and return the others."""
        behind = self._behind
        kept = [each for each in messages if behind is None or each[0] in behind]
        self._held += kept
        self._held_bytes += sum(len(payload) for _, payload in kept)
        if self._held_bytes > _MOST_HELD:
            self._pubsub.pause()
        return [] if behind is None else [each for each in messages if each[0] not in behind]

    def run(
        self,
        channels: Sequence[bytes],
        subscribe_probe: Callable[[], Deferred[Any]],
        when_connected: Callable[[], Deferred[Any]],
    ) -> Deferred[Any]:
        """Fire when every channel is served that is not behind. The others follow in portions.

        Fails when the connection is lost, or brings nothing, or when Redis does not answer; another
        run goes on from there.
        """
        running: Deferred[Any] = self._run(channels, subscribe_probe, when_connected)
        return running.addErrback(_log_mistake)

    @inlineCallbacks
    def _run(
        self,
        channels: Sequence[bytes],
        subscribe_probe: Callable[[], Deferred[Any]],
        when_connected: Callable[[], Deferred[Any]],
    ) -> Any:
        self._begin()
        since, self._lost = self._markers.position, range(0)
        asked = [subscribe_probe()]
        for start in range(0, len(channels) or 1, _SUBSCRIBED_AT_ONCE):
            part = channels[start : start + _SUBSCRIBED_AT_ONCE]
            yield self._pubsub.unless_silent(gather([*asked, *map(self._pubsub.subscribe, part)]))
            asked = []
        missed: Mapping[Message, int | None] = {}
        recovered: list[Message] = []
        healed: set[bytes] = set()
        remaining: list[list[Persisted]] = []
        if channels:
            # Messages that come until then wait in Redis, not here.
            self._pubsub.pause()
            yield when_connected()
            self._pubsub.resume()
            healed, recovered, until = yield self._read_histories(channels)
            channels = [each for each in channels if each not in healed]
            clock, found = yield self._persisted.find(channels)
            if clock is not None:
                self._arrivals.read_clock(clock)
                if since is not None:
                    self._lost = range(since.stamp + 1, clock.now + 1)
            # Every message that was published before its stamp was read arrives before this answer.
            yield self._fence()
            self._earlier = self._markers.later(self._earlier, healed, until)
            self._held = self._markers.later(self._held, healed, until)
            remaining = list(portions(self._to_read(found)))
            if remaining:
                missed = yield self._read(remaining.pop(0))
        behind = {each.channel for portion in remaining for each in portion}
        self._were_behind = set()
        self._behind = self._with_markers(behind)
        self.holding = bool(behind)
        self._arrivals.fall_behind(behind)
        self._arrivals.catch_up(healed.union(channels) - behind)
        self._serve()
        self._hand_over_missed(missed, recovered)
        if remaining:
            self._read_all(remaining).addErrback(self._failed, self._pubsub.generation)

    def is_behind(self, channels: Collection[bytes] | None) -> bool:
        """Whether messages of one of ``channels``, or of any channel, wait for what was missed."""
        if not self.holding or self._behind is None:
            return self.holding
        return channels is None or not self._behind.isdisjoint(channels)

    def when_caught_up(self, channels: Collection[bytes] | None = None) -> Deferred[None]:
        """Fire when none of ``channels``, or no channel at all, is behind. Fails with
        ``BrokerUnavailable`` when the connection is lost before.
        """
        if not self.is_behind(channels):
            return succeed(None)
        return self._caught_up.wait().addCallback(lambda _: self.when_caught_up(channels))

    def lost(self) -> None:
        """The connection is lost. Nothing is given up; the next run goes on from here."""
        self._caught_up.fail(Failure(BrokerUnavailable("The connection to Redis was lost.")))

    @inlineCallbacks
    def _read_all(self, portions: list[list[Persisted]]) -> Any:
        for portion in portions:
            missed = yield self._read(portion)
            self._catch_up([each.channel for each in portion], missed)

    @inlineCallbacks
    def _read_histories(self, channels: Sequence[bytes]) -> Any:
        """Fire with the channels whose history has all that was missed; with those messages, each
        behind its marker; and with the stamp until which they are complete.
        """
        since, sides = self._markers.position, self._markers.side_of
        with_history = {channel: side for channel in channels if (side := sides(channel))}
        if since is None or not with_history:
            return set(), [], 0
        # Redis may have lost what it gave out. Then nothing is whole.
        yield self._histories.commands.position(seen=since, heard=self._markers.heard)
        missed = yield self._histories.ask(list(with_history), since)
        # Those that were behind have not got everything up to the position.
        healed = with_history.keys() - missed.gaps - self._were_behind
        until = missed.until.stamp
        messages: list[Message] = []
        for each in missed.messages:
            if each.channel not in healed:
                continue
            messages.append((with_history[each.channel], b"%d" % each.position.stamp))
            messages.append((each.channel, each.payload))
        return set(healed), messages, until

    def _with_markers(self, channels: Collection[bytes]) -> set[bytes]:
        sides = map(self._markers.side_of, channels)
        return {*channels, *(side for side in sides if side is not None)}

    def _failed(self, failure: Failure, generation: int) -> None:
        if self._pubsub.generation == generation and self._pubsub.connected:
            self._on_failure()

    def _begin(self) -> None:
        self._earlier += self._held
        if sum(len(payload) for _, payload in self._earlier) > _MOST_HELD:
            # The last message of each channel is persisted, and so is read again.
            self._earlier = []
        self._held, self._held_bytes = [], 0
        self._were_behind |= self._behind or set()
        self._behind, self.holding = None, True

    def _to_read(self, found: Iterable[Persisted]) -> list[Persisted]:
        """Those that may have been missed, in the order of their stamps."""
        may = self._arrivals.may_be_missed
        unheard = [each for each in found if may(each.channel, each.moment)]
        return sorted(unheard, key=lambda each: (each.moment or 0, each.channel))

    @inlineCallbacks
    def _read(self, portion: list[Persisted]) -> Any:
        """Those of a portion that were missed, in its order, with their stamps if known."""
        arrivals, generation = self._arrivals, self._pubsub.generation
        asked = [(each, arrivals.known_sha1(each.channel, each.moment)) for each in portion]
        messages = yield self._persisted.read(asked)
        if not self._pubsub.connected or self._pubsub.generation != generation:
            raise LOST("Not connected")
        if any(each.moment is None for each in portion):
            yield self._fence()  # no stamp tells whether another was published since
        channels = {each.channel for each in portion}
        arrived = {each for each in chain(self._earlier, self._held) if each[0] in channels}
        return {
            (each.channel, message): each.moment
            for each, message in zip(portion, messages, strict=True)
            if message is not None
            and (each.channel, message) not in arrived
            and arrivals.missed(each.channel, message, each.moment)
        }

    def _fence(self) -> Deferred[None]:
        self._pubsub.resume()
        return self._pubsub.unless_silent(self._pubsub.ping())

    def _catch_up(self, channels: Collection[bytes], missed: Mapping[Message, int | None]) -> None:
        assert self._behind is not None
        self._behind -= self._with_markers(channels)
        self.holding = bool(self._behind)
        self._arrivals.catch_up(channels)
        self._hand_over_missed(missed)
        caught_up, self._caught_up = self._caught_up, Waiters()
        caught_up.fire(None)

    def _hand_over_missed(
        self, missed: Mapping[Message, int | None], recovered: Sequence[Message] = ()
    ) -> None:
        # A stamp from before the loss, or from the future, is of a clock that was set back.
        self._markers.read = {
            each: stamp
            for each, stamp in missed.items()
            if stamp is not None and stamp in self._lost
        }
        self._hand_over(self._take([*recovered, *missed]))
        self._markers.read = {}

    def _take(self, missed: list[Message]) -> list[Message]:
        """Those that were missed, among all that is held for channels that are not behind."""
        behind = self._behind or ()
        earlier, held = self._earlier, self._held
        self._earlier = [each for each in earlier if each[0] in behind]
        self._held = [each for each in held if each[0] in behind]
        self._held_bytes = sum(len(payload) for _, payload in self._held)
        if self._held_bytes <= _MOST_HELD:
            self._pubsub.resume()
        return [
            *(each for each in earlier if each[0] not in behind),
            *missed,
            *(each for each in held if each[0] not in behind),
        ]


def _log_mistake(failure: Failure) -> Failure:
    """Log what no outage explains: else the server would try again for ever, without a word."""
    if not failure.check(*_OF_THE_CONNECTION):
        _log.failure("Recovering from an outage of Redis failed; trying again", failure)
    return failure
