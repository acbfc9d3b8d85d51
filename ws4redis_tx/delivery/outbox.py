"""What one connection has yet to be sent, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ws4redis_tx.core.interfaces import IWriter
from ws4redis_tx.core.messages import Joined, PersistedMessage, Publication
from ws4redis_tx.delivery.queues import CLOSE, IPending, cost, make_pending

_REPLAYING, _LIVE, _CLOSED = "replaying", "live", "closed"


class Delivery:
    """A connection's listener: replaying → live → closed.

    While replaying, live messages wait behind what is persisted. When live, each goes straight to
    the ``writer``, unless the transport asked for a pause; then it waits. At most ``max_pending``
    bytes wait; what happens when they would be more is up to the ``policy``, one of
    ``core.pending.SLOW_READER_POLICIES``. With ``close``, ``overflow`` is called, once, and nothing
    further is sent. Persisted messages do not count: there is one a channel, and a client that
    could not get them could never connect.

    Order is kept over all channels. Nothing is written once it is closed.
    """

    __slots__ = (
        "_flowing",
        "_max_pending",
        "_overflow",
        "_paused",
        "_pending",
        "_policy",
        "_replayed",
        "_state",
        "_writer",
        "dropped",
    )

    takes_joined = True

    def __init__(
        self,
        writer: IWriter,
        overflow: Callable[[], object],
        max_pending: int,
        policy: str = CLOSE,
    ) -> None:
        self._writer = writer
        self._overflow = overflow
        self._max_pending = max_pending
        self._policy = policy
        self._state = _REPLAYING
        self._paused = False
        # The writer while it is live, not paused, and nothing waits.
        self._flowing: IWriter | None = None
        # Made when something has to wait: most connections never need it.
        self._pending: IPending | None = None
        self._replayed: list[Publication] = []
        self.dropped = 0
        """How many messages gave way to newer ones, as the policy has it."""

    @property
    def replaying(self) -> bool:
        return self._state is _REPLAYING

    @property
    def closed(self) -> bool:
        return self._state is _CLOSED

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def pending(self) -> int:
        """Bytes that wait here, persisted messages apart."""
        return 0 if self._pending is None else self._pending.size

    def deliver(self, publication: Publication | Joined) -> None:
        """Take what came from Redis."""
        if publication.sender is self:
            return
        flowing = self._flowing
        if flowing is not None:
            flowing.write(publication.frame)
        else:
            for each in publication.parts:
                if self._state is not _CLOSED:
                    self._keep(each)

    def send(self, payload: bytes) -> None:
        """Take a message of the application's own, or one that it read from a channel's key.

        While replaying it goes out before what waits, in the order of these calls; a persisted
        message only if it is not among what waits.
        """
        if self._state is _CLOSED:
            return
        channel = payload.channel if isinstance(payload, PersistedMessage) else None
        publication = self._publication(channel, payload)
        if self._state is _LIVE:
            self.deliver(publication)
        elif channel is not None:
            self._replayed.append(publication)
        else:
            self._keep_own(publication)

    def interject(self, frame: bytes) -> None:
        """Write a frame that is no message and keeps no order, unless the client does not read."""
        if self._state is not _CLOSED and not self._paused:
            self._writer.write(frame)

    def restart(self) -> None:
        """Forget what was sent so far, in ``send_persisted_messages`` or beside it; that will be
        called again.

        It still goes before what waits: a message that is not among that was published before this
        listener listened, since a broker delivers itself what an outage swallowed.
        """
        for publication in self._replayed:
            if publication.channel is None:
                self._waiting().size -= cost(publication)
        self._replayed.clear()

    def go_live(self) -> None:
        """End the replay: the caller vouches that all live messages published before the
        persisted ones were read have arrived here.
        """
        if self._state is not _REPLAYING:
            return
        waiting = set() if self._pending is None else self._pending.keys()
        self._replayed = [
            publication
            for publication in reversed(self._replayed)
            if publication.channel is None
            or (publication.channel, publication.frame) not in waiting
        ]
        self._state = _LIVE
        self._drain()

    def pause(self) -> None:
        self._paused = True
        self._flowing = None

    def resume(self) -> None:
        self._paused = False
        if self._state is _LIVE:
            self._drain()

    def close(self) -> None:
        """Final: nothing is written from here on."""
        self._state = _CLOSED
        self._flowing = None
        self._pending = None
        self._replayed.clear()

    def _publication(self, channel: bytes | None, payload: bytes) -> Publication:
        return Publication(channel, payload)

    def _waiting(self) -> IPending:
        if self._pending is None:
            self._pending = make_pending(self._policy, self._max_pending)
        return self._pending

    def _keep(self, publication: Publication) -> None:
        pending = self._waiting()
        before = pending.dropped
        if pending.append(publication):
            self.dropped += pending.dropped - before
        else:
            self._give_up()

    def _give_up(self) -> None:
        self.close()
        self._overflow()

    def _keep_own(self, publication: Publication) -> None:
        while self.pending and self.pending + cost(publication) > self._max_pending:
            oldest = next((each for each in self._replayed if each.channel is None), None)
            if self._policy == CLOSE or oldest is None:
                self._give_up()
                return
            self._replayed.remove(oldest)
            self._waiting().size -= cost(oldest)
            self.dropped += 1
        self._replayed.append(publication)
        self._waiting().size += cost(publication)

    def _drain(self) -> None:
        """Write what waits, until the transport asks for a pause."""
        while self._replayed and not self._paused:  # the first one is the last in the list
            publication = self._replayed.pop()
            if publication.channel is None:
                self._waiting().size -= cost(publication)
            self._write(publication)
        while self._pending and not self._paused:
            self._write(self._pending.popleft())
        if self._state is _LIVE and not self._paused:
            self._pending = None
            self._flowing = self._writer

    def _write(self, publication: Publication) -> None:
        self._writer.write(publication.frame)


class CompressedDelivery(Delivery):
    """Of a connection that agreed on compression: what it is sent, and what waits for it, is each
    message's compressed form.
    """

    __slots__ = ()

    def deliver(self, publication: Publication | Joined) -> None:
        if publication.sender is self:
            return
        flowing = self._flowing
        if flowing is not None:
            flowing.write((publication.compressed or publication.compress()).frame)
        else:
            for each in publication.parts:
                super().deliver(each.compress())

    def _publication(self, channel: bytes | None, payload: bytes) -> Publication:
        return super()._publication(channel, payload).compress()


class CountedDelivery(Delivery):
    """One that knows how many messages it has ``sent``, for a call more of each."""

    __slots__ = ("sent",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sent = 0

    def deliver(self, publication: Publication | Joined) -> None:
        if self._flowing is not None and publication.sender is not self:
            self.sent += len(publication.parts) if isinstance(publication, Joined) else 1
        super().deliver(publication)

    def _write(self, publication: Publication) -> None:
        self.sent += 1
        super()._write(publication)


class CountedCompressedDelivery(CountedDelivery, CompressedDelivery):
    __slots__ = ()
