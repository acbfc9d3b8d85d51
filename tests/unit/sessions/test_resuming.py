"""Clients that keep their position, in memory: over websockets and over server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.memory import CHANNEL, URL, AllowAll, WebSocketTests
from tests.support.resuming import OverEvents, OverWebSocket
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.interfaces import NullHooks
from ws4redis_tx.service import disconnect
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryEvents, connect, listen

HISTORY = (("foobar", 5, 600),)
JOHN = b"user:john:foobar"
BOTH = "subscribe-broadcast&subscribe-user"


class JohnsAuthorizer(AllowAll):
    def authorize(self, handshake: Any, rights: Any) -> Admission:
        identity = Identity(session_key="s", username="john", user_id="1")
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class ResumingTests(WebSocketTests):
    """Tests of both transports: ``open`` connects a client that keeps its position."""

    def setUp(self) -> None:
        super().setUp()
        self.use_history()

    def use_history(self, **config: Any) -> None:
        authorizer = config.pop("authorizer", JohnsAuthorizer())
        self.use(authorizer=authorizer, history=HISTORY, **config)

    def open(self, flags: str = BOTH, since: str = "") -> Any:
        raise NotImplementedError

    def say(self, *messages: str, channel: bytes = CHANNEL, expire: int = 60) -> None:
        """Publish as another process with the same settings does."""
        for message in messages:
            self.broker.publish_elsewhere([channel], message.encode(), expire)


class WebSocketResumes(ResumingTests):
    def open(self, flags: str = BOTH, since: str = "") -> Any:
        client = connect(self.factory, f"{URL}?{flags}", since=since)
        self.assertTrue(client.open)
        return OverWebSocket(client)


class EventsResume(ResumingTests):
    def open(self, flags: str = BOTH, since: str = "") -> Any:
        since = since and f"&since={since}"
        client = listen(self.factory, f"http://localhost/ws/foobar?{flags}{since}")
        self.assertEqual(client.status, 200)
        return OverEvents(client)


class Both:
    """What holds for both transports."""

    def test_a_position_stands_before_the_first_message_and_moves_in_silence(self) -> None:
        """Fault 1."""
        seen = self.open()
        first = seen.position
        self.assertIsNotNone(first)
        self.clock.pump([1] * 600)
        self.assertGreaterEqual(seen.position.stamp, first.stamp + 570_000_000)
        seen.client.lose_connection()
        self.say("missed")
        again = seen.reconnect()
        self.assertEqual((again.messages, again.gaps), (["missed"], []))

    def test_marks_come_every_twenty_seconds(self) -> None:
        seen = self.open()
        for _ in range(3):
            before = len(seen.kinds("mark"))
            self.clock.pump([1] * 20)
            self.assertEqual(len(seen.kinds("mark")) - before, 1)
        self.assertEqual(seen.messages, [])

    def test_everything_missed_comes_once_in_order_over_channels_and_then_live(self) -> None:
        seen = self.open()
        seen.client.lose_connection()
        for number in range(8):
            self.say(str(number), channel=(CHANNEL, JOHN)[number % 2])
        again = seen.reconnect()
        self.say("8")
        self.assertEqual(again.messages, [str(number) for number in range(9)])
        self.assertEqual(again.gaps, [])

    def test_a_cut_after_each_message_of_a_replay_loses_and_repeats_nothing(self) -> None:
        """Fault 2."""
        seen = self.open()
        seen.client.lose_connection()
        for number in range(9):
            self.say(str(number), channel=(CHANNEL, JOHN)[number % 2])
        again = seen.reconnect()
        positions = [position for kind, _, position in again if kind in ("message", "replayed")]
        for number, position in enumerate(positions):
            late = self.open(since=str(position))
            self.assertEqual(late.messages, again.messages[number + 1 :])
            self.assertEqual(late.gaps, [])

    def test_more_than_is_kept_is_a_gap_and_the_persisted_message_follows(self) -> None:
        seen = self.open()
        seen.client.lose_connection()
        self.say("to john", channel=JOHN)
        self.say(*[str(number) for number in range(7)])
        again = seen.reconnect()
        self.assertEqual(again.gaps, ["broadcast"])
        self.assertEqual(again.messages, ["to john", "6"])

    def test_what_is_too_old_is_a_gap(self) -> None:
        seen = self.open()
        seen.client.lose_connection()
        self.say("missed")
        self.clock.advance(601)
        again = seen.reconnect()
        self.assertEqual((again.messages, again.gaps), ([], ["broadcast"]))

    def test_an_outage_is_healed(self) -> None:
        seen = self.open()
        self.say("before")
        self.broker.lose_connection()
        self.say("1", "2", expire=0)
        self.say("3", channel=JOHN)
        self.assertEqual(seen.messages, ["before"])
        self.broker.restore()
        self.clock.advance(1)
        self.say("after")
        self.assertEqual(seen.messages, ["before", "1", "2", "3", "after"])
        self.assertEqual(seen.gaps, [])

    def test_an_outage_that_cannot_be_healed_is_told_as_a_gap(self) -> None:
        seen = self.open()
        self.say("before", channel=JOHN)
        self.broker.lose_connection()
        self.say(*[str(number) for number in range(7)])
        self.say("to john", channel=JOHN)
        self.broker.restore()
        self.clock.advance(1)
        self.assertEqual(seen.gaps, ["broadcast"])
        self.assertEqual(seen.messages[0], "before")
        self.assertEqual(set(seen.messages[1:]), {"6", "to john"})
        told = [each for each in seen if each[0] in ("gap", "message", "replayed")]
        self.assertEqual([kind for kind, *_ in told][1], "gap")
        positions = [position for *_, position in told]
        self.assertLess(positions[1], positions[2])
        self.say("after")
        self.assertEqual(seen.messages[-1], "after")

    def test_an_outage_in_the_middle_of_a_replay_loses_and_repeats_nothing(self) -> None:
        seen = self.open()
        seen.client.lose_connection()
        self.say("1", "2")
        self.broker.delay = 1
        again = self.later(seen.reconnect())
        for _ in range(3):  # the position, the subscriptions, what was missed
            self.clock.advance(0.4)
        self.broker.lose_connection()
        self.broker.delay = 0
        self.say("3")
        self.broker.restore()
        self.clock.pump([1] * 3)
        if not again.client.open:  # it was refused, and comes back
            again = again.reconnect()
        self.say("4")
        self.assertEqual((again.messages, again.gaps), (["1", "2", "3", "4"], []))

    def later(self, seen: Any) -> Any:
        return seen

    def test_a_message_without_a_marker_moves_no_position_and_a_mark_follows(self) -> None:
        seen = self.open()
        self.say("marked")
        before = seen.position
        self.publish(b"of an old publisher")
        self.assertEqual(seen.messages, ["marked", "of an old publisher"])
        self.assertEqual(seen.position, before)
        self.clock.advance(1)
        self.assertEqual(seen.kinds("mark"), [""])
        self.assertLess(before, seen.position)

    def test_a_subscriber_of_an_applications_own_keeps_its_say(self) -> None:
        class Greeting(RedisSubscriber):
            def send_persisted_messages(self, websocket: Any) -> Deferred[Any] | None:
                websocket.send("greeting")
                return None

        self.use_history(subscriber=Greeting)
        self.say("persisted")
        seen = self.open()
        self.assertEqual(seen.messages, ["greeting"])
        seen.client.lose_connection()
        self.say("missed")
        again = seen.reconnect()
        self.assertEqual(again.messages, ["greeting", "missed"])
        self.say("live")
        self.assertEqual(again.messages, ["greeting", "missed", "live"])

    def test_a_hook_sends_in_turn_and_moves_no_position(self) -> None:
        class Hooks(NullHooks):
            connections: list[Any] = []

            def connected(self, connection: Any) -> None:
                self.connections.append(connection)
                connection.send("hello")

        hooks = Hooks()
        self.use_history(hooks=hooks)
        self.say("persisted")
        seen = self.open()
        self.assertEqual(seen.messages, ["persisted", "hello"])
        self.say("1")
        before = seen.position
        hooks.connections[-1].send("from the hook")
        self.say("2")
        self.assertEqual(seen.messages[2:], ["1", "from the hook", "2"])
        self.assertLess(before, seen.position)
        hooks.connections[-1].send("last")
        # What was meant for this connection alone is not repeated.
        self.assertEqual(seen.reconnect().messages, ["hello"])

    def test_one_that_was_turned_away_comes_back_from_where_it_was(self) -> None:
        seen = self.open()
        self.say("1")
        self.broker.lose_connection()
        self.say("2")
        away = seen.client.reconnect().reconnect()
        self.assertFalse(away.open)
        self.broker.restore()
        self.say("3")
        again = away.reconnect()
        self.assertEqual(again.messages, ["2", "3"])

    # Slow readers

    def test_what_a_slow_reader_is_sent_waits_in_order(self) -> None:
        self.use_history(heartbeat="--beat--")  # marks come as often
        seen = self.open()
        seen.pause()
        self.say("1")
        self.say("2", channel=JOHN)
        self.clock.pump([1] * 15)
        self.assertEqual(seen.messages, [])
        seen.read_on()
        self.say("3")
        self.assertEqual((seen.messages, seen.gaps), (["1", "2", "3"], []))
        self.assertEqual(seen.kinds("mark"), [])

    def test_a_mark_in_the_queue_replaces_no_message(self) -> None:
        for policy in ("latest", "drop_oldest"):
            self.use_history(slow_reader=policy, max_pending=400)
            seen = self.open()
            seen.pause()
            self.publish(b"unmarked")
            self.clock.advance(1)
            seen.read_on()
            self.assertEqual((seen.messages, seen.gaps), (["unmarked"], []))

    def test_close_closes_the_slow(self) -> None:
        self.use_history(max_pending=400)
        seen = self.open()
        seen.pause()
        self.say(*["x" * 90] * 3)
        self.assertFalse(seen.client.open)

    def test_drop_oldest_tells_what_it_dropped_before_what_follows(self) -> None:
        self.use_history(slow_reader="drop_oldest", max_pending=600)
        seen = self.open()
        self.say("0")
        reached = seen.position
        seen.pause()
        self.say("to john", channel=JOHN)
        self.say("1", "2", "3", "4")
        seen.read_on()
        self.say("5")
        tail = [each for each in seen if each[0] != "mark"]
        tail = tail[1 + [text for _, text, _ in tail].index("0") :]
        self.assertEqual(
            [(kind, text) for kind, text, _ in tail],
            [
                ("gap", "broadcast"), ("gap", "user"),
                ("message", "2"), ("message", "3"), ("message", "4"), ("message", "5"),
            ],
        )  # fmt: skip
        self.assertGreaterEqual(tail[0][2], reached)
        # Nothing that was dropped is behind the position of the gap.
        late = self.open(since=str(tail[0][2]))
        self.assertEqual((late.messages[0], late.gaps), ("to john", []))

    def test_latest_tells_what_it_dropped(self) -> None:
        self.use_history(slow_reader="latest", max_pending=10_000)
        seen = self.open()
        self.say("0")
        reached = seen.position
        seen.pause()
        self.say("to john", channel=JOHN)
        self.say("1", "2")
        seen.read_on()
        tail = [each for each in seen if each[0] != "mark"]
        tail = tail[1 + [text for _, text, _ in tail].index("0") :]
        self.assertEqual(
            [(kind, text) for kind, text, _ in tail],
            [("gap", "broadcast"), ("message", "to john"), ("message", "2")],
        )
        self.assertGreaterEqual(tail[0][2], reached)
        late = self.open(since=str(tail[0][2]))
        self.assertEqual((late.messages, late.gaps), (["to john", "1", "2"], []))

    def test_what_fits_is_no_gap(self) -> None:
        self.use_history(slow_reader="latest", max_pending=10_000)
        seen = self.open()
        seen.pause()
        self.say("1")
        self.say("2", channel=JOHN)
        seen.read_on()
        self.assertEqual((seen.messages, seen.gaps), (["1", "2"], []))

    def test_each_hole_is_told_once_and_in_its_place(self) -> None:
        self.use_history(slow_reader="drop_oldest", max_pending=400)
        seen = self.open()
        for start in (0, 10):
            seen.pause()
            self.say(*[str(start + number) for number in range(4)])
            seen.read_on()
            self.say(str(start + 4))
        self.assertEqual(seen.gaps, ["broadcast"] * 2)
        self.assertEqual(seen.messages, ["2", "3", "4", "12", "13", "14"])

    def test_what_gives_way_to_the_total_bound_is_told_too(self) -> None:
        self.use_history(slow_reader="drop_oldest", max_pending_total=4000)
        seen = self.open()
        seen.pause()
        self.say(*[str(number) * 500 for number in range(9)])
        seen.read_on()
        self.say("last")
        self.assertEqual(seen.gaps, ["broadcast"])
        self.assertEqual(seen.messages[-2:], ["8" * 500, "last"])
        self.assertLess(len(seen.messages), 10)

    def test_an_outage_while_it_does_not_read_is_healed_all_the_same(self) -> None:
        self.use_history(slow_reader="drop_oldest", max_pending=400)
        seen = self.open()
        seen.pause()
        self.say("1", "2", "3")
        self.broker.lose_connection()
        self.say("4")
        self.broker.restore()
        self.clock.advance(1)
        self.say("5")
        seen.read_on()
        self.say("6")
        self.assertEqual(seen.gaps, ["broadcast"])
        self.assertEqual(seen.messages, ["2", "3", "4", "5", "6"])

    def test_what_is_dropped_while_it_catches_up_is_told_unless_it_was_read(self) -> None:
        self.use_history(slow_reader="drop_oldest", max_pending=400)
        seen = self.open()
        self.broker.lose_connection()
        self.broker.restore()  # it catches up when the clock goes on
        self.say("1", "2", "3", "4")
        self.clock.advance(1)
        self.assertEqual((seen.messages, seen.gaps), (["1", "2", "3", "4"], []))


class WebSocketResumingTests(Both, WebSocketResumes):
    def test_the_first_frame_says_whether_it_was_recovered(self) -> None:
        client = self.open().client
        self.assertEqual((client.recovered, client.gap, client.messages), (None, [], []))
        again = client.reconnect()
        self.assertEqual((again.recovered, again.gap), (True, []))
        lost = connect(self.factory, f"{URL}?{BOTH}", since="nonsense")
        self.assertEqual((lost.recovered, lost.gap), (False, ["broadcast", "user"]))

    def test_its_own_message_without_echo_is_a_mark(self) -> None:
        seen = self.open("subscribe-broadcast&publish-broadcast")
        other = self.open("subscribe-broadcast")
        before = seen.position
        seen.client.send("mine")
        self.assertEqual((seen.messages, other.messages), ([], ["mine"]))
        self.assertEqual(seen.kinds("mark"), [""])
        self.assertLess(before, seen.position)
        self.assertEqual(seen.position, other.position)
        self.assertEqual(seen.reconnect().messages, [])
        echoing = self.open("subscribe-broadcast&publish-broadcast&echo")
        echoing.client.send("mine too")
        self.assertEqual(echoing.messages[-1], "mine too")

    def test_only_what_was_published_before_it_opened_is_marked_as_such(self) -> None:
        self.say("persisted")
        seen, other = self.open(), self.open()
        self.say("live")
        self.broker.lose_connection()
        self.say("in an outage", expire=0)
        self.broker.restore()
        self.clock.advance(1)
        late = self.open(since=str(self.broker.position))
        self.assertEqual(late.messages, [])
        for each in (seen, other):
            self.assertEqual(each.kinds("replayed"), ["persisted"])
            self.assertEqual(each.kinds("message"), ["live", "in an outage"])
        again = self.open(since=str(seen.client.frames[1].position))
        self.assertEqual(again.kinds("replayed"), ["live", "in an outage"])

    def test_marks_take_the_place_of_heartbeats(self) -> None:
        self.use_history(heartbeat="--beat--")
        seen, plain = self.open(), self.connect()
        self.clock.pump([0.5] * 20)
        self.assertEqual(seen.messages, [])
        self.assertGreaterEqual(len(seen.kinds("mark")), 2)
        self.assertIn("--beat--", plain.messages)

    def test_without_the_subprotocol_nothing_changes(self) -> None:
        self.say("persisted")
        plain = self.connect("subscribe-broadcast&since=")
        self.say("1")
        self.publish(b"2")
        self.clock.pump([1] * 30)
        self.assertEqual(plain.messages, ["persisted", "1", "2"])

    def test_a_history_may_have_no_holes_so_a_quota_refuses_the_message(self) -> None:
        self.use_history(client_quota=3000)
        seen = self.open("subscribe-broadcast&publish-broadcast&echo")
        seen.client.send("x" * 1000)
        self.assertTrue(seen.client.open)
        seen.client.send("y" * 3000)
        self.assertEqual(seen.client.close_code, 1013)
        self.assertEqual(seen.messages, ["x" * 1000])


class EventsResumingTests(Both, EventsResume):
    def test_the_first_event_says_whether_it_was_recovered(self) -> None:
        def first(client: MemoryEvents) -> Any:
            self.assertEqual(client.events[0].type, "open")
            told = json.loads(client.events[0].data)
            self.assertEqual(told.pop("position"), client.events[0].id)
            return told

        client = self.open().client
        self.assertEqual(first(client), {"recovered": None, "gap": []})
        self.assertEqual(first(client.reconnect()), {"recovered": True, "gap": []})
        lost = self.open(since="nonsense")
        self.assertEqual(first(lost.client), {"recovered": False, "gap": ["broadcast", "user"]})
        self.assertEqual(lost.gaps, ["broadcast", "user"])

    def test_live_follows_the_replay(self) -> None:
        seen = self.open()
        seen.client.lose_connection()
        self.say("1", "2")
        again = seen.reconnect()
        self.assertEqual([kind for kind, *_ in again], ["open", "message", "message", "live"])
        positions = [position for *_, position in again]
        self.assertEqual(sorted(positions), positions)
        self.assertEqual(positions[0], seen.position)

    def test_the_header_wins_over_both_parameters(self) -> None:
        """Fault 7."""
        seen = self.open()
        positions = []
        for number in range(4):
            positions.append(str(seen.position))
            self.say(str(number))
        url = f"http://localhost/ws/foobar?{BOTH}"
        since, last = f"&since={positions[0]}", f"&lastEventId={positions[1]}"
        for query, headers, expected in (
            (since + last, {"Last-Event-ID": positions[2]}, ["2", "3"]),
            (last + since, {}, ["1", "2", "3"]),
            (since, {}, ["0", "1", "2", "3"]),
        ):
            self.assertEqual(listen(self.factory, url + query, headers=headers).messages, expected)

    def test_payloads_make_no_fields_and_keep_their_bytes(self) -> None:
        """Fault 8."""
        seen = self.open()
        texts = ["a\nb", " blank", "", "\u2028", "\0", "data: x\nevent: gap\nid: y\n\n"]
        for text in texts:
            self.say(text)
        self.assertEqual(seen.messages, texts)
        for payload in (b"a\revent: gap\rid: x\r\r", b"\xff\0", b"a\r\nb"):
            self.broker.publish_elsewhere([CHANNEL], payload)
            event = seen.client.events[-1]
            self.assertEqual((event.type, base64.b64decode(event.data)), ("binary", payload))
            self.assertEqual(event.id, str(seen.position))

    def test_heartbeats_are_no_events(self) -> None:
        self.use_history(heartbeat="--beat--")
        seen = self.open()
        before = seen.position
        self.clock.pump([0.5] * 20)
        self.assertEqual(seen.messages, [])
        self.assertLess(before, seen.position)

    def test_publishing_is_refused(self) -> None:
        client = listen(self.factory, "http://localhost/ws/foobar?publish-broadcast")
        self.assertEqual(client.status, 400)

    def test_a_revoked_client_is_sent_away_and_another_is_not(self) -> None:
        seen = self.open()
        other = listen(self.factory, "http://localhost/ws/other?subscribe-broadcast")
        self.successResultOf(
            disconnect(self.factory.session_server.config, self.broker, facility="foobar")
        )
        self.assertFalse(seen.client.open)
        self.assertTrue(other.open)

    def test_limits_end_a_response_of_200_that_asks_to_come_back(self) -> None:
        for limit in ("max_connections_per_user", "max_connections_per_address", "max_connections"):
            self.use_history(**{limit: 2})
            clients = [self.open().client for _ in range(3)]
            self.assertEqual([client.open for client in clients], [True, True, False], limit)
            self.assertEqual(clients[2].events, [])
            self.assertGreaterEqual(clients[2].retry, 1000)
            clients[0].lose_connection()
            self.assertTrue(self.open().client.open)

    def test_draining_ends_the_stream_and_the_next_one(self) -> None:
        seen = self.open()
        self.factory.drain(1012, 0)
        self.clock.advance(1)
        self.assertFalse(seen.client.open)
        late = self.open()
        self.assertEqual((late.client.open, late.client.events), (False, []))

    def test_in_an_outage_the_stream_ends_and_asks_to_come_back(self) -> None:
        self.broker.lose_connection()
        late = self.open()
        self.assertEqual((late.client.open, late.client.events), (False, []))
