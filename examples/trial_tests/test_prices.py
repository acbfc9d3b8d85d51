"""Tests of a Twisted application: the real server, over a fake connection and an in-memory Redis.

Nothing here waits: when a call returns, all of its effects have happened.
"""

from __future__ import annotations

import math

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.service import ServerConfig
from ws4redis_tx.testing import MemoryClient, connect, make_memory_factory

from .prices import CustomerAuthorizer, PriceFeed


class PriceTests(SynchronousTestCase):
    heartbeat: str | None = None

    def setUp(self) -> None:
        config = ServerConfig(heartbeat=self.heartbeat)
        self.clock = Clock()
        self.factory = make_memory_factory(
            config,
            authorizer=CustomerAuthorizer({"s3cret": "john"}),
            clock=self.clock,
        )
        self.broker = self.factory.broker
        self.feed = PriceFeed(config, self.broker, self.clock)

    def connect(
        self, path: str, token: str = "s3cret", origin: str | None = "http://localhost"
    ) -> MemoryClient:
        return connect(
            self.factory, f"ws://localhost/ws/{path}", cookies={"token": token}, origin=origin
        )


class AccessTests(PriceTests):
    def test_a_customer_receives_prices(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.assertTrue(self.successResultOf(self.feed.tell("gold", "1900")))
        self.assertEqual(john.messages, ["1900"])

    def test_nobody_else_does(self) -> None:
        self.assertEqual(self.connect("gold?subscribe-broadcast", token="wrong").refused, 403)

    def test_nor_does_a_customer_on_somebody_elses_page(self) -> None:
        there = self.connect("gold?subscribe-broadcast", origin="http://evil.example")
        self.assertEqual(there.refused, 403)

    def test_a_warning_is_for_one_customer(self) -> None:
        john = self.connect("warnings?subscribe-user&subscribe-broadcast")
        self.feed.warn("mary", "hurry")
        self.feed.warn("john", "wait")
        self.assertEqual(john.messages, ["wait"])
        self.assertEqual(self.broker.persisted, {})


class WebsocketTests(PriceTests):
    def test_a_late_customer_starts_with_the_last_price(self) -> None:
        for price in ("1900", "1950"):
            self.feed.tell("gold", price)
        self.assertEqual(self.connect("gold?subscribe-broadcast").messages, ["1950"])
        self.clock.advance(3600)  # WS4REDIS_EXPIRE
        self.assertEqual(self.connect("gold?subscribe-broadcast").messages, [])

    def test_windows_of_one_customer_talk_to_each_other(self) -> None:
        here, there = (self.connect("gold?subscribe-user&publish-user") for _ in range(2))
        here.send("sold")
        here.send(b"\xff")
        self.assertEqual((here.messages, there.messages), ([], ["sold", b"\xff"]))

    def test_a_customer_leaves(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        john.close()
        self.assertEqual((john.open, john.close_code), (False, 1000))
        self.feed.tell("gold", "1900")
        self.assertEqual(john.messages, [])

    def test_the_server_goes_down(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        gone = self.factory.drain(1001)
        self.assertEqual(john.close_code, 1001)
        john.lose_connection()
        self.successResultOf(gone)


class HeartbeatTests(PriceTests):
    heartbeat = "--beat--"

    def test_a_heartbeat_comes_at_least_every_five_seconds(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.clock.pump([0.5] * 10)
        self.assertIn("--beat--", john.messages)


class TroubleTests(PriceTests):
    def test_delayed_prices_arrive_in_order(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.broker.delay = math.inf
        for price in ("1900", "1950", "1920"):
            self.feed.tell("gold", price)
        self.assertEqual(john.messages, [])
        john.flush()
        self.assertEqual(john.messages, ["1900", "1950", "1920"])

    def test_a_slow_redis_keeps_a_customer_waiting_and_loses_nothing(self) -> None:
        self.feed.tell("gold", "1900")
        self.broker.delay = 0.1
        john = self.connect("gold?subscribe-broadcast")
        self.assertFalse(john.open)
        self.clock.pump([0.1] * 3)
        self.assertTrue(john.open)
        self.assertEqual(john.messages, ["1900"])

    def test_a_price_that_was_not_published_is_published_a_second_later(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.broker.fail_next()
        told = self.feed.tell("gold", "1900")
        self.assertNoResult(told)
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(told))
        self.assertEqual(john.messages, ["1900"])

    def test_a_price_that_may_have_been_published_is_not_published_again(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.broker.fail_next(maybe_published=True)
        self.assertFalse(self.successResultOf(self.feed.tell("gold", "1900")))
        self.assertEqual(john.messages, ["1900"])

    def test_an_outage_costs_no_connection_and_the_last_price_comes_after_it(self) -> None:
        john = self.connect("gold?subscribe-broadcast")
        self.broker.lose_connection()
        self.assertEqual(self.connect("gold?subscribe-broadcast").refused, 503)
        # Published by another process, which can still reach Redis.
        self.broker.publish_elsewhere([b"broadcast:gold"], b"1900", expire=60)
        self.broker.restore()
        self.assertEqual((john.open, john.messages), (True, ["1900"]))
