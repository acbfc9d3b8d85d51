"""SIGUSR2: ``twistd ws4redis`` is replaced by new code, and nobody is refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import ssl
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import ROOT, TIMEOUT
from tests.support.certificates import make_certificate
from tests.support.clients import CLOSE, Wire, exchange, open_websocket
from tests.support.django import environment
from tests.support.programs import (
    OWN_GROUP,
    TWISTD,
    UNSHARE,
    Program,
    children,
    until,
    wait_readable,
)
from tests.support.redis import RedisServer, shared_redis
from tests.support.wires import handshake_bytes
from ws4redis_tx.twistd.embedded_redis import free_port

CHANNEL = "foobar?subscribe-broadcast"
RESTARTING = b"\x88\x02" + (1012).to_bytes(2, "big")

SITE = """
from tests.projects.django_project.settings import *

WS4REDIS_SUBSCRIBER = "site_code.Subscriber"
"""
CODE = """
from ws4redis_tx.subscriber import RedisSubscriber

class Subscriber(RedisSubscriber):
    def send_persisted_messages(self, websocket):
        websocket.send("version {}")
"""


class UpgradeTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.redis = shared_redis()
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "site_settings.py").write_text(SITE)
        self.write_code("1")
        self.pids: list[int] = []

    def write_code(self, version: str) -> None:
        """Python takes a file for unchanged if its time and its size are."""
        shutil.rmtree(self.folder / "__pycache__", ignore_errors=True)
        (self.folder / "site_code.py").write_text(CODE.format(version))

    @inlineCallbacks
    def start(
        self,
        *options: str,
        command: tuple[str, ...] = (TWISTD, "-n", "--pidfile="),
        listen: str | None = None,
        redis: str | None = None,
        site: bool = False,
        **variables: str,
    ) -> Any:
        """Fire with a server that is the leader of its process group."""
        self.port = free_port()
        django = ["--settings=site_settings"] if site else []
        self.program = Program(
            *(sys.executable, "-c", OWN_GROUP, *command, "ws4redis", "--drain=0.5"),
            *(*options, *django),
            *(f"--listen={listen or f'tcp:{self.port}:interface=127.0.0.1'}",),
            *([redis] if redis else [f"--redis={self.redis.address}"]),
            folder=self.folder,
            **{"PYTHONDONTWRITEBYTECODE": "1", **(environment() if site else {}), **variables},
        )
        self.group = self.program.pid
        self.addCleanup(self.end_group)
        yield self.program.wait_for(r"process#info\] Ready: ")

    def end_group(self) -> Any:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        return self.program.ended

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/"

    def open(self, count: int = 1) -> Any:
        return gatherResults([open_websocket(self.url + CHANNEL) for _ in range(count)])

    @inlineCallbacks
    def said_to_new_client(self) -> Any:
        client = yield open_websocket(self.url + CHANNEL)
        said = yield client.next()
        client.sendClose(1000)
        yield client.closed
        return said

    @inlineCallbacks
    def replace(self) -> Any:
        """Fire with the pid of the server that has taken over."""
        self.program.send_signal("USR2")
        match = yield self.program.wait_for(r"Process (\d+) serves from now on")
        return int(match.group(1))

    @inlineCallbacks
    def end(self, pid: int) -> Any:
        """End the process that is not our child."""
        ended = os.pidfd_open(pid)
        os.kill(pid, signal.SIGTERM)
        yield wait_readable(ended)
        self.assertNotIn("Traceback", self.program.printed)
        self.assertNotIn("Unhandled", self.program.printed)


class ReplacementTests(UpgradeTestCase):
    @inlineCallbacks
    def test_new_code_serves_on_the_same_socket_and_the_old_drains(self) -> Any:
        yield self.start(site=True)
        self.assertEqual((yield self.said_to_new_client()), "version 1")
        clients = yield self.open(20)
        self.write_code("2")
        pid = yield self.replace()
        self.assertEqual((yield self.said_to_new_client()), "version 2")
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(set(codes), {1012})
        yield self.program.exited
        self.assertEqual(self.program.status, 0)
        self.assertEqual((yield self.said_to_new_client()), "version 2")
        yield self.end(pid)

    @inlineCallbacks
    def test_it_can_be_replaced_again_and_again(self) -> Any:
        yield self.start(site=True)
        pid = yield self.replace()
        yield self.program.exited
        for version in "2", "3":
            self.write_code(version)
            before = self.program.printed
            end = os.pidfd_open(pid)
            os.kill(pid, signal.SIGUSR2)
            yield until(lambda old=before: "serves from now on" in self.program.printed[len(old) :])
            pid = int(
                self.program.printed[len(before) :].partition(" serves from")[0].rpartition(" ")[2]
            )
            yield wait_readable(end)
            self.assertEqual((yield self.said_to_new_client()), f"version {version}")
        yield self.end(pid)

    @inlineCallbacks
    def test_nobody_who_connects_meanwhile_is_refused(self) -> Any:
        yield self.start()
        opened, stop = 0, False
        handshake = handshake_bytes(f"/ws/{CHANNEL}", Host=f"127.0.0.1:{self.port}")

        @inlineCallbacks
        def reconnect() -> Any:
            """Open, and open again as soon as it was closed. The request comes in two parts."""
            nonlocal opened
            while not stop:
                door = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
                wire = yield door.connect(_wires)
                wire.transport.write(handshake[:20])
                yield deferToThread(int)  # a turn of the reactor and more
                wire.transport.write(handshake[20:])
                yield wire.opened.addTimeout(TIMEOUT, reactor)
                opened += 1
                wire.transport.write(CLOSE)
                yield wire.ended.addTimeout(TIMEOUT, reactor)

        loops = gatherResults([reconnect() for _ in range(10)])
        pid = yield self.replace()
        yield self.program.exited
        stop = True
        yield loops
        self.assertGreater(opened, 10)
        yield self.end(pid)

    @inlineCallbacks
    def test_a_handshake_that_has_begun_is_answered_by_the_old(self) -> Any:
        yield self.start()
        door = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        wire = yield door.connect(_wires)
        handshake = handshake_bytes(f"/ws/{CHANNEL}", Host=f"127.0.0.1:{self.port}")
        wire.transport.write(handshake[:20])
        pid = yield self.replace()
        yield self.program.wait_for(r"\(TCP Port \d+ Closed")
        wire.transport.write(handshake[20:])
        yield wire.opened.addTimeout(TIMEOUT, reactor)
        self.assertTrue((yield wire.ended).startswith(RESTARTING))
        yield self.end(pid)

    @inlineCallbacks
    def test_the_old_ones_closes_are_spread_over_the_drain(self) -> Any:
        yield self.start("--drain=3600")
        clients = yield self.open(3)
        pid = yield self.replace()
        first = [client.closed for client in clients]
        yield until(lambda: any(each.called for each in first))
        self.assertEqual(sum(each.called for each in first), 1)
        self.program.send_signal("QUIT")
        yield self.program.exited
        yield self.end(pid)

    @inlineCallbacks
    def test_a_site_on_the_same_port_is_served_throughout(self) -> Any:
        yield self.start("--serve-django", site=True)
        request = b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        answers = []
        replaced = self.replace()
        while self.program.status is None:
            answers.append((yield exchange(self.port, request)))
            yield deferLater(reactor, 0.05)  # the new process needs the processor too
        answers.append((yield exchange(self.port, request)))
        self.assertEqual({answer.partition(b"\r\n")[0] for answer in answers},
                         {b"HTTP/1.1 404 Not Found"})  # fmt: skip
        yield self.end((yield replaced))

    @inlineCallbacks
    def test_the_old_ones_environment_is_not_passed_on(self) -> Any:
        """A settings module may have read a file into the environment."""
        with open(self.folder / "site_settings.py", "a") as file:
            file.write("import os; os.environ.setdefault('FROM_FILE', open('value').read())\n")
            file.write("print('value', os.environ['FROM_FILE'])\n")
        (self.folder / "value").write_text("old")
        yield self.start(site=True)
        (self.folder / "value").write_text("new")
        pid = yield self.replace()
        yield self.program.wait_for("value new")
        yield self.end(pid)

    @inlineCallbacks
    def test_the_program_and_the_folder_are_found_anew(self) -> Any:
        """A link to the current release leads to the next one."""
        for number in "1", "2":
            release = self.folder / number
            release.mkdir()
            (release / "twistd").write_text(
                f"#!{sys.executable}\nprint('program {number}')\n"
                "from twisted.scripts.twistd import run\nrun()\n"
            )
            (release / "twistd").chmod(0o755)
            (release / "value").write_text(number)
        link = self.folder / "current"
        link.symlink_to("1")
        with open(self.folder / "site_settings.py", "a") as file:
            file.write("print('folder', open('value').read())\n")
        go = f'cd {link} && exec {link}/twistd "$@"'
        for workers in "1", "2":
            link.unlink()
            link.symlink_to("1")
            yield self.start(
                f"--workers={workers}",
                command=("/bin/sh", "-c", go, "sh", "-n", "--pidfile="),
                site=True,
                PYTHONPATH=f"{ROOT}:{self.folder}",
            )
            self.assertNotIn("program 2", self.program.printed)
            link.unlink()
            link.symlink_to("2")
            self.program.send_signal("USR2")
            yield self.program.wait_for("program 2")
            yield self.program.wait_for("folder 2")
            yield self.program.wait_for("serves from now on|All workers have been replaced")
            yield self.end_group()

    @inlineCallbacks
    def test_the_embedded_redis_goes_over_to_the_new_one(self) -> Any:
        yield self.start(redis="--embedded-redis")
        url = self.program.printed.rpartition("Redis at ")[2].split()[0]
        import valkey

        ends = [os.pidfd_open(pid) for pid in children(self.program.pid)]
        self.assertEqual(len(ends), 2)
        with valkey.Valkey.from_url(url) as redis:
            redis.set("kept", "yes")
            pid = yield self.replace()
            yield self.program.exited
            self.assertEqual(redis.get("kept"), b"yes")
            (client,) = yield self.open()
            self.assertEqual(redis.publish("broadcast:foobar", "hello"), 1)
            self.assertEqual((yield client.next()), "hello")
            before = len(self.program.printed)
            end = os.pidfd_open(pid)
            os.kill(pid, signal.SIGUSR2)
            yield until(lambda: "serves from now on" in self.program.printed[before:])
            yield wait_readable(end)
            self.assertEqual(redis.get("kept"), b"yes")
        said = self.program.printed[before:]
        yield self.end(int(said.partition(" serves from")[0].rpartition(" ")[2]))
        for end in ends:
            yield wait_readable(end)


class FailureTests(UpgradeTestCase):
    """A new server that cannot start leaves the old one serving."""

    @inlineCallbacks
    def assert_goes_on(self) -> Any:
        clients = yield self.open(2)
        for client in clients:
            yield client.next()
        self.program.send_signal("USR2")
        yield self.program.wait_for("This one goes on")
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        for client in clients:
            self.assertEqual((yield client.next()), "hello")
        self.assertEqual((yield self.said_to_new_client()), "version 1")

    @inlineCallbacks
    def test_code_that_cannot_be_imported(self) -> Any:
        yield self.start(site=True)
        self.write_code("{unbalanced")
        (self.folder / "site_code.py").write_text("oh dear")
        yield self.assert_goes_on()
        # The next try succeeds.
        self.write_code("2")
        pid = yield self.replace()
        self.assertEqual((yield self.said_to_new_client()), "version 2")
        yield self.end(pid)

    @inlineCallbacks
    def test_settings_that_lead_to_another_redis(self) -> Any:
        """It would never be ready; here it is ended before the time is up."""
        redis = RedisServer()
        self.addCleanup(redis.stop)
        file = self.folder / "redis"
        file.write_text(f"{self.redis.address}")
        yield self.start(redis=f"--redis=@{file}", site=True)
        file.write_text(f"redis://127.0.0.1:{free_port()}")
        self.program.send_signal("USR2")
        yield self.program.wait_for("Redis is unavailable")
        self.assertEqual((yield self.said_to_new_client()), "version 1")
        (new,) = children(self.program.pid)
        os.kill(new, signal.SIGKILL)
        yield self.program.wait_for("This one goes on")
        self.assertEqual((yield self.said_to_new_client()), "version 1")
        yield self.program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_a_program_that_is_gone(self) -> Any:
        shutil.copy(TWISTD, self.folder / "twistd")
        yield self.start(command=(f"{self.folder}/twistd", "-n", "--pidfile="), site=True)
        (self.folder / "twistd").unlink()
        yield self.assert_goes_on()
        yield self.program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_who_is_stopped_meanwhile_stops_and_so_does_the_new_one(self) -> Any:
        yield self.start(site=True)
        (self.folder / "site_code.py").write_text("import time; print('here'); time.sleep(600)")
        self.program.send_signal("USR2")
        yield self.program.wait_for("here")
        (new,) = children(self.program.pid)
        end = os.pidfd_open(new)
        self.program.send_signal("USR2")
        yield self.program.wait_for("already")
        yield self.program.signal_and_wait("TERM")
        yield wait_readable(end)

    @inlineCallbacks
    def test_process_1_says_why_it_cannot_be_replaced(self) -> Any:
        if UNSHARE is None:
            self.skipTest("unshare makes no process namespace here")
        yield self.start(command=(*UNSHARE, TWISTD, "-n"), site=True)
        (first,) = children(self.program.pid)
        os.kill(first, signal.SIGUSR2)
        yield self.program.wait_for("SIGUSR2 has no effect: this is process 1")
        self.assertEqual((yield self.said_to_new_client()), "version 1")


class OutsideTests(UpgradeTestCase):
    """Sockets' files, pidfiles and systemd."""

    @inlineCallbacks
    def test_a_unix_socket_and_its_lock_become_the_new_ones(self) -> Any:
        path = self.folder / "socket"
        yield self.start(listen=f"unix:{path}:mode=600")
        before = path.stat().st_ino
        pid = yield self.replace()
        yield self.program.exited
        self.assertEqual(path.stat().st_ino, before)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(os.readlink(f"{path}.lock"), str(pid))
        wire = yield UNIXClientEndpoint(reactor, str(path)).connect(_wires)
        wire.transport.write(handshake_bytes())
        yield wire.opened.addTimeout(TIMEOUT, reactor)
        wire.transport.write(CLOSE)
        yield wire.ended.addTimeout(TIMEOUT, reactor)
        yield self.end(pid)
        self.assertFalse(path.exists())
        self.assertFalse(os.path.lexists(f"{path}.lock"))

    @inlineCallbacks
    def test_tls_goes_on_with_the_certificate_that_is_there_by_then(self) -> Any:
        file, port = self.folder / "key", free_port()
        listen = f"ssl:{port}:privateKey={file}:certKey={file}:interface=127.0.0.1"

        def shown() -> Any:
            return deferToThread(ssl.get_server_certificate, ("127.0.0.1", port))

        def renew() -> str:
            _, both = make_certificate(x509.DNSName("localhost"))
            file.write_text(both)
            return both

        first = renew()
        yield self.start(listen=listen)
        self.assertIn((yield shown()).strip(), first)
        second = renew()
        pid = yield self.replace()
        yield self.program.exited
        self.assertIn((yield shown()).strip(), second)
        yield self.end(pid)

    @inlineCallbacks
    def test_a_new_server_that_is_given_up_leaves_the_unix_socket(self) -> Any:
        path = self.folder / "socket"
        yield self.start(listen=f"unix:{path}", site=True)
        (self.folder / "site_code.py").write_text("oh dear")
        self.program.send_signal("USR2")
        yield self.program.wait_for("This one goes on")
        self.assertTrue(path.exists())
        yield self.program.signal_and_wait("TERM")
        self.assertFalse(path.exists())

    @inlineCallbacks
    def test_the_pidfile_names_the_new_one(self) -> Any:
        file = self.folder / "pid"
        yield self.start(command=(TWISTD, "-n", f"--pidfile={file}"))
        pid = yield self.replace()
        yield self.program.exited
        yield until(lambda: file.read_text() == str(pid))
        yield self.end(pid)
        self.assertFalse(file.exists())

    @inlineCallbacks
    def test_a_daemon_and_its_pidfile(self) -> Any:
        file, log = self.folder / "pid", self.folder / "log"
        port = free_port()
        program = Program(
            *(TWISTD, f"--pidfile={file}", f"--logfile={log}", "ws4redis", "--drain=0.5"),
            *(f"--redis={self.redis.address}", f"--listen=tcp:{port}:interface=127.0.0.1"),
            folder=self.folder,
        )
        self.addCleanup(program.end)
        yield program.ended
        self.port = port
        first = int(file.read_text())
        self.addCleanup(self.kill_quietly, lambda: int(file.read_text()))
        yield until(lambda: "Ready: " in log.read_text())
        (client,) = yield self.open()
        end = os.pidfd_open(first)
        os.kill(first, signal.SIGUSR2)
        self.assertEqual((yield client.closed), 1012)
        yield wait_readable(end)
        second = int(file.read_text())
        self.assertNotEqual(first, second)
        (client,) = yield self.open()
        client.sendClose(1000)
        yield client.closed
        end = os.pidfd_open(second)
        os.kill(second, signal.SIGTERM)
        yield wait_readable(end)
        self.assertFalse(file.exists())
        self.assertNotIn("Traceback", log.read_text())

    @inlineCallbacks
    def test_systemd_is_told_who_serves(self) -> Any:
        path = str(self.folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind(path)
            systemd.settimeout(TIMEOUT)

            def told() -> Any:
                return deferToThread(lambda: systemd.recv(1000).decode().split("\n"))

            yield self.start(NOTIFY_SOCKET=path, site=True)
            self.assertEqual((yield told()), ["READY=1"])
            (self.folder / "site_code.py").write_text("oh dear")
            self.program.send_signal("USR2")
            self.assertEqual((yield told())[0], "RELOADING=1")
            self.assertEqual((yield told()), ["READY=1"])
            self.write_code("2")
            pid = yield self.replace()
            self.assertEqual((yield told())[0], "RELOADING=1")
            self.assertEqual((yield told()), [f"MAINPID={pid}"])
            self.assertEqual((yield told()), [f"MAINPID={pid}", "READY=1"])
            yield self.program.exited
            yield self.end(pid)
            self.assertEqual((yield told()), ["STOPPING=1"])

    def kill_quietly(self, pid: Any) -> None:
        with contextlib.suppress(OSError):
            os.kill(pid(), signal.SIGKILL)


class WorkerTests(UpgradeTestCase):
    """The workers are replaced one by one; the parent stays."""

    @inlineCallbacks
    def all_replaced(self) -> Any:
        """Fire when the workers have been replaced, and the old ones accept nobody any more."""
        yield self.program.wait_for("All workers have been replaced")
        for number in 1, 2:
            yield self.program.wait_for(rf"\[worker {number}\] \(TCP Port \d+ Closed")

    def worker_pids(self) -> list[int]:
        return sorted(children(self.program.pid))

    @inlineCallbacks
    def test_new_code_serves_and_the_old_workers_drain(self) -> Any:
        yield self.start("--workers=2", site=True)
        old = self.worker_pids()
        ends = [os.pidfd_open(pid) for pid in old]
        clients = yield self.open(20)
        self.write_code("2")
        os.killpg(self.program.pid, signal.SIGUSR2)
        yield self.all_replaced()
        for _ in range(10):
            self.assertEqual((yield self.said_to_new_client()), "version 2")
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(set(codes), {1012})
        for end in ends:
            yield wait_readable(end)
        self.assertEqual(len(set(self.worker_pids()) - set(old)), 2)
        self.assertNotIn("has ended", self.program.printed)
        yield self.program.signal_and_wait("TERM")
        self.assertNotIn("Traceback", self.program.printed)

    @inlineCallbacks
    def test_one_after_the_other(self) -> Any:
        yield self.start("--workers=2", site=True)
        self.write_code("2")
        self.program.send_signal("USR2")
        yield self.program.wait_for("All workers have been replaced")
        said = self.program.printed.partition("Replacing the workers")[2]
        first = said.index("[worker 1] Ready")
        self.assertGreater(said.index("[worker 2] Process"), first)
        yield self.program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_nobody_who_connects_meanwhile_is_refused(self) -> Any:
        yield self.start("--workers=2")
        done = self.program.wait_for("All workers have been replaced")
        self.program.send_signal("USR2")
        count = 0
        while not done.called or count < 20:
            (client,) = yield self.open()
            client.sendClose(1000)
            yield client.closed
            count += 1
        yield self.program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_new_code_that_cannot_start_leaves_the_old_workers(self) -> Any:
        yield self.start("--workers=2", site=True)
        old = self.worker_pids()
        clients = yield self.open(4)
        for client in clients:
            yield client.next()
        (self.folder / "site_code.py").write_text("oh dear")
        self.program.send_signal("USR2")
        yield self.program.wait_for("workers that have not been replaced go on")
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        for client in clients:
            self.assertEqual((yield client.next()), "hello")
        yield until(lambda: self.worker_pids() == old)
        self.write_code("2")
        self.program.send_signal("USR2")
        yield self.all_replaced()
        self.assertEqual((yield self.said_to_new_client()), "version 2")
        yield self.program.signal_and_wait("TERM")

    @inlineCallbacks
    def test_a_stop_meanwhile_ends_all(self) -> Any:
        yield self.start("--workers=2", site=True)
        (self.folder / "site_code.py").write_text("import time; print('here'); time.sleep(600)")
        self.program.send_signal("USR2")
        yield self.program.wait_for("here")
        ends = [os.pidfd_open(pid) for pid in self.worker_pids()]
        self.assertEqual(len(ends), 3)
        yield self.program.signal_and_wait("TERM")
        for end in ends:
            yield wait_readable(end)

    @inlineCallbacks
    def test_the_embedded_redis_stays(self) -> Any:
        yield self.start("--workers=2", redis="--embedded-redis")
        url = self.program.printed.rpartition("Redis at ")[2].split()[0]
        import valkey

        with valkey.Valkey.from_url(url) as redis:
            redis.set("kept", "yes")
            self.program.send_signal("USR2")
            yield self.program.wait_for("All workers have been replaced")
            self.assertEqual(redis.get("kept"), b"yes")
        yield self.program.signal_and_wait("TERM")


_wires = Factory.forProtocol(Wire)
_wires.noisy = False
