"""One contract for presence (``IPresence``), kept by the real broker and by the one for tests."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.brokers import BrokerTestCase, Listener, start_broker
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Announced, Joined, Occupant, Publication
from ws4redis_tx.core.names import side_channel
from ws4redis_tx.delivery.direct import CAREFUL
from ws4redis_tx.delivery.multiplexed import MultiplexedFeed
from ws4redis_tx.redis.presence.scripts import LONGEST
from ws4redis_tx.testing import MemoryBroker

ROOM, STAFF = b"broadcast:chat/room", b"group:the\nstaff :chat/room"
MARYS, TENANTS = b"user:mary:chat/room", b"t:acme:broadcast:chat/room"
NAMES = ("mary", "", "joe@example.com", "größe: a b", "0 1", "tab\there")


def occupant(client: str, user: str = "mary", channel: bytes = ROOM) -> Occupant:
    info = json.dumps({"user": user, "client": client, "conn_info": {"a": "b c\n"}})
    return Occupant(channel, client, user, info.encode())


class Client(MultiplexedFeed):
    """A client's feed that shows what it is handed: comings and goings are for clients alone."""

    def __init__(self) -> None:
        self.listener = Listener()

    def deliver(self, publication: Publication | Joined) -> None:
        for each in publication.parts:
            self.listener.deliver(each)

    @property
    def direct(self) -> Any:
        return CAREFUL


class PresenceContract:
    """The promises of ``IPresence``. ``self.broker`` is available."""

    broker: Any

    @property
    def presence(self) -> Any:
        return self.broker.presence

    def announce(self, server: str, *occupants: Occupant, lasting: float = 30) -> Any:
        return self.presence.announce(server, lasting, occupants)

    @inlineCallbacks
    def clients(self, channel: bytes = ROOM) -> Any:
        found = yield self.presence.present(channel)
        return sorted(each.client for each in found)

    @inlineCallbacks
    def listen(self, *channels: bytes) -> Any:
        client = Client()
        for channel in channels:
            yield self.broker.listen(channel, client)
        return client.listener

    @inlineCallbacks
    def events(self, listener: Listener, number: int) -> Any:
        """The first events, and nothing beyond."""
        yield listener.wait_for(number)
        yield self.broker.fence()
        self.assertEqual(len(listener.publications), number)
        return [(getattr(each, "event", "message"), each.payload) for each in listener.publications]

    # Comings and goings

    @inlineCallbacks
    def test_a_client_joins_once_and_leaves_once(self) -> Any:
        listener = yield self.listen(side_channel("", ROOM))
        one = occupant("one")
        yield self.announce("s", one)
        yield self.announce("s", one)
        yield self.presence.withdraw("s", [one])
        yield self.presence.withdraw("s", [one])
        events = yield self.events(listener, 2)
        self.assertEqual(events, [("join", one.info), ("leave", one.info)])

    @inlineCallbacks
    def test_joins_and_leaves_are_in_order_with_messages(self) -> Any:
        listener = yield self.listen(side_channel("", ROOM), ROOM)
        one, two = occupant("one"), occupant("two")
        asked = [
            self.broker.publish([ROOM], b"1", 0),
            self.announce("s", one),
            self.broker.publish([ROOM], b"2", 0),
            self.announce("s", two),
            self.presence.withdraw("s", [one]),
            self.broker.publish([ROOM], b"3", 0),
        ]
        yield gatherResults(asked)
        events = yield self.events(listener, 6)
        self.assertEqual(
            events,
            [
                ("message", b"1"),
                ("join", one.info),
                ("message", b"2"),
                ("join", two.info),
                ("leave", one.info),
                ("message", b"3"),
            ],
        )

    @inlineCallbacks
    def test_those_who_listen_to_messages_alone_hear_nothing_of_it(self) -> Any:
        listener = yield self.listen(ROOM)
        yield self.announce("s", occupant("one"))
        yield self.broker.publish([ROOM], b"1", 0)
        self.assertEqual((yield self.events(listener, 1)), [("message", b"1")])

    @inlineCallbacks
    def test_a_client_is_present_on_each_channel_by_itself(self) -> Any:
        yield self.announce("s", occupant("one"), occupant("one", channel=STAFF))
        yield self.presence.withdraw("s", [occupant("one")])
        self.assertEqual((yield self.clients()), [])
        self.assertEqual((yield self.clients(STAFF)), ["one"])

    @inlineCallbacks
    def test_nobody_is_told_of_a_user_s_own_channel(self) -> Any:
        listener = yield self.listen(side_channel("", MARYS))
        one = occupant("one", channel=MARYS)
        yield self.announce("s", one)
        self.assertTrue((yield self.presence.is_online("", "mary")))
        yield self.presence.withdraw("s", [one])
        self.assertFalse((yield self.presence.is_online("", "mary")))
        yield self.events(listener, 0)

    # What is told

    @inlineCallbacks
    def test_a_server_is_told_how_many_clients_it_has(self) -> Any:
        self.assertEqual((yield self.announce("s", occupant("one"))), Announced(0, []))
        two = occupant("two"), occupant("two", channel=STAFF)
        self.assertEqual((yield self.announce("s", *two)), Announced(1, []))
        self.assertEqual((yield self.announce("s", *two)), Announced(3, []))
        self.assertEqual((yield self.presence.withdraw("s", two[:1])), 2)
        self.assertEqual((yield self.announce("s")), Announced(2, []))
        self.assertEqual((yield self.announce("other")), Announced(0, []))

    @inlineCallbacks
    def test_the_clients_of_all_servers_are_present_with_what_is_said_of_them(self) -> Any:
        there = [occupant(f"client {i}", user) for i, user in enumerate(NAMES)]
        for number, each in enumerate(there):
            yield self.announce(f"s{number % 3}", each)
        found = yield self.presence.present(ROOM)
        self.assertEqual(sorted(found), sorted(there))
        names = yield self.presence.present(ROOM, infos=False)
        self.assertEqual(sorted(each.user for each in names), sorted(NAMES))

    @inlineCallbacks
    def test_thousands_are_present(self) -> Any:
        there = [occupant(f"{i:04}", str(i % 7)) for i in range(3500)]
        for start in range(0, len(there), 100):
            yield self.announce("s", *there[start : start + 100])
        self.assertEqual((yield self.clients()), [each.client for each in there])
        names = yield self.presence.present(ROOM, infos=False)
        self.assertEqual(len(names), 3500)

    @inlineCallbacks
    def test_a_user_is_online_until_the_last_client_has_gone(self) -> Any:
        tabs = [occupant("1"), occupant("2"), occupant("2", channel=STAFF)]
        yield self.announce("s", tabs[0])
        yield self.announce("other", *tabs[1:])
        for tab, server in zip(tabs, ("s", "other", "other"), strict=True):
            self.assertTrue((yield self.presence.is_online("", "mary")))
            yield self.presence.withdraw(server, [tab])
        self.assertFalse((yield self.presence.is_online("", "mary")))
        self.assertFalse((yield self.presence.is_online("", "joe")))

    @inlineCallbacks
    def test_anonymous_visitors_are_nobody_who_is_online(self) -> Any:
        yield self.announce("s", occupant("1", ""))
        self.assertFalse((yield self.presence.is_online("", "")))

    @inlineCallbacks
    def test_tenants_share_nobody(self) -> Any:
        listener = yield self.listen(side_channel("", ROOM))
        yield self.announce("s", occupant("one", channel=TENANTS))
        self.assertEqual((yield self.clients()), [])
        self.assertEqual((yield self.clients(TENANTS)), ["one"])
        self.assertFalse((yield self.presence.is_online("", "mary")))
        self.assertTrue((yield self.presence.is_online("acme", "mary")))
        self.assertFalse((yield self.presence.is_online("other", "mary")))
        yield self.events(listener, 0)

    # Dead servers

    @inlineCallbacks
    def test_the_clients_of_a_dead_server_are_not_present(self) -> Any:
        yield self.announce("dead", occupant("one"), lasting=0)
        yield self.announce("s", occupant("two"))
        self.assertEqual((yield self.clients()), ["two"])
        yield self.presence.withdraw("s", [occupant("two")])
        self.assertFalse((yield self.presence.is_online("", "mary")))

    @inlineCallbacks
    def test_servers_are_told_of_the_dead(self) -> Any:
        yield self.announce("dead", occupant("one"), lasting=0)
        self.assertEqual((yield self.announce("s")).dead, ["dead"])

    @inlineCallbacks
    def test_a_dead_server_s_clients_leave_once_whoever_takes_them(self) -> Any:
        listener = yield self.listen(side_channel("", ROOM))
        there = [occupant(f"{i:02}", NAMES[i % len(NAMES)]) for i in range(50)]
        yield self.announce("dead", *there, lasting=0)
        yield listener.wait_for(50)
        found = yield self.presence.left_behind("dead")
        self.assertEqual(sorted(each[:3] for each in found), sorted(each[:3] for each in there))
        lefts = yield gatherResults(
            [self.presence.withdraw("dead", found, dead=True) for _ in range(3)]
        )
        self.assertEqual(lefts, [0, 0, 0])
        events = yield self.events(listener, 100)
        self.assertEqual(sorted(events[50:]), sorted(("leave", each.info) for each in there))
        self.assertEqual((yield self.presence.left_behind("dead")), [])
        self.assertEqual((yield self.announce("s")).dead, [])

    @inlineCallbacks
    def test_nothing_is_taken_from_a_server_that_is_alive(self) -> Any:
        one = occupant("one")
        yield self.announce("late", one, lasting=0)
        yield self.announce("late")
        self.assertEqual((yield self.presence.withdraw("late", [one], dead=True)), 0)
        self.assertEqual((yield self.clients()), ["one"])

    @inlineCallbacks
    def test_a_client_that_another_server_has_announced_since_stays(self) -> Any:
        listener = yield self.listen(side_channel("", ROOM))
        one = occupant("one")
        yield self.announce("old", one, lasting=0)
        yield self.announce("new", one)
        self.assertEqual((yield self.presence.withdraw("old", [one], dead=True)), 0)
        self.assertEqual((yield self.clients()), ["one"])
        self.assertTrue((yield self.presence.is_online("", "mary")))
        self.assertEqual((yield self.events(listener, 1)), [("join", one.info)])
        self.assertEqual((yield self.announce("new")), Announced(1, []))


class MemoryPresenceTests(PresenceContract, TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.broker = MemoryBroker()

    @inlineCallbacks
    def test_a_lost_connection_fails(self) -> Any:
        self.broker.lose_connection()
        for call in (
            self.announce("s"),
            self.presence.withdraw("s", []),
            self.presence.left_behind("s"),
            self.presence.present(ROOM),
            self.presence.is_online("", "mary"),
        ):
            yield self.assertFailure(call, BrokerUnavailable)


class RedisPresenceTests(PresenceContract, BrokerTestCase):
    def names(self) -> list[bytes]:
        return sorted(self.redis.command("KEYS", "*"))

    @inlineCallbacks
    def test_the_names_in_redis(self) -> Any:
        yield self.announce("s", occupant("one"), occupant("one", channel=TENANTS))
        self.assertEqual(
            self.names(),
            [
                b"alive:s",
                b"alive:servers",
                b"presence::mary",
                b"presence:broadcast:chat/room",
                b"t:acme:presence::mary",
                b"t:acme:presence:t:acme:broadcast:chat/room",
            ],
        )

    @inlineCallbacks
    def test_the_names_in_redis_with_a_prefix(self) -> Any:
        broker = start_broker(self, self.redis.address, "p")
        yield broker.when_available()
        yield broker.presence.announce("s", 30, [occupant("one", channel=b"p:" + ROOM)])
        yield broker.presence.announce("s", 30, [occupant("one", channel=b"p:" + TENANTS)])
        self.assertEqual(
            self.names(),
            [
                b"p:alive:s",
                b"p:alive:servers",
                b"p:presence::mary",
                b"p:presence:p:broadcast:chat/room",
                b"p:t:acme:presence::mary",
                b"p:t:acme:presence:p:t:acme:broadcast:chat/room",
            ],
        )

    @inlineCallbacks
    def test_those_who_leave_leave_nothing(self) -> Any:
        there = [occupant("one"), occupant("one", channel=STAFF), occupant("two", "")]
        yield self.announce("s", *there)
        yield self.presence.withdraw("s", there)
        self.assertEqual(self.names(), [b"alive:servers"])
        yield self.announce("s", *there, lasting=0)
        yield self.presence.withdraw("s", there, dead=True)
        self.assertEqual(self.names(), [])

    @inlineCallbacks
    def test_everything_expires(self) -> Any:
        yield self.announce("s", occupant("one"))
        for name in self.names():
            self.assertGreater(self.redis.command("TTL", name), 80_000, name)
            self.redis.command("EXPIRE", name, 100)
        yield self.announce("s", occupant("one"))
        for name in self.names():
            self.assertGreater(self.redis.command("TTL", name), 80_000, name)

    @inlineCallbacks
    def test_a_clock_that_was_set_back_keeps_no_server_alive(self) -> Any:
        yield self.announce("dead", occupant("one"))
        later = float(self.redis.command("TIME")[0]) + 3600
        self.redis.command("ZADD", "alive:servers", later, "dead")
        self.assertEqual((yield self.clients()), [])
        yield self.announce("s")
        score = float(self.redis.command("ZSCORE", "alive:servers", "dead"))
        self.assertLess(score, later - 3600 + LONGEST)
        self.assertEqual((yield self.clients()), ["one"])

    @inlineCallbacks
    def test_a_key_of_another_type_harms_its_own_channel_alone(self) -> Any:
        self.redis.command("SET", "presence:" + ROOM.decode(), "a string")
        one, two = occupant("one"), occupant("two", channel=STAFF)
        yield self.announce("s", one, two)
        self.assertEqual((yield self.clients(STAFF)), ["two"])
        self.assertEqual((yield self.announce("s")), Announced(2, []))
        yield self.presence.withdraw("s", [one, two])
        self.assertEqual((yield self.announce("s")), Announced(0, []))
        self.assertEqual(len(self.flushLoggedErrors()), 0)
