"""The site beside the websockets: the time for a request's head, and threads for its answers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import TIMEOUT
from tests.support.django import set_up_django
from tests.support.wires import status_of

set_up_django()

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.django.site import HEAD_TIMEOUT, make_django_site
from ws4redis_tx.testing import make_memory_factory
from ws4redis_tx.testing.wire import Wire
from ws4redis_tx.threads.request_threads import RequestThreads

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"


def application(environ: Any, start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "0")])
    return []


class Reactor(Clock):
    """Its only thread is the caller's."""

    room = True

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)

    def callInThread(self, function: Callable[..., object], *arguments: Any) -> None:
        function(*arguments)


class PathTests(SynchronousTestCase):
    def test_the_paths_of_every_protocol_are_the_servers_and_all_others_are_djangos(self) -> None:
        reactor = Reactor()
        config = ServerConfig(centrifuge_url="/connection/", script_name="/app")
        factory = make_memory_factory(config)
        site = make_django_site(factory, reactor, application, reactor)
        for path, status in {
            "/ws/f": 405, "/app/ws/f": 405, "/emulation": 400, "/app/emulation?a": 400,
            "/connection/emulation": 400, "/connection/x": 405, "/emulation/x": 200,
            "/emulations": 200, "/": 200, "/app/": 200,
        }.items():  # fmt: skip
            written: list[bytes] = []
            wire = Wire(written.append, lambda: None)
            wire.protocol = site.buildProtocol(wire.getPeer())
            wire.protocol.makeConnection(wire)
            self.addCleanup(wire.protocol.connectionLost, Failure(ConnectionDone()))
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
            wire.protocol.dataReceived(head.encode() + b"abc")
            self.assertEqual(status_of(b"".join(written) or wire.value()), status, path)


class SiteTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Reactor()
        self.site = make_django_site(make_memory_factory(), self.clock, application, self.clock)

    def connect(self) -> Any:
        wire = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 1))
        wire.protocol = self.site.buildProtocol(wire.getPeer())
        wire.protocol.makeConnection(wire)
        return wire

    def assert_dropped_after(self, seconds: float, wire: Any) -> None:
        self.clock.advance(seconds - 0.1)
        self.assertFalse(wire.disconnecting)
        self.clock.advance(0.2)
        self.assertTrue(wire.disconnecting)

    def test_a_head_has_5_seconds_however_its_bytes_trickle(self) -> None:
        wire = self.connect()
        for byte in HEAD[:4]:
            wire.protocol.dataReceived(bytes([byte]))
            self.clock.advance(1)
        self.assert_dropped_after(HEAD_TIMEOUT - 4, wire)
        self.assertEqual(HEAD_TIMEOUT, 5)

    def test_so_has_a_client_that_sends_nothing(self) -> None:
        self.assert_dropped_after(HEAD_TIMEOUT, self.connect())

    def test_a_body_may_take_longer(self) -> None:
        wire = self.connect()
        wire.protocol.dataReceived(HEAD)
        for byte in b"abc":
            self.clock.advance(50)
            wire.protocol.dataReceived(bytes([byte]))
        self.assertIn(b" 200 OK", wire.value())

    def test_a_connection_may_wait_longer_for_its_next_request_but_not_for_its_rest(self) -> None:
        wire = self.connect()
        for _ in range(2):
            wire.protocol.dataReceived(HEAD + b"abc")
            self.clock.advance(50)
            self.assertFalse(wire.disconnecting)
        self.assertEqual(wire.value().count(b" 200 OK"), 2)
        wire.protocol.dataReceived(HEAD[:10])
        self.assert_dropped_after(HEAD_TIMEOUT, wire)

    def test_a_connection_without_a_next_request_ends(self) -> None:
        wire = self.connect()
        wire.protocol.dataReceived(HEAD + b"abc")
        self.assert_dropped_after(60, wire)

    def test_a_half_sent_head_behind_another_request_has_5_seconds_too(self) -> None:
        for length in (10, 20, 40):
            wire = self.connect()
            wire.protocol.dataReceived(HEAD + b"abc" + HEAD[:length])
            self.assert_dropped_after(HEAD_TIMEOUT, wire)

    def test_with_too_many_requests_under_way_a_page_is_a_503(self) -> None:
        self.clock.room = False
        wire = self.connect()
        wire.protocol.dataReceived(HEAD + b"abc")
        self.assertIn(b" 503 ", wire.value())
        self.assertIn(b"Retry-After: ", wire.value())
        self.assertTrue(wire.disconnecting)


class RequestThreadTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.tidied: list[str] = []
        self.threads = RequestThreads(
            reactor, 3, lambda: self.tidied.append(threading.current_thread().name)
        )
        self.goes_on = threading.Event()
        self.addCleanup(self.goes_on.set)

    def work(self) -> None:
        self.goes_on.wait(TIMEOUT)

    @inlineCallbacks
    def test_each_request_has_a_thread_up_to_a_bound(self) -> Any:
        for _ in range(3):
            self.assertTrue(self.threads.room)
            self.threads.callInThread(self.work)
        self.assertFalse(self.threads.room)
        self.goes_on.set()
        yield self.threads.when_idle(TIMEOUT)
        self.assertTrue(self.threads.room)
        self.assertEqual(self.tidied, ["ws4redis-request"] * 3)

    @inlineCallbacks
    def test_nobody_waits_longer_than_said_nor_when_told_not_to(self) -> Any:
        yield self.threads.when_idle(TIMEOUT)
        self.threads.callInThread(self.work)
        yield self.threads.when_idle(0)
        idle = self.threads.when_idle(TIMEOUT)
        self.threads.wait_no_longer()
        yield idle
        self.goes_on.set()
        yield self.threads.when_idle(TIMEOUT)

    @inlineCallbacks
    def test_they_keep_no_process_from_ending(self) -> Any:
        daemon: Deferred[bool] = Deferred()

        def tell() -> None:
            reactor.callFromThread(daemon.callback, threading.current_thread().daemon)

        self.threads.callInThread(tell)
        self.assertTrue((yield daemon.addTimeout(TIMEOUT, reactor)))
        yield self.threads.when_idle(TIMEOUT)

    @inlineCallbacks
    def test_a_failure_is_logged_and_gives_the_place_back(self) -> Any:
        def fail() -> None:
            raise ValueError("deliberate")

        self.threads.callInThread(fail)
        yield self.threads.when_idle(TIMEOUT)
        self.assertTrue(self.threads.room)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
