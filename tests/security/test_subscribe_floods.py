"""A client of Centrifuge's protocol that asks for more than anybody needs."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.security.cases import SecurityTestCase
from tests.support import TIMEOUT
from tests.support.centrifuge import open_centrifuge
from tests.support.django import set_up_django
from tests.support.servers import later
from ws4redis_tx.protocols.centrifuge.protocol import MOST_ALIASES
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS, MOST_GRANTS
from ws4redis_tx.sessions.inbox import MAX_UNACKNOWLEDGED

set_up_django()

MANY = 3000


class Callback:
    """A callback of the site. ``calls`` counts the facilities that it was asked about, ``most`` is
    the highest number of calls about floods at a time. Those wait while it ``holds``.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.running = self.most = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._released.set()

    def hold(self) -> None:
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    def __call__(self, request: Any, asked: Any) -> Any:
        name = asked if isinstance(asked, str) else request.path_info.removeprefix("/ws/")
        flood = "flood" in name
        with self._lock:
            self.calls[name] += 1
            self.running += flood
            self.most = max(self.most, self.running)
        if flood:
            self._released.wait(TIMEOUT)
        with self._lock:
            self.running -= flood
        return asked


class FloodTests(SecurityTestCase):
    @inlineCallbacks
    def serve(self, **settings: Any) -> Any:
        self.callback = Callback()
        self.addCleanup(self.callback.release)
        settings.setdefault("WS4REDIS_ALLOWED_CHANNELS", self.callback)
        settings.setdefault("WS4REDIS_RATE", None)
        self.service = yield super().serve(
            WS4REDIS_CENTRIFUGE_URL="/connection/", WS4REDIS_ALLOWED_ORIGINS="*", **settings
        )

    @inlineCallbacks
    def connect(self) -> Any:
        client = yield open_centrifuge(self.port)
        self.addCleanup(self._close, client.websocket)
        return client

    def connection(self, client: Any) -> Any:
        """The server's data about a client."""
        sessions = self.service.factory.session_server.sessions
        (found,) = [each for each in sessions if each.state and each.state.client == client.id]
        return found.state

    def flood(self, client: Any, command: str, many: int = MANY, **request: Any) -> None:
        """Send so many commands, each on another facility, a hundred in a frame."""
        for start in range(0, many, 100):
            names = [f"broadcast:flood/{number}" for number in range(start, start + 100)]
            client.send(*[{command: {"channel": name, **request}} for name in names])

    @inlineCallbacks
    def codes(self, client: Any, many: int = MANY) -> Any:
        """Fire with how often each error, or none, came with the next answers, in their order."""
        codes: Counter[int] = Counter()
        numbers = []
        for _ in range(many):
            answer = yield client.answer()
            numbers.append(answer["id"])
            codes[answer.get("error", {}).get("code", 0)] += 1
        self.assertEqual(numbers, list(range(numbers[0], numbers[0] + many)))
        return codes

    @inlineCallbacks
    def assert_served(self, other: Any, name: str) -> Any:
        """Check that another client subscribes and hears, whatever the flood waits for."""
        self.assertEqual((yield other.subscribe(f"broadcast:{name}")), {})
        self.redis.command("PUBLISH", f"broadcast:{name}", f'"{name}"')
        self.assertEqual((yield other.data()), name)

    def heard_of(self) -> set[str]:
        return {each for each in self.channels() if "flood" in each}

    @inlineCallbacks
    def test_of_subscribes_only_the_first_128_are_asked_about_one_at_a_time(self) -> Any:
        yield self.serve()
        client, other = yield gatherResults([self.connect(), self.connect()])
        self.callback.hold()
        self.flood(client, "subscribe")
        while not self.callback.running:
            yield later()
        yield self.assert_served(other, "calm")
        self.assertEqual(self.callback.running, 1)
        self.callback.release()
        self.assertEqual((yield self.codes(client)), {0: MOST_CHANNELS, 106: MANY - MOST_CHANNELS})
        yield self.assert_served(other, "calm again")
        self.assertEqual(self.callback.most, 1)
        floods = {name: count for name, count in self.callback.calls.items() if "flood" in name}
        self.assertEqual(set(floods.values()), {1})
        self.assertEqual(len(floods), MOST_CHANNELS)
        state = self.connection(client)
        self.assertEqual(
            (len(state.subscriptions), len(state.session.grants)), (MOST_CHANNELS,) * 2
        )
        self.assertEqual(len(self.heard_of()), 2 * MOST_CHANNELS)  # each with the one beside it
        client.websocket.sendClose(1000)
        yield client.closed
        while self.heard_of():
            yield later()

    @inlineCallbacks
    def test_of_publishes_the_rights_that_are_remembered_are_bounded(self) -> Any:
        yield self.serve()
        client, other = yield gatherResults([self.connect(), self.connect()])
        self.flood(client, "publish", 1000, data=1)
        yield self.assert_served(other, "calm")
        self.assertEqual((yield self.codes(client, 1000)), {0: 1000})
        self.assertEqual(self.callback.most, 1)
        self.assertEqual(len(self.connection(client).session.grants), MOST_GRANTS)
        index = self.service.factory.session_server.revocations._index
        self.assertLess(index.size, 10)

    @inlineCallbacks
    def test_of_names_too(self) -> Any:
        yield self.serve(WS4REDIS_CENTRIFUGE_NAMES=(names := Callback()))
        client, other = yield gatherResults([self.connect(), self.connect()])
        self.flood(client, "subscribe", 1000)
        yield self.assert_served(other, "calm")
        codes = yield self.codes(client, 1000)
        self.assertEqual(codes, {0: MOST_CHANNELS, 106: 1000 - MOST_CHANNELS})
        self.assertEqual((names.most, self.callback.most), (1, 1))
        self.assertLessEqual(len(self.connection(client).aliases), MOST_ALIASES)

    @inlineCallbacks
    def test_while_the_callback_hangs_the_server_stops_reading(self) -> Any:
        yield self.serve()
        client, other = yield gatherResults([self.connect(), self.connect()])
        self.callback.hold()
        self.flood(client, "subscribe", 200 * 100)
        state = self.connection(client)
        while state.session.reading:
            yield later()
        yield self.assert_served(other, "calm")
        # A hundred commands of each frame, and what answers it.
        self.assertLessEqual(len(state._waiting), (MAX_UNACKNOWLEDGED + 1) * 101)
        self.callback.release()
        codes = yield self.codes(client, 200 * 100)
        self.assertEqual(codes[106], 200 * 100 - MOST_CHANNELS)

    @inlineCallbacks
    def test_beyond_the_rate_it_is_cut_off(self) -> Any:
        yield self.serve(WS4REDIS_RATE=(5, 10**6))
        client, other = yield gatherResults([self.connect(), self.connect()])
        self.flood(client, "subscribe")
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), 3013)
        yield self.assert_served(other, "calm")
        self.assertEqual([each for each in self.callback.calls if "flood" in each], [])
        self.assertEqual(self.heard_of(), set())
