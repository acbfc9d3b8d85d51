"""The contract, section 7: server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from tests.support import TIMEOUT
from tests.support.django import cookies_of, log_in, set_up_django
from tests.support.events import Event, open_events
from tests.support.redis import RedisServer
from tests.support.servers import later
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.positions import read_position

set_up_django()

TARGET = "/ws/foobar?subscribe-broadcast"


class EventsTestCase(ContractTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        self.service = yield self.serve(**self.settings())

    def settings(self) -> dict[str, Any]:
        return {"WS4REDIS_HISTORY": {"foobar": (100, 600)}}

    @inlineCallbacks
    def listen(self, target: str = TARGET, **headers: Any) -> Any:
        """Fire with a stream that has sent its first event, ``open``."""
        source = yield open_events(self.port, target, **headers)
        self.addCleanup(source.transport.abortConnection)
        self.assertEqual(source.status, 200, source.head)
        first = yield source.next()
        self.assertEqual(first.type, "open")
        source.first = json.loads(first.data)
        return source

    def say(self, message: str | bytes) -> Any:
        return self.publish(message, broadcast=True)


class FormatTests(EventsTestCase):
    @inlineCallbacks
    def test_the_head_lets_no_proxy_hold_events_back(self) -> Any:
        source = yield self.listen()
        head = source.head.split("\r\n")
        for line in (
            "HTTP/1.1 200 OK", "Content-Type: text/event-stream", "X-Accel-Buffering: no",
            "Cache-Control: no-store, no-transform",
        ):  # fmt: skip
            self.assertIn(line, head)
        self.assertNotIn("content-encoding", source.head.lower())
        self.assertTrue(1000 <= source.retry <= 5000)

    @inlineCallbacks
    def test_the_position_is_sent_before_any_event(self) -> Any:
        yield self.say("before")
        source = yield self.listen()
        self.assertTrue(source.raw.partition(b"\n\n")[2].startswith(b"id: "))
        persisted, live = yield source.take(2)
        self.assertEqual((persisted.type, persisted.data), ("message", "before"))
        self.assertEqual(live.type, "live")
        self.assertEqual(source.first["recovered"], None)
        published = yield self.say("after")
        self.assertEqual((yield source.next()), Event("message", "after", published.position))

    @inlineCallbacks
    def test_the_id_of_a_message_is_the_last_line_of_its_event(self) -> Any:
        """Some clients take it at once, and would miss a message whose end they did not get."""
        source = yield self.listen()
        yield source.next()
        for payload, lines in ((b"a\nb", b"data: a\ndata: b\n"), (b"\xff", b"data: /w==\n")):
            seen = len(source.raw)
            position = (yield self.say(payload)).position
            yield source.next()
            self.assertTrue(source.raw[seen:].endswith(lines + f"id: {position}\n\n".encode()))

    @inlineCallbacks
    def test_no_payload_makes_a_field_and_all_bytes_survive(self) -> Any:
        """Fault 8."""
        source = yield self.listen()
        yield source.next()
        for text in ("a\nevent: gap\nid: x\n\n", " leading", "", "\0", "\u2028", ":", "data: x"):
            yield self.say(text)
            event = yield source.next()
            self.assertEqual((event.type, event.data), ("message", text))
        for payload in (b"a\revent: gap\rid: x\r\r", b"a\r\nb", b"\xff\0"):
            yield self.say(payload)
            event = yield source.next()
            self.assertEqual(event.type, "binary")
            self.assertEqual(base64.b64decode(event.data), payload)

    @inlineCallbacks
    def test_a_message_without_a_position_has_no_id_and_an_id_alone_follows(self) -> Any:
        source = yield self.listen()
        yield source.next()
        before = source.last_id
        self.redis.command("PUBLISH", "broadcast:foobar", "of an old publisher")
        event = yield source.next()
        self.assertEqual(event, Event("message", "of an old publisher", before))
        yield self.until(lambda: source.last_id != before)
        self.assertLess(read_position(before), read_position(source.last_id))

    @inlineCallbacks
    def until(self, condition: Any) -> Any:
        begun = reactor.seconds()
        while not condition():
            self.assertLess(reactor.seconds() - begun, TIMEOUT)
            yield later()


class ResumeTests(EventsTestCase):
    @inlineCallbacks
    def test_a_cut_after_any_event_loses_and_repeats_nothing(self) -> Any:
        source = yield self.listen()
        last_id = source.last_id
        yield source.leave()
        for number in range(20):
            yield self.say(f"{number}")
        heard: list[str] = []
        while len(heard) < 20:
            source = yield self.listen(Last_Event_ID=last_id)
            self.assertEqual(source.first, {"position": last_id, "recovered": True, "gap": []})
            event = yield source.next()
            heard.append(event.data)
            last_id = event.id
            yield source.leave()
        self.assertEqual(heard, [f"{number}" for number in range(20)])
        source = yield self.listen(Last_Event_ID=last_id)
        self.assertEqual((yield source.next()).type, "live")

    @inlineCallbacks
    def test_the_header_wins_then_the_polyfills_parameter_then_since(self) -> Any:
        """Fault 7."""
        positions = []
        for number in range(4):
            positions.append((yield self.say(f"{number}")).position)
        both = f"{TARGET}&since={positions[0]}&lastEventId={positions[1]}"
        source = yield self.listen(both, Last_Event_ID=positions[2])
        self.assertEqual((yield source.next()).data, "3")
        source = yield self.listen(both)
        self.assertEqual((yield source.next()).data, "2")
        source = yield self.listen(f"{TARGET}&since={positions[0]}")
        self.assertEqual((yield source.next()).data, "1")

    @inlineCallbacks
    def test_a_position_that_is_good_for_nothing_is_a_gap(self) -> Any:
        """Fault 3."""
        yield self.say("last")
        for since in ("x", "%00", "a" * 65, "1.1"):
            source = yield self.listen(f"{TARGET}&since={since}")
            self.assertEqual(source.first["gap"], ["broadcast"])
            gap, last, live = yield source.take(3)
            self.assertEqual([gap.type, last.data, live.type], ["gap", "last", "live"])


class HandshakeTests(EventsTestCase):
    def settings(self) -> dict[str, Any]:
        return {
            **super().settings(),
            "WS4REDIS_ALLOWED_ORIGINS": ["https://other.example"],
            "WS4REDIS_REQUIRE_ORIGIN": True,
        }

    @inlineCallbacks
    def status(self, target: str = TARGET, **headers: Any) -> Any:
        source = yield open_events(self.port, target, **headers)
        self.addCleanup(source.transport.abortConnection)
        return source.status, source.head

    @inlineCallbacks
    def test_the_page_of_the_same_origin_and_an_allowed_one_may_listen(self) -> Any:
        for headers, expected in (
            ({"Sec_Fetch_Site": "same-origin"}, 200),
            ({"Sec_Fetch_Site": "same-site"}, 403),
            ({"Sec_Fetch_Site": "cross-site"}, 403),
            ({}, 403),
            ({"Origin": "https://other.example", "Sec_Fetch_Site": "cross-site"}, 200),
            ({"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}, 403),
        ):
            status, head = yield self.status(**headers)
            self.assertEqual(status, expected, headers)
            foreign = "Origin" in headers and expected == 200
            self.assertEqual("Access-Control-Allow-Credentials: true" in head, foreign)

    @inlineCallbacks
    def test_the_rest_of_the_table(self) -> Any:
        own = {"Sec_Fetch_Site": "same-origin"}
        for target, headers, expected in (
            ("/other/foobar", own, 404),
            ("/ws/foobar?publish-user", own, 401),
            ("/ws/foobar?publish-broadcast", own, 403),
            ("/ws/foobar?subscribe-brodcast", own, 400),
            ("/ws/a:b?subscribe-user", own, 401),
            (TARGET, {**own, "Host": "evil.example"}, 400),
            (TARGET, {**own, "method": "POST"}, 405),
        ):
            status, _ = yield self.status(target, **headers)
            self.assertEqual(status, expected, (target, headers))

    @inlineCallbacks
    def test_who_may_publish_is_told_that_events_go_one_way(self) -> Any:
        """Rights come first, so that a page may ask here why its websocket was refused."""
        cookies = cookies_of((yield log_in("john")))
        cookie = "; ".join(f"{name}={value}" for name, value in cookies.items())
        status, _ = yield self.status(
            "/ws/foobar?publish-user", Sec_Fetch_Site="same-origin", Cookie=cookie
        )
        self.assertEqual(status, 400)

    @inlineCallbacks
    def test_a_page_of_an_allowed_origin_may_read_why_it_was_refused_and_no_other(self) -> Any:
        for origin, target, expected in (
            ("https://other.example", "/ws/foobar?subscribe-user", 401),
            ("https://other.example", "/ws/foobar?publish-broadcast", 403),
            ("https://evil.example", "/ws/foobar?subscribe-user", 403),
        ):
            status, head = yield self.status(target, Origin=origin)
            self.assertEqual(status, expected)
            shared = f"Access-Control-Allow-Origin: {origin}" in head
            self.assertEqual(shared, "other" in origin)

    @inlineCallbacks
    def ended(self, origin: str | None = None) -> Any:
        """Fire with the head of a stream that ends and says when to try again."""
        own = {"Sec_Fetch_Site": "same-origin"}
        foreign = {"Origin": origin, "Sec_Fetch_Site": "cross-site"}
        source = yield open_events(self.port, TARGET, **(own if origin is None else foreign))
        yield source.closed
        self.assertEqual(source.status, 200)
        self.assertTrue(1000 <= source.retry <= 5000)
        self.assertNotIn(b"data:", source.raw)
        self.assertIn("Content-Type: text/event-stream", source.head)
        return source.head

    @inlineCallbacks
    def test_where_a_websocket_gets_a_503_a_stream_ends_and_is_tried_again(self) -> Any:
        """Fault 9."""
        self.service.factory.session_server._draining = True
        yield self.ended()

    @inlineCallbacks
    def test_so_it_is_while_redis_is_away(self) -> Any:
        self.redis.stop()
        yield self.broker.fence().addErrback(lambda _: None)
        self.assertFalse(self.broker.available)
        yield self.ended()

    @inlineCallbacks
    def test_a_page_of_an_allowed_origin_may_read_it_and_no_other(self) -> Any:
        """A browser would not try again otherwise."""
        self.service.factory.session_server._draining = True
        head = yield self.ended("https://other.example")
        self.assertIn("Access-Control-Allow-Origin: https://other.example", head)
        self.assertIn("Access-Control-Allow-Credentials: true", head)
        self.assertNotIn("Access-Control", (yield self.ended("https://evil.example")))
        self.assertNotIn("Access-Control", (yield self.ended()))
