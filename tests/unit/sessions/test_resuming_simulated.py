"""A client that resumes at random moments, in memory: through outages, cuts and slow reading."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll
from tests.support.resuming import OverEvents, OverWebSocket
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.testing import connect, listen, make_memory_factory

CHANNELS = (b"broadcast:f", b"broadcast:g")
URL = "://localhost/ws/f?subscribe-broadcast"
HISTORY = (("f", 1000, 10**6),)

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 3)),
        st.tuples(st.just("say"), st.integers(1, 3)),
        st.tuples(st.just("say without history"), st.none()),
        st.tuples(st.just("advance"), st.sampled_from([0, 0.3, 1, 5, 21])),
        st.tuples(st.just("delay"), st.sampled_from([0, 0.4])),
        st.tuples(st.sampled_from(["cut", "lose", "restore", "pause", "read"]), st.none()),
    ),
    max_size=40,
)


class Simulation:
    """One client of the server, which comes back whenever it was cut off."""

    def __init__(self, transport: str, **config: Any) -> None:
        self.clock = Clock()
        self.factory: Any = make_memory_factory(
            ServerConfig(history=HISTORY, **config), authorizer=AllowAll(), clock=self.clock
        )
        self.broker = self.factory.broker
        if transport == "events":
            self.seen: Any = OverEvents(listen(self.factory, f"http{URL}"))
        else:
            self.seen = OverWebSocket(connect(self.factory, f"ws{URL}", since=""))
        self.log: list[tuple[str, str, Any]] = []
        self.published: list[str] = []
        self.without_history: set[str] = set()

    def run(self, steps: Any) -> None:
        for kind, argument in steps:
            if not self.seen.client.open:
                self.come_back()
            getattr(self, kind.replace(" ", "_"))(argument)
        self.delay(0)
        self.restore()
        for _ in range(5):
            if not self.seen.client.open:
                self.come_back()
            self.read()
            self.broker.flush()
            self.clock.advance(1)
        self.say(1)
        self.log += self.seen

    def come_back(self) -> None:
        self.log += self.seen
        self.seen = self.seen.reconnect()

    def say(self, count: int) -> None:
        for _ in range(count):
            text = str(len(self.published))
            self.published.append(text)
            self.broker.publish_elsewhere([b"broadcast:f"], text.encode(), 60)

    def say_without_history(self, _: None) -> None:
        text = f"plain {len(self.without_history)}"
        self.without_history.add(text)
        self.broker.publish_elsewhere([b"broadcast:f"], text.encode(), kept=False)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def delay(self, seconds: float) -> None:
        self.broker.delay = seconds

    def cut(self, _: None) -> None:
        self.seen.client.lose_connection()

    def lose(self, _: None) -> None:
        if self.broker.available:
            self.broker.lose_connection()

    def restore(self, _: None = None) -> None:
        self.broker.restore()

    def pause(self, _: None) -> None:
        self.seen.pause()

    def read(self, _: None = None) -> None:
        self.seen.read_on()


class SimulatedTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=150)
    @given(st.sampled_from(["websocket", "events"]), STEPS)
    def test_everything_arrives_once_and_in_order(self, transport: str, steps: Any) -> None:
        simulation = Simulation(transport, max_pending=500)
        simulation.run(steps)
        heard = [text for kind, text, _ in simulation.log if kind in ("message", "replayed")]
        kept = [text for text in heard if text not in simulation.without_history]
        self.assertEqual(kept, simulation.published)
        self.assertEqual(len(set(heard)), len(heard))
        self.assertNotIn("gap", [kind for kind, *_ in simulation.log])

    @settings(deadline=None, max_examples=150)
    @given(
        st.sampled_from(["websocket", "events"]), st.sampled_from(["drop_oldest", "latest"]), STEPS
    )
    def test_what_is_dropped_lies_in_a_gap(self, transport: str, policy: str, steps: Any) -> None:
        simulation = Simulation(transport, max_pending=500, slow_reader=policy)
        simulation.run(steps)
        heard: list[int] = []
        told = False
        for kind, text, _ in simulation.log:
            if kind == "gap":
                told = True
            elif kind in ("message", "replayed") and text not in simulation.without_history:
                expected = heard[-1] + 1 if heard else 0
                self.assertTrue(int(text) == expected or (told and int(text) > expected), text)
                heard.append(int(text))
                told = False
        self.assertEqual(heard[-1], len(simulation.published) - 1)
