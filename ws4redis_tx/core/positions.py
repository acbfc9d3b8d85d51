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

from ws4redis_tx.core.names import audience_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.messages import Publication

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


class IHistory(Protocol):
    """The part of a broker that knows positions. A broker may lack it: nobody can resume then."""

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
