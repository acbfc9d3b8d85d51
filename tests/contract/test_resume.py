"""The contract, section 6: positions, history, and resume on the classic websocket."""

from __future__ import annotations

import json
import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater

from tests.support.django import in_thread, set_up_django
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.positions import Position, read_position

set_up_django()

from django.core.signals import request_finished, request_started
from django.template import engines

from ws4redis_tx.publisher import RedisPublisher

HISTORY = {"foobar": (100, 600)}
SUBPROTOCOL = "ws4redis.resume"


class Frame:
    """A frame of the subprotocol, taken apart."""

    def __init__(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        head, line_feed, payload = data.partition(b"\n")
        self.status: dict[str, Any] = {}
        self.payload: bytes | None = None
        if head.startswith(b"{"):
            self.status = json.loads(data)
            self.position = self.status["position"]
            return
        self.position, comma, flag = head.decode().partition(",")
        self.replayed = bool(comma)
        assert flag in ("", "r"), flag
        if line_feed:
            self.payload = payload


class ResumeTestCase(ContractTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        yield self.serve(WS4REDIS_HISTORY=HISTORY, WS4REDIS_ALLOWED_ORIGINS="*")

    def resume(self, since: str | None = "", flags: str = "subscribe-broadcast") -> Any:
        since = "" if since is None else f"&since={since}"
        return self.open(f"foobar?{flags}{since}", protocols=[SUBPROTOCOL])

    @inlineCallbacks
    def hear(self, client: Any, count: int) -> Any:
        """Fire with the next frames that are messages."""
        frames: list[Frame] = []
        while len(frames) < count:
            frame = Frame((yield client.next()))
            self.assertEqual(frame.status, {})
            if frame.payload is not None:
                frames.append(frame)
        return frames

    def leave(self, client: Any) -> Any:
        client.sendClose()
        return client.closed

    def say(self, message: str) -> Any:
        return self.publish(message, broadcast=True)

    def payloads(self, frames: list[Frame]) -> list[bytes | None]:
        return [frame.payload for frame in frames]


class FirstFrameTests(ResumeTestCase):
    @inlineCallbacks
    def test_the_subprotocol_is_selected_wherever_it_stands(self) -> Any:
        client = yield self.open(
            "foobar?subscribe-broadcast&since=", protocols=["token", SUBPROTOCOL]
        )
        self.assertEqual(client.selected_protocol, SUBPROTOCOL)
        client = yield self.open("foobar?subscribe-broadcast&since=", protocols=["token"])
        self.assertEqual(client.selected_protocol, "token")

    @inlineCallbacks
    def test_from_now_comes_the_persisted_message_marked_as_such(self) -> Any:
        yield self.say("before")
        client = yield self.resume()
        first = Frame((yield client.next()))
        self.assertEqual(first.status, {"position": first.position, "recovered": None, "gap": []})
        (persisted,) = yield self.hear(client, 1)
        self.assertEqual((persisted.payload, persisted.replayed), (b"before", True))
        published = yield self.say("after")
        (live,) = yield self.hear(client, 1)
        self.assertEqual((live.payload, live.replayed), (b"after", False))
        self.assertEqual(live.position, published.position)
        self.assertTrue(
            read_position(first.position)
            < read_position(persisted.position)
            < read_position(live.position)
        )

    @inlineCallbacks
    def test_without_the_subprotocol_nothing_changes(self) -> Any:
        yield self.say("before")
        client = yield self.open("foobar?subscribe-broadcast&since=x", protocols=["other"])
        self.assertEqual((yield client.next()), "before")
        yield self.say("after")
        self.assertEqual((yield client.next()), "after")

    @inlineCallbacks
    def test_binary_stays_binary_and_text_stays_text(self) -> Any:
        client = yield self.resume()
        yield client.next()
        for message, kind in ((b"\xff\0", bytes), (b"a\nb", str), (b"", str), (b"\0", str)):
            yield self.publish(message, broadcast=True)
            frame = yield client.next()
            self.assertIsInstance(frame, kind)
            self.assertEqual(Frame(frame).payload, message)


class PageTests(ResumeTestCase):
    @inlineCallbacks
    def test_what_comes_between_a_view_s_query_and_the_page_s_connect_arrives_once(self) -> Any:
        template = engines["django"].from_string("{% load ws4redis %}{% ws4redis_position %}")

        def view() -> str:
            request_started.send(sender=None)
            try:  # the query comes here; another process publishes behind it
                RedisPublisher(facility="foobar", broadcast=True).publish_message("between")
                return str(template.render({}))
            finally:
                request_finished.send(sender=None)

        yield self.say("before")
        position = yield in_thread(view)
        client = yield self.resume(position)
        first = Frame((yield client.next()))
        self.assertEqual((first.status["recovered"], first.status["gap"]), (True, []))
        yield self.say("after")
        heard = yield self.hear(client, 2)
        self.assertEqual(self.payloads(heard), [b"between", b"after"])


class ResumeTests(ResumeTestCase):
    @inlineCallbacks
    def test_everything_that_was_missed_comes_once_in_order_and_then_live(self) -> Any:
        client = yield self.resume()
        position = Frame((yield client.next())).position
        yield self.leave(client)
        for number in range(10):
            yield self.say(f"missed {number}")
        client = yield self.resume(position)
        first = Frame((yield client.next()))
        self.assertEqual(first.status, {"position": position, "recovered": True, "gap": []})
        missed = yield self.hear(client, 10)
        self.assertEqual(self.payloads(missed), [b"missed %d" % number for number in range(10)])
        self.assertTrue(all(frame.replayed for frame in missed))
        yield self.say("live")
        (live,) = yield self.hear(client, 1)
        self.assertEqual((live.payload, live.replayed), (b"live", False))

    @inlineCallbacks
    def test_a_client_that_had_heard_nothing_resumes_all_the_same(self) -> Any:
        """Fault 1."""
        client = yield self.resume()
        position = Frame((yield client.next())).position
        yield self.leave(client)
        yield self.say("missed")
        client = yield self.resume(position)
        self.assertIs(Frame((yield client.next())).status["recovered"], True)
        (frame,) = yield self.hear(client, 1)
        self.assertEqual(frame.payload, b"missed")

    @inlineCallbacks
    def test_a_cut_after_any_frame_of_a_replay_loses_and_repeats_nothing(self) -> Any:
        """Fault 2."""
        john = yield self.log_in("john")
        flags = "subscribe-broadcast&subscribe-user&subscribe-group"
        audiences: list[dict[str, Any]] = [
            {"broadcast": True}, {"users": ["john"]}, {"groups": ["chatters"]},
        ]  # fmt: skip

        def resume(since: str) -> Any:
            return self.open(f"foobar?{flags}&since={since}", protocols=[SUBPROTOCOL], cookies=john)

        client = yield resume("")
        position = Frame((yield client.next())).position
        yield self.leave(client)
        expected = []
        for number in range(30):
            yield self.publish(f"{number}", **audiences[number % 3])
            expected.append(b"%d" % number)
        heard: list[bytes | None] = []
        while len(heard) < len(expected):
            client = yield resume(position)
            first = Frame((yield client.next()))
            self.assertEqual(first.status, {"position": position, "recovered": True, "gap": []})
            frame = Frame((yield client.next()))
            heard.append(frame.payload)
            position = frame.position
            yield self.leave(client)
        self.assertEqual(heard, expected)

    @inlineCallbacks
    def test_a_position_that_is_good_for_nothing_is_a_gap(self) -> Any:
        """Fault 3."""
        yield self.say("persisted")
        good = read_position((yield self.say("last")).position)
        tomorrow = Position(int((time.time() + 86400) * 1e6), good.mark)
        foreign = good._replace(mark=good.mark ^ 1)
        for since in ("x", "%00", "a" * 65, str(tomorrow), str(foreign), "1.1"):
            client = yield self.resume(since)
            first = Frame((yield client.next()))
            self.assertIs(first.status["recovered"], False)
            self.assertEqual(first.status["gap"], ["broadcast"])
            (frame,) = yield self.hear(client, 1)
            self.assertEqual((frame.payload, frame.replayed), (b"last", True))
            self.assertLess(read_position(first.position), read_position(frame.position))
            yield self.leave(client)

    @inlineCallbacks
    def test_more_than_the_history_holds_is_a_gap(self) -> Any:
        client = yield self.resume()
        position = Frame((yield client.next())).position
        yield self.leave(client)
        for number in range(101):
            yield self.say(f"{number}")
        client = yield self.resume(position)
        self.assertEqual(Frame((yield client.next())).status["gap"], [])
        yield self.leave(client)
        yield self.say("one too many")
        client = yield self.resume(position)
        self.assertEqual(Frame((yield client.next())).status["gap"], ["broadcast"])
        (frame,) = yield self.hear(client, 1)
        self.assertEqual(frame.payload, b"one too many")

    @inlineCallbacks
    def test_a_forgotten_generation_is_never_taken_for_the_next(self) -> Any:
        """Fault 6."""
        client = yield self.resume()
        position = Frame((yield client.next())).position
        yield self.leave(client)
        for number in range(5):
            yield self.say(f"old {number}")
        yield self.broker.commands.forget([b"broadcast:foobar"])
        for number in range(5):
            yield self.say(f"new {number}")
        client = yield self.resume(position)
        self.assertEqual(Frame((yield client.next())).status["gap"], ["broadcast"])
        self.redis.command("DEL", "pos:broadcast:foobar", "stream:broadcast:foobar")
        yield self.say("another")
        client = yield self.resume(position)
        self.assertEqual(Frame((yield client.next())).status["gap"], ["broadcast"])

    @inlineCallbacks
    def test_a_message_of_an_old_publisher_is_told_as_a_gap_where_it_is_known(self) -> Any:
        client = yield self.resume()
        position = Frame((yield client.next())).position
        yield self.leave(client)
        yield self.say("new")
        self.redis.command("SETEX", "broadcast:foobar", 3600, "old")
        self.redis.command("PUBLISH", "broadcast:foobar", "old")
        client = yield self.resume(position)
        first = Frame((yield client.next()))
        self.assertEqual(first.status["gap"], ["broadcast"])
        (frame,) = yield self.hear(client, 1)
        self.assertEqual(frame.payload, b"old")


class LiveTests(ResumeTestCase):
    @inlineCallbacks
    def test_a_message_without_a_marker_carries_an_earlier_position_and_a_mark_follows(self) -> Any:
        client = yield self.resume()
        first = Frame((yield client.next()))
        self.redis.command("PUBLISH", "broadcast:foobar", "of an old publisher")
        frame = Frame((yield client.next()))
        self.assertEqual(frame.payload, b"of an old publisher")
        self.assertTrue(read_position(frame.position) >= read_position(first.position))
        begun = reactor.seconds()
        mark = Frame((yield client.next()))
        self.assertIsNone(mark.payload)
        self.assertLess(read_position(frame.position), read_position(mark.position))
        self.assertLess(reactor.seconds() - begun, 5)

    @inlineCallbacks
    def test_a_client_whose_own_message_is_left_out_gets_its_position(self) -> Any:
        self.override(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        client = yield self.resume(flags="subscribe-broadcast&publish-broadcast")
        first = Frame((yield client.next()))
        other = yield self.resume()
        yield other.next()
        client.sendMessage(b"mine")
        (heard,) = yield self.hear(other, 1)
        mark = Frame((yield client.next()))
        self.assertIsNone(mark.payload)
        self.assertEqual(mark.position, heard.position)
        self.assertLess(read_position(first.position), read_position(mark.position))

    @inlineCallbacks
    def test_an_outage_of_redis_connection_is_healed(self) -> Any:
        client = yield self.resume()
        yield client.next()
        yield self.say("before")
        yield self.hear(client, 1)
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        for number in range(5):
            yield self.say(f"{number}")
        frames = yield self.hear(client, 5)
        self.assertEqual(self.payloads(frames), [b"%d" % number for number in range(5)])
        yield self.say("after")
        (frame,) = yield self.hear(client, 1)
        self.assertEqual(frame.payload, b"after")
        yield deferLater(reactor, 0)
