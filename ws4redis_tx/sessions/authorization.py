"""One question to the authorizer: its turn, its answer, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, check_admission
from ws4redis_tx.core.errors import Denied, unavailable
from ws4redis_tx.core.handshake import Handshake

if TYPE_CHECKING:
    from ws4redis_tx.sessions.session import Session

Result = TypeVar("Result")


class Authorization:
    """A member of the server's ``FifoLimiter``: many may ask at once, few are asked about.

    Waiting for a turn is the server's fault and does not count as late. The authorizer has the
    time of one step of a handshake.
    """

    __slots__ = (
        "_handshake", "_rights", "_sequence", "_session", "_timed_out", "_waiting", "answer",
    )  # fmt: skip

    def __init__(self, session: Session, handshake: Handshake, rights: Sequence[str]) -> None:
        self._session = session
        self._handshake = handshake
        self._rights = rights
        self._sequence = 0
        self._timed_out = False
        self.answer: Deferred[Admission] | None = None
        """Fires when the session is admitted, fails with ``Denied`` if it is not. ``None`` until
        its turn has come.
        """
        # For the answer, if its turn did not come at once.
        self._waiting: Deferred[Admission] | None = None

    def wait(self) -> Deferred[Admission]:
        """Fire like ``answer``, once its turn has come."""
        self._waiting = Deferred()
        return self._waiting

    def ask(self) -> None:
        """Its turn has come."""
        server = self._session.server
        try:
            server.check_capacity()  # nobody's rights are looked up in vain
        except Denied as denied:
            self._refuse(denied)
            return
        self._sequence = server.revocations.sequence
        answer = self.answer = server.authorize(self._handshake, self._rights)
        if not answer.called or answer.paused:
            server.timeouts.add(self._session)
            answer.addBoth(self._answered_late)
        answer.addCallbacks(self._admit, self._leave)
        if self._waiting is not None:
            answer.chainDeferred(self._waiting)

    def _answered_late(self, answer: Any) -> Any:
        session = self._session
        if session.ended:
            return Deferred()  # never fires: nobody waits any more
        if self._timed_out:
            return Failure(unavailable("the authorizer took longer than its timeout"))
        if session.opening is None:
            session.server.timeouts.discard(session)
        else:
            session.server.timeouts.add(session)  # the next step has its own time
        return answer

    def _admit(self, admission: Admission) -> Admission:
        session, handshake, identity = self._session, self._handshake, admission.identity
        session.authorization = None
        session.server.authorizations.leave(self, served=True)
        check_admission(handshake, admission)
        session.claim(session.server.visitors, identity.username or identity.session_key)
        session.server.revocations.admit(
            session, handshake, self._rights, admission, self._sequence
        )
        return admission

    def _leave(self, result: Result) -> Result:
        """The authorizer has answered: the next one's turn comes."""
        self._session.authorization = None
        self._session.server.authorizations.leave(self, served=True)
        return result

    def give_up(self) -> None:
        """Its turn will not come."""
        self._refuse(unavailable("its turn to ask the authorizer did not come"))

    def _refuse(self, denied: Denied) -> None:
        """Without having asked."""
        session = self._session
        session.authorization = None
        session.server.authorizations.leave(self)
        if self._waiting is None:
            self.answer = fail(denied)
        elif not session.ended:
            self._waiting.errback(denied)

    def overdue(self) -> None:
        """The authorizer has not answered in time."""
        self._session.server.authorizations.overdue(self)

    def time_out(self) -> None:
        """Stop waiting for the answer."""
        self._timed_out = True
        self.abandon()

    def abandon(self) -> None:
        """The session has ended, or its answer is too late: nobody needs it any more."""
        self._session.authorization = None
        # Leave the queue first: cancelling makes the Deferred fail, and that failure must not be
        # answered.
        self._session.server.authorizations.leave(self)
        if self.answer is not None:
            self.answer.cancel()
