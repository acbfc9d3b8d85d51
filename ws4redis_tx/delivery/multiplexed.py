"""The feed of a client whose subscriptions come and go while it is connected."""

from __future__ import annotations

from typing import Protocol

from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.delivery.direct import CAREFUL, CHANGES
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.outbox import Outbox


class ICatcher(Protocol):
    """Takes the messages of one channel until its subscription is answered."""

    def hold(self, publication: Publication) -> None:
        """Keep a message."""


class MultiplexedFeed(Feed):
    """A live ``Feed``, of which some channels may be held back."""

    __slots__ = ("_caught",)

    own_pings = True

    def __init__(self, outbox: Outbox) -> None:
        super().__init__(outbox)
        self._caught: dict[bytes, ICatcher] = {}

    def catch(self, channel: bytes, catcher: ICatcher) -> None:
        """Give the messages of ``channel`` to ``catcher``, until ``release``."""
        self._caught[channel] = catcher
        if self.direct is not CAREFUL:
            self.direct = CAREFUL
            CHANGES.number += 1

    def release(self, channel: bytes) -> None:
        """Idempotent."""
        outbox = self._outbox
        last = self._caught.pop(channel, None) is not None and not self._caught
        if last and outbox.can_be_direct and not outbox.closed:
            self.direct = outbox
            CHANGES.number += 1

    def deliver(self, publication: Publication | Joined) -> None:
        if not self._caught:
            super().deliver(publication)
            return
        for each in publication.parts:
            catcher = None if each.channel is None else self._caught.get(each.channel)
            if catcher is None:
                super().deliver(each)
            else:
                catcher.hold(each)

    def pass_on(self, publication: Publication) -> None:
        """Deliver what a catcher has held."""
        super().deliver(publication)

    def close(self) -> None:
        super().close()
        self._caught.clear()
