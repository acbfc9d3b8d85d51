"""The fixtures for pytest, loaded by the package's entry point, in projects of their own."""

from __future__ import annotations

import os
import re
import select
import socket
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TIMEOUT
from tests.support.django import SETTINGS, environment
from tests.support.programs import children, run_pytest
from ws4redis_tx.core.errors import WS4RedisError
from ws4redis_tx.system.programs import Program
from ws4redis_tx.testing import RedisProcess, ServerProcess

NOTHING_OF_OURS = """
import sys

def test_nothing_is_imported():
    ours = [name for name in sys.modules if name.startswith("ws4redis_tx")]
    assert sorted(ours) == [
        "ws4redis_tx", "ws4redis_tx.testing", "ws4redis_tx.testing.pytest_plugin"
    ]
    assert not {"twisted", "django", "autobahn", "crochet", "txredisapi"} & set(sys.modules)
"""

REDIS = """
import valkey

def look(url):
    with valkey.Valkey.from_url(url) as redis:
        assert redis.dbsize() == 0
        redis.set("left", "over")
    print("URL", url)

def test_first(redis_url):
    look(redis_url)

def test_second(redis_url):
    look(redis_url)
"""

SERVER = """
import sys

import valkey
import websocket

def check(server, publish, expected="hello"):
    client = websocket.create_connection(server.url("news", "subscribe-broadcast"), timeout=20)
    publish("hello")
    assert client.recv() == expected
    client.close()
    print("PORT", server.url("").split(":")[2].split("/")[0])

def test_without_django(redis_url, ws4redis_server):
    assert ws4redis_server.redis_url == redis_url
    assert "Ready: websockets at" in ws4redis_server.log
    assert ws4redis_server.url("a b/ü").endswith("/ws/a%20b/%C3%BC")
    def publish(text):
        with valkey.Valkey.from_url(redis_url) as redis:
            redis.publish("broadcast:news", text)
    check(ws4redis_server, publish)
    assert "django" not in sys.modules

def test_with_a_persisted_message(redis_url, ws4redis_server):
    with valkey.Valkey.from_url(redis_url) as redis:
        redis.set("broadcast:news", "persisted")
    check(ws4redis_server, lambda text: None, "persisted")

def test_emptied(redis_url, ws4redis_server):
    def publish(text):
        with valkey.Valkey.from_url(redis_url) as redis:
            redis.publish("broadcast:news", text)
    check(ws4redis_server, publish)
"""

DJANGO = """
import django
django.setup()

import websocket
from django.conf import settings

from ws4redis_tx.publisher import RedisPublisher

def test_what_the_test_publishes_arrives(ws4redis_server):
    url = ws4redis_server.url("orders", "subscribe-broadcast")
    client = websocket.create_connection(url, timeout=20)
    RedisPublisher(facility="orders", broadcast=True).publish_message("shipped")
    assert client.recv() == "shipped"
    client.close()
    # It knows visitors: this one is none.
    try:
        websocket.create_connection(ws4redis_server.url("orders", "subscribe-user"))
    except websocket.WebSocketBadStatusException as refused:
        assert refused.status_code == 401

def test_afterwards_the_setting_is_what_it_was():
    assert settings.WS4REDIS_CONNECTION == "redis://127.0.0.1:1"
"""


TRIAL = """
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

class TrialTests(TestCase):
    def test_the_reactor_runs(self):
        turn = Deferred()
        reactor.callLater(0, turn.callback, None)
        return turn

    def test_it_is_clean(self):
        self.assertEqual(reactor.getDelayedCalls(), [])
"""


class PluginTests(SynchronousTestCase):
    def assert_closed(self, port: str) -> None:
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(port)))

    def test_who_uses_no_fixture_imports_nothing(self) -> None:
        # pytest-twisted would import Twisted.
        run_pytest(NOTHING_OF_OURS, "-p", "no:twisted")

    def test_trials_tests_run_beside_it_and_pytest_twisted(self) -> None:
        self.assertIn("plugins: ", run_pytest(TRIAL))

    def test_redis_url_is_one_redis_emptied_for_each_test_and_gone_afterwards(self) -> None:
        printed = run_pytest(REDIS)
        first, second = re.findall(r"^URL redis://127.0.0.1:(\d+)/0$", printed, re.M)
        self.assertEqual(first, second)
        self.assert_closed(first)

    def test_ws4redis_server_serves_without_django_and_is_gone_afterwards(self) -> None:
        printed = run_pytest(SERVER)
        for port in set(re.findall(r"^PORT (\d+)$", printed, re.M)):
            self.assert_closed(port)

    def test_ws4redis_server_serves_a_django_site_and_hears_what_the_tests_publish(self) -> None:
        run_pytest(
            DJANGO,
            # pytest-twisted would run the tests in the reactor's thread, which must not wait.
            *("-p", "no:twisted"),
            DJANGO_SETTINGS_MODULE=SETTINGS,
            WS4REDIS_CONNECTION="redis://127.0.0.1:1",
            **environment(),
        )


class ProcessTests(SynchronousTestCase):
    def test_a_redis_can_be_emptied_and_stopped_twice_over(self) -> None:
        redis = RedisProcess()
        for _ in range(2):
            redis.empty()
        redis.stop()
        redis.stop()
        with self.assertRaises(ConnectionRefusedError):
            redis.empty()

    def test_a_server_that_cannot_start_says_why(self) -> None:
        with self.assertRaises(WS4RedisError) as caught:
            ServerProcess("no URL")
        self.assertIn("--redis does not begin with redis://", str(caught.exception))

    def test_a_program_that_does_not_end_is_killed_with_its_children(self) -> None:
        self.patch(sys.modules[Program.__module__], "_STOP_TIMEOUT", 0)
        script = "import signal; signal.signal(15, 1); print('ready', flush=True); signal.pause()"
        program = Program([sys.executable, "-c", script], "ready")
        (child,) = children(program._process.pid)
        ended = os.pidfd_open(child)
        self.addCleanup(os.close, ended)
        program.stop()
        self.assertIsNotNone(program._process.returncode)
        self.assertEqual(select.select([ended], [], [], TIMEOUT)[0], [ended])
