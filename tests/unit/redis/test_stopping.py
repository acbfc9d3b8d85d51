"""A connection that was stopped asks for nothing more, and leaves no timer in the reactor."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.persisted import PersistedMessages

ADDRESS = RedisAddress(path="/redis.sock")
NOTHING_PERSISTED = b"*2\r\n$-1\r\n$-1\r\n"
REFUSED = b"-NOPERM this user has no permissions to run the 'eval' command\r\n"


class StoppedCommandsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.commands = Commands(ADDRESS, "", self.reactor, timeout=5)
        self.commands.start()
        self.connect()

    def connect(self) -> None:
        """Let the attempt to connect succeed. ``answer`` is what Redis says from then on."""
        _, factory, *_ = self.reactor.unixClients.pop()
        self.protocol: Any = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)

    def answer(self, data: bytes) -> None:
        self.transport.clear()
        self.protocol.dataReceived(data)

    def come_up(self, data: bytes) -> None:
        """Answer the question whether scripts are permitted; the connection is up then."""
        self.answer(data)
        self.answer(NOTHING_PERSISTED)
        self.reactor.advance(0)

    def stop(self) -> Deferred[Any]:
        stopped: Deferred[Any] = self.commands.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        return stopped

    def assert_asks_nothing_more(self, stopped: Deferred[Any]) -> None:
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertNoResult(stopped)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_a_publish_whose_script_is_refused_after_the_stop_is_not_sent_plainly(self) -> None:
        self.come_up(b":1\r\n")
        published = self.commands.publish([b"broadcast:x"], b"hi", 60)
        stopped = self.stop()
        self.answer(REFUSED)
        self.failureResultOf(published, BrokerUnavailable)
        self.assert_asks_nothing_more(stopped)

    def test_a_probe_whose_time_is_told_after_the_stop_is_not_published(self) -> None:
        self.come_up(REFUSED)
        probed = self.commands.probe(b"ctl:probe:x")
        stopped = self.stop()
        self.answer(b"*2\r\n$1\r\n1\r\n$1\r\n2\r\n")
        self.failureResultOf(probed, BrokerUnavailable)
        self.assert_asks_nothing_more(stopped)

    def test_a_search_without_rights_on_the_stamps_does_not_go_on_plainly_after_the_stop(
        self,
    ) -> None:
        self.come_up(b":1\r\n")
        found = PersistedMessages(self.commands, "").find([b"broadcast:x"])
        stopped = self.stop()
        self.answer(REFUSED)
        self.failureResultOf(found, BrokerUnavailable)
        self.assert_asks_nothing_more(stopped)

    def test_a_connection_that_was_just_made_is_not_announced_after_the_stop(self) -> None:
        connected = self.commands.when_connected()
        self.answer(b":1\r\n")
        self.answer(NOTHING_PERSISTED)
        stopped = self.stop()
        self.failureResultOf(connected, BrokerUnavailable)
        self.assert_asks_nothing_more(stopped)

    def test_a_stop_while_the_connection_is_prepared_drops_it(self) -> None:
        self.assertNotEqual(self.reactor.getDelayedCalls(), [])  # for how long that may take
        self.successResultOf(self.stop())
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_one_who_is_told_that_there_is_no_connection_may_stop_it(self) -> None:
        connected = self.commands.when_connected()
        stopped = connected.addErrback(lambda _: self.commands.stop())
        self.protocol.connectionLost(Failure(ConnectionDone()))
        self.reactor.advance(0)
        self.successResultOf(stopped)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
