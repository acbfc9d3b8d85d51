"""What a server starts at SIGUSR2, and how long it waits for it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, TimeoutError, inlineCallbacks
from twisted.logger import formatEvent, globalLogPublisher
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import TIMEOUT
from tests.support.programs import python
from ws4redis_tx.system import launch
from ws4redis_tx.system.launch import Inheritance, Launch, RunningRedis
from ws4redis_tx.twistd import handover
from ws4redis_tx.twistd.handover import Upgrade
from ws4redis_tx.twistd.workers import Workers

SLEEPS = "import sys; sys.stdin.read()"


class CommandTests(SynchronousTestCase):
    """The command line that starts the program again."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(rmtree, folder)
        self.script = f"{folder}/twistd"
        Path(self.script).touch(mode=0o755)

    def command(self, *original: str, arguments: list[str]) -> list[str]:
        self.patch(sys, "orig_argv", list(original))
        self.patch(sys, "argv", arguments)
        return Launch.of_this_process().command

    def test_a_script_is_run_by_itself(self) -> None:
        """Its first line may name another interpreter by then."""
        arguments = [self.script, "-n", "ws4redis"]
        self.assertEqual(self.command("/old/python", *arguments, arguments=arguments), arguments)

    def test_an_interpreter_with_options_of_its_own_keeps_them(self) -> None:
        for head in (
            ["python", "-X", "dev", self.script],
            ["python", "-m", "coverage", "run", self.script],
            ["python", "-c", "from twisted.scripts.twistd import run; run()"],
        ):
            command = self.command(*head, "-n", "ws4redis", arguments=["…", "-n", "ws4redis"])
            self.assertEqual(command, [*head, "-n", "ws4redis"])

    def test_a_script_that_cannot_be_run_needs_its_interpreter(self) -> None:
        os.chmod(self.script, 0o644)
        arguments = [self.script, "-n", "ws4redis"]
        command = self.command("python", *arguments, arguments=arguments)
        self.assertEqual(command, ["python", *arguments])

    def test_a_program_that_changed_its_arguments_is_run_as_twistd(self) -> None:
        command = self.command("python", "wrapper.py", arguments=["wrapper.py", "-n", "ws4redis"])
        self.assertEqual(command[0], sys.executable)
        self.assertEqual(
            command[2:], ["from twisted.scripts.twistd import run; run()", "-n", "ws4redis"]
        )

    def test_a_worker_is_a_twistd_even_of_another_program(self) -> None:
        for program in (self.script,), ("python", "-m", "coverage", "run", self.script):
            started = Launch(program, ("-n", "ws4redis"), "/", {})
            self.assertEqual(tuple(started.worker_command([], 1, None)[: len(program)]), program)
        started = Launch(("/venv/bin/twist",), ("ws4redis",), "/", {})
        self.assertEqual(started.worker_command([], 1, None)[:2], [sys.executable, "-c"])

    def test_the_folder_has_the_name_that_the_shell_gave_it(self) -> None:
        real = os.path.realpath(os.path.dirname(self.script))
        link = f"{real}/current"
        os.symlink(real, link)
        code = (
            "from ws4redis_tx.system.launch import Launch; print(Launch.of_this_process().folder)"
        )
        for named, expected in ((link, link), ("/", real), ("", real), ("no/such", real)):
            script = f"import os; os.chdir({real!r}); os.environ['PWD'] = {named!r}; {code}"
            self.assertEqual(python("-c", script).stdout.strip(), expected)


class InheritanceTests(SynchronousTestCase):
    def test_it_arrives_as_it_was_passed_on(self) -> None:
        given = Inheritance(7, [("tcp:1", 9), ("tcp:1", 8)], RunningRedis(6379, 10, 11))
        variables, descriptors = given.passed_on()
        self.patch(os, "environ", variables)
        self.patch(os, "set_inheritable", lambda *_: None)
        arrived = Inheritance.from_environment()
        assert arrived is not None and arrived.redis is not None
        self.assertEqual(os.environ, {})
        self.assertEqual(descriptors[arrived.control], 7)
        self.assertEqual([descriptors[arrived.take_socket("tcp:1")] for _ in "12"], [9, 8])
        self.assertIsNone(arrived.take_socket("tcp:1"))
        redis = arrived.redis
        self.assertEqual(
            (redis.port, descriptors[redis.input], descriptors[redis.output]), (6379, 10, 11)
        )

    def test_one_of_another_edition_is_refused(self) -> None:
        variables, _ = Inheritance(3, []).passed_on()
        self.patch(os, "environ", variables)
        self.patch(launch, "_VERSION", 2)
        self.assertRaises(UsageError, Inheritance.from_environment)


class PatienceTests(TestCase):
    """A new process that is not ready in time is ended, and the old one goes on."""

    timeout = 60

    def setUp(self) -> None:
        self.events: DeferredQueue[Any] = DeferredQueue()
        globalLogPublisher.addObserver(self.events.put)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.put)

    @inlineCallbacks
    def logged(self, text: str) -> Any:
        while True:
            event = yield self.events.get().addTimeout(TIMEOUT, reactor)
            if text in (formatEvent(event) or ""):
                return event

    @inlineCallbacks
    def test_of_a_single_process(self) -> Any:
        self.patch(handover, "REPLACEMENT_TIMEOUT", 0.1)
        ended: Deferred[None] = Deferred()

        class NewServer(handover._NewServer):
            def processEnded(self, reason: Any) -> None:
                ended.callback(None)

        self.patch(handover, "_NewServer", NewServer)
        websockets: Any = type("Websockets", (), {"running": True, "ports": ()})()
        started = Launch((sys.executable, "-c", SLEEPS), (), os.getcwd(), dict(os.environ))
        config = type("Config", (), {"listen": ()})()
        options = {"launch": started, "config": config, "twistd": {}}
        upgrade = Upgrade(options, websockets, None, reactor)
        upgrade.begin()
        yield self.logged("This one goes on")
        yield ended
        self.assertFalse(upgrade.done)

    @inlineCallbacks
    def test_of_a_worker(self) -> Any:
        workers = Workers(1, [sys.executable, "-c", SLEEPS], ".", 0, reactor)
        workers.startService()
        first = (yield self.logged("Process "))["pid"]
        yield self.assertFailure(workers.replace("worker 1", 0.1), TimeoutError)
        second = (yield self.logged("Process "))["pid"]
        self.assertNotEqual(first, second)
        os.kill(first, 0)
        yield workers.stopService()
        self.assertRaises(ProcessLookupError, os.kill, second, 0)
