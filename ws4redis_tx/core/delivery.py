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
    more, and ``overflow`` is called, once, and nothing further is sent. Persisted messages do not
    count: there is one a channel, and a client that could not get them could never connect.

    Order is kept over all channels. Nothing is written once it is closed.
    """

    __slots__ = (
        "_before",
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
        # With the bytes that each counts for.
        self._queue: deque[tuple[Publication, int]] = deque()
        self._replayed: deque[tuple[Publication, int]] = deque()
        # How much of the queue goes out before what is replayed.
        self._before = 0
        self._pending = 0

    @property
    def replaying(self) -> bool:
        return self._state is _REPLAYING

    @property
    def closed(self) -> bool:
        return self._state is _CLOSED

    @property
    def pending(self) -> int:
        """Bytes of the frames that wait here, persisted messages apart."""
        return self._pending

    def deliver(self, publication: Publication) -> None:
        """Take a message from Redis."""
        if publication.sender is self or self._state is _CLOSED:
            return
        if self._paused or self._state is _REPLAYING:
            self._enqueue(self._queue, publication)
        else:
            self._write(publication.frame)

    def send(self, payload: bytes) -> None:
        """Take a message of the application's own, or one that it read from a channel's key.

        While replaying it goes out before what queued, in the order of these calls; a persisted
        message only if it is not among what queued.
        """
        if isinstance(payload, PersistedMessage):
            publication = Publication(payload.channel, payload)
        else:
            publication = Publication(None, payload)
        if self._state is not _REPLAYING:
            self.deliver(publication)
        elif publication.channel is None:
            self._enqueue(self._replayed, publication)
        else:
            self._replayed.append((publication, 0))

    def interject(self, frame: bytes) -> None:
        """Write a frame that is no message and keeps no order, unless the client reads nothing."""
        if self._state is not _CLOSED and not self._paused:
            self._write(frame)

    def restart(self) -> None:
        """Forget what was replayed so far; it will be read and sent again, behind what queued
        until now.
        """
        self._pending -= sum(size for _, size in self._replayed)
        self._replayed.clear()
        self._before = len(self._queue)

    def go_live(self) -> None:
        """End the replay: the caller vouches that all live messages published before the
        persisted ones were read have arrived here.
        """
        if self._state is not _REPLAYING:
            return
        live = list(self._queue)
        queued = {(publication.channel, publication.payload) for publication, _ in live}
        self._queue = deque(live[: self._before])
        for publication, size in self._replayed:
            key = (publication.channel, publication.payload)
            if publication.channel is None or key not in queued:
                self._queue.append((publication, size))
        self._queue += live[self._before :]
        self._replayed.clear()
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

    def _enqueue(self, queue: deque[tuple[Publication, int]], publication: Publication) -> None:
        size = len(publication.frame)
        if self._pending and self._pending + size > self._max_pending:
            self.close()
            self._overflow()
            return
        queue.append((publication, size))
        self._pending += size

    def _drain(self) -> None:
        while self._queue and not self._paused:
            publication, size = self._queue.popleft()
            self._pending -= size
            self._write(publication.frame)
