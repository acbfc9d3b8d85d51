"""One question to the authorizer: the wait for its turn, its answer, and the consequences."""

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
    """A member of the server's ``FifoLimiter``, which bounds the number of concurrent questions.

    The wait for a turn is the server's fault and does not count towards the timeout. The authorizer
    has the time of one step of a handshake.
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
        """Fires when the session is admitted, fails with ``Denied`` if it is refused. ``None``
        until its turn has come.
        """
        # Gets the answer, if its turn did not come at once.
        self._waiting: Deferred[Admission] | None = None

    def wait(self) -> Deferred[Admission]:
        """A Deferred that fires like ``answer``, for a turn that has not come yet."""
        self._waiting = Deferred()
        return self._waiting

    def ask(self) -> None:
        """Ask the authorizer: the turn has come."""
        server = self._session.server
        try:
            server.check_capacity()  # do not look up rights in vain
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
            return Deferred()  # never fires: nobody is waiting any more
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
        """The authorizer has refused or failed: it is the next one's turn."""
        self._session.authorization = None
        self._session.server.authorizations.leave(self, served=True)
        return result

    def give_up(self) -> None:
        """Refuse the session, because its turn will not come."""
        self._refuse(unavailable("its turn to ask the authorizer never came"))

    def _refuse(self, denied: Denied) -> None:
        """Refuse the session without asking the authorizer."""
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
        """Cancel the question: the session has ended, or the answer is too late."""
        self._session.authorization = None
        # Leave the queue first: cancelling makes the Deferred fail, and that failure must not be
        # answered.
        self._session.server.authorizations.leave(self)
        if self.answer is not None:
            self.answer.cancel()
