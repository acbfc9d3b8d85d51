"""Positions and histories when another Redis takes over, or the same one with less than it had."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.brokers import Listener, start_broker
from tests.support.clocks import SteppingClock
from tests.support.programs import children
from tests.support.redis import RedisServer
from ws4redis_tx.core.messages import Notice
from ws4redis_tx.core.positions import History, Kept, Position, read_position
from ws4redis_tx.redis.history.publishing import kept_command

F, G = b"broadcast:f", b"user:john:f"
KEPT = Kept(History(100, 3600))
HOUR = 3600


class ReplacedTestCase(TestCase):
    """A broker whose Redis can be restarted with what it had at an earlier moment."""

    timeout = 60

    @inlineCallbacks
    def setUp(self) -> Any:
        self.folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.clock = SteppingClock(self)
        self.redis = self.start_redis()
        self.addCleanup(lambda: self.redis.stop())
        self.broker = start_broker(self, self.redis.address, "", (("f", 100, HOUR),))
        self.publisher = start_broker(self, self.redis.address)
        yield self.broker.when_available()
        yield self.publisher.when_available()
        self.listener = Listener()
        for channel in F, G:
            yield self.broker.listen(channel, self.listener)

    def start_redis(self, port: int | None = None) -> RedisServer:
        return RedisServer("--dir", self.folder, port=port, environment=self.clock.environment)

    @inlineCallbacks
    def publish(self, *payloads: bytes, channel: bytes = F) -> Any:
        """Fire with the last position, when the broker has delivered all of them."""
        for payload in payloads:
            yield self.publisher.when_available()
            done = yield self.publisher.commands.publish([channel], payload, 60, KEPT)
        yield self.broker.when_available()
        yield self.broker.fence()
        return read_position(done.position)

    def save(self) -> None:
        """What is there now is what a restart brings back."""
        self.redis.command("SAVE")

    @inlineCallbacks
    def restart(self, *meanwhile: bytes) -> Any:
        """Kill Redis, and start it with what was saved. ``meanwhile`` is published on ``F`` before
        anybody connects. Fire when the broker is back.
        """
        (server,) = children(self.redis.pid)
        os.kill(server, signal.SIGKILL)
        self.redis.stop()
        yield self.broker.fence().addErrback(lambda _: None)
        self.redis = self.start_redis(self.redis.port)
        for payload in meanwhile:
            self.redis.command(*kept_command("", [F], payload, 60, KEPT))
        yield self.broker.when_available()
        yield self.publisher.when_available()

    def heard(self) -> list[bytes]:
        return [each.payload for each in self.listener.publications if not isinstance(each, Notice)]

    @inlineCallbacks
    def missed(self, since: Position | None) -> Any:
        """Fire with the payloads that are served, and the channels of the gaps."""
        missed = yield self.broker.missed([F, G], since)
        return [each.payload for each in missed.messages], set(missed.gaps)


class LostWritesTests(ReplacedTestCase):
    @inlineCallbacks
    def test_a_redis_that_has_everything_serves_what_was_missed(self) -> Any:
        yield self.publish(b"1")
        since = yield self.publish(b"2")
        last = yield self.publish(b"3", b"4")
        self.save()
        yield self.restart()
        self.assertEqual((yield self.missed(since)), ([b"3", b"4"], set()))
        self.assertEqual((yield self.missed(last)), ([], set()))
        self.assertEqual((yield self.broker.now()).mark, since.mark)

    @inlineCallbacks
    def test_a_redis_that_has_lost_a_message_serves_no_part_in_silence(self) -> Any:
        since = yield self.publish(b"1", b"2")
        yield self.publish(b"3")
        self.save()
        lost = yield self.publish(b"4", b"5")
        yield self.restart()
        after = yield self.publish(b"6")
        for position in since, lost:
            self.assertEqual((yield self.missed(position)), ([], {F, G}))
        self.assertGreater(after.stamp, lost.stamp)
        self.assertNotEqual(after.mark, since.mark)
        yield self.publish(b"7")
        self.assertEqual((yield self.missed(after)), ([b"7"], set()))

    @inlineCallbacks
    def test_positions_after_it_are_good_through_the_next_restart(self) -> Any:
        self.save()
        yield self.publish(b"1")
        yield self.restart()
        since = yield self.publish(b"2")
        yield self.publish(b"3")
        self.save()
        yield self.restart()
        self.assertEqual((yield self.missed(since)), ([b"3"], set()))

    @inlineCallbacks
    def test_an_empty_redis_is_a_gap(self) -> Any:
        since = yield self.publish(b"1", b"2")
        yield self.restart()
        self.assertEqual((yield self.missed(since)), ([], {F, G}))
        after = yield self.broker.now()
        yield self.publish(b"3")
        self.assertEqual((yield self.missed(after)), ([b"3"], set()))
        self.assertEqual((yield self.missed(since)), ([], {F, G}))


class LaggingClockTests(ReplacedTestCase):
    @inlineCallbacks
    def test_stamps_go_on_where_all_writes_are_there(self) -> Any:
        since = yield self.publish(b"1")
        last = yield self.publish(b"2")
        self.save()
        # Since then nothing has told this process a later position.
        self.clock.step(-HOUR)
        yield self.restart()
        self.assertEqual((yield self.missed(since)), ([b"2"], set()))
        after = yield self.publish(b"3")
        self.assertEqual(after, Position(last.stamp + 1, last.mark))

    @inlineCallbacks
    def test_positions_that_it_would_give_out_again_are_gaps(self) -> Any:
        yield self.publish(b"1")
        self.save()
        silent = (yield self.broker.missed([F], None)).until  # by the clock, after all messages
        self.clock.step(-HOUR)
        yield self.restart()
        after = yield self.publish(b"2")
        self.assertEqual((yield self.missed(silent)), ([], {F, G}))
        self.assertGreater(after.stamp, silent.stamp)
        yield self.publish(b"3")
        self.assertEqual((yield self.missed(after)), ([b"3"], set()))

    @inlineCallbacks
    def test_plain_listeners_hear_what_it_published_before_anybody_noticed(self) -> Any:
        yield self.publish(b"1")
        self.save()
        yield self.publish(b"2")
        self.clock.step(-HOUR)
        yield self.restart(b"3")
        yield self.broker.fence()
        self.assertEqual(self.heard(), [b"1", b"2", b"3"])

    @inlineCallbacks
    def test_a_clock_that_is_set_back_under_an_open_connection(self) -> Any:
        yield self.publish(b"1")
        silent = (yield self.broker.missed([F], None)).until
        self.clock.step(-HOUR)
        while int(self.redis.command("TIME")[0]) > silent.stamp // 10**6 - HOUR // 2:
            pass  # it has yet to look at the clock
        self.broker._dispatcher.probe.send()
        yield self.publish(b"2")
        while self.broker.position.mark == silent.mark:
            yield self.broker.fence()
        after = yield self.publish(b"3")
        self.assertGreater(after.stamp, silent.stamp)
        self.assertEqual((yield self.missed(silent)), ([], {F, G}))
        yield self.publish(b"4")
        self.assertEqual((yield self.missed(after)), ([b"4"], set()))
        self.assertEqual(self.heard(), [b"1", b"2", b"3", b"4"])
