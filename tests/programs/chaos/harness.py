"""Shared by the tests of outages: sequence numbers, on several websockets, through a fault.

Each message is a number that is published once, and numbers grow. So the numbers that a websocket
heard show whether a message was lost, came twice or overtook another:

- every message published while all was well arrived;
- of the messages published during a fault, the last one on each channel that Redis accepted and
  persisted arrived;
- messages that Redis refused never arrived;
- no number came twice, and none after a greater one, over all channels of a websocket;
- no websocket was closed, except with 1013 after it had sent a message whose fate is unknown.

``WS4REDIS_CHAOS`` scales the load.
"""

from __future__ import annotations

import itertools
import os
import signal
import socket
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import hiredis
from twisted.internet import reactor
from twisted.internet.defer import (
    Deferred,
    DeferredList,
    gatherResults,
    inlineCallbacks,
    maybeDeferred,
    succeed,
)
from twisted.internet.threads import deferToThread

from tests.programs.chaos.proxy import Proxy
from tests.support import TIMEOUT
from tests.support.clients import Client
from tests.support.programs import children
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.sizes import CHAOS_LOAD as LOAD
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.protocols import replay
from ws4redis_tx.redis import broker, pubsub
from ws4redis_tx.redis import scripts as publishing
from ws4redis_tx.redis.wire import connection as redis_connection
from ws4redis_tx.service import make_service

ROUNDS = 1 + LOAD // 10  # of each fault
BURSTS = 2 * LOAD  # while all is well, before each fault and after it
BURST = 5  # numbers on each channel
EXPIRE = 3600

# A test that waits for longer than this has failed; a planned failover takes 20 s.
PATIENCE = 45.0

# The server's timeouts in these tests, in seconds; with its usual ones each test would take half a
# minute.
SOONER = (
    (pubsub, "PROBE_INTERVAL", 1.0),
    (pubsub, "_PROBE_PATIENCE", 1.0),
    (broker, "COMMAND_TIMEOUT", 1.0),
    (redis_connection, "PREPARE_TIMEOUT", 1.0),
    (pubsub, "SILENCE", 1.0),
    (redis_connection, "_LONGEST_DELAY", 0.2),
    (replay, "RETRY_INTERVAL", 0.1),
)

STAMPED = ("broadcast:a", "group:staff:a", "broadcast:b")
QUIET = "broadcast:quiet"  # nobody listens here until a client connects during a fault
OLD = "broadcast:old"  # fed as old publishers do it
SPOKEN = ("broadcast:said-0", "broadcast:said-1", "broadcast:said-2")  # fed by websockets

# The websockets that listen: each path, and its channels.
LISTENING = (
    ("a?subscribe-broadcast", STAMPED[:1]),
    ("a?subscribe-broadcast", STAMPED[:1]),
    ("a?subscribe-broadcast&subscribe-group", STAMPED[:2]),
    ("a?subscribe-group", STAMPED[1:2]),
    ("b?subscribe-broadcast", STAMPED[2:]),
    ("old?subscribe-broadcast", (OLD,)),
    *((f"{each.partition(':')[2]}?subscribe-broadcast", (each,)) for each in SPOKEN),
)


# The websockets that connect during a fault: one where others listen already, and one where nobody
# does.
COMING = (
    ("a?subscribe-broadcast&subscribe-group", STAMPED[:2]),
    ("quiet?subscribe-broadcast", (QUIET,)),
)


class Staff:
    """An authorizer that grants every right to everybody, as members of one group."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        member = Identity(username="member", groups=("staff",))
        return Admission(member, tuple(rights), PlainRequest(handshake.path_info, member))


class Ear:
    """A websocket that listens, and the numbers that it has received since number ``since``."""

    def __init__(self, client: Client, path: str, channels: tuple[str, ...], since: int) -> None:
        self.client = client
        self.path = path
        self.channels = channels
        self.since = since
        self.heard: list[int] = []
        self._waiting: dict[int, list[Deferred[None]]] = defaultdict(list)
        self._listen()

    def _listen(self) -> None:
        self.client.received.get().addCallback(self._hear)

    def _hear(self, message: str | bytes) -> None:
        number = int(message)
        self.heard.append(number)
        self._listen()
        for waiting in self._waiting.pop(number, ()):
            waiting.callback(None)

    def when_heard(self, number: int) -> Deferred[None]:
        if number in self.heard:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting[number].append(waiting)
        return waiting

    def when_last(self, numbers: dict[str, int]) -> Deferred[None]:
        """Fire when this websocket has received the ``numbers``, by channel, of its channels."""
        due = [self.when_heard(numbers[each]) for each in self.channels if each in numbers]
        return within(DeferredList(due), f"{self.path} heard its last number of {numbers}")


class Mouth:
    """A websocket that publishes. It reopens when it has been closed."""

    def __init__(self, client: Client, channel: str) -> None:
        self.client = client
        self.channel = channel
        self.last = 0
        self._pongs: list[Deferred[None]] = []
        client.onPong = lambda payload: self._pongs.pop(0).callback(None)

    @property
    def closed(self) -> bool:
        return bool(self.client.closed.called)

    def say(self, number: int) -> Deferred[Any]:
        """Fire when the server has read it, published or not."""
        self.last = number
        self.client.sendMessage(b"%d" % number)
        answered: Deferred[None] = Deferred()
        self._pongs.append(answered)
        self.client.sendPing()
        return within(first_of(answered, self.when_closed()), f"{number} was read")

    def when_closed(self) -> Deferred[int | None]:
        """Fire with the close code."""
        closed: Deferred[int | None] = Deferred()

        def tell(code: int | None) -> int | None:
            closed.callback(code)
            return code

        self.client.closed.addCallback(tell)
        return closed


class ChaosTestCase(ServerTestCase):
    """A server whose Redis is behind a proxy, with websockets that count.

    A test calls ``fault`` and says how it begins and ends. Before that, a test may change
    ``address`` or start another ``redis``; outside publishers always use ``redis``.
    """

    timeout = 60 + 10 * LOAD
    rounds = ROUNDS
    authorizer: Any = Staff()
    options: dict[str, Any] = {}

    def setUp(self) -> None:
        for module, name, seconds in SOONER:
            self.patch(module, name, seconds)
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        self.proxy = Proxy(self.redis.port)
        self.addCleanup(self.proxy.stop)
        self.address = RedisAddress(host="127.0.0.1", port=self.proxy.port)
        self.eval = "EVAL"  # the name of this command
        self.service: Any = None
        self.ears: list[Ear] = []
        self.mouths: list[Mouth] = []
        # Numbers by channel: all that must arrive, and the last that is persisted.
        self.promised: dict[str, set[int]] = defaultdict(set)
        self.persisted: dict[str, int] = {}
        # Numbers that Redis refused; the count of websockets closed with 1013.
        self.refused: set[int] = set()
        self.closed = 0
        self._numbers = itertools.count(1)

    @property
    def broker(self) -> Any:
        return self.service.factory.broker

    @inlineCallbacks
    def serve(self) -> Any:
        config = ServerConfig(redis=self.address, listen=LISTEN, **self.options)
        self.service = make_service(config, authorizer=self.authorizer)
        self.launch(self.service)
        yield self.service.when_ready()
        for path, channels in LISTENING:
            yield self.listen(path, channels)
        for channel in SPOKEN:
            self.mouths.append((yield self._open_mouth(channel)))

    @inlineCallbacks
    def listen(self, path: str, channels: tuple[str, ...]) -> Any:
        """Open a websocket, unless the server answers that it cannot serve now."""
        try:
            client = yield self.open(path)
        except ConnectionError as error:
            self.assertIn("[503]", str(error))
        else:
            self.ears.append(Ear(client, path, channels, next(self._numbers)))

    @inlineCallbacks
    def _open_mouth(self, channel: str) -> Any:
        facility = channel.partition(":")[2]
        return Mouth((yield self.open(f"{facility}?publish-broadcast")), channel)

    # A fault, from beginning to end

    @inlineCallbacks
    def fault(
        self,
        begin: Callable[[], Any],
        end: Callable[[], Any] = lambda: None,
        *,
        reachable: bool = True,
    ) -> Any:
        """Publish through the fault, and check the messages that arrived.

        ``reachable``: Redis itself answers during the fault, if only with an error.
        """
        if self.service is None:
            yield self.serve()
        for _ in range(self.rounds):
            yield self.all_is_well()
            # In flight while the fault begins, during the fault, and while it ends.
            self.publish()
            self.mouths[0].say(next(self._numbers))
            self.first_spoken = self.mouths[0].last
            yield maybeDeferred(begin)
            if reachable:
                self.publish()
            coming = [self.listen(*each) for each in COMING]
            yield self.mouths[1].say(next(self._numbers))
            yield maybeDeferred(end)
            self.publish()
            self.mouths[2].say(next(self._numbers))
            yield gatherResults(coming, consumeErrors=True)
            yield self.recovered()
            yield self.all_is_well()
        self.check_what_was_heard()
        yield self.check_the_service()

    @inlineCallbacks
    def all_is_well(self) -> Any:
        """Publish, and wait until every message has arrived."""
        for _ in range(BURSTS):
            published = self.publish()
            self.assertNotIn(None, published.values(), "Redis refused")
            for channel, numbers in published.items():
                self.promised[channel].update(numbers)
            for mouth in self.mouths:
                mouth.say(next(self._numbers))
                self.promised[mouth.channel].add(mouth.last)
                self.persisted[mouth.channel] = mouth.last
            for ear in self.ears:
                yield ear.when_last(self.persisted)

    @inlineCallbacks
    def recovered(self) -> Any:
        """Wait until all owed messages have arrived and both connections to Redis work again."""
        yield within(self._both_connections(), "the connections to Redis were back")
        self.proxy.on_answer = lambda: None
        for mouth in self.mouths:
            (ear,) = [each for each in self.ears if mouth.channel in each.channels]
            fate = first_of(ear.when_heard(mouth.last), mouth.when_closed())
            yield within(fate, f"{mouth.last} of a websocket was heard, or that was closed")
        for ear in self.ears:
            yield ear.when_last(self._owed())
        yield within(self._both_connections(), "the connections to Redis were back")
        for place, mouth in enumerate(self.mouths):
            if mouth.closed:
                self.assertEqual((yield mouth.when_closed()), 1013)
                self.closed += 1
                self.mouths[place] = yield self._open_mouth(mouth.channel)

    @inlineCallbacks
    def _both_connections(self) -> Any:
        while True:
            try:
                yield self.broker.publish([b"nobody"], b"", 0)
                yield self.broker.fence()
                return
            except BrokerUnavailable:
                yield self.broker.when_available()

    def _owed(self) -> dict[str, int]:
        return {name: number for name, number in self.persisted.items() if name not in SPOKEN}

    def forgotten(self) -> None:
        """Redis has lost the persisted messages."""
        self.persisted.clear()

    # Publishing from outside, straight to Redis

    def at_each_answer(self, act: Callable[[int], object]) -> None:
        """Call ``act`` with 0, 1, … at each answer of Redis, before the server gets it. Stop when
        the server has recovered, or after a hundred answers.
        """
        steps = iter(range(100))

        def step() -> None:
            number = next(steps, None)
            if number is not None:
                act(number)

        self.proxy.on_answer = step

    def publish(self, burst: int = BURST) -> dict[str, list[int] | None]:
        """Publish a burst on every channel; return its numbers by channel, ``None`` for a refusal.

        This is one blocking step, so the server can do nothing between an old publisher's two
        commands.
        """
        sent: list[tuple[str, int]] = []
        asked: list[tuple[Any, ...]] = []
        for _ in range(burst):
            for channel in (*STAMPED, QUIET):
                number = next(self._numbers)
                sent.append((channel, number))
                asked.append(
                    (self.eval, publishing.PUBLISH, 2, channel, f"at:{channel}", number, EXPIRE)
                )
            number = next(self._numbers)
            sent.append((OLD, number))
            asked += [("PUBLISH", OLD, number), ("SETEX", OLD, EXPIRE, number)]
        answers = iter(ask(self.redis.port, *asked))
        published: dict[str, list[int] | None] = {}
        for channel, number in sent:
            answer = next(answers)
            if isinstance(answer, list):  # the script's answer, for one channel
                (answer,) = answer
            stored = next(answers) if channel == OLD else answer
            if isinstance(answer, Exception):
                self.refused.add(number)
            if isinstance(stored, Exception):
                published[channel] = None
            else:
                self.persisted[channel] = number
                numbers = published.setdefault(channel, [])
                if numbers is not None:
                    numbers.append(number)
        return published

    # Afterwards

    def check_what_was_heard(self) -> None:
        for ear in self.ears:
            self.assertEqual(ear.heard, sorted(set(ear.heard)), f"{ear.path}: order, duplicates")
            promised = set().union(*(self.promised[channel] for channel in ear.channels))
            lost = {number for number in promised if number > ear.since} - set(ear.heard)
            self.assertEqual(lost, set(), f"{ear.path}: lost")
            self.assertEqual(self.refused & set(ear.heard), set(), f"{ear.path}: was refused")
            self.assertFalse(ear.client.closed.called, f"{ear.path}: closed")

    @inlineCallbacks
    def check_the_service(self) -> Any:
        """A websocket can be opened and gets the persisted messages; nothing else is left."""
        self.assertTrue(self.broker.available)
        for path, channels in LISTENING:
            client = yield self.open(path)
            replayed = yield client.take(len(channels))
            self.assertEqual(set(map(int, replayed)), {self.persisted[each] for each in channels})
            client.sendClose(1000)
            yield client.closed
        channels = {each.encode() for ear in self.ears for each in ear.channels}
        yield self.until(lambda: self.subscribed() == channels, "what is subscribed")
        yield self.until(lambda: self.connections() == 2, "two connections")

    def subscribed(self) -> set[bytes]:
        return set(self.redis.channels())

    def connections(self) -> int:
        return self.redis.connections()

    @inlineCallbacks
    def until(self, condition: Callable[[], bool], what: str) -> Any:
        """Ask Redis until ``condition`` holds; Redis announces no such event."""
        asked_since = reactor.seconds()
        while not (yield deferToThread(condition)):
            if reactor.seconds() - asked_since > PATIENCE:
                raise AssertionError(f"never came about: {what}")

    # Redis' own process

    def signal_redis(self, number: signal.Signals) -> None:
        (server,) = children(self.redis.pid)
        os.kill(server, number)

    def kill_redis(self) -> None:
        self.signal_redis(signal.SIGKILL)
        self.redis.stop()

    def start_redis(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start another server at the same place."""
        self.redis = RedisServer(*options, port=self.redis.port, environment=environment)

    def when_lost(self) -> Deferred[Any]:
        """Fire when the server has noticed that its pub/sub connection is lost."""
        lost = self.broker.fence().addErrback(lambda failure: failure.trap(BrokerUnavailable))
        return within(lost, "the loss was noticed")


def ask(port: int, *asked: tuple[Any, ...]) -> list[Any]:
    """The answers of the Redis on ``port``, errors included. Blocks.

    Client libraries may repeat a command after an error or without an answer; this never does.
    """
    reader = hiredis.Reader()
    answers: list[Any] = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(b"".join(hiredis.pack_command(each) for each in asked))
        while len(answers) < len(asked):
            answer = reader.gets()
            if answer is False:
                data = connection.recv(65536)
                if not data:
                    raise ConnectionError("Redis went away")
                reader.feed(data)
            else:
                answers.append(answer)
    return answers


def first_of(*each: Deferred[Any]) -> Deferred[Any]:
    return DeferredList(each, fireOnOneCallback=True)


def within(waiting: Deferred[Any], what: str) -> Deferred[Any]:
    """Fail after a while, and name the event that did not happen."""

    def fail(result: Any, seconds: float) -> Any:
        raise AssertionError(f"not within {seconds} s: {what}")

    return waiting.addTimeout(PATIENCE, reactor, fail)
