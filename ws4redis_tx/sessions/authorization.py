"""One question to the authorizer: the wait for its turn, its answer, and the consequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, check_admission
from ws4redis_tx.core.errors import Denied, unavailable
from ws4redis_tx.core.handshake import Handshake

if TYPE_CHECKING:
    from ws4redis_tx.revocation.session_index import IRevocable
    from ws4redis_tx.sessions.session import Session


class Authorization:
    """A member of the server's ``FifoLimiter``, which bounds the number of concurrent questions.

    The wait for a turn is the server's fault and does not count towards the timeout. The authorizer
    has the time of one step of a handshake. The turn ends when the session has acted on the answer,
    so that sessions subscribe in the order in which they were answered.
    """

    __slots__ = (
        "_answer", "_handshake", "_outcome", "_owner", "_rights", "_sequence", "_session",
        "_timed_out",
    )  # fmt: skip

    def __init__(
        self, session: Session, handshake: Handshake, rights: Sequence[str], owner: IRevocable
    ) -> None:
        self._session = session
        self._owner = owner
        self._handshake = handshake
        self._rights = rights
        self._sequence = 0
        self._timed_out = False
        # The authorizer's, once its turn has come.
        self._answer: Deferred[Admission] | None = None
        # The session's, made when the answer is not there at once.
        self._outcome: Deferred[Admission] | None = None

    def outcome(self) -> Deferred[Admission]:
        """Fire when the session is admitted, fail with ``Denied`` if it is refused. Never fire
        once the session has ended.
        """
        if self._outcome is None:
            self._outcome = Deferred()
        return self._outcome

    def ask(self) -> None:
        """Ask the authorizer: the turn has come."""
        session, server = self._session, self._session.server
        try:
            server.check_capacity()  # do not look up rights in vain
        except Denied as denied:
            self._finish(Failure(denied))
            return
        self._sequence = server.revocations.sequence
        answer = self._answer = server.authorize(self._handshake, self._rights)
        answer.addCallback(self._admit)
        if self._outcome is None and answer.called and not answer.paused:
            # Nobody is waiting for a turn: the answer goes where the question came from.
            self._outcome = Deferred() if session.ended else answer
            self._forget()
            server.authorizations.leave(self, served=True)
        else:
            server.authorization_timeouts.add(self)
            answer.addBoth(self._finish)

    def _admit(self, admission: Admission) -> Admission:
        session, handshake = self._session, self._handshake
        if session.ended:
            return admission
        check_admission(handshake, admission, tenants=session.server.config.tenants)
        identity = admission.identity
        visitor = identity.username or identity.session_key
        if self._owner is session:
            session.claim(session.server.visitors, visitor and (identity.tenant, visitor))
        elif admission.issued is not None:
            admission = replace(admission, issued=None)  # the whole is closed with its token
        session.server.revocations.admit(
            self._owner, handshake, self._rights, admission, self._sequence, session.server.fixed
        )
        return admission

    def _finish(self, result: Admission | Failure) -> None:
        session, server = self._session, self._session.server
        server.authorization_timeouts.discard(self)
        self._forget()
        if not session.ended:
            if self._timed_out:
                result = Failure(unavailable("the authorizer took longer than its timeout"))
            if session.opening is not None:
                server.timeouts.add(session)  # the next step has its own time
            self.outcome().callback(result)
        server.authorizations.leave(self, served=not self._timed_out)

    def _forget(self) -> None:
        """The session has its answer."""
        session = self._session
        if session.authorizations == (self,):
            session.authorizations = ()
        else:
            session.answered(self)

    def turn_down(self) -> None:
        """Refuse the session, because too many wait."""
        self._session.answered(self)
        problem = (
            "as many handshakes are waiting for the authorizer as WS4REDIS_MAX_AUTHORIZATIONS "
            "(--max-authorizations) allows"
        )
        self.outcome().errback(unavailable(problem))

    def give_up(self) -> None:
        """Refuse the session, because its turn will not come."""
        if not self._session.ended:
            self._session.answered(self)
            self.outcome().errback(unavailable("its turn to ask the authorizer never came"))

    def time_out(self) -> None:
        """The authorizer has not answered in time."""
        self._timed_out = True
        self._session.server.authorizations.overdue(self)
        self._cancel()

    def abandon(self) -> None:
        """The session has ended: nobody needs the answer."""
        server = self._session.server
        server.authorization_timeouts.discard(self)
        # Leave the queue first: cancelling makes the Deferred fail, and that failure must not be
        # answered.
        server.authorizations.leave(self)
        self._cancel()

    def _cancel(self) -> None:
        if self._answer is not None:
            self._answer.cancel()
