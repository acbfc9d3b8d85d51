"""One client's outbox: everything that it is sent, in order over all its channels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Protocol

from ws4redis_tx.core.interfaces import IWriter
from ws4redis_tx.core.messages import ICodec, Publication
from ws4redis_tx.delivery.queues import Entry, IQueue, cost, make_queue


class IOwner(Protocol):
    """Whoever owns an outbox: its session."""

    def overflow(self) -> None:
        """More messages wait than may, and the policy is to close."""


class Outbox:
    """Writes to ``writer`` at once while it may, and otherwise keeps what has to wait.

    Messages wait while the transport has asked for a pause. At most ``max_pending`` bytes wait;
    ``policy``, one of ``core.limits.SLOW_READER_POLICIES``, says which messages give way beyond
    that. With ``close``, ``owner`` is told once, and nothing more is written.

    Nothing is written after ``close``.
    """

    __slots__ = (
        "_first", "_owner", "_queue", "_writer", "closed", "codec", "dropped", "flowing",
        "max_pending", "paused", "policy", "unsent",
    )  # fmt: skip

    def __init__(
        self,
        writer: IWriter,
        codec: ICodec,
        owner: IOwner,
        max_pending: int,
        policy: str,
    ) -> None:
        self.codec = codec
        self.max_pending = max_pending
        self.policy = policy
        self.closed = False
        self.paused = False
        self.dropped = 0
        """Number of messages that gave way to newer ones."""
        self.unsent = 0
        """Number of messages that were still waiting when it was closed."""
        self.flowing: IWriter | None = writer
        """The writer, while nothing waits and nothing has to: a message may go straight to it."""
        self._writer = writer
        self._owner = owner
        # Both are made when they are first needed, which they rarely are.
        self._queue: IQueue | None = None
        self._first: deque[Entry] | None = None

    @property
    def pending(self) -> int:
        """Bytes that wait, persisted messages apart."""
        return 0 if self._queue is None else self._queue.size

    def make_queue(self) -> IQueue:
        """A queue with this outbox's policy and bound, for messages that wait elsewhere."""
        return make_queue(self.policy, self.max_pending)

    def keep(self, publication: Publication) -> None:
        """Keep a message that cannot be written at once. Nothing, once it is closed."""
        if not self.closed:
            if self._queue is None:
                self._queue = self.make_queue()
            self.keep_in(self._queue, publication)

    def keep_in(self, queue: IQueue, publication: Publication) -> None:
        """Put a message into ``queue``, by the policy."""
        codec, before = self.codec, queue.dropped
        form = publication.forms.get(codec) or publication.form(codec)
        if queue.append((publication.channel, form)):
            self.dropped += queue.dropped - before
        else:
            self.give_up()

    def give_up(self) -> None:
        """Too many messages wait: write nothing more, and say so."""
        self.close()
        self._owner.overflow()

    def write_control(self, data: bytes) -> None:
        """Write what is no message and has no place in their order, such as a ping. Dropped while
        the client does not read: it would pile up.
        """
        if not self.closed and not self.paused:
            self._writer.write(data)

    def take_over(self, first: Iterable[Entry], queue: IQueue | None) -> None:
        """Send ``first``, then what waits in ``queue``.

        Of ``first``, the entries without a channel are counted in ``queue.size``; the others are
        not counted: they are persisted messages, one for each channel at most, and a client that
        could not get them could never connect.
        """
        self._first = deque(first)
        self._queue = queue
        self._drain()

    def pause(self) -> None:
        self.paused = True
        self.flowing = None

    def resume(self) -> None:
        self.paused = False
        if not self.closed:
            self._drain()

    def close(self) -> None:
        """Final. Idempotent."""
        if not self.closed:
            self.unsent = len(self._first or ()) + (0 if self._queue is None else len(self._queue))
        self.closed = True
        self.flowing = None
        self._queue = self._first = None

    def _drain(self) -> None:
        """Write what waits, until the transport asks for a pause."""
        write = self._writer.write
        while self._first and not self.paused:
            entry = self._first.popleft()
            if entry[0] is None and self._queue is not None:
                self._queue.size -= cost(entry)
            write(entry[1])
        while self._queue and not self.paused:
            write(self._queue.popleft()[1])
        if not self.closed and not self.paused:
            self._queue = self._first = None
            self.flowing = self._writer
