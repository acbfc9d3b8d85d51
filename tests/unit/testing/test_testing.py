"""``ws4redis_tx.testing``: its public names, and its websocket client."""

from __future__ import annotations

import ast
import time
import unittest
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.django import set_up_django
from ws4redis_tx import testing
from ws4redis_tx.core.admission import ANONYMOUS, Admission, PlainRequest
from ws4redis_tx.core.interfaces import Closing, NullHooks
from ws4redis_tx.service import ServerConfig
from ws4redis_tx.testing import MemoryClient, client_frame, connect, make_memory_factory

NAMES = [
    "CapturedMessage", "CapturedMessages", "CentrifugeClient", "CentrifugeError", "LiveServer",
    "LiveSite", "MemoryBroker", "MemoryClient", "MemoryEvents", "Push", "RedisProcess",
    "ServerProcess", "capture_messages", "client_frame", "connect", "connect_centrifuge", "listen",
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

    def test_a_url_without_a_host_is_told(self) -> None:
        factory = make_memory_factory()
        for url in (
            "/ws/x", "ws/x", "", "localhost/ws/x", "localhost:8000/ws/x", "http://localhost/ws/x",
            "ws:///ws/x",
        ):  # fmt: skip
            error = self.assertRaises(ValueError, connect, factory, url)
            self.assertIn(repr(url), str(error))
            self.assertIn("ws://localhost/ws/", str(error))
        self.assertTrue(connect(factory, "wss://localhost/ws/x").open)


class Noting(NullHooks):
    def __init__(self) -> None:
        self.connections: list[Any] = []
        self.closings: list[Closing] = []

    def connected(self, connection: Any, /) -> None:
        self.connections.append(connection)

    def closed(self, connection: Any, closing: Closing, /) -> None:
        self.closings.append(closing)


class ClosingTests(SynchronousTestCase):
    """Whichever side closes, the effects of the call are complete when it returns."""

    def setUp(self) -> None:
        self.hooks = Noting()
        self.factory = make_memory_factory(hooks=self.hooks)

    def connect(self) -> MemoryClient:
        return connect(self.factory, "ws://localhost/ws/x?subscribe-broadcast")

    def assert_closed(self, code: int, *, by_server: bool) -> None:
        (closing,) = self.hooks.closings
        self.assertEqual((closing.code, closing.by_server), (code, by_server))
        self.assertTrue(closing.clean)
        self.assertEqual(self.factory.reactor.getDelayedCalls(), [])
        self.assertEqual(list(self.factory.broker.hub.channels), [])

    def test_a_close_by_a_hook(self) -> None:
        client = self.connect()
        self.hooks.connections[0].close(4001, "enough")
        self.assertEqual((client.open, client.close_code), (False, 4001))
        self.assert_closed(4001, by_server=True)

    def test_a_close_by_the_server(self) -> None:
        client = self.connect()
        self.factory.drain(1012)
        self.assertEqual((client.open, client.close_code), (False, 1012))
        self.assert_closed(1012, by_server=True)

    def test_a_close_after_a_mistake_of_the_client(self) -> None:
        client = self.connect()
        client.send_bytes(client_frame(3, b""))
        self.assertEqual((client.open, client.close_code), (False, 1002))
        self.assert_closed(1002, by_server=True)

    def test_a_close_by_the_client(self) -> None:
        client = self.connect()
        client.close(4002)
        self.assertEqual((client.open, client.close_code), (False, 4002))
        self.assert_closed(4002, by_server=False)

    def test_a_client_whose_machine_is_gone_answers_no_close(self) -> None:
        client = self.connect()
        client.answers_pings = False
        self.hooks.connections[0].close(4001)
        self.assertEqual(self.hooks.closings, [])
        self.factory.reactor.advance(5)
        (closing,) = self.hooks.closings
        self.assertFalse(closing.clean)


class Expiring:
    """An authorizer whose session ends at a fixed time."""

    def __init__(self, expires: float) -> None:
        self.expires = expires
        self.asked = 0

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        self.asked += 1
        request = PlainRequest(handshake.path_info, ANONYMOUS)
        return Admission(ANONYMOUS, tuple(rights), request, self.expires)


class ExpiryTests(SynchronousTestCase):
    def test_a_session_ends_by_the_clock_of_the_test(self) -> None:
        for started in (0.0, 5000.0, time.time()):
            clock = Clock()
            clock.advance(started)
            authorizer = Expiring(time.time() + 1000)
            factory = make_memory_factory(
                ServerConfig(recheck=0), authorizer=authorizer, clock=clock
            )
            connect(factory, "ws://localhost/ws/x?subscribe-broadcast")
            clock.pump([10.0, 0.0] * 99)
            self.assertEqual(authorizer.asked, 1)
            clock.pump([10.0, 1.0, 0.0])
            self.assertEqual(authorizer.asked, 2)


class LiveServerTests(SynchronousTestCase):
    def test_bases_that_would_start_djangos_own_server_are_refused(self) -> None:
        set_up_django()
        from django.contrib.staticfiles.testing import StaticLiveServerTestCase
        from django.test import LiveServerTestCase, TestCase

        class Mixin(testing.LiveServer):
            pass

        class Base(Mixin, LiveServerTestCase):
            pass

        for bases in (
            (StaticLiveServerTestCase, testing.LiveServer),
            (LiveServerTestCase, Mixin),
            (testing.LiveServer, TestCase),
            (TestCase, testing.LiveServer),
            (testing.LiveServer, SynchronousTestCase),
            (unittest.TestCase, Mixin),
        ):
            error = self.assertRaises(TypeError, type, "ChatTests", bases, {})
            expected = "class ChatTests(LiveServer, StaticLiveServerTestCase)"
            self.assertIn(expected, str(error))
            written = ", ".join(base.__name__ for base in bases)
            self.assertIn(f"class ChatTests({written}) would not start", str(error))
        type("ChatTests", (testing.LiveServer, StaticLiveServerTestCase), {})
        type("ChatTests", (Base,), {})
