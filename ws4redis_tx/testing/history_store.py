"""The histories of a Redis in memory, and the stamps that it gives out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import facility_of
from ws4redis_tx.core.positions import (
    LONGEST_MEMORY,
    History,
    HistoryRules,
    Missed,
    Position,
    history_of,
    position,
)
from ws4redis_tx.delivery.fanout import Fanout
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.resuming import mark_listeners
from ws4redis_tx.redis.history.channels import (
    ChannelHistory,
    Question,
    find_missed,
    make_missed,
)
from ws4redis_tx.redis.history.markers import MARK_DELAY, Markers
from ws4redis_tx.testing.in_flight import InFlight
from ws4redis_tx.testing.key_store import KeyStore

_BIRTH = 1

Arrived = tuple[bytes, bytes, int | None]
"""A channel, a payload, and the stamp of a message that has a marker."""


class _Kept(NamedTuple):
    stamp: int
    number: int
    payload: bytes
    gone: bool = False


class HistoryStore:
    """Keeps the last messages of channels, and answers as the scripts do.

    ``rules`` are those of the server: it serves no more than they say.

    :param seconds: returns the current time.
    :param keys: has the persisted messages.
    """

    def __init__(self, seconds: Callable[[], float], keys: KeyStore) -> None:
        self._seconds = seconds
        self._keys = keys
        self.rules: HistoryRules = ()
        self.prefix = ""
        self._stamp = _BIRTH
        self._kept: dict[bytes, list[_Kept]] = {}
        self._expiries: dict[bytes, float] = {}
        # The last message of each channel that has or had a history.
        self._last: dict[bytes, _Kept] = {}

    @property
    def position(self) -> Position:
        """That of the present."""
        return self.at(self._next() - 1)

    def at(self, stamp: int) -> Position:
        return position(stamp, _BIRTH)

    def _next(self) -> int:
        return max(_BIRTH + 1 + int(self._seconds() * 1e6), self._stamp + 1)

    def history_of(self, channel: bytes) -> History | None:
        """The history that the server expects a channel to have."""
        if not self.rules:
            return None
        return history_of(self.rules, facility_of(self.prefix, channel) or "")

    def publish(self, channel: bytes, payload: bytes, expire: int, history: History | None) -> int:
        """Persist the message, and keep it in the ``history``. Return its stamp."""
        stamp = self._stamp = self._next()
        if history is not None:
            last, kept = self._last.get(channel), self._list(channel)
            number = last.number if last else 0
            if last is None and (kept or self._keys.read(channel) is not None):
                number = 1  # others may have been before it
            entry = self._last[channel] = _Kept(stamp, number + 1, payload)
            if last is not None and not kept:
                kept = [last._replace(gone=True)]
            self._kept[channel] = [*kept, entry][-history.size - 1 :]
            self._expiries[channel] = self._seconds() + history.seconds
        if expire:
            self._keys.keep(channel, payload, expire, stamp)
        return stamp

    def forget(self, channel: bytes) -> None:
        self._keys.forget(channel)
        self._kept.pop(channel, None)
        if channel in self._last:
            self._kept[channel] = [_Kept(0, 0, b"", gone=True)]
            self._expiries[channel] = self._seconds() + LONGEST_MEMORY

    def missed(
        self,
        channels: Sequence[bytes],
        since: Position | None,
        wants_persisted: bool,
        replayed: bool = True,
    ) -> Missed:
        until, persisted = self.position, self._keys.stamped(channels)
        question = Question(channels, since, wants_persisted, replayed, Deferred())
        stamp = 0 if since is None else since.stamp
        found = {each: self._find(each, stamp, persisted.get(each)) for each in channels}
        messages, gaps = find_missed(question, until.stamp, _BIRTH, found)
        return make_missed(question, messages, gaps, persisted, until, _BIRTH)

    def take_missed(self, channels: Iterable[bytes], since: Position | None) -> list[Arrived]:
        """Everything that an outage has swallowed: from the histories, or else the persisted
        messages.
        """
        kept = [each for each in channels if self.history_of(each)]
        missed, healed = self.missed(kept, since, False), set(kept)
        healed -= missed.gaps
        found: list[Arrived] = []
        for each in missed.messages:
            assert each.channel is not None and each.position is not None
            found.append((each.channel, each.payload, each.position.stamp))
        persisted = self._keys.take_missed()
        return found + [(*each, None) for each in persisted if each[0] not in healed]

    def _find(
        self, channel: bytes, since: int, persisted: tuple[bytes, int] | None
    ) -> ChannelHistory:
        history, rule = ChannelHistory(since), self.history_of(channel)
        last = self._last[channel].stamp if channel in self._last else 0
        entries = self._list(channel)
        written = persisted[1] if persisted else 0
        kept = {each.stamp for each in entries}
        is_kept = written in kept or min(kept, default=written) >= written
        foreign = written if written > last or not is_kept else 0
        if rule is None:
            history.add(b"%d" % (written or last), not written, b"%d" % foreign, False)
            return history
        served = entries[-rule.size - 1 :]
        later = [each for each in served if each.stamp > since]
        before = served[: len(served) - len(later)][-1:]
        number = before[0].number if before else 0
        whole = last <= since or (later and later[0].number == number + 1 and not later[0].gone)
        later = [each for each in later if not each.gone]
        rows = [b"1 %d %d %b" % each[:3] for each in later]
        history.add(b"%d" % last, bool(whole), b"%d" % foreign, False, *rows)
        return history

    def _list(self, channel: bytes) -> list[_Kept]:
        if self._expiries.get(channel, 0) <= self._seconds():
            self._kept.pop(channel, None)
        return self._kept.get(channel, [])


class HandedOver:
    """Knows up to which position everything was handed over. Clients without a position are told a
    little later, as the real broker's probe does it.
    """

    def __init__(
        self, history: HistoryStore, in_flight: InFlight, hub: Hub, fanout: Fanout
    ) -> None:
        self._history = history
        self._in_flight = in_flight
        self._hub = hub
        self._fanout = fanout
        self.markers = Markers(history.prefix, history.rules, self._ask_for_position)
        if history.rules:
            self.markers.advance(history.position)

    @property
    def position(self) -> Position | None:
        """While nothing is in flight, that of the present."""
        if self._in_flight.idle and self.markers.position is not None:
            self.markers.advance(self._history.position)
        return self.markers.position

    def caught_up(self, missed: Missed) -> Missed:
        self.markers.advance(missed.until)
        return missed

    def publication(
        self, channel: bytes, payload: bytes, stamp: int | None, sender: object
    ) -> Publication:
        """That of a message that has arrived, with its ``stamp`` if it had a marker."""
        side = self.markers.side_of(channel)
        if side is not None and stamp is not None:
            self.markers.listen(channel, side)
            self.markers.take(side, b"%d" % stamp)
        return self.markers.publication(channel, payload, sender)

    def _ask_for_position(self) -> Any:
        clock = self._in_flight.clock
        return clock and clock.callLater(MARK_DELAY, self._probe)

    def _probe(self) -> None:
        probe = self._in_flight.answer(self._history.position.stamp)
        probe.addCallbacks(self._proven, lambda lost: None)

    def _proven(self, stamp: int) -> None:
        unmarked = self.markers.advance_to(stamp)
        self._fanout.then(lambda: mark_listeners(self._hub, unmarked, self.markers.position))
