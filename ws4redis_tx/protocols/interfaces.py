"""The seam between a session and the protocol that its client speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from ws4redis_tx.core.admission import Admission, Asked
    from ws4redis_tx.core.handshake import Handshake
    from ws4redis_tx.delivery.feed import Feed
    from ws4redis_tx.delivery.outbox import Outbox


class ISession(Protocol):
    """A client, as its protocol sees it."""

    handshake: Handshake
    """The handshake, until ``opened`` has returned. A protocol may keep it for later."""

    feed: Feed
    """The listener through which messages from Redis reach the client. A protocol may replace it
    before it is used.
    """

    outbox: Outbox
    """The client's. A protocol may replace its codec until the client is accepted."""

    @property
    def ended(self) -> bool:
        """Whether the client is gone. Check it after each wait."""

    state: Any
    """The protocol's own data about this client. If the protocol uses ``authorize_facilities``, it
    has a method ``revoked(facility)``, which is told that one of the ``grants`` is gone.
    """

    grants: dict[str, Any]
    """What the authorizer granted on each of several facilities. A protocol that uses
    ``authorize_facilities`` begins with an empty one, and may take from it what nobody needs.
    """

    admitted: Any
    """The ``revocation.session_index.AdmissionRecord``, after ``authorize``."""

    transport: Any
    """The client's ``sessions.interfaces.ITransport``."""

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        """Ask the authorizer about ``rights`` when it is this session's turn. From then on, the
        session is closed if the visitor loses one of the rights.

        Fails with ``Denied`` if the authorizer refuses. Never fires once the client is gone.
        """

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: tuple[int, Admission] | None
    ) -> Deferred[list[Any]]:
        """Ask the authorizer about rights on several facilities, after ``authorize``. Fires with a
        ``revocation.session_index.IGrant`` or an exception for each; those are in ``grants`` from
        then on.

        :param known: the answer to ``authorize``, if that was just now, and what ``revocation`` was
            before: the visitor need not be looked up again.
        """

    @property
    def revocation(self) -> int:
        """The number of the last revocation that was heard."""

    def admit(self, owner: Any, handshake: Handshake, admission: Admission) -> None:
        """Let ``owner`` hold what a token gives that needs no authorizer, until it is revoked.
        Raises ``Denied`` if it is revoked already.
        """

    @property
    def observed(self) -> bool:
        """Whether anybody is told of what the client does."""

    def judge(self, message: bytes) -> Deferred[bytes | None] | None:
        """Ask the hooks about a message that the client wants to publish. Fires with what is to be
        published in its place, ``None`` for nothing. Fails with ``MessageRefused``. Returns
        ``None`` if there is nobody to ask.
        """

    def subscribed(self, channel: bytes) -> None:
        """Tell the hooks of a subscription, for which ``unsubscribed`` is called later."""

    def unsubscribed(self, channel: bytes) -> None:
        """Tell the hooks that a subscription has ended."""

    def withdraw(self, owner: Any) -> None:
        """The owner of an earlier ``admit`` holds nothing any more. Idempotent."""

    def send(self, message: bytes | str) -> None:
        """Send a message to this client only, in order with all others."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Messages that were not written yet are dropped."""

    def within_rate(self, *, messages: int = 0, size: int = 0) -> bool:
        """Count messages and bytes of the client's. Close it if they are too many."""

    def fail(self, failure: Failure, text: str) -> None:
        """Log ``text`` with a failure of the server's, and close the session with 1011."""


OVER_RATE = 4429
"""Closes a session whose client sends too much. Protocols have codes of their own for it."""


class IProtocol(Protocol):
    """The protocol of all clients under one path. One object serves all the sessions of a server,
    and keeps none of them: its data about a client is the session's ``state``.
    """

    @property
    def path(self) -> str:
        """The prefix of the URLs that the protocol serves; ends with ``/``."""

    def handshake(self, session: ISession) -> Deferred[Any] | None:
        """Decide about a well-formed handshake. The client is accepted when this returns ``None``
        or the Deferred fires. A failure refuses the client: a ``Denied`` with its own status,
        ``BrokerUnavailable`` with 503, Django's ``PermissionDenied`` with 403, any other with 500.
        """

    def opened(self, session: ISession) -> Deferred[Any] | None:
        """The client was accepted. Return ``None``, or a Deferred that fires when the client is
        known, and hooks are told of it. A failure, now or later, closes its connection with 1011.
        """

    def received(self, session: ISession, payload: bytes) -> object:
        """Take a message of the client's. May return a Deferred or a coroutine. What of it is to be
        published is asked of ``session.judge`` first.

        Called in order, without waiting for earlier results. A client's close is answered when all
        results are there, or after 2 s. ``BrokerUnavailable`` closes the connection with 1013, any
        other failure with 1011.
        """

    def close_code(self, code: int, reason: str) -> tuple[int, str]:
        """The server closes the session: with a code of websockets, or ``OVER_RATE``. Return the
        code and the reason as the client knows them.
        """

    def closed(self, session: ISession) -> Deferred[Any] | None:
        """The session is over, whether or not it was opened. Called once for each ``handshake``. A
        failure, now or later, is logged.
        """
