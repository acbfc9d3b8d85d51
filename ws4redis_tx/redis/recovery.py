"""Which messages an outage of pub/sub swallowed, and how they are delivered afterwards.

Pub/sub keeps nothing, but the last message of each channel is persisted, with a stamp of Redis'
own clock. A probe that Redis publishes to ourselves carries that clock too, and comes back in
order with all other messages: every message with an earlier stamp has arrived by then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, inlineCallbacks

from ws4redis_tx.redis.persisted import Persisted, PersistedMessages, RedisClock, portions
from ws4redis_tx.redis.protocol import LOST
from ws4redis_tx.redis.pubsub import PubSub
from ws4redis_tx.scheduling.deferreds import gather

Message = tuple[bytes, bytes]
"""A channel and a payload."""

_SUBSCRIBED_AT_ONCE = 5000

_MOST_HELD = 8 << 20  # bytes of messages that wait here; more of them wait in Redis

# Bytes. A longer message is remembered by its SHA-1: Redis can compare that before it sends the
# message. A shorter one is sent sooner than it is compared.
_SHORT = 1024


_NEVER = RedisClock(0)


class _Heard(NamedTuple):
    """How far a channel was heard: until the last probe, and the digests of what came after it."""

    proven: RedisClock
    recent: set[int]


class Arrivals:
    """The messages that have arrived, as far as is needed to recognise one that has not.

    Messages are remembered by their digest, from one probe to the next.
    """

    def __init__(self) -> None:
        self._proven = _NEVER
        self._clock = _NEVER  # that of the stamps which are judged
        self.recent: set[int] = set()
        """Digests of those that have arrived since the last probe."""
        # The last message of each channel: its digest, or the SHA-1 of a long one.
        self._last: dict[bytes, int | bytes] = {}
        self._behind: dict[bytes, _Heard] = {}

    def note(self, channel: bytes, payload: bytes) -> None:
        """This message has arrived."""
        if len(payload) > _SHORT:
            last = self._last[channel] = hashlib.sha1(payload).digest()
            self.recent.add(hash((channel, last)))
        else:
            self._last[channel] = digest = hash((channel, payload))
            self.recent.add(digest)

    def note_read(self, channel: bytes, payload: bytes) -> None:
        """This message was read from its key, and everybody who listened when it was published
        has it: a fence says so.
        """
        last = _last(channel, payload)
        self.recent.add(_digest(channel, last))
        # A message that arrived over pub/sub is newer.
        self._last.setdefault(channel, last)

    def prove(self, moment: RedisClock) -> None:
        """Every message with a stamp up to ``moment`` has arrived, except on channels that are
        behind.
        """
        self._proven = moment
        self.forget_recent()

    def forget_recent(self) -> None:
        """Forget what a probe would prove, where no probe is permitted."""
        self.recent = set()

    def forget(self, channel: bytes) -> None:
        """Nobody listens to ``channel`` any more."""
        self._last.pop(channel, None)
        self._behind.pop(channel, None)

    def fall_behind(self, channels: Iterable[bytes]) -> None:
        """Of these channels nothing is proven until they have caught up."""
        for channel in channels:
            self._behind.setdefault(channel, _Heard(self._proven, self.recent))

    def catch_up(self, channels: Iterable[bytes]) -> None:
        for channel in channels:
            self._behind.pop(channel, None)

    def read_clock(self, clock: RedisClock) -> None:
        """The stamps that are asked about from now on are of this clock."""
        self._clock = clock

    def missed(self, channel: bytes, payload: bytes, stamp: int | None) -> bool:
        """Whether the persisted message was published while we could not hear it.

        One without a stamp, from a publisher that sets none, counts as heard if its bytes are
        those of the last one on its channel. So does one whose stamp is of another clock than the
        last probe: of a Redis that has been replaced since, or whose clock was set back.
        """
        return self._missed(channel, _last(channel, payload), stamp)

    def may_be_missed(self, channel: bytes, stamp: int | None) -> bool:
        """Whether it takes the message itself to answer that."""
        return self._later(self._heard(channel), stamp) is not False

    def known_sha1(self, channel: bytes, stamp: int | None) -> str:
        """The SHA-1 of a message that would not count as missed, if one is known, or ``""``."""
        last = self._last.get(channel)
        if not isinstance(last, bytes) or self._missed(channel, last, stamp):
            return ""
        return last.hex()

    def _heard(self, channel: bytes) -> _Heard:
        return self._behind.get(channel) or _Heard(self._proven, self.recent)

    def _missed(self, channel: bytes, last: int | bytes, stamp: int | None) -> bool:
        heard = self._heard(channel)
        if _digest(channel, last) in heard.recent:
            return False
        later = self._later(heard, stamp)
        return last != self._last.get(channel) if later is None else later

    def _later(self, heard: _Heard, stamp: int | None) -> bool | None:
        """Whether it is later than the last probe; ``None`` if the two cannot be compared."""
        clock, proven = self._clock, heard.proven
        if stamp is None or clock.server != proven.server or clock.now < max(proven.now, stamp):
            return None  # in the future: of a server that was here before
        return stamp > proven.now


def _last(channel: bytes, payload: bytes) -> int | bytes:
    long = len(payload) > _SHORT
    return hashlib.sha1(payload).digest() if long else hash((channel, payload))


def _digest(channel: bytes, last: int | bytes) -> int:
    return hash((channel, last)) if isinstance(last, bytes) else last


class Recovery:
    """Subscribes to all channels on a new connection, and reads what was missed on them.

    The stamps of all channels come first. Then the missed messages are read in portions. A channel
    whose message has yet to be read is behind: messages that arrive there are held, while all other
    channels are served. Up to the first portion everything is held, so that a few messages keep
    their order.

    :param serve: called when the messages that were missed are known, before any is handed over.
    :param hand_over: called with messages in their order.
    """

    def __init__(
        self,
        pubsub: PubSub,
        persisted: PersistedMessages,
        arrivals: Arrivals,
        *,
        serve: Callable[[], object],
        hand_over: Callable[[list[Message]], object],
    ) -> None:
        self._pubsub = pubsub
        self._persisted = persisted
        self._arrivals = arrivals
        self._serve = serve
        self._hand_over = hand_over
        self.holding = False
        """Whether arriving messages go through ``hold``."""
        self._behind: set[bytes] | None = None  # None: all
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

    @inlineCallbacks
    def run(
        self,
        channels: Sequence[bytes],
        subscribe_probe: Callable[[], Deferred[Any]],
        when_connected: Callable[[], Deferred[Any]],
    ) -> Any:
        """Fire when every missed message was handed over.

        Fails when the connection is lost, or brings nothing, or when Redis does not answer; another
        run goes on from there.
        """
        self._begin()
        asked = [subscribe_probe()]
        for start in range(0, len(channels) or 1, _SUBSCRIBED_AT_ONCE):
            part = channels[start : start + _SUBSCRIBED_AT_ONCE]
            yield self._pubsub.unless_silent(gather([*asked, *map(self._pubsub.subscribe, part)]))
            asked = []
        missed: list[Message] = []
        remaining: list[list[Persisted]] = []
        if channels:
            # Messages that come until then wait in Redis, not here.
            self._pubsub.pause()
            yield when_connected()
            self._pubsub.resume()
            clock, found = yield self._persisted.find(channels)
            if clock is not None:
                self._arrivals.read_clock(clock)
            # Every message that was published before its stamp was read arrives before this answer.
            yield self._fence()
            remaining = list(portions(self._to_read(found)))
            if remaining:
                missed = yield self._read(remaining.pop(0))
        self._behind = {each.channel for portion in remaining for each in portion}
        self.holding = bool(self._behind)
        self._arrivals.fall_behind(self._behind)
        self._arrivals.catch_up(set(channels) - self._behind)
        self._serve()
        self._hand_over(self._take(missed))
        for portion in remaining:
            missed = yield self._read(portion)
            self._catch_up([each.channel for each in portion], missed)

    def _begin(self) -> None:
        self._earlier += self._held
        if sum(len(payload) for _, payload in self._earlier) > _MOST_HELD:
            # The last message of each channel is persisted, and so is read again.
            self._earlier = []
        self._held, self._held_bytes = [], 0
        self._behind, self.holding = None, True

    def _to_read(self, found: Iterable[Persisted]) -> list[Persisted]:
        """Those that may have been missed, in the order of their stamps."""
        may = self._arrivals.may_be_missed
        unheard = [each for each in found if may(each.channel, each.moment)]
        return sorted(unheard, key=lambda each: (each.moment or 0, each.channel))

    @inlineCallbacks
    def _read(self, portion: list[Persisted]) -> Any:
        """Those of a portion that were missed, in its order."""
        arrivals = self._arrivals
        asked = [(each, arrivals.known_sha1(each.channel, each.moment)) for each in portion]
        messages = yield self._persisted.read(asked)
        if any(each.moment is None for each in portion):
            yield self._fence()  # no stamp tells whether another was published since
        elif not self._pubsub.connected:
            raise LOST("Not connected")
        channels = {each.channel for each in portion}
        arrived = {each for each in chain(self._earlier, self._held) if each[0] in channels}
        return [
            (each.channel, message)
            for each, message in zip(portion, messages, strict=True)
            if message is not None
            and (each.channel, message) not in arrived
            and arrivals.missed(each.channel, message, each.moment)
        ]

    def _fence(self) -> Deferred[None]:
        self._pubsub.resume()
        return self._pubsub.unless_silent(self._pubsub.ping())

    def _catch_up(self, channels: Collection[bytes], missed: list[Message]) -> None:
        assert self._behind is not None
        self._behind -= set(channels)
        self.holding = bool(self._behind)
        self._arrivals.catch_up(channels)
        self._hand_over(self._take(missed))

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
