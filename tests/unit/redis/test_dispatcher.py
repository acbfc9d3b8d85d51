"""The pub/sub connection and what is heard over it: fences, backpressure, what was read from keys.

The reactor is in memory, and Redis is the test.
"""

from __future__ import annotations

from itertools import count
from typing import Any

import hiredis
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis import scripts
from ws4redis_tx.redis.dispatcher import Dispatcher
from ws4redis_tx.redis.pubsub import PROBE_INTERVAL, SILENCE, PubSub
from ws4redis_tx.redis.wire.protocol import LOST

ADDRESS = RedisAddress(path="/redis.sock")
PONG = b"*2\r\n$4\r\npong\r\n$0\r\n\r\n"


def message(channel: bytes, payload: bytes) -> bytes:
    return b"*3\r\n$7\r\nmessage\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (
        len(channel), channel, len(payload), payload,
    )  # fmt: skip


class Commands:
    """The other connection: always there, with the persisted messages and their stamps."""

    connected = True
    scripts_permitted = True

    def __init__(self) -> None:
        self.persisted: list[tuple[bytes, bytes, int | None]] = []
        self.portions: list[int] = []

    def when_connected(self) -> Deferred[None]:
        return succeed(None)

    def execute(self, *command: Any, fits: Any) -> Deferred[Any]:
        assert command[1] == scripts.FIND
        found: list[int | bytes] = [b"1000", b""]
        for channel in command[3::2]:
            size, stamp = -1, b""
            for name, payload, moment in self.persisted:
                if name == channel:
                    size, stamp = len(payload), b"" if moment is None else b"%d" % moment
            found += (size, stamp)
        return succeed(found)

    def read(self, *command: Any, count: int) -> Deferred[Any]:
        assert command[1] == scripts.READ
        self.portions.append(count)
        messages = {channel: payload for channel, payload, _ in self.persisted}
        return succeed([messages[channel] for channel in command[3 : 3 + 2 * count : 2]])

    def probe(self, channel: bytes) -> Deferred[int]:
        return Deferred()


class Listener:
    """Takes ``seconds`` of the clock for each message."""

    def __init__(self, reactor: MemoryReactorClock, seconds: float = 0.0) -> None:
        self.heard: list[bytes] = []
        self._reactor = reactor
        self._seconds = seconds

    def deliver(self, publication: Publication) -> None:
        self.heard.append(publication.payload)
        self._reactor.rightNow += self._seconds


class WireTestCase(SynchronousTestCase):
    """``connect`` makes the connection that was asked for; Redis confirms subscriptions."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def connect(self) -> None:
        _, factory, *_ = self.reactor.unixClients.pop()
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def reconnect(self) -> None:
        """Lose the connection, and make it anew."""
        self.lose()
        self.reactor.advance(1)
        self.connect()
        while self.confirm():
            pass

    def commands(self) -> list[list[bytes]]:
        """What was written since the last time."""
        reader = hiredis.Reader()
        reader.feed(self.transport.value())
        self.transport.clear()
        return list(iter(reader.gets, False))

    def confirm(self) -> list[bytes]:
        """Answer all that was asked; return the names of the commands."""
        asked = self.commands()
        for name, *arguments in asked:
            if name == b"PING":
                self.protocol.dataReceived(PONG)
            else:
                (channel,) = arguments
                self.protocol.dataReceived(
                    b"*3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:1\r\n"
                    % (len(name), name.lower(), len(channel), channel)
                )
        return [name for name, *_ in asked]


class PubSubTests(WireTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.told: list[Any] = []
        self.recovered: Deferred[None] = Deferred()
        self.pubsub = PubSub(
            ADDRESS,
            self.reactor,
            on_messages=self.told.append,
            recover=lambda: self.recovered,
            on_lost=lambda: self.told.append("lost"),
            on_up=lambda: self.told.append("up"),
            on_down=lambda problem: None,
        )
        self.pubsub.start()
        self.addCleanup(self.pubsub.stop)
        self.connect()

    def come_up(self) -> None:
        self.recovered.callback(None)
        self.reactor.advance(0)

    def test_it_is_up_when_it_has_recovered_and_subscribes_before(self) -> None:
        subscribed = self.pubsub.subscribe(b"a")
        pinged = self.pubsub.ping()
        self.assertFalse(self.pubsub.up)
        self.failureResultOf(self.pubsub.fence(), BrokerUnavailable)
        self.assertEqual(self.confirm(), [b"SUBSCRIBE", b"PING"])
        self.successResultOf(subscribed)
        self.successResultOf(pinged)
        self.come_up()
        self.assertTrue(self.pubsub.up)
        self.assertEqual(self.told, ["up"])

    def test_one_ping_serves_all_who_asked_before_it_was_sent(self) -> None:
        self.come_up()
        first, *others = (self.pubsub.fence() for _ in range(3))
        self.assertEqual(self.commands(), [[b"PING"]])
        self.protocol.dataReceived(PONG)
        self.successResultOf(first)
        for each in others:
            self.assertNoResult(each)
        self.assertEqual(self.commands(), [[b"PING"]])
        self.protocol.dataReceived(PONG)
        for each in others:
            self.successResultOf(each)

    def test_a_fence_stands_behind_the_messages_that_came_before_its_pong(self) -> None:
        self.come_up()
        self.told.clear()
        self.pubsub.fence().addCallback(lambda _: self.told.append("fence"))
        self.protocol.dataReceived(message(b"a", b"1") + PONG + message(b"a", b"2"))
        self.assertEqual(self.told, [[(b"a", b"1")], "fence", [(b"a", b"2")]])

    def test_when_the_connection_is_lost_fences_fail_and_the_next_one_is_another(self) -> None:
        self.come_up()
        fences = [self.pubsub.fence() for _ in range(2)]
        generation = self.pubsub.generation
        self.lose()
        for fence in fences:
            self.failureResultOf(fence, BrokerUnavailable)
        self.failureResultOf(self.pubsub.subscribe(b"a"), LOST)
        self.failureResultOf(self.pubsub.ping(), LOST)
        self.pubsub.unsubscribe(b"a")
        self.assertEqual((self.told, self.pubsub.fileno()), (["up", "lost"], None))
        self.recovered = Deferred()
        self.reactor.advance(1)
        self.connect()
        self.come_up()
        self.assertNotEqual(self.pubsub.generation, generation)
        self.assertEqual(self.told, ["up", "lost", "up"])

    def test_a_fence_that_was_cancelled_costs_the_others_nothing(self) -> None:
        self.come_up()
        cancelled, other = self.pubsub.fence(), self.pubsub.fence()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.confirm()
        self.confirm()
        self.successResultOf(other)

    def test_a_recovery_waits_for_a_connection_that_is_slow_and_not_for_one_that_is_silent(
        self,
    ) -> None:
        waiting = self.pubsub.unless_silent(self.pubsub.ping())
        for _ in range(20):
            self.protocol.dataReceived(message(b"a", b"x"))
            self.reactor.advance(SILENCE)
        self.assertNoResult(waiting)
        self.pubsub.pause()
        self.reactor.pump([SILENCE] * 3)
        self.assertNoResult(waiting)
        self.pubsub.resume()
        self.reactor.pump([SILENCE] * 2)
        self.failureResultOf(waiting, CancelledError)
        answered = self.pubsub.unless_silent(succeed(None))
        self.successResultOf(answered)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_after_a_stop_nothing_is_up_and_no_timer_is_left(self) -> None:
        self.come_up()
        fence = self.pubsub.fence()
        stopped = self.pubsub.stop()
        self.assertFalse(self.pubsub.up)
        too_late = self.pubsub.fence()
        self.lose()
        for each in (fence, too_late):
            self.failureResultOf(each, BrokerUnavailable)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class DispatcherTests(WireTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.redis = Commands()
        commands: Any = self.redis
        self.dispatcher = Dispatcher(
            ADDRESS,
            "",
            self.reactor,
            commands,
            on_up=lambda: None,
            on_down=lambda problem: None,
        )
        self.dispatcher.start()
        self.addCleanup(self.dispatcher.stop)
        self.come_up()

    def come_up(self) -> None:
        self.connect()
        while self.confirm():
            pass
        self.reactor.advance(0)
        self.assertTrue(self.dispatcher.up)

    def outage(self) -> None:
        self.lose()
        self.reactor.advance(1)
        self.come_up()

    def listen(self, *channels: bytes, seconds: float = 0.0) -> Listener:
        listener = Listener(self.reactor, seconds)
        for channel in channels:
            self.dispatcher.listen(channel, listener)
        self.confirm()
        return listener

    def test_nobody_begins_to_listen_while_there_is_no_connection(self) -> None:
        self.lose()
        failed = self.dispatcher.listen(b"a", Listener(self.reactor))
        self.failureResultOf(failed, BrokerUnavailable)
        self.assertEqual(list(self.dispatcher.hub.channels), [])

    def test_a_subscription_that_redis_refuses_is_told_with_its_words(self) -> None:
        stands = self.dispatcher.listen(b"a", Listener(self.reactor))
        self.commands()
        self.protocol.dataReceived(b"-NOPERM no such luck\r\n")
        self.assertIn("no such luck", str(self.failureResultOf(stands, BrokerUnavailable).value))

    def test_a_fence_stands_when_the_fan_out_of_what_came_before_is_done(self) -> None:
        listeners = [self.listen(b"a", seconds=0.001) for _ in range(200)]
        self.protocol.dataReceived(message(b"a", b"1") * 2)
        handed_over: list[int] = []
        fence = self.dispatcher.fence()
        fence.addCallback(lambda _: handed_over.extend(len(each.heard) for each in listeners))
        self.confirm()
        self.assertEqual(handed_over, [])
        while self.reactor.getDelayedCalls()[0].getTime() <= self.reactor.seconds():
            self.reactor.advance(0)
        self.assertEqual(handed_over, [2] * 200)

    def test_while_too_much_waits_for_its_fan_out_nothing_more_is_read(self) -> None:
        listeners = [self.listen(b"a", seconds=0.001) for _ in range(200)]
        for _ in range(40):
            self.protocol.dataReceived(message(b"a", b"x" * 2**16))
        self.assertEqual(self.transport.producerState, "paused")
        self.assertLess(len(listeners[-1].heard), 40)
        while self.transport.producerState == "paused":
            self.reactor.advance(0)
        while len(listeners[-1].heard) < 40:
            self.reactor.advance(0)
        self.assertEqual({len(each.heard) for each in listeners}, {40})

    def test_a_fan_out_that_outlives_its_connection_does_not_resume_the_next_one(self) -> None:
        turns: list[Any] = []
        self.dispatcher._fanout._later = turns.append
        for _ in range(200):
            self.listen(b"a", seconds=0.001)
        for _ in range(40):
            self.protocol.dataReceived(message(b"a", b"x" * 2**16))
        self.lose()
        commands: Deferred[None] = Deferred()
        self.redis.when_connected = lambda: commands  # type: ignore[method-assign]
        self.reactor.advance(1)
        self.connect()
        self.confirm()
        self.assertEqual(self.transport.producerState, "paused")  # until the commands are there
        while turns:
            turns.pop()()
        self.assertEqual(self.transport.producerState, "paused")
        commands.callback(None)
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_message_that_was_read_counts_as_heard_when_a_fence_stands(self) -> None:
        listener = self.listen(b"a")
        self.redis.persisted = [(b"a", b"read", 1)]
        self.dispatcher.read(b"a", b"read")
        self.outage()
        self.assertEqual(listener.heard, [b"read"])
        self.redis.persisted = [(b"a", b"read too", 2)]
        self.dispatcher.read(b"a", b"read too")
        fence = self.dispatcher.fence()
        self.confirm()
        self.successResultOf(fence)
        self.outage()
        self.assertEqual(listener.heard, [b"read"])

    def test_what_was_read_before_an_outage_is_confirmed_by_no_fence_after_it(self) -> None:
        listener = self.listen(b"a")
        self.dispatcher.read(b"a", b"the same")
        self.outage()
        self.dispatcher.fence()
        self.confirm()
        self.redis.persisted = [(b"a", b"the same", 2)]
        self.outage()
        self.assertEqual(listener.heard, [b"the same"])

    def test_it_does_so_too_when_the_one_who_asked_for_the_fence_is_gone(self) -> None:
        listener = self.listen(b"a")
        self.redis.persisted = [(b"a", b"read", 1)]
        self.dispatcher.read(b"a", b"read")
        fence = self.dispatcher.fence()
        fence.cancel()
        self.failureResultOf(fence, CancelledError)
        self.confirm()
        self.outage()
        self.assertEqual(listener.heard, [])

    def recover_slowly(self, *channels: bytes) -> list[Deferred[Any]]:
        """Miss a large message on each channel. Return the reads that the test has to answer; the
        first one is under way.
        """
        self.redis.persisted = [(each, each * 200_000, 5) for each in channels]
        reads: list[Deferred[Any]] = []

        def read(*command: Any, count: int) -> Deferred[Any]:
            reads.append(Deferred())
            return reads[-1]

        self.redis.read = read  # type: ignore[method-assign]
        self.reconnect()
        return reads

    def test_channels_with_nothing_missed_are_served_while_others_are_behind(self) -> None:
        listener = self.listen(b"a", b"b", b"c")
        reads = self.recover_slowly(b"a", b"b")
        self.protocol.dataReceived(message(b"c", b"1"))
        self.assertEqual(listener.heard, [])  # with little to be read, all goes in order
        reads[0].callback([b"a" * 200_000])
        self.protocol.dataReceived(message(b"b", b"2") + message(b"c", b"3") + message(b"a", b"4"))
        self.assertEqual(listener.heard, [b"a" * 200_000, b"1", b"3", b"4"])
        self.reactor.advance(0)
        self.assertTrue(self.dispatcher.up)
        reads[1].callback([b"b" * 200_000])
        self.assertEqual(listener.heard[4:], [b"b" * 200_000, b"2"])

    def test_a_fence_waits_for_what_was_missed_on_its_own_channels(self) -> None:
        self.listen(b"a", b"b", b"c")
        reads = self.recover_slowly(b"a", b"b", b"c")
        reads[0].callback([b"a" * 200_000])
        self.reactor.advance(0)
        served, behind, last, every = (
            self.dispatcher.fence(channels) for channels in ([b"a"], [b"b"], [b"a", b"c"], None)
        )
        while self.confirm():
            pass
        self.successResultOf(served)
        self.assertNoResult(behind)
        reads[1].callback([b"b" * 200_000])
        self.successResultOf(behind)
        self.assertNoResult(last)
        reads[2].callback([b"c" * 200_000])
        self.successResultOf(last)
        self.successResultOf(every)

    def test_a_fence_on_a_channel_that_is_behind_fails_with_the_connection(self) -> None:
        self.listen(b"a", b"b")
        reads = self.recover_slowly(b"a", b"b")
        reads[0].callback([b"a" * 200_000])
        self.reactor.advance(0)
        fence = self.dispatcher.fence([b"b"])
        self.confirm()
        self.lose()
        self.failureResultOf(fence, BrokerUnavailable)

    def test_a_message_that_a_newcomer_read_on_a_channel_that_is_behind_reaches_the_others(
        self,
    ) -> None:
        listener = self.listen(b"a", b"b")
        reads = self.recover_slowly(b"a", b"b")
        reads[0].callback([b"a" * 200_000])
        self.reactor.advance(0)
        self.dispatcher.read(b"b", b"b" * 200_000)
        self.dispatcher.fence([b"a"])
        self.confirm()
        reads[1].callback([b"b" * 200_000])
        self.assertEqual(listener.heard, [b"a" * 200_000, b"b" * 200_000])

    def test_a_portion_that_cannot_be_read_makes_the_connection_anew(self) -> None:
        self.listen(b"a", b"b")
        reads = self.recover_slowly(b"a", b"b")
        reads[0].callback([b"a" * 200_000])
        self.reactor.advance(0)
        reads[1].errback(BrokerUnavailable("Redis did not answer in time."))
        self.assertTrue(self.transport.disconnecting or self.transport.aborting)
        self.assertFalse(self.dispatcher.up)

    def test_a_portion_that_cannot_be_asked_for_makes_the_connection_anew(self) -> None:
        listener = self.listen(b"a", b"b")
        # Of publishers that set no stamp: a fence follows each portion.
        self.redis.persisted = [(each, each * 200_000, None) for each in (b"a", b"b")]
        read, reads = self.redis.read, count()

        def fail_later(*command: Any, count: int) -> Deferred[Any]:
            if next(reads):
                return fail(BrokerUnavailable("There is no connection to Redis."))
            return read(*command, count=count)

        self.redis.read = fail_later  # type: ignore[method-assign]
        self.reconnect()
        self.assertTrue(self.transport.disconnecting or self.transport.aborting)
        self.redis.read = read  # type: ignore[method-assign]
        self.reconnect()
        self.assertEqual(listener.heard, [b"a" * 200_000, b"b" * 200_000])

    def test_silence_while_much_is_read_is_not_deafness(self) -> None:
        self.listen(b"a", b"b")
        reads = self.recover_slowly(b"a", b"b")
        reads[0].callback([b"a" * 200_000])
        for _ in range(10):
            self.reactor.advance(PROBE_INTERVAL)
        self.assertTrue(self.dispatcher.up)
        reads[1].callback([b"b" * 200_000])
        for _ in range(10):
            self.reactor.advance(PROBE_INTERVAL)
        self.assertFalse(self.dispatcher.up)

    def test_what_is_held_for_channels_that_are_behind_is_bounded(self) -> None:
        listener = self.listen(b"a", b"b")
        reads = self.recover_slowly(b"a", b"b")
        reads[0].callback([b"a" * 200_000])
        for _ in range(9):
            self.assertEqual(self.transport.producerState, "producing")
            self.protocol.dataReceived(message(b"b", b"x" * 2**20))
        self.assertEqual(self.transport.producerState, "paused")
        reads[1].callback([b"b" * 200_000])
        while self.transport.producerState == "paused":
            self.reactor.advance(0)
        self.assertEqual([len(each) for each in listener.heard], [200_000] * 2 + [2**20] * 9)

    def test_a_connection_that_is_lost_while_much_is_read_begins_anew_and_reads_the_rest(
        self,
    ) -> None:
        listener = self.listen(b"a", b"b", b"c")
        reads = self.recover_slowly(b"a", b"b", b"c")
        reads[0].callback([b"a" * 200_000])
        self.protocol.dataReceived(message(b"c", b"held"))
        self.lose()
        reads[1].callback([b"b" * 200_000])
        self.reactor.advance(1)
        self.connect()
        while self.confirm():
            pass
        # Redis compares the first one, and need not send it.
        reads[2].callback([None])
        for read, channel in zip((3, 4), (b"b", b"c"), strict=True):
            reads[read].callback([channel * 200_000])
        self.assertEqual(
            listener.heard,
            [b"a" * 200_000, b"b" * 200_000, b"held", b"c" * 200_000],
        )

    def test_what_is_read_of_a_channel_that_nobody_listens_to_is_not_remembered(self) -> None:
        self.dispatcher.read(b"a", b"read")
        self.assertEqual(self.dispatcher._reads.take(), [])
