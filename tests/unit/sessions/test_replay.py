"""Persisted messages come first, then those that arrived during the replay: once each, in order."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.support.memory import Counting, SlowBroker, WebSocketTests
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.testing import MemoryBroker


class ReplayTests(WebSocketTests):
    def test_what_is_persisted_comes_first(self) -> None:
        self.publish(b"before", 60)
        client = self.connect()
        self.publish(b"after")
        self.assertEqual(client.messages, ["before", "after"])

    def test_what_arrives_while_replaying_comes_after_and_once(self) -> None:
        for step in ("get", "fence"):
            self.use(SlowBroker(step))
            self.publish(b"1", 60)
            client = self.connect()
            self.publish(b"2", 60)
            self.publish(b"3", 60)
            self.assertTrue(client.open)
            self.assertEqual(client.messages, [])
            self.broker.answer(step)  # type: ignore[attr-defined]
            self.assertEqual(client.messages[-2:], ["2", "3"])
            self.assertEqual(len(client.messages), len(set(client.messages)))

    def test_when_the_connection_is_replaced_meanwhile_replay_starts_again(self) -> None:
        class Replaced(MemoryBroker):
            fences = 0

            def fence(self, channels: Any = None) -> Deferred[None]:
                self.fences += 1
                if self.fences == 1:
                    self.generation = 1
                    return fail(BrokerUnavailable("replaced"))
                return super().fence()

        self.use(Replaced())
        self.publish(b"kept", 60)
        client = self.connect()
        self.assertEqual(client.messages, ["kept"])
        self.assertEqual(self.broker.fences, 2)  # type: ignore[attr-defined]

    def test_a_connection_lost_and_back_during_the_read_starts_the_replay_again(self) -> None:
        broker = SlowBroker("get")
        self.use(broker)
        client = self.connect()
        broker.generation += 1
        self.publish(b"meanwhile", 60)
        self.publish(b"missed", 60)  # as a broker does after an outage
        broker.answer("get")
        self.assertEqual(client.messages, [])
        broker.answer("get")
        self.assertEqual(client.messages, ["meanwhile", "missed"])

    def test_a_replay_that_redis_does_not_serve_is_tried_again_a_second_later(self) -> None:
        class Unwilling(Counting):
            tries = 0

            def send_persisted_messages(self, websocket: Any) -> Any:
                Unwilling.tries += 1
                if Unwilling.tries < 3:
                    raise BrokerUnavailable("not now")

        self.use(subscriber=Unwilling)
        client = self.connect()
        self.publish(b"live")
        self.clock.pump([1, 1])
        self.assertEqual((Unwilling.tries, client.messages), (3, ["live"]))

    def test_a_replay_that_fails_closes_with_1011(self) -> None:
        class Failing(Counting):
            def send_persisted_messages(self, websocket: Any) -> Any:
                raise RuntimeError("deliberate")

        self.use(subscriber=Failing)
        client = self.connect()
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_an_own_message_published_while_replaying_does_not_come_back(self) -> None:
        self.use(SlowBroker("get"))
        client = self.connect("subscribe-broadcast&publish-broadcast")
        client.send("mine")
        self.broker.answer("get")  # type: ignore[attr-defined]
        self.assertEqual(client.messages, [])

    def test_nor_does_one_from_a_replay_that_starts_again(self) -> None:
        broker = SlowBroker("get")
        self.use(broker)
        client = self.connect("subscribe-broadcast&publish-broadcast")
        broker.generation += 1
        client.send("mine")
        broker.answer("get")
        broker.answer("get")
        self.assertEqual(client.messages, [])
        self.publish(b"live")
        self.assertEqual(client.messages, ["live"])
