"""A client of Centrifuge's protocol leaves, or loses its rights, while a command of its waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.support.channels import ChannelsTestCase, John, SlowJohn
from tests.support.memory import SlowBroker
from ws4redis_tx.testing import CentrifugeClient

A, B, KEPT = "broadcast:a", "broadcast:b", "broadcast:kept"

SLOW = "listen", "publish", "stream", "fence", "missed"


class WaitsTestCase(ChannelsTestCase):
    """Everything waits: the authorizer, and all that is asked of Redis."""

    def setUp(self) -> None:
        self.begin()

    def begin(self) -> None:
        self.john = SlowJohn()
        self.use(self.john, SlowBroker(*SLOW))
        # Only clients wait, and not the server's own channels.
        for each in self.broker.waiting:
            self.broker.answer(each)

    def answer(self) -> bool:
        """Answer whatever waits. Return whether anything did."""
        waited = bool(self.john.waiting) or any(self.broker.waiting.values())
        self.john.answer()
        for each in SLOW:
            self.broker.answer(each)
        return waited

    def answer_all(self) -> None:
        while self.answer():
            pass

    def known(self, query: str = "") -> CentrifugeClient:
        """A client that is connected."""
        client = self.connect(query)
        self.answer_all()
        self.assertTrue(client.connected)
        return client


def subscribe(client: CentrifugeClient) -> None:
    client.send("subscribe", channel=A)


def recover(client: CentrifugeClient) -> None:
    client.send("subscribe", channel=KEPT, recover=True, offset=1, epoch="1")


def publish(client: CentrifugeClient) -> None:
    client.send("publish", channel=KEPT, data=1)


def history(client: CentrifugeClient) -> None:
    client.send("history", channel=KEPT)


def own(client: CentrifugeClient) -> None:
    client.send_all(
        ("subscribe", {"channel": A}),
        ("publish", {"channel": A, "data": 1}),
        ("unsubscribe", {"channel": A}),
    )


def nothing(client: CentrifugeClient) -> None:
    """Only connects."""


STORIES: dict[str, tuple[str, Callable[[CentrifugeClient], None]]] = {
    "connect": ("", nothing),
    "connect with subscriptions": ("?facility=kept&subscribe-user&subscribe-broadcast", nothing),
    "subscribe": ("", subscribe),
    "recover": ("", recover),
    "publish": ("", publish),
    "history": ("", history),
    "one's own publications": ("", own),
}


class LeavingTests(WaitsTestCase):
    def waits(self, query: str, command: Callable[[CentrifugeClient], None]) -> Iterator[Any]:
        """Play a story as often as it has waits, each time up to the next one."""
        number = 0
        while True:
            self.begin()
            client = self.connect(query)
            steps = 0
            sent = False
            while steps < number or not sent:
                if client.connected and not sent:
                    sent = True
                    command(client)
                elif not self.answer():
                    break
                else:
                    steps += 1
            if steps < number:
                return
            yield client
            number = max(number, steps) + 1

    def test_it_leaves_nothing_behind_wherever_it_leaves(self) -> None:
        for name, (query, command) in STORIES.items():
            number = 0
            for client in self.waits(query, command):
                client.lose_connection()
                self.answer_all()
                with self.subTest(name, number=number):
                    self.assert_nothing_left()
                number += 1
            self.assertGreater(number, 0, name)

    def test_it_is_closed_and_leaves_nothing_behind_wherever_the_server_ends(self) -> None:
        for name, (query, command) in STORIES.items():
            for client in self.waits(query, command):
                self.factory.drain(1001)
                self.answer_all()
                self.clock.pump([1.0] * 4)
                with self.subTest(name):
                    self.assertFalse(client.websocket.open)
                    self.assert_nothing_left()

    def test_it_may_leave_in_an_outage_and_while_it_catches_up(self) -> None:
        for restored in (False, True):
            self.begin()
            client = self.known()
            client.send("subscribe", channel=KEPT)
            self.answer_all()
            self.broker.lose_connection()
            if restored:
                self.broker.restore()
            client.lose_connection()
            self.broker.restore()
            self.answer_all()
            self.assert_nothing_left()


class RevocationTests(WaitsTestCase):
    def test_a_subscription_that_is_taken_away_before_its_answer_is_answered_with_103(self) -> None:
        client = self.known()
        number = client.send("subscribe", channel=A)
        self.john.answer()  # now it waits for Redis
        self.take_away(facility="a")
        self.answer_all()
        self.assertEqual(client.answers[number].code, 103)
        self.assertEqual((client.pushes, client.connected), ([], True))
        self.assertEqual(list(self.broker.hub.channels), [])

    def test_so_is_one_whose_right_is_still_asked_for(self) -> None:
        client = self.known()
        number = client.send("subscribe", channel=A)
        self.take_away(facility="a")
        self.answer_all()
        self.assertEqual(client.answers[number].code, 103)
        self.assertEqual((client.pushes, client.connected), ([], True))

    def test_a_command_that_follows_asks_again(self) -> None:
        client = self.known()
        client.send("subscribe", channel=A)
        self.john.answer()
        self.take_away(facility="a")
        self.answer_all()
        client.send("subscribe", channel=A)
        self.answer_all()
        self.assertEqual(list(client.subscriptions), [A])
        self.say(1, facility="a")
        self.assertEqual(client.messages, [1])

    def test_a_publish_whose_right_is_taken_away_meanwhile_publishes_nothing(self) -> None:
        client = self.known()
        number = client.send("publish", channel=A, data=1)
        self.take_away(facility="a")
        self.answer_all()
        self.assertEqual(client.answers[number].code, 103)
        self.assertEqual(self.broker.persisted, {})

    def test_a_right_that_is_lost_while_another_is_asked_for_harms_nothing(self) -> None:
        client = self.known()
        client.send("subscribe", channel=A)
        self.answer_all()
        number = client.send("publish", channel=A, data=1)  # asks for a right on the same facility
        self.state().session.grants["a"].revoke()  # as a recheck does it
        self.answer_all()
        self.assertEqual([each.code for each in client.pushes], [2000])
        self.assertEqual(client.answers[number], {})
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_user_who_is_disconnected_is_closed_for_good_whatever_waits(self) -> None:
        for command in (subscribe, recover, publish, history, own):
            self.begin()
            client = self.known()
            command(client)
            self.take_away(user="john")
            self.answer_all()
            self.assertEqual(client.close_code, 3503, command.__name__)
            self.assertEqual(self.broker.persisted, {})
            client.lose_connection()
            self.assert_nothing_left()

    def test_one_of_the_servers_subscriptions_is_taken_away_while_another_waits(self) -> None:
        query = "?facility=a&facility=kept&subscribe-broadcast"
        client = self.connect(query)
        while "a" not in self.state().session.grants or not self.state().subscriptions:
            self.answer()
        self.take_away(facility="a")
        self.answer_all()
        self.assertTrue(client.connected)
        self.say(1, facility="a")
        self.say(2, facility="kept")
        self.assertEqual(client.messages, [2])
        self.assertEqual(list(client.subscriptions), [KEPT])
        client.lose_connection()
        self.assert_nothing_left()


class KeptRightsTests(ChannelsTestCase):
    def test_a_group_is_a_right_for_its_members(self) -> None:
        self.use(John())
        client = self.connect()
        numbers = [
            client.send("subscribe", channel=f"group:{each}:a") for each in ("staff", "others")
        ]
        self.assertEqual(client.answers[numbers[0]], {})
        self.assertEqual(client.answers[numbers[1]].code, 103)
