"""Long fan-outs yield to others, and keep the order for everybody."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.fanout import SLICE, Fanout
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.queues import MESSAGE_COST


class Listener:
    def __init__(self, on_message: Callable[[], object]) -> None:
        self.heard: list[bytes] = []
        self._on_message = on_message

    def deliver(self, publication: Publication) -> None:
        self.heard.append(publication.payload)
        self._on_message()


class FanoutTests(SynchronousTestCase):
    """Each delivery moves the clock by ``self.cost``. The test runs the turns."""

    def setUp(self) -> None:
        self.now = 0.0
        self.cost = 0.0
        self.turns: deque[Callable[[], None]] = deque()
        self.hub = Hub(self.fail)
        self.fanout = Fanout(self.hub, lambda: self.now, self.turns.append)

    def listen(self, *channels: bytes, number: int = 1) -> list[Listener]:
        listeners = [Listener(self.tick) for _ in range(number)]
        for listener in listeners:
            for channel in channels:
                self.hub.add(channel, listener)
        return listeners

    def tick(self) -> None:
        self.now += self.cost

    def publish(self, *payloads: bytes, channel: bytes = b"c") -> None:
        """Publish all of them in one read."""
        self.fanout.hand_over([Publication(channel, payload) for payload in payloads])

    def test_what_is_quickly_done_is_done_at_once(self) -> None:
        listeners = self.listen(b"c", number=1000)
        self.publish(b"1")
        self.assertEqual([listener.heard for listener in listeners], [[b"1"]] * 1000)
        self.assertFalse(self.fanout.busy)
        self.assertEqual(len(self.turns), 0)

    def test_a_slice_takes_no_longer_than_it_may(self) -> None:
        self.cost = 0.00002
        listeners = self.listen(b"c", number=20_000)
        self.publish(b"1")
        longest = self.now
        while self.turns:
            before = self.now
            self.turns.popleft()()
            longest = max(longest, self.now - before)
        self.assertTrue(all(listener.heard == [b"1"] for listener in listeners))
        self.assertLess(longest, 1.5 * SLICE)

    def test_large_messages_are_looked_at_more_often(self) -> None:
        self.cost = SLICE  # one such receiver takes a whole slice
        listeners = self.listen(b"c", number=10)
        self.publish(b"x" * (1 << 20))
        self.assertEqual(sum(len(listener.heard) for listener in listeners), 1)

    def test_to_few_it_is_done_without_a_look_at_the_clock(self) -> None:
        self.fanout = Fanout(self.hub, self.fail, self.turns.append)
        listeners = self.listen(b"c", number=64)
        self.publish(b"1")
        self.assertEqual([listener.heard for listener in listeners], [[b"1"]] * 64)

    def test_the_backlog_is_what_waits_with_what_it_costs_to_keep_it(self) -> None:
        self.cost = SLICE
        self.listen(b"c", number=1000)
        self.publish(b"")
        for _ in range(100):
            self.publish(b"")
        self.assertEqual(self.fanout.backlog, 100 * (Publication(b"c", b"").size + MESSAGE_COST))
        while self.turns:
            self.turns.popleft()()
        self.assertEqual(self.fanout.backlog, 0)

    def test_many_short_fan_outs_of_one_read_are_sliced_too(self) -> None:
        self.cost = SLICE / 100
        (listener,) = self.listen(b"c")
        self.publish(*(b"%d" % number for number in range(1000)))
        self.assertLess(len(listener.heard), 300)
        while self.turns:
            self.turns.popleft()()
        self.assertEqual(listener.heard, [b"%d" % number for number in range(1000)])

    def test_many_messages_for_one_listener_each_are_sliced_too(self) -> None:
        self.cost = SLICE / 300
        channels = [b"%d" % number for number in range(2000)]
        listeners = [self.listen(channel)[0] for channel in channels]
        self.fanout.hand_over([Publication(channel, channel) for channel in channels])
        self.assertLess(self.now, 2 * SLICE)
        self.assertTrue(self.fanout.busy)
        while self.turns:
            self.turns.popleft()()
        self.assertEqual([listener.heard for listener in listeners], [[each] for each in channels])

    def test_what_comes_meanwhile_waits_whatever_its_channel(self) -> None:
        self.cost = SLICE / 100
        listeners = self.listen(b"c", b"d", number=1000)
        self.publish(b"1")
        self.publish(b"2", channel=b"d")
        self.assertEqual(len(self.turns), 1)
        while self.turns:
            self.turns.popleft()()
        for listener in listeners:
            self.assertEqual(listener.heard, [b"1", b"2"])

    def test_then_waits_for_what_was_added_before_and_no_longer(self) -> None:
        self.cost = SLICE / 100
        listeners = self.listen(b"c", number=1000)
        seen: list[str] = []
        self.fanout.then(lambda: seen.append("idle"))
        self.assertEqual(seen, ["idle"])
        self.publish(b"1")
        self.fanout.then(lambda: seen.append(f"all {len(listeners[-1].heard)}"))
        self.publish(b"2")
        self.assertEqual(seen, ["idle"])
        while self.turns:
            self.turns.popleft()()
        self.assertEqual(seen, ["idle", "all 1"])

    def test_a_function_that_fails_stalls_nothing(self) -> None:
        failures: list[str] = []
        self.hub.on_failure = lambda: failures.append("failed")
        self.cost = SLICE / 100
        (listener, *_) = self.listen(b"c", number=1000)
        self.publish(b"1")
        self.fanout.then(lambda: self.fail("deliberate"))
        self.publish(b"2")
        while self.turns:
            self.turns.popleft()()
        self.publish(b"3")
        while self.turns:
            self.turns.popleft()()
        self.assertEqual((failures, listener.heard), (["failed"], [b"1", b"2", b"3"]))

    def test_who_leaves_meanwhile_gets_nothing_more_and_who_comes_gets_the_next(self) -> None:
        self.cost = SLICE / 100
        listeners = self.listen(b"c", number=1000)
        self.publish(b"1")
        self.hub.discard(b"c", listeners[-1])
        (late,) = self.listen(b"c")
        self.publish(b"2")
        while self.turns:
            self.turns.popleft()()
        self.assertEqual(listeners[-1].heard, [])
        self.assertEqual(late.heard, [b"2"])

    @settings(deadline=None, max_examples=100)
    @given(st.data())
    def test_every_connection_gets_all_its_channels_in_redis_order(
        self, data: st.DataObject
    ) -> None:
        self.setUp()
        self.cost = data.draw(st.sampled_from([0.0, SLICE / 500, SLICE / 50]))
        groups = [
            (channels, self.listen(*channels, number=data.draw(st.integers(0, 300))))
            for channels in ((b"a",), (b"b",), (b"a", b"b"))
        ]
        published: list[tuple[bytes, bytes]] = []
        together: list[Publication] = []
        steps = st.sampled_from(["a", "b", "turn", "read"])
        for number, step in enumerate(data.draw(st.lists(steps, max_size=20))):
            if step == "turn":
                if self.turns:
                    self.turns.popleft()()
            elif step == "read":
                self.fanout.hand_over(together)
                together = []
            else:
                published.append((step.encode(), b"%d" % number))
                together.append(Publication(*published[-1]))
        self.fanout.hand_over(together)
        while self.turns:
            self.turns.popleft()()
        for channels, listeners in groups:
            expected = [payload for channel, payload in published if channel in channels]
            for listener in listeners:
                self.assertEqual(listener.heard, expected)
