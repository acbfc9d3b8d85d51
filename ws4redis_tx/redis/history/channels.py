"""The contents of channels' histories, and the part that a returning client has missed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from twisted.internet.defer import Deferred

from ws4redis_tx.core.messages import PositionedPublication, Publication
from ws4redis_tx.core.positions import LONGEST_MEMORY, Entry, Missed, Position, position

COLUMNS = 4  # of a channel's row, before its entries


class ChannelHistory:
    """The messages of one channel after ``since``, the earliest stamp that was asked about."""

    def __init__(self, since: int) -> None:
        self.since = since
        self.entries: list[Entry] = []
        # The stamp of its last message, once it is read.
        self._last: int | None = None
        # Whether nothing is missing between ``since`` and the entries.
        self._whole = True
        # The stamp of a persisted message that is in no history, or 0.
        self._unkept = 0
        # Each is made once, for any number of receivers.
        self._publications: dict[tuple[int, bool], Publication] = {}

    def add(self, last: bytes, whole: int, unkept: bytes, more: int, *entries: bytes) -> bool:
        """Take a row of the script's answer. Return whether there is more to read."""
        if self._last is None:
            self._last = int(last)
            self._unkept = int(unkept)
        if not whole:
            self._whole = False
            self.entries.clear()  # something is missing after them
        self.entries += map(read_entry, entries)
        return bool(more)

    def latest(self, since: int) -> int:
        """The stamp of the last entry that was read, or ``since``."""
        return self.entries[-1].stamp if self.entries else since

    def after(self, since: int) -> Sequence[Entry] | None:
        """The messages that a client at ``since`` has missed; ``None`` for a gap."""
        assert self._last is not None
        if self._unkept > since:
            return None
        if self._last <= since:
            return ()
        missed = [each for each in self.entries if each.stamp > since]
        whole = self._whole or len(missed) < len(self.entries)
        return missed if whole else None

    def publication(self, channel: bytes, entry: Entry, mark: int, replayed: bool) -> Publication:
        made = self._publications.get((entry.stamp, replayed))
        if made is None:
            made = self._publications[entry.stamp, replayed] = PositionedPublication(
                channel,
                entry.payload,
                Position(entry.stamp, mark),
                replayed=replayed,
                offset=entry.number,
            )
            made.info = entry.info
        return made


class Question(NamedTuple):
    """One call of ``IHistory.missed``."""

    channels: Sequence[bytes]
    since: Position | None
    persisted: bool
    replayed: bool
    answer: Deferred[Missed]


def find_missed(
    question: Question, now: int, birth: int, found: Mapping[bytes, ChannelHistory]
) -> tuple[list[Publication], list[bytes]]:
    """The messages that the asker has missed, in order, and the channels with a gap."""
    since, mark = question.since, position(now, birth).mark
    if since is None or not _is_good(since, now, birth):
        return [], list(question.channels)
    messages: list[Publication] = []
    gaps: list[bytes] = []
    for channel in question.channels:
        missed = found[channel].after(since.stamp)
        if missed is None:
            gaps.append(channel)
        else:
            history = found[channel]
            messages += [
                history.publication(channel, each, mark, question.replayed) for each in missed
            ]
    messages.sort(key=attrgetter("position"))
    return messages, gaps


def make_missed(
    question: Question,
    messages: Sequence[Publication],
    gaps: Collection[bytes],
    persisted: Mapping[bytes, tuple[bytes, int]],
    until: Position,
    birth: int,
) -> Missed:
    """The answer. ``persisted`` has the messages of channels, and their stamps: 0 if unknown."""
    since, good = question.since, _is_good(question.since, until.stamp, birth)
    last: list[tuple[int, bytes, bytes]] = []
    for channel in question.channels if question.persisted else gaps:
        message, stamp = persisted.get(channel, (b"", -1))
        if channel in gaps:
            wanted = 0 <= stamp <= until.stamp  # a later one comes over pub/sub
        else:
            wanted = since is not None and 0 <= stamp <= since.stamp
        if wanted:
            last.append((stamp, channel, message))
    known = [stamp for stamp, *_ in last if stamp]
    if since is None or not good:
        since = Position(min(known, default=until.stamp + 1) - 1, until.mark)
    elif not question.persisted:
        last = [(max(stamp, since.stamp), channel, message) for stamp, channel, message in last]
    elif known and min(known) <= since.stamp:
        since = Position(min(known) - 1, until.mark)
    return Missed(
        since,
        until,
        messages,
        frozenset(gaps),
        [
            PositionedPublication(
                channel,
                message,
                Position(stamp, until.mark) if stamp else since,
                replayed=question.replayed,
            )
            for stamp, channel, message in last
        ],
    )


def _is_good(since: Position | None, now: int, birth: int) -> bool:
    """Whether the data set has given out this position, and not too long ago."""
    return (
        since is not None
        and since.mark == position(now, birth).mark
        and birth <= since.stamp <= now
        and now - since.stamp <= LONGEST_MEMORY * 1_000_000
    )


def read_entry(entry: bytes) -> Entry:
    version, stamp, number, payload = entry.split(b" ", 3)
    info = b""
    if version == b"2":
        length, _, rest = payload.partition(b" ")
        info, payload = rest[: int(length)], rest[int(length) :]
    return Entry(int(stamp), int(number), info, payload)
