"""Visitors who lose a right lose the websockets that use it. In memory; the test moves time."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel

from tests.unit.revocation.site import JOHN, RevocationTests
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import Denied, Outage
from ws4redis_tx.revocation.messages import LOGOUT, RECHECK, Revocation, digest, read_revocation


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
        self.outage()
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

    def test_the_authorizer_sees_the_same_handshake_and_that_it_is_a_recheck(self) -> None:
        self.connect("john")
        self.recheck()
        before, after = self.site.handshakes
        self.assertIs(before.recheck, False)
        self.assertEqual(after, replace(before, recheck=True))

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

    def test_one_that_is_given_up_is_no_failure(self) -> None:
        """A right on one channel may end by itself, and a connection may be admitted anew."""
        self.connect("john")
        self.site.visitors["john"] = Deferred()
        self.say(Revocation(RECHECK, "user", ("1",)))
        (session,) = self.factory.session_server.sessions
        self.factory.session_server.revocations.closed(session)
        self.assertFalse(session.ended)
        self.assertEqual(self.flushLoggedErrors(), [])


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

    def test_time_alone_counts_whatever_else_asks_for_rechecks(self) -> None:
        def with_a_short_period() -> None:
            self.clock.advance(0.5)

        def with_a_message_every_half_second() -> None:
            self.say(Revocation(RECHECK, "user", ("1",)))
            self.clock.advance(0.5)

        for recheck, step in ((3, with_a_short_period), (0, with_a_message_every_half_second)):
            self.use(recheck=recheck)
            client = self.connect("john")
            self.site.visitors["john"] = LookupError("no database")
            events = self.logged()
            while not events:
                step()
            (event,) = events
            failed = self.clock.seconds()
            while self.clock.seconds() - failed < event["seconds"] - 1:
                step()
            self.assertIsNone(client.close_code)
            for _ in range(4):
                step()
            self.assertEqual(client.close_code, 1011)
            self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    def test_an_outage_that_has_a_line_gets_no_other_from_rechecks(self) -> None:
        client, events = self.connect("john"), self.logged()
        self.site.visitors["john"] = Outage("the database")
        self.say(Revocation(RECHECK, "user", ("1",)))
        self.clock.pump([0.5] * 30)
        self.assertEqual(events, [])
        self.assertTrue(client.open)

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
        self.outage()
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
            if not re.match(rb"\d+:", payload):
                self.assertIsInstance(read_revocation(payload), Revocation)
            elif not payload.startswith(b"2:"):
                self.assertIsNone(read_revocation(payload))
