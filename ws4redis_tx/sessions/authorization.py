"""One question to the authorizer: the wait for its turn, its answer, and the consequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, Asked, check_admission, lost
from ws4redis_tx.core.errors import Denied, unavailable
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.scheduling.deferreds import gather

if TYPE_CHECKING:
    from ws4redis_tx.sessions.server import Server
    from ws4redis_tx.sessions.session import Session


class Authorization:
    """A member of the server's ``FifoLimiter``, which bounds the number of concurrent questions.

    The wait for a turn is the server's fault and does not count towards the timeout. The authorizer
    has the time of one step of a handshake. The turn ends when the session has acted on the answer,
    so that sessions subscribe in the order in which they were answered.
    """

    __slots__ = (
        "_answer", "_handshake", "_outcome", "_rights", "_sequence", "_session", "_timed_out",
    )  # fmt: skip

    def __init__(self, session: Session, handshake: Handshake, rights: Sequence[str]) -> None:
        self._session = session
        self._handshake = handshake
        self._rights = rights
        self._sequence = 0
        self._timed_out = False
        # The authorizer's, once its turn has come.
        self._answer: Deferred[Any] | None = None
        # The session's, made when the answer is not there at once.
        self._outcome: Deferred[Any] | None = None

    def begin(self) -> Deferred[Any]:
        """Join those that wait for their turn. Returns the ``outcome``."""
        session = self._session
        session.authorizations += (self,)
        if not session.server.authorizations.join(self):
            self.turn_down()
        return self._outcome or self.outcome()

    def outcome(self) -> Deferred[Any]:
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
            server.check_capacity(opening=session.opening is not None)  # or it is asked in vain
        except Denied as denied:
            self._finish(Failure(denied))
            return
        self._sequence = server.revocations.sequence
        answer = self._answer = self._put()
        answer.addCallback(self._admit)
        if self._outcome is None and answer.called and not answer.paused:
            # Nobody is waiting for a turn: the answer goes where the question came from.
            self._outcome = Deferred() if session.ended else answer
            self._forget()
            server.authorizations.leave(self, served=True)
        else:
            server.authorization_timeouts.add(self)
            answer.addBoth(self._finish)

    def _put(self) -> Deferred[Any]:
        """Put the question."""
        return self._session.server.authorize(self._handshake, self._rights)

    def _admit(self, admission: Any) -> Any:
        """Act on the answer."""
        session, handshake = self._session, self._handshake
        if session.ended:
            return admission
        check_admission(handshake, admission, tenants=session.server.config.tenants)
        identity = admission.identity
        visitor = identity.username or identity.session_key
        if visitor:
            session.claim(session.server.visitors, (identity.tenant, visitor))
        session.server.revocations.admit(
            session, handshake, self._rights, admission, self._sequence, session.server.fixed
        )
        return admission

    def _finish(self, result: Any) -> None:
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


class FacilitiesAuthorization(Authorization):
    """A question about several facilities, of a session that is open. Each answer becomes one of
    the session's ``grants``, or is an exception.

    :param known: the authorizer's earlier answer to the handshake, and the number of the last
        revocation that was heard before it was asked.
    """

    __slots__ = ("_asked", "_known")

    def __init__(
        self,
        session: Session,
        handshake: Handshake,
        asked: Sequence[Asked],
        known: tuple[int, Admission] | None,
    ) -> None:
        super().__init__(session, handshake, ())
        self._asked = asked
        self._known = known

    def _put(self) -> Deferred[Any]:
        number, admission = self._known or (0, None)
        admitted = self._session.admitted
        if admission is not None and (
            number != self._sequence or admitted is None or admission.identity != admitted.identity
        ):
            admission = None  # it may be out of date
        server = self._session.server
        return server.authorize_facilities(self._handshake, self._asked, admission)

    def _admit(self, answers: Any) -> Any:
        if self._session.ended:
            return answers
        return [*map(self._grant, self._asked, answers)]

    def _grant(self, asked: Asked, answer: Admission | Exception) -> Grant | Exception:
        if isinstance(answer, Exception):
            return answer
        session = self._session
        server, facility = session.server, asked.facility
        try:
            check_admission(
                self._handshake, answer, tenants=server.config.tenants, facility=facility
            )
            grant = Grant(session, asked, answer)
            server.revocations.check_grant(session, grant, self._sequence)
        except Exception as error:
            return error
        before = session.grants.pop(facility, None)
        if before is not None and lost(before.identity, before.rights, answer):
            session.state.revoked(facility)
        session.grants[facility] = grant  # as the newest
        return grant


class Grant:
    """An ``IGrant``: what the authorizer granted a session on one facility."""

    __slots__ = ("_session", "asked", "facility", "identity", "rights")

    def __init__(self, session: Session, asked: Asked, admission: Admission) -> None:
        self._session = session
        self.facility, self.asked = asked
        self.rights = tuple(admission.rights)
        self.identity = admission.identity

    def revoke(self, code: int = 1008) -> None:
        session = self._session
        if not session.ended and session.grants.get(self.facility) is self:
            del session.grants[self.facility]
            session.state.revoked(self.facility)


def ask_about_facilities(
    server: Server, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
) -> Deferred[Sequence[Admission | Exception]]:
    """Ask the server's authorizer about all of them together, or else about each. See
    ``IFacilitiesAuthorizer``.
    """
    together = getattr(server.authorizer, "authorize_facilities", None)
    if together is not None:
        return maybeDeferred(together, handshake, asked, known)
    answers = [
        server.authorize(handshake.on_facility(facility, rights), rights)
        for facility, rights in asked
    ]
    outcomes: Deferred[Any] = gather(
        [each.addErrback(lambda failure: failure.value) for each in answers]
    )
    return outcomes
