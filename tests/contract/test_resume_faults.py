"""Faults that other servers had with positions and histories, by their numbers."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from tests.support.events import open_events
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.positions import History, Kept, read_position
from ws4redis_tx.service import ServerConfig
from ws4redis_tx.testing import connect, make_memory_factory
from ws4redis_tx.testing.events import listen
from ws4redis_tx.testing.wire import SUBPROTOCOL, Frame, read_frame

set_up_django()

F = b"broadcast:foobar"
FLAGS = "subscribe-broadcast&subscribe-user&subscribe-group"
AUDIENCES: list[dict[str, Any]] = [
    {"broadcast": True}, {"users": ["john"]}, {"groups": ["chatters"]},
]  # fmt: skip


class QuietTests(SynchronousTestCase):
    def test_positions_move_on_in_silence_and_the_first_one_stays_good(self) -> None:
        """Fault 1."""
        url = "://localhost/ws/news?subscribe-broadcast"
        for begin in (
            lambda factory: connect(factory, f"ws{url}", since=""),
            lambda factory: listen(factory, f"http{url}&since="),
        ):
            clock = Clock()
            config = ServerConfig(history=(("news", 100, 3600),))
            factory = make_memory_factory(config, clock=clock)
            client: Any = begin(factory)
            first = client.position
            self.assertTrue(first)
            resumed = client.reconnect()
            for _ in range(600):
                clock.advance(1)
            self.assertTrue(resumed.open)
            quiet = resumed.position
            self.assertTrue(quiet)
            resumed.lose_connection()
            kept = History(100, 3600)
            factory.broker.publish([b"broadcast:news"], b"at last", 60, history=kept)
            self.assertEqual(resumed.reconnect().messages, ["at last"])
            late = connect(factory, f"ws{url}", since=first)
            self.assertEqual((late.messages, late.recovered), (["at last"], True))


class FaultTestCase(ContractTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        yield self.serve_history(100)

    @inlineCallbacks
    def serve_history(self, size: int) -> Any:
        yield self.serve(WS4REDIS_HISTORY={"foobar": (size, 600)}, WS4REDIS_ALLOWED_ORIGINS="*")

    @inlineCallbacks
    def resume(self, since: str = "", flags: str = "subscribe-broadcast", **more: Any) -> Any:
        """Fire with a client and its first frame."""
        client = yield self.open(f"foobar?{flags}&since={since}", protocols=[SUBPROTOCOL], **more)
        return client, (yield self.next(client))

    @inlineCallbacks
    def next(self, client: Any) -> Any:
        frame = yield client.next()
        return read_frame(frame.encode() if isinstance(frame, str) else frame)

    @inlineCallbacks
    def messages(self, client: Any, count: int) -> Any:
        """Fire with the next frames that are messages."""
        found: list[Frame] = []
        while len(found) < count:
            frame = yield self.next(client)
            if frame.message is not None:
                found.append(frame)
        return found

    @inlineCallbacks
    def what_was_missed(self, since: str) -> Any:
        """Fire with the messages, or with the word ``gap``."""
        client, first = yield self.resume(since)
        assert first.status is not None
        if first.status["gap"]:
            self.assertIs(first.status["recovered"], False)
            return "gap"
        frame: Frame | None = None
        end = yield self.say("end")
        found: list[bytes | None] = []
        while frame is None or frame.position != end.position:
            (frame,) = yield self.messages(client, 1)
            found.append(frame.message)
        return found[:-1]

    def say(self, message: str) -> Any:
        return self.publish(message, broadcast=True)

    def leave(self, client: Any) -> Any:
        client.sendClose()
        return client.closed


class CutTests(FaultTestCase):
    @inlineCallbacks
    def missed_by_john(self) -> Any:
        """Fire with a position, and with a hundred messages that were published after it."""
        self.john = yield self.log_in("john")
        client, first = yield self.resume(flags=FLAGS, cookies=self.john)
        yield self.leave(client)
        for number in range(100):
            yield self.publish(f"{number}", **AUDIENCES[number % 3])
        return first.position, [b"%d" % number for number in range(100)]

    @inlineCallbacks
    def test_websockets_that_are_cut_after_each_frame_of_a_replay(self) -> Any:
        """Fault 2."""
        position, expected = yield self.missed_by_john()
        heard: list[bytes | None] = []
        while len(heard) < len(expected):
            client, first = yield self.resume(position, FLAGS, cookies=self.john)
            told = {"position": position, "recovered": True, "gap": []}
            self.assertEqual(first.status, told)
            frame = yield self.next(client)
            heard.append(frame.message)
            position = frame.position
            client.transport.abortConnection()
            yield client.closed
        self.assertEqual(heard, expected)

    @inlineCallbacks
    def test_event_streams_that_are_cut_after_each_event_of_a_replay(self) -> Any:
        """Fault 2."""
        position, expected = yield self.missed_by_john()
        cookie = "; ".join(f"{name}={value}" for name, value in self.john.items())
        heard: list[bytes] = []
        while len(heard) < len(expected):
            source = yield open_events(
                self.port, f"/ws/foobar?{FLAGS}", Last_Event_ID=position, Cookie=cookie
            )
            first = yield source.next()
            self.assertEqual((first.type, first.id), ("open", position))
            event = yield source.next()
            self.assertEqual(event.type, "message")
            heard.append(event.data.encode())
            position = event.id
            source.transport.abortConnection()
            yield source.closed
        self.assertEqual(heard, expected)


class PlainPublishTests(FaultTestCase):
    @inlineCallbacks
    def test_among_messages_with_a_history_they_come_once_and_close_nobody(self) -> Any:
        """Fault 4."""
        classic = yield self.open("foobar?subscribe-broadcast")
        resuming, _ = yield self.resume()
        source = yield open_events(self.port, "/ws/foobar?subscribe-broadcast&since=")
        self.assertEqual((yield source.next()).type, "open")
        expected = []
        for number in range(50):
            published = yield self.say(f"kept {number}")
            self.redis.command("PUBLISH", F, f"plain {number}")
            expected += [f"kept {number}", f"plain {number}"]
        self.assertEqual((yield classic.take(100)), expected)
        frames = yield self.messages(resuming, 100)
        self.assertEqual([each.message.decode() for each in frames], expected)
        events = []
        while len(events) < 100:
            event = yield source.next()
            if event.type == "message":
                events.append(event.data)
        self.assertEqual(events, expected)
        # A mark follows within a second: a position after all of them.
        mark = yield self.next(resuming)
        self.assertIsNone(mark.message)
        self.assertGreater(read_position(mark.position), read_position(published.position))
        while read_position(source.last_id) <= read_position(published.position):
            yield self.broker.fence()
        yield self.leave(resuming)
        source.transport.abortConnection()
        yield source.closed
        for number, position in enumerate((mark.position, source.last_id, published.position)):
            missed = yield self.what_was_missed(position)
            self.assertEqual(missed, [b"end"] * number)
        yield self.say("last")
        self.assertEqual((yield classic.take(4)), ["end", "end", "end", "last"])


class SizeTests(FaultTestCase):
    @inlineCallbacks
    def publish_kept(self, size: int, *messages: str) -> Any:
        """Publish as a process does that was configured with this size."""
        for message in messages:
            published = yield self.broker.commands.publish(
                [F], message.encode(), 60, Kept(History(size, 600))
            )
        return published.position

    @inlineCallbacks
    def test_the_next_publish_trims_to_a_lower_size(self) -> Any:
        """Fault 5."""
        positions = []
        for number in range(100):
            positions.append((yield self.publish_kept(100, f"{number}")))
        self.assertEqual(self.redis.command("LLEN", b"stream:" + F), 100)
        yield self.serve_history(10)
        # Nobody is served more than the server's size.
        self.assertEqual((yield self.what_was_missed(positions[49])), "gap")
        yield self.publish_kept(10, "lower")
        self.assertEqual(self.redis.command("LLEN", b"stream:" + F), 11)
        self.assertEqual((yield self.what_was_missed(positions[49])), "gap")
        self.assertEqual(
            (yield self.what_was_missed(positions[90])),
            [*[b"%d" % number for number in range(91, 100)], b"lower"],
        )

    @inlineCallbacks
    def test_publishers_with_different_sizes(self) -> Any:
        """Fault 5."""
        positions = []
        for number in range(60):
            size = 10 if number % 20 == 19 else 100
            positions.append((yield self.publish_kept(size, f"{number}")))
        # The last one kept ten and the one before them.
        self.assertEqual(self.redis.command("LLEN", b"stream:" + F), 11)
        self.assertEqual((yield self.what_was_missed(positions[48])), "gap")
        expected = [b"%d" % number for number in range(50, 60)]
        self.assertEqual((yield self.what_was_missed(positions[49])), expected)
        for number in range(60, 75):
            yield self.publish_kept(100, f"{number}")
        expected = [b"%d" % number for number in range(50, 60)]
        expected += [b"end", *[b"%d" % number for number in range(60, 75)]]
        self.assertEqual((yield self.what_was_missed(positions[49])), expected)
        self.assertEqual((yield self.what_was_missed(positions[48])), "gap")


class GenerationTests(FaultTestCase):
    @inlineCallbacks
    def test_another_generation_is_never_taken_for_the_old_one(self) -> Any:
        """Fault 6."""
        for number in range(5):
            last = yield self.say(f"old {number}")
        yield self.broker.commands.forget([F])
        for number in range(5):
            yield self.say(f"new {number}")
        self.assertEqual((yield self.what_was_missed(last.position)), "gap")

    @inlineCallbacks
    def test_nor_where_the_position_of_the_channel_was_evicted(self) -> Any:
        """Fault 6."""
        for evicted in ((b"pos:" + F,), (b"pos:" + F, b"stream:" + F)):
            for number in range(5):
                last = yield self.say(f"old {number}")
            self.redis.command("DEL", *evicted)
            for number in range(5):
                yield self.say(f"new {number}")
            self.assertEqual((yield self.what_was_missed(last.position)), "gap")
