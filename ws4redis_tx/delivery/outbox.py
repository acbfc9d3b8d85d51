"""One client's outbox: everything that it is sent, in order over all of its channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Protocol

from ws4redis_tx.core.interfaces import NO_SOCKET, ISocket, IWriter
from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import ICodec, Publication
from ws4redis_tx.delivery.direct import CHANGES
from ws4redis_tx.delivery.queues import Entry, IQueue, cost, make_queue


class IOwner(Protocol):
    """The owner of an outbox: its session."""

    def overflow(self) -> None:
        """Too many messages are waiting, and the policy is to close."""

    def grew(self, size: int) -> None:
        """That many bytes more are waiting."""


class IHoles(Protocol):
    """Tells a client that keeps its position where messages were dropped."""

    def note(self, entry: Entry) -> None:
        """This one was dropped."""

    def take(self, following: Entry | None) -> bytes:
        """The bytes to send before the entry that is written next, if one is waiting; ``b""`` if
        nothing was dropped.
        """


class Outbox:
    """Writes to ``writer`` at once, or keeps messages while the transport has asked for a pause.

    At most ``max_pending`` bytes wait. Beyond that, ``policy``, one of
    ``core.limits.SLOW_READER_POLICIES``, decides which messages are dropped. With the policy
    ``close``, ``owner`` is told once, and nothing more is written.

    Nothing is written after ``close``.
    """

    __slots__ = (
        "_first", "_owner", "_queue", "_writer", "can_be_direct", "closed", "codec", "drained",
        "dropped", "flows", "holes", "max_pending", "paused", "policy", "socket",
    )  # fmt: skip

    def __init__(
        self,
        writer: IWriter,
        codec: ICodec,
        owner: IOwner,
        max_pending: int,
        policy: str,
    ) -> None:
        self.codec: Any = codec
        self.max_pending = max_pending
        self.policy = policy
        self.closed = False
        self.paused = False
        self.dropped = 0
        """Number of messages that were dropped in favour of newer ones."""
        self.drained = 0
        """Number of messages that were written after they had waited."""
        self.flows = True
        """Whether no message has to wait: ``write`` may be called."""
        self.socket: ISocket = NO_SOCKET
        """The client's socket while a message may go straight to it, else ``NO_SOCKET``. If it
        takes less than all, ``leave`` must be called.
        """
        self._writer: Any = writer
        self.can_be_direct = hasattr(writer, "direct")
        """Whether ``socket`` can ever be the client's."""
        self._owner = owner
        self.holes: IHoles | None = None
        """Where messages were dropped, for a client that keeps its position."""
        # Both are rarely needed, so they are made on first use.
        self._queue: IQueue | None = None
        self._first: deque[Entry] | None = None

    def make_queue(self) -> IQueue:
        """A queue with this outbox's policy and bound, for messages that wait elsewhere."""
        on_drop = None if self.holes is None else self.holes.note
        return make_queue(self.policy, self.max_pending, on_drop)

    def keep(self, publication: Publication) -> None:
        """Keep a message that cannot be written yet. Does nothing once the outbox is closed."""
        if not self.closed:
            if self._queue is None:
                self._queue = self.make_queue()
            self.keep_in(self._queue, publication)

    def keep_in(self, queue: IQueue, publication: Publication) -> None:
        """Put a message into ``queue``. Give up if the queue refuses it."""
        codec, before, channel = self.codec, queue.dropped, publication.channel
        entry: Entry = (channel, publication.forms.get(codec) or publication.form(codec))
        if self.holes is not None and (position := publication.before) is not None:
            entry = (*entry, position)
        if queue.append(entry):
            self.dropped += queue.dropped - before
            self._owner.grew(cost(entry))
        else:
            self.give_up()

    def give_up(self) -> None:
        """Too many messages are waiting: write nothing more, and tell the owner."""
        self.close()
        self._owner.overflow()

    def forms(self) -> list[bytes]:
        """Everything that waits, the persisted messages included."""
        first = [entry[1] for entry in self._first or ()]
        return first if self._queue is None else first + self._queue.forms()

    def drop_half(self, queue: IQueue | None = None) -> list[bytes]:
        """Drop the older half of the messages that wait, or of those in ``queue``, and return them:
        none if the policy is to close.
        """
        queue = queue or self._queue
        if queue is None or self.policy == CLOSE:
            return []
        dropped = [queue.popleft() for _ in range((len(queue) + 1) // 2)]
        self.dropped += len(dropped)
        if self.holes is not None:
            for entry in dropped:
                self.holes.note(entry)
        return [entry[1] for entry in dropped]

    def grew(self, size: int) -> None:
        """That many bytes more wait elsewhere."""
        self._owner.grew(size)

    def write(self, data: bytes) -> None:
        """Write a message, while it ``flows``."""
        writer = self._writer
        try:
            writer.write(data)
        finally:
            if self.can_be_direct and self.socket is not writer.direct:
                self._update()

    def leave(self, data: bytes, sent: int) -> None:
        """Take the rest of ``data``, of which ``socket`` has taken the first ``sent`` bytes."""
        try:
            self._writer.leave(data, sent)
        finally:
            self._update()

    def _update(self) -> None:
        """Set ``socket``, after anything that decides about it."""
        socket = self._writer.direct if self.can_be_direct and self.flows else NO_SOCKET
        if socket is not self.socket:
            self.socket = socket
            CHANGES.number += 1

    def write_control(self, data: bytes) -> None:
        """Write at once something other than a message, such as a ping. While the client does not
        read, it is dropped so that it cannot pile up.
        """
        if not self.closed and not self.paused:
            self.write(data)

    def take_over(self, first: Iterable[Entry], queue: IQueue | None) -> None:
        """Send ``first``, then the messages in ``queue``.

        ``queue.size`` includes the entries of ``first`` that have no channel. The others are
        persisted messages, at most one for each channel. They are not counted, because a client
        that could not get them could never connect.
        """
        self._first = deque(first)
        self._queue = queue
        self._drain()

    def replay(self, entries: Iterable[Entry]) -> None:
        """Send ``entries`` after everything that waits already. They do not count towards
        ``max_pending`` either, but the owner learns how much of them has to wait.
        """
        if self.closed:
            return
        waiting = [*(self._first or ())]
        while self._queue:
            entry = self._queue.popleft()
            waiting += [(b"", self._holes_before(entry)), (entry[0] or b"", entry[1])]
        waiting += [(b"", self._holes_before(None)), *entries]
        self._first = deque([each for each in waiting if each[1]])
        self._drain()
        if self._first:
            self._owner.grew(sum(map(cost, self._first)))

    def pause(self) -> None:
        self.paused = True
        self.flows = False
        self._update()

    def resume(self) -> None:
        self.paused = False
        if not self.closed:
            self._drain()

    def close(self) -> None:
        """Final. Idempotent."""
        self.closed = True
        self.flows = False
        self._update()
        self._queue = self._first = None

    def _drain(self) -> None:
        """Write the waiting messages until the transport asks for a pause."""
        write = self._writer.write
        while self._first and not self.paused:
            entry = self._first.popleft()
            if entry[0] is None and self._queue is not None:
                self._queue.size -= cost(entry)
            write(entry[1])
            self.drained += 1
        while self._queue and not self.paused:
            entry = self._queue.popleft()
            if self.holes is not None and (told := self._holes_before(entry)):
                write(told)
            write(entry[1])
            self.drained += 1
        if self.holes is not None and not self.paused and (told := self._holes_before(None)):
            write(told)
        if not self.closed and not self.paused:
            self._queue = self._first = None
            self.flows = True
            if self.can_be_direct:
                self._update()

    def _holes_before(self, entry: Entry | None) -> bytes:
        """The bytes to write before ``entry``, the next one; ``b""`` if nothing was dropped."""
        return b"" if self.holes is None else self.holes.take(entry)
