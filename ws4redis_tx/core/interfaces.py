"""The seams: what the parts promise each other, whoever implements them.

They are ``typing.Protocol`` classes, so that a type checker holds them without a plugin. All
methods run in the reactor thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from ws4redis_tx.core.messages import PersistedMessage, Publication

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from ws4redis_tx.core.admission import Admission, Identity
    from ws4redis_tx.core.handshake import Handshake
    from ws4redis_tx.core.hooks import Closing, Refusal

Published: TypeAlias = bytes | str | None
"""What a hook makes of a client's message; ``None``: nothing is published."""

Answer: TypeAlias = Union[Published, "Coroutine[Any, Any, Published]", "Deferred[Published]"]
"""The same, or a coroutine or a Deferred that has it later."""


class IListener(Protocol):
    """Somebody who wants the messages of a channel. Hashed by identity.

    One whose attribute ``takes_joined`` is true is given messages that came together as one
    ``Joined``, which has their frames in one piece, and themselves as ``parts``.
    """

    def deliver(self, publication: Publication) -> None:
        """Take one ``Publication``, at once. Must not raise and must not block."""


class IWriter(Protocol):
    """Where the frames of one connection go. A Twisted transport is one."""

    def write(self, data: bytes) -> object:
        """Take all of it, in order. Must not raise; what has no way any more is dropped."""


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
    """Who is it, and what may they do?"""

    def authorize(
        self, handshake: Handshake, rights: Sequence[str]
    ) -> Deferred[Admission] | Coroutine[Any, Any, Admission] | Admission:
        """Decide about the ``rights`` that a client asked for, in the order of its URL.

        Asked at the handshake, and again about the same one while the websocket is open; that may
        be cancelled. A credential that is good once is redeemed at the first time, and what the
        ``Admission`` has as ``redeemed`` is the handshake's from then on. Raises or fails with
        ``Denied`` to refuse; any other failure is answered with 500.
        """


class IConnection(Protocol):
    """An open websocket, as hooks know it: the same object from its opening to its end, and a key
    for what an application remembers of it.
    """

    @property
    def facility(self) -> str:
        """The part of the URL's path after ``websocket_url``."""

    @property
    def identity(self) -> Identity:
        """Whose it is, as the authorizer said at its opening. The session's key is a credential."""

    @property
    def rights(self) -> tuple[str, ...]:
        """What was granted, such as ``subscribe-user``."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The Redis channels that it listened to at its opening. Some hold a session's key."""

    @property
    def peer(self) -> str:
        """The client's address; behind a trusted proxy, the one that the proxy says."""

    def send(self, message: bytes | str) -> None:
        """Send to this client alone, in order with all else that it is sent; to one that is gone,
        nothing. Callable from any thread.
        """

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Callable from any thread.

        Raises ``ValueError`` for a code that must not be in a close frame. Of a reason only the
        first 123 bytes are sent.
        """


class IHooks(Protocol):
    """What an application wants to know of its websockets, and its say in what clients send.

    Each method may be ``async def``, or return a Deferred. Of one websocket's hooks one at a time
    is under way: ``connected``, then each ``message`` in the client's order, then ``closed``. Each
    has 10 s, and is cancelled after that. One that fails is logged, and harms nobody else.
    """

    def connected(self, connection: IConnection, /) -> object:
        """It is open, and has been sent what was persisted; or has left meanwhile, and ``closed``
        follows. No ``message`` before this is done.
        """

    def refused(self, refusal: Refusal, /) -> object:
        """A handshake was refused. Who left before the answer is not told of."""

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        """Answer what is to be published of a client's message: itself, others in its place, or
        ``None`` for nothing, of which the client is not told; ``connection.send`` tells it
        something. Raise ``MessageRefused`` to close the websocket with 1008; any other failure
        closes it with 1011. No further message is read from a client for whom 64 wait.

        What the websocket's end overtakes here is not published.
        """

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        """It is over. Called once for each ``connected``, whatever ended it."""
