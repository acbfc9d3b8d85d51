"""Nobody gets another's messages: 50 users, 10 groups, odd names and all audiences, against a model
that is a set.

Everything is real except the visitors, who declare their own identity. The model knows no channel
names: a message has an address (audience, name, facility), and a connection has the addresses that
it asked for and may hear.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults, inlineCallbacks

from tests.support import TIMEOUT
from tests.support.clients import CLOSE, exchange, open_wire
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.redis_store import RedisMessage
from ws4redis_tx.service import Publisher, make_service
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import client_frame

ODD = [
    "", "a", "b", "c", "a:b", "b:c", "a:b:c", ":", "::", "*", "?", "[x]", "[a-z]*", "a*", "\\", "x",
    "a b", " ", "🎉", "é", "e\u0301", "A", "%", "%3A", "user", "group", "broadcast", "session",
    "site", "ctl", "at", "None", "SELF", "user:a", "site:user:a", "a:", ":a", "a\n", "\0", "{a}",
]  # fmt: skip
# Some continue an odd name: `user:a:b:c` must belong to `a:b` alone.
PLAIN_FACILITIES = ["c", "b", "", "*", "?", "[x]", "a b", "🎉", "x/y", "a", "%", "C"]
COLON_FACILITIES = ["b:c", ":c", "a:", "user:a:c"]

# (audience, name, facility); the name of broadcast is "".
Address = tuple[str, str, str]


@dataclass(eq=False)
class Connection:
    """A websocket, its rights, and the messages that it should have got."""

    identity: Identity
    facility: str
    flags: frozenset[str]
    wire: Any = None
    expected: Counter[bytes] = field(default_factory=Counter)

    def addresses(self, verb: str) -> set[Address]:
        """The addresses that it may hear (``subscribe``) or publish to (``publish``)."""
        names = {
            "broadcast": [""],
            "user": [self.identity.username],
            "group": self.identity.groups,
            "session": [self.identity.session_key],
        }
        return {
            (audience, str(name), self.facility)
            for audience in names
            if f"{verb}-{audience}" in self.flags
            for name in names[audience]
        }

    def named(self) -> bool:
        """Whether it asks for more than broadcast."""
        return any("-" in flag and not flag.endswith("broadcast") for flag in self.flags)

    def status(self) -> int:
        """The status with which the contract answers its handshake."""
        audiences = {flag.partition("-")[2] for flag in self.flags}
        if not self.identity.username and audiences & {"user", "group"}:
            return 401
        if not self.identity.session_key and "session" in audiences:
            return 403
        return 400 if ":" in self.facility and self.named() else 101


class Doorman:
    """An authorizer that believes visitors, and grants all rights that they ask for."""

    def __init__(self, identities: list[Identity]) -> None:
        self._identities = identities

    def authorize(self, handshake: Handshake, rights: Iterable[str]) -> Admission:
        identity = self._identities[int(handshake.headers["x-visitor"])]
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class Telling(RedisSubscriber):
    """Tells when Redis has acknowledged a client's message."""

    def __init__(self, connection: Any, tell: Callable[[object], None]) -> None:
        super().__init__(connection)
        self._tell = tell

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Deferred[int]:
        return super().publish_message(message, expire).addBoth(self._told)

    def _told(self, outcome: Any) -> Any:
        self._tell(outcome)
        return outcome


def payloads(data: bytes) -> Counter[bytes]:
    """The payloads of the messages among a server's frames."""
    found: Counter[bytes] = Counter()
    while data:
        size, start = data[1], 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start], "big")
        if data[0] & 0x0F in (1, 2):
            found[data[start : start + size]] += 1
        data = data[start + size :]
    return found


class IsolationTests(ServerTestCase):
    timeout = 120

    def setUp(self) -> None:
        super().setUp()
        # WS4REDIS_SEED=… in the environment repeats a failure.
        self.seed = int(os.environ.get("WS4REDIS_SEED") or random.randrange(1 << 32))
        self.random = random.Random(self.seed)
        self.connections: list[Connection] = []
        self.persisted: dict[Address, bytes] = {}
        self.acknowledged: DeferredQueue[object] = DeferredQueue()
        self.number = 0

    @inlineCallbacks
    def test_nobody_gets_what_is_not_for_them_and_everybody_what_is(self) -> Any:
        prefix = self.random.choice(["", "site", "a"])
        self.people = self.make_people(50, 10)
        self.config = ServerConfig(redis=self.redis.address, listen=LISTEN, prefix=prefix)
        service = make_service(
            self.config,
            authorizer=Doorman(self.people),
            subscriber=lambda connection: Telling(connection, self.acknowledged.put),
        )
        self.launch(service)
        self.factory = service.factory
        yield service.when_ready()
        yield self.visit(120)
        yield self.publish(300)
        yield self.say(60)
        yield self.visit(40)
        yield self.publish(200)
        yield self.judge()

    # People

    def make_people(self, users: int, groups: int) -> list[Identity]:
        """Names that are equal or similar, even between users, groups and sessions."""
        names = self.random.sample(ODD, len(ODD))
        names += [f"user {number}" for number in range(users)]
        self.group_names = ["", *self.random.sample(ODD[1:], groups - 1)]
        sessions = [*self.random.sample(ODD, 20), None, None, *map(str, range(users))]
        return [
            Identity(
                sessions[number],
                names[number],
                tuple(self.random.sample(self.group_names, self.random.randrange(4))),
            )
            for number in range(users)
        ]

    @inlineCallbacks
    def visit(self, count: int) -> Any:
        """Let that many come at once, and check the answers."""
        yield gatherResults([self.come() for _ in range(count)], consumeErrors=True)
        yield self.settle()

    @inlineCallbacks
    def come(self) -> Any:
        number = self.random.randrange(len(self.people))
        flags = [
            f"{verb}-{audience}"
            for verb, chance in (("subscribe", 0.5), ("publish", 0.2))
            for audience in ("broadcast", "user", "group", "session")
            if self.random.random() < chance
        ]
        facility = self.random.choice(PLAIN_FACILITIES * 3 + COLON_FACILITIES)
        connection = Connection(self.people[number], facility, frozenset(flags))
        for address in connection.addresses("subscribe") & self.persisted.keys():
            connection.expected[self.persisted[address]] += 1
        handshake = handshake_bytes(
            f"/ws/{quote(facility)}?{'&'.join(flags)}", X_Visitor=str(number)
        )
        if connection.status() == 101:
            connection.wire = yield open_wire(self.port, handshake)
            self.connections.append(connection)
        else:
            answer = yield exchange(self.port, handshake)
            self.assertEqual(status_of(answer), connection.status(), self.about(connection))

    @inlineCallbacks
    def settle(self) -> Any:
        """Fire when every message is delivered and every connection is live."""
        yield self.factory.broker.fence()
        while any(each.feed.replaying for each in self.factory.session_server.sessions):
            yield self.factory.broker.fence()

    # Messages

    def message(self, addresses: Iterable[Address], sender: Connection | None = None) -> bytes:
        """A new message to these addresses, expected by everyone who may hear one of them."""
        self.number += 1
        payload = b"%d" % self.number
        for address in addresses:
            self.persisted[address] = payload
            for each in self.connections:
                if each is not sender and address in each.addresses("subscribe"):
                    each.expected[payload] += 1
        return payload

    @inlineCallbacks
    def publish(self, count: int) -> Any:
        """Publish as an application does, to existing names and to some others."""
        published = []
        for _ in range(count):
            facility = self.random.choice(PLAIN_FACILITIES + COLON_FACILITIES)
            audience: dict[str, Any] = {
                "broadcast": self.random.random() < 0.3,
                "users": self.some([str(each.username) for each in self.people] + ODD),
                "groups": self.some(self.group_names + ODD),
                "sessions": self.some([each.session_key or "x" for each in self.people] + ODD),
            }
            addresses = {
                (word, name, facility)
                for word in ("user", "group", "session")
                for name in audience[f"{word}s"]
                if name or word == "group"  # without a name, nobody
            }
            named = bool(addresses)
            if audience["broadcast"]:
                addresses.add(("broadcast", "", facility))
            if not addresses:
                continue

            def make(facility: str = facility, audience: dict[str, Any] = audience) -> Publisher:
                return Publisher(self.config, self.factory.broker, facility=facility, **audience)

            if named and ":" in facility:
                self.assertRaises(ValueError, make)
            else:
                published.append(make().publish_message(self.message(addresses)))
        yield gatherResults(published, consumeErrors=True)
        yield self.settle()

    def some(self, names: list[str]) -> list[str]:
        return self.random.sample(names, self.random.choice([0, 0, 1, 3]))

    @inlineCallbacks
    def say(self, count: int) -> Any:
        """Publish as clients do; one after another, because the last one is the one persisted."""
        speakers = [each for each in self.connections if each.addresses("publish")]
        for _ in range(count):
            speaker = self.random.choice(speakers)
            payload = self.message(speaker.addresses("publish"), speaker)
            speaker.wire.transport.write(client_frame(1, payload))
            yield self.acknowledged.get().addTimeout(TIMEOUT, reactor)
        yield self.settle()

    # Judgement

    @inlineCallbacks
    def judge(self) -> Any:
        """End all connections and compare; the end of each comes after all its messages."""
        for each in self.connections:
            each.wire.transport.write(CLOSE)
        received = yield gatherResults([each.wire.ended for each in self.connections])
        for each, data in zip(self.connections, received, strict=True):
            got = payloads(data)
            self.assertEqual(got - each.expected, Counter(), f"not for it: {self.about(each)}")
            self.assertEqual(each.expected - got, Counter(), f"missing: {self.about(each)}")
        # There was something to mix up.
        self.assertGreater(sum(sum(each.expected.values()) for each in self.connections), 200)
        self.assertGreater(len(self.connections), 60)

    def about(self, connection: Connection) -> str:
        identity = connection.identity
        return (
            f"{identity}, session {identity.session_key!r}, facility {connection.facility!r}, "
            f"{sorted(connection.flags)}; WS4REDIS_SEED={self.seed}"
        )
