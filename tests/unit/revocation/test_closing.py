"""A logout or a disconnection closes the websockets that it concerns."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import formatEvent, globalLogPublisher

from tests.unit.revocation.site import JOHN, RevocationTests
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import BrokerRefused
from ws4redis_tx.revocation.messages import (
    LOGOUT,
    Revocation,
    digest,
    disconnection,
    logout_entries,
    logout_lists,
)
from ws4redis_tx.service import disconnect
from ws4redis_tx.testing import MemoryBroker, MemoryClient


class LogoutTests(RevocationTests):
    def test_the_sessions_websockets_are_closed_with_1008_and_no_others(self) -> None:
        johns = [self.connect("john"), self.connect("john", "")]
        self.site.visitors["john elsewhere"] = Identity("other", "john", (), "1")
        others = [self.connect(name) for name in ("john elsewhere", "mary")]
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual([client.close_code for client in johns], [1008, 1008])
        self.assertEqual([client.close_code for client in others], [None, None])

    def test_whoever_logs_out_again_and_again_does_not_fill_the_log(self) -> None:
        lines: list[str | None] = []

        def observe(event: Any) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for number in range(20):
            name = f"john {number}"
            self.site.visitors[name] = Identity(name, "john", (), "1")
            self.connect(name)
            self.say(Revocation(LOGOUT, "session", (digest(name),)))
        self.assertEqual(
            [line for line in lines if line and line.startswith("Revoked")],
            ["Revoked 1 connections or rights: logout by session"],
        )
        self.clock.advance(60)
        self.assertEqual(
            lines[-1],
            "19 more like this in the last minute: Revoked 1 connections or rights: "
            "logout by session",
        )

    def test_the_sessions_key_is_refused_for_30_s(self) -> None:
        self.say(Revocation(LOGOUT, "session", (digest("john's"),)))
        self.assertEqual(self.connect("john").refused, 403)
        self.assertTrue(self.connect("mary").open)
        self.clock.advance(29)
        self.assertEqual(self.connect("john").refused, 403)
        self.clock.advance(2)
        self.assertTrue(self.connect("john").open)

    def test_a_server_that_is_started_afterwards_or_missed_it_in_an_outage_knows_it(self) -> None:
        broker = MemoryBroker()
        [(key, entry)] = logout_entries(
            "", Revocation(LOGOUT, "session", (digest("john's"),))
        ).items()
        broker.publish([key], b"2:another version\n" + entry + b"1:cut o", 60)
        self.use(broker)
        self.assertEqual(self.connect("john").refused, 403)
        self.assertTrue(self.connect("mary").open)
        self.clock.advance(31)
        john = self.connect("john")
        self.assertTrue(john.open)
        broker.lose_connection()
        broker.restore()
        self.assertEqual(john.close_code, 1008)
        self.assertEqual(self.connect("john").refused, 403)

    def test_a_list_that_cannot_be_read_harms_nothing(self) -> None:
        class Refusing(MemoryBroker):
            def get(self, channel: bytes) -> Deferred[Any]:
                if b"ctl:" in channel:
                    return fail(BrokerRefused("NOPERM"))
                return super().get(channel)

        self.use(Refusing())
        self.assertTrue(self.connect("john").open)
        self.assertEqual(
            len({key for number in range(200) for key in self.entries(str(number))}), 16
        )

    def entries(self, session: str) -> dict[bytes, bytes]:
        entries = logout_entries("", Revocation(LOGOUT, "session", (digest(session),)))
        self.assertLess(entries.keys(), {*logout_lists(""), b""})
        return entries

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
            {"facility": 7.5},
        ):
            with self.assertRaises(TypeError):
                disconnection(**wrong)
