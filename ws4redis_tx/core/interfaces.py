"""The interfaces that applications see: the promises between the parts of a server.

They are ``typing.Protocol`` classes, which a type checker verifies without a plugin. Methods run in
the reactor thread unless they say otherwise.
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
    from ws4redis_tx.core.positions import History

Replacement: TypeAlias = bytes | str | None
"""A hook's replacement for a client's message; ``None`` publishes nothing."""

Answer: TypeAlias = Union[Replacement, "Coroutine[Any, Any, Replacement]", "Deferred[Replacement]"]
"""The same, or a coroutine or a Deferred that returns it later."""


class IListener(Protocol):
    """A receiver of the messages of a channel. Hashed by identity.

    If its attribute ``takes_joined`` is true, messages that arrive together are delivered as one
    ``Joined``, whose ``parts`` are the messages.
    """

    def deliver(self, publication: Publication) -> None:
        """Take one ``Publication`` immediately. Must not raise and must not block."""


class IWriter(Protocol):
    """Takes the bytes for one connection. A Twisted transport is one."""

    def write(self, data: bytes) -> object:
        """Take all of ``data``, in order. Must not raise; data for a lost connection is dropped."""


class ISocket(Protocol):
    """The part of a socket that is needed here."""

    send: Callable[[bytes], int]


class _NoSocket:
    """Takes no bytes, and returns ``False``. A builtin does, so that calling it costs as little as
    calling a socket's ``send``.
    """

    send: Callable[[bytes], int] = ().__contains__


NO_SOCKET = _NoSocket()


class IDirectWriter(IWriter, Protocol):
    """A writer whose socket may be written to past it."""

    direct: ISocket
    """The socket while nothing waits for it, else ``NO_SOCKET``.

    After a ``send`` that took less than all, or raised ``OSError``, the caller must call ``leave``.
    An open outbox keeps a copy: until the outbox is closed, everything must be written through it.
    """

    def leave(self, data: bytes, sent: int) -> None:
        """Take the rest of ``data``, of which the socket has taken the first ``sent`` bytes."""


class IBroker(Protocol):
    """A process's only link to Redis."""

    @property
    def available(self) -> bool:
        """Whether messages can be published and received right now."""

    @property
    def generation(self) -> int:
        """A number that changes whenever a connection on which messages arrive is replaced."""

    def generation_of(self, channels: Iterable[bytes]) -> int:
        """The same for these channels only: messages on other channels may arrive on other
        connections.
        """

    def listen(self, channel: bytes, listener: IListener) -> Deferred[None]:
        """Fire when the subscription is in effect. Messages that are published from then on are
        delivered in Redis' order over all channels. The listener stays registered through outages,
        until ``unlisten``. A persisted message that an outage swallowed is delivered before what
        follows on its channel; the broker may be ``available`` before that.

        Fails with ``BrokerUnavailable`` if there is no connection, or if it is lost before the
        subscription is in effect. The listener is then not registered.
        """

    def unlisten(self, channel: bytes, listener: IListener) -> None:
        """Deliver no more messages of ``channel`` to ``listener``. Never fails."""

    def publish(
        self,
        channels: Sequence[bytes],
        message: bytes,
        expire: int,
        sender: IListener | None = None,
        history: History | None = None,
        info: bytes = b"",
    ) -> Deferred[int]:
        """Persist ``message`` for ``expire`` seconds (``0``: do not), add it to the ``history`` of
        every channel, and publish it there, with ``info`` about the client: a line of JSON.

        Atomic per channel, with one round trip for all. Calls reach Redis in their order.
        ``sender``, if it listens, does not get the message back. Fires with the sum of Redis'
        receiver counts, or fails with ``BrokerUnavailable``.
        """

    def get(self, channel: bytes) -> Deferred[PersistedMessage | None]:
        """Fire with the message persisted for ``channel``, or fail with ``BrokerUnavailable``."""

    def forget(self, listener: IListener) -> None:
        """Forget everything about a listener that is gone, except its channels."""

    def when_available(self) -> Deferred[None]:
        """Fire when messages can be published and received. The Deferred may be cancelled."""

    def on_restored(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` after each outage in which messages may have been missed.

        By then the broker is ``available`` again. Its listeners have received the persisted
        messages that were missed, or receive the rest in portions; a ``fence`` waits for it. The
        first connection is not an outage. Callbacks run in the order of their registration, after
        the Deferreds of ``when_available``. An exception is logged.

        Return a function that ends the registration. It is idempotent. Until it is called, the
        broker keeps a reference to ``callback``.
        """

    def fileno(self) -> int | None:
        """The descriptor of the connection on which messages arrive, if there is one."""

    def fence(self, channels: Iterable[bytes] | None = None) -> Deferred[None]:
        """Fire when every message that Redis published before this call, on ``channels`` or on any
        channel, has been handed to its listeners, and so has every persisted one that an outage
        swallowed there. Fails with ``BrokerUnavailable`` if the connection is replaced meanwhile.
        """


class IAuthorizer(Protocol):
    """Identifies visitors and decides about their rights."""

    def authorize(
        self, handshake: Handshake, rights: Sequence[str]
    ) -> Deferred[Admission] | Coroutine[Any, Any, Admission] | Admission:
        """Decide about the ``rights`` that a client asked for, in the order of its URL.

        Called at the handshake, and again about the same handshake while the websocket is open. A
        Deferred or coroutine may be cancelled. The first call redeems a one-time credential; from
        then on the handshake carries the ``redeemed`` of that ``Admission``. Raises or fails with
        ``Denied`` to refuse; any other failure is answered with 500.
        """


class IConnection(Protocol):
    """An open websocket, as hooks see it. It is the same object from opening to end, so an
    application can use it as a key.
    """

    @property
    def facility(self) -> str:
        """The part of the URL's path after ``websocket_url``."""

    @property
    def identity(self) -> Identity:
        """The visitor, as the authorizer identified them at the opening. The session key is a
        credential.
        """

    @property
    def rights(self) -> tuple[str, ...]:
        """The granted rights, such as ``subscribe-user``."""

    @property
    def channels(self) -> tuple[str, ...]:
        """The Redis channels that it listened to at its opening. Some contain a session key."""

    @property
    def peer(self) -> str:
        """The client's address; behind a trusted proxy, the address that the proxy reports."""

    def send(self, message: bytes | str) -> None:
        """Send to this client only, in order with all its other messages. Does nothing once the
        client is gone. Callable from any thread.
        """

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Callable from any thread.

        Raises ``ValueError`` for a code that must not be in a close frame. Only the first 123 bytes
        of the reason are sent.
        """


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was answered with an HTTP ``status``.

    ``reason`` is the text that the client was sent, ``detail`` an additional text for the log.
    ``path`` is the URL's path, percent-encoded and without the query, ``peer`` the client's
    address. Both are ``""`` if the request was never read.
    """

    status: int
    reason: str
    detail: str = ""
    path: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """The end of a websocket, and its counts until then.

    ``code`` and ``reason`` are those of the first close frame, which the server sent if
    ``by_server`` is true. The code is 1005 for a frame without one. It is 1006 if there was no
    frame; the ``reason`` is then the server's own text. If the server closes while a client's close
    is waiting for a hook, the server's frame counts. ``clean``: both sides sent a frame. ``sent``
    counts the messages handed to the socket, and ``received`` the messages of the client, both
    without heartbeats. ``dropped`` counts the messages that were discarded because the client did
    not read. ``seconds`` is the time for which the websocket was open.
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
    """An application's callbacks for its websockets' events and for its clients' messages.

    Each method may be ``async def``, or return a Deferred. The hooks of one websocket run one at a
    time: ``connected``, then each ``message`` in the client's order, then ``closed``. Each is
    cancelled after 10 s. A failure is logged, and affects no other websocket. ``NullHooks`` has two
    more, which hooks may lack.
    """

    def connected(self, connection: IConnection, /) -> object:
        """The client has received the persisted messages; or it has left meanwhile, and ``closed``
        follows. ``message`` is not called before this hook is done.
        """

    def refused(self, refusal: Refusal, /) -> object:
        """A handshake was refused. Not called for a client that left before the answer."""

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        """Return the message to publish: the client's own, another one, or ``None`` for nothing.

        The client is not told; ``connection.send`` can tell it. Raise ``MessageRefused`` to close
        the websocket with 1008; any other failure closes it with 1011. A client with many channels
        is answered with 103 or 100 instead, and its message has the attribute ``channel``. While 64
        messages of a client are waiting, no more are read from it.

        If the websocket ends while the hook is running, the message is not published.
        """

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        """The websocket has ended. Called once for each ``connected``, however it ended."""


class NullHooks:
    """``IHooks`` that do nothing: a base class for hooks that need only some of the events."""

    def connected(self, connection: IConnection, /) -> object:
        return None

    def refused(self, refusal: Refusal, /) -> object:
        return None

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        return message

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        return None

    def subscribed(self, connection: IConnection, channel: str, /) -> object:
        """A client with many channels has subscribed to one, named as in Redis."""

    def unsubscribed(self, connection: IConnection, channel: str, /) -> object:
        """Such a subscription has ended, however it did. ``closed`` may follow."""
