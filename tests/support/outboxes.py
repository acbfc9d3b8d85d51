"""A feed with its outbox, as in a session."""

from __future__ import annotations

from collections.abc import Callable

from ws4redis_tx.core.interfaces import IWriter
from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import ICodec, Joined, Publication
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.websocket.frames import PLAIN


class FedOutbox:
    """Combines both in one object, with the names of their methods."""

    def __init__(
        self,
        writer: IWriter,
        overflow: Callable[[], object],
        max_pending: int,
        policy: str = CLOSE,
        *,
        codec: ICodec = PLAIN,
    ) -> None:
        self._overflow = overflow
        self.outbox = Outbox(writer, codec, self, max_pending, policy)
        self.feed = Feed(self.outbox)
        self.send = self.feed.send
        self.restart = self.feed.restart
        self.go_live = self.feed.go_live
        self.close = self.feed.close
        self.pause = self.outbox.pause
        self.resume = self.outbox.resume

    def overflow(self) -> None:
        self.close()
        self._overflow()

    def grew(self, size: int) -> None:
        """Nobody adds up what waits."""

    def deliver(self, publication: Publication | Joined) -> None:
        self.feed.deliver(publication)

    @property
    def pending(self) -> int:
        """Bytes that wait, without the persisted messages."""
        queues = (self.feed._waiting, self.outbox._queue)
        return sum(queue.size for queue in queues if queue is not None)

    @property
    def dropped(self) -> int:
        return self.outbox.dropped
