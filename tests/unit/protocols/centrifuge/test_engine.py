"""One client of Centrifuge's protocol: its pings, its limits, and the order of what it is sent."""

from __future__ import annotations

import gc
import itertools
import json
from typing import Any, cast

from tests.support.channels import KEPT as HISTORY
from tests.support.channels import ChannelsTestCase, John
from tests.support.memory import AllowAll, SlowBroker, Waiting
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS, MOST_GRANTS
from ws4redis_tx.service import make_factory
from ws4redis_tx.testing import CentrifugeClient, CentrifugeError

A, KEPT = "broadcast:a", "broadcast:kept"


def order(client: CentrifugeClient) -> list[Any]:
    """All that came, in its order: the name of each answer, the data of each publication."""
    came = []
    for frame in client.websocket.messages:
        assert isinstance(frame, str)
        for message in map(json.loads, frame.split("\n")):
            push = message.get("push", {})
            kinds = [each for each in message if each not in ("id", "push")]
            came += [push["pub"]["data"]] if "pub" in push else kinds
    return came


class PingTests(ChannelsTestCase):
    def pings(self, client: CentrifugeClient, seconds: int) -> list[float]:
        """The times of the pings of the next so many seconds."""
        times, before = [], client.pings
        for _ in range(seconds * 4):
            self.clock.advance(0.25)
            if client.pings > before:
                times.append(self.clock.seconds())
                before = client.pings
        return times

    def test_the_first_comes_after_half_an_interval_and_the_others_after_a_whole_one(self) -> None:
        firsts = set()
        for _ in range(5):
            client = self.connect()
            connected = self.clock.seconds()
            times = self.pings(client, 90)
            self.assertTrue(12.5 <= times[0] - connected <= 25.25, times)
            for one, other in itertools.pairwise(times):
                self.assertEqual(other - one, 25)
            self.assertTrue(client.connected)
            firsts.add(times[0] - connected)
        self.assertGreater(len(firsts), 1)

    def silent(self, seconds: float) -> CentrifugeClient:
        """A client that has not answered its first ping for so many seconds."""
        client = self.connect()
        client.answers_pings = False
        while not client.pings:
            self.clock.advance(0.25)
        self.clock.pump([0.25] * int(seconds * 4))
        return client

    def pong(self, client: CentrifugeClient) -> None:
        client.websocket.send("{}")

    def test_an_answer_within_8_seconds_is_in_time(self) -> None:
        client = self.silent(7.5)
        self.pong(client)
        self.clock.pump([0.25] * 8)
        self.assertTrue(client.connected)

    def test_without_one_the_client_is_disconnected_with_3012(self) -> None:
        client = self.silent(7.5)
        self.assertTrue(client.connected)
        self.clock.pump([0.25] * 4)
        self.assertEqual(client.close_code, 3012)

    def test_nothing_else_is_an_answer(self) -> None:
        client = self.silent(4)
        client.publish(A, 1)
        client.subscribe(A)
        self.clock.pump([0.25] * 20)
        self.assertEqual(client.close_code, 3012)

    def test_a_pong_without_a_ping_and_a_second_one_end_the_connection(self) -> None:
        client = self.connect()
        self.pong(client)
        self.assertEqual(client.close_code, 3501)
        client = self.silent(1)
        self.pong(client)
        self.assertTrue(client.connected)
        self.pong(client)
        self.assertEqual(client.close_code, 3501)

    def test_a_client_that_is_slow_is_not_taken_for_a_silent_one(self) -> None:
        client = self.silent(1)
        client.websocket._server.pauseProducing()
        self.clock.pump([0.25] * 400)
        self.assertTrue(client.connected)
        client.websocket._server.resumeProducing()
        self.assertTrue(client.connected)

    def test_a_client_may_choose_websocket_pings(self) -> None:
        client = self.connect("?cf_ws_frame_ping_pong=true")
        self.assertNotIn("ping", client.welcome)
        self.assertNotIn("pong", client.welcome)
        self.clock.pump([0.25] * 400)
        self.assertEqual((client.pings, client.connected), (0, True))
        self.assertGreater(client.websocket._server.transport.pings, 2)
        client.websocket.answers_pings = False
        self.clock.pump([0.25] * 200)
        self.assertFalse(self.server.sessions)
        client = self.connect("?cf_ws_frame_ping_pong=true")
        self.pong(client)
        self.assertEqual(client.close_code, 3501)

    def test_nobody_is_pinged_before_connect_and_after_its_refusal(self) -> None:
        class Refusing(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                raise Denied(403, "No.")

        self.use(Refusing(), centrifuge_ping=2.0, centrifuge_pong=1.0)
        waiting, refused = self.open(), self.connect()
        self.clock.pump([0.25] * 16)
        self.assertEqual((waiting.pings, refused.pings), (0, 0))
        self.assertTrue(waiting.websocket.open and refused.websocket.open)


class ConnectTests(ChannelsTestCase):
    def test_no_connect_within_10_seconds_is_3502(self) -> None:
        client = self.open()
        self.clock.advance(9.9)
        self.assertTrue(client.websocket.open)
        self.clock.advance(0.2)
        self.assertEqual(client.close_code, 3502)
        self.clock.advance(5)
        self.assertFalse(self.server.sessions)

    def test_its_time_is_measured_to_the_command_and_not_to_its_answer(self) -> None:
        authorizer = Waiting()
        self.use(authorizer)
        client = self.open()
        self.clock.advance(9.9)
        client.send("connect")
        self.clock.advance(4)
        self.assertTrue(client.websocket.open)
        authorizer.asked.pop().callback(None)
        self.clock.advance(20)
        self.assertTrue(client.connected)

    def test_another_command_before_it_and_a_second_one_are_3501(self) -> None:
        client = self.open()
        client.send("subscribe", channel=A)
        self.assertEqual(client.close_code, 3501)
        client = self.connect()
        client.send("connect")
        self.assertEqual(client.close_code, 3501)

    def test_after_an_error_nothing_is_answered_and_the_end_comes_within_5_seconds(self) -> None:
        class Refusing(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                raise Denied(401, "Who are you?")

        self.use(Refusing())
        client = self.open()
        client.send_all(("connect", {}), ("subscribe", {"channel": A}))
        assert client.error is not None
        self.assertEqual((client.error.code, list(client.answers)), (101, [1]))
        client.send("subscribe", channel=A)
        self.assertEqual(list(client.answers), [1])
        self.clock.advance(5)
        self.assertFalse(client.websocket.open)

    def test_a_temporary_error_is_told_late(self) -> None:
        class Overloaded(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                raise Denied(503, "Later.")

        self.use(Overloaded())
        client = self.connect()
        self.clock.advance(0.9)
        self.assertIsNone(client.error)
        self.clock.advance(2.2)
        assert client.error is not None
        self.assertEqual((client.error.code, client.error.temporary), (111, True))

    def test_what_follows_a_connect_that_waits_is_answered_after_it(self) -> None:
        authorizer = Waiting()
        self.use(authorizer)
        client = self.open()
        client.send("connect")
        client.send_all(("subscribe", {"channel": A}), ("subscribe", {"channel": "nonsense"}))
        self.assertEqual(client.answers, {})
        while authorizer.asked:
            authorizer.asked.pop().callback(None)
        self.assertEqual(order(client), ["connect", "subscribe", "error"])


class LimitTests(ChannelsTestCase):
    def test_the_129th_channel_is_refused_until_one_is_left(self) -> None:
        client = self.connect()
        for number in range(MOST_CHANNELS):
            client.subscribe(f"broadcast:{number}")
        for _ in range(2):
            error = self.assertRaises(CentrifugeError, client.subscribe, A)
            self.assertEqual(error.code, 106)
        client.unsubscribe("broadcast:7")
        client.subscribe(A)
        self.assertEqual(self.assertRaises(CentrifugeError, client.subscribe, "user:x").code, 106)
        self.assertEqual(MOST_CHANNELS, 128)

    def test_a_second_subscribe_is_105_and_harms_nothing(self) -> None:
        client = self.connect()
        client.subscribe(A)
        self.assertEqual(self.assertRaises(CentrifugeError, client.subscribe, A).code, 105)
        self.say(1, facility="a")
        self.assertEqual(client.messages, [1])

    def test_the_rights_on_256_facilities_are_remembered_and_those_in_use_always(self) -> None:
        authorizer = John()
        self.use(authorizer)
        client = self.connect()
        client.subscribe("broadcast:used")
        for number in range(300):
            client.publish(f"broadcast:{number}", 1)
        self.assertEqual((len(self.state().session.grants), MOST_GRANTS), (256, 256))
        self.assertEqual(self.server.revocations._index.size, 1)
        self.assertEqual(len(authorizer.asked), 1 + 1 + 300)
        client.publish("broadcast:299", 1)
        client.unsubscribe("broadcast:used")
        client.subscribe("broadcast:used")
        self.assertEqual(len(authorizer.asked), 302)
        client.publish("broadcast:0", 1)
        self.assertEqual(authorizer.asked[-1], ("0", ("publish-broadcast",)))

    def test_one_frame_asks_once_for_each_facility(self) -> None:
        authorizer = John()
        self.use(authorizer)
        client = self.connect()
        names = A, "user:a", "session:a", "broadcast:b"
        client.send_all(*[("subscribe", {"channel": each}) for each in names])
        self.assertEqual(authorizer.asked[1:], [
            ("a", ("subscribe-session", "subscribe-user", "subscribe-broadcast")),
            ("b", ("subscribe-broadcast",)),
        ])  # fmt: skip


class MoreLimitTests(ChannelsTestCase):
    def test_a_frame_above_64_kib_closes_with_1009(self) -> None:
        client = self.connect()
        client.websocket.send('{"id":9,"rpc":{"data":"%s"}}' % ("x" * 65_536))
        self.assertEqual(client.close_code, 1009)

    def test_the_commands_of_a_frame_count_towards_the_rate(self) -> None:
        """Ten seconds of it may come at once."""
        self.use(rate=(10, 1 << 20))
        client = self.connect()
        command = '{"id":9,"subscribe":{"channel":"nonsense"}}'
        client.websocket.send("\n".join([command] * 200))
        self.assertEqual(client.close_code, 3013)
        self.assertLess(len(client.websocket.messages), 110)

    def test_beyond_the_quota_what_could_not_be_kept_is_refused(self) -> None:
        self.use(client_quota=4000)
        client = self.connect()
        client.publish(KEPT, "x" * 2000)
        with self.assertRaises(CentrifugeError) as caught:
            client.publish(KEPT, "x" * 2000)
        self.assertEqual(caught.exception.code, 111)
        client.publish(A, "x" * 600)  # is published, and not persisted

    def test_a_broker_that_knows_no_histories_is_refused_at_the_start(self) -> None:
        class Plain:
            """An application's own."""

        with self.assertRaises(TypeError) as caught:
            make_factory(self.config, broker=cast(Any, Plain()))
        self.assertIn("make_broker(config)", str(caught.exception))


class UnavailableTests(ChannelsTestCase):
    def knowing_client(self) -> CentrifugeClient:
        """Its rights are known, so that nobody is asked."""
        client = self.connect()
        for channel in (A, KEPT, "broadcast:room"):
            client.send("publish", channel=channel, data=1)
            client.send("history", channel=channel)
            client.send("presence", channel=channel)
            client.send("subscribe", channel=channel)
            if isinstance(self.broker, SlowBroker):
                self.broker.answer("listen")
            client.send("unsubscribe", channel=channel)
        return client

    def test_a_subscribe_while_redis_is_away_is_a_temporary_error_and_leaves_no_traceback(
        self,
    ) -> None:
        self.use(presence=("room",))
        client = self.knowing_client()
        self.broker.lose_connection()
        for channel in (A, KEPT, "broadcast:room"):
            with self.assertRaises(CentrifugeError) as caught:
                client.subscribe(channel)
            self.assertEqual((caught.exception.code, caught.exception.temporary), (100, True))
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.broker.restore()
        for channel in (A, KEPT, "broadcast:room"):
            client.subscribe(channel)

    def test_so_is_one_during_which_it_goes(self) -> None:
        self.use(broker=SlowBroker("listen"), presence=("room",))
        self.broker.answer("listen")
        client = self.knowing_client()
        for channel in (A, KEPT, "broadcast:room"):
            self.broker.lose_connection()
            client.send("subscribe", channel=channel)
            self.broker.restore()
            self.broker.answer("listen")
            self.assertEqual([*client.answers.values()][-1].code, 100)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])


class OrderTests(ChannelsTestCase):
    def test_answers_come_in_the_order_of_the_commands_whatever_waits(self) -> None:
        broker = SlowBroker("listen", "publish", "stream", "fence")
        self.use(broker=broker)
        client = self.connect()
        numbers = client.send_all(
            ("subscribe", {"channel": A}),
            ("publish", {"channel": A, "data": 1}),
            ("subscribe", {"channel": KEPT}),
            ("history", {"channel": "nonsense"}),
            ("history", {"channel": KEPT}),
            ("unsubscribe", {"channel": A}),
        )
        for _ in range(20):
            for name in ("listen", "publish", "stream", "fence"):
                broker.answer(name)
        self.assertEqual(list(client.answers)[1:], numbers)
        self.assertEqual(order(client), [
            "connect", "subscribe", 1, "publish", "subscribe", "error", "history", "unsubscribe",
        ])  # fmt: skip

    def test_nothing_of_a_channel_comes_before_its_answer(self) -> None:
        for channel, facility in ((A, "a"), (KEPT, "kept")):
            broker = SlowBroker("listen", "stream")
            self.use(broker=broker)
            client = self.connect()
            client.send("subscribe", channel=channel)
            self.say(1, facility=facility)
            for name in ("listen", "listen", "stream"):
                if channel not in client.subscriptions:
                    self.assertEqual(client.pushes, [])
                    broker.answer(name)
            self.say(2, facility=facility)
            self.assertEqual(order(client)[:2], ["connect", "subscribe"])
            offset = client.subscriptions[channel].get("offset", 0)
            # It is in the history, or it comes afterwards.
            self.assertEqual(client.messages, [1, 2] if not offset else [2])

    def test_what_comes_while_the_history_is_read_follows_what_is_recovered_and_once(self) -> None:
        for slow in ("listen", "stream"):
            broker = SlowBroker(slow)
            self.use(broker=broker)
            first = self.connect()
            epoch = first.history(KEPT)["epoch"] if slow == "listen" else ""
            self.say(1, 2, facility="kept")
            client = self.connect()
            client.send("subscribe", channel=KEPT, recover=True, epoch=epoch, offset=1)
            self.say(3, facility="kept")
            broker.answer(slow)
            self.say(4, facility="kept")
            self.assertEqual([each.offset for each in client.pushes], [2, 3, 4])
            self.assertTrue(client.subscriptions[KEPT]["recovered"])

    def test_what_comes_then_without_a_marker_is_in_no_history_and_comes_too(self) -> None:
        broker = SlowBroker("listen")
        self.use(broker=broker)
        client = self.connect()
        client.send("subscribe", channel=KEPT, recover=True, offset=0)
        self.say(1, facility="kept")
        broker.publish([KEPT.encode()], b"0", 0)
        self.say(2, facility="kept")
        broker.answer("listen")
        self.say(3, facility="kept")
        self.assertEqual([(each.data, each.offset) for each in client.pushes],
                         [(1, 1), (2, 2), (0, 0), (3, 3)])  # fmt: skip

    def test_a_publishers_own_push_comes_before_the_answer_to_its_unsubscribe(self) -> None:
        self.use(broker=SlowBroker("fence"))
        client = self.connect()
        client.subscribe(A)
        client.send_all(("publish", {"channel": A, "data": 1}), ("unsubscribe", {"channel": A}))
        self.broker.answer("fence")
        self.assertEqual(order(client), ["connect", "subscribe", 1, "publish", "unsubscribe"])

    def test_answers_to_one_frame_leave_in_one_write(self) -> None:
        client = self.connect()
        client.send_all(*[("subscribe", {"channel": f"broadcast:{each}"}) for each in range(9)])
        self.assertEqual(len(client.websocket.messages), 2)


class SlowReaderTests(ChannelsTestCase):
    def pause(self, client: CentrifugeClient) -> None:
        client.websocket._server.pauseProducing()

    def resume(self, client: CentrifugeClient) -> None:
        client.websocket._server.resumeProducing()

    def test_answers_and_pushes_wait_in_their_order_and_nothing_is_lost(self) -> None:
        broker = SlowBroker("listen")
        self.use(broker=broker)
        client = self.connect()
        client.send("subscribe", channel=A)
        broker.answer("listen")
        client.send("subscribe", channel="broadcast:b")
        self.pause(client)
        self.say(1, 2, facility="a")
        broker.answer("listen")
        self.say(3, facility="a")
        client.send("history", channel=A)  # not read before the client reads
        self.assertEqual(client.messages, [])
        self.resume(client)
        self.clock.advance(0)
        self.assertEqual(order(client), ["connect", "subscribe", 1, 2, "subscribe", 3, "error"])

    def test_one_that_does_not_read_for_too_much_is_closed_with_3008(self) -> None:
        self.use(max_pending=65536)
        client = self.connect()
        client.subscribe(A)
        self.pause(client)
        message = json.dumps("x" * 1000).encode()
        for _ in range(80):
            self.broker.publish_elsewhere([b"broadcast:a"], message)
        self.resume(client)
        self.assertEqual(client.close_code, 3008)

    def test_one_with_a_history_misses_nothing_whatever_the_policy_drops(self) -> None:
        for policy in ("drop_oldest", "latest"):
            self.use(max_pending=65536, slow_reader=policy)
            client = self.connect()
            client.subscribe(KEPT)
            self.pause(client)
            messages = [str(number) * 30_000 for number in range(4)]
            for each in messages:
                self.broker.publish(
                    [b"broadcast:kept"], json.dumps(each).encode(), 0, None, HISTORY
                )
            self.resume(client)
            self.assertEqual(client.close_code, 3010, policy)
            again = client.reconnect()
            self.assertEqual(client.messages + again.messages, messages)

    def test_without_one_the_policy_decides(self) -> None:
        self.use(max_pending=65536, slow_reader="latest")
        client = self.connect()
        client.subscribe(A)
        client.subscribe(KEPT)
        self.pause(client)
        self.say(1, 2, 3, facility="a")
        self.resume(client)
        self.assertEqual((client.messages, client.connected), ([3], True))

    def test_while_it_does_not_read_its_commands_are_not_read(self) -> None:
        client = self.connect()
        self.pause(client)
        (session,) = self.server.sessions
        self.assertFalse(session.reading)
        self.resume(client)
        self.assertTrue(session.reading)
