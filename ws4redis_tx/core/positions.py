"""Positions in the stream of messages, and the history from which a client can catch up.

A stamp is Redis' clock in microseconds, raised where necessary so that no two messages of one data
set have the same. A client that has everything up to a stamp has everything up to it on all of its
channels. A position is such a stamp as clients see it, with a mark of the data set.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ws4redis_tx.core.messages import PositionedPublication, Publication
from ws4redis_tx.core.names import audience_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

LONGEST_MEMORY = 30 * 24 * 3600
"""Seconds for which a channel's count of messages outlives its last message, and the age beyond
which a position cannot be served any more.
"""

MARKS = 1 << 24
"""The number of different marks. A data set's mark is the remainder of its first stamp."""

_FORM = re.compile(r"([0-9a-f]{1,13})\.([0-9a-f]{1,6})")


class Position(NamedTuple):
    """A ``stamp``, and the ``mark`` of the data set that gave it out."""

    stamp: int
    mark: int

    def __str__(self) -> str:
        return f"{self.stamp:x}.{self.mark:x}"


def position(stamp: int, birth: int) -> Position:
    """The position at ``stamp`` in the data set that began at the stamp ``birth``."""
    return Position(stamp, birth % MARKS)


def status(position: Position, recovered: bool | None, gaps: Collection[bytes]) -> bytes:
    """The JSON object that a client is sent at its opening, and at a later gap. ``gaps`` are the
    channels on which something may be missing.
    """
    audiences = sorted({audience_of(channel) for channel in gaps} - {""})
    told = {"position": str(position), "recovered": recovered, "gap": audiences}
    return json.dumps(told).encode()


def read_position(text: str) -> Position | None:
    """The position that ``text`` is; ``None`` for any other text."""
    form = _FORM.fullmatch(text)
    return None if form is None else Position(int(form[1], 16), int(form[2], 16))


class History(NamedTuple):
    """Each channel keeps its last ``size`` messages for so many ``seconds``."""

    size: int
    seconds: int


ONCE_FOR = 600
"""Seconds for which the result of a publish with an idempotency key is remembered."""


class Kept(NamedTuple):
    """How a message is kept besides its being persisted: in which ``history``, and under which
    idempotency key, ``""`` for none. With a key, nothing is published if it was published with the
    same key, on the same channels, within ``ONCE_FOR`` seconds; the result is that of the first.
    """

    history: History | None = None
    once: str = ""
    info: bytes = b""
    """What is said of the client that publishes it: a JSON object, without a line break."""


NOT_KEPT = Kept()

HistoryRules = tuple[tuple[str, int, int], ...]
"""For each shell pattern of facilities, the size and the seconds. The first match counts."""


@lru_cache(maxsize=1024)
def history_of(rules: HistoryRules, facility: str) -> History | None:
    """The history that the channels of ``facility`` keep, if any."""
    for pattern, size, seconds in rules:
        if fnmatchcase(facility, pattern):
            return History(size, seconds)
    return None


@dataclass(frozen=True, slots=True)
class Missed:
    """The messages of some channels after a position (``since``), and until another one.

    ``messages`` are in the order of their positions, each with its own. They are complete, except
    on the channels of ``gaps``, which have none. ``persisted`` has the last message of each of
    those, if there is one, published no later than ``until``. ``since`` is an earlier position than
    that asked about if one of those is earlier, and if that is good for nothing.
    """

    since: Position
    until: Position
    messages: Sequence[Publication]
    gaps: frozenset[bytes]
    persisted: Sequence[Publication]


class Entry(NamedTuple):
    """One message of a history. ``info`` is said of the client that published it."""

    stamp: int
    number: int
    info: bytes
    payload: bytes


MOST = 300
"""So many messages are recovered, or read from a history, at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The messages of a channel after a number, the oldest first, at most so many; or, with
    ``before``, the newest ones in front of it.
    """

    channel: bytes
    size: int
    after: int = 0
    before: int = 0
    most: int = MOST


class Stream:
    """One channel's history, as it was at ``until``."""

    def __init__(
        self,
        channel: bytes,
        until: Position,
        birth: int,
        top: int,
        began: int,
        entries: Sequence[Entry],
        proof: int,
    ) -> None:
        self.channel = channel
        self.until = until
        self.top = top
        """The number of its last message; 0 if there is none."""
        self.began = began
        """The stamp of its first message; 0 if there is none. Negative if others were published
        before it, of which only that is known: no earlier epoch fits.
        """
        self._birth = birth
        self._entries = entries
        # The number of the first entry, or what proves that nothing is missing in front of it.
        self._proof = proof

    @property
    def epoch(self) -> int:
        """The stamp that stands for this stream: of a channel without a message, the present."""
        return self.began or self.until.stamp

    def fits(self, epoch: int) -> bool:
        """Whether a client that was told ``epoch`` has heard of this stream and of no other."""
        now = self.until.stamp
        return epoch == self.began != 0 or (
            self._birth <= epoch < self.epoch + (not self.began)
            and now - epoch < LONGEST_MEMORY * 1_000_000
        )

    def after(self, number: int, size: int) -> list[Publication] | None:
        """All that follows the message with this number; ``None`` if that is not known, or more
        than ``size``.
        """
        if number == self.top:
            return []
        found = [each for each in self._entries if each.number > number]
        whole = [each.number for each in found] == [*range(number + 1, self.top + 1)]
        # Either it is there itself, or what proves that it was the last before the first one.
        proven = len(found) < len(self._entries) or self._proof in (number, number + 1)
        few = len(found) <= min(size, MOST)
        return self.publications(found) if whole and proven and few else None

    def between(self, wanted: Wanted) -> list[Publication]:
        """Those that were asked for, as far as they are there."""
        low, high = wanted.after + 1, wanted.before - 1 if wanted.before else self.top
        found = [
            each
            for each in self._entries
            if low <= each.number <= high and each.number > self.top - wanted.size
        ]
        return self.publications(found[-wanted.most :] if wanted.before else found[: wanted.most])

    def publications(self, entries: Sequence[Entry]) -> list[Publication]:
        made: list[Publication] = []
        for each in entries:
            publication = PositionedPublication(
                self.channel,
                each.payload,
                Position(each.stamp, self.until.mark),
                replayed=True,
                offset=each.number,
                began=self.began,
            )
            publication.info = each.info
            made.append(publication)
        return made


class IHistory(Protocol):
    """The part of a broker that knows positions. A broker may lack it: nobody can resume then, and
    ``centrifuge_url`` must be ``None``.
    """

    @property
    def position(self) -> Position | None:
        """Every message up to this position was handed to its listeners; ``None``: not known yet.

        Moves on at least every 10 s while Redis is there.
        """

    def when_handed_over(self, function: Callable[[], object]) -> None:
        """Call ``function`` between two messages, when all that has arrived was handed to its
        listeners: now, if it was.
        """

    def on_lost(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after each loss of the connection, when all that had arrived was handed
        to its listeners. Otherwise as ``IBroker.on_restored``.
        """

    def now(self) -> Deferred[Position | None]:
        """Fire with the position of the present; ``None`` if Redis permits no history."""

    def missed(
        self,
        channels: Sequence[bytes],
        since: Position | None,
        *,
        persisted: bool = False,
        replayed: bool = True,
    ) -> Deferred[Missed]:
        """Fire with everything that was published on ``channels`` after ``since`` and until a
        moment after this call. By then all that was published until that moment was handed to its
        listeners, too. A ``since`` that is ``None``, or of another data set, is a gap on all
        channels. With ``persisted``, the last message of every channel is there, if it is not
        among the ``messages``. ``replayed``: the publications are marked as such. Fails with
        ``BrokerUnavailable``.
        """

    def stream(self, wanted: Wanted, *, alone: bool = False) -> Deferred[Stream]:
        """Fire with the history of one channel, and with the messages there that are ``wanted`` at
        least. By then all that was published until its moment was handed to its listeners, too.
        ``alone``: exactly those; the read is shared with nobody. Fails with ``BrokerUnavailable``.
        """
