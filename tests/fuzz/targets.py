"""Fuzz targets: each feeds bytes to the server and checks the rules that hold for any bytes. The
last one takes faults of what is around the server instead.

A target takes the bytes in the pieces in which they arrive. It raises ``AssertionError``, or the
exception that escaped from the server. Targets are pure: fake wires, a clock of their own.
hypothesis (``test_fuzz.py``) and ``make fuzz`` call the same ones.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, eventAsText, globalLogPublisher
from twisted.python.failure import Failure

from tests.support.django import set_up_django
from tests.support.small_redis import RedisWorld
from tests.support.stories import Authorizer
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import BrokerRefused, Outage
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.protocols.centrifuge.wire import json as json_form
from ws4redis_tx.protocols.centrifuge.wire import protobuf
from ws4redis_tx.protocols.centrifuge.wire.codec import describe
from ws4redis_tx.protocols.centrifuge.wire.json import Json
from ws4redis_tx.protocols.centrifuge.wire.protobuf import Protobuf
from ws4redis_tx.protocols.centrifuge.wire.schema import COMMAND, Malformed
from ws4redis_tx.redis.wire.connection import PREPARE_TIMEOUT
from ws4redis_tx.redis.wire.protocol import LOST, CommandProtocol, PubSubProtocol, ResponseError
from ws4redis_tx.revocation.rechecker import PATIENCE
from ws4redis_tx.sessions.server import HANDSHAKE_TIMEOUT
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect
from ws4redis_tx.testing import make_memory_factory as make_factory
from ws4redis_tx.websocket.factory import CLOSE_TIMEOUT

set_up_django()

from django.contrib.auth import get_user_model
from django.core.exceptions import SuspiciousOperation
from django.test import Client, override_settings

from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.visitors import Visitor

# The possible answers to the bytes of a handshake. 500 and 503 need a fault in the server itself.
STATUSES = frozenset({400, 401, 403, 404, 405, 426})
# The close codes that bytes on an open websocket can cause, besides the client's own code:
# RFC 6455's protocol error, and the contract's bad UTF-8 and too big.
CLOSE_CODES = frozenset({1002, 1007, 1009})
# The close codes that trouble with Redis can cause: the fate of the client's message is unknown, or
# persisted messages may not be read.
TROUBLE_CODES = frozenset({1013, 1011})

MAX_MESSAGE_SIZE = 4096

# Seconds, at most, until a deaf connection is replaced, and until all trouble caused by wrong
# replies is over on each connection.
DEAFNESS_NOTICED = 30.0
LONGEST_RECOVERY = 4 * (PREPARE_TIMEOUT + DEAFNESS_NOTICED)


@contextmanager
def no_exception_logged(*but: type[Exception]) -> Iterator[None]:
    """Raise if an exception was caught and logged in the meantime, which counts as an escape."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure")
        if failure is not None and not failure.check(*but):
            found.append(eventAsText(event))

    globalLogPublisher.addObserver(observe)
    try:
        yield
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not found, found[0]


# Websockets


@cache
def session() -> bytes:
    """The session key of a visitor who is logged in; it replaces ``JOHN`` in the bytes sent."""
    browser = Client()
    browser.force_login(get_user_model().objects.get(username="john"))
    return browser.cookies["sessionid"].value.encode()


def curious(request: Any, channels: list[str]) -> list[str]:
    """A ``WS4REDIS_ALLOWED_CHANNELS`` that reads the whole request and grants everything."""
    assert all(isinstance(value, str) for value in request.COOKIES.values())
    assert request.path_info.startswith("/ws/") and request.get_full_path()
    assert not [name for name in request.META if name.startswith("HTTP_") and "-" in name]
    assert dict(request.headers)
    for read in (request.get_host, lambda: list(request.GET.lists())):
        with suppress(SuspiciousOperation):  # Django's own exception for this
            read()
    return channels


class DjangoAtOnce:
    """Django's authorizer without its threads."""

    def __init__(self) -> None:
        self._authorizer = DjangoAuthorizer(None)

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=curious):
            return self._authorizer._authorize(Visitor(handshake, rights))


class Tapped(MemoryClient):
    """Keeps everything that is sent to it."""

    def __init__(self, factory: Any) -> None:
        self.wire = b""
        super().__init__(factory)

    @property
    def gone(self) -> bool:
        return self._gone

    def _receive(self, data: bytes) -> None:
        self.wire += data
        super()._receive(data)


class Server:
    """A server over a broker in memory. ``assert_empty`` checks that no client is left."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker()
        self.factory = make_factory(
            ServerConfig(
                allowed_hosts=("localhost", ".example.com"), max_message_size=MAX_MESSAGE_SIZE
            ),
            broker=self.broker,
            authorizer=DjangoAtOnce(),
            clock=self.clock,
        )

    def assert_empty(self) -> None:
        assert not self.factory.session_server.opening and not self.factory.session_server.sessions
        assert not self.broker.hub.channels and not len(self.broker._notes)
        assert not self.clock.getDelayedCalls(), self.clock.getDelayedCalls()


def handshakes(pieces: Iterable[bytes]) -> int | None:
    """Feed a connection from its first byte: perhaps a handshake, perhaps frames.

    Returns the answer's status, or ``None`` when there was none.
    """
    with no_exception_logged():
        server = Server()
        client = Tapped(server.factory)
        sent = [piece.replace(b"JOHN", session()) for piece in pieces]
        for piece in sent:
            client.send_bytes(piece)
        status = client.refused or (101 if client.wire else None)
        if status is None:
            assert not client.open and not client.gone
            server.clock.advance(HANDSHAKE_TIMEOUT)
            assert client.gone and not client.wire
        elif status == 101:
            _judge_frames(server, client, b"".join(sent).partition(b"\r\n\r\n")[2])
        else:
            _judge_refusal(client)
        client.lose_connection()
        server.assert_empty()
    return status


def _judge_refusal(client: Tapped) -> None:
    """Check that the client got one whole answer that the contract names, and then the end."""
    assert client.refused in STATUSES, client.wire
    head, _, body = client.wire.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert all(name and value and "\n" not in value for name, value in _headers(lines[1:]))
    assert int(client.response_headers["content-length"]) == len(body)
    body.decode("ascii" if client.refused != 426 else "utf-8")
    assert body.count(b"\n") == 1 and body.endswith(b"\n")
    assert client.gone


def _headers(lines: list[str]) -> list[tuple[str, str]]:
    pairs = [line.partition(": ")[::2] for line in lines]
    assert len({name.lower() for name, _ in pairs}) == len(pairs), "a header stands twice"
    return pairs


def frames(pieces: Iterable[bytes]) -> int | None:
    """Feed bytes that follow a 101. Return the close code of the answer, if any."""
    with no_exception_logged():
        server = Server()
        client = Tapped(server.factory)
        flags = "subscribe-broadcast&publish-broadcast&echo"
        client.send_bytes(handshake_bytes(f"/ws/foobar?{flags}"))
        assert client.open, client.wire
        sent = list(pieces)
        for piece in sent:
            client.send_bytes(piece)
        _judge_frames(server, client, b"".join(sent))
        code = client.close_code
        client.lose_connection()
        server.assert_empty()
    return code


def _judge_frames(server: Server, client: Tapped, sent: bytes) -> None:
    """Check that the server sent whole frames and nothing after a close frame, and that the close
    code is the client's or one of ours.
    """
    assert not client._received, "bytes that are no whole frame, or follow a close frame"
    if client.open:
        assert not client.gone
        return
    assert client.close_code is not None, "dropped without a word"
    assert client.close_code in CLOSE_CODES | _close_codes(sent), client.close_code
    # Whether the client answers our close frame or not.
    server.clock.advance(CLOSE_TIMEOUT)
    assert client.gone


def _close_codes(data: bytes) -> set[int]:
    """The codes of the client's close frames, perhaps more; 1000 and 1005 if one has no code."""
    codes: set[int] = set()
    while len(data) >= 2:
        opcode, masked, size, start = data[0] & 0x0F, data[1] & 0x80, data[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        mask = data[start : start + 4] if masked else bytes(4)
        start += 4 if masked else 0
        payload = data[start : start + size]
        if opcode == 8:
            plain = bytes(byte ^ key for byte, key in zip(payload[:2], mask, strict=False))
            codes |= {int.from_bytes(plain, "big")} if plain else {1000, 1005}
        data = data[start + size :]
    return codes


# Centrifuge's protocol


def centrifuge_commands(binary: bool, payload: bytes) -> int:
    """Read a client's payload, in protobuf if it is ``binary``, and return the number of commands.

    Each command means the same when it is written and read again; one in JSON in both forms.
    """
    commands: list[Any] = []
    with suppress(Malformed):
        for command in (Protobuf() if binary else Json()).read(payload):
            commands.append(command)
    for command in commands:
        written = protobuf.encode(command, COMMAND)
        assert protobuf.encode(protobuf.decode(written, COMMAND), COMMAND) == written, command
        if not binary:
            line = json_form.encode(command, COMMAND)
            assert b"\n" not in line, line
            again = json_form.decode(line, COMMAND)
            assert json_form.encode(again, COMMAND) == line, command
            assert protobuf.encode(again, COMMAND) == written, command
    return len(commands)


def centrifuge_push(payload: bytes) -> str:
    """Send a message to a client in JSON, and return how it was wrapped.

    It comes back from its push byte for byte, or as the same JSON value, on one line.
    """
    line = Json().write({"push": {"pub": describe(Publication(None, payload), Json())}})
    assert b"\n" not in line, line
    pub = json.loads(line)["push"]["pub"]
    wrapping: str = pub.get("tags", {}).get("ws4redis", "")
    if wrapping == "text":
        assert pub["data"].encode() == payload, pub
    elif wrapping == "base64":
        assert base64.b64decode(pub["data"]) == payload, pub
    else:
        assert repr(pub["data"]) == repr(json.loads(payload)), pub
    return wrapping


# Redis


class _Line(StringTransport):
    """A wire that ends when it is told to."""

    ended = False

    def abortConnection(self) -> None:
        self.ended = True

    loseConnection = abortConnection


def _speak(protocol: Any, line: _Line, pieces: Iterable[bytes], asked: list[Deferred[Any]]) -> None:
    """Let the pieces arrive; afterwards every request has an answer or has failed."""
    answers: list[Any] = []
    for each in asked:
        each.addBoth(answers.append)
    for piece in pieces:
        if not line.ended:
            protocol.dataReceived(piece)
    protocol.connectionLost(Failure(ConnectionDone()))
    assert len(answers) == len(asked), "somebody waits for ever"
    for answer in answers:
        if isinstance(answer, Failure):
            assert answer.check(ResponseError, LOST), answer


def pubsub_replies(pieces: Iterable[bytes]) -> list[tuple[bytes, bytes]]:
    """Feed the pub/sub connection bytes from Redis. Return the messages."""
    handed: list[tuple[bytes, bytes]] = []
    with no_exception_logged():
        protocol, line = PubSubProtocol(handed.extend), _Line()
        protocol.makeConnection(line)
        asked = [
            protocol.subscribe(b"c"), protocol.ping(), protocol.unsubscribe(b"c"), protocol.ping(),
        ]  # fmt: skip
        _speak(protocol, line, pieces, asked)
    for channel, payload in handed:
        assert type(channel) is bytes and type(payload) is bytes, (channel, payload)
    return handed


def command_replies(pieces: Iterable[bytes]) -> None:
    """Feed the command connection bytes from Redis."""
    with no_exception_logged():
        protocol, line = CommandProtocol(), _Line()
        protocol.makeConnection(line)
        asked = [protocol.execute_command("GET", "k") for _ in range(3)]
        _speak(protocol, line, pieces, asked)


class Liar:
    """A Redis that sometimes gives a wrong answer."""

    def __init__(self, world: RedisWorld) -> None:
        self._honest = world.redis.answer
        self.lies: list[bytes] = []
        world.redis.answer = self.answer  # type: ignore[method-assign]

    def answer(self, connection: Any, command: list[bytes]) -> bytes:
        truth = self._honest(connection, command)
        return self.lies.pop(0) if self.lies else truth


# The destination of bytes: a connection that did not ask, or the place of the next answer.
PLACES = ("pubsub", "commands", "answer")


def broker(said: Iterable[tuple[str, bytes]]) -> None:
    """Run a whole broker with websockets and a Redis that says (place, bytes).

    Once Redis answers correctly again, websockets can be opened, can publish and can hear.
    """
    # A Redis that says why it does not serve a replay is logged with its reason.
    with no_exception_logged(BrokerRefused):
        world = RedisWorld()
        story = _Story(world)
        liar = Liar(world)
        story.come()
        story.go_on()
        for place, data in said:
            # The process's own control channel, which has a random name.
            data = data.replace(b"PROBE", world.broker._dispatcher.probe.channel)
            if place == "answer":
                liar.lies.append(data)
                story.come()
                story.say_and_hear()
            else:
                story.receive(place, data)
            story.go_on()
        liar.lies.clear()
        story.recover()
        newcomer = story.come()
        story.go_on()
        assert newcomer.open, newcomer.refused
        world.redis.publish(b"broadcast:f", b"after all", persist=False)
        story.go_on()
        assert newcomer.messages[-1:] == ["after all"], newcomer.messages
        story.leave()
        assert not any(world.remembered().values()), world.remembered()


class Database:
    """An authorizer whose database may be away."""

    away = False
    seconds = 0
    """For how long."""

    def __init__(self) -> None:
        self._there = Authorizer()

    def authorize(self, handshake: Any, rights: Iterable[str]) -> Admission:
        if self.away:
            raise Outage("The database is away")
        return self._there.authorize(handshake, rights)


# Each is a fault, or its end.
FAULTS = ("busy", "scripts", "database", "slow", "clock", "wait", "cut", "deaf", "frozen")


def faults(steps: Iterable[tuple[str, int]]) -> None:
    """Let Redis, its clock, the link and the database go through (fault, amount).

    Once they are over, a websocket that listened has heard the last message, none twice and none
    out of order, and it is still open. Others can be opened.
    """
    with no_exception_logged(BrokerRefused):
        database = Database()
        world = RedisWorld(database)
        story = _Story(world)
        listener = story.come("subscribe-broadcast")
        story.go_on()
        assert listener.open, listener.refused
        numbers = count()
        last = _publish(world, next(numbers))
        for fault, amount in steps:
            _begin_or_end(fault, amount, world, database)
            last = _publish(world, next(numbers))
            story.come()
            story.say_and_hear()
            story.go_on()
        world.redis.busy = world.redis.scripts_disabled = database.away = False
        world.redis.rate = 0
        story.recover()
        newcomer = story.come("subscribe-broadcast")
        story.go_on()
        assert newcomer.open, newcomer.refused
        assert listener.open, listener.close_code
        heard = [int(message) for message in listener.messages]
        assert heard == sorted(set(heard)), heard
        assert heard[-1:] == [last], (heard, last)
        story.leave()
        assert not any(world.remembered().values()), world.remembered()


def _begin_or_end(fault: str, amount: int, world: RedisWorld, database: Database) -> None:
    redis = world.redis
    if fault == "busy":
        redis.busy = not redis.busy
    elif fault == "scripts":
        redis.scripts_disabled = not redis.scripts_disabled
    elif fault == "database":
        database.away, database.seconds = not database.away, 0
    elif fault == "slow":
        redis.rate = 0 if redis.rate else 20 + abs(amount)
    elif fault == "clock":
        redis.set_clock(amount)
    elif fault == "wait":
        seconds = abs(amount) % 25
        database.seconds += seconds
        if database.seconds >= PATIENCE:
            database.away = False  # longer, and websockets are closed
        world.clock.advance(seconds)
    elif fault == "cut":
        world.lose_pubsub()
        world.lose_commands()
    elif fault == "deaf":
        world.deafen()
    else:
        world.freeze_commands()


def _publish(world: RedisWorld, number: int) -> int:
    world.redis.publish(b"broadcast:f", b"%d" % number, persist=True)
    return number


class _Story:
    def __init__(self, world: RedisWorld) -> None:
        self.world = world
        self.clients: list[MemoryClient] = []

    def come(self, flags: str = "subscribe-broadcast&subscribe-user&publish-user") -> MemoryClient:
        self.clients.append(connect(self.world.factory, f"ws://localhost/ws/f?{flags}"))
        return self.clients[-1]

    def say_and_hear(self) -> None:
        self.clients[0].send("said")
        self.world.redis.publish(b"user:u:f", b"heard", persist=True)

    def receive(self, pipe: str, data: bytes) -> None:
        """Let bytes arrive that nobody asked for."""
        connection = getattr(self.world, pipe)
        if connection.up and connection.protocol is not None:
            connection.protocol.dataReceived(data)

    def go_on(self) -> None:
        """Let everything in flight arrive, and make the next attempt to connect."""
        busy = True
        while busy:
            busy = False
            for pipe in (self.world.commands, self.world.pubsub):
                busy |= pipe.execute()
                busy |= pipe.protocol is not None and pipe.arrive()
                self.world.clock.advance(0)
        self.world.recover()
        self._judge()

    def recover(self) -> None:
        """Wait until both connections have been up for long enough. The server waits for missing
        answers, and needs probes to notice half a reply, which makes a connection deaf.
        """
        clock = self.world.clock
        started = last_down = clock.seconds()
        while clock.seconds() - last_down <= DEAFNESS_NOTICED:
            assert clock.seconds() - started < LONGEST_RECOVERY, "the broker does not come back"
            self.go_on()
            clock.advance(0.5)
            if not self.world.broker.available:
                last_down = clock.seconds()
        self.go_on()

    def leave(self) -> None:
        for client in self.clients:
            client.lose_connection()
        self.go_on()

    def _judge(self) -> None:
        for client in self.clients:
            assert client.close_code in TROUBLE_CODES | {None}, client.close_code
            assert client.refused in (None, 503), client.refused
