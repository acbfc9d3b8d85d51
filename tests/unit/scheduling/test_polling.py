"""An event goes straight to its connection, and all else is as Twisted does it."""

from __future__ import annotations

import gc
import socket
import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionDone, ConnectionFdescWentAway
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.testing import MemoryReactorClock
from twisted.python import log
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ws4redis_tx.scheduling.polling import poll_directly

# From one event to the next: the loop's own two, the clock, and Twisted's transport's two.
MOST_CALLS = 5


def close(reactor: Any) -> None:
    """Close the descriptors of a reactor that never ran, or has stopped."""
    for reader in tuple(reactor._internalReaders):
        reactor.removeReader(reader)
        reader.connectionLost(None)
    if hasattr(reactor, "_poller"):
        reactor._poller.close()


class Told(Protocol):
    """Tells ``received`` and ``lost`` what happens to its connection."""

    def __init__(self, received: Callable[[bytes], object]) -> None:
        self.dataReceived = received  # type: ignore[method-assign]
        self.lost: list[Any] = []
        self.on_lost: Callable[[], object] = lambda: None

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost.append(reason.value)
        self.on_lost()


class PollDirectlyTests(SynchronousTestCase):
    def setUp(self) -> None:
        try:
            from twisted.internet.epollreactor import EPollReactor
        except ImportError:
            raise SkipTest("only Linux has epoll") from None
        self.reactor: Any = EPollReactor()
        self.reactor._registerAsIOThread = False  # the test's own reactor stays Twisted's
        self.addCleanup(close, self.reactor)
        poll_directly(self.reactor)

    def run_reactor(self) -> None:
        """Until a test stops it. A test that hangs fails."""
        limit = self.reactor.callLater(60, self.reactor.crash)
        self.reactor.run(installSignalHandlers=False)
        self.assertTrue(limit.active(), "nothing has stopped the reactor")

    def connect(self, received: Callable[[bytes], object]) -> tuple[Told, socket.socket]:
        """A connection, and the other end of it."""
        ours, theirs = socket.socketpair()
        self.addCleanup(theirs.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        protocol = Told(received)
        transport: Any = tcp.Connection(ours, protocol, self.reactor)
        transport.connected = True
        transport.logPrefix = lambda: "its name"
        protocol.makeConnection(transport)
        transport.startReading()
        return protocol, theirs

    def calls_of_an_event(self) -> float:
        """Python functions that are called from one event to the next."""
        calls, events = 0, 0

        def count(frame: Any, event: str, argument: object) -> None:
            nonlocal calls
            calls += event == "call"

        def received(data: bytes) -> None:
            nonlocal events
            events += 1
            if events == 10:
                sys.setprofile(count)
            elif events == 110:
                sys.setprofile(before)
                self.reactor.stop()
                return
            theirs.send(b"x")

        before = sys.getprofile()
        self.addCleanup(sys.setprofile, before)
        self.addCleanup(gc.enable)
        gc.disable()
        _, theirs = self.connect(received)
        theirs.send(b"x")
        self.run_reactor()
        return calls / 100 - 1  # `received` itself

    def test_an_event_costs_few_calls(self) -> None:
        self.assertLessEqual(self.calls_of_an_event(), MOST_CALLS)

    def test_all_that_comes_while_it_is_handled_has_its_turn(self) -> None:
        told: list[str] = []

        def received(data: bytes) -> None:
            if data == b"1":
                self.reactor.callLater(0, told.append, "later")
                self.reactor.callFromThread(told.append, "from a thread")
                theirs.send(b"2")
            else:
                told.append("the next event")
                self.reactor.stop()

        _, theirs = self.connect(received)
        theirs.send(b"1")
        self.run_reactor()
        self.assertEqual(sorted(told), ["from a thread", "later", "the next event"])

    def test_a_call_that_is_due_is_made_although_events_never_end(self) -> None:
        def received(data: bytes) -> None:
            nonlocal now
            now += 1
            theirs.send(b"x")

        now = self.reactor.seconds()
        self.reactor.seconds = lambda: now
        _, theirs = self.connect(received)
        theirs.send(b"x")
        self.reactor.callLater(20, self.reactor.stop)
        self.run_reactor()

    def test_so_is_a_call_from_a_thread(self) -> None:
        def received(data: bytes) -> None:
            if len(called) == 1:
                called.append(1)
                self.reactor.callInThread(self.reactor.callFromThread, self.reactor.stop)
            elif len(called) == 0:
                called.append(0)
            theirs.send(b"x")

        called: list[int] = []
        _, theirs = self.connect(received)
        theirs.send(b"x")
        self.run_reactor()

    def test_a_crash_ends_it(self) -> None:
        _, theirs = self.connect(lambda data: self.reactor.crash())
        theirs.send(b"x")
        limit = self.reactor.callLater(60, self.reactor.stop)
        self.reactor.run(installSignalHandlers=False)
        self.assertTrue(limit.active())

    def test_what_is_written_and_does_not_fit_follows(self) -> None:
        def received(data: bytes) -> None:
            protocol.transport.write(whole)  # type: ignore[union-attr]
            protocol.transport.loseConnection()  # type: ignore[union-attr]
            self.reactor.callLater(0, read)

        def read() -> None:
            try:
                while data := theirs.recv(1 << 20):
                    got.append(data)
            except BlockingIOError:
                self.reactor.callLater(0, read)
                return
            self.reactor.stop()

        whole, got = b"x" * (4 << 20), []  # type: ignore[var-annotated]
        protocol, theirs = self.connect(received)
        theirs.setblocking(False)
        theirs.send(b"1")
        self.run_reactor()
        self.assertEqual(len(b"".join(got)), len(whole))
        self.assertIsInstance(protocol.lost[0], ConnectionDone)

    def test_the_end_of_a_connection_is_told(self) -> None:
        protocol, theirs = self.connect(lambda data: None)
        protocol.on_lost = self.reactor.stop
        theirs.close()
        self.run_reactor()
        self.assertEqual([type(each) for each in protocol.lost], [ConnectionDone])

    def test_an_error_ends_its_connection_alone_and_the_log_names_it(self) -> None:
        def fail(data: bytes) -> None:
            raise ZeroDivisionError("of a test")

        def stop(data: bytes) -> None:
            self.reactor.callLater(0, self.reactor.stop)

        events: list[Any] = []
        log.addObserver(events.append)
        self.addCleanup(log.removeObserver, events.append)
        broken, theirs = self.connect(fail)
        whole, other = self.connect(stop)
        theirs.send(b"x")
        other.send(b"x")
        self.run_reactor()
        self.assertEqual([str(each) for each in broken.lost], ["of a test"])
        self.assertNotIn("of a test", [str(each) for each in whole.lost])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual([each["system"] for each in events if each["isError"]], ["its name"])

    def test_a_connection_that_another_one_ended_is_not_read(self) -> None:
        def received(data: bytes) -> None:
            told.append(data)
            for each in (first, second):
                each.transport.stopReading()  # type: ignore[union-attr]
            self.reactor.callLater(0, self.reactor.stop)

        told: list[bytes] = []
        first, one = self.connect(received)
        second, two = self.connect(received)
        one.send(b"x")
        two.send(b"x")
        self.run_reactor()
        self.assertEqual(len(told), 1)

    def test_one_whose_descriptor_is_gone_is_dropped(self) -> None:
        protocol, theirs = self.connect(lambda data: None)
        protocol.transport.fileno = lambda: -1  # type: ignore[union-attr]
        protocol.on_lost = self.reactor.stop
        theirs.send(b"x")
        self.run_reactor()
        self.assertEqual([type(each) for each in protocol.lost], [ConnectionFdescWentAway])

    def test_no_other_reactor_is_touched(self) -> None:
        selecting = SelectReactor()
        self.addCleanup(close, selecting)
        others: list[Any] = [MemoryReactorClock(), selecting]
        for other in others:
            before = set(vars(other))
            poll_directly(other)
            self.assertEqual(set(vars(other)), before)

    def test_nor_one_whose_parts_have_other_names(self) -> None:
        other: Any = type(self.reactor)()
        self.addCleanup(close, other)
        calls = other._newTimedCalls
        self.addCleanup(setattr, other, "_newTimedCalls", calls)
        del other._newTimedCalls
        poll_directly(other)
        self.assertNotIn("mainLoop", vars(other))
