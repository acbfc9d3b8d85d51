"""The bound on the memory that all clients of this process take together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from ws4redis_tx.delivery.queues import MESSAGE_COST

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session

_log = Logger()

ROOM = 8
"""When there is too much, an eighth of the bound is freed, so that this is not needed all the time.
"""

LOOK_INTERVAL = 0.1
"""Seconds between two looks at the clients while newcomers are refused."""

QUIET = 60.0
"""Seconds between two log lines."""


class PendingTotal:
    """Bounds the bytes that wait for all clients, or have come from them and are not done with.

    Sessions tell how much they grow, and not what they free. So the sum is an estimate, which is
    never too low. Only when it exceeds the bound are the sessions looked at. A message that several
    of them keep counts once then, as the memory that it takes.

    Beyond the bound, the sessions with the most give way first: messages are dropped or clients
    closed, as their policy says, until an eighth of the bound is free. A client that is closed may
    have up to 3 s to read what is on its way; should that be too much, it is dropped at once.
    """

    def __init__(self, most: int, reactor: Any) -> None:
        self._most = most
        self._reactor = reactor
        self._estimate = 0
        # Those that have grown since they were last seen to hold nothing.
        self._holders: set[Session] = set()
        self._relieving = False
        self.exceeded = False
        """Whether more was held than the bound, because clients that were closed still held it."""
        self._looked = self._told = -QUIET
        self._closed = self._dropped = 0

    def grew(self, session: Session, size: int) -> None:
        """``session`` may hold that many bytes more."""
        self._holders.add(session)
        self._estimate += size
        if self._estimate > self._most and not self._relieving:
            self._look()

    def forget(self, session: Session) -> None:
        """The session is over."""
        self._holders.discard(session)

    def still_exceeded(self) -> bool:
        """Whether it is ``exceeded``, after another look if the last one was a while ago."""
        if self._reactor.seconds() - self._looked >= LOOK_INTERVAL:
            self._look()
        return self.exceeded

    def _look(self) -> None:
        """Add up what is held, and free some of it if that is too much."""
        self._looked = self._reactor.seconds()
        held = _Held(self._holders)
        self._holders &= held.holders
        self.exceeded = held.total > self._most
        self._estimate = held.total - held.leaving
        if self._estimate > self._most or held.total > self._most * (1 + 1 / ROOM):
            self._relieving = True
            try:
                self._relieve(held)
            finally:
                self._relieving = False
            self._tell()

    def _relieve(self, held: _Held) -> None:
        for session in held.holders:
            if _leaves(session):
                session.transport.abort()
        aim = self._most - self._most // ROOM
        staying = [
            (-held.weight(session), id(session), session)
            for session in held.holders
            if not _leaves(session)
        ]
        heapify(staying)
        while staying and self._estimate > aim:
            _, _, session = heappop(staying)
            dropped = session.outbox.drop_half() or session.feed.drop_half()
            if dropped:
                self._dropped += len(dropped)
                self._estimate -= held.free(dropped) + MESSAGE_COST * len(dropped)
                heappush(staying, (-held.weight(session), id(session), session))
            else:
                self._closed += 1
                forms, size = _held_by(session)
                self._estimate -= held.free(forms) + size
                session.give_way()

    def _tell(self) -> None:
        now = self._reactor.seconds()
        if now - self._told < QUIET:
            return
        self._told = now
        _log.warn(
            "All clients together held more than the {most} bytes that WS4REDIS_MAX_PENDING_TOTAL "
            "(--max-pending-total) allows. Those that held the most gave way: {closed} were closed "
            "with 1013, and {dropped} messages were dropped",
            most=self._most,
            closed=self._closed,
            dropped=self._dropped,
        )
        self._closed = self._dropped = 0


class _Held:
    """What some sessions hold. Each message counts once, however many sessions keep it."""

    def __init__(self, sessions: Iterable[Session]) -> None:
        self.holders: set[Session] = set()
        self.total = self.leaving = 0
        self._keepers: Counter[int] = Counter()
        for session in sessions:
            forms, size = _held_by(session)
            if forms or size:
                self.holders.add(session)
                new = {id(each): len(each) for each in forms if id(each) not in self._keepers}
                self._keepers.update(map(id, forms))
                size += sum(new.values())
                self.total += size
                if _leaves(session):
                    self.leaving += size

    def weight(self, session: Session) -> int:
        """Bytes that a session holds, whoever else keeps them."""
        forms, size = _held_by(session)
        return size + sum(map(len, forms))

    def free(self, forms: Iterable[bytes]) -> int:
        """A session keeps ``forms`` no more; return the bytes that are free now."""
        freed = 0
        for form in forms:
            self._keepers[id(form)] -= 1
            if not self._keepers[id(form)]:
                freed += len(form)
        return freed


def _held_by(session: Session) -> tuple[list[bytes], int]:
    """The messages that a session keeps, perhaps together with others, and the number of bytes that
    belong to it alone.
    """
    forms = session.outbox.forms() + session.feed.forms()
    size = session.transport.incoming + session.unacknowledged + MESSAGE_COST * len(forms)
    return [*forms, *session.transport.outgoing], size


def _leaves(session: Session) -> bool:
    """Whether it was closed or refused, and lasts only until its client is gone."""
    return session.ended or (session.opening is None and session.outbox.closed)
