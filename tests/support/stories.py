"""A small Redis, websockets on fake wires, and the promises to each of them.

A ``Story`` takes steps and checks the promises after each; one turn of the reactor passes between
two steps. It does not know how the server is connected to ``Redis``: that is the ``World``, and
each test module brings its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from hypothesis import strategies as st
from twisted.internet.task import Clock

from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.names import is_control_channel
from ws4redis_tx.testing import MemoryClient, connect
from ws4redis_tx.websocket.factory import WebSocketFactory

CHANNELS = {
    "broadcast": b"broadcast:f",
    "group": b"group:g:f",
    "user": b"user:u:f",
}
# The longest story, in seconds: it ends before the protocol's own pings.
LONGEST = 20.0


@dataclass(eq=False, slots=True)
class Message:
    """A published message and its fate."""

    number: int
    channel: bytes
    payload: bytes
    persisted: bool
    in_outage: bool
    swallowed: bool = False

    def __repr__(self) -> str:
        return f"{self.payload.decode()} on {self.channel.decode()}"


class Redis:
    """Keys and channels, and one subscribed connection, which ``send`` hands messages to."""

    def __init__(self) -> None:
        self.history: list[Message] = []
        self.keys: dict[bytes, Message] = {}
        self.subscribed: set[bytes] = set()
        self.send: Callable[[Message], object] = lambda message: None
        self.outage = False
        # The messages that the present outage swallowed.
        self.lost: set[Message] = set()
        # Persisted messages read by the current recovery, and by recoveries that finished.
        self.recalled: set[Message] = set()
        self.recovered: set[Message] = set()
        # The number of losses of each connection.
        self.losses = {"pubsub": 0, "commands": 0}

    def publish(self, channel: bytes, payload: bytes, *, persist: bool) -> int:
        message = Message(len(self.history), channel, payload, persist, self.outage)
        self.history.append(message)
        if persist:
            self.keys[channel] = message
        if channel in self.subscribed:
            self.send(message)
        elif self.outage:
            self.lose(message)
        return int(channel in self.subscribed)

    def recall(self, channels: Iterable[bytes]) -> list[Message | None]:
        found = [self.keys.get(channel) for channel in channels]
        if self.subscribed:  # else the connection of this recovery is lost, and another one follows
            self.recalled |= {message for message in found if message is not None}
        return found

    def connection_lost(self, pipe: str) -> None:
        self.losses[pipe] += 1
        if pipe == "pubsub":
            self.outage = True
            self.subscribed.clear()
            self.recalled.clear()

    def available_again(self) -> None:
        self.outage = False
        self.recovered |= self.recalled
        self.recalled.clear()

    def lose(self, message: Message) -> None:
        message.swallowed = True
        self.lost.add(message)


def of_websockets(channels: Iterable[bytes]) -> set[bytes]:
    """The channels that are not for the servers themselves."""
    return {channel for channel in channels if not is_control_channel(channel)}


class Pipe:
    """A connection to Redis: requests on their way there, answers on their way back."""

    def __init__(self) -> None:
        self.requests: deque[Any] = deque()
        self.answers: deque[Any] = deque()

    def execute(self) -> bool:
        """Let Redis take one request; return whether there was one."""
        raise NotImplementedError

    def arrive(self) -> bool:
        """Let one answer arrive; return whether there was one."""
        raise NotImplementedError

    def arrive_together(self) -> None:
        """Let all answers in flight arrive in one turn of the reactor."""
        while self.arrive():
            pass


class World(Protocol):
    """The server and its connections."""

    redis: Redis
    factory: WebSocketFactory
    clock: Clock
    # Whether the pub/sub connection is dead and the server does not know.
    deaf: bool

    @property
    def pubsub(self) -> Pipe: ...

    @property
    def commands(self) -> Pipe: ...

    def lose_pubsub(self) -> None: ...

    def lose_commands(self) -> None: ...

    def deafen(self) -> None: ...

    def recover(self) -> None:
        """Take the next step towards both connections, if one is due."""

    def remembered(self) -> dict[str, object]:
        """The server's records of its clients, by name; empty when every client has left."""


class Authorizer:
    """Treats everybody as the same user, and grants every requested right."""

    def authorize(self, handshake: Any, rights: Iterable[str]) -> Admission:
        identity = Identity("s", "u", ("g",))
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


@dataclass(eq=False)
class Visitor:
    """A client, and the facts that its promises depend on."""

    client: MemoryClient
    channels: set[bytes]
    echo: bool
    may_say: bool
    opened_at: int | None = None
    checked: int = 0
    paused: bool = False
    left: bool = False
    # It sent a message whose fate is unknown.
    doomed: bool = False
    # Each message that it sent, with the number of losses of pub/sub by then.
    said: dict[bytes, int] = field(default_factory=dict)

    @property
    def there(self) -> bool:
        return self.client.open and not self.left


class Story:
    """Takes steps, and after each step checks the promises that can be checked by then."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.redis = world.redis
        self.visitors: list[Visitor] = []
        self._payloads = 0
        self._commands_lost = 0

    def take(self, steps: Iterable[tuple[Any, ...]]) -> None:
        for word, *arguments in steps:
            getattr(self, word)(*arguments)
            self._settle()
        self._finish()

    # Steps

    def connect(self, subscribe: frozenset[str], publish: str | None, echo: bool) -> None:
        flags = [f"subscribe-{audience}" for audience in sorted(subscribe)]
        flags += [f"publish-{publish}"] if publish else []
        flags += ["echo"] if echo else []
        client = connect(self.world.factory, f"ws://localhost/ws/f?{'&'.join(flags)}")
        channels = {CHANNELS[audience] for audience in subscribe}
        self.visitors.append(Visitor(client, channels, echo, publish is not None))

    def open(self, subscribe: frozenset[str], publish: str | None, echo: bool) -> None:
        """Connect, and wait until it has succeeded."""
        self.heal()
        self.connect(subscribe, publish, echo)
        self.calm_down()

    def leave(self, which: int) -> None:
        for visitor in self._one(which):
            visitor.left = True
            visitor.client.lose_connection()

    def close(self, which: int) -> None:
        for visitor in self._one(which):
            if visitor.client.open:
                visitor.left = True
                visitor.client.close()

    def pause(self, which: int) -> None:
        for visitor in self._one(which):
            if visitor.there and not visitor.paused:
                visitor.paused = True
                visitor.client._server.transport.producer.pauseProducing()

    def resume(self, which: int) -> None:
        for visitor in self._one(which):
            self._resume(visitor)

    def say(self, which: int) -> None:
        for visitor in self._one(which):
            if visitor.there and visitor.may_say:
                payload = self._new_payload()
                # In an outage, the echo notes are dropped.
                visitor.said[payload] = -1 if self.redis.outage else self.redis.losses["pubsub"]
                visitor.doomed |= not self.world.factory.broker.available
                visitor.client.send(payload.decode())

    def publish(self, audience: str, persist: bool) -> None:
        self.redis.publish(CHANNELS[audience], self._new_payload(), persist=persist)

    def execute(self, pipe: str, count: int) -> None:
        for _ in range(count):
            getattr(self.world, pipe).execute()

    def arrive(self, pipe: str, count: int) -> None:
        for _ in range(count):
            getattr(self.world, pipe).arrive()
            self._settle()

    def arrive_together(self, pipe: str) -> None:
        getattr(self.world, pipe).arrive_together()

    def lose_pubsub(self) -> None:
        self.world.lose_pubsub()

    def lose_commands(self) -> None:
        self.world.lose_commands()

    def deafen(self) -> None:
        self.world.deafen()

    def recover(self) -> None:
        self.world.recover()

    def calm_down(self) -> None:
        """Let everything in flight arrive."""
        busy = True
        while busy:
            busy = False
            for pipe in ("commands", "pubsub"):
                busy |= getattr(self.world, pipe).execute()
                busy |= getattr(self.world, pipe).arrive()
                self._settle()

    def heal(self) -> None:
        """Restore both connections."""
        for _ in range(8):
            if self.world.deaf:
                self.lose_pubsub()
            if not self.world.factory.broker.available:
                self.recover()
                self._settle()  # end the outage before anything else happens
                self.calm_down()

    def wait(self, seconds: float) -> None:
        if self.world.clock.seconds() + seconds < LONGEST:
            self.world.clock.advance(seconds)

    # Promises

    def _one(self, which: int) -> list[Visitor]:
        return [self.visitors[which % len(self.visitors)]] if self.visitors else []

    def _new_payload(self) -> bytes:
        self._payloads += 1
        return b"%d" % self._payloads

    def _resume(self, visitor: Visitor) -> None:
        producer = visitor.client._server.transport.producer
        if visitor.paused and producer is not None:
            visitor.paused = False
            producer.resumeProducing()

    def _settle(self) -> None:
        self.world.clock.advance(0)
        if self.world.factory.broker.available and not self.world.deaf:
            self.redis.available_again()
        commands_lost = self.redis.losses["commands"] > self._commands_lost
        self._commands_lost = self.redis.losses["commands"]
        for visitor in self.visitors:
            visitor.doomed |= commands_lost and bool(visitor.said)
            self._check(visitor)

    def _hard_to_tell(self, one: Message, other: Message) -> bool:
        """Whether a recovery cannot know which message came first."""
        return one.channel != other.channel or not (one.persisted and other.persisted)

    def _received(self, visitor: Visitor) -> list[Message]:
        by_payload = {message.payload: message for message in self.redis.history}
        return [by_payload[str(payload).encode()] for payload in visitor.client.messages]

    def _check(self, visitor: Visitor) -> None:
        client = visitor.client
        if visitor.opened_at is None and client.open:
            visitor.opened_at = len(self.redis.history)
        received = self._received(visitor)
        opened_at = visitor.opened_at or 0
        assert not (visitor.paused and len(received) > visitor.checked), "sent into a pause"
        for index in range(visitor.checked, len(received)):
            message = received[index]
            assert message.channel in visitor.channels, f"{message} is not for this client"
            assert message not in received[:index], f"{message} came twice"
            for other in received[:index]:
                assert (
                    other.number < message.number
                    or (
                        other.in_outage and message.in_outage and self._hard_to_tell(other, message)
                    )
                    or (other.channel != message.channel and other.number < opened_at)
                ), f"{other} came before {message}"
            said_at = visitor.said.get(message.payload)
            assert visitor.echo or said_at != self.redis.losses["pubsub"], (
                f"{message} came back without echo"
            )
        visitor.checked = len(received)
        allowed = {None, 1000} if visitor.left else {None}
        assert client.close_code in (allowed | {1013} if visitor.doomed else allowed)
        if client.close_code is not None:
            assert not client._received, "something came after a close frame"

    def _finish(self) -> None:
        """Let everything in flight arrive, and check the outcome."""
        for visitor in self.visitors:
            self._resume(visitor)
        self._drain()
        assert self.world.factory.broker.available
        for visitor in self.visitors:
            self._judge(visitor)
        for visitor in self.visitors:
            visitor.left = True
            visitor.client.lose_connection()
        self._drain()
        assert not any(self.world.remembered().values()), self.world.remembered()

    def _drain(self) -> None:
        for _ in range(8):
            self.calm_down()
            if self.world.deaf:
                self.world.lose_pubsub()
            self.world.recover()
            self.world.clock.advance(0.5)
            self._settle()

    def _judge(self, visitor: Visitor) -> None:
        """Nothing is missing."""
        history = self.redis.history
        if not visitor.left and visitor.client.close_code is None and visitor.opened_at is not None:
            published = {message.payload for message in history}
            assert published >= visitor.said.keys(), "a client's message vanished"
        if not visitor.there:
            return
        opened_at = visitor.opened_at
        assert opened_at is not None
        received = set(self._received(visitor))
        for channel in visitor.channels:
            sent = [message for message in history if message.channel == channel]
            first = min((m.number for m in sent if m in received), default=opened_at)
            for message in sent[::-1]:
                if message in received or (message.payload in visitor.said and not visitor.echo):
                    continue
                if message.number < min(first, opened_at):
                    continue
                if message.swallowed:
                    assert message.number < opened_at or message not in self.redis.recovered, (
                        f"{message} was persisted, and did not arrive after the outage"
                    )
                elif message.persisted or message.number >= opened_at:
                    raise AssertionError(f"{message} is missing")
            before = [m for m in sent if m.persisted and m.number < opened_at]
            after = [m for m in sent if m.persisted and m.number >= opened_at]
            if before and not after:
                assert before[-1] in received, f"{before[-1]} was persisted, and not replayed"


AUDIENCES = st.sampled_from(sorted(CHANNELS))
SOME = st.integers(1, 4)
WHICH = st.integers(0, 3)
CONNECT = st.tuples(
    st.sampled_from(["connect", "open"]),
    st.frozensets(AUDIENCES, min_size=1, max_size=3),
    AUDIENCES | AUDIENCES | st.none(),
    st.booleans(),
)


def _word(word: str) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(word), WHICH)


PIPES = st.sampled_from(["pubsub", "commands"])
FLOW = st.tuples(st.sampled_from(["execute", "arrive"]), PIPES, SOME)
CALM = (
    st.just(("calm_down",)),
    CONNECT,
    CONNECT,
    _word("leave"),
    _word("close"),
    _word("pause"),
    _word("resume"),
    _word("say"),
    _word("say"),
    st.tuples(st.just("publish"), AUDIENCES, st.booleans()),
    st.tuples(st.just("publish"), AUDIENCES, st.just(True)),
    FLOW,
    FLOW,
    FLOW,
    st.tuples(st.just("arrive_together"), PIPES),
)
TROUBLE = (
    *CALM,
    *CALM,
    *CALM,
    st.just(("lose_pubsub",)),
    st.just(("lose_commands",)),
    *(st.just(("recover",)),) * 3,
    *(st.just(("heal",)),) * 2,
)


def stories(*steps: st.SearchStrategy[tuple[Any, ...]]) -> st.SearchStrategy[list[Any]]:
    """Lists of ``steps``, joined from several lists: hypothesis makes a single one too short."""
    parts = st.lists(st.one_of(*steps), min_size=1, max_size=20)
    return st.lists(parts, min_size=1, max_size=10).map(lambda found: list(chain(*found)))
