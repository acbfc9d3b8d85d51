"""Centrifuge's client protocol, for all clients of a server.

A client connects, is told its id, and then subscribes to any number of channels by their names. Its
websocket is accepted at once; the first command says who it is. Commands are carried out one after
the other, each with an answer. A publication, and whatever else the server says by itself, is a
push. The classic protocol's clients hear the same channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from operator import attrgetter
from random import Random
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import ANONYMOUS
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.names import about, side_channel
from ws4redis_tx.delivery.multiplexed import MultiplexedFeed
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.connection import Connection
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Disconnection
from ws4redis_tx.protocols.centrifuge.names import MOST_BYTES, Name, name_of, read_name
from ws4redis_tx.protocols.centrifuge.outages import Drops, fall_back
from ws4redis_tx.protocols.centrifuge.rights import as_command_error
from ws4redis_tx.protocols.centrifuge.tokens import TokenRules
from ws4redis_tx.protocols.centrifuge.wire.codec import IFormat, PushCodec, read_info
from ws4redis_tx.protocols.centrifuge.wire.json import Json
from ws4redis_tx.protocols.centrifuge.wire.protobuf import Protobuf
from ws4redis_tx.protocols.centrifuge.wire.schema import Values
from ws4redis_tx.protocols.client_quota import ClientQuota
from ws4redis_tx.protocols.interfaces import OVER_RATE, ISession
from ws4redis_tx.revocation.packing import Packer
from ws4redis_tx.scheduling.sweeps import PeriodicSweep

RETRY_INTERVAL = 1.0

CALL_TIMEOUT = 5.0
"""Seconds that an application's callback may take."""

MOST_ALIASES = 256
"""Meanings of names that one connection remembers."""

_SUBPROTOCOLS = {"centrifuge-json": "json", "centrifuge-protobuf": "protobuf"}

_CODES = {
    1000: Disconnection(3000, "connection closed"),
    1001: errors.SHUTDOWN,
    1008: errors.FORCE_DISCONNECT,
    1011: errors.SERVER_ERROR,
    1012: errors.SHUTDOWN,
    1013: errors.SLOW,
    OVER_RATE: errors.TOO_MANY_REQUESTS,
}
"""The codes with which the server closes any session, as this protocol has them."""


class CentrifugeProtocol:
    """An ``IProtocol``. A session's ``state`` is its ``Connection``.

    :param version: the server's, as clients are told.
    :param call: calls a function with the request of a handshake's visitor, and arguments.
    :param names: the application's meanings of names, if it has its own.
    :param rpc: the application's answer to remote calls, if it has one.
    :param tokens: reads the tokens that clients show; ``None``: there are none.
    :param occupancy: knows who is present where; ``None``: nothing does.
    :param quota: what the clients of each address may persist, by any protocol.
    :param failed: logs a text and a failure of the server's.
    :param note: as that of ``ClassicProtocol``.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: Any,
        reactor: Any,
        *,
        version: str,
        call: Callable[..., Deferred[Any]],
        names: Callable[..., Any] | None = None,
        rpc: Callable[..., Any] | None = None,
        tokens: Any = None,
        occupancy: Any = None,
        quota: ClientQuota,
        failed: Callable[[str, Any], object],
        note: Callable[[str, str], object],
    ) -> None:
        assert config.centrifuge_url is not None
        self.path = config.centrifuge_url
        self.config = config
        self.broker = broker
        self.reactor = reactor
        self.version = version
        self.failed = failed
        self.rpc = rpc
        self._names = names
        # By channel, the name in pushes and the number of clients who know it so.
        self._named: dict[bytes, tuple[str, int]] = {}
        self._call = call
        self.note = note
        self.occupancy = occupancy
        self.packer = Packer()
        self._connections: set[Connection] = set()
        self._forget: Callable[[], None] | None = None
        self.quota = quota
        self.tokens = TokenRules(tokens, config, reactor, note)
        self._random = Random()
        # Many clients have the same channels.
        self._shared = lru_cache(maxsize=4096)(
            lambda name, namespace: name.channel(namespace, ANONYMOUS)
        )
        self.side_of = lru_cache(maxsize=4096)(partial(side_channel, config.prefix))
        """The channel beside a channel."""
        self._formats: dict[str, IFormat] = {"json": Json(), "protobuf": Protobuf()}
        self._codecs: dict[tuple[str, Any], PushCodec] = {}
        self._pings: PeriodicSweep[Connection] = PeriodicSweep(
            config.centrifuge_ping,
            Connection.ping,
            reactor,
            self._random,
            check_after=config.centrifuge_pong,
            check=Connection.check_pong,
            check_if=attrgetter("pinged"),
        )

    def handshake(self, session: ISession) -> None:
        handshake = session.handshake
        if handshake.stream:
            kind = handshake.headers.get("content-type", "").lower()
            format = "protobuf" if kind.startswith("application/octet-stream") else "json"
        elif handshake.path == f"{self.path}websocket" and not handshake.events:
            chosen = [each for each in handshake.subprotocols if each in _SUBPROTOCOLS]
            if handshake.subprotocols:
                session.handshake = replace(handshake, subprotocols=tuple(chosen[:1]))
            format = _SUBPROTOCOLS[chosen[0]] if chosen else _format_in(handshake.query)
        else:
            raise Denied(404, f"There is nothing here. Clients connect at {self.path}websocket.")
        session.outbox.codec = self._codec(format, session.outbox.codec)
        session.feed = MultiplexedFeed(session.outbox)

    def _codec(self, format: str, framing: Any) -> PushCodec:
        codec = self._codecs.get((format, framing))
        if codec is None:
            codec = self._codecs[format, framing] = PushCodec(
                self._formats[format], framing, self._name_of
            )
        return codec

    def _name_of(self, channel: bytes) -> str:
        channel = about(self.config.prefix, channel) or channel
        named = self._named.get(channel)
        return name_of(self.config.prefix, channel) if named is None else named[0]

    def give_name(self, channel: bytes, text: str) -> bool:
        """Note that a client knows ``channel`` by this name. Return whether it shares the pushes of
        the others, who know it by the same name; if so, call ``take_name`` later.
        """
        if self._names is None:
            return True
        known, clients = self._named.get(channel, (text, 0))
        if known == text:
            self._named[channel] = text, clients + 1
        return known == text

    def take_name(self, channel: bytes) -> None:
        known, clients = self._named.pop(channel, ("", 0))
        if clients > 1:
            self._named[channel] = known, clients - 1

    def opened(self, session: ISession) -> Deferred[None] | None:
        connection = Connection(self, session, session.outbox.codec, session.feed)
        connection.stream = session.handshake.stream
        session.state, session.grants = connection, {}
        if self.config.history:
            session.outbox.holes = Drops(connection)
        if self._forget is None:
            self._forget = self.broker.on_lost(self._lost)
        self._connections.add(connection)
        session.feed.go_live()
        if session.observed:
            connection.known = Deferred()
        return connection.known

    def _lost(self) -> None:
        """The connection to Redis is lost, and the feeds have all that came over it."""
        for each in tuple(self._connections):
            fall_back(each)

    def received(self, session: ISession, payload: bytes) -> Deferred[None] | None:
        received: Deferred[None] | None = session.state.received(payload)
        return received

    def close_code(self, code: int, reason: str) -> tuple[int, str]:
        return _CODES.get(code, (code, reason))

    def closed(self, session: ISession) -> None:
        connection, session.state = session.state, None
        if connection is not None:
            self._pings.discard(connection)
            self._connections.discard(connection)
            connection.closed()
            if not self._connections and self._forget is not None:
                self._forget()
                self._forget = None

    def connected(self, connection: Connection) -> None:
        """Its ``connect`` was answered."""
        self._pings.add(connection, after=0.5)
        if connection.known is not None:
            connection.flush()  # before what hooks send to it
            connection.known.callback(None)

    def known_name(self, connection: Connection, text: str) -> Name | None:
        """The meaning of a name, if nobody must be asked. Raises ``CommandError``."""
        return connection.aliases.get(text) if self._names else _read_name(text)

    def read_name(self, connection: Connection, text: str) -> Name | Deferred[Name]:
        """Raises ``CommandError``, or fails with it, for a name that means nothing."""
        known = self.known_name(connection, text)
        if known is not None:
            return known
        if len(text.encode()) > MOST_BYTES:
            raise CommandError(errors.BAD_REQUEST)
        assert self._names is not None
        return self.call(connection, self._names, text).addCallback(
            self._read_alias, connection, text
        )

    def _read_alias(self, meaning: object, connection: Connection, text: str) -> Name:
        if meaning is None:
            raise CommandError(errors.UNKNOWN_CHANNEL)
        if not isinstance(meaning, str):
            raise TypeError(
                f"WS4REDIS_CENTRIFUGE_NAMES returned {meaning!r:.200}. Return a name such as "
                "'broadcast:news', or None."
            )
        name = _read_name(meaning)._replace(text=text)
        if len(connection.aliases) >= MOST_ALIASES:
            connection.aliases.clear()
        connection.aliases[text] = name
        return name

    def call(
        self, connection: Connection, function: Callable[..., Any], *arguments: Any
    ) -> Deferred[Any]:
        """Call an application's ``function`` with the visitor's request, where its callbacks run.
        Fails with ``CommandError`` for a visitor who is refused.
        """
        called = self._call(connection.handshake, function, *arguments)
        called.addTimeout(CALL_TIMEOUT, self.reactor)
        return called.addErrback(as_command_error)

    def channel_of(self, name: Name, connection: Connection) -> bytes:
        """The channel in Redis. Raises ``CommandError``."""
        if name.audience in ("user", "session"):
            return name.channel(connection.namespace, connection.identity)
        channel: bytes = self._shared(name, connection.namespace)
        return channel

    def has_presence(self, name: Name) -> bool:
        return (
            self.occupancy is not None
            and name.audience in ("broadcast", "group")
            and self.occupancy.watches(name.facility)
        )

    def present(self, channel: bytes) -> Deferred[dict[str, Values]]:
        """Fire with what is said of each client that is present there, by its id."""
        present: Deferred[Any] = self.occupancy.present(channel)
        return present.addCallback(
            lambda found: {client: read_info(info) for client, info in found.items()}
        )

    def later(self) -> Deferred[None]:
        """Fire when it is time to try again."""
        return deferLater(self.reactor, RETRY_INTERVAL)

    def late(self, connection: Connection) -> Deferred[None]:
        """Fire when the client may be told to try again, after a random delay, because some retry
        at once. Never fires if it leaves first.
        """
        waiting: Deferred[None] = Deferred()
        connection.set_timer("late", self._random.uniform(1.0, 3.0), waiting.callback, None)
        return waiting


_read_name = lru_cache(maxsize=4096)(read_name)


def _format_in(query: str) -> str:
    parameters = parse_qs(query)
    asked = [*parameters.get("format", []), *parameters.get("cf_protocol", [])]
    return "protobuf" if "protobuf" in asked else "json"
