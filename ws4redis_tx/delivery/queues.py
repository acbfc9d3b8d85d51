"""Queues of messages that wait for one client. Each has its own rule for too many messages."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from itertools import count
from typing import Protocol

from ws4redis_tx.core.limits import DROP_OLDEST, LATEST
from ws4redis_tx.core.positions import Position

MESSAGE_COST = 160
"""Bytes of memory that a waiting message takes in addition to the bytes that are sent."""

Entry = tuple[bytes | None, bytes] | tuple[bytes | None, bytes, Position]
"""A waiting message: its channel (``None``: it did not come from Redis), and its encoded bytes. For
a client that keeps its position, also the position before it.
"""

OnDrop = Callable[[Entry], object]


class IQueue(Protocol):
    """Messages in the order in which they will be written, bounded in size.

    A message counts as the memory that it takes: its encoded bytes and ``MESSAGE_COST``. An empty
    queue accepts one message of any size.
    """

    size: int
    """Bytes of the waiting messages. The owner adds anything else that counts towards the bound."""

    dropped: int
    """Number of messages that were dropped in favour of others."""

    def append(self, entry: Entry) -> bool:
        """Return whether there was room, or older messages could make room."""

    def popleft(self) -> Entry: ...

    def __len__(self) -> int: ...

    def entries(self) -> set[Entry]:
        """The waiting messages, in no order."""

    def forms(self) -> list[bytes]:
        """Their encoded bytes, in order."""


class RefusingQueue:
    """Refuses a message that does not fit (the policy ``close``)."""

    __slots__ = ("_entries", "_max_size", "_on_drop", "dropped", "size")

    def __init__(self, most: int, on_drop: OnDrop | None = None) -> None:
        self._max_size = most
        self._on_drop = on_drop
        self._entries: deque[Entry] = deque()
        self.size = 0
        self.dropped = 0

    def append(self, entry: Entry) -> bool:
        size = cost(entry)
        if self.size and self.size + size > self._max_size:
            return False
        self._entries.append(entry)
        self.size += size
        return True

    def popleft(self) -> Entry:
        entry = self._entries.popleft()
        self.size -= cost(entry)
        return entry

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> set[Entry]:
        return set(self._entries)

    def forms(self) -> list[bytes]:
        return [entry[1] for entry in self._entries]


class DropOldestQueue(RefusingQueue):
    """Makes room by dropping the oldest messages (``drop_oldest``)."""

    __slots__ = ()

    def append(self, entry: Entry) -> bool:
        room = self._max_size - cost(entry)
        while self._entries and self.size > room:
            oldest = self.popleft()
            self.dropped += 1
            if self._on_drop is not None:
                self._on_drop(oldest)
        return super().append(entry)


class LatestPerChannelQueue:
    """Keeps only the newest message of each channel (``latest``). It goes to the end of the queue.
    If there are still too many, the oldest are dropped. Messages without a channel are all kept
    while they fit.
    """

    __slots__ = ("_entries", "_max_size", "_numbers", "_on_drop", "dropped", "size")

    def __init__(self, most: int, on_drop: OnDrop | None = None) -> None:
        self._max_size = most
        self._on_drop = on_drop
        self._entries: OrderedDict[object, Entry] = OrderedDict()
        self._numbers = count()
        self.size = 0
        self.dropped = 0

    def append(self, entry: Entry) -> bool:
        channel = entry[0]
        key = next(self._numbers) if channel is None else channel
        room = self._max_size - cost(entry)
        older = self._entries.pop(key, None)
        if older is not None:
            self._drop(older)
        while self._entries and self.size > room:
            self._drop(self._entries.popitem(last=False)[1])
        self._entries[key] = entry
        self.size += cost(entry)
        return True

    def _drop(self, entry: Entry) -> None:
        self.size -= cost(entry)
        self.dropped += 1
        if self._on_drop is not None:
            self._on_drop(entry)

    def popleft(self) -> Entry:
        _, entry = self._entries.popitem(last=False)
        self.size -= cost(entry)
        return entry

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self) -> set[Entry]:
        return set(self._entries.values())

    def forms(self) -> list[bytes]:
        return [entry[1] for entry in self._entries.values()]


def cost(entry: Entry) -> int:
    return len(entry[1]) + MESSAGE_COST


def make_queue(policy: str, most: int, on_drop: OnDrop | None = None) -> IQueue:
    """The queue for one of ``core.limits.SLOW_READER_POLICIES``. ``on_drop`` is told of each entry
    that makes room for another.
    """
    if policy == LATEST:
        return LatestPerChannelQueue(most, on_drop)
    if policy == DROP_OLDEST:
        return DropOldestQueue(most, on_drop)
    return RefusingQueue(most, on_drop)
