"""The interfaces of this room: a session's transport and its observers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ws4redis_tx.core.interfaces import Closing, IWriter, Refusal
from ws4redis_tx.core.messages import ICodec

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.errors import Denied
    from ws4redis_tx.core.handshake import Handshake
    from ws4redis_tx.core.http import HttpRequest
    from ws4redis_tx.sessions.opening_handshake import OpeningHandshake
    from ws4redis_tx.sessions.session import Session


def must_implement(argument: str, value: object, methods: Sequence[str], remedy: str) -> None:
    """Raise ``TypeError`` unless ``value`` is an object with these methods."""
    missing = [name for name in methods if not callable(getattr(value, name, None))]
    if missing or isinstance(value, type):
        problem = f"lacks {', '.join(missing)}" if missing else "is a class"
        raise TypeError(f"{argument} is {value!r}, which {problem}. {remedy}")


class ITransport(Protocol):
    """Moves the bytes of one client, without judging the client or knowing what its bytes mean."""

    @property
    def writer(self) -> IWriter:
        """Takes the bytes that the outbox sends."""

    @property
    def codec(self) -> ICodec:
        """The codec for a client that negotiated nothing."""

    @property
    def secure(self) -> bool:
        """Whether the connection to this process is encrypted."""

    @property
    def peer_address(self) -> str:
        """The address at the other end of the connection; ``""`` for a Unix socket."""

    @property
    def request_begun(self) -> bool:
        """Whether no byte of a request has arrived yet."""

    @property
    def incoming(self) -> int:
        """Bytes that are kept of a request or message that has not arrived completely."""

    @property
    def outgoing(self) -> Sequence[bytes]:
        """What was written and is kept, because the system has not taken it yet."""

    @property
    def silent(self) -> bool:
        """Whether the client has given no sign of life since ``check_liveness``."""

    @property
    def connection(self) -> Any:
        """Twisted's transport."""

    def negotiate(self, handshake: Handshake) -> ICodec:
        """Choose from the client's offers, and return the codec for that choice. Writes nothing."""

    def accept(self, handshake: Handshake) -> None:
        """Answer the handshake. From now on the client can be sent messages."""

    def refuse(self, denied: Denied) -> None:
        """Answer the handshake with a status, and drop the connection."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake. Nothing is written after its first frame."""

    def answer_close(self) -> None:
        """Answer the client's close, which ``Session.client_closes`` postponed."""

    def drop(self) -> None:
        """End the connection once everything that was written has been sent."""

    def abort(self) -> None:
        """End the connection at once."""

    def pause_reading(self) -> None:
        """Stop reading from the client until ``resume_reading``."""

    def resume_reading(self) -> None: ...

    def take_step(self) -> bool:
        """Take a little of the client's bytes that wait for a turn at ``Server.turns``. Return
        whether to go on.
        """

    def check_liveness(self) -> None:
        """Ask the client for a sign of life. ``drop_if_silent`` looks for it later."""

    def drop_if_silent(self) -> None:
        """End the connection of a client that is ``silent``, unless it is merely slow."""


class IHttp(Protocol):
    """Answers requests that neither a websocket nor server-sent events answer. They may have
    bodies.
    """

    @property
    def paths(self) -> Sequence[str]:
        """The paths whose requests it answers."""

    def serves(self, path: str) -> bool:
        """Whether ``path`` is one of them."""

    def begin(
        self, opening: OpeningHandshake, request: HttpRequest, rest: bytes
    ) -> Deferred[None] | None:
        """Take over the connection of the opening's session. ``rest`` is what has arrived of the
        request's body. The client is accepted, unless the session has ended, when this returns
        ``None`` or the Deferred fires. A failure refuses it, as in ``IProtocol.handshake``.
        """

    def stop(self) -> None:
        """All sessions are over."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a connection: the transport's part of a ``Closing``."""

    code: int
    reason: str
    by_server: bool
    clean: bool

    def closing(self, session: Session) -> Closing:
        """The end of a session that was open, with its counts."""
        return Closing(
            code=self.code,
            reason=self.reason,
            by_server=self.by_server,
            clean=self.clean,
            sent=session.feed.sent,
            received=session.received_number,
            dropped=session.outbox.dropped,
            seconds=session.seconds,
        )


class ISessionObserver(Protocol):
    """Told of every session: hooks, presence, metrics. Must not raise."""

    @property
    def idle(self) -> bool:
        """Whether the observer skips sessions that begin now."""

    def refused(self, refusal: Refusal) -> None:
        """A handshake was refused."""

    def opened(self, session: Session) -> None:
        """A client was accepted. Its replay follows, or the command that says who it is: it is not
        ``admitted`` before.
        """

    def live(self, session: Session) -> None:
        """A client's replay is over, whether or not it succeeded; or the client is known."""

    def message(self, session: Session, payload: bytes) -> Deferred[bytes | None]:
        """Fire with the bytes to publish in place of a client's message, or with ``None`` for
        nothing. Fails with ``MessageRefused``.
        """

    def subscribed(self, session: Session, channel: str) -> None:
        """A client with many channels has subscribed to one, named as in Redis."""

    def unsubscribed(self, session: Session, channel: str) -> None:
        """Such a subscription has ended, at the latest with the session."""

    def closed(self, session: Session, ending: Ending) -> None:
        """A session for which ``opened`` was called is over."""

    def settled(self) -> Deferred[None]:
        """Fire when the observer has dealt with every event, or when ``hurry`` is called."""

    def hurry(self) -> None:
        """The server ends at once: fire the Deferreds of ``settled``."""
