"""The histories of a Redis in memory, and the stamps that it gives out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred

from ws4redis_tx.core.names import facility_of, side_channel
from ws4redis_tx.core.positions import (
    LONGEST_MEMORY,
    Entry,
    History,
    HistoryRules,
    Missed,
    Position,
    Stream,
    Wanted,
    history_of,
    position,
)
from ws4redis_tx.redis.history.channels import (
    ChannelHistory,
    Question,
    find_missed,
    make_missed,
)
from ws4redis_tx.testing.memory.key_store import KeyStore

_BIRTH = 1

Arrived = tuple[bytes, bytes]
"""A channel and a payload: of a message, or of the marker before one."""


class _Kept(NamedTuple):
    stamp: int
    number: int
    payload: bytes
    info: bytes = b""
    gone: bool = False


class HistoryStore:
    """Keeps the last messages of channels, and answers as the scripts do.

    ``rules`` are those of the server: it serves no more than they say.

    :param seconds: returns the current time.
    :param keys: has the persisted messages.
    """

    def __init__(
        self, seconds: Callable[[], float], keys: KeyStore, rules: HistoryRules = ()
    ) -> None:
        self._seconds = seconds
        self._keys = keys
        self.rules = rules
        self.prefix = ""
        self._stamp = _BIRTH
        self._kept: dict[bytes, list[_Kept]] = {}
        self._expiries: dict[bytes, float] = {}
        # The last message of each channel that has or had a history.
        self._last: dict[bytes, _Kept] = {}
        # The stamp of its first.
        self._began: dict[bytes, int] = {}

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
        facility = facility_of(self.prefix, channel)
        return None if facility is None else history_of(self.rules, facility)

    def side(self, channel: bytes) -> bytes:
        return side_channel(self.prefix, channel)

    def publish(
        self,
        channel: bytes,
        payload: bytes,
        expire: int,
        history: History | None,
        info: bytes = b"",
    ) -> tuple[int, bytes]:
        """Persist the message, and keep it in the ``history``. Return its stamp, and the marker
        that is published before it, if any.
        """
        told = b" " + info if info else b""
        marker = b"0 0 0" + told if info else b""
        stamp = self._stamp = self._next()
        if history is not None:
            last, kept = self._last.get(channel), self._list(channel)
            number = last.number if last else 0
            if last is None and (kept or self._keys.read(channel) is not None):
                number = 1  # others may have been before it
            if last is None:
                self._began[channel] = stamp
            entry = self._last[channel] = _Kept(stamp, number + 1, payload, info)
            marker = b"%d %d %d%b" % (stamp, entry.number, self._began[channel], told)
            if last is not None and not kept:
                kept = [last._replace(gone=True)]
            self._kept[channel] = [*kept, entry][-history.size - 1 :]
            self._expiries[channel] = self._seconds() + history.seconds
        if expire:
            self._keys.keep(channel, payload, expire, stamp)
        return stamp, marker

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

    def stream(self, wanted: Wanted) -> Stream:
        """As the script reads it: the one before those that were asked for proves that nothing is
        missing between.
        """
        channel, kept = wanted.channel, self._list(wanted.channel)
        last, size = self._last.get(channel), len(kept)
        found: list[_Kept] = []
        if last is not None:
            low, high = size - last.number + wanted.after, size - 1
            if wanted.before:
                high = min(high, size - 1 - last.number + wanted.before - 1)
                low = high - wanted.most + 1
            low = max(0, size - wanted.size, low)
            high = min(high, low + wanted.most - 1)
            if high >= low or low == size:
                found = kept[max(0, low - 1) : high + 1]
        entries = [Entry(each.stamp, each.number, each.info, each.payload)
                   for each in found if not each.gone]  # fmt: skip
        top, began = (last.number, self._began[channel]) if last is not None else (0, 0)
        proof = found[0].number if found else 0
        return Stream(channel, self.position, _BIRTH, top, began, entries, proof)

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
            found.append((self.side(each.channel), b"%d" % each.position.stamp))
            found.append((each.channel, each.payload))
        return found + [each for each in self._keys.take_missed() if each[0] not in healed]

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
        rows = [
            b"2 %d %d %d %b%b" % (each.stamp, each.number, len(each.info), each.info, each.payload)
            for each in later
        ]
        history.add(b"%d" % last, bool(whole), b"%d" % foreign, False, *rows)
        return history

    def _list(self, channel: bytes) -> list[_Kept]:
        if self._expiries.get(channel, 0) <= self._seconds():
            self._kept.pop(channel, None)
        return self._kept.get(channel, [])
