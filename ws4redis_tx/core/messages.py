"""A message on its way from Redis to the clients, and the forms it takes for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from ws4redis_tx.core.positions import Position

# Bytes that a websocket frame of medium size adds to a message.
_FRAMING = 4


class ICodec(Protocol):
    """Turns publications into the bytes that a client is sent.

    One codec serves all clients that are sent the same bytes. It is hashed by identity.
    """

    def encode(self, publication: Publication, /) -> bytes:
        """The bytes of one message. Never empty."""

    def join(self, publications: Sequence[Publication], /) -> bytes:
        """The bytes of several messages, in their order, for one write."""


class IFraming(ICodec, Protocol):
    """The codec of a transport, for protocols that write messages of their own."""

    def frame(self, payload: bytes, binary: bool) -> bytes:
        """The bytes of one message, which is text or ``binary``."""


class Publication:
    """One message on one channel.

    ``size`` is the approximate number of bytes that a receiver is sent.

    ``channel`` is ``None`` for a message that did not come from Redis. ``sender`` is the listener
    that published it without asking for echo, if there is one. ``forms`` maps each codec to its
    encoding, which is made once for any number of receivers.
    """

    __slots__ = ("channel", "forms", "info", "payload", "sender", "size")

    number = 1
    """Number of messages in it."""

    offset = 0
    """The message's number on its channel, from 1; 0 if that is not known."""

    began = 0
    """The stamp of the first message of the channel's stream; 0 if that is not known."""

    position: Position | None = None
    """The position of a client that has it, as far as that is known."""

    marked = False
    """Whether ``position`` is the message's own, and not that of an earlier one."""

    replayed = False
    """Whether it was published before the client that gets it was connected."""

    def __init__(self, channel: bytes | None, payload: bytes, sender: object = None) -> None:
        self.channel = channel
        self.payload = payload
        self.sender = sender
        self.info = b""
        """What is said of the client that published it: a JSON object, if it is known."""
        self.size = len(payload) + _FRAMING
        self.forms: dict[ICodec, bytes] = {}

    def form(self, codec: ICodec) -> bytes:
        """Make and keep the form for ``codec``, which ``forms`` does not have yet."""
        form = self.forms[codec] = codec.encode(self)
        return form

    @property
    def before(self) -> Position | None:
        """A position of a client that has everything before it, if one is known."""
        return None

    @property
    def parts(self) -> Sequence[Publication]:
        return (self,)


class PositionedPublication(Publication):
    """A publication whose position is known."""

    __slots__ = ("began", "marked", "offset", "position", "replayed")

    position: Position

    def __init__(
        self,
        channel: bytes | None,
        payload: bytes,
        position: Position,
        *,
        sender: object = None,
        marked: bool = True,
        replayed: bool = False,
        offset: int = 0,
        began: int = 0,
    ) -> None:
        super().__init__(channel, payload, sender)
        self.offset = offset
        self.began = began
        self.position = position
        self.marked = marked
        self.replayed = replayed

    @property
    def before(self) -> Position:
        position = self.position
        return position._replace(stamp=position.stamp - 1) if self.marked else position


class Arrival(Publication):
    """A client's coming or going, on the channel beside that on which it is present."""

    __slots__ = ("event",)

    number = 0

    def __init__(self, channel: bytes, event: str, info: bytes) -> None:
        super().__init__(channel, info)
        self.event = event
        """``join`` or ``leave``; the payload is what is said of the client."""


class Occupant(NamedTuple):
    """A client that is present on a channel. ``user`` is ``""`` for an anonymous visitor. ``info``
    is what is said of it: a JSON object, without a line break.
    """

    channel: bytes
    client: str
    user: str
    info: bytes


class Announced(NamedTuple):
    """The answer to a server that says who is present at it: of how many clients and channels this
    was known before, and which other servers have stopped saying so.
    """

    known: int
    dead: Sequence[str]


class Notice(NamedTuple):
    """Tells a client that keeps a position that the position has moved on, or that messages on the
    channels of ``gap`` may be missing before it.
    """

    position: Position
    gap: frozenset[bytes] = frozenset()


class Joined:
    """Several publications, in their order, that are sent in one write."""

    __slots__ = ("forms", "number", "parts", "size")

    sender = None

    def __init__(self, parts: Sequence[Publication]) -> None:
        self.parts = parts
        self.number = len(parts)
        self.size = sum([each.size for each in parts])
        self.forms: dict[ICodec, bytes] = {}

    def form(self, codec: ICodec) -> bytes:
        """Make and keep the form for ``codec``, which ``forms`` does not have yet."""
        form = self.forms[codec] = codec.join(self.parts)
        return form


class RedisMessage(bytes):
    """The bytes of a message. Made from ``bytes``, or from ``str`` as UTF-8."""

    def __new__(cls, message: bytes | bytearray | memoryview | str) -> RedisMessage:
        return super().__new__(cls, payload_of(message))


def payload_of(message: Any) -> bytes:
    """The bytes of a message, not copied if they are ``bytes``. Raises ``TypeError``."""
    if isinstance(message, bytes):
        return message
    if isinstance(message, str):
        return message.encode()
    try:
        return bytes(memoryview(message))
    except TypeError:
        kind = type(message)
    if hasattr(kind, "__await__"):
        remedy = "It has yet to arrive: await it, or send the result in addCallback(…)."
    else:
        remedy = (
            "RedisPublisher has publish_json(…) for data. Elsewhere, make it one first, with "
            "json.dumps(…) for example."
        )
    raise TypeError(f"A message is str or bytes, and this is a {kind.__name__}. {remedy}")


class ClientMessage(RedisMessage):
    """What a client with many channels publishes on ``channel``, as hooks are asked about it."""

    channel: str

    def __new__(cls, payload: bytes, channel: str) -> ClientMessage:
        message = bytes.__new__(cls, payload)
        message.channel = channel
        return message


class Published(int):
    """The number of subscribers that a message was published to, over all of its channels.

    ``position`` is the position of the message, or of the last one of several channels. A client at
    that position has the message. It is ``""`` where no history is kept.
    """

    position: str

    def __new__(cls, receivers: int, position: str = "") -> Published:
        published = super().__new__(cls, receivers)
        published.position = position
        return published


class PersistedMessage(RedisMessage):
    """A message read from the key of ``channel``: the last one published there."""

    channel: bytes

    def __new__(cls, payload: bytes, channel: bytes) -> PersistedMessage:
        message = bytes.__new__(cls, payload)
        message.channel = channel
        return message
