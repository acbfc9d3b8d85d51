"""``twistd ws4redis`` as its users run it: options, errors, signals, the embedded Redis."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import DeferredList, gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import TIMEOUT
from tests.support.clients import open_websocket
from tests.support.django import SETTINGS, environment
from tests.support.programs import TWISTD, Program, children, twistd, wait_readable, write_file
from tests.support.redis import RedisServer, shared_redis
from ws4redis_tx.system import resources
from ws4redis_tx.twistd.embedded_redis import free_port
from ws4redis_tx.twistd.options import Options

LISTEN = "--listen=tcp:0:interface=127.0.0.1"


class ErrorTests(TestCase):
    """Mistakes are reported before anything listens, with the remedy."""

    timeout = 60

    @inlineCallbacks
    def complaint(self, *options: str, **variables: str) -> Any:
        program = twistd(*options, **variables)
        yield program.ended
        self.assertEqual(program.status, 1, program.printed)
        self.assertNotIn("Traceback", program.printed)
        self.assertNotIn("starting", program.printed)
        return program.printed

    @inlineCallbacks
    def test_what_is_wrong_ends_it_with_a_sentence(self) -> Any:
        for options, expected in (
            (["--redis=redis://user:secret@localhost/0"], "--redis @FILE"),
            (["--listen=udp:1"], "tcp:8080:interface=127.0.0.1"),
            (["--settings=no.such.module"], "--settings mysite.settings"),
            (["--settings=tests.projects.django_project.failing"], "KeyError: 'NO_SUCH_VARIABLE'"),
            (["--bogus"], "--bogus"),
        ):
            printed = yield self.complaint(*options)
            self.assertIn(expected, printed)
            self.assertNotIn("secret", printed)

    def test_each_wrong_option_names_itself_and_the_remedy(self) -> None:
        self.patch(sys, "path", list(sys.path))
        without = {name: os.environ[name] for name in os.environ if "SETTINGS_MODULE" not in name}
        self.patch(os, "environ", without)
        for options, expected in (
            (["--redis=http://localhost"], "Write redis://host:6379/0"),
            (["--redis=redis://user:secret@localhost/0"], "--redis @FILE"),
            (["--redis=@does-not-exist"], "does-not-exist"),
            (["--redis=redis://localhost", "--embedded-redis"], "not both"),
            (["--prefix=group"], "--prefix is 'group'"),
            (["--expire=soon"], "--expire is 'soon'. Use whole seconds"),
            (["--expire=1.5"], "--expire is '1.5'"),
            (["--max-pending=0"], "--max-pending is 0"),
            (["--max-connections=many"], "--max-connections is 'many'"),
            (["--max-message-size=0"], "--max-message-size is 0"),
            (["--slow-reader=wait"], "Use one of close, drop_oldest, latest"),
            (["--drain=nan"], "--drain is 'nan'"),
            (["--workers=0"], "--workers is 0. Use a whole number, at least 1."),
            (["--workers=two"], "--workers is 'two'"),
            (["--websocket-url=ws"], "starts and ends with '/'"),
            (["--origin=example.com"], "https://example.com"),
            (["--serve-django"], "--settings MODULE"),
            (["--trusted-proxy=example.com"], "--trusted-proxy holds 'example.com'"),
        ):
            error = self.assertRaises(UsageError, Options().parseOptions, options)
            self.assertIn(expected, str(error))
            self.assertNotIn("secret", str(error))

    @inlineCallbacks
    def test_a_wrong_option_is_told_alone_with_the_way_to_the_help(self) -> Any:
        for options, expected in (
            (["--prefx=a"], "--prefx is not an option. Did you mean --prefix?"),
            (["--redis=localhost:6379"], "--redis does not begin with redis://"),
            (["--nodaemon"], "--nodaemon is an option of twistd itself: write it before ws4redis"),
            (["-n"], "-n is an option of twistd itself: write it before ws4redis"),
            (["mysite.settings"], "The command takes options only"),
        ):
            program = twistd(*options)
            yield program.ended
            self.assertEqual(program.status, 1)
            first, *others = program.printed.strip().splitlines()
            self.assertIn("twistd ws4redis: " + expected, first)
            self.assertEqual(others, ["All options: twistd ws4redis --help"])

    @inlineCallbacks
    def test_the_help_is_there_for_those_who_ask(self) -> Any:
        program = twistd("--help")
        yield program.ended
        self.assertEqual(program.status, 0)
        self.assertIn("--embedded-redis", program.printed)

    @inlineCallbacks
    def test_what_contradicts_the_settings_is_told_once_and_it_starts(self) -> Any:
        for workers in "1", "2":
            program = twistd(
                f"--redis={shared_redis().address}", f"--settings={SETTINGS}", LISTEN,
                f"--prefix=doubtful{os.getpid()}", f"--workers={workers}", **environment(),
            )  # fmt: skip
            self.addCleanup(program.end)
            yield program.wait_for("Ready: ")
            yield program.signal_and_wait("TERM")
            self.assertEqual(program.printed.count("--prefix says 'doubtful"), 1)
            self.assertEqual(program.printed.count("but WS4REDIS_CONNECTION says"), 1)

    @inlineCallbacks
    def test_dotted_names_in_the_settings_that_cannot_be_imported_are_named(self) -> Any:
        printed = yield self.complaint(
            "--settings=tests.projects.django_project.broken", **environment()
        )
        self.assertIn("WS4REDIS_SUBSCRIBER is 'no.such.Subscriber'", printed)
        self.assertIn("WS4REDIS_ALLOWED_CHANNELS is 'no.such.callback'", printed)

    @inlineCallbacks
    def test_an_application_that_cannot_publish_when_it_is_ready_is_named_as_such(self) -> Any:
        module = "tests.projects.django_project.early"
        printed = yield self.complaint(
            f"--redis=redis://127.0.0.1:{free_port()}", f"--settings={module}", **environment()
        )
        self.assertIn(f"An application of '{module}' publishes when it is ready", printed)
        self.assertIn("Redis cannot be reached", printed)
        self.assertNotIn("cannot be loaded", printed)

    @inlineCallbacks
    def test_a_port_in_use_is_a_sentence_and_not_a_traceback(self) -> Any:
        redis = shared_redis()
        for workers in "1", "2":
            program = twistd(
                f"--redis={redis.address}",
                f"--listen=tcp:{redis.port}:interface=127.0.0.1",
                f"--workers={workers}",
            )
            yield program.ended
            self.assertEqual(program.status, 1)
            self.assertIn("Is something running there already?", program.printed)
            self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_a_daemon_says_it_too_and_leaves_no_pid_file(self) -> Any:
        redis = shared_redis()
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        held = write_file(self, "") + ".pipe"
        os.mkfifo(held)
        for workers in "1", "2":
            # The daemon inherits the pipe, and ends later than ``twistd`` itself.
            daemon_ended = deferToThread(Path(held).read_bytes)
            program = Program(
                *("sh", "-c", 'exec "$@" 3>"$0"', held),
                *(TWISTD, f"--pidfile={folder}/pid", f"--logfile={folder}/log", "ws4redis"),
                f"--redis={redis.address}",
                f"--listen=tcp:{redis.port}:interface=127.0.0.1",
                f"--workers={workers}",
            )
            self.addCleanup(program.end)
            yield program.ended.addTimeout(TIMEOUT, reactor)
            yield daemon_ended
            self.assertEqual(program.status, 1)
            self.assertIn("Address already in use", program.printed)
            self.assertNotIn("Traceback", program.printed)
            log = Path(folder, "log").read_text()
            self.assertIn("Is something running there already?", log)
            self.assertEqual(os.listdir(folder), ["log"])

    def test_a_sentinels_password_is_not_taken_from_the_command_line_either(self) -> None:
        url = "sentinel://h:26379/mymaster/0?sentinel_password=hunter2"
        error = self.assertRaises(UsageError, Options().parseOptions, [f"--redis={url}"])
        self.assertIn("--redis @FILE", str(error))
        self.assertNotIn("hunter2", str(error))


class RunningTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def start(self, *options: str, **variables: str) -> Any:
        program = twistd(LISTEN, *options, **variables)
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"Ready: websockets at (ws://\S+/), .*Redis at (\S+)\n")
        self.url, self.redis = ready.groups()
        return program

    @inlineCallbacks
    def test_sigterm_closes_clients_with_1012_and_ends(self) -> Any:
        program = yield self.start(f"--redis={shared_redis().address}", "--drain=0.5")
        clients = yield gatherResults([open_websocket(self.url + "foobar") for _ in range(20)])
        yield program.signal_and_wait("TERM")
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(codes, [1012] * 20)
        self.assertEqual(program.signal, signal.SIGTERM)

    @inlineCallbacks
    def test_a_second_sigterm_ends_it_at_once(self) -> Any:
        for name in ("TERM", "INT"):
            program = yield self.start(f"--redis={shared_redis().address}", "--drain=3600")
            clients = yield gatherResults([open_websocket(self.url + "foobar") for _ in range(3)])
            program.transport.signalProcess("TERM")
            closed = DeferredList([client.closed for client in clients], fireOnOneCallback=True)
            self.assertEqual((yield closed)[0], 1012)
            yield program.signal_and_wait(name)
            yield gatherResults([client.closed for client in clients])

    @inlineCallbacks
    def test_the_embedded_redis_ends_with_the_service_even_if_that_is_killed(self) -> Any:
        for name in ("INT", "TERM", "KILL"):
            program = yield self.start("--embedded-redis")
            below = children(program.pid)
            self.assertEqual(len(below), 2)
            ends = [os.pidfd_open(pid) for pid in below]
            yield program.signal_and_wait(name)
            for end in ends:
                yield wait_readable(end)

    @inlineCallbacks
    def test_what_is_published_to_the_printed_url_arrives(self) -> Any:
        yield self.start("--embedded-redis", "--prefix=site", "--websocket-url=/live/now/")
        self.assertTrue(self.url.endswith("/live/now/"))
        client = yield open_websocket(self.url + "foobar?subscribe-broadcast")
        import valkey

        with valkey.Valkey.from_url(self.redis) as redis:
            self.assertEqual(redis.publish("site:broadcast:foobar", "hello"), 1)
        self.assertEqual((yield client.next()), "hello")
        client.sendClose(1000)
        yield client.closed

    @inlineCallbacks
    def test_a_password_comes_from_a_file_and_is_not_printed(self) -> Any:
        redis = RedisServer("--requirepass", "s3cret")
        self.addCleanup(redis.stop)
        file = write_file(self, f"redis://:s3cret@127.0.0.1:{redis.port}/0\n")
        program = yield self.start(f"--redis=@{file}")
        client = yield open_websocket(self.url + "foobar?subscribe-broadcast")
        client.sendClose(1000)
        yield client.closed
        self.assertNotIn("s3cret", program.printed)

    @inlineCallbacks
    def test_redis_that_refuses_the_password_is_said_once_without_it(self) -> Any:
        redis = RedisServer("--requirepass", "s3cret")
        self.addCleanup(redis.stop)
        program = twistd(LISTEN, WS4REDIS_CONNECTION=f"redis://:wr0ng@127.0.0.1:{redis.port}/0")
        self.addCleanup(program.end)
        yield program.wait_for("Redis is unavailable.*WRONGPASS")
        self.assertNotIn("wr0ng", program.printed)

    @inlineCallbacks
    def test_django_settings_are_found_in_the_current_folder_and_the_environment(self) -> Any:
        program = yield self.start(
            f"--redis={shared_redis().address}",
            "--prefix=given",
            DJANGO_SETTINGS_MODULE=SETTINGS,
            PYTHONPATH="",
            **environment(),
        )
        self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_an_application_may_publish_when_it_is_ready(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        program = yield self.start(
            f"--redis={redis.address}",
            "--settings=tests.projects.django_project.early",
            **environment(),
        )
        client = yield open_websocket(self.url + "early?subscribe-broadcast")
        self.assertEqual((yield client.next()), "ready")
        client.sendClose(1000)
        yield client.closed
        self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_it_listens_where_it_is_told_repeatedly(self) -> Any:
        ports = [free_port(), free_port()]
        program = twistd(
            f"--redis={shared_redis().address}",
            *(f"--listen=tcp:{port}:interface=127.0.0.1" for port in ports),
        )
        self.addCleanup(program.end)
        yield program.wait_for("Ready: ")
        for port in ports:
            client = yield open_websocket(f"ws://127.0.0.1:{port}/ws/a")
            client.sendClose(1000)
            yield client.closed


class PluginTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_twistd_lists_the_command_from_any_folder(self) -> Any:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        program = Program("/bin/sh", "-c", f"cd {folder} && {TWISTD} --help", PYTHONPATH="")
        yield program.ended
        self.assertRegex(program.printed, r"\n +ws4redis +Serve websockets")


class OptionTests(SynchronousTestCase):
    def test_help_names_every_option(self) -> None:
        text = str(Options())
        for option in (
            "listen", "redis", "embedded-redis", "settings", "websocket-url", "prefix", "expire",
            "heartbeat", "origin", "serve-django",
        ):  # fmt: skip
            self.assertIn(f"--{option}", text)


class CollectorTests(SynchronousTestCase):
    def test_garbage_is_looked_for_less_often_and_not_among_what_was_imported(self) -> None:
        before, frozen = gc.get_threshold(), gc.get_freeze_count()
        self.addCleanup(gc.set_threshold, *before)
        self.addCleanup(gc.unfreeze)
        resources.collect_garbage_less_often()
        self.assertGreater(gc.get_threshold()[0], before[0])
        self.assertGreater(gc.get_freeze_count(), frozen)
