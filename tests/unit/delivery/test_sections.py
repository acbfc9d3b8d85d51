"""One loop over many sockets: whoever needs care gets it, and each message is counted once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.outboxes import FedOutbox
from ws4redis_tx.core.interfaces import NO_SOCKET, ISocket
from ws4redis_tx.core.messages import ICodec, Publication
from ws4redis_tx.delivery import fanout
from ws4redis_tx.delivery.fanout import SLICE, Fanout
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.sections import Section
from ws4redis_tx.websocket.frames import DEFLATED, PLAIN

PAUSE_AT = 100
"""Bytes in a transport, from which on it asks for a pause."""


class Socket:
    """An ``IDirectWriter`` over a socket that takes ``room`` bytes, and a transport for the rest,
    which calls ``on_pause`` when it has too much.
    """

    def __init__(self) -> None:
        self.room = 1 << 30
        self.taken = b""
        self.waiting = b""
        self.directly = 0
        """Number of frames that were sent past the writer."""
        self.direct: ISocket = self
        self.on_pause: Callable[[], object] = lambda: None

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        self.directly += 1
        sent = min(self.room, len(data))
        self.room -= sent
        self.taken += data[:sent]
        return sent

    def write(self, data: bytes) -> None:
        if self.waiting:
            self.leave(data, 0)
            return
        self.direct = self
        try:
            sent = self.send(data)
            self.directly -= 1
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.leave(data, sent)

    def leave(self, data: bytes, sent: int) -> None:
        self.direct = NO_SOCKET
        self.waiting += data[sent:]
        if len(self.waiting) > PAUSE_AT:
            self.on_pause()

    def drain(self) -> None:
        self.room = 1 << 30
        self.taken += self.waiting
        self.waiting = b""


class Client:
    def __init__(self, codec: ICodec = PLAIN, *, live: bool = True) -> None:
        self.socket = Socket()
        self.overflown = False
        self.fed = FedOutbox(self.socket, self._overflow, 1 << 20, codec=codec)
        self.socket.on_pause = self.fed.pause
        self.feed = self.fed.feed
        if live:
            self.fed.go_live()

    def _overflow(self) -> None:
        self.overflown = True

    def read_all(self) -> bytes:
        while self.socket.waiting or self.fed.outbox.paused:
            self.socket.drain()
            self.fed.resume()
        return self.socket.taken


def frames(codec: ICodec, *payloads: bytes) -> bytes:
    return b"".join(Publication(None, payload).form(codec) for payload in payloads)


class SectionTestCase(SynchronousTestCase):
    """Each look at the clock ends a slice; a slice is two receivers long."""

    def setUp(self) -> None:
        self.patch(fanout, "_CHECK_RECEIVERS", 2)
        self.turns: deque[Callable[[], None]] = deque()
        self.now = 0.0
        self.hub = Hub(self.fail)
        self.fanout = Fanout(self.hub, self.seconds, self.turns.append)

    def seconds(self) -> float:
        self.now += SLICE
        return self.now

    def join(self, *channels: bytes, codec: ICodec = PLAIN) -> Client:
        client = Client(codec)
        for channel in channels:
            self.hub.add(channel, client.feed)
        return client

    def publish(self, *messages: tuple[bytes, bytes], sender: Client | None = None) -> None:
        feed = None if sender is None else sender.feed
        self.fanout.hand_over([Publication(*message, feed) for message in messages])

    def run_all(self) -> None:
        while self.turns:
            self.turns.popleft()()


class SectionTests(SectionTestCase):
    def test_every_socket_is_written_to_past_its_writer(self) -> None:
        clients = [self.join(b"a", b"b") for _ in range(7)]
        self.publish((b"a", b"1"))
        self.publish((b"a", b"2"), (b"b", b"3"))
        self.run_all()
        for client in clients:
            self.assertEqual(client.socket.taken, frames(PLAIN, b"1", b"2", b"3"))
            self.assertEqual((client.socket.directly, client.feed.sent), (2, 3))

    def test_each_codec_has_its_own_form(self) -> None:
        text = b"compressible " * 50
        clients = [self.join(b"a", codec=codec) for codec in (PLAIN, DEFLATED) * 3]
        self.publish((b"a", text))
        self.run_all()
        for client in clients:
            self.assertEqual(client.socket.taken, frames(client.fed.outbox.codec, text))

    def test_a_sender_does_not_get_its_own(self) -> None:
        clients = [self.join(b"a") for _ in range(5)]
        self.publish((b"a", b"1"), sender=clients[3])
        self.publish((b"a", b"2"))
        self.run_all()
        for client in clients:
            expected = (b"2",) if client is clients[3] else (b"1", b"2")
            self.assertEqual(client.socket.taken, frames(PLAIN, *expected))
            self.assertEqual(client.feed.sent, len(expected))

    def test_the_rest_of_a_frame_stays_before_the_next_one(self) -> None:
        clients = [self.join(b"a") for _ in range(5)]
        clients[2].socket.room = 3
        clients[3].socket.room = 0
        self.publish((b"a", b"hello"))
        self.publish((b"a", b"world"))
        self.run_all()
        for client in clients:
            self.assertEqual(client.read_all(), frames(PLAIN, b"hello", b"world"))
            self.assertEqual(client.feed.sent, 2)

    def test_after_a_stop_it_is_written_to_past_its_writer_again(self) -> None:
        client, _ = self.join(b"a"), self.join(b"a")
        client.socket.room = 3
        self.publish((b"a", b"hello"))
        client.socket.drain()
        self.publish((b"a", b"by the writer"))
        self.assertEqual(client.socket.directly, 1)
        self.publish((b"a", b"past it"))
        self.assertEqual(client.socket.directly, 2)
        self.assertEqual(client.socket.taken, frames(PLAIN, b"hello", b"by the writer", b"past it"))

    def test_one_that_closes_another_keeps_a_frame_from_going_after_its_close(self) -> None:
        clients = [self.join(b"a") for _ in range(6)]
        clients[2].socket.room = 0
        clients[2].socket.on_pause = clients[3].fed.close
        self.patch(fanout, "_CHECK_RECEIVERS", 64)
        self.publish((b"a", b"x" * 120))
        self.assertEqual(clients[3].socket.taken, b"")
        self.assertEqual(clients[4].socket.taken, frames(PLAIN, b"x" * 120))
        self.assertEqual([each.feed.sent for each in clients], [1, 1, 1, 0, 1, 1])

    def test_one_that_leaves_amid_a_fan_out_gets_only_what_it_still_listens_to(self) -> None:
        clients = [self.join(b"a", b"b") for _ in range(6)]
        self.publish((b"a", b"1"))
        self.hub.discard(b"a", clients[5].feed)
        self.run_all()
        self.publish((b"a", b"2"), (b"b", b"3"))
        self.hub.discard(b"a", clients[4].feed)
        self.run_all()
        expected = [(b"1", b"2", b"3")] * 4 + [(b"1", b"3"), (b"3",)]
        self.assertEqual(
            [each.socket.taken for each in clients], [frames(PLAIN, *each) for each in expected]
        )
        self.assertEqual([each.feed.sent for each in clients], list(map(len, expected)))

    def test_one_that_leaves_before_its_part_of_a_batch_begins_gets_nothing(self) -> None:
        here = [self.join(b"a") for _ in range(3)]
        there = [self.join(b"b") for _ in range(3)]
        self.publish((b"a", b"1"), (b"b", b"2"))
        self.assertTrue(self.fanout.busy)
        self.hub.discard(b"b", there[2].feed)
        self.run_all()
        taken = [each.socket.taken for each in (*here, *there)]
        self.assertEqual(taken, [frames(PLAIN, b"1")] * 3 + [frames(PLAIN, b"2")] * 2 + [b""])

    def test_a_section_that_changes_in_its_first_portion_counts_it(self) -> None:
        clients = [self.join(b"a") for _ in range(6)]
        self.publish((b"a", b"1"))
        self.run_all()
        clients[0].socket.room = 0
        clients[0].socket.on_pause = lambda: self.join(b"a")
        self.publish((b"a", b"x" * 120))
        self.assertTrue(self.fanout.busy)
        self.assertEqual([each.feed.sent for each in clients], [2, 2, 1, 1, 1, 1])

    def test_what_is_told_amid_a_fan_out_is_exact(self) -> None:
        clients = [self.join(b"a") for _ in range(6)]
        for payload in (b"1", b"2"):
            self.publish((b"a", payload))
            self.assertTrue(self.fanout.busy)
            counts = [each.feed.sent for each in clients]
            self.assertEqual(sum(counts), sum(each.socket.directly for each in clients))
            self.join(b"a")
            self.assertEqual([each.feed.sent for each in clients], counts)
            self.run_all()
        self.assertEqual([each.feed.sent for each in clients], [2] * 6)

    def test_a_codec_that_fails_is_reported_and_stalls_nothing(self) -> None:
        class Failing:
            def encode(self, publication: Publication) -> bytes:
                raise RuntimeError("deliberate")

            join = encode

        failures: list[int] = []
        self.hub.on_failure = lambda: failures.append(1)
        failing: Any = Failing()
        bad = [self.join(b"a", codec=failing) for _ in range(2)]
        good = [self.join(b"a") for _ in range(2)]
        alone = self.join(b"b", codec=failing)
        self.publish((b"a", b"1"))
        self.publish((b"b", b"1"))
        self.run_all()
        self.assertEqual([each.socket.taken for each in good], [frames(PLAIN, b"1")] * 2)
        self.assertEqual([each.feed.sent for each in (*bad, alone)], [0] * 3)
        self.assertEqual(len(failures), 2)

    def test_a_listener_may_have_any_attributes(self) -> None:
        for number in (1, 9):
            for listener in (Mock(), Mock(direct=True), Mock(direct=None, written="")):
                listener.takes_joined = False
                self.hub.add(b"a", listener)
                clients = [self.join(b"a") for _ in range(number)]
                self.publish((b"a", b"1"))
                self.publish((b"a", b"2"), (b"a", b"3"))
                self.run_all()
                self.assertEqual(listener.deliver.call_count, 3)
                for client in clients:
                    self.assertEqual(client.socket.taken, frames(PLAIN, b"1", b"2", b"3"))
                    self.hub.discard(b"a", client.feed)
                self.hub.discard(b"a", listener)

    def test_a_writer_that_fails_is_not_passed_by_while_something_waits(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        failures: list[int] = []
        self.hub.on_failure = lambda: failures.append(1)
        for number in (2, 9):
            clients = [self.join(b"a") for _ in range(number)]
            clients[1].socket.room = 5
            clients[1].socket.on_pause = fail
            self.publish((b"a", b"x" * 120))
            clients[1].socket.room = 1 << 30
            self.publish((b"a", b"next"))
            self.run_all()
            for client in clients:
                self.assertEqual(client.read_all(), frames(PLAIN, b"x" * 120, b"next"))
                self.hub.discard(b"a", client.feed)
        self.assertGreaterEqual(len(failures), 2)

    def test_one_that_was_pinged_before_it_was_live_is_passed_by_once_it_is(self) -> None:
        others = [self.join(b"a") for _ in range(9)]
        late = Client(live=False)
        self.hub.add(b"a", late.feed)
        late.fed.outbox.write_control(b"pong")
        self.publish((b"a", b"1"))
        self.run_all()
        late.fed.go_live()
        self.publish((b"a", b"2"))
        self.run_all()
        self.assertEqual(late.socket.directly, 1)
        self.assertEqual(late.socket.taken, b"pong" + frames(PLAIN, b"1", b"2"))
        self.assertEqual(others[0].socket.directly, 2)

    def test_those_who_wait_are_not_looked_for_one_by_one(self) -> None:
        self.patch(fanout, "_CHECK_RECEIVERS", 64)
        clients = [self.join(b"a") for _ in range(60)]
        self.publish((b"a", b"1"))
        self.run_all()
        for client in clients[1:]:
            client.fed.pause()
        looks: list[object] = []
        look = Section._sends_of

        def counted(section: Section, *arguments: Any) -> Any:
            looks.append(section)
            return look(section, *arguments)

        self.patch(Section, "_sends_of", counted)
        clients[0].socket.room = 1
        self.publish((b"a", b"2"))
        self.run_all()
        self.assertLessEqual(len(looks), 2)


class RandomTests(SectionTestCase):
    @settings(deadline=None, max_examples=200)
    @given(st.data())
    def test_every_client_is_sent_what_it_should_be_and_it_is_counted(
        self, data: st.DataObject
    ) -> None:
        self.setUp()
        clients: dict[Client, list[bytes]] = {}
        channels: dict[Client, set[bytes]] = {}

        def join() -> None:
            joined = set(data.draw(st.sampled_from([b"a", b"b", b"ab"])).decode())
            client = self.join(
                *(each.encode() for each in joined),
                codec=data.draw(st.sampled_from([PLAIN, PLAIN, DEFLATED])),
            )
            clients[client], channels[client] = [], {each.encode() for each in joined}

        for _ in range(data.draw(st.integers(2, 12))):
            join()
        steps = ["publish", "publish", "publish", "turn", "join", "narrow", "leave", "drain"]
        steps += ["close", "told", "pause"]
        for number, step in enumerate(data.draw(st.lists(st.sampled_from(steps), max_size=40))):
            client = data.draw(st.sampled_from(list(clients)))
            if step == "publish":
                sender = data.draw(st.sampled_from([None, client]))
                messages = [
                    (data.draw(st.sampled_from([b"a", b"b"])), b"%d %d " % (number, index) * size)
                    for index, size in enumerate(
                        data.draw(st.lists(st.sampled_from([1, 9, 60]), min_size=1, max_size=3))
                    )
                ]
                # Joins and leaves wait for the end: the other tests have them amid a fan-out.
                for each, expected in clients.items():
                    if each is not sender and not each.feed.closed:
                        expected += [text for name, text in messages if name in channels[each]]
                self.publish(*messages, sender=sender)
            elif step == "turn":
                if self.turns:
                    self.turns.popleft()()
            elif step == "narrow":
                client.socket.room = data.draw(st.integers(0, 30))
            elif step == "drain":
                client.socket.drain()
                client.fed.resume()
            elif step == "pause":
                client.fed.pause()
            elif step == "told":
                self.assertLessEqual(client.feed.sent, len(clients[client]))
            else:
                self.run_all()
                if step == "join":
                    join()
                elif step == "close":
                    waiting = len(client.fed.outbox.forms())
                    if not client.feed.closed and waiting:
                        del clients[client][-waiting:]
                    client.fed.close()
                else:
                    left = data.draw(st.sampled_from([b"a", b"b"]))
                    channels[client].discard(left)
                    self.hub.discard(left, client.feed)
        self.run_all()
        for client, expected in clients.items():
            read = client.read_all()
            self.assertEqual(read, frames(client.fed.outbox.codec, *expected))
            self.assertEqual(client.feed.sent, len(expected))
