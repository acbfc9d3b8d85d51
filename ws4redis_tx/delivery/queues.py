"""What waits for one client, and what gives way when it is too much."""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import count
from typing import Protocol

from ws4redis_tx.core.messages import Publication

MESSAGE_COST = 160
"""Bytes that a waiting message takes in memory besides its frame."""

CLOSE, DROP_OLDEST, LATEST = "close", "drop_oldest", "latest"
SLOW_READER_POLICIES = (CLOSE, DROP_OLDEST, LATEST)


class IPending(Protocol):
    """Messages in the order in which they are to be written, of a bounded size.

    A message counts as the memory it takes: its frame, and ``MESSAGE_COST``. One is always
    accepted when nothing waits.
    """

    size: int
    """Of what waits, in bytes; whoever keeps more that counts adds it here."""

    dropped: int
    """How many messages gave way."""

    def append(self, publication: Publication) -> bool:
        """Return whether there was room, or could be made."""

    def popleft(self) -> Publication: ...

    def __len__(self) -> int: ...

    def keys(self) -> set[tuple[bytes | None, bytes]]:
        """Channel and frame of each."""


class Pending:
    """Refuses what does not fit (``close``)."""

    __slots__ = ("_messages", "_most", "dropped", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages: deque[Publication] = deque()
        self.size = 0
        self.dropped = 0

    def append(self, publication: Publication) -> bool:
        size = cost(publication)
        if self.size and self.size + size > self._most:
            return False
        self._messages.append(publication)
        self.size += size
        return True

    def popleft(self) -> Publication:
        publication = self._messages.popleft()
        self.size -= cost(publication)
        return publication

    def __len__(self) -> int:
        return len(self._messages)

    def keys(self) -> set[tuple[bytes | None, bytes]]:
        return {(publication.channel, publication.frame) for publication in self._messages}


class PendingNewest(Pending):
    """Makes room by dropping from the oldest on (``drop_oldest``)."""

    __slots__ = ()

    def append(self, publication: Publication) -> bool:
        room = self._most - cost(publication)
        while self._messages and self.size > room:
            self.popleft()
            self.dropped += 1
        return super().append(publication)


class PendingLatest:
    """Keeps the newest of each channel, in the place of the newest; drops from the oldest on if
    that is too much (``latest``). Messages without a channel are all kept as long as they fit.
    """

    __slots__ = ("_messages", "_most", "_numbers", "dropped", "size")

    def __init__(self, most: int) -> None:
        self._most = most
        self._messages: OrderedDict[object, Publication] = OrderedDict()
        self._numbers = count()
        self.size = 0
        self.dropped = 0

    def append(self, publication: Publication) -> bool:
        key = next(self._numbers) if publication.channel is None else publication.channel
        room = self._most - cost(publication)
        older = self._messages.pop(key, None)
        if older is not None:
            self._drop(older)
        while self._messages and self.size > room:
            self._drop(self._messages.popitem(last=False)[1])
        self._messages[key] = publication
        self.size += cost(publication)
        return True

    def _drop(self, publication: Publication) -> None:
        self.size -= cost(publication)
        self.dropped += 1

    def popleft(self) -> Publication:
        _, publication = self._messages.popitem(last=False)
        self.size -= cost(publication)
        return publication

    def __len__(self) -> int:
        return len(self._messages)

    def keys(self) -> set[tuple[bytes | None, bytes]]:
        return {(each.channel, each.frame) for each in self._messages.values()}


def cost(publication: Publication) -> int:
    return len(publication.frame) + MESSAGE_COST


def make_pending(policy: str, most: int) -> IPending:
    """For one of ``SLOW_READER_POLICIES``."""
    if policy == LATEST:
        return PendingLatest(most)
    return PendingNewest(most) if policy == DROP_OLDEST else Pending(most)
