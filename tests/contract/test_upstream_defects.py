"""The contract, section 5: the mistakes of upstream."""

from __future__ import annotations

from typing import Any

import valkey
from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.support.clients import open_wire
from tests.support.django import set_up_django
from tests.support.servers import LoadTestCase
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from tests.support.wires import handshake_bytes
from ws4redis_tx.testing import client_frame

set_up_django()


from ws4redis_tx.policies import allow_all


class UpstreamDefectTests(LoadTestCase, ContractTestCase):
    """5. What upstream got wrong (each is a test here)"""

    @inlineCallbacks
    def test_01_a_burst_of_publishes_is_complete_in_order_at_once(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?subscribe-broadcast")
        with valkey.Valkey(host="127.0.0.1", port=self.redis.port) as redis:
            pipeline = redis.pipeline(transaction=False)
            for i in range(500):
                pipeline.publish("broadcast:foobar", i)
            pipeline.execute()
        self.assertEqual((yield client.take(500)), [str(i) for i in range(500)])

    @inlineCallbacks
    def test_02_of_several_client_frames_in_one_segment_all_are_published(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        other = yield self.open("foobar?subscribe-broadcast")
        sender = yield self.open("foobar?publish-broadcast")
        sender.transport.write(b"".join(client_frame(1, b"%d" % i) for i in range(100)))
        self.assertEqual((yield other.take(100)), [str(i) for i in range(100)])

    @inlineCallbacks
    def test_03_connecting_while_a_publisher_is_busy_shows_no_duplicate_and_no_gap(self) -> Any:
        """A tenth of the 400 connects that ``test_load`` makes."""
        yield self.serve()
        yield self.connect_under_load(40)

    @inlineCallbacks
    def test_04_a_callback_by_name_that_raises_attribute_error_grants_nothing(self) -> Any:
        yield self.serve(
            WS4REDIS_ALLOWED_CHANNELS="tests.contract.test_upstream_defects.broken_policy"
        )
        status, _ = yield self.refusal()
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    @inlineCallbacks
    def test_05_another_sites_page_cannot_open_a_logged_in_users_websocket(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{self.port + 1}"):
            status, _ = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=cookie, Origin=origin
            )
            self.assertEqual(status, 403)
        own = f"http://127.0.0.1:{self.port}"
        yield self.open("foobar?subscribe-user", cookies=john, origin=own)

    @inlineCallbacks
    def test_06_anonymous_visitors_share_no_user_and_no_session_channel(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in (*SUBSCRIBE_ALL.split("&"), *PUBLISH_ALL.split("&")):
            if not right.endswith("broadcast"):
                status, _ = yield self.refusal(f"/ws/foobar?{right}")
                self.assertIn(status, (401, 403))
        self.assertEqual((self.channels(), self.keys()), (set(), set()))

    @inlineCallbacks
    def test_07_two_redis_connections_per_process_however_many_websockets(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        yield gatherResults(
            [self.open(f"f{i}?subscribe-broadcast&publish-broadcast") for i in range(150)]
        )
        yield self.publish("hi", broadcast=True)
        self.assertEqual(self.redis.connections(), 2)
        self.assertEqual(len(self.channels()), 150)

    @inlineCallbacks
    def test_08_a_closed_websocket_leaves_no_object_and_no_subscription(self) -> Any:
        """A fiftieth of the 10,000 cycles that ``test_load`` makes."""
        yield self.serve()
        yield self.assert_cycles_leave_nothing(200)

    @inlineCallbacks
    def test_09_no_byte_follows_the_close_frame(self) -> Any:
        """Messages, a ping and a second close frame keep coming while it closes."""
        service = yield self.serve()
        handshake = handshake_bytes(Host=f"127.0.0.1:{self.port}")
        last_words = client_frame(9, b"ping") + client_frame(8, b"\x03\xe8")
        for sent in (client_frame(8, b"\x03\xe8") + last_words, client_frame(1, b"\xff")):
            wire = yield open_wire(self.port, handshake)
            published = []
            for i in range(20):
                published.append(self.broker.publish([b"broadcast:foobar"], b"x" * 1000, 0))
                if i == 10:
                    wire.transport.write(sent)
            rest = yield wire.ended
            yield gatherResults(published)
            while rest[0] != 0x88:
                self.assertEqual((rest[0], rest[1], len(rest) > 1004), (0x81, 126, True))
                rest = rest[1004:]
            self.assertEqual(len(rest), 2 + rest[1])
        self.assertEqual(len(service.factory.session_server.sessions), 0)

    @inlineCallbacks
    def test_10_after_redis_restarted_open_websockets_are_subscribed_again(self) -> Any:
        """``RecoveryTests`` checks that they get the messages persisted meanwhile."""
        client, redis = yield self.restart_redis()
        redis.command("PUBLISH", "broadcast:foobar", "live again")
        self.assertEqual((yield client.next()), "live again")

    @inlineCallbacks
    def test_11_a_slow_reader_is_bounded_isolated_and_dropped_with_1013(self) -> Any:
        """It reads on once it is dropped; otherwise it would be cut off before the close frame."""
        service = yield self.serve()
        slow = yield self.open("foobar?subscribe-broadcast")
        other = yield self.open("foobar?subscribe-broadcast")
        slow.transport.pauseProducing()
        published = 0
        while not any(
            each.transport.localCloseCode for each in service.factory.session_server.sessions
        ):
            self.assertLess(published, 24)
            yield self.publish("x" * 2**20, 0, broadcast=True)
            published += 1
            yield other.next()
        slow.transport.resumeProducing()
        self.assertEqual((yield slow.closed), 1013)
        self.assertLess(len(slow.received.pending), published)

    @inlineCallbacks
    def test_12_binary_stays_binary_and_an_empty_text_frame_kills_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        for payload, binary, expected in (
            (b"\xff\xfe", True, b"\xff\xfe"),
            (b"", False, ""),
            (b"", True, ""),
            (b"still here", False, "still here"),
        ):
            client.sendMessage(payload, isBinary=binary)
            self.assertEqual((yield client.next()), expected)


def broken_policy(request: Any, channels: Any) -> Any:
    return request.no_such_attribute


class RecoveryTests(ContractTestCase):
    """5. What upstream got wrong, item 10: what was persisted meanwhile is delivered"""

    @inlineCallbacks
    def test_10_what_was_persisted_while_redis_was_away_is_delivered(self) -> Any:
        client, redis = yield self.restart_redis(("SETEX", "broadcast:foobar", 60, "missed"))
        self.assertEqual((yield client.next()), "missed")
        redis.command("PUBLISH", "broadcast:foobar", "live again")
        self.assertEqual((yield client.next()), "live again")
