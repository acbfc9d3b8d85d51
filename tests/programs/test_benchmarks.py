"""The benchmarks run, and their instruments count correctly."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from http.client import BadStatusLine
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import load as load_module
from benchmarks import opening, report
from benchmarks.handshakes import overtakings
from benchmarks.load import Failed, Heard, Load, Opened, Undelivered
from benchmarks.opening import Opening
from benchmarks.peers.environments import Unavailable, make, once
from benchmarks.processes import family
from benchmarks.report import NEVER_IDLE, Figure, Report, Scale, judged
from benchmarks.servers import Program, Redis, Server, cpu_seconds, free_port, resident_bytes
from tests.support import ROOT
from tests.support.busy_machine import Machine
from tests.support.programs import python
from tests.support.scripted_server import (
    ACCEPT,
    CLOSE,
    PATIENCE,
    Script,
    ScriptedServer,
    receive,
    sends,
)
from tests.support.sizes import BENCHMARKS
from ws4redis_tx.websocket.frames import server_frame


class LoadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(load_module, "PATIENCE", PATIENCE)
        self.load = Load()
        self.addCleanup(self.load.end)

    def serve(self, script: Script) -> ScriptedServer:
        server = ScriptedServer(script)
        self.addCleanup(server.end)
        return server

    def ordered(self, *messages: bytes) -> Heard:
        """The ``messages`` as one client received them, numbered from 7."""
        go_on = threading.Event()

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT)
            go_on.wait(PATIENCE)
            client.sendall(b"".join(map(server_frame, messages)))

        server = self.serve(script)
        self.addCleanup(go_on.set)
        self.load.open(server.port, ["/ws/load"], 1)
        self.load.start(7)
        go_on.set()
        return self.load.every(len(messages))

    def test_what_comes_once_and_in_order_is_all_right(self) -> None:
        heard = self.ordered(b"7", b"8 123", b"9 x", b"10")
        self.assertEqual((heard.fewest, heard.most, heard.frames), (4, 4, 4))
        heard.check(4)

    def test_a_message_that_is_left_out_is_noticed(self) -> None:
        heard = self.ordered(b"7", b"9", b"10")
        self.assertEqual((heard.lost, heard.disordered), (1, 0))
        self.assertRaises(Undelivered, heard.check, 3)

    def test_a_first_message_that_is_left_out_is_noticed(self) -> None:
        heard = self.ordered(b"8", b"9")
        self.assertEqual((heard.lost, heard.disordered), (1, 0))

    def test_messages_in_another_order_are_noticed(self) -> None:
        heard = self.ordered(b"7", b"9", b"8", b"10")
        self.assertEqual((heard.lost, heard.disordered), (1, 1))
        self.assertRaises(Undelivered, heard.check, 4)

    def test_a_message_that_comes_twice_is_noticed(self) -> None:
        heard = self.ordered(b"7", b"7", b"8")
        self.assertEqual((heard.lost, heard.disordered), (0, 1))
        self.assertRaises(Undelivered, heard.check, 3)

    def test_a_message_without_its_number_is_noticed(self) -> None:
        self.assertEqual(self.ordered(b"7", b"hello").disordered, 1)

    def test_too_few_messages_are_noticed(self) -> None:
        self.assertRaises(Undelivered, self.ordered(b"7").check, 2)

    def test_messages_of_every_size_are_counted_however_they_are_cut(self) -> None:
        sizes = [1, 2, 47, 48, 49, 125, 126, 200, 65535, 65536, 200_000]
        messages = [str(number).ljust(size, "x").encode() for number, size in enumerate(sizes)]
        data = ACCEPT + b"".join(map(server_frame, messages))

        def script(client: socket.socket) -> None:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(1000):
                client.sendall(data[start : start + 1])
            for start in range(1000, len(data), 777):
                client.sendall(data[start : start + 777])

        server = self.serve(script)
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        heard = self.load.every(len(sizes))
        self.assertFalse(heard.timed_out)
        self.assertEqual(heard.bytes, sum(sizes))
        heard.check(len(sizes))

    def test_clients_are_counted_one_by_one(self) -> None:
        scripts = [sends(b"0"), sends(b"0", b"1")]
        server = self.serve(lambda client: scripts.pop()(client))
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 2)
        heard = self.load.total(3)
        self.assertEqual((heard.fewest, heard.most), (1, 2))
        self.assertRaises(Undelivered, heard.check, 2)

    def test_targets_cookies_and_headers_are_sent_in_turn(self) -> None:
        server = self.serve(sends())
        self.load.open(
            server.port,
            ["/ws/a", "/ws/b"],
            3,
            cookies=["sessionid=1", "sessionid=2", "sessionid=3"],
            headers=["User-Agent: x y"],
            at_once=1,
        )
        said = [request.decode().split("\r\n") for request in server.requests]
        targets = [lines[0].split(" ")[1] for lines in said]
        self.assertEqual(targets, ["/ws/a", "/ws/b", "/ws/a"])
        cookies = [lines[-3] for lines in said]
        self.assertEqual(cookies, [f"Cookie: sessionid={number}" for number in (1, 2, 3)])
        self.assertTrue(all("User-Agent: x y" in lines for lines in said))

    def test_pings_are_answered(self) -> None:
        pongs = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT + b"\x89\x03abc")
            pongs.append(receive(client, 9))
            client.sendall(server_frame(b"0"))

        server = self.serve(script)
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        heard = self.load.every(1)
        self.assertEqual(pongs, [b"\x8a\x83\0\0\0\0abc"])
        self.assertEqual((heard.pings, heard.frames), (1, 1))

    def test_a_websocket_that_the_server_ends_is_noticed_and_not_waited_for(self) -> None:
        server = self.serve(sends(b"0", CLOSE))
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        heard = self.load.every(2)
        self.assertEqual((heard.timed_out, heard.gone, heard.open), (False, 1, 0))
        self.assertRaises(Undelivered, heard.check, 1)

    def test_a_websocket_that_ends_while_it_is_waited_for_is_not_waited_for(self) -> None:
        go_on = threading.Event()

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT)
            go_on.wait(PATIENCE)
            client.sendall(CLOSE)

        server = self.serve(script)
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        found = []
        waiting = threading.Thread(target=lambda: found.append(self.load.every(1)))
        waiting.start()
        go_on.set()
        waiting.join()
        self.assertEqual([(heard.timed_out, heard.gone) for heard in found], [(False, 1)])

    def test_refusals_are_told_by_their_status(self) -> None:
        server = self.serve(lambda client: client.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n"))
        error = self.assertRaises(Undelivered, self.load.open, server.port, ["/ws/load"], 2)
        self.assertIn("403", str(error))
        self.load.close()
        heard = self.load.open(server.port, ["/ws/load"], 2, at_once=0, refusals=True)
        self.assertEqual(heard.failed, 2)
        self.assertEqual([opened.status for opened in self.load.handshakes()], [403, 403])

    def test_each_handshake_is_timed(self) -> None:
        server = self.serve(sends())
        before = time.monotonic_ns()
        self.load.open(server.port, ["/ws/load"], 3, at_once=0)
        after = time.monotonic_ns()
        handshakes = self.load.handshakes()
        self.assertEqual([opened.status for opened in handshakes], [101] * 3)
        for opened in handshakes:
            self.assertLess(0, opened.asked)
            self.assertLess(opened.asked, opened.took)
            self.assertEqual(opened.resent, 0)
            self.assertLessEqual(before, opened.begun)
            self.assertLess(0, opened.took)
            self.assertLessEqual(opened.begun + opened.took, after)

    def test_latencies_are_those_since_the_moment_in_the_message(self) -> None:
        now = time.monotonic_ns()
        ages = [1_000_000_000, 10_000_000_000, 3_000_000_000]
        heard = self.ordered(*(b"%d %d" % (7 + i, now - age) for i, age in enumerate(ages)))
        passed = time.monotonic_ns() - now
        self.assertEqual(heard.timed, 3)
        for found, age in ((heard.p50, 3_000_000_000), (heard.slowest, 10_000_000_000)):
            self.assertLessEqual(age, found)
            self.assertLessEqual(found, (age + passed) * 1.04)
        self.assertEqual(heard.p99, heard.slowest)

    def test_a_lap_forgets_the_latencies_and_no_message(self) -> None:
        self.ordered(b"7 0", b"8 0")
        self.assertEqual(self.load.lap().timed, 2)
        heard = self.load.lap()
        self.assertEqual((heard.timed, heard.slowest, heard.frames), (0, 0, 2))

    def test_whoever_waits_in_vain_is_told(self) -> None:
        server = self.serve(sends(b"0"))
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        self.assertTrue(self.load.every(2, patience=0).timed_out)
        self.assertTrue(self.load.total(2, patience=0.01).timed_out)

    def test_compressed_messages_are_counted_only(self) -> None:
        server = self.serve(lambda client: client.sendall(ACCEPT + b"\xc1\x03\x01\x02\x03"))
        self.load.start()
        self.load.open(server.port, ["/ws/load"], 1)
        heard = self.load.every(1)
        self.assertEqual((heard.compressed, heard.frames, heard.disordered), (1, 1, 0))


class UsageTests(SynchronousTestCase):
    def test_a_server_gets_a_free_port_that_no_client_gets(self) -> None:
        with socket.create_server(("127.0.0.1", free_port())) as server:
            taken = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", taken)) as client:
                self.assertLess(taken, client.getsockname()[1])
            drawn = itertools.count(taken)
            self.patch(random, "randrange", lambda *_: next(drawn))
            self.assertLess(taken, free_port())

    def test_the_cpu_of_a_process_is_that_of_all_its_threads_those_that_ended_too(self) -> None:
        def work() -> None:
            while time.thread_time() < 0.02:
                pass

        before = cpu_seconds(os.getpid())
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        first = time.process_time()
        found = cpu_seconds(os.getpid())
        self.assertLessEqual(before + 0.02, found)
        self.assertLessEqual(first, found)
        self.assertLessEqual(found, time.process_time())

    def test_a_program_is_measured_with_the_processes_that_it_starts(self) -> None:
        redis = Redis()
        self.addCleanup(redis.end)
        pids = family(redis.pid)
        self.assertEqual(len(pids), 2)
        before = sum(map(cpu_seconds, pids))
        self.assertLessEqual(before, redis.cpu())
        self.assertLess(resident_bytes(redis.pid), redis.memory())


class ReportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.report = Report("example", Scale(), watch=Machine(0.0).watch(), clients=2)

    def written(self) -> dict[str, object]:
        content: dict[str, object] = json.loads(self.report.write(self.folder).read_text())
        return content

    def test_ratios_are_taken_round_by_round(self) -> None:
        slow, fast = Figure("slow", "µs", [2.0, 40.0, 6.0]), Figure("fast", "µs", [1.0, 10.0, 2.0])
        self.assertEqual(slow.over(fast).values, [2.0, 4.0, 3.0])
        self.assertEqual(slow.over(fast).median, 3.0)

    def test_a_goal_is_met_up_to_its_limit(self) -> None:
        self.report.goal("low", Figure("a", "times", [1.25]), 1.25)
        self.report.goal("too high", Figure("b", "times", [1.26]), 1.25)
        self.report.goal("high", Figure("c", "times", [5.0]), 5.0, least=True)
        self.report.goal("too low", Figure("d", "times", [4.9]), 5.0, least=True)
        met = [goal["met"] for goal in self.written()["goals"]]
        self.assertEqual(met, [True, False, True, False])
        table = self.report.table()
        self.assertIn("MISSED too high", table)
        self.assertIn("met    high", table)

    def test_a_missed_goal_is_told_with_how_much_is_missing_and_why(self) -> None:
        goal = {"text": "a goal", "median": 1.5, "at most": 1.2, "met": False}
        self.assertEqual(judged(goal), "MISSED a goal: 1.500, target ≤ 1.200, missed by 25 %.")
        self.patch(report, "REASONS", {"a goal": "It is hard."})
        self.assertTrue(judged(goal).endswith("missed by 25 %. It is hard."))
        at_least = {"text": "b", "median": 15.0, "at least": 20.0, "met": False}
        self.assertIn("missed by 25 %", judged(at_least))
        self.assertIn("missed by 2.000", judged({**goal, "median": 2.0, "at most": 0}))
        self.assertIn("missed by less than 1 %", judged({**goal, "median": 1.201}))

    def test_another_server_that_has_failed_is_not_measured_again(self) -> None:
        def fail() -> dict[str, float]:
            raise Undelivered("b: it lost messages")

        measures = {"a": lambda: {"cpu": 1.0}, "b": partial(self.report.attempt, "b", fail)}
        found = self.report.interleave(measures, 3)
        self.assertEqual(self.report.missing, {"b": "it lost messages"})
        self.assertEqual(found, {"a": {"cpu": [1.0] * 3}, "b": {}})
        self.assertEqual(self.report.watch.record()["others"].keys(), {"a", "b"})

    def test_what_was_not_measured_is_named_with_the_reason(self) -> None:
        self.report.miss("another server", "it is not installed")
        self.assertIn("another server not measured: it is not installed", self.report.table())
        self.assertEqual(self.written()["not measured"], {"another server": "it is not installed"})

    def test_a_goal_that_was_not_measured_is_told_with_the_reason(self) -> None:
        self.report.miss("b", "it is not installed")
        self.report.goal_not_measured("ratio to b", 0.9, "b")
        self.report.goal_not_measured("ratio to c", 0.9, "c")
        self.report.scale = Scale(peers=False)
        self.report.goal_not_measured("ratio to d", 0.9, "d")
        table = self.report.table()
        told = "ratio to b: not measured: b: it is not installed; target ≤ 0.9"
        self.assertIn(told, table)
        self.assertIn("ratio to c: not measured: c: there is no such server", table)
        self.assertIn("ratio to d: not measured: only our servers were measured", table)
        written = self.written()
        self.assertEqual(written["goals"], [])
        self.assertEqual(
            written["goals not measured"][0],
            {"text": "ratio to b", "at most": 0.9, "why": "b: it is not installed"},
        )

    def test_a_server_that_did_not_become_idle_is_named(self) -> None:
        measures = {
            "a": lambda: {"cpu": 1.0, NEVER_IDLE: 2},
            "b": lambda: {"cpu": 1.0, NEVER_IDLE: 0},
        }
        found = self.report.interleave(measures, 3)
        self.assertEqual(found, {"a": {"cpu": [1.0] * 3}, "b": {"cpu": [1.0] * 3}})
        self.assertEqual(self.written()["never idle"], {"a": 6})
        self.assertIn("a was not idle within 20 s", self.report.table())

    def test_results_tell_what_they_were_measured_with(self) -> None:
        versions = self.written()["versions"]
        self.assertLessEqual({"Python", "Twisted", "kernel", "CPU", "ws4redis_tx"}, versions.keys())

    def test_another_server_that_fails_beside_others_has_failed_only_if_it_fails_again(
        self,
    ) -> None:
        machine = Machine(0.5, 0.0, 0.0, 0.5, 0.0, 0.0)
        self.report.watch = machine.watch()
        outcomes: list[BaseException | None] = [Undelivered("too late"), None, OSError(), OSError()]

        def measure() -> dict[str, float]:
            machine.go_on(5.0)
            if (outcome := outcomes.pop(0)) is not None:
                raise outcome
            return {"cpu": 1.0}

        measures = {"b": partial(self.report.attempt, "b", measure)}
        self.assertEqual(self.report.interleave(measures, 1), {"b": {"cpu": [1.0]}})
        self.assertEqual(self.report.missing, {})
        self.assertEqual(self.report.interleave(measures, 1), {"b": {}})
        self.assertEqual(self.report.missing, {"b": "OSError"})
        self.assertEqual(self.report.watch.repeated, 2)

    def test_another_server_may_fail_in_any_way(self) -> None:
        def start() -> dict[str, float]:
            Program([sys.executable, "-c", "print('no such | option')"], "ready")
            return {}

        def tell() -> dict[str, float]:
            program = Program([sys.executable, "-c", "print('ready')"], "ready")
            try:
                os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
                program.tell("x")
            finally:
                program.end()
            return {}

        def fail(error: BaseException) -> dict[str, float]:
            raise error

        name = Path(sys.executable).name
        for measure, why in (
            (start, f"{name} did not start: no such | option"),
            (tell, "[Errno 32] Broken pipe"),
            (partial(fail, ConnectionRefusedError(111, "refused")), "[Errno 111] refused"),
            (partial(fail, FileNotFoundError(2, "none")), "[Errno 2] none"),
            (partial(fail, BadStatusLine("?")), "?"),
            (partial(fail, Failed("b: nothing\nlistens")), "nothing listens"),
            (partial(fail, Unavailable("x" * 1000)), "… " + "x" * 300),
        ):
            self.assertEqual(self.report.attempt("b", measure), {})
            self.assertEqual(self.report.missing.pop("b"), why)

    def test_a_program_that_did_not_read_everything_can_be_ended(self) -> None:
        program = Program([sys.executable, "-c", "print('ready')"], "ready")
        os.waitid(os.P_PID, program.pid, os.WEXITED | os.WNOWAIT)
        self.assertRaises(BrokenPipeError, program.tell, "x")
        program.end()

    def test_what_is_no_failure_of_another_server_ends_the_program(self) -> None:
        for error in (SystemExit(143), KeyboardInterrupt(), ZeroDivisionError()):

            def end(error: BaseException = error) -> dict[str, float]:
                raise error

            self.assertRaises(type(error), self.report.attempt, "b", end)
        self.assertEqual(self.report.missing, {})

    def test_another_server_that_fails_leaves_no_process(self) -> None:
        def start() -> dict[str, float]:
            read, write = os.pipe()
            self.addCleanup(os.close, read)
            command = "(sleep 60 & echo started; wait) & wait"
            program = subprocess.Popen(
                ["sh", "-c", command], stdout=subprocess.PIPE, pass_fds=[write]
            )
            os.close(write)
            self.addCleanup(program.wait)
            self.addCleanup(program.stdout.close)
            started.append((read, program.stdout.readline()))
            raise ConnectionRefusedError(111, "refused")

        started: list[tuple[int, bytes]] = []
        self.report.attempt("b", start)
        ((read, said),) = started
        self.assertEqual(said, b"started\n")
        self.assertEqual(os.read(read, 1), b"")  # all who had it open have ended

    def test_each_is_measured_in_each_round(self) -> None:
        called: list[str] = []

        def measure(name: str) -> Callable[[], dict[str, float]]:
            def call() -> dict[str, float]:
                called.append(name)
                return {"cpu": float(len(called))}

            return call

        found = self.report.interleave({name: measure(name) for name in "ab"}, 2)
        self.assertEqual(called, ["a", "b", "a", "b"])
        self.assertEqual(found, {"a": {"cpu": [1.0, 3.0]}, "b": {"cpu": [2.0, 4.0]}})


class OrderTests(SynchronousTestCase):
    def overtaken(self, *handshakes: tuple[int, int], resent: int = 0) -> list[int]:
        """``handshakes`` holds the moments of each request and answer; the first request was
        ``resent`` that often.
        """
        return overtakings(
            [
                Opened(101, 0, asked, answered, 0 if index else resent)
                for index, (asked, answered) in enumerate(handshakes)
            ]
        )

    def test_who_is_answered_in_the_order_of_asking_is_overtaken_by_nobody(self) -> None:
        self.assertEqual(self.overtaken((1, 10), (2, 11), (3, 12)), [0, 0, 0])

    def test_all_who_asked_later_and_were_answered_before_are_counted(self) -> None:
        self.assertEqual(self.overtaken((1, 13), (2, 12), (3, 10), (4, 11)), [0, 0, 2, 3])

    def test_the_order_is_that_of_asking_and_not_of_beginning(self) -> None:
        self.assertEqual(self.overtaken((5, 12), (4, 11), (3, 10)), [0, 0, 0])

    def test_a_request_that_was_sent_again_is_in_no_order(self) -> None:
        self.assertEqual(self.overtaken((1, 13), (2, 11), (3, 12), resent=1), [0, 0])


class Working(Server):
    """Uses ``seconds`` of CPU between two looks. Nothing can connect to it."""

    name = "working"
    port = 1

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._used = 0.0

    def cpu(self) -> float:
        self._used += self._seconds
        return self._used

    def end(self) -> None:
        pass


class SettlingTests(SynchronousTestCase):
    def never_idle(self, seconds: float) -> list[int]:
        self.patch(opening, "_PAUSE", 1e-6)
        found = Opening(Working(seconds))
        self.addCleanup(found.end)
        for _ in range(2):
            found.close()
        return [found.never_idle(), found.never_idle()]

    def test_a_server_that_goes_on_working_is_noticed(self) -> None:
        self.patch(opening, "PATIENCE", 0.0)
        self.assertEqual(self.never_idle(1.0), [2, 0])

    def test_a_server_that_becomes_idle_is_all_right(self) -> None:
        self.assertEqual(self.never_idle(0.0), [0, 0])


class EndTests(SynchronousTestCase):
    def test_no_process_outlives_a_benchmark_that_is_terminated(self) -> None:
        script = (
            "import subprocess, time\n"
            "from benchmarks.processes import no_descendants_left\n"
            "with no_descendants_left():\n"
            "    subprocess.Popen(['sh', '-c', '(sleep 60 & echo started) & exec sleep 60'])\n"
            "    while True:\n"
            "        time.sleep(0.01)\n"
        )
        benchmark = subprocess.Popen(
            [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE
        )
        self.addCleanup(benchmark.wait)
        self.addCleanup(benchmark.kill)
        assert benchmark.stdout is not None
        self.addCleanup(benchmark.stdout.close)
        self.assertEqual(benchmark.stdout.readline(), b"started\n")
        benchmark.send_signal(signal.SIGTERM)
        self.assertEqual(benchmark.stdout.read(), b"")  # all who had it open have ended
        self.assertEqual(benchmark.wait(), 128 + signal.SIGTERM)


class PeerTests(SynchronousTestCase):
    def test_what_could_not_be_installed_is_not_tried_again(self) -> None:
        tried: list[str] = []

        @once
        def install(name: str) -> str:
            tried.append(name)
            if name == "b":
                raise Unavailable("no b")
            return f"/{name}"

        for _ in range(2):
            self.assertEqual(install("a"), "/a")
            self.assertEqual(str(self.assertRaises(Unavailable, install, "b")), "no b")
        self.assertEqual(tried, ["a", "b"])

    def test_a_command_that_fails_is_named_with_what_it_said(self) -> None:
        script = "import sys; print('no such package'); sys.exit(1)"
        why = self.assertRaises(Unavailable, make, sys.executable, "-c", script)
        self.assertIn(f"{Path(sys.executable).name} -c", str(why))
        self.assertIn("no such package", str(why))


class ProgramTests(SynchronousTestCase):
    def check(self, program: str, goals: int) -> None:
        if program not in BENCHMARKS:
            raise SkipTest("make test-all runs it")
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        options = ("--quick", "--no-peers", "--rounds=1", f"--results={folder}")
        done = python("-m", f"benchmarks.{program}", *options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout + done.stderr)
        result = json.loads((Path(folder) / f"{program}.json").read_text())
        self.assertEqual(len(result["goals"]), goals)
        self.assertIn("steal", done.stdout)
        self.assertLess(0, len(result["conditions"]["others"]))
        for figure in result["figures"]:
            self.assertIn(figure["name"], done.stdout)
            if figure["unit"] != "handshakes":  # the goal is none
                self.assertLess(0, figure["median"], figure)

    def test_fanout_runs(self) -> None:
        self.check("fanout", goals=3)

    def test_compression_runs(self) -> None:
        self.check("compression", goals=2)

    def test_bursts_runs(self) -> None:
        self.check("bursts", goals=3)

    def test_relay_runs(self) -> None:
        self.check("relay", goals=1)

    def test_growth_runs(self) -> None:
        self.check("growth", goals=4)

    def test_idle_runs(self) -> None:
        self.check("idle", goals=1)

    def test_memory_runs(self) -> None:
        self.check("memory", 1)

    def test_handshakes_runs(self) -> None:
        self.check("handshakes", 6)

    def test_history_runs(self) -> None:
        self.check("history", goals=2)

    def test_workers_runs(self) -> None:
        self.check("workers", goals=1)
