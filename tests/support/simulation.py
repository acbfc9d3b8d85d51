"""A client that is cut off again and again, while publishers with and without a history publish on
its three channels; and the check of everything that it heard.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import TestCase

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks
from twisted.internet.task import deferLater

from tests.support.clients import open_websocket
from tests.support.events import open_events
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.names import audience_of
from ws4redis_tx.core.positions import History, Kept, Position, read_position
from ws4redis_tx.testing.wire import SUBPROTOCOL, read_frame

SIZES = (20_000, 40, 5, 2)
HISTORY = tuple((f"*-{size}", size, 3600) for size in SIZES)
"""A facility's name ends with its history's size."""

FLAGS = "subscribe-broadcast&subscribe-user&subscribe-group"

# So many messages on a channel may lie before a client that is there, and before one that is away.
# More than the history of 40 holds would be a gap, and rightly.
_MOST_AHEAD, _MOST_MISSED = 10, 30


class John:
    """An authorizer that takes everybody for John."""

    fixed = True

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        identity = Identity(None, "john", ("chatters",))
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class Gap:
    """Stands in a record where a gap was told on some audiences."""

    def __init__(self, audiences: Sequence[str]) -> None:
        self.audiences = frozenset(audiences)


class WebsocketClient:
    """Records what it hears, and resumes where it was cut off."""

    kind = "websocket"

    def __init__(self, facility: str, cookies: Mapping[str, str] | None = None) -> None:
        self.target = f"/ws/{facility}?{FLAGS}"
        self.cookies = dict(cookies or {})
        self.record: list[bytes | Gap] = []
        self.position = ""
        self.told_gaps = 0
        self.heard: set[bytes] = set()
        # After a gap comes what is persisted on its channels: it may have been heard.
        self.may_repeat = 0
        self.client: Any = None

    @inlineCallbacks
    def connect(self, port: int) -> Any:
        url = f"ws://127.0.0.1:{port}{self.target}&since={self.position}"
        client = yield open_websocket(url, protocols=[SUBPROTOCOL], cookies=self.cookies)
        # The first frame tells that the history was read.
        messages = [(yield client.next()), *client.received.pending]
        client.onMessage = lambda payload, binary: self.take(payload)
        for message in messages:
            self.take(message.encode() if isinstance(message, str) else message)
        self.client = client

    @property
    def reached(self) -> str:
        """The position that it has."""
        return self.position

    def cut(self) -> Deferred[Any]:
        client, self.client, self.may_repeat = self.client, None, 0
        client.onMessage = lambda payload, binary: None
        client.transport.abortConnection()
        closed: Deferred[Any] = client.closed
        return closed

    def take(self, payload: bytes) -> None:
        frame = read_frame(payload)
        self.position = frame.position
        if frame.status is not None and frame.status["gap"]:
            self.gap(frame.status["gap"])
        if frame.message is not None:
            self.note(frame.message, frame.replayed)

    def gap(self, audiences: Sequence[str]) -> None:
        self.told_gaps += 1
        self.may_repeat = len(audiences)
        self.record.append(Gap(audiences))

    def note(self, message: bytes, replayed: bool) -> None:
        if message in self.heard and replayed and self.may_repeat:
            self.may_repeat -= 1
            return
        self.heard.add(message)
        self.record.append(message)


class EventsClient(WebsocketClient):
    kind = "events"

    @inlineCallbacks
    def connect(self, port: int) -> Any:
        headers: dict[str, str] = {}
        if self.position:
            headers["Last_Event_ID"] = self.position
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        source = yield open_events(port, self.target, **headers)
        first = source.events.get()
        yield DeferredList([first, source.closed], fireOnOneCallback=True, consumeErrors=True)
        if not first.called:
            first.cancel()
            raise ConnectionError("the server is not ready")
        self.replaying = True
        self.event(first.result)
        while source.events.pending:
            self.event((yield source.events.get()))
        source.events.put = self.event
        self.client = source

    @property
    def reached(self) -> str:
        return (self.client and self.client.last_id) or self.position

    def cut(self) -> Deferred[Any]:
        self.position, self.may_repeat = self.reached, 0
        source, self.client = self.client, None
        source.events.put = lambda event: None
        source.transport.abortConnection()
        closed: Deferred[Any] = source.closed
        return closed

    def event(self, event: Any) -> None:
        if event.type == "open":
            self.replaying = True
        elif event.type == "live":
            self.replaying = False
        elif event.type == "gap":
            self.gap(json.loads(event.data)["gap"])
        else:
            self.note(event.data.encode(), self.replaying)


@inlineCallbacks
def connect_again(client: WebsocketClient, port: int) -> Any:
    """Connect as soon as the server is ready."""
    while client.client is None:
        try:
            yield client.connect(port)
        except ConnectionError as error:
            if "503" not in str(error) and "not ready" not in str(error):
                raise
            yield deferLater(reactor, 0.02)


KINDS = (WebsocketClient, EventsClient)


class Simulation:
    """Publishes on the three channels of ``facility``, and remembers what was published.

    :param publishers: those with a history; the first one also publishes as old publishers do.
    """

    def __init__(self, facility: str, publishers: Sequence[Any], seed: int = 16) -> None:
        self.facility = facility
        self.channels = tuple(
            f"{start}:{facility}".encode() for start in ("broadcast", "user:john", "group:chatters")
        )
        self.kept = Kept(History(int(facility.rpartition("-")[2]), 3600))
        self.publishers = publishers
        self.random = random.Random(seed)
        self.published: list[tuple[Position, bytes, bytes]] = []
        """Of the new publishers, in their order."""
        self.unknown = 0
        """The number of those whose fate is unknown."""

    @inlineCallbacks
    def publish(self, number: int, old: bool = False) -> Any:
        """One message: of the old publisher, or of one of the new ones."""
        channel = self.random.choice(self.channels)
        if old:
            payload = b"old %d" % number
            yield self.publishers[0].commands.ask(
                [("SETEX", channel, 3600, payload), ("PUBLISH", channel, payload)],
                lambda command, answer: True,
            )
            return
        payload = b"new %d" % number
        broker = self.random.choice(self.publishers)
        yield broker.when_available()
        try:
            published = yield broker.commands.publish([channel], payload, 3600, self.kept)
        except BrokerUnavailable:
            self.unknown += 1
            return
        self.published.append((read_position(published.position), payload, channel))

    @inlineCallbacks
    def run(
        self,
        client: WebsocketClient,
        port: int,
        *,
        messages: int,
        cuts: int,
        old_every: int = 0,
        faults: Mapping[int, Callable[[], Any]] | None = None,
    ) -> Any:
        """Publish so many messages, and cut the client off at random ones. ``faults`` are called
        before some messages, and may return a Deferred. If one fires with false, the server is not
        there until the next one has fired.
        """
        faults, there = faults or {}, True
        moments = set(self.random.sample(range(messages), cuts))
        yield connect_again(client, port)
        while not client.reached:  # without a position it would miss everything
            yield deferLater(reactor, 0)
        back: int | None = None  # the message at which it comes back
        connecting: Deferred[Any] | None = None
        for number in range(messages):
            if number in faults:
                if connecting is not None:
                    yield connecting
                    connecting = None
                there = (yield faults[number]()) is not False
                if client.client is not None and (client.client.closed.called or not there):
                    yield client.cut()
                if client.client is None:
                    back = number if there else None
            if client.client is not None and client.client.closed.called:
                raise AssertionError(f"closed by the server: {client.client.closed}")
            if number in moments and client.client is not None and there:
                yield client.cut()
                back = number + self.random.randrange(20)
            if back is not None and number >= back:
                back, connecting = None, connect_again(client, port)
            if connecting is not None and (connecting.called or self._ahead(client) > _MOST_MISSED):
                yield connecting
                connecting = None
            while connecting is None and self._ahead(client) > _MOST_AHEAD:
                if client.client is None or client.client.closed.called:
                    break
                yield deferLater(reactor, 0)
            yield self.publish(number, old=bool(old_every) and number % old_every == 0)
        if connecting is not None:
            yield connecting
        if client.client is not None:
            yield client.cut()
        yield connect_again(client, port)
        yield self.publish(messages)
        last = self.published[-1][1]
        while last not in client.heard:
            yield deferLater(reactor, 0.01)
        yield client.cut()

    def _ahead(self, client: WebsocketClient) -> int:
        """The most messages that one of the channels has published after the client's position."""
        reached = read_position(client.reached)
        ahead = dict.fromkeys(self.channels, 0)
        for position, _, channel in reversed(self.published):
            if reached is not None and position <= reached:
                break
            ahead[channel] += 1
        return max(ahead.values())

    def check(self, test: TestCase, client: WebsocketClient) -> int:
        """Check that nothing came twice or out of order, and that a gap was told wherever something
        is missing. Return how many are missing.
        """
        places: dict[bytes, tuple[bytes, int, int]] = {}
        numbers = dict.fromkeys(self.channels, 0)
        for place, (_, payload, channel) in enumerate(self.published):
            places[payload] = channel, place, numbers[channel]
            numbers[channel] += 1
        messages = [each for each in client.record if isinstance(each, bytes)]
        twice = [each for each, count in Counter(messages).items() if count > 1]
        test.assertEqual(twice, [])
        missing, latest = 0, -1
        next_ones, gaps = dict.fromkeys(self.channels, 0), set[bytes]()
        for each in client.record:
            if isinstance(each, Gap):
                gaps |= {name for name in self.channels if audience_of(name) in each.audiences}
            elif each in places:
                channel, place, number = places[each]
                test.assertGreater(place, latest, f"{each!r} is out of order")
                if number > next_ones[channel]:
                    missing += number - next_ones[channel]
                    test.assertIn(channel, gaps, f"something before {each!r} is missing")
                latest, next_ones[channel] = place, number + 1
                gaps.discard(channel)
        for channel, number in numbers.items():
            if next_ones[channel] < number:
                missing += number - next_ones[channel]
                test.assertIn(channel, gaps, "something at the end is missing")
        return missing
