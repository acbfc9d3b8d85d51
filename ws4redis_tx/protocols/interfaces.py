"""The seam between a session and the protocol that its client speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.admission import Admission
    from ws4redis_tx.core.handshake import Handshake
    from ws4redis_tx.delivery.feed import Feed


class ISession(Protocol):
    """A client, as its protocol sees it."""

    @property
    def handshake(self) -> Handshake:
        """The handshake, until ``opened`` has returned. A protocol that needs it later keeps it."""

    @property
    def feed(self) -> Feed:
        """The listener through which messages from Redis reach the client."""

    @property
    def ended(self) -> bool:
        """Whether the client is gone: to be asked after each wait."""

    state: Any
    """Whatever the protocol remembers of this client."""

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        """Ask the authorizer about ``rights``, once it is this session's turn. From then on the
        rights are watched, and taken away when the visitor loses them.

        Fails with ``Denied`` when it is refused. Never fires once the client is gone.
        """

    def send(self, message: bytes | str) -> None:
        """Send a message to this client alone, in order with all others."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. What was not written yet is dropped."""


class IProtocol(Protocol):
    """What clients of one path say, and what they are sent. One serves all the sessions of a
    server, and keeps none of them: what it remembers of a client is the session's ``state``.

    """

    @property
    def path(self) -> str:
        """The prefix of the URLs under which the protocol is spoken; ends with ``/``."""

    def handshake(self, session: ISession) -> Deferred[Any] | None:
        """Judge a well-formed handshake. The client is accepted when the answer is there, now or
        later; a failure refuses it, by its status if it is ``Denied``.
        """

    def opened(self, session: ISession) -> Deferred[Any] | None:
        """The client was accepted. A failure, now or later, closes it with 1011."""

    def received(self, session: ISession, payload: bytes) -> object:
        """Take a message of the client's; may return a Deferred or a coroutine. Called in order,
        without waiting for earlier answers; a close of the client's is answered when all of them
        are there. ``BrokerUnavailable`` closes
        with 1013, any other failure with 1011.
        """

    def closed(self, session: ISession) -> object:
        """The session is over, however far it came. Called once for each ``handshake``."""
