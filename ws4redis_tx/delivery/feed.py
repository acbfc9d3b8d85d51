"""One subscription of a client: it replays persisted messages, then it is live."""

from __future__ import annotations

from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import Joined, PersistedMessage, Publication
from ws4redis_tx.delivery.direct import CAREFUL, CHANGES, IDirect, settle_all
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.delivery.queues import Entry, IQueue, cost


class Feed:
    """A listener that hands messages to a client's outbox.

    During the replay, live messages wait behind the persisted ones. ``go_live`` ends the replay;
    from then on each message goes to the outbox at once. The feed keeps the order over all of its
    channels.
    """

    __slots__ = ("_live", "_outbox", "_replayed", "_waiting", "direct", "written")

    takes_joined = True

    own_pings = False
    """Whether the client's protocol has pings of its own, and no heartbeats."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._live = False
        # Messages that go out before the waiting ones, in the order of the calls to ``send``.
        self._replayed: list[Entry] = []
        # Live messages that arrived during the replay. Made for the first one.
        self._waiting: IQueue | None = None
        self.direct: IDirect = CAREFUL
        """The outbox, if messages can go straight to its socket."""
        self.written = 0
        """Number of messages that went straight out, without those that a section has to add."""

    @property
    def sent(self) -> int:
        """Number of messages that were written. As exact as ``settle_all``."""
        settle_all()
        return self.written + self._outbox.drained

    @property
    def closed(self) -> bool:
        return self._outbox.closed

    @property
    def replaying(self) -> bool:
        return not self._live and not self._outbox.closed

    def forms(self) -> list[bytes]:
        """Everything that waits for the end of the replay."""
        replayed = [entry[1] for entry in self._replayed]
        return replayed if self._waiting is None else replayed + self._waiting.forms()

    def drop_half(self) -> list[bytes]:
        """Drop the older half of what waits here, as ``Outbox.drop_half``."""
        return [] if self._waiting is None else self._outbox.drop_half(self._waiting)

    def deliver(self, publication: Publication | Joined) -> None:
        """Take a message from Redis, or several."""
        if publication.sender is self:
            return
        outbox = self._outbox
        if outbox.flows and self._live:
            codec = outbox.codec
            self.written += publication.number
            outbox.write(publication.forms.get(codec) or publication.form(codec))
            return
        for each in publication.parts:
            if outbox.closed:
                return
            if self._live:
                outbox.keep(each)
            else:
                outbox.keep_in(self._queue(), each)

    def send(self, payload: bytes) -> None:
        """Take a message of the application's own, or one that it read from a channel's key.

        During the replay, these messages go out before the waiting ones, in the order of the calls.
        A persisted message that is already waiting is not sent twice.
        """
        if self._outbox.closed:
            return
        channel = payload.channel if isinstance(payload, PersistedMessage) else None
        publication = Publication(channel, payload)
        if self._live:
            self.deliver(publication)
            return
        entry = (channel, publication.form(self._outbox.codec))
        if channel is not None or self._make_room(entry):
            self._replayed.append(entry)
            self._outbox.grew(cost(entry))

    def restart(self) -> None:
        """Forget all that was sent during the replay, because the replay is about to start again.

        The new replay's messages, too, may go out before the waiting ones. If one is not waiting,
        it was published before this feed listened: the broker itself delivers the messages that
        an outage swallowed.
        """
        for entry in self._replayed:
            if entry[0] is None:
                self._queue().size -= cost(entry)
        self._replayed.clear()

    def go_live(self) -> None:
        """End the replay. The caller guarantees that every live message that was published before
        the persisted ones were read has arrived here.
        """
        if not self.replaying:
            return
        queue = self._waiting
        waiting = set() if queue is None else queue.entries()
        first = [each for each in self._replayed if each[0] is None or each not in waiting]
        self._live = True
        self._replayed, self._waiting = [], None
        if self._outbox.can_be_direct:
            self.direct = self._outbox
            CHANGES.number += 1
        self._outbox.take_over(first, queue)

    def close(self) -> None:
        """Close the outbox, and forget the waiting messages. Idempotent."""
        self._outbox.close()
        self._replayed.clear()
        self._waiting = None

    def _queue(self) -> IQueue:
        if self._waiting is None:
            self._waiting = self._outbox.make_queue()
        return self._waiting

    def _make_room(self, entry: Entry) -> bool:
        """Count a message of the application's own towards the bound. The policy decides whether
        older ones of its kind are dropped.
        """
        outbox, queue = self._outbox, self._queue()
        while queue.size and queue.size + cost(entry) > outbox.max_pending:
            oldest = next((each for each in self._replayed if each[0] is None), None)
            if outbox.policy == CLOSE or oldest is None:
                outbox.give_up()
                return False
            self._replayed.remove(oldest)
            queue.size -= cost(oldest)
            outbox.dropped += 1
        queue.size += cost(entry)
        return True
