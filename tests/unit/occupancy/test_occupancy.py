"""Who is present: the grace, the signs of life, dead servers and outages. Redis is in memory."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.brokers import Listener
from tests.support.logs import log_lines
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import Announced, Joined, Publication
from ws4redis_tx.core.names import side_channel
from ws4redis_tx.delivery.direct import CAREFUL
from ws4redis_tx.delivery.multiplexed import MultiplexedFeed
from ws4redis_tx.occupancy import occupancy as occupancy_module
from ws4redis_tx.occupancy.occupancy import Occupancy
from ws4redis_tx.occupancy.register import PATIENCE, PERIOD
from ws4redis_tx.testing import MemoryBroker

ROOM = b"broadcast:room"
GRACE = 10


def info(client: str, user: str = "mary") -> bytes:
    return json.dumps({"user": user, "client": client}).encode()


class Client(MultiplexedFeed):
    def __init__(self) -> None:
        self.listener = Listener()

    def deliver(self, publication: Publication | Joined) -> None:
        for each in publication.parts:
            self.listener.deliver(each)

    @property
    def direct(self) -> Any:
        return CAREFUL


class OccupancyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock)
        self.calls: list[tuple[str, int]] = []
        self.spy()
        self.client = Client()
        self.successResultOf(self.broker.listen(side_channel("", ROOM), self.client))
        self.here = self.make()

    def make(self, grace: int = GRACE, patterns: Sequence[str] = ("*",)) -> Occupancy:
        """A server, which has started."""
        server = Occupancy(patterns, grace, self.broker, self.clock)
        server.start()
        return server

    def spy(self) -> None:
        store: Any = self.broker.presence
        for name in ("announce", "withdraw", "left_behind", "present"):
            setattr(store, name, self._noting(name, getattr(store, name)))

    def _noting(self, name: str, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = len(args[-1]) if name in ("announce", "withdraw") else 1
            self.calls.append((name, number))
            return function(*args, **kwargs)

        return call

    def enter(self, client: str, user: str = "mary", server: Occupancy | None = None) -> None:
        entered = (server or self.here).enter(ROOM, client, info(client, user))
        self.assertIsNone(self.successResultOf(entered))

    def events(self) -> list[str]:
        """The comings and goings that were published since the last call."""
        listener = self.client.listener
        heard = [
            f"{each.event} {json.loads(each.payload)['client']}"  # type: ignore[attr-defined]
            for each in listener.publications
        ]
        listener.publications.clear()
        return heard

    def present(self, server: Occupancy | None = None) -> list[str]:
        found = self.successResultOf((server or self.here).present(ROOM))
        for client, said in found.items():
            self.assertEqual(json.loads(said)["client"], client)
        return sorted(found)

    def pass_time(self, seconds: float) -> None:
        """Servers that are alive say so meanwhile."""
        self.clock.pump([PERIOD] * int(seconds / PERIOD) + [seconds % PERIOD])

    def kill(self, server: Occupancy) -> None:
        """Nothing of it runs any more, and nobody is told."""
        register: Any = server._register
        register._timer.stop()
        server._lost.stop()


class ComingAndGoingTests(OccupancyTestCase):
    def test_a_client_is_present_as_soon_as_its_entering_fires(self) -> None:
        self.enter("1")
        self.assertEqual(self.present(), ["1"])
        self.assertEqual(self.events(), ["join 1"])

    def test_unsubscribing_leaves_at_once(self) -> None:
        self.enter("1")
        self.here.leave(ROOM, "1", lost=False)
        self.assertEqual(self.events(), ["join 1", "leave 1"])
        self.assertEqual(self.present(), [])

    def test_a_lost_client_leaves_after_the_grace_and_once(self) -> None:
        self.enter("1")
        self.here.leave(ROOM, "1", lost=True)
        self.pass_time(GRACE - 1)
        self.assertEqual(self.present(), ["1"])
        self.here.leave(ROOM, "1", lost=True)  # its second end prolongs nothing
        self.pass_time(1)
        self.assertEqual(self.events(), ["join 1", "leave 1"])
        self.assertEqual(self.present(), [])
        self.here.leave(ROOM, "1", lost=False)
        self.pass_time(60)
        self.assertEqual(self.events(), [])

    def test_a_user_who_is_back_joins_before_the_old_connection_leaves(self) -> None:
        self.enter("old")
        self.here.leave(ROOM, "old", lost=True)
        self.pass_time(2)
        self.enter("new", server=self.make())
        self.pass_time(GRACE)
        self.assertEqual(self.events(), ["join old", "join new", "leave old"])
        self.assertEqual(self.present(), ["new"])

    def test_of_three_tabs_each_leaves_once_and_the_user_stays_until_the_last(self) -> None:
        for tab in "123":
            self.enter(tab)
        self.here.leave(ROOM, "1", lost=False)
        self.here.leave(ROOM, "2", lost=True)
        self.assertEqual(self.events(), ["join 1", "join 2", "join 3", "leave 1"])
        self.pass_time(GRACE)
        self.assertEqual(self.events(), ["leave 2"])
        self.assertTrue(self.successResultOf(self.broker.presence.is_online("", "mary")))
        self.here.leave(ROOM, "3", lost=True)
        self.pass_time(GRACE)
        self.assertEqual(self.events(), ["leave 3"])
        self.assertFalse(self.successResultOf(self.broker.presence.is_online("", "mary")))

    def test_without_a_grace_a_lost_client_leaves_at_once(self) -> None:
        here = self.make(grace=0)
        self.enter("1", server=here)
        here.leave(ROOM, "1", lost=True)
        self.assertEqual(self.events(), ["join 1", "leave 1"])

    def test_a_client_that_leaves_and_enters_again_in_one_turn_does_both(self) -> None:
        self.enter("1")
        self.broker.delay = 1
        self.here.leave(ROOM, "1", lost=False)
        self.here.enter(ROOM, "1", info("1"))
        self.here.leave(ROOM, "1", lost=False)
        self.here.enter(ROOM, "1", info("1"))
        self.clock.pump([1] * 9)
        self.assertEqual(self.events(), ["join 1", "leave 1", "join 1", "leave 1", "join 1"])
        self.broker.delay = 0
        self.assertEqual(self.present(), ["1"])

    def test_a_client_that_was_never_there_cannot_leave(self) -> None:
        self.here.leave(ROOM, "1", lost=False)
        self.here.leave(ROOM, "1", lost=True)
        self.assertNotIn("withdraw", dict(self.calls))

    def test_more_lost_clients_than_are_remembered_leave_at_once(self) -> None:
        self.patch(occupancy_module, "MOST_LOST", 2)
        for client in "123":
            self.enter(client)
            self.here.leave(ROOM, client, lost=True)
        self.assertEqual(self.events()[-1], "leave 3")
        self.pass_time(GRACE)
        self.assertEqual(self.events(), ["leave 1", "leave 2"])

    def test_facilities_that_match_no_pattern_know_nobody(self) -> None:
        here = self.make(patterns=("chat/*", "lobby"))
        self.assertTrue(here.watches("chat/a/b"))
        self.assertTrue(here.watches("lobby"))
        self.assertFalse(here.watches("lobby2"))
        self.assertFalse(here.watches("Lobby"))

    def test_a_broker_that_knows_no_presence_watches_nothing(self) -> None:
        here = Occupancy(["*"], GRACE, object(), self.clock)
        here.start()
        self.assertFalse(here.watches("room"))
        self.assertIsNone(self.successResultOf(here.enter(ROOM, "1", info("1"))))
        here.leave(ROOM, "1", lost=True)
        self.failureResultOf(here.present(ROOM), BrokerUnavailable)
        self.successResultOf(here.stop())

    def test_without_patterns_nothing_is_ever_told(self) -> None:
        self.calls.clear()
        calls = len(self.clock.getDelayedCalls())
        self.make(patterns=())
        self.assertEqual((len(self.clock.getDelayedCalls()), self.calls), (calls, []))


class CostTests(OccupancyTestCase):
    def test_a_server_gives_one_sign_of_life_each_period_however_many_clients_it_has(self) -> None:
        for number in range(300):
            self.enter(str(number))
        self.calls.clear()
        self.pass_time(60)
        self.assertEqual([name for name, _ in self.calls], ["announce"] * 12)
        self.assertLessEqual(max(number for _, number in self.calls), 1)

    def test_each_client_is_confirmed_before_redis_forgets_it(self) -> None:
        for number in range(20):
            self.enter(str(number))
        self.calls.clear()
        self.pass_time(12 * 3600)
        self.assertGreaterEqual(sum(number for name, number in self.calls), 20)

    def test_those_who_come_and_go_together_are_told_together(self) -> None:
        self.calls.clear()
        self.broker.delay = 1
        for number in range(250):
            self.here.enter(ROOM, str(number), info(str(number)))
        self.clock.pump([1] * 4)
        announced = [number for _, number in self.calls if number]
        self.assertEqual(announced, [1, 100, 100, 49], self.calls)
        self.broker.delay = 0
        self.assertEqual(len(self.present()), 250)

    def test_those_who_ask_together_share_an_answer_from_after_their_question(self) -> None:
        self.calls.clear()
        self.broker.delay = 1
        first = self.here.present(ROOM)
        self.here.enter(ROOM, "1", info("1"))
        others = [self.here.present(ROOM) for _ in range(5)]
        self.clock.pump([1] * 4)
        self.assertEqual(self.successResultOf(first), {})
        for each in others:
            self.assertEqual(list(self.successResultOf(each)), ["1"])
        self.assertEqual([name for name, _ in self.calls].count("present"), 2)


class DeadServerTests(OccupancyTestCase):
    def test_the_clients_of_a_killed_server_leave_once_within_a_minute(self) -> None:
        others = [self.make() for _ in range(2)]
        killed = self.make()
        self.pass_time(PATIENCE)
        for number in range(50):
            self.enter(str(number), str(number), killed)
        self.kill(killed)
        for number in range(25):
            self.enter(f"again {number}", str(number), others[number % 2])
        self.assertEqual(len(self.events()), 75)
        self.pass_time(GRACE)
        self.assertEqual(self.events(), [])
        self.pass_time(50 - GRACE)
        events = self.events()
        self.assertEqual(sorted(events), sorted(f"leave {number}" for number in range(50)))
        self.assertEqual(self.present(), sorted(f"again {number}" for number in range(25)))

    def test_the_grace_holds_for_them_too(self) -> None:
        here, killed = self.make(grace=40), self.make(grace=40)
        self.pass_time(50)
        self.enter("1", server=killed)
        self.pass_time(PERIOD)
        self.kill(killed)
        self.pass_time(39)
        self.assertEqual((self.events(), self.present(here)), (["join 1"], ["1"]))
        self.pass_time(20)
        self.assertEqual((self.events(), self.present(here)), (["leave 1"], []))

    def test_a_new_server_lets_the_others_come_back_first(self) -> None:
        self.enter("1")
        self.kill(self.here)
        self.pass_time(60)
        self.events()
        new = self.make()
        self.pass_time(PATIENCE - 1)
        self.assertEqual(self.events(), [])
        self.assertEqual(self.present(new), [])
        self.pass_time(PERIOD)
        self.assertEqual(self.events(), ["leave 1"])

    def test_after_a_long_outage_nobody_is_taken_for_dead_who_comes_back_later(self) -> None:
        other = self.make()
        self.enter("1", server=other)
        self.pass_time(PATIENCE)
        register: Any = other._register
        register._timer.stop()
        self.broker.lose_connection()
        self.pass_time(120)
        self.broker.restore()
        self.pass_time(PATIENCE - PERIOD)
        register.start()
        self.pass_time(60)
        self.assertEqual(self.events(), ["join 1"])
        self.assertEqual(self.present(), ["1"])

    def test_a_server_that_was_taken_for_dead_announces_its_clients_again(self) -> None:
        other = self.make()
        self.pass_time(PATIENCE)
        self.enter("1", server=other)
        register: Any = other._register
        register._timer.stop()  # as if the process had been stopped
        self.pass_time(60)
        self.assertEqual(self.events(), ["join 1", "leave 1"])
        register.start()
        self.pass_time(2 * PERIOD)
        self.assertEqual(self.events(), ["join 1"])
        self.assertEqual(self.present(), ["1"])

    def test_a_server_that_stops_leaves_its_clients_to_the_others(self) -> None:
        other = self.make()
        self.pass_time(PATIENCE)
        self.enter("1", server=other)
        self.enter("2", server=other)
        other.leave(ROOM, "1", lost=True)
        self.successResultOf(other.stop())
        self.successResultOf(other.stop())
        self.pass_time(GRACE - 1)
        self.assertEqual(self.present(), ["1", "2"])
        self.pass_time(PERIOD + 1)
        self.assertEqual(self.events()[2:], ["leave 1", "leave 2"])

    def test_a_server_that_has_stopped_may_start_again(self) -> None:
        self.enter("1")
        self.successResultOf(self.here.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.here.start()
        self.enter("2")
        self.pass_time(60)
        self.assertEqual(self.events(), ["join 1", "join 2", "leave 1"])
        self.assertEqual(self.present(), ["2"])


class OutageTests(OccupancyTestCase):
    def test_a_redis_that_lost_everything_is_told_again(self) -> None:
        for client in "123":
            self.enter(client)
        self.events()
        self.broker.lose_connection()
        self.broker.presence.clear()
        self.broker.restore()
        self.pass_time(2 * PERIOD)
        self.assertEqual(self.present(), ["1", "2", "3"])
        self.assertEqual(self.events(), ["join 1", "join 2", "join 3"])

    def test_so_is_one_that_was_emptied_while_it_was_connected(self) -> None:
        self.enter("1")
        self.broker.presence.clear()
        self.pass_time(3 * PERIOD)
        self.assertEqual(self.present(), ["1"])

    def test_nobody_joins_or_leaves_because_of_an_outage(self) -> None:
        self.enter("1")
        self.events()
        self.broker.lose_connection()
        self.pass_time(12)
        self.broker.restore()
        self.pass_time(120)
        self.assertEqual((self.events(), self.present()), ([], ["1"]))

    def test_those_who_come_and_go_meanwhile_are_told_afterwards(self) -> None:
        self.enter("1")
        self.enter("2")
        self.events()
        self.broker.lose_connection()
        self.here.leave(ROOM, "1", lost=True)
        self.here.leave(ROOM, "2", lost=False)
        self.enter("3")
        self.pass_time(GRACE + 1)
        self.broker.restore()
        self.pass_time(2 * PERIOD)
        self.assertEqual(self.present(), ["3"])
        self.assertEqual(sorted(self.events()), ["join 3", "leave 1", "leave 2"])

    def test_what_clients_do_in_an_outage_takes_no_memory(self) -> None:
        self.enter("there")
        self.broker.lose_connection()
        for _ in range(1000):
            self.enter("again")
            self.here.leave(ROOM, "again", lost=False)
            self.enter("there")
            self.here.leave(ROOM, "there", lost=False)
        register: Any = self.here._register
        self.assertLessEqual(len(register._changes), 3)
        self.broker.restore()
        self.pass_time(2 * PERIOD)
        self.assertEqual((self.present(), register._changes), ([], register._changes.__class__()))

    def test_a_lost_answer_neither_repeats_a_join_nor_loses_a_client(self) -> None:
        self.broker.delay = 1
        entered = self.here.enter(ROOM, "1", info("1"))
        self.broker.lose_connection()
        self.assertIsNone(self.successResultOf(entered))
        self.broker.delay = 0
        self.broker.restore()
        self.pass_time(60)
        self.assertEqual(self.present(), ["1"])
        self.assertLessEqual(len(self.events()), 1)

    def test_a_lost_answer_repeats_no_leave_and_loses_none(self) -> None:
        self.enter("1")
        self.broker.delay = 1
        self.here.leave(ROOM, "1", lost=False)
        self.broker.lose_connection()
        self.broker.delay = 0
        self.broker.restore()
        self.pass_time(60)
        self.assertEqual(self.present(), [])

    def test_nobody_is_told_who_is_present_while_redis_is_away(self) -> None:
        self.broker.lose_connection()
        self.failureResultOf(self.here.present(ROOM), BrokerUnavailable)

    def test_a_refusal_is_logged_once_and_tried_again(self) -> None:
        lines = log_lines(self)
        store: Any = self.broker.presence
        announce = store.announce
        store.announce = lambda *args: fail(BrokerRefused("NOPERM"))
        self.enter("1")
        self.pass_time(60)
        self.assertEqual([line for line in lines if "NOPERM" in line], [lines[-1]])
        store.announce = announce
        self.pass_time(PERIOD)
        self.assertEqual(self.present(), ["1"])

    def test_a_mistake_is_logged_and_tried_again(self) -> None:
        store: Any = self.broker.presence
        announce = store.announce

        def broken(*args: Any) -> Deferred[Announced]:
            raise ZeroDivisionError

        store.announce = broken
        self.enter("1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        store.announce = announce
        self.pass_time(PERIOD)
        self.assertEqual(self.present(), ["1"])
