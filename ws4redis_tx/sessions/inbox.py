"""The messages of one client on their way to its protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import maybeDeferred
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.delivery.queues import MESSAGE_COST

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session

MAX_UNACKNOWLEDGED = 64
"""Unacknowledged messages of one client, after which no more are read from it."""

CLOSE_WAIT = 2.0
"""Seconds for which a client's close waits for its earlier messages to be acknowledged."""


class Inbox:
    """Hands each message to the protocol, in order, and counts those not acknowledged yet.

    While there are too many of them, or the client does not read, nothing more is read from it.
    Messages would otherwise pile up here.
    """

    __slots__ = (
        "_close_timer", "_session", "_size", "_unacknowledged", "number", "reading",
    )  # fmt: skip

    def __init__(self, session: Session) -> None:
        self._session = session
        self._unacknowledged = 0
        self._size = 0
        # Runs while a client's close waits.
        self._close_timer: Any = None
        self.number = 0
        """Number of messages that were taken."""
        self.reading = True
        """Whether the server reads the client's bytes."""

    @property
    def size(self) -> int:
        """Bytes of the messages that are not acknowledged yet."""
        return self._size + MESSAGE_COST * self._unacknowledged

    def receive(self, payload: bytes) -> None:
        """Take a message, unless the client has begun to close."""
        if self._close_timer is not None:
            return
        self.number += 1
        self._unacknowledged += 1
        self._size += len(payload)
        self.pace()
        taken = maybeDeferred(self._session.protocol.received, self._session, payload)
        taken.addErrback(self._failed).addBoth(self._acknowledged, len(payload))
        self._session.grew(len(payload) + MESSAGE_COST)

    def _failed(self, failure: Failure) -> None:
        if failure.check(BrokerUnavailable):
            log = self._session.server.log
            log.warn("A client's message was not published", str(failure.value))
            self._session.close(1013, "The message may not have been published.")
        else:
            self._session.fail(failure, "Publishing a client's message failed")

    def _acknowledged(self, _: object, size: int) -> None:
        self._unacknowledged -= 1
        self._size -= size
        self.pace()
        if not self._unacknowledged and self._close_timer is not None:
            self.answer_close()

    def pace(self) -> None:
        """Pause or resume reading from the client."""
        session = self._session
        reading = (
            self._unacknowledged < MAX_UNACKNOWLEDGED
            and self._size <= session.outbox.max_pending
            and not session.outbox.paused
        )
        if reading is not self.reading and not session.ended:
            self.reading = reading
            if reading:
                session.transport.resume_reading()
            else:
                session.transport.pause_reading()

    def client_closes(self) -> bool:
        """See ``Session.client_closes``."""
        if not self._unacknowledged:
            return True
        if self._close_timer is None:
            reactor = self._session.server.reactor
            self._close_timer = reactor.callLater(CLOSE_WAIT, self.answer_close)
        return False

    def answer_close(self) -> None:
        """Answer the client's close, if it is waiting."""
        timer, self._close_timer = self._close_timer, None
        if timer is None:
            return
        if timer.active():
            timer.cancel()
        if not self._session.ended:
            self._session.transport.answer_close()
