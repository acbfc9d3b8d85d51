"""What one connection has yet to be sent, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ws4redis_tx.core.messages import PersistedMessage, Publication

_REPLAYING, _LIVE, _CLOSED = "replaying", "live", "closed"


class Delivery:
    """A connection's listener: replaying → live → closed.

    While replaying, live messages queue behind what is persisted. When live, each goes straight
    to ``write``, unless the transport asked for a pause; then it queues. The queue holds at most
    ``max_pending`` bytes of frames (one message is always accepted when nothing is pending); one
    more, and ``overflow`` is called, once, and nothing further is sent.

    Order is kept over all channels. Nothing is written once it is closed.
    """

    __slots__ = (
        "_max_pending",
        "_overflow",
        "_paused",
        "_pending",
        "_queue",
        "_replayed",
        "_state",
        "_write",
    )

    def __init__(
        self, write: Callable[[bytes], object], overflow: Callable[[], object], max_pending: int
    ) -> None:
        self._write = write
        self._overflow = overflow
        self._max_pending = max_pending
        self._state = _REPLAYING
        self._paused = False
        self._queue: deque[Publication] = deque()
        self._pending = 0
        self._replayed: list[Publication] = []

    @property
    def pending(self) -> int:
        """Bytes of the frames that wait here."""
        return self._pending

    def deliver(self, publication: Publication) -> None:
        """Take a message from Redis."""
        if self._state is _LIVE and not self._paused:
            if publication.sender is not self:
                self._write(publication.frame)
        elif self._state is not _CLOSED:
            # An own message is queued too: replay must know that it was seen.
            self._enqueue(publication)

    def send(self, payload: bytes) -> None:
        """Take a message of the application's own, or one that it read from a channel's key.

        While replaying it goes out before what queued, in the order of these calls; a persisted
        message only if it is not among what queued.
        """
        if self._state is _REPLAYING:
            self._replayed.append(_publication(payload))
        else:
            self.deliver(_publication(payload))

    def restart(self) -> None:
        """Forget what was replayed so far; it will be read and sent again."""
        self._replayed.clear()

    def go_live(self) -> None:
        """End the replay: the caller vouches that all live messages published before the
        persisted ones were read have arrived here.
        """
        if self._state is not _REPLAYING:
            return
        queued = {(publication.channel, publication.payload) for publication in self._queue}
        replayed, self._replayed = self._replayed, []
        for publication in reversed(replayed):
            if publication.channel is None or (
                (publication.channel, publication.payload) not in queued
            ):
                self._queue.appendleft(publication)
                self._pending += len(publication.frame)
        self._state = _LIVE
        self._drain()

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._state is _LIVE:
            self._drain()

    def close(self) -> None:
        """Final: nothing is written from here on."""
        self._state = _CLOSED
        self._queue.clear()
        self._replayed.clear()
        self._pending = 0

    def _enqueue(self, publication: Publication) -> None:
        size = len(publication.frame)
        if self._pending and self._pending + size > self._max_pending:
            self.close()
            self._overflow()
            return
        self._queue.append(publication)
        self._pending += size

    def _drain(self) -> None:
        while self._queue and not self._paused:
            publication = self._queue.popleft()
            self._pending -= len(publication.frame)
            if publication.sender is not self:
                self._write(publication.frame)


def _publication(payload: bytes) -> Publication:
    if isinstance(payload, PersistedMessage):
        return Publication(payload.channel, payload)
    return Publication(None, payload)
