"""No address fills Redis with what its visitors persist."""

from __future__ import annotations

import tracemalloc
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import WebSocketTests
from ws4redis_tx.protocols.client_quota import KEY_COST, TOLD_EVERY, ClientQuota
from ws4redis_tx.testing import MemoryClient, connect

KIB = 1024
PEER = "192.0.2.7"


class ClientQuotaTests(SynchronousTestCase):
    """Each message here costs 100 bytes of a quota of 1,000."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.quota = ClientQuota(1000, self.clock)

    def persist(
        self, *keys: str, peer: str = "192.0.2.7", cost: int = 100, expire: int = 60
    ) -> bool:
        """Whether a message may be persisted that costs so much for each key."""
        size = cost - KEY_COST - 2 * len(keys[0])
        return self.quota.admits(peer, [key.encode() for key in keys], size, expire)

    def fill(self, number: int = 10, **options: Any) -> list[bool]:
        return [self.persist(f"k{each}", **options) for each in range(number)]

    def test_an_address_persists_as_much_as_its_quota(self) -> None:
        self.assertEqual(self.fill(12), [True] * 10 + [False] * 2)

    def test_each_address_has_its_own(self) -> None:
        self.fill()
        self.assertTrue(self.persist("x0", peer="192.0.2.8"))

    def test_an_ipv6_network_of_64_bits_has_one(self) -> None:
        self.fill(peer="2001:db8::1")
        self.assertFalse(self.persist("x0", peer="2001:db8::2"))
        self.assertTrue(self.persist("x0", peer="2001:db8:0:1::2"))

    def test_a_message_replaces_the_one_before_on_its_key(self) -> None:
        self.assertTrue(all(self.persist("k0") for _ in range(1000)))
        self.assertEqual(self.fill(11), [True] * 10 + [False])
        self.assertTrue(self.persist("k3", cost=50))
        self.assertTrue(self.persist("x0", cost=50))
        self.assertFalse(self.persist("k3"))

    def test_each_message_that_a_history_keeps_counts(self) -> None:
        def keep(key: bytes, places: int = 4) -> bool:
            size = 100 - KEY_COST - 2 * (len(key) + 2)
            return self.quota.admits(PEER, [key], size, 60, places)

        self.assertTrue(all(keep(b"k0") for _ in range(100)))  # the last four are there
        self.assertEqual([keep(b"k1") for _ in range(5)], [True] * 5)
        self.assertEqual([keep(b"k2") for _ in range(5)], [True] * 2 + [False] * 3)
        self.clock.advance(60)
        self.assertEqual([keep(b"k3", 20) for _ in range(10)], [True] * 10)
        self.assertFalse(keep(b"k4"))

    def test_a_channel_named_like_a_place_in_a_history_replaces_nothing_there(self) -> None:
        def keep(key: bytes, places: int) -> bool:
            return self.quota.admits(PEER, [key], 97 - KEY_COST - 2 * len(key), 60, places)

        self.assertTrue(all(keep(b"k", 5) for _ in range(5)))
        self.assertEqual([keep(b"k %d" % each, 1) for each in range(6)], [True] * 5 + [False])

    def test_a_history_is_counted_in_full_while_others_are_forgotten(self) -> None:
        for number in range(65):
            self.quota.admits(PEER, [b"%d" % number], -KEY_COST, 1, 4)
        self.clock.advance(2)
        size = 100 - KEY_COST - 8
        self.assertTrue(all(self.quota.admits(PEER, [b"k"], size, 60, 4) for _ in range(4)))
        self.assertEqual(self.fill(7), [True] * 6 + [False])

    def test_the_numbers_of_histories_are_forgotten_with_their_messages(self) -> None:
        for number in range(10_000):
            self.quota.admits(PEER, [b"%d" % number], 0, 1, 4)
            self.clock.advance(2)
        self.assertLess(len(self.quota._numbers), 100)

    def test_what_has_expired_counts_no_more(self) -> None:
        self.fill(5, expire=60)
        self.clock.advance(30)
        self.assertEqual(
            [self.persist(f"x{each}", expire=60) for each in range(6)], [True] * 5 + [False]
        )
        self.clock.advance(30)
        self.assertEqual(self.fill(6, expire=10), [True] * 5 + [False])
        self.clock.advance(10)
        self.assertTrue(self.persist("y0", expire=1))

    def test_a_message_that_is_persisted_again_is_kept_from_then_on(self) -> None:
        self.fill(expire=60)
        self.clock.advance(59)
        self.fill(expire=60)
        self.clock.advance(59)
        self.assertFalse(self.persist("x0"))
        self.clock.advance(1)
        self.assertTrue(self.persist("x0"))

    def test_a_key_counts_for_the_address_that_wrote_it_last(self) -> None:
        self.fill()
        self.assertTrue(self.persist("k0", peer="192.0.2.8"))
        self.assertTrue(self.persist("x0"))
        self.assertFalse(self.persist("x1"))

    def test_a_message_on_several_channels_counts_for_each_and_is_persisted_on_all_or_none(
        self,
    ) -> None:
        self.fill(9)
        self.assertFalse(self.persist("a0", "b0"))
        self.assertTrue(self.persist("a0"))

    def test_a_message_that_is_larger_than_the_quota_is_never_persisted(self) -> None:
        self.assertFalse(self.persist("k0", cost=1001))
        self.assertTrue(self.persist("k0", cost=1000))

    def test_an_empty_message_costs_what_its_keys_cost(self) -> None:
        quota = ClientQuota(16 * 1024 * KIB, self.clock)
        number = 0
        while quota.admits("192.0.2.7", [b"session:%032d:f%06d" % (0, number)], 0, 3600):
            number += 1
        self.assertLess(number, 16 * KIB)

    def test_without_a_quota_everything_is_persisted_and_nothing_counted(self) -> None:
        for most in (None, 0):
            self.quota = ClientQuota(most, self.clock)
            self.assertTrue(all(self.fill(1000, cost=10**9)))

    def test_the_count_takes_less_memory_than_it_allows_redis(self) -> None:
        quota = ClientQuota(1024 * KIB, self.clock)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        number = 0
        for _ in range(3):
            before = number
            while quota.admits("192.0.2.7", [b"session:%032d:f%09d" % (0, number)], 0, 3600):
                number += 1
            self.assertGreater(number, before + 500)
            for _ in range(2000):  # the same key again and again
                quota.admits("192.0.2.7", [b"session:%032d:f%09d" % (0, number - 1)], 0, 3600)
            taken, _ = tracemalloc.get_traced_memory()
            self.assertLess(taken, 1024 * KIB)
            self.clock.advance(3600)
        self.assertTrue(quota.admits("192.0.2.7", [b"k"], 0, 3600))
        taken, _ = tracemalloc.get_traced_memory()
        self.assertLess(taken, 256 * KIB)

    def test_the_log_says_so_once_a_minute_with_the_number_and_the_remedy(self) -> None:
        self.fill()
        lines: list[str] = []
        for _ in range(120):
            with capturedLogs() as events:
                self.persist("x0", expire=10**6)
                self.clock.advance(1)
            lines += [str(formatEvent(event)) for event in events]
            self.fill(expire=10**6)
        self.assertEqual(len(lines), 120 / TOLD_EVERY)
        self.assertIn("192.0.2.7", lines[0])
        self.assertIn("WS4REDIS_CLIENT_QUOTA (--client-quota)", lines[0])
        self.assertIn("WS4REDIS_TRUSTED_PROXIES", lines[0])
        self.assertTrue(lines[1].startswith("60 "), lines[1])


class PublishingTests(WebSocketTests):
    def setUp(self) -> None:
        super().setUp()
        self.use(client_quota=64 * KIB, trusted_proxies=("127.0.0.1",))

    def visitor(self, facility: str, address: str = PEER) -> MemoryClient:
        return connect(
            self.factory,
            f"ws://localhost/ws/{facility}?publish-broadcast&subscribe-broadcast&echo",
            headers={"X-Forwarded-For": address},
        )

    def test_beyond_the_quota_a_message_is_published_and_not_persisted(self) -> None:
        clients = [self.visitor(f"f{number}") for number in range(5)]
        for client in clients:
            client.send("x" * 15 * KIB)
        self.assertEqual([len(client.messages) for client in clients], [1] * 5)
        self.assertEqual(
            sorted(self.broker.persisted), [b"broadcast:f%d" % number for number in range(3)]
        )
        self.assertTrue(all(client.open for client in clients))
        other = self.visitor("f9", "192.0.2.8")
        other.send("x")
        self.assertIn(b"broadcast:f9", self.broker.persisted)

    def test_a_visitor_who_comes_back_has_no_new_quota(self) -> None:
        for number in range(20):
            client = self.visitor(f"f{number}")
            client.send("x" * 15 * KIB)
            client.close()
        self.assertEqual(len(self.broker.persisted), 3)

    def test_a_message_that_was_persisted_stays_until_it_expires(self) -> None:
        client = self.visitor("f0")
        client.send("first")
        client.send("x" * 64 * KIB)
        self.assertEqual(self.broker.persisted, {b"broadcast:f0": b"first"})
        self.clock.advance(3600)
        self.assertEqual(self.broker.persisted, {})
        client.send("later")
        self.assertEqual(self.broker.persisted, {b"broadcast:f0": b"later"})

    def test_the_servers_own_messages_do_not_count(self) -> None:
        for number in range(10):
            self.broker.publish([b"broadcast:s%d" % number], b"x" * 15 * KIB, 60)
        self.assertEqual(len(self.broker.persisted), 10)

    def test_it_is_16_mib_unless_it_is_changed(self) -> None:
        self.use(rate=None)
        self.visitor("f0").send("x" * 1024 * KIB)
        for number in range(1, 20):
            self.visitor(f"f{number}").send("x" * (1024 * KIB - KEY_COST - 100))
        self.assertEqual(len(self.broker.persisted), 16)
