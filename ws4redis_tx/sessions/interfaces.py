"""The port of this room: what a session asks of its transport, and whom it tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from ws4redis_tx.core.interfaces import IWriter, Refusal
from ws4redis_tx.core.messages import ICodec

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.errors import Denied
    from ws4redis_tx.core.handshake import Handshake
    from ws4redis_tx.sessions.session import Session


class ITransport(Protocol):
    """Moves the bytes of one client. It neither judges a client nor knows what its bytes mean."""

    @property
    def writer(self) -> IWriter:
        """Takes the bytes that the outbox sends."""

    @property
    def codec(self) -> ICodec:
        """The codec of a client with whom nothing was negotiated."""

    @property
    def secure(self) -> bool:
        """Whether the connection to this process is encrypted."""

    @property
    def peer_address(self) -> str:
        """The address at the other end of the connection; ``""`` for a Unix socket."""

    @property
    def silent(self) -> bool:
        """Whether not a single byte of a request has arrived."""

    def negotiate(self, handshake: Handshake) -> ICodec:
        """Agree on what the client offers, and return the codec of that. Writes nothing."""

    def accept(self, handshake: Handshake) -> None:
        """Answer the handshake: from now on the client is sent messages."""

    def refuse(self, denied: Denied) -> None:
        """Answer the handshake with a status, and drop the connection."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake. Nothing is written after its first frame."""

    def answer_close(self) -> None:
        """Answer the client's close, which ``Session.client_closes`` put off."""

    def drop(self) -> None:
        """End the connection once everything that was written is out."""

    def abort(self) -> None:
        """End the connection at once."""

    def pause_reading(self) -> None:
        """Read nothing more from the client, until ``resume_reading``."""

    def resume_reading(self) -> None: ...

    def check_liveness(self) -> None:
        """Ask the client for a sign of life, which ``drop_if_silent`` looks for later."""

    def drop_if_silent(self) -> None:
        """End the connection of a client that gave no sign of life since ``check_liveness``."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection ended: what its transport knows of a ``core.interfaces.Closing``."""

    code: int
    reason: str
    by_server: bool
    clean: bool


class ISessionObserver(Protocol):
    """Told of every session: hooks, presence, metrics. Must not raise."""

    @property
    def idle(self) -> bool:
        """Whether it need not be told of sessions that begin now."""

    def refused(self, refusal: Refusal) -> None:
        """A handshake was refused."""

    def opened(self, session: Session) -> None:
        """A client was accepted; its replay follows."""

    def live(self, session: Session) -> None:
        """Its replay is over, whether or not it succeeded."""

    def message(self, session: Session, payload: bytes) -> Deferred[bytes | None]:
        """Fire with what is to be published of a client's message; ``None``: nothing. Never
        fails."""

    def closed(self, session: Session, ending: Ending) -> None:
        """A session that was told of as ``opened`` is over."""

    def settled(self) -> Deferred[None]:
        """Fire when everything that was told has been acted on, or ``hurry`` was called."""

    def hurry(self) -> None:
        """The server ends at once: let nobody wait in ``settled``."""
