"""``twistd ws4redis --workers N``: several processes that serve the same sockets."""

from __future__ import annotations

import os
import resource
import signal
import socket
import stat
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import (
    DeferredList,
    DeferredQueue,
    DeferredSemaphore,
    gatherResults,
    inlineCallbacks,
)
from twisted.internet.endpoints import (
    SSL4ClientEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import TIMEOUT
from tests.support.certificates import make_certificate
from tests.support.clients import Wire, open_websocket
from tests.support.programs import (
    OWN_GROUP,
    TWISTD,
    Program,
    children,
    wait_readable,
    write_file,
)
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes
from ws4redis_tx.testing import client_frame
from ws4redis_tx.twistd import worker_log
from ws4redis_tx.twistd import workers as parent
from ws4redis_tx.twistd.log_output import LogOutput
from ws4redis_tx.twistd.supervisor import Supervisor
from ws4redis_tx.twistd.workers import Workers

CHANNEL = "foobar?subscribe-broadcast"
RESTARTING = b"\x88\x02" + (1012).to_bytes(2, "big")
PING = b"\x89\x00"


class WorkersTestCase(TestCase):
    timeout = 120

    @inlineCallbacks
    def start(
        self,
        *options: str,
        listen: str = "tcp:0:interface=127.0.0.1",
        workers: int = 2,
        redis: str | None = None,
    ) -> Any:
        """Fire when all workers are ready. ``workers`` then has the pid of each by its number."""
        self.redis = shared_redis()
        self.program = Program(
            *(sys.executable, "-c", OWN_GROUP),
            *(TWISTD, "-n", "--pidfile=", "ws4redis", f"--listen={listen}"),
            *(redis or f"--redis={self.redis.address}", f"--workers={workers}", "--drain=0.2"),
            *options,
        )
        self.addCleanup(self.program.end)
        ready = yield self.program.wait_for(r"process#info\] Ready: (.*)\n")
        self.ready = ready.group(1)
        self.workers = self.pids()
        before = self.program.printed.partition(ready.group())[0]
        for number in self.workers:
            self.assertIn(f"[worker {number}] Ready: ", before)
        processes = [self.program.pid, *children(self.program.pid)]
        self.ends = [os.pidfd_open(pid) for pid in processes]
        if "ws://127" in self.ready:
            self.port = int(self.ready.partition("/ws/")[0].rpartition(":")[2])

    def pids(self) -> dict[int, int]:
        """The current worker processes, by number."""
        found = {}
        for line in self.program.printed.splitlines():
            head, _, pid = line.partition("] Process ")
            if pid:
                found[int(head.rpartition(" ")[2])] = int(pid.rstrip("."))
        return found

    @contextmanager
    def only(self, worker: int) -> Any:
        """Suspend all other workers within the context."""
        others = [pid for number, pid in self.pids().items() if number != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)

    @inlineCallbacks
    def open(self, worker: int) -> Any:
        """Fire with a client of that worker."""
        with self.only(worker):
            return (yield open_websocket(f"ws://127.0.0.1:{self.port}/ws/{CHANNEL}"))

    @inlineCallbacks
    def open_each(self, *workers: int) -> Any:
        clients = []
        for worker in workers:
            clients.append((yield self.open(worker)))
        return clients

    @inlineCallbacks
    def open_wires(self, count: int) -> Any:
        """Fire with cheap clients, connected to any workers."""
        handshake = handshake_bytes(f"/ws/{CHANNEL}", Host=f"127.0.0.1:{self.port}")
        some_at_once = DeferredSemaphore(200)

        @inlineCallbacks
        def open_one() -> Any:
            door = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
            wire = yield door.connect(_closing_wires)
            wire.transport.write(handshake)
            yield wire.opened.addTimeout(TIMEOUT, reactor)
            return wire

        opening = [some_at_once.run(open_one) for _ in range(count)]
        return (yield gatherResults(opening, consumeErrors=True))

    def kill(self, worker: int) -> None:
        os.kill(self.pids()[worker], signal.SIGKILL)

    @inlineCallbacks
    def assert_nothing_is_left(self) -> Any:
        for end in self.ends:
            yield wait_readable(end)
        self.assertNotIn("Traceback", self.program.printed)
        self.assertNotIn("Unhandled", self.program.printed)

    @inlineCallbacks
    def assert_closed(self, clients: Any, code: int | None) -> Any:
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(codes, [code] * len(codes))


class ServingTests(WorkersTestCase):
    @inlineCallbacks
    def test_what_is_published_reaches_the_clients_of_all_workers(self) -> Any:
        yield self.start(workers=3)
        self.assertIn("3 workers", self.ready)
        clients = yield self.open_each(*self.workers)
        self.assertEqual(self.redis.command("PUBLISH", "broadcast:foobar", "hello"), 3)
        for client in clients:
            self.assertEqual((yield client.next()), "hello")
            client.sendClose(1000)
            yield client.closed

    @inlineCallbacks
    def test_a_worker_that_dies_is_replaced_and_nobody_elses_client_notices(self) -> Any:
        yield self.start()
        first, second = yield self.open_each(1, 2)
        self.kill(1)
        yield first.closed
        replaced = yield self.program.wait_for(
            r"(?s)\[worker 1\] It has ended \(SIGKILL\).*\[worker 1\] (Ready): "
        )
        self.assertTrue(replaced)
        self.assertNotEqual(self.pids()[1], self.workers[1])
        self.assertEqual(self.pids()[2], self.workers[2])
        third = yield self.open(1)
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        for client in (second, third):
            self.assertEqual((yield client.next()), "hello")
            client.sendClose(1000)
            yield client.closed

    @inlineCallbacks
    def test_who_connects_while_all_workers_are_replaced_waits_and_is_served(self) -> Any:
        yield self.start()
        for end, worker in zip(self.ends[1:], self.workers, strict=True):
            self.kill(worker)
            yield wait_readable(end)
        client = yield open_websocket(f"ws://127.0.0.1:{self.port}/ws/{CHANNEL}")
        client.sendClose(1000)
        yield client.closed

    @inlineCallbacks
    def test_the_embedded_redis_is_the_parents_and_serves_all(self) -> Any:
        yield self.start(redis="--embedded-redis")
        clients = yield self.open_each(*self.workers)
        import valkey

        with valkey.Valkey.from_url(self.ready.rpartition("Redis at ")[2]) as redis:
            self.assertEqual(redis.publish("broadcast:foobar", "hello"), 2)
        for client in clients:
            self.assertEqual((yield client.next()), "hello")
        yield self.program.signal_and_wait("TERM")
        yield self.assert_closed(clients, 1012)
        yield self.assert_nothing_is_left()

    @inlineCallbacks
    def test_a_unix_socket_is_served_by_all_and_stays_the_parents(self) -> Any:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(rmtree, folder)
        path = Path(folder) / "socket"
        yield self.start(listen=f"unix:{path}:mode=600")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        os.kill(self.workers[1], signal.SIGTERM)
        yield self.program.wait_for(r"(?s)\[worker 1\] It has ended.*\[worker 1\] Ready: ")
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        for worker in self.workers:
            yield self.assert_serves(UNIXClientEndpoint(reactor, str(path)), worker)
        yield self.program.signal_and_wait("TERM")
        yield self.assert_nothing_is_left()
        self.assertFalse(path.exists())

    @inlineCallbacks
    def test_tls_is_spoken_by_all(self) -> Any:
        _, both = make_certificate(x509.DNSName("localhost"))
        key = write_file(self, both)
        yield self.start(listen=f"ssl:0:privateKey={key}:certKey={key}:interface=127.0.0.1")
        self.assertIn("wss://", self.ready)
        port = int(self.ready.partition("/ws/")[0].rpartition(":")[2])
        for worker in self.workers:
            door = SSL4ClientEndpoint(reactor, "127.0.0.1", port, CertificateOptions())
            yield self.assert_serves(door, worker)

    @inlineCallbacks
    def assert_serves(self, door: Any, worker: int) -> Any:
        with self.only(worker):
            wire = yield door.connect(_closing_wires)
            wire.transport.write(handshake_bytes())
            yield wire.opened.addTimeout(TIMEOUT, reactor)
        wire.transport.write(client_frame(8, b""))
        yield wire.ended.addTimeout(TIMEOUT, reactor)


class EndingTests(WorkersTestCase):
    """Every process ends and every client gets a close code, whichever process gets the signal."""

    @inlineCallbacks
    def test_sigterm_closes_the_clients_of_all_with_1012_and_leaves_no_process(self) -> Any:
        yield self.start()
        clients = yield self.open_each(1, 2, 1, 2)
        yield self.program.signal_and_wait("TERM")
        yield self.assert_closed(clients, 1012)
        self.assertEqual(self.program.signal, signal.SIGTERM)
        yield self.assert_nothing_is_left()

    @inlineCallbacks
    def test_a_signal_to_the_whole_group_is_one_to_the_parent(self) -> Any:
        for name in ("SIGINT", "SIGTERM"):
            yield self.start()
            clients = yield self.open_each(1, 2, 1, 2)
            os.killpg(self.program.pid, signal.Signals[name])
            yield self.program.ended.addTimeout(TIMEOUT, reactor)
            yield self.assert_closed(clients, 1012)
            yield self.assert_nothing_is_left()

    @inlineCallbacks
    def test_a_worker_leaves_ctrl_c_to_the_parent(self) -> Any:
        yield self.start()
        os.kill(self.workers[1], signal.SIGINT)
        client = yield self.open(1)
        client.sendClose(1000)
        yield self.assert_closed([client], 1000)
        self.assertEqual(self.pids(), self.workers)

    @inlineCallbacks
    def test_while_the_clients_are_closed_nobody_is_let_in_any_more(self) -> Any:
        yield self.start("--drain=60")
        ends = []
        for worker in self.workers:
            with self.only(worker):
                ends.append([wire.ended for wire in (yield self.open_wires(200))])
        self.program.transport.signalProcess("TERM")
        yield self.program.wait_for(r"\[-\] \(TCP Port \d+ Closed")
        for ends_of_worker in ends:
            yield DeferredList(ends_of_worker, fireOnOneCallback=True)
        refused = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port).connect(_closing_wires)
        yield self.assertFailure(refused, ConnectionRefusedError)
        yield self.program.signal_and_wait("TERM")
        yield gatherResults([*ends[0], *ends[1]])

    @inlineCallbacks
    def test_a_second_signal_ends_all_at_once(self) -> Any:
        for number in (signal.SIGINT, signal.SIGTERM):
            yield self.start("--drain=60")
            ends = [wire.ended for wire in (yield self.open_wires(400))]
            os.killpg(self.program.pid, number)
            yield DeferredList(ends, fireOnOneCallback=True)
            yield self.program.wait_for(r"\[-\] \(TCP Port \d+ Closed")  # the parent's
            os.killpg(self.program.pid, number)
            yield self.program.ended.addTimeout(TIMEOUT, reactor)
            yield self.assert_nothing_is_left()
            self.assertIn(b"", (yield gatherResults(ends)))

    @inlineCallbacks
    def test_a_worker_that_hangs_is_killed_at_the_second_signal(self) -> Any:
        yield self.start("--drain=60")
        os.kill(self.workers[1], signal.SIGSTOP)
        self.program.transport.signalProcess("TERM")
        yield self.program.wait_for(r"\[worker 2\] \(TCP Port \d+ Closed")
        yield self.program.signal_and_wait("TERM")
        yield self.assert_nothing_is_left()

    @inlineCallbacks
    def test_workers_end_at_once_with_a_parent_that_is_killed(self) -> Any:
        yield self.start("--drain=60", redis="--embedded-redis")
        wires = yield self.open_wires(200)
        yield self.program.signal_and_wait("KILL")
        yield self.assert_nothing_is_left()
        ends = yield gatherResults([wire.ended for wire in wires])
        self.assertLessEqual(set(ends), {b"", RESTARTING})


class ManyClientsTests(WorkersTestCase):
    """2,000 clients are closed within the drain time, and can connect to nothing afterwards."""

    def setUp(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 4096:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
            self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

    @inlineCallbacks
    def assert_all_are_told(self, workers: int) -> Any:
        yield self.start("--drain=2", workers=workers)
        wires = yield self.open_wires(2000)
        yield self.program.signal_and_wait("TERM")
        ends = yield gatherResults([wire.ended for wire in wires])
        self.assertEqual({end.replace(PING, b"") for end in ends}, {RESTARTING})
        yield self.assert_nothing_is_left()

    @inlineCallbacks
    def test_of_one_process(self) -> Any:
        yield self.assert_all_are_told(1)

    @inlineCallbacks
    def test_of_two_workers(self) -> Any:
        yield self.assert_all_are_told(2)


class ParentTests(TestCase):
    """The parent's side, with other programs as workers."""

    timeout = 60

    def workers(self, program: str, count: int = 1) -> Workers:
        workers = Workers(count, [sys.executable, "-c", program], ".", 0, reactor)
        self.events: DeferredQueue[Any] = DeferredQueue()
        globalLogPublisher.addObserver(self.events.put)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.put)
        self.addCleanup(lambda: workers.running and workers.stopService())
        workers.share([])
        workers.startService()
        return workers

    @inlineCallbacks
    def said(self, level: Any = LogLevel.info) -> Any:
        """Fire with the next line that the worker wrote itself."""
        while True:
            event = yield self.events.get().addTimeout(TIMEOUT, reactor)
            if "text" in event:
                self.assertEqual(event["log_level"], level)
                return event["text"]

    @inlineCallbacks
    def test_whatever_a_worker_writes_reaches_the_log(self) -> Any:
        self.workers(
            "import os, sys; w = os.write; w(1, b'x' * 50_000 + b'\\n'); w(1, b'\\xff\\n\\nabc');"
            "w(1, b'def\\n'); sys.stdin.read()"
        )
        for line in ("x" * 50_000, "\ufffd", "", "abcdef"):
            self.assertEqual((yield self.said()), line)

    @inlineCallbacks
    def test_what_stands_on_standard_error_is_an_error(self) -> Any:
        self.workers("import sys; print('oh', file=sys.stderr); sys.stdin.read()")
        self.assertEqual((yield self.said(LogLevel.error)), "oh")

    @inlineCallbacks
    def test_an_event_keeps_its_level_its_namespace_and_its_lines(self) -> Any:
        self.workers(
            "import sys; from twisted.logger import Logger, globalLogPublisher;"
            "from ws4redis_tx.twistd.worker_log import log_to_parent;"
            "globalLogPublisher.addObserver(log_to_parent());"
            "Logger('some.where').warn('{a}', a='\u00e9\\n{b}'); sys.stdin.read()"
        )
        self.assertEqual((yield self.said(LogLevel.warn)), "\u00e9\n{b}")

    @inlineCallbacks
    def test_what_a_worker_has_started_does_not_keep_the_parent_from_ending(self) -> Any:
        workers = self.workers(
            "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True);"
            "sys.stdin.read()"
        )
        pid = int((yield self.said()))
        self.addCleanup(os.kill, pid, signal.SIGKILL)
        yield workers.stopService().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_worker_that_does_not_end_is_killed_in_time(self) -> Any:
        self.patch(parent, "_KILL_GRACE", 0.1)
        workers = self.workers(
            "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            "print('here', flush=True); sys.stdin.read()"
        )
        yield self.said()
        yield workers.stopService().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_worker_that_dies_young_is_started_again_after_a_while(self) -> Any:
        self.workers("import sys; sys.exit(3)")
        while True:
            event = yield self.events.get().addTimeout(TIMEOUT, reactor)
            if "reason" in event:
                break
        self.assertEqual(
            formatEvent(event),
            "[worker 1] It has ended (exit status 3) and will be restarted in 1 s.",
        )

    @inlineCallbacks
    def test_the_end_of_the_parents_sockets_is_not_the_end_of_the_workers(self) -> Any:
        door = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        supervisor = Supervisor([door], Workers(0, [], ".", 0, reactor))
        supervisor.startService()
        with socket.socket(fileno=os.dup(supervisor.ports[0].fileno())) as shared:
            yield supervisor.stopService()
            with socket.create_connection(shared.getsockname()):
                shared.accept()[0].close()


class ClosingWire(Wire):
    """Answers the server's close frame; any other frame here is an empty ping."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if data.endswith(RESTARTING):
            self.transport.write(client_frame(8, RESTARTING[2:]))


_closing_wires = Factory.forProtocol(ClosingWire)
_closing_wires.noisy = False


class LogTests(SynchronousTestCase):
    """A worker's log lines of any kind arrive."""

    def setUp(self) -> None:
        self.written: list[bytes] = []
        self.patch(worker_log, "write_all", lambda descriptor, line: self.written.append(line))
        self.patch(worker_log, "use", self.used)
        self.observe = worker_log.log_to_parent()

    def used(self, output: LogOutput) -> None:
        self.writer = output.writer

    def log(self, **event: Any) -> None:
        self.observe({"log_level": LogLevel.info, "log_format": "hello", **event})

    def lines(self) -> list[bytes]:
        self.writer.finish(TIMEOUT)
        return self.written

    def test_a_failure_in_a_timer_is_told_and_what_the_parent_said_is_not(self) -> None:
        self.log(log_namespace="twisted.internet.base")
        self.assertEqual(self.lines(), [])
        self.log(log_namespace="twisted.internet.base", log_level=LogLevel.critical)
        self.assertEqual(len(self.lines()), 1)

    def test_any_text_fits_a_line(self) -> None:
        self.log(log_format="\U0001f600" * 200_000)
        (line,) = self.lines()
        self.assertLess(len(line), 500_000)
        self.assertIsNotNone(worker_log.read_event(line))

    def test_a_line_that_only_looks_like_an_event_is_a_line(self) -> None:
        for line in (b"\x1e", b"\x1e{", b"\x1e[]", b'\x1e"text"', b"\x1e\xff", b"plain"):
            self.assertIsNone(worker_log.read_event(line))
