"""The seams that applications see: what the parts promise each other, whoever implements them.

They are ``typing.Protocol`` classes, so that a type checker holds them without a plugin. All
methods run in the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from ws4redis_tx.core.messages import PersistedMessage, Publication

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.admission import Admission, Identity
    from ws4redis_tx.core.handshake import Handshake

Published: TypeAlias = bytes | str | None
"""The message that a hook makes of a client's message; ``None``: nothing is published."""

Answer: TypeAlias = Union[Published, "Coroutine[Any, Any, Published]", "Deferred[Published]"]
"""The same, or a coroutine or a Deferred that has it later."""


class IListener(Protocol):
    """Somebody who wants the messages of a channel. Hashed by identity.

    A listener whose attribute ``takes_joined`` is true is given messages that came together as one
    ``Joined``, which has the messages as its ``parts``.
    """

    def deliver(self, publication: Publication) -> None:
        """Take one ``Publication``, at once. Must not raise and must not block."""


class IWriter(Protocol):
    """Takes the bytes for one connection. A Twisted transport is one."""

    def write(self, data: bytes) -> object:
        """Take all of it, in order. Must not raise; data for a lost connection is dropped."""


class IBroker(Protocol):
    """The one door to Redis of a process."""

    @property
    def available(self) -> bool:
        """Whether messages can be published and received right now."""

    @property
    def generation(self) -> int:
        """Another number whenever a connection on which messages arrive was replaced."""

    def generation_of(self, channels: Iterable[bytes]) -> int:
        """The same for these channels alone: messages on others may come over connections of their
        own.
        """

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        """Fire when the subscription stands: messages that are published from then on are
        delivered, in Redis' order over all channels. The listener stays across outages, until
        ``unlisten``: messages that an outage swallowed and that are persisted are delivered before
        the broker is ``available`` again.

        Fails with ``BrokerUnavailable`` when there is no connection, or when the connection is lost
        before the subscription stands; the listener is not registered then.
        """

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        """No message of ``channel`` is delivered to ``listener`` any more. Never fails."""

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
    ) -> Deferred[int]:
        """Persist for ``expire`` seconds (``0``: do not) and publish on every channel.

        Atomic per channel, one round trip for all; calls reach Redis in the order they were made.
        ``sender``, if it listens there, does not get the message back. Fires with the sum of Redis'
        receiver counts, or fails with ``BrokerUnavailable``.
        """

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        """The message persisted for ``channel``, or ``BrokerUnavailable``."""

    def forget(self, listener: IListener) -> None:
        """The listener is gone: drop everything about it except its channels."""

    def when_available(self) -> Deferred[None]:
        """Fire when messages can be published and received. May be cancelled."""

    def on_restored(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after each outage in which messages may have been missed.

        The broker is ``available`` again by then, and every message that was missed and is
        persisted was handed to its listeners. The first connection is no outage. Callbacks are
        called in the order in which they were registered, after those who wait in
        ``when_available``. One that raises is logged.

        Return a function that ends the registration. That function is idempotent; until it is
        called, the broker holds on to ``callback``.
        """

    def fileno(self) -> int | None:
        """The descriptor of the connection on which messages arrive, if there is one."""

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        """Fire when every message that Redis published before this call, on ``channels`` or on any
        channel, was handed to its listeners. Fails with ``BrokerUnavailable`` when the connection
        was replaced meanwhile.
        """


class IAuthorizer(Protocol):
    """Says who a visitor is and what they may do."""

    def authorize(
        self, handshake: Handshake, rights: Sequence[str]
    ) -> Deferred[Admission] | Coroutine[Any, Any, Admission] | Admission:
        """Decide about the ``rights`` that a client asked for, in the order of its URL.

        Asked at the handshake, and again about the same one while the websocket is open; that call
        may be cancelled. A one-time credential is redeemed by the first call; the ``redeemed`` of
        its ``Admission`` is passed with the handshake from then on. Raises or fails with ``Denied``
        to refuse; any other failure is answered with 500.
        """


class IConnection(Protocol):
    """An open websocket, as hooks know it: the same object from its opening to its end, and a key
    under which an application can remember things about it.
    """

    @property
    def facility(self) -> str:
        """The part of the URL's path after ``websocket_url``."""

    @property
    def identity(self) -> Identity:
        """The visitor, as the authorizer named them at the opening. The session's key is a
        credential.
        """

    @property
    def rights(self) -> tuple[str, ...]:
        """The granted rights, such as ``subscribe-user``."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The Redis channels that it listened to at its opening. Some hold a session's key."""

    @property
    def peer(self) -> str:
        """The client's address; behind a trusted proxy, the address that the proxy reports."""

    def send(self, message: bytes | str) -> None:
        """Send to this client alone, in order with everything else that it is sent. Does nothing
        once the client is gone. Callable from any thread.
        """

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Callable from any thread.

        Raises ``ValueError`` for a code that must not be in a close frame. Only the first 123 bytes
        of the reason are sent.
        """


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was answered with an HTTP ``status``.

    ``reason`` is the text the client was sent, ``detail`` the text that the log has besides.
    ``path`` is the URL's, percent-encoded and without the query, ``peer`` the client's address;
    both are ``""`` where the request was not even read.
    """

    status: int
    reason: str
    detail: str = ""
    path: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a websocket ended, and its counts until then.

    ``code`` and ``reason`` are those of the close frame that came first, which is the server's if
    ``by_server``. The code is 1005 for a frame without one, and 1006 where there was no frame; the
    ``reason`` is then the server's own words. If a client's close waits for a hook and the server
    closes meanwhile, the server's counts. ``clean``: both sides sent a frame. ``sent`` counts the
    messages handed to the socket, ``received`` those of the client, both without heartbeats;
    ``dropped`` counts the messages that gave way because the client did not read. ``seconds`` is
    how long it was open.
    """

    code: int
    reason: str
    by_server: bool
    clean: bool
    sent: int
    received: int
    dropped: int
    seconds: float


class IHooks(Protocol):
    """What an application wants to know of its websockets, and its say in what clients send.

    Each method may be ``async def``, or return a Deferred. The hooks of one websocket run one at a
    time: ``connected``, then each ``message`` in the client's order, then ``closed``. Each has
    10 s, and is cancelled after that. A hook that fails is logged, and harms nobody else.
    """

    def connected(self, connection: IConnection, /) -> object:
        """It is open, and has been sent the persisted messages; or it has left meanwhile, and
        ``closed`` follows. No ``message`` comes before this is done.
        """

    def refused(self, refusal: Refusal, /) -> object:
        """A handshake was refused. Not called for a client that left before the answer."""

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        """Return what to publish in place of a client's message: the message itself, another one,
        or ``None`` for nothing. The client is not told; ``connection.send`` can tell it. Raise
        ``MessageRefused`` to close the websocket with 1008; any other failure closes it with 1011.
        While 64 messages of a client wait, no more are read from it.

        A message whose hook is still running when the websocket ends is not published.
        """

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        """It is over. Called once for each ``connected``, however it ended."""


class NullHooks:
    """``IHooks`` that do nothing: a base for hooks that want to know of some events only."""

    def connected(self, connection: IConnection, /) -> object:
        return None

    def refused(self, refusal: Refusal, /) -> object:
        return None

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        return message

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        return None
