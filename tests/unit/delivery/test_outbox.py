"""One connection's messages: no gap, no duplicate, in order, bounded, and none after the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.outboxes import FedOutbox
from tests.support.wires import Written
from ws4redis_tx.core.messages import PersistedMessage, Publication
from ws4redis_tx.delivery.queues import MESSAGE_COST
from ws4redis_tx.websocket.frames import PLAIN, server_frame

PLENTY = 1 << 20


class Wire:
    """An outbox, its writes, and the number of its overflows."""

    def __init__(self, max_pending: int = PLENTY) -> None:
        self.frames: list[bytes] = []
        self.overflows = 0
        self.on_write: Callable[[], object] = lambda: None
        self.delivery = FedOutbox(self, self._overflow, max_pending)

    def write(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.on_write()

    def _overflow(self) -> None:
        self.overflows += 1

    @property
    def written(self) -> list[bytes]:
        """The payloads of the (short) frames."""
        return [frame[2:] for frame in self.frames]

    def deliver(self, *payloads: bytes, channel: bytes = b"c", own: bool = False) -> None:
        for payload in payloads:
            sender = self.delivery.feed if own else None
            self.delivery.deliver(Publication(channel, payload, sender))

    def persisted(self, payload: bytes, channel: bytes = b"c") -> None:
        self.delivery.send(PersistedMessage(payload, channel))


class ReplayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.delivery = self.wire.delivery

    def test_nothing_is_written_before_the_replay_ends(self) -> None:
        self.wire.deliver(b"1")
        self.wire.persisted(b"0")
        self.delivery.send(b"hello")
        self.delivery.resume()
        self.assertEqual(self.wire.written, [])

    def test_what_is_persisted_goes_before_what_queued_meanwhile(self) -> None:
        self.wire.deliver(b"1")
        self.wire.persisted(b"0")
        self.wire.deliver(b"2")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"0", b"1", b"2"])

    def test_a_persisted_message_that_also_came_live_is_written_once_and_in_its_place(self) -> None:
        self.wire.deliver(b"1", b"2", b"3")
        self.wire.persisted(b"2")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1", b"2", b"3"])

    def test_it_makes_no_difference_whether_it_came_before_or_after_it_was_read(self) -> None:
        self.wire.persisted(b"1")
        self.wire.deliver(b"1")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1"])

    def test_equal_bytes_of_another_channel_are_another_message(self) -> None:
        self.wire.deliver(b"x", channel=b"d")
        self.wire.persisted(b"x", channel=b"c")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"x", b"x"])

    def test_what_is_persisted_on_several_channels_keeps_the_order_it_was_sent_in(self) -> None:
        for channel in (b"session", b"user", b"group", b"broadcast"):
            self.wire.persisted(channel, channel=channel)
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"session", b"user", b"group", b"broadcast"])

    def test_equal_live_messages_are_all_written(self) -> None:
        self.wire.deliver(b"x", b"x")
        self.delivery.go_live()
        self.wire.deliver(b"x")
        self.assertEqual(self.wire.written, [b"x", b"x", b"x"])

    def test_an_own_message_hides_no_equal_one_that_was_persisted(self) -> None:
        self.wire.persisted(b"equal")
        self.wire.deliver(b"equal", own=True)
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"equal"])

    def test_a_message_of_the_applications_own_is_sent_as_often_as_it_was_asked_for(self) -> None:
        self.wire.deliver(b"x")
        self.delivery.send(b"x")
        self.delivery.send(b"x")
        self.delivery.go_live()
        self.delivery.send(b"x")
        self.assertEqual(self.wire.written, [b"x"] * 4)

    def test_empty_messages_are_messages(self) -> None:
        self.wire.persisted(b"")
        self.delivery.go_live()
        self.wire.deliver(b"")
        self.assertEqual(self.wire.frames, [b"\x81\x00", b"\x81\x00"])

    def test_the_replay_ends_once(self) -> None:
        self.wire.persisted(b"0")
        for _ in range(3):
            self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"0"])

    def test_a_replay_that_starts_again_forgets_what_it_had_read(self) -> None:
        self.wire.persisted(b"0")
        self.delivery.restart()
        self.wire.persisted(b"1")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1"])

    def test_a_replay_that_starts_again_keeps_what_came_live_before(self) -> None:
        self.wire.deliver(b"1")
        self.delivery.restart()
        self.wire.persisted(b"1")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1"])

    def test_what_was_published_during_an_outage_comes_after_what_came_before_it(self) -> None:
        self.wire.persisted(b"0")
        self.wire.deliver(b"1")
        # The connection to Redis is lost, 2 is published and persisted, and the connection is
        # back: the broker delivers 2 before any other message arrives or is read.
        self.delivery.restart()
        self.wire.deliver(b"2")
        self.wire.persisted(b"2")
        self.wire.deliver(b"3")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1", b"2", b"3"])


class LiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.delivery = self.wire.delivery
        self.delivery.go_live()

    def test_each_message_is_written_at_once_and_in_order_over_all_channels(self) -> None:
        for payload, channel in ((b"1", b"c"), (b"2", b"d"), (b"3", b"c")):
            self.wire.deliver(payload, channel=channel)
            self.assertEqual(self.wire.written[-1], payload)
        self.assertEqual(self.wire.written, [b"1", b"2", b"3"])

    def test_the_frame_that_is_written_is_the_publications(self) -> None:
        publication = Publication(b"c", b"x" * 200)
        self.delivery.deliver(publication)
        self.assertIs(self.wire.frames[0], publication.forms[PLAIN])

    def test_an_own_message_is_not_written_and_a_strangers_is(self) -> None:
        self.wire.deliver(b"mine", own=True)
        self.delivery.deliver(Publication(b"c", b"theirs", Wire().delivery.feed))
        self.assertEqual(self.wire.written, [b"theirs"])

    def test_a_message_read_from_its_key_later_is_written_as_it_is(self) -> None:
        self.wire.deliver(b"x")
        self.wire.persisted(b"x")
        self.assertEqual(self.wire.written, [b"x", b"x"])


class PauseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.delivery = self.wire.delivery

    def test_what_comes_during_a_pause_waits_and_keeps_its_order(self) -> None:
        self.delivery.go_live()
        self.delivery.pause()
        self.wire.deliver(b"1", b"2")
        self.delivery.send(b"3")
        self.assertEqual(self.wire.written, [])
        self.delivery.resume()
        self.wire.deliver(b"4")
        self.assertEqual(self.wire.written, [b"1", b"2", b"3", b"4"])

    def test_a_replay_that_ends_during_a_pause_is_written_after_it(self) -> None:
        self.delivery.pause()
        self.wire.persisted(b"0")
        self.wire.deliver(b"1")
        self.delivery.go_live()
        self.wire.deliver(b"2")
        self.assertEqual(self.wire.written, [])
        self.delivery.resume()
        self.assertEqual(self.wire.written, [b"0", b"1", b"2"])

    def test_a_pause_that_ends_during_the_replay_writes_nothing(self) -> None:
        self.delivery.pause()
        self.wire.deliver(b"1")
        self.delivery.resume()
        self.assertEqual(self.wire.written, [])

    def test_a_transport_that_pauses_within_a_write_gets_no_further_frame(self) -> None:
        self.wire.on_write = self.delivery.pause
        self.wire.deliver(b"1", b"2", b"3")
        self.delivery.go_live()
        self.assertEqual(self.wire.written, [b"1"])
        self.delivery.resume()
        self.assertEqual(self.wire.written, [b"1", b"2"])
        self.wire.deliver(b"4")
        self.wire.on_write = lambda: None
        self.delivery.resume()
        self.assertEqual(self.wire.written, [b"1", b"2", b"3", b"4"])

    def test_pending_is_the_bytes_of_the_frames_that_wait(self) -> None:
        self.delivery.go_live()
        self.delivery.pause()
        self.wire.deliver(b"1", b"x" * 200)
        frames = [server_frame(b"1"), server_frame(b"x" * 200)]
        self.assertEqual(self.delivery.pending, sum(map(len, frames)) + 2 * MESSAGE_COST)
        self.delivery.resume()
        self.assertEqual(self.delivery.pending, 0)

    def test_after_a_replay_nothing_is_pending(self) -> None:
        self.wire.persisted(b"0")
        self.wire.deliver(b"1")
        self.wire.deliver(b"2", own=True)
        self.delivery.go_live()
        self.assertEqual(self.delivery.pending, 0)


class BoundTests(SynchronousTestCase):
    """Messages here count as 200 bytes: the frame and the cost of keeping it."""

    def wire(self, max_pending: int) -> Wire:
        wire = Wire(max_pending)
        wire.delivery.pause()
        return wire

    def messages(self, number: int) -> list[bytes]:
        return [b"%038d" % index for index in range(number)]

    def test_the_queue_takes_what_fits_exactly(self) -> None:
        wire = self.wire(600)
        wire.delivery.go_live()
        wire.deliver(*self.messages(3))
        self.assertEqual((wire.overflows, wire.delivery.pending), (0, 600))
        wire.delivery.resume()
        self.assertEqual(wire.written, self.messages(3))

    def test_one_more_overflows_once_and_nothing_further_is_written(self) -> None:
        wire = self.wire(600)
        wire.delivery.go_live()
        wire.deliver(*self.messages(10))
        self.assertEqual((wire.overflows, wire.delivery.pending), (1, 0))
        wire.delivery.resume()
        wire.deliver(b"x")
        wire.delivery.send(b"x")
        self.assertEqual((wire.overflows, wire.written), (1, []))

    def test_the_queue_of_a_replay_is_bounded_too(self) -> None:
        wire = Wire(600)
        wire.deliver(*self.messages(4))
        wire.delivery.go_live()
        self.assertEqual((wire.overflows, wire.written), (1, []))

    def test_one_message_is_accepted_however_large(self) -> None:
        wire = self.wire(600)
        wire.delivery.go_live()
        wire.deliver(b"x" * 1000)
        self.assertEqual(wire.overflows, 0)
        wire.deliver(b"x")
        self.assertEqual(wire.overflows, 1)

    def test_what_was_written_makes_room(self) -> None:
        wire = self.wire(600)
        wire.delivery.go_live()
        for message in self.messages(50):
            wire.deliver(message)
            wire.delivery.resume()
            wire.delivery.pause()
        self.assertEqual((wire.overflows, len(wire.written)), (0, 50))

    def test_it_is_closed_already_when_the_overflow_is_told(self) -> None:
        seen: list[int] = []
        frames = Written()

        def overflow() -> None:
            seen.append(delivery.pending)
            delivery.resume()
            delivery.send(b"x")
            delivery.close()

        delivery = FedOutbox(frames, overflow, 200)
        delivery.pause()
        delivery.go_live()
        for message in self.messages(3):
            delivery.deliver(Publication(b"c", message))
        self.assertEqual((seen, frames), ([0], []))

    def test_persisted_messages_take_no_room(self) -> None:
        wire = self.wire(600)
        messages = self.messages(10)
        for index, message in enumerate(messages):
            wire.persisted(message, channel=b"%d" % index)
        wire.delivery.pause()
        wire.delivery.go_live()
        self.assertEqual((wire.overflows, wire.delivery.pending), (0, 0))
        wire.delivery.resume()
        self.assertEqual(wire.written, messages)

    def test_what_an_application_sends_during_the_replay_is_bounded(self) -> None:
        wire = self.wire(600)
        for message in self.messages(10):
            wire.delivery.send(message)
        wire.delivery.go_live()
        self.assertEqual(wire.overflows, 1)
        self.assertLessEqual(wire.delivery.pending, 600)

    def test_own_messages_which_are_never_written_take_no_room_when_live(self) -> None:
        wire = self.wire(600)
        wire.delivery.go_live()
        wire.deliver(*self.messages(10), own=True)
        self.assertEqual((wire.overflows, wire.delivery.pending), (0, 0))


class CloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.delivery = self.wire.delivery

    def assert_silent(self, before: list[bytes]) -> None:
        """Nothing more is written, whatever is tried."""
        self.wire.deliver(b"x", b"y")
        self.wire.persisted(b"x")
        self.delivery.send(b"x")
        self.delivery.go_live()
        self.delivery.pause()
        self.delivery.resume()
        self.delivery.restart()
        self.delivery.go_live()
        self.wire.deliver(b"z")
        self.assertEqual(self.wire.written, before)
        self.assertEqual((self.delivery.pending, self.wire.overflows), (0, 0))

    def test_nothing_is_written_once_it_is_closed_while_replaying(self) -> None:
        self.wire.deliver(b"1")
        self.wire.persisted(b"0")
        self.delivery.close()
        self.assert_silent([])

    def test_nothing_is_written_once_it_is_closed_while_live(self) -> None:
        self.delivery.go_live()
        self.wire.deliver(b"1")
        self.delivery.close()
        self.assert_silent([b"1"])

    def test_what_waited_is_dropped_when_it_is_closed_during_a_pause(self) -> None:
        self.delivery.go_live()
        self.delivery.pause()
        self.wire.deliver(b"1")
        self.delivery.close()
        self.assert_silent([])

    def test_a_write_that_closes_it_is_the_last(self) -> None:
        self.wire.on_write = self.delivery.close
        self.wire.deliver(b"1", b"2", b"3")
        self.delivery.go_live()
        self.assert_silent([b"1"])

    def test_it_may_be_closed_twice(self) -> None:
        self.delivery.close()
        self.delivery.close()
        self.assert_silent([])


CHANNELS = st.sampled_from([b"c", b"d"])
# Only a few, so that they collide.
PAYLOADS = st.sampled_from([b"", b"1", b"2", b"\xff"])
STEPS = st.one_of(
    st.tuples(st.just("deliver"), CHANNELS, PAYLOADS, st.booleans()),
    st.tuples(st.just("persisted"), CHANNELS, PAYLOADS, st.just(False)),
    st.tuples(st.just("send"), st.just(b""), PAYLOADS, st.just(False)),
    *(
        st.tuples(st.just(word), st.just(b""), st.just(b""), st.just(False))
        for word in ("go_live", "pause", "resume", "close")
    ),
)


class Model:
    """Two lists: the expected messages, and the written ones."""

    def __init__(self) -> None:
        self.replayed: list[tuple[bytes | None, bytes]] = []
        self.arrived: list[tuple[bytes, bytes, bool]] = []
        self.due: list[bytes] = []
        self.written: list[bytes] = []
        self.live = self.paused = self.closed = False

    def step(self, word: str, channel: bytes, payload: bytes, own: bool) -> None:
        if word == "deliver" and self.live:
            self.due += [] if own else [payload]
        elif word == "deliver":
            self.arrived.append((channel, payload, own))
        elif word in ("persisted", "send") and self.live:
            self.due.append(payload)
        elif word in ("persisted", "send"):
            self.replayed.append((channel if word == "persisted" else None, payload))
        elif word == "go_live" and not self.live:
            self.live = True
            seen = {(channel, payload) for channel, payload, own in self.arrived if not own}
            self.due = [message[1] for message in self.replayed if message not in seen]
            self.due += [payload for _, payload, own in self.arrived if not own]
        elif word == "pause":
            self.paused = True
        elif word == "resume":
            self.paused = False
        elif word == "close":
            self.closed = True
        if self.live and not self.paused and not self.closed:
            self.written += self.due
            self.due = []


class AnyInterleavingTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=400)
    @given(st.lists(STEPS, max_size=30))
    def test_what_is_written_equals_the_model_after_every_step(
        self, steps: list[tuple[str, bytes, bytes, bool]]
    ) -> None:
        wire, model = Wire(), Model()
        for word, channel, payload, own in steps:
            if word == "deliver":
                wire.deliver(payload, channel=channel, own=own)
            elif word == "persisted":
                wire.persisted(payload, channel=channel)
            elif word == "send":
                wire.delivery.send(payload)
            else:
                getattr(wire.delivery, word)()
            model.step(word, channel, payload, own)
            self.assertEqual(wire.written, model.written)
        self.assertEqual(wire.overflows, 0)

    @settings(deadline=None, max_examples=200)
    @given(
        st.integers(0, 1000),
        st.lists(
            st.one_of(st.integers(0, 30), st.sampled_from(["go_live", "pause", "resume", "close"])),
            max_size=30,
        ),
    )
    def test_it_overflows_exactly_when_one_frame_more_would_exceed_the_bound(
        self, max_pending: int, steps: list[int | str]
    ) -> None:
        wire = Wire(max_pending)
        waiting: list[int] = []
        live = paused = closed = False
        overflows = 0
        for step in steps:
            if isinstance(step, int):
                wire.deliver(b"x" * step)
                if not closed and (paused or not live):
                    size = step + 2 + MESSAGE_COST
                    if waiting and sum(waiting) + size > max_pending:
                        closed, overflows = True, 1
                    else:
                        waiting.append(size)
            else:
                getattr(wire.delivery, step)()
                live = live or step == "go_live"
                paused = step == "pause" if step in ("pause", "resume") else paused
                closed = closed or step == "close"
            if closed or (live and not paused):
                waiting = []
            self.assertEqual(wire.overflows, overflows)
            self.assertEqual(wire.delivery.pending, sum(waiting))

    @settings(deadline=None, max_examples=300)
    @given(st.lists(st.tuples(CHANNELS, st.just("publish")), max_size=3), st.data())
    def test_a_client_that_connects_under_load_sees_no_gap_and_no_duplicate(
        self, before: list[tuple[bytes, str]], data: st.DataObject
    ) -> None:
        """A small model of Redis, its pub/sub connection and its keys: all interleavings of
        publishing, arrival, reading the keys, the fence, and a transport that pauses.
        """
        numbers = count()
        history: list[tuple[bytes, bytes]] = []
        in_flight: deque[tuple[bytes, bytes]] = deque()
        keys: dict[bytes, bytes] = {}
        subscribed = False

        def publish(channel: bytes) -> None:
            payload = b"%d" % next(numbers)
            history.append((channel, payload))
            keys[channel] = payload
            if subscribed:
                in_flight.append((channel, payload))

        def arrive() -> None:
            if in_flight:
                channel, payload = in_flight.popleft()
                wire.deliver(payload, channel=channel)

        for channel, _ in before:
            publish(channel)
        wire, subscribed, missed = Wire(), True, len(history)
        steps = data.draw(
            st.lists(
                st.sampled_from(["publish c", "publish d", "arrive", "next", "pause", "resume"]),
                max_size=25,
            )
        )
        # The server's steps, in order.
        plan = deque(["read c", "read d", "ping", "pong"])
        ahead_of_pong = 0
        arrived = 0
        for step in [*steps, "next", "next", "next", "next", *["arrive"] * 30, "next", "resume"]:
            if step == "next" and plan:
                action = plan[0]
                if action == "pong" and arrived < ahead_of_pong:
                    continue
                plan.popleft()
                if action.startswith("read"):
                    channel = action[-1:].encode()
                    if channel in keys:
                        wire.persisted(keys[channel], channel=channel)
                elif action == "ping":
                    ahead_of_pong = arrived + len(in_flight)
                else:
                    wire.delivery.go_live()
            elif step.startswith("publish"):
                publish(step[-1:].encode())
            elif step == "arrive":
                arrived += bool(in_flight)
                arrive()
            elif step in ("pause", "resume"):
                getattr(wire.delivery, step)()

        written = wire.written
        self.assertEqual(len(set(written)), len(written), "a duplicate")
        live = [payload for _, payload in history[missed:]]
        self.assertEqual(written[len(written) - len(live) :], live, "a gap, or out of order")
        replayed = set(written[: len(written) - len(live)])
        for channel in (b"c", b"d"):
            old = [payload for name, payload in history[:missed] if name == channel]
            got = [payload for payload in old if payload in replayed]
            self.assertIn(got, ([], old[-1:]), "more than the last was replayed")
            if all(name != channel for name, _ in history[missed:]):
                self.assertEqual(got, old[-1:], "the last was not replayed")
