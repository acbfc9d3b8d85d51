"""Who loses something loses the websocket that rests on it; in memory, the clock in our hands."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest, lost
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError, Denied
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.revocation.index import Index
from ws4redis_tx.revocation.messages import (
    DISCONNECT,
    LOGOUT,
    RECHECK,
    Revocation,
    digest,
    disconnection,
    read_revocation,
)
from ws4redis_tx.revocation.packing import Packer, unpack
from ws4redis_tx.revocation.recheck_queue import RecheckQueue
from ws4redis_tx.service import disconnect
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

JOHN = Identity("john's", "john", ("chatters",), "1")
MARY = Identity("mary's", "mary", ("chatters",), "2")
ALL = "subscribe-session&subscribe-user&subscribe-group&subscribe-broadcast"


class Site:
    """An authorizer. Who comes with the cookie ``who=NAME`` is ``visitors[NAME]``: an identity, an
    exception, or a Deferred of one.
    """

    def __init__(self) -> None:
        self.visitors: dict[str, Any] = {"john": JOHN, "mary": MARY, "nobody": Identity()}
        self.withheld: set[str] = set()
        self.added: tuple[str, ...] = ()
        self.expires: float | None = None
        self.redeemed = ""
        self.answer: Admission | None = None
        self.asked: list[str] = []
        self.handshakes: list[Handshake] = []

    def authorize(self, handshake: Handshake, rights: Any) -> Any:
        name = handshake.headers["cookie"].partition("=")[2]
        self.asked.append(name)
        self.handshakes.append(handshake)
        found = self.visitors[name]
        if isinstance(found, Deferred):
            return found
        if isinstance(found, Exception):
            raise found
        return self.admit(found, handshake, rights)

    def admit(self, identity: Identity, handshake: Handshake, rights: Any) -> Admission:
        granted = tuple(right for right in rights if right not in self.withheld)
        request = PlainRequest(handshake.path_info, identity)
        self.answer = Admission(
            identity, granted + self.added, request, self.expires, self.redeemed
        )
        return self.answer


class RevocationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.use()

    def use(self, broker: MemoryBroker | None = None, *, recheck: Any = 0, **config: Any) -> None:
        """Without a period, nobody is asked about by chance."""
        self.clock = Clock()
        self.broker = broker or MemoryBroker()
        self.site = Site()
        self.factory = make_memory_factory(
            ServerConfig(recheck=recheck, **config),
            broker=self.broker,
            authorizer=self.site,
            clock=self.clock,
        )

    def connect(self, name: str, flags: str = ALL, facility: str = "chat") -> MemoryClient:
        url = f"ws://localhost/ws/{facility}?{flags}"
        return connect(self.factory, url, cookies={"who": name})

    def say(self, revocation: Revocation) -> None:
        self.broker.publish([b"ctl:revoke"], revocation.payload, 0)
        self.clock.advance(0)

    def say_again(self) -> None:
        """Let the second look pass."""
        self.clock.advance(2)
        self.clock.advance(0)

    def logged(self) -> list[Any]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events


class LogoutTests(RevocationTests):
    def test_the_sessions_websockets_are_closed_with_1008_and_no_others(self) -> None:
        johns = [self.connect("john"), self.connect("john", "")]
        self.site.visitors["john elsewhere"] = Identity("other", "john", (), "1")
        others = [self.connect(name) for name in ("john elsewhere", "mary")]
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual([client.close_code for client in johns], [1008, 1008])
        self.assertEqual([client.close_code for client in others], [None, None])

    def test_the_sessions_key_is_refused_for_30_s(self) -> None:
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual(self.connect("john").refused, 403)
        self.assertTrue(self.connect("mary").open)
        self.clock.advance(29)
        self.assertEqual(self.connect("john").refused, 403)
        self.clock.advance(2)
        self.assertTrue(self.connect("john").open)

    def test_logouts_are_not_remembered_for_ever(self) -> None:
        for i in range(100):
            self.say(Revocation(LOGOUT, "session", (digest(str(i)),)))
            self.clock.advance(1)
        self.assertLess(len(self.factory.session_server.revocations._logged_out), 40)
        self.assertLess(len(self.factory.session_server.revocations._recent), 20)

    def test_a_handshake_under_way_is_refused_too(self) -> None:
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john")
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[0], []))
        self.assertEqual(client.refused, 403)

    def test_a_handshake_that_waits_for_its_subscriptions_is_refused_too(self) -> None:
        class Slow(MemoryBroker):
            def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
                answer = super().listen(channel, listener)
                if b"ctl:" in channel:
                    return answer
                waiting.append(Deferred())
                return waiting[-1]

        waiting: list[Deferred[None]] = []
        self.use(Slow())
        client = self.connect("john", "subscribe-user")
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual(client.refused, 403)
        waiting[0].callback(None)
        self.assertFalse(client.open)
        self.assertEqual(list(self.broker.hub.channels), [])


class DisconnectTests(RevocationTests):
    def open(self) -> dict[str, MemoryClient]:
        self.site.visitors["peter"] = Identity("peter's", "peter", ("others",), "3")
        clients = {name: self.connect(name) for name in ("john", "mary", "peter")}
        clients["elsewhere"] = self.connect("john", "subscribe-broadcast", "news")
        return clients

    def test_each_keyword_closes_whom_it_names(self) -> None:
        class User:
            pk = 1

        class Group:
            name = "chatters"

        for whom, closed in (
            ({"user": "john"}, {"john", "elsewhere"}),
            ({"user": User()}, {"john", "elsewhere"}),
            ({"session": "mary's"}, {"mary"}),
            ({"group": "chatters"}, {"john", "mary", "elsewhere"}),
            ({"group": Group()}, {"john", "mary", "elsewhere"}),
            ({"facility": "chat"}, {"john", "mary", "peter"}),
            ({"facility": "nothing"}, set()),
            ({"user": "jo"}, set()),
        ):
            self.use()
            clients = self.open()
            told: Any = disconnect(self.factory.config, self.broker, **whom)
            self.assertEqual(self.successResultOf(told), 1)
            codes = {name: client.close_code for name, client in clients.items()}
            self.assertEqual(codes, {name: 1008 if name in closed else None for name in codes})

    def test_whom_it_closed_may_come_back(self) -> None:
        self.connect("john")
        self.say(disconnection(user="john"))
        self.assertTrue(self.connect("john").open)

    def test_a_handshake_under_way_is_refused(self) -> None:
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john", facility="chat")
        self.say(disconnection(facility="news"))
        self.say(disconnection(facility="chat"))
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[0], []))
        self.assertEqual(client.refused, 403)

    def test_a_handshake_under_way_is_not_refused_for_what_is_said_of_others(self) -> None:
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john", facility="chat")
        self.say(disconnection(facility="news"))
        self.say(disconnection(user="mary"))
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[0], []))
        self.assertTrue(client.open)

    def test_a_prefix_is_that_of_the_channel(self) -> None:
        self.use(prefix="site")
        client = self.connect("john")
        self.say(disconnection(user="john"))
        self.assertIsNone(client.close_code)
        disconnect(self.factory.config, self.broker, user="john")
        self.assertEqual(client.close_code, 1008)

    def test_many_are_closed_by_and_by(self) -> None:
        clients = [self.connect("john", "") for _ in range(450)]
        disconnect(self.factory.config, self.broker, user="john")
        self.assertEqual(sum(client.close_code == 1008 for client in clients), 200)
        self.clock.advance(0)
        self.assertEqual({client.close_code for client in clients}, {1008})

    def test_exactly_one_keyword_is_taken_and_what_it_can_mean(self) -> None:
        for wrong in (
            {},
            {"user": "john", "group": "a"},
            {"user": 7},
            {"user": b"john"},
            {"user": Identity()},
            {"group": 7},
            {"session": 7},
            {"facility": 7},
        ):
            with self.assertRaises(TypeError):
                disconnection(**wrong)


class RecheckTests(RevocationTests):
    def recheck(self, kind: str = "user", value: str = "1") -> None:
        self.say(Revocation(RECHECK, kind, (value,)))

    def test_who_still_may_have_all_of_it_stays(self) -> None:
        client, other = self.connect("john"), self.connect("mary")
        self.site.asked.clear()
        self.recheck()
        self.assertEqual(self.site.asked, ["john"])
        self.assertEqual((client.close_code, other.close_code), (None, None))

    def test_it_is_done_once_more_2_s_later_as_what_was_read_may_be_old(self) -> None:
        client = self.connect("john")
        self.recheck()
        self.site.visitors["john"] = Identity()
        self.clock.advance(1.9)
        self.clock.advance(0)
        self.assertIsNone(client.close_code)
        self.clock.advance(0.2)
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_the_second_look_is_2_s_after_the_last_message(self) -> None:
        self.connect("john")
        self.recheck()
        self.clock.advance(1)
        self.recheck()
        self.site.asked.clear()
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(self.site.asked, [])
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertEqual(self.site.asked, ["john"])
        self.clock.advance(10)
        self.assertEqual(self.site.asked, ["john"])

    def test_who_is_refused_now_is_closed_with_1008(self) -> None:
        for answer in (
            Denied(403, "no"),
            Denied(401, "no"),
            Identity(),  # nobody: a session right needs a session
        ):
            self.use()
            client, other = self.connect("john"), self.connect("mary")
            self.site.visitors["john"] = answer
            self.recheck()
            self.assertEqual((client.close_code, other.close_code), (1008, None))

    def test_who_lost_something_is_closed_with_1008(self) -> None:
        for flags, now in (
            ("subscribe-broadcast", Identity("john's")),
            ("subscribe-broadcast", Identity(None, "john", ("chatters",), "1")),
            ("subscribe-broadcast", Identity("new", "john", ("chatters",), "1")),
            ("subscribe-broadcast", Identity("john's", "renamed", ("chatters",), "1")),
            ("subscribe-broadcast", Identity("john's", "john", ("chatters",), "7")),
            ("subscribe-group", Identity("john's", "john", ("other",), "1")),
            ("publish-group", Identity("john's", "john", (), "1")),
        ):
            self.use()
            client = self.connect("john", flags)
            self.site.visitors["john"] = now
            self.recheck()
            self.assertEqual(client.close_code, 1008, now)

    def test_what_would_be_refused_at_a_handshake_closes_with_1008(self) -> None:
        client = self.connect("nobody", "subscribe-broadcast")
        self.site.added = ("subscribe-user",)  # to nobody: 401
        self.broker.generation += 1
        self.clock.pump([1, 0])
        self.assertEqual(client.close_code, 1008)

    def test_a_right_that_is_not_granted_any_more_closes_with_1008(self) -> None:
        client, other = self.connect("john"), self.connect("john", "subscribe-broadcast")
        self.site.withheld.add("subscribe-user")
        self.recheck()
        self.assertEqual((client.close_code, other.close_code), (1008, None))

    def test_a_group_that_no_right_is_used_for_may_be_left(self) -> None:
        client = self.connect("john", "subscribe-user")
        self.site.visitors["john"] = Identity("john's", "john", (), "1")
        self.recheck()
        self.assertIsNone(client.close_code)

    def test_who_gained_something_stays_and_is_known_by_it(self) -> None:
        self.use(recheck=300)
        client = self.connect("nobody", "subscribe-broadcast", "news")
        self.site.visitors["nobody"] = JOHN
        self.clock.pump([0.3] * 1001)
        self.assertIsNone(client.close_code)
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual(client.close_code, 1008)

    def test_a_group_means_those_who_were_in_it(self) -> None:
        clients = [self.connect("john"), self.connect("mary"), self.connect("nobody", "")]
        self.site.visitors["mary"] = Identity("mary's", "mary", (), "2")
        self.site.asked.clear()
        self.recheck("group", "chatters")
        self.assertEqual(sorted(self.site.asked), ["john", "mary"])
        self.assertEqual([client.close_code for client in clients], [None, 1008, None])

    def test_a_renamed_user_is_found(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = Identity("john's", "renamed", ("chatters",), "1")
        self.recheck("user", "1")
        self.assertEqual(client.close_code, 1008)

    def test_a_handshake_under_way_is_rechecked_when_it_is_through(self) -> None:
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john")
        self.recheck()
        self.site.visitors["john"] = Identity()
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[0], ["subscribe-user"]))
        self.assertTrue(client.open)
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_the_authorizer_sees_the_same_handshake(self) -> None:
        self.connect("john")
        self.recheck()
        before, after = self.site.handshakes
        self.assertEqual(after, before)

    def test_what_a_credential_was_redeemed_for_is_in_the_handshake_from_then_on(self) -> None:
        self.site.redeemed = "john's"
        client = self.connect("john")
        self.assertEqual(self.site.handshakes[0].redeemed, "")
        self.site.redeemed = ""
        for _ in range(2):
            self.say(Revocation(RECHECK, "user", ("1",)))
            self.assertEqual(self.site.handshakes[-1].redeemed, "john's")
        self.assertEqual(len(self.site.handshakes), 3)
        self.assertTrue(client.open)
        for text in (repr(self.site.handshakes[-1]), repr(self.site.answer)):
            self.assertNotIn("john's", text)

    def test_who_is_gone_is_not_asked_about(self) -> None:
        client = self.connect("john")
        self.site.asked.clear()
        self.broker.publish([b"ctl:revoke"], Revocation(RECHECK, "user", ("1",)).payload, 0)
        client.lose_connection()
        self.clock.advance(0)
        self.say_again()
        self.assertEqual(self.site.asked, [])

    def test_an_answer_for_who_left_meanwhile_changes_nothing(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = waiting = Deferred()
        self.recheck()
        client.lose_connection()
        waiting.callback(self.site.admit(JOHN, self.site.handshakes[0], []))
        self.say_again()
        self.assertEqual(len(self.factory.session_server.revocations._index._by_user), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class FailureTests(RevocationTests):
    def test_a_recheck_that_fails_is_tried_again_and_then_closes_with_1011(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = LookupError("no database")
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.clock.pump([0.5] * 50)
        self.assertIsNone(client.close_code)
        self.clock.pump([0.5] * 20)
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_a_database_that_comes_back_costs_nobody_the_websocket(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = LookupError("no database")
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.clock.pump([0.5] * 30)
        self.site.visitors["john"] = JOHN
        self.clock.pump([0.5] * 200)
        self.assertIsNone(client.close_code)
        self.flushLoggedErrors(LookupError)

    def test_who_leaves_meanwhile_leaves_nothing_behind(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = LookupError("no database")
        self.broker.generation += 1
        self.clock.pump([1, 0])
        client.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.flushLoggedErrors(LookupError)

    def test_an_authorizer_that_cannot_serve_now_is_no_refusal(self) -> None:
        client = self.connect("john")
        self.site.visitors["john"] = Denied(503, "busy")
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.assertIsNone(client.close_code)
        self.flushLoggedErrors(Denied)

    def test_an_answer_that_does_not_come_is_a_failure_and_keeps_no_other_waiting(self) -> None:
        self.connect("john")
        other = self.connect("mary")
        self.site.visitors["john"] = Deferred()
        self.say(Revocation(RECHECK, "user", ("1",)))
        for _ in range(100):
            self.clock.advance(0.5)
        self.site.visitors["mary"] = Identity()
        self.say(Revocation(RECHECK, "user", ("2",)))
        self.assertEqual(other.close_code, 1008)
        self.flushLoggedErrors()

    def test_an_unreadable_message_is_one_line_in_the_log_and_changes_nothing(self) -> None:
        client = self.connect("john")
        events = self.logged()
        wrong = (
            b"", b"\xff", b"7", b"[]", b"{}", b"null", b"{" * 100_000, b"[" * 100_000,
            b'{"logout": "x"}', b'{"logout": {"user": ["1"]}}', b'{"what": {"user": ["1"]}}',
            b'{"recheck": {"user": "1"}}', b'{"recheck": {"user": [1]}}',
            b'{"recheck": {"user": ["1"]}, "logout": {"session": ["1"]}}',
        )  # fmt: skip
        for payload in wrong:
            self.broker.publish([b"ctl:revoke"], payload, 0)
        self.assertIsNone(client.close_code)
        warnings = [each for each in events if each["log_level"] is LogLevel.warn]
        self.assertEqual(len(warnings), len(wrong))

    def test_a_digest_that_is_none_finds_nobody(self) -> None:
        client = self.connect("john")
        for value in ("", "x", "john's"):
            self.say(Revocation(LOGOUT, "session", (value,)))
        self.assertIsNone(client.close_code)

    @given(st.binary() | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("logout"), inner),
    ).map(lambda value: json.dumps(value).encode()))  # fmt: skip
    def test_any_bytes_are_read_or_a_value_error(self, payload: bytes) -> None:
        with contextlib.suppress(ValueError):
            self.assertIsInstance(read_revocation(payload), Revocation)


class TimeTests(RevocationTests):
    def test_every_websocket_is_rechecked_once_a_period(self) -> None:
        self.use(recheck=60)
        for name in ("john", "mary", "john"):
            self.connect(name)
        self.site.asked.clear()
        self.clock.pump([0.25] * 4 * 60)
        self.assertEqual(sorted(self.site.asked), ["john", "john", "mary"])

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
            if not period:  # else its turn may have come by chance
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

    def test_a_session_that_ends_in_years_is_no_trouble_for_the_reactor(self) -> None:
        self.site.expires = time.time() + 1e12
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
        self.assertEqual(len(revocations._index._by_session), 0)
        self.assertEqual(len(revocations._rechecks), 0)
        self.assertEqual(revocations._index.size, 0)


class OutageTests(RevocationTests):
    def test_when_redis_is_back_everybody_is_rechecked(self) -> None:
        client, other = self.connect("john"), self.connect("mary")
        self.site.visitors["john"] = Identity()
        self.broker.available = False
        self.broker.generation += 1
        self.clock.pump([0.5] * 10)
        self.assertIsNone(client.close_code)
        self.broker.available = True
        self.clock.pump([0.5] * 4)
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
        self.assertEqual(self.site.asked, ["john", "john"])  # it may have missed something
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


class ControlChannelTests(RevocationTests):
    def test_no_client_can_write_it(self) -> None:
        """Whatever it asks for, and though everything is granted to it."""
        heard: list[bytes] = []

        class Ear:
            def deliver(self, publication: Any) -> None:
                heard.append(publication.channel)

        self.broker.control.add(b"ctl:revoke", Ear())
        mary = self.connect("mary")
        payload = disconnection(user="mary").payload.decode()
        flags = "publish-broadcast&publish-group&publish-user&publish-session"
        self.site.visitors["odd"] = Identity("ctl:revoke", "ctl:revoke", ("ctl:revoke",), "3")
        for name in ("john", "odd", "nobody"):
            for facility in (
                "ctl:revoke", "revoke", "..%2Fctl:revoke", "%0actl:revoke", "ctl%3Arevoke", "",
                "/ctl:revoke", "*", "%00",
            ):  # fmt: skip
                for some in (flags, "publish-broadcast", "publish-ctl", "ctl:revoke"):
                    client = self.connect(name, some, facility)
                    if client.open:
                        client.send(payload)
        self.assertEqual(heard, [])
        self.assertIsNone(mary.close_code)

    def test_no_session_key_is_on_it(self) -> None:
        for revocation in (
            disconnection(session="secret"),
            Revocation(LOGOUT, "session", (digest("secret"),)),
        ):
            self.assertNotIn(b"secret", revocation.payload)

    def test_what_is_written_is_read(self) -> None:
        for revocation in (
            disconnection(user="jöhn"),
            disconnection(session="abc"),
            Revocation(RECHECK, "group", ("a", 'b"', "")),
        ):
            self.assertEqual(read_revocation(revocation.payload), revocation)

    def test_it_is_documented_as_it_is(self) -> None:
        self.assertEqual(
            Revocation(DISCONNECT, "facility", ("chat",)).payload,
            b'{"disconnect": {"facility": ["chat"]}}',
        )


class PartsTests(SynchronousTestCase):
    def test_losing_is_judged_by_what_is_used(self) -> None:
        then = Identity("s", "john", ("a", "b"), "1")

        def now(identity: Identity, *rights: str) -> Admission:
            return Admission(identity, rights, None)

        self.assertEqual(lost(then, ["subscribe-group"], now(then, "subscribe-group")), "")
        self.assertEqual(lost(then, [], now(Identity("s", "john", (), "1"))), "")
        self.assertEqual(lost(Identity(), [], now(then, "subscribe-user")), "")
        self.assertEqual(lost(then, ["subscribe-user"], now(then)), "a right")

    def test_a_handshake_is_packed_and_unpacked_whole(self) -> None:
        handshake = Handshake(
            path="/ws/\xe9", query="a&b=\xff", websocket_url="/ws/", flags=("a", "b"),
            headers={"host": "x", "cookie": "a=\x80\x85"}, key="k", subprotocols=("p",),
            secure=True, peer="::1", redeemed="t\xe9",
        )  # fmt: skip
        self.assertEqual(unpack(Packer().pack(handshake)), handshake)

    @given(
        st.dictionaries(
            st.text() | st.sampled_from(["cookie", "sec-websocket-protocol"]), st.text()
        ),
        st.text(),
        st.lists(st.text()),
        st.booleans(),
        st.text(),
    )
    def test_whatever_is_in_it(
        self, headers: dict[str, str], text: str, offered: list[str], secure: bool, redeemed: str
    ) -> None:
        handshake = Handshake(
            text, text, text, (text,), headers, text, tuple(offered), secure, text, redeemed
        )
        self.assertEqual(unpack(Packer().pack(handshake)), handshake)

    def test_credentials_are_not_remembered(self) -> None:
        headers = {
            "cookie": "a=s3cret",
            "authorization": "Bearer s3cret",
            "sec-websocket-protocol": "chat, s3cret",
        }
        packer = Packer()
        packer.pack(
            Handshake(
                path="/ws/", query="", websocket_url="/ws/", flags=(), headers=headers, key="k",
                subprotocols=("chat", "s3cret"), secure=True, peer="::1", redeemed="s3cret",
            )
        )  # fmt: skip
        self.assertTrue(len(packer))
        self.assertNotIn("s3cret", str(packer._known))

    def test_a_browsers_handshake_takes_little_memory(self) -> None:
        head = (
            b"GET /ws/foobar?subscribe-broadcast&subscribe-user HTTP/1.1\r\n"
            b"Host: chat.example.org\r\nConnection: keep-alive, Upgrade\r\nPragma: no-cache\r\n"
            b"User-Agent: Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:128.0) Gecko/20100101 "
            b"Firefox/128.0\r\nAccept: */*\r\nAccept-Language: de,en-US;q=0.7,en;q=0.3\r\n"
            b"Accept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\n"
            b"Origin: https://chat.example.org\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
            b"Cookie: csrftoken=Vx2bQm9pR4sK7tYw1cZn8dLf3gHj6aEu; "
            b"sessionid=q7w2e9r4t1y8u3i6o5p0a2s4d6f8g1h3\r\n"
            b"Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin"
        )

        def packed(number: int, more: bytes = b"") -> Any:
            own = head.replace(b"AQID", b"%04d" % number).replace(b"q7w2", b"%04d" % number)
            peer = f"203.0.113.{number % 50}"
            request = read_request(own + more % number if more else own)
            handshake = judge_request(request, "/ws/", secure=False, peer=peer)
            kept.append(packer.pack(handshake))
            self.assertEqual(unpack(kept[-1]), handshake)

        for more, most in ((b"", 500), (b"\r\nX-Request-Id: %036d", 1000)):
            packer, kept = Packer(), []
            for number in range(100):
                packed(number, more)
            self.assertLess(memory_of(kept) / 100, most)

    def test_what_handshakes_have_in_common_is_remembered_within_bounds(self) -> None:
        packer = Packer()
        for number in range(10_000):
            handshake = Handshake(
                path=f"/ws/{number}" + "x" * 10_000 * (number % 2), query="", websocket_url="/ws/",
                flags=(), headers={"a": f"{number}", "cookie": f"b={number}"}, key="",
                subprotocols=(), secure=True, peer=f"{number}",
            )  # fmt: skip
            self.assertEqual(unpack(packer.pack(handshake)), handshake)
        self.assertLess(len(packer), 5000)
        self.assertLess(memory_of(packer._known), 5_000_000)
        self.assertFalse([value for value in packer._known if "b=" in str(value)])

    def test_an_index_forgets_whom_it_lost(self) -> None:
        index: Index[str, int] = Index()
        for member in range(20):
            index.add("many", member)
            index.add("many", member)
        index.add(None, 1)
        index.add("one", 1)
        self.assertEqual(sorted(index.get("many")), list(range(20)))
        self.assertEqual((index.get("one"), index.get("none")), ((1,), ()))
        for member in range(20):
            index.discard("many", member)
            index.discard("one", member)
        self.assertEqual(len(index), 0)


class RechecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.running: dict[str, Deferred[None]] = {}
        self.checked: list[str] = []
        self.rechecks: RecheckQueue[str] = RecheckQueue(self.check, self.clock)

    def check(self, member: str) -> Deferred[None]:
        self.checked.append(member)
        self.running[member] = Deferred()
        return self.running[member]

    def finish(self, member: str) -> None:
        self.running.pop(member).callback(None)
        self.clock.advance(0)

    def test_two_are_asked_about_at_once_and_the_urgent_go_first(self) -> None:
        for member in "abcd":
            self.rechecks.eventually(member)
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a", "b"])
        self.rechecks.soon("d")
        self.finish("a")
        self.assertEqual(self.checked, ["a", "b", "d"])
        self.finish("b")
        self.finish("d")
        self.assertEqual(self.checked, ["a", "b", "d", "c"])

    def test_each_waits_once(self) -> None:
        for _ in range(3):
            self.rechecks.eventually("a")
            self.rechecks.soon("a")
            self.rechecks.eventually("a")
        self.clock.advance(0)
        self.finish("a")
        self.assertEqual(self.checked, ["a"])

    def test_who_is_asked_for_during_its_check_is_checked_again_after_it(self) -> None:
        self.rechecks.soon("a")
        self.clock.advance(0)
        self.rechecks.soon("a")
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a"])
        self.finish("a")
        self.assertEqual(self.checked, ["a", "a"])

    def test_a_check_of_who_left_is_cancelled_and_another_one_begins(self) -> None:
        for member in "abc":
            self.rechecks.soon(member)
        self.clock.advance(0)
        cancelled = self.running["a"].addErrback(lambda failure: failure.trap(CancelledError))
        self.rechecks.discard("a")
        self.successResultOf(cancelled)
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a", "b", "c"])

    def test_who_left_is_not_checked(self) -> None:
        self.rechecks.soon("a")
        self.rechecks.eventually("b")
        self.rechecks.discard("a")
        self.rechecks.discard("b")
        self.clock.advance(0)
        self.assertEqual(self.checked, [])

    def test_an_authorizer_that_answers_at_once_leaves_time_for_others(self) -> None:
        checked: list[int] = []

        def check(member: int) -> Deferred[None]:
            checked.append(member)
            return succeed(None)

        rechecks: RecheckQueue[int] = RecheckQueue(check, self.clock)
        for member in range(1000):
            rechecks.eventually(member)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(checked)))
        self.clock.advance(0)
        self.assertEqual(others, [50])
        self.assertEqual(checked, list(range(1000)))


class UnheardTests(RevocationTests):
    """What was said while nobody could hear it, or before a handshake could know it."""

    def test_a_handshake_that_spans_an_outage_is_looked_at_again(self) -> None:
        self.connect("mary")
        self.site.visitors["john"] = waiting = Deferred()
        client = self.connect("john")
        # Redis was away, and with it the word that John was logged out.
        self.broker.generation += 1
        self.clock.advance(1)
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
        self.factory.session_server.revocations._rechecks.eventually = self.fail
        self.say_again()
        self.assertEqual(client.close_code, 1008)

    def test_a_message_that_names_nobody_is_a_line_in_the_log(self) -> None:
        for verb in (LOGOUT, RECHECK, DISCONNECT):
            kind = "session" if verb == LOGOUT else "user"
            self.assertRaises(ValueError, read_revocation, Revocation(verb, kind, ()).payload)

    def test_no_repr_shows_a_cookie(self) -> None:
        self.connect("john")
        self.assertNotIn("who=john", repr(self.site.handshakes[0]))


def memory_of(thing: Any, seen: set[int] | None = None) -> int:
    """Of a tree of tuples, lists, dictionaries and strings; what it holds twice, once. Small
    numbers are everybody's.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or thing is None or isinstance(thing, int):
        return 0
    seen.add(id(thing))
    parts = (*thing, *thing.values()) if isinstance(thing, dict) else thing
    parts = () if isinstance(thing, str) else parts
    return sys.getsizeof(thing) + sum(memory_of(part, seen) for part in parts)
