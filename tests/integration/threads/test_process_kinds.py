"""Publishing in every kind of process and thread, whatever Python's main thread is and does."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.programs import children
from tests.support.publishers import needs, run_publisher
from tests.support.redis import RedisServer, shared_redis
from ws4redis_tx.core.redis_address import RedisAddress

PUBLISH = """
def publish(text):
    RedisPublisher(facility=text, broadcast=True).publish_message(text)
"""


class KindsTestCase(SynchronousTestCase):
    def assert_publishes(self, script: str, *texts: str, first: str = "") -> None:
        """The script publishes each text, on the facility of that name."""
        redis = shared_redis()
        run_publisher(PUBLISH + script, redis.address, first=first)
        for text in texts:
            self.assertEqual(redis.command("GET", f"broadcast:{text}"), text.encode())


class EndTests(KindsTestCase):
    """The main thread has ended, or is about to."""

    def test_an_atexit_function_publishes(self) -> None:
        self.assert_publishes("import atexit; atexit.register(publish, 'first')", "first")

    def test_an_atexit_function_publishes_after_earlier_publishes(self) -> None:
        self.assert_publishes(
            "import atexit\natexit.register(publish, 'last')\npublish('early')", "early", "last"
        )

    def test_a_thread_that_outlives_the_main_thread_publishes(self) -> None:
        self.assert_publishes(
            "import threading\n"
            "def work():\n"
            "    threading.main_thread().join()\n"
            "    publish('outlived')\n"
            "threading.Thread(target=work).start()\n",
            "outlived",
        )

    def test_a_thread_that_published_publishes_again_after_the_main_thread_ended(self) -> None:
        self.assert_publishes(
            "import threading\n"
            "def work():\n"
            "    publish('before')\n"
            "    threading.main_thread().join()\n"
            "    publish('after')\n"
            "threading.Thread(target=work).start()\n",
            "before",
            "after",
        )

    def test_both_publish_if_crochet_runs_the_reactor_and_stops_it(self) -> None:
        self.assert_publishes(
            "import atexit, threading, crochet\n"
            "from twisted.internet import reactor\n"
            "crochet.setup()\n"
            "crochet.run_in_reactor(lambda: None)().wait(20)\n"
            "stopped = threading.Event()\n"
            "reactor.addSystemEventTrigger('after', 'shutdown', stopped.set)\n"
            "publish('by crochet')\n"
            "def work():\n"
            "    assert stopped.wait(20)\n"
            "    publish('outlived crochet')\n"
            "threading.Thread(target=work).start()\n"
            "atexit.register(publish, 'at the exit')\n",
            "by crochet",
            "outlived crochet",
            "at the exit",
        )


class ForkTests(KindsTestCase):
    FORK = (
        "import multiprocessing, threading\n"
        "def start(text):\n"
        "    process = multiprocessing.get_context('fork').Process(target=publish, args=(text,))\n"
        "    process.start(); process.join(); assert not process.exitcode\n"
        "def start_in_thread(text):\n"
        "    thread = threading.Thread(target=start, args=(text,))\n"
        "    thread.start(); thread.join()\n"
    )

    def test_a_process_that_a_thread_forked_publishes(self) -> None:
        self.assert_publishes(self.FORK + "start_in_thread('child')", "child")

    def test_a_process_that_a_thread_forked_after_a_publish_publishes(self) -> None:
        self.assert_publishes(
            self.FORK + "publish('parent'); start_in_thread('child'); publish('parent 2')",
            "parent",
            "child",
            "parent 2",
        )

    def test_a_process_publishes_that_was_forked_without_telling_python(self) -> None:
        # As uWSGI does.
        self.assert_publishes(
            "import ctypes, os\n"
            "publish('parent')\n"
            "pid = ctypes.PyDLL(None).fork()\n"
            "if not pid:\n"
            "    publish('child'); os._exit(0)\n"
            "assert os.waitpid(pid, 0)[1] == 0\n",
            "parent",
            "child",
        )


class GreenTests(KindsTestCase):
    """Threads are greenlets, which take turns when one of them waits."""

    SCRIPT = (
        "import threading\n"
        "publish('main')\n"
        "threads = [threading.Thread(target=publish, args=(f'g{i}',)) for i in range(20)]\n"
        "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
    )
    TEXTS = ("main", *(f"g{i}" for i in range(20)))

    def test_eventlet(self) -> None:
        needs("eventlet")
        patch = "import eventlet; eventlet.monkey_patch()"
        self.assert_publishes(self.SCRIPT, *self.TEXTS, first=patch)

    def test_gevent(self) -> None:
        needs("gevent")
        patch = "from gevent import monkey; monkey.patch_all()"
        self.assert_publishes(self.SCRIPT, *self.TEXTS, first=patch)


class LogTests(SynchronousTestCase):
    def test_the_reactors_warnings_come_to_pythons_logging(self) -> None:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command("ACL", "SETUSER", "default", "-eval", "-evalsha")
        printed = run_publisher(
            PUBLISH + "import logging, sys\n"
            "logging.basicConfig(stream=sys.stdout, format='%(name)s %(levelname)s %(message)s')\n"
            "publish('a'); publish('b')\n",
            redis.address,
        )
        self.assertEqual(printed.count("twisted WARNING Redis does not permit scripts"), 1, printed)


class SubInterpreterTests(KindsTestCase):
    """mod_wsgi runs applications in sub-interpreters. Only one interpreter of a process can import
    cryptography.
    """

    NO_TLS = (
        "import sys\n"
        "for name in 'OpenSSL', 'cryptography', 'service_identity':\n"
        "    sys.modules[name] = None\n"
    )

    def test_a_plain_connection_needs_no_tls(self) -> None:
        self.assert_publishes("publish('plain')", "plain", first=self.NO_TLS)

    def test_a_connection_that_needs_tls_says_what_to_do(self) -> None:
        printed = run_publisher(
            PUBLISH + "from ws4redis_tx.core.errors import ConfigError\n"
            "try: publish('encrypted')\n"
            "except ConfigError as error: print(error)\n",
            RedisAddress(tls=True),
            first=self.NO_TLS,
        )
        self.assertIn("WS4REDIS_CONNECTION asks for TLS, which cannot be imported", printed)
        self.assertIn("WSGIApplicationGroup %{GLOBAL}", printed)

    def test_a_sub_interpreter_publishes(self) -> None:
        needs("_xxsubinterpreters")
        script = (
            "import django; django.setup()\n"
            "from ws4redis_tx.publisher import RedisPublisher\n"
            "RedisPublisher(facility='sub', broadcast=True).publish_message('sub')\n"
        )
        self.assert_publishes(
            "import os, cryptography.hazmat.bindings._rust, _xxsubinterpreters as interpreters\n"
            "interpreter = interpreters.create(isolated=False)\n"
            f"interpreters.run_string(interpreter, {script!r})\n"
            "os._exit(0)\n",  # Python does not end an interpreter whose threads run
            "sub",
        )


class OtherSystemTests(KindsTestCase):
    """Windows has no fork(), no poll() and few of POSIX's modules. Here Twisted keeps them."""

    NO_POSIX = (
        "import os, select, sys\n"
        "import twisted.internet.selectreactor, twisted.internet.fdesc\n"
        "import twisted.internet.endpoints, twisted.application.internet\n"
        "del os.register_at_fork, os.fork, select.poll, select.epoll\n"
        "for name in 'fcntl', 'resource', 'termios', 'pty':\n"
        "    sys.modules[name] = None\n"
    )

    def test_without_posix_django_starts_and_publishes(self) -> None:
        self.assert_publishes("publish('no posix')", "no posix", first=self.NO_POSIX)

    def test_without_posix_the_server_and_the_test_kits_processes_say_what_they_need(self) -> None:
        printed = run_publisher(
            "from ws4redis_tx import tap\n"
            "try: tap.makeService(tap.Options())\n"
            "except SystemExit as error: print(error)\n"
            "from ws4redis_tx.testing import RedisProcess\n"
            "from ws4redis_tx.core.errors import WS4RedisError\n"
            "try: RedisProcess()\n"
            "except WS4RedisError as error: print(error)\n",
            RedisAddress(),
            first=self.NO_POSIX,
        )
        self.assertEqual(printed.count("needs a POSIX system"), 2, printed)


class NoThreadTests(KindsTestCase):
    def test_where_no_thread_can_be_started_the_calling_thread_publishes(self) -> None:
        self.assert_publishes(
            "import threading\n"
            "start = threading.Thread.start\n"
            "def refuse(thread): raise RuntimeError('cannot start new thread')\n"
            "threading.Thread.start = refuse\n"
            "publish('no thread'); publish('again')\n"
            "threading.Thread.start = start\n"
            "publish('a thread')\n"
            "assert 'ws4redis-reactor' in [each.name for each in threading.enumerate()]\n",
            "no thread",
            "again",
            "a thread",
        )

    def test_it_too_keeps_the_timeout(self) -> None:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        (server,) = children(redis.pid)
        printed = run_publisher(
            PUBLISH + "import os, signal, threading\n"
            "from ws4redis_tx.core.errors import BrokerUnavailable\n"
            "from django.test import override_settings\n"
            "def refuse(thread): raise RuntimeError('cannot start new thread')\n"
            "threading.Thread.start = refuse\n"
            f"os.kill({server}, signal.SIGSTOP)\n"
            "try:\n"
            "    with override_settings(WS4REDIS_TIMEOUT=0.2): publish('late')\n"
            "except BrokerUnavailable as error: print(error)\n"
            f"os.kill({server}, signal.SIGCONT)\n",
            redis.address,
        )
        self.assertIn("did not answer within 0.2 s", printed)
