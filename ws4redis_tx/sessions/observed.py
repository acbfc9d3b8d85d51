"""What a session's observers are told, and asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import Deferred, succeed

from ws4redis_tx.sessions.interfaces import ISessionObserver

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session


class Observed:
    """The part of a session that knows its observers. Most sessions have none."""

    __slots__ = ("observers",)

    observers: Sequence[ISessionObserver]
    """Those that are told of this session: the server's, without those that were idle when the
    session began.
    """

    if TYPE_CHECKING:

        @property
        def speaks(self) -> bool: ...

    @property
    def observed(self) -> bool:
        return bool(self.observers)

    def tell(self, event: str, *arguments: Any) -> None:
        """Tell each observer, by its method of this name."""
        for observer in self.observers:
            getattr(observer, event)(self, *arguments)

    def subscribed(self, channel: bytes) -> None:
        if self.observers:
            self.tell("subscribed", channel.decode(errors="replace"))

    def unsubscribed(self, channel: bytes) -> None:
        if self.observers:
            self.tell("unsubscribed", channel.decode(errors="replace"))

    def judge(self, message: bytes) -> Deferred[bytes | None] | None:
        if not self.observers:
            return None
        answer: Deferred[bytes | None] = succeed(message)
        for observer in self.observers:
            answer = answer.addCallback(self._ask, observer)
        return answer.addCallback(self._judged)

    def _ask(
        self, message: bytes | None, observer: ISessionObserver
    ) -> Deferred[bytes | None] | None:
        return None if message is None else observer.message(cast("Session", self), message)

    def _judged(self, message: bytes | None) -> bytes | None:
        return message if self.speaks else None
