"""The messages that are dropped when a client does not read: by policy, in order, within bounds."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.outboxes import FedOutbox
from tests.support.wires import Written
from ws4redis_tx.core.limits import CLOSE, DROP_OLDEST, LATEST, SLOW_READER_POLICIES
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.queues import IQueue, cost, make_queue
from ws4redis_tx.websocket.frames import server_frame

ENTRY = cost((b"c", b"00"))
SIZE = cost((b"c", server_frame(b"00")))


def drained(queue: IQueue) -> list[tuple[bytes | None, bytes]]:
    found = []
    while queue:
        found.append(queue.popleft())
    return found


class PolicyTests(SynchronousTestCase):
    def fill(self, policy: str, *messages: tuple[bytes | None, bytes], room: int = 3) -> IQueue:
        self.queue = make_queue(policy, room * ENTRY)
        self.accepted = [self.queue.append(message) for message in messages]
        return self.queue

    def messages(self, number: int, channel: bytes = b"c") -> list[tuple[bytes | None, bytes]]:
        return [(channel, b"%02d" % index) for index in range(number)]

    def test_close_refuses_what_does_not_fit(self) -> None:
        queue = self.fill(CLOSE, *self.messages(4))
        self.assertEqual(self.accepted, [True, True, True, False])
        self.assertEqual(drained(queue), self.messages(3))

    def test_drop_oldest_keeps_the_newest_and_counts_the_others(self) -> None:
        queue = self.fill(DROP_OLDEST, *self.messages(10))
        self.assertEqual(self.accepted, [True] * 10)
        self.assertEqual(queue.dropped, 7)
        self.assertEqual(drained(queue), self.messages(10)[-3:])

    def test_a_large_message_makes_as_many_give_way_as_it_needs(self) -> None:
        large = b"x" * (ENTRY - 14)
        queue = self.fill(DROP_OLDEST, *self.messages(3), (b"c", large))
        self.assertEqual(drained(queue), [(b"c", b"02"), (b"c", large)])

    def test_latest_keeps_the_newest_of_each_channel_in_its_place(self) -> None:
        queue = self.fill(
            LATEST, (b"a", b"01"), (b"b", b"02"), (b"a", b"03"), (b"c", b"04"), (b"b", b"05")
        )
        self.assertEqual(queue.dropped, 2)
        self.assertEqual(drained(queue), [(b"a", b"03"), (b"c", b"04"), (b"b", b"05")])

    def test_latest_keeps_messages_that_are_of_no_channel(self) -> None:
        queue = self.fill(LATEST, (None, b"01"), (None, b"02"), (b"a", b"03"))
        self.assertEqual(drained(queue), [(None, b"01"), (None, b"02"), (b"a", b"03")])

    def test_latest_drops_the_oldest_when_the_channels_are_too_many(self) -> None:
        queue = self.fill(LATEST, *[(b"%d" % index, b"00") for index in range(5)])
        self.assertEqual([channel for channel, _ in drained(queue)], [b"2", b"3", b"4"])

    def test_one_message_is_accepted_however_large(self) -> None:
        for policy in SLOW_READER_POLICIES:
            queue = self.fill(policy, (b"a", b"x" * 10_000))
            self.assertEqual((self.accepted, len(queue)), ([True], 1))

    def test_nothing_waits_when_all_was_taken(self) -> None:
        for policy in SLOW_READER_POLICIES:
            queue = self.fill(policy, *self.messages(9))
            drained(queue)
            self.assertEqual((queue.size, len(queue)), (0, 0))

    @settings(deadline=None, max_examples=200)
    @given(
        st.sampled_from(SLOW_READER_POLICIES),
        st.integers(0, 2000),
        st.lists(st.tuples(st.sampled_from([b"a", b"b", None]), st.integers(0, 600)), max_size=30),
    )
    def test_it_never_holds_more_than_its_bound_unless_it_is_one_message(
        self, policy: str, most: int, messages: list[tuple[bytes | None, int]]
    ) -> None:
        queue = make_queue(policy, most)
        for channel, size in messages:
            queue.append((channel, b"x" * size))
            self.assertTrue(queue.size <= most or len(queue) == 1)
        waiting = [size for _, size in messages]
        taken = drained(queue)
        self.assertEqual(queue.size, 0)
        if policy != CLOSE and waiting:
            self.assertEqual(len(taken[-1][1]), waiting[-1], "the newest must be kept")


class SlowReaderTests(SynchronousTestCase):
    """The same, as a connection's delivery has it."""

    def delivery(self, policy: str) -> FedOutbox:
        self.frames = Written()
        return FedOutbox(self.frames, self.fail, 3 * SIZE, policy)

    def test_a_slow_reader_gets_the_newest_messages_when_it_reads_again(self) -> None:
        delivery = self.delivery(DROP_OLDEST)
        delivery.go_live()
        delivery.pause()
        for number in range(10):
            delivery.deliver(Publication(b"c", b"%02d" % number))
        delivery.resume()
        delivery.deliver(Publication(b"c", b"10"))
        self.assertEqual([frame[2:] for frame in self.frames], [b"07", b"08", b"09", b"10"])
        self.assertEqual(delivery.dropped, 7)

    def test_a_replay_that_takes_long_is_held_to_the_same(self) -> None:
        delivery = self.delivery(LATEST)
        for number in range(10):
            delivery.deliver(Publication(b"c", b"%02d" % number))
        delivery.go_live()
        self.assertEqual([frame[2:] for frame in self.frames], [b"09"])

    def test_what_an_application_sends_during_the_replay_gives_way_as_well(self) -> None:
        delivery = self.delivery(DROP_OLDEST)
        for number in range(10):
            delivery.send(b"%02d" % number)
        self.assertEqual((delivery.dropped, delivery.pending), (7, 3 * SIZE))
        delivery.go_live()
        self.assertEqual([frame[2:] for frame in self.frames], [b"07", b"08", b"09"])
        self.assertEqual(delivery.pending, 0)
