"""Publishing from Django, from an ordinary thread, over crochet and a real Redis."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from threading import Event
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.brokers import share_commands, start_broker
from tests.support.django import environment, in_thread, set_up_django
from tests.support.programs import Program, children
from tests.support.publishers import run_publisher
from tests.support.redis import RedisServer, shared_redis
from ws4redis_tx.core.errors import AudienceError, BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.twistd.embedded_redis import free_port

set_up_django()

from django.contrib.auth.models import User
from django.test import RequestFactory, override_settings

from ws4redis_tx.publisher import SELF, RedisPublisher
from ws4redis_tx.threads import bridge
from ws4redis_tx.threads.reactor_thread import ReactorThread


class PublisherTests(TestCase):
    timeout = 60

    def setUp(self) -> Any:
        self.redis = shared_redis()
        self.broker = start_broker(self, self.redis.address)
        share_commands(self, self.broker.commands)
        return self.broker.when_available()

    def publish(self, message: Any = "hi", expire: int | None = None, **audience: Any) -> Any:
        audience.setdefault("facility", "foobar")
        return in_thread(lambda: RedisPublisher(**audience).publish_message(message, expire))

    def keys(self) -> set[str]:
        return {
            key.decode() for key in self.redis.command("KEYS", "*") if not key.startswith(b"at:")
        }

    def request(self) -> Any:
        """A request of John, who is logged in, is in the group of chatters and has a session."""
        request = RequestFactory().get("/")
        request.user = User.objects.get(username="john")
        request.session = type("Session", (dict,), {"session_key": "abc"})()
        return request


class AudienceTests(PublisherTests):
    def test_what_is_no_list_of_names_is_a_clear_error(self) -> None:
        for argument in ("users", "groups", "sessions"):
            for value in ("john", b"john", True, 7, ["john", None], [b"john"]):
                with self.assertRaises(TypeError) as caught:
                    RedisPublisher(facility="foobar", **{argument: value})
                self.assertIsInstance(caught.exception, ValueError)
                self.assertIn(argument, str(caught.exception))

    @inlineCallbacks
    def test_a_publisher_without_audience_raises_when_it_publishes(self) -> Any:
        with self.assertRaises(AudienceError):
            yield self.publish()
        for audience in ({"users": []}, {"groups": None}, {"broadcast": False}):
            self.assertEqual((yield self.publish(**audience)), 0)


class StoppingTests(PublisherTests):
    """The reactor is about to stop, and has some turns left."""

    def test_what_is_said_not_to_be_published_is_not_published_later(self) -> None:
        before = self.redis.command("DBSIZE")
        for end in (bridge._Call.stopped, bridge._Call.withdraw):
            thread = ReactorThread(reactor, self.broker.commands)
            call = bridge._Call(thread, self.redis.address, "", "put", (b"never", b"", 60), Event())
            end(call)
            call.start()
            self.assertFalse(call.error.maybe_published)
            self.assertIsNotNone(call.error)
            self.assertEqual(self.redis.command("DBSIZE"), before)

    @inlineCallbacks
    def test_who_waited_too_long_is_told_of_the_fate_although_it_stopped_since(self) -> Any:
        class Stopping(ReactorThread):
            def wait_for(self, call: Any, timeout: float) -> bool:
                done = super().wait_for(call, timeout)
                self.stopped()
                return done

        self.patch(bridge, "get_ready_thread", lambda: Stopping(reactor, self.broker.commands))
        self.patch(self.broker.commands, "get", lambda channels: Deferred())
        with override_settings(WS4REDIS_TIMEOUT=0.01), self.assertRaises(BrokerUnavailable) as told:
            yield in_thread(bridge.redis().get, [b"a"])
        self.assertTrue(told.exception.maybe_published)


class AsyncTests(PublisherTests):
    @inlineCallbacks
    def test_an_async_view_publishes_to_self_whom_only_the_database_knows(self) -> Any:
        from django.utils.functional import SimpleLazyObject

        request = self.request()
        request.user = SimpleLazyObject(lambda: User.objects.get(username="john"))

        async def view() -> int:
            publisher = RedisPublisher(
                facility="foobar", users=[SELF], groups=[SELF], request=request
            )
            return await publisher.apublish_message("hi")

        self.assertEqual((yield in_thread(asyncio.run, view())), 0)
        self.assertEqual(self.keys(), {"user:john:foobar", "group:chatters:foobar"})

    @inlineCallbacks
    def test_bad_arguments_raise_at_once_there_too(self) -> Any:
        request = self.request()

        async def view() -> None:
            for arguments in ({"users": "john"}, {"groups": True}, {"facility": "a\0b"}):
                with self.assertRaises(ValueError):
                    RedisPublisher(
                        **{"facility": "foobar", "request": request, "broadcast": True} | arguments
                    )

        yield in_thread(asyncio.run, view())


class ProcessTests(TestCase):
    """A process that runs no reactor until it publishes."""

    def run_script(self, script: str, address: RedisAddress) -> str:
        return run_publisher(script, address)

    def test_the_first_publish_starts_what_it_needs_and_the_process_ends_by_itself(self) -> None:
        redis = shared_redis()
        self.run_script(
            "import threading\n"
            "publish = RedisPublisher(facility='f', broadcast=True).publish_message\n"
            "threads = [threading.Thread(target=publish, args=(str(i),)) for i in range(8)]\n"
            "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
            "publish('last')",
            redis.address,
        )
        self.assertEqual(redis.command("GET", "broadcast:f"), b"last")

    def test_redis_that_is_down_raises_within_the_timeout_and_says_where(self) -> None:
        address = RedisAddress(host="127.0.0.1", port=free_port())
        printed = self.run_script(
            "from ws4redis_tx.core.errors import BrokerUnavailable\n"
            "try: RedisPublisher(facility='f', broadcast=True).publish_message('hi')\n"
            "except BrokerUnavailable as error: print(error.maybe_published, error)",
            address,
        )
        self.assertTrue(printed.startswith("False Redis cannot be reached at redis://127.0.0.1:"))
        self.assertIn("WS4REDIS_CONNECTION", printed)

    def test_importing_it_loads_no_reactor(self) -> None:
        printed = self.run_script(
            "import sys; print('twisted.internet.reactor' in sys.modules)",
            RedisAddress(),
        )
        self.assertEqual(printed, "False\n")


class CommitTests(PublisherTests):
    @inlineCallbacks
    def test_on_commit_publishes_when_the_transaction_commits_and_never_if_it_rolls_back(
        self,
    ) -> Any:
        from django.db import transaction

        def work(fail: bool) -> None:
            publisher = RedisPublisher(facility="foobar", broadcast=True)
            with transaction.atomic():
                self.assertEqual(publisher.publish_message("hi", on_commit=True), 0)
                with override_settings(WS4REDIS_ON_COMMIT=True):
                    publisher.publish_message("hi")
                self.assertEqual(self.keys(), set())
                if fail:
                    raise LookupError("deliberate")

        with self.assertRaises(LookupError):
            yield in_thread(work, True)
        self.assertEqual(self.keys(), set())
        yield in_thread(work, False)
        self.assertEqual(self.keys(), {"broadcast:foobar"})

    @inlineCallbacks
    def test_a_failure_after_the_commit_is_logged_and_not_raised(self) -> Any:
        yield self.broker.stopService()
        self.addCleanup(self.broker.startService)

        def work() -> None:
            with self.assertLogs("ws4redis_tx.publisher", "ERROR"):
                RedisPublisher(facility="foobar", broadcast=True).publish_message(
                    "hi", on_commit=True
                )

        yield in_thread(work)


class ReactorThreadTests(PublisherTests):
    @inlineCallbacks
    def test_the_publisher_of_the_reactor_thread_returns_a_deferred(self) -> Any:
        from ws4redis_tx.config.server_config import ServerConfig
        from ws4redis_tx.service import Publisher

        config = ServerConfig(prefix="site", expire=60)
        publisher = Publisher(config, self.broker, facility="foobar", users=["john"])
        self.assertEqual((yield publisher.publish_message("hi")), 0)
        self.assertEqual(self.redis.command("GET", "site:user:john:foobar"), b"hi")
        with self.assertRaises(AudienceError):
            Publisher(config, self.broker, facility="foobar").publish_message("hi")


class ForkTests(ProcessTests):
    """Processes forked after their parent had published, as preloading servers do."""

    def test_a_forked_child_publishes_and_so_do_its_child_and_still_its_parent(self) -> None:
        redis = shared_redis()
        self.run_script(
            "import os\n"
            "def publish(text): RedisPublisher(facility='f' + text, broadcast=True)"
            ".publish_message(text)\n"
            "def fork(work):\n"
            "    pid = os.fork()\n"
            "    if not pid:\n"
            "        try: work()\n"
            "        except BaseException as error: print(repr(error)); os._exit(1)\n"
            "        os._exit(0)\n"
            "    assert os.waitpid(pid, 0)[1] == 0\n"
            "publish('parent')\n"
            "def child(): publish('child'); publish('child2'); fork(grandchild)\n"
            "def grandchild(): publish('grandchild')\n"
            "fork(child)\n"
            "fork(lambda: publish('second'))\n"
            "publish('after')\n",
            redis.address,
        )
        for text in ("parent", "child", "child2", "grandchild", "second", "after"):
            self.assertEqual(redis.command("GET", f"broadcast:f{text}"), text.encode())

    def test_a_child_of_a_parent_that_had_not_published_publishes(self) -> None:
        redis = shared_redis()
        self.run_script(
            "import os\n"
            "pid = os.fork()\n"
            "RedisPublisher(facility=f'p{bool(pid)}', broadcast=True).publish_message('hi')\n"
            "if pid: assert os.waitpid(pid, 0)[1] == 0\n",
            redis.address,
        )
        for who in (True, False):
            self.assertEqual(redis.command("GET", f"broadcast:p{who}"), b"hi")

    def test_a_process_pool_of_forks_publishes(self) -> None:
        redis = shared_redis()
        self.run_script(
            "import multiprocessing\n"
            "def publish(i):\n"
            "    return RedisPublisher(facility=f'w{i}', broadcast=True).publish_message('hi')\n"
            "publish('first')\n"
            "with multiprocessing.get_context('fork').Pool(3) as pool:\n"
            "    assert pool.map(publish, range(12)) == [0] * 12\n",
            redis.address,
        )
        for i in range(12):
            self.assertEqual(redis.command("GET", f"broadcast:w{i}"), b"hi")


class StoppedRedisTests(ProcessTests):
    def test_a_stopped_redis_raises_in_time_and_after_recovery_the_next_publish_succeeds(
        self,
    ) -> None:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        (server,) = children(redis.pid)
        printed = self.run_script(
            "import os, signal, time\n"
            "from django.test import override_settings\n"
            "from ws4redis_tx.core.errors import BrokerUnavailable\n"
            "publish = RedisPublisher(facility='f', broadcast=True).publish_message\n"
            "publish('1')\n"
            f"os.kill({server}, signal.SIGSTOP)\n"
            "try:\n"
            "    with override_settings(WS4REDIS_TIMEOUT=0.5): publish('2')\n"
            "except BrokerUnavailable as error: print(error.maybe_published)\n"
            "try:\n"
            "    with override_settings(WS4REDIS_TIMEOUT=0.5): publish('3')\n"
            "except BrokerUnavailable as error: print(error.maybe_published)\n"
            f"os.kill({server}, signal.SIGCONT)\n"
            "publish('4')\n",
            redis.address,
        )
        self.assertEqual(printed.split(), ["True", "False"])
        self.assertEqual(redis.command("GET", "broadcast:f"), b"4")


class StoppedReactorTests(ProcessTests):
    def test_when_an_applications_reactor_stops_waiting_calls_fail_and_later_ones_succeed(
        self,
    ) -> None:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        (server,) = children(redis.pid)
        printed = self.run_script(
            "import os, signal, threading\n"
            "from ws4redis_tx.core.errors import BrokerUnavailable\n"
            "def publish():\n"
            "    try: RedisPublisher(facility='f', broadcast=True).publish_message('hi')\n"
            "    except BrokerUnavailable as error: print(error, error.maybe_published)\n"
            "import crochet\n"
            "crochet.setup(); crochet.run_in_reactor(lambda: None)().wait(20)\n"
            "publish()\n"
            f"os.kill({server}, signal.SIGSTOP)\n"
            "from twisted.internet import reactor\n"
            "from ws4redis_tx.redis.wire.protocol import CommandProtocol\n"
            "execute = CommandProtocol.execute_commands\n"
            "def execute_and_stop(self, commands):\n"
            "    reactor.callLater(0, reactor.stop)\n"
            "    return execute(self, commands)\n"
            "CommandProtocol.execute_commands = execute_and_stop\n"
            "waiting = threading.Thread(target=publish)\n"
            "waiting.start(); waiting.join()\n"
            f"os.kill({server}, signal.SIGCONT)\n"
            "CommandProtocol.execute_commands = execute\n"
            "RedisPublisher(facility='f', broadcast=True).publish_message('later')\n",
            redis.address,
        )
        self.assertEqual(printed, "The reactor of this process was stopped. True\n")
        self.assertEqual(redis.command("GET", "broadcast:f"), b"later")


class GunicornTests(TestCase):
    """A real server that loads the application before it forks its workers."""

    timeout = 60

    @inlineCallbacks
    def test_workers_publish_although_their_parent_had(self) -> Any:
        redis = shared_redis()
        server = Program(
            sys.executable,
            *("-m", "gunicorn", "--preload", "--workers=2", "--bind=127.0.0.1:0"),
            "tests.projects.wsgi_preloaded:application",
            WS4REDIS_CONNECTION=str(redis.address),
            **environment(),
        )
        self.addCleanup(server.end)
        url = (yield server.wait_for(r"Listening at: (http://\S+)"))[1]
        yield server.wait_for(r"(?s)Booting worker.*Booting worker")
        self.assertEqual(redis.command("GET", "broadcast:preloaded"), b"at load")
        workers = set()
        for i in range(20):
            answer = yield deferToThread(
                lambda i=i: urllib.request.urlopen(f"{url}/{i}", timeout=20).read()
            )
            workers.add(answer)
            self.assertEqual(redis.command("GET", "broadcast:preloaded"), b"/%d" % i)
        self.assertTrue(workers)
        yield server.signal_and_wait("TERM")
