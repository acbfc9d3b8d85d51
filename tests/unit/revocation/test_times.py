"""Every websocket is rechecked once a period, when its session ends, and after an outage."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel

from tests.unit.revocation.site import JOHN, RevocationTests
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError
from ws4redis_tx.revocation.messages import (
    DISCONNECT,
    LOGOUT,
    RECHECK,
    Revocation,
    disconnection,
    read_revocation,
)
from ws4redis_tx.service import disconnect
from ws4redis_tx.testing import MemoryBroker


class TimeTests(RevocationTests):
    def test_every_websocket_is_rechecked_once_a_period(self) -> None:
        self.use(recheck=60)
        for name in ("john", "mary", "john"):
            self.connect(name)
        self.site.asked.clear()
        self.clock.pump([0.25] * 4 * 60)
        self.assertEqual(sorted(self.site.asked), ["john", "john", "mary"])

    def test_those_whose_turn_comes_together_are_asked_about_together(self) -> None:
        self.use(recheck=300)
        for _ in range(300):
            self.connect("john")
        self.site.asked.clear()
        rounds = []
        for _ in range(300):
            self.clock.advance(1)
            self.clock.advance(0)
            rounds.append(len(self.site.asked))
            self.site.asked.clear()
        self.assertEqual(sum(rounds), 300)
        self.assertLessEqual(sum(map(bool, rounds)), 60)
        self.assertLess(max(rounds), 30)

    def test_what_is_found_then_closes_with_1008(self) -> None:
        self.use(recheck=300)
        client = self.connect("john")
        self.site.visitors["john"] = Identity()
        self.clock.pump([0.5] * 602)
        self.assertEqual(client.close_code, 1008)

    def test_without_a_period_nobody_is_asked_by_and_by(self) -> None:
        for never in (0, None):
            self.use(recheck=never)
            self.connect("john")
            self.site.asked.clear()
            self.clock.pump([10] * 1000)
            self.assertEqual(self.site.asked, [])

    def test_a_period_that_is_no_number_of_seconds_is_refused(self) -> None:
        for wrong in (-1, 1.5, True, "60", 2**31):
            with self.assertRaises(ConfigError) as caught:
                ServerConfig(recheck=wrong)
            self.assertIn("recheck is ", str(caught.exception))

    def test_when_the_session_ends_it_is_looked_at(self) -> None:
        for period in (0, 300):
            self.use(recheck=period)
            self.site.expires = time.time() + 20
            client = self.connect("john")
            self.site.visitors["john"] = Identity()
            self.clock.advance(19)
            self.clock.advance(0)
            if not period:  # otherwise its turn may have come by chance
                self.assertIsNone(client.close_code)
            self.clock.advance(1.2)
            self.clock.advance(0)
            self.assertEqual(client.close_code, 1008)

    def test_a_session_that_ends_after_the_next_recheck_needs_no_timer(self) -> None:
        timers = []
        for left in (1000, 10_000_000, 100):
            self.use(recheck=300)
            self.site.expires = time.time() + left
            self.connect("john")
            timers.append(len(self.clock.getDelayedCalls()))
        self.assertEqual(timers, [timers[2] - 1, timers[2] - 1, timers[2]])

    def test_a_clock_that_steps_past_the_end_of_a_session_is_noticed_within_a_minute(self) -> None:
        now = time.time()
        self.use(recheck=0)
        self.factory.session_server.revocations.use_time(lambda: now)
        self.site.expires = now + 7200
        client = self.connect("john")
        self.site.visitors["john"] = Identity()
        self.clock.pump([30] * 4)
        self.assertEqual(self.site.asked, ["john"])
        now += 7200
        self.clock.pump([30, 30, 0])
        self.assertEqual(client.close_code, 1008)

    def test_a_clock_that_is_set_back_ends_no_session(self) -> None:
        now = time.time()
        self.use(recheck=0)
        self.factory.session_server.revocations.use_time(lambda: now)
        self.site.expires = now + 20
        client = self.connect("john")
        now -= 3600
        self.clock.pump([30] * 100)
        self.assertTrue(client.open)
        self.assertLess(len(self.site.asked), 4)
        now += 3620
        self.site.visitors["john"] = Identity()
        self.clock.pump([30, 30, 5, 0])
        self.assertEqual(client.close_code, 1008)

    def test_a_session_that_ends_in_years_is_no_trouble_for_the_reactor(self) -> None:
        self.site.expires = time.time() + 1e11
        self.connect("john")
        self.assertLess(max(each.getTime() for each in self.clock.getDelayedCalls()), 1e6)

    def test_a_session_that_was_prolonged_is_looked_at_again_at_its_new_end(self) -> None:
        self.use(recheck=0)
        self.site.expires = time.time() + 20
        client = self.connect("john")
        self.site.expires = time.time() + 40
        self.clock.advance(20.2)
        self.clock.advance(0)
        self.assertEqual(self.site.asked, ["john", "john"])
        self.site.visitors["john"] = Identity()
        self.clock.advance(40.2)
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_a_session_that_seems_to_have_ended_already_is_not_asked_about_on_and_on(self) -> None:
        self.use(recheck=0)
        self.site.expires = time.time() - 1
        self.connect("john")
        self.clock.pump([0.5] * 60)
        self.assertLess(len(self.site.asked), 10)

    def test_who_is_gone_leaves_nothing_behind(self) -> None:
        self.site.expires = time.time() + 20
        clients = [self.connect(name) for name in ("john", "john", "mary")]
        self.assertNotEqual(self.clock.getDelayedCalls(), [])
        for client in clients:
            client.close()
        revocations = self.factory.session_server.revocations
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(len(revocations._index._by_user), 0)
        self.assertEqual(len(revocations._index._by_session_key), 0)
        self.assertEqual(len(revocations._rechecker._queue), 0)
        self.assertEqual(revocations._index.size, 0)


class OutageTests(RevocationTests):
    def test_when_redis_is_back_everybody_is_rechecked(self) -> None:
        client, other = self.connect("john"), self.connect("mary")
        self.site.visitors["john"] = Identity()
        self.broker.lose_connection()
        self.clock.pump([0.5] * 10)
        self.assertIsNone(client.close_code)
        self.broker.restore()
        self.clock.advance(0)
        self.assertEqual((client.close_code, other.close_code), (1008, None))

    def test_while_redis_stays_nobody_is(self) -> None:
        self.connect("john")
        self.site.asked.clear()
        self.clock.pump([0.01] * 200)
        self.assertEqual(self.site.asked, [])

    def test_a_user_of_redis_that_may_not_listen_is_told_once_and_served(self) -> None:
        class Refusing(MemoryBroker):
            refused = 0

            def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
                if b"ctl:" in channel and self.refused < 3:
                    self.refused += 1
                    return fail(BrokerUnavailable("Redis did not subscribe: NOPERM"))
                return super().listen(channel, listener)

        events = self.logged()
        self.use(Refusing())
        client = self.connect("john")
        self.clock.pump([1] * 20)
        warnings = [each for each in events if each["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), 1)
        self.assertEqual(self.site.asked, ["john", "john"])  # it may have missed a message
        self.say(disconnection(user="john"))
        self.assertEqual(client.close_code, 1008)

    def test_after_a_drain_nothing_listens_until_it_opens_up(self) -> None:
        self.assertEqual(list(self.broker.control.channels), [b"ctl:revoke"])
        client = self.connect("john")
        gone = self.factory.drain(1001)
        client.lose_connection()
        self.successResultOf(gone)
        self.assertEqual(list(self.broker.control.channels), [])
        self.factory.open_up()
        self.assertEqual(list(self.broker.control.channels), [b"ctl:revoke"])

    def test_a_server_that_was_drained_is_not_told_of_outages_until_it_opens_up(self) -> None:
        heard = self.factory.session_server.revocations.sequence
        for restored in (1, 1):
            self.successResultOf(self.factory.drain(1001))
            self.outage()
            self.assertEqual(self.factory.session_server.revocations.sequence, heard)
            self.factory.open_up()
            heard = self.factory.session_server.revocations.sequence  # it listens anew
            self.outage()
            self.assertEqual(self.factory.session_server.revocations.sequence, heard + restored)
            heard += restored

    def test_one_that_ends_many_and_stops_leaves_no_timer(self) -> None:
        clients = [self.connect("john", "") for _ in range(450)]
        disconnect(self.factory.config, self.broker, user="john")
        gone = self.factory.drain(1001)
        for client in clients:
            client.lose_connection()
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class UnheardTests(RevocationTests):
    """Messages that nobody could hear, or that came before a handshake could know of them."""

    def test_a_handshake_that_spans_an_outage_is_looked_at_again(self) -> None:
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john")
        # Redis was away, and with it the word that John was logged out.
        self.outage()
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[-1], ["subscribe-user"]))
        self.assertTrue(client.open)
        self.site.visitors["john"] = Identity()
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_a_handshake_that_takes_longer_than_the_second_look_gets_one_of_its_own(self) -> None:
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john")
        self.say_again()
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[-1], ["subscribe-user"]))
        self.site.visitors["john"] = Identity()
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_an_urgent_recheck_that_failed_stays_urgent(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = RuntimeError("the database is away")
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.flushLoggedErrors(RuntimeError)
        self.site.visitors["john"] = Identity()
        self.factory.session_server.revocations._rechecker._queue.eventually = self.fail
        self.say_again()
        self.assertEqual(client.close_code, 1008)

    def test_a_message_that_names_nobody_is_a_line_in_the_log(self) -> None:
        for verb in (LOGOUT, RECHECK, DISCONNECT):
            kind = "session" if verb == LOGOUT else "user"
            self.assertRaises(ValueError, read_revocation, Revocation(verb, kind, ()).payload)

    def test_no_repr_shows_a_cookie(self) -> None:
        self.connect("john")
        self.assertNotIn("who=john", repr(self.site.handshakes[0]))
