"""``ws4redis_tx.testing``: its public names, and its websocket client."""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.django import set_up_django
from ws4redis_tx import testing
from ws4redis_tx.service import ServerConfig
from ws4redis_tx.testing import connect, make_memory_factory

NAMES = [
    "CapturedMessage", "CapturedMessages", "LiveServer", "MemoryBroker", "MemoryClient",
    "RedisProcess", "ServerProcess", "capture_messages", "client_frame", "connect",
    "make_memory_factory",
]  # fmt: skip


class NamesTests(SynchronousTestCase):
    def test_they_are_these_and_can_be_imported(self) -> None:
        set_up_django()
        self.assertEqual(testing.__all__, NAMES)
        self.assertLess(set(NAMES), set(dir(testing)))
        for name in NAMES:
            self.assertEqual(getattr(testing, name).__name__, name)
        with self.assertRaisesRegex(AttributeError, "'ws4redis_tx.testing' has no attribute 'x'"):
            _ = testing.x

    def test_a_type_checker_sees_what_is_imported(self) -> None:
        tree = ast.parse((ROOT / "ws4redis_tx" / "testing" / "__init__.py").read_text())
        (block,) = (each for each in tree.body if isinstance(each, ast.If))
        seen = {
            alias.name: str(each.module).rpartition(".")[2]
            for each in block.body
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        self.assertEqual(seen, testing._MODULES)


class ConnectTests(SynchronousTestCase):
    def test_a_url_may_be_written_as_in_a_browser(self) -> None:
        factory = make_memory_factory()
        client = connect(factory, "ws://localhost/ws/größe 日?subscribe-broadcast")
        again = connect(
            factory, "ws://localhost/ws/gr%C3%B6%C3%9Fe%20%E6%97%A5?subscribe-broadcast"
        )
        factory.broker.publish(["broadcast:größe 日".encode()], b"hi", 0)
        self.assertEqual((client.messages, again.messages), (["hi"], ["hi"]))

    def test_a_header_replaces_its_default_however_it_is_spelt(self) -> None:
        there = connect(
            make_memory_factory(ServerConfig(allowed_origins=("https://www.example.com",))),
            "ws://localhost/ws/news?subscribe-broadcast",
            origin="https://evil.example",
            headers={"host": "www.example.com", "origin": "https://www.example.com"},
        )
        self.assertIsNone(there.refused)

    def test_heartbeats_come_at_the_same_times_in_each_run(self) -> None:
        def beats() -> list[float]:
            factory = make_memory_factory(ServerConfig(heartbeat="beat"))
            clock = factory.reactor
            clients = [connect(factory, "ws://localhost/ws/") for _ in range(9)]
            first = dict.fromkeys(range(9), 0.0)
            while not all(first.values()):
                clock.advance(0.25)
                for number, client in enumerate(clients):
                    if client.messages and not first[number]:
                        first[number] = clock.seconds()
            return list(first.values())

        self.assertEqual(beats(), beats())
