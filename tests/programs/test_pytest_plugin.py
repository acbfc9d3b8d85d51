"""The fixtures for pytest, loaded by the package's entry point, in projects of their own."""

from __future__ import annotations

import os
import re
import select
import socket
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT, TIMEOUT
from tests.support.django import SETTINGS, environment
from tests.support.programs import DJANGO_SETTINGS, children, run_pytest
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

LIVE = """
from urllib.request import Request, urlopen

import pytest
import websocket
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.signals import client_connected, client_disconnected


@pytest.fixture
def connect(ws4redis_live_server):
    opened = []

    def connect(*flags, client=None):
        opened.append(websocket.create_connection(
            ws4redis_live_server.websocket_url("news", *flags),
            cookie=client and ws4redis_live_server.cookie_header(client),
            origin=ws4redis_live_server.url,
            timeout=20,
        ))
        return opened[-1]

    yield connect
    for each in opened:
        each.shutdown()


def publish(message, **audience):
    RedisPublisher(facility="news", **audience).publish_message(message)


def test_a_user_of_the_test_database_is_logged_in(connect, client):
    john = User.objects.create_user("john")
    client.force_login(john)
    websocket = connect("subscribe-user", client=client)
    publish("hello", users=[john])
    assert websocket.recv() == "hello"
    client.logout()
    code, data = websocket.recv_data()
    assert (code, data[:2]) == (8, (1008).to_bytes(2, "big"))


def test_the_next_test_finds_nothing_of_it(connect):
    assert not User.objects.exists()
    assert connection.settings_dict["NAME"] == DATABASE
    with pytest.raises(websocket.WebSocketBadStatusException) as refused:
        connect("subscribe-user")
    assert refused.value.status_code == 401


def test_pages_static_files_and_events_are_on_the_same_address(ws4redis_live_server):
    def get(path):
        with urlopen(ws4redis_live_server + path, timeout=20) as response:
            return response.read().decode()

    assert ws4redis_live_server.websocket_url("") in get("/broadcast/")
    assert "WS4Redis" in get("/static/js/ws4redis.js")
    publish("persisted", broadcast=True)
    request = Request(
        ws4redis_live_server + "/ws/news?subscribe-broadcast",
        headers={"Accept": "text/event-stream"},
    )
    with urlopen(request, timeout=20) as response:
        assert b"data: persisted\\n" in iter(response.readline, b"")


def test_it_publishes_to_redis_url(ws4redis_live_server, redis_url):
    assert ws4redis_live_server.redis_url == redis_url == settings.WS4REDIS_CONNECTION
    assert str(ws4redis_live_server) == ws4redis_live_server.url


def test_a_transaction_commits(connect):
    websocket = connect("subscribe-broadcast")
    with transaction.atomic():
        RedisPublisher(facility="news", broadcast=True).publish_message("later", on_commit=True)
        publish("now", broadcast=True)
    assert [websocket.recv(), websocket.recv()] == ["now", "later"]


def test_a_database_in_memory_is_shared(connect, client):
    if not connection.is_in_memory_db():
        return
    with transaction.atomic():  # the table is locked for any other
        client.force_login(User.objects.create_user("mary"))
        connect("subscribe-user", client=client)


@pytest.mark.django_db
def test_with_a_mark(connect, admin_client):
    connect("subscribe-user", client=admin_client)


def test_with_the_fixture_db(db, connect, admin_client):
    connect("subscribe-user", client=admin_client)


@pytest.fixture
def pushing(settings):
    settings.WEBSOCKET_URL = "/push/"


@pytest.mark.usefixtures("pushing")
def test_settings_of_an_earlier_fixture_are_the_servers(ws4redis_live_server, connect):
    assert "/push/" in ws4redis_live_server.websocket_url("news")
    websocket = connect("subscribe-broadcast")
    publish("hello", broadcast=True)
    assert websocket.recv() == "hello"


def test_receivers_see_the_test_database_and_are_done_before_the_next_test(connect, request):
    told = []

    def came(connection, **values):
        told.append(User.objects.count())

    def left(connection, **values):
        told.append(User.objects.count())

    client_connected.connect(came, weak=False)
    client_disconnected.connect(left, weak=False)
    User.objects.create_user("peter")
    connect()
    global receivers, heard
    receivers, heard = (came, left), told


def test_they_are(transactional_db):
    assert heard == [1, 1]
    client_connected.disconnect(receivers[0])
    client_disconnected.disconnect(receivers[1])
"""

CAPTURED = """
from django.contrib.auth.models import User
from django.db import transaction

from ws4redis_tx.publisher import RedisPublisher


def publish(message, **options):
    RedisPublisher(facility="news", broadcast=True).publish_message(message, **options)


def test_messages_are_captured(published_messages):
    publish("hello")
    published_messages.assert_published("hello", facility="news", broadcast=True, times=1)


def test_each_test_has_its_own(published_messages):
    published_messages.assert_not_published()


def test_on_commit(published_messages, db, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        publish("hello", on_commit=True)
    published_messages.assert_published("hello")


def test_on_commit_is_hinted_at(published_messages, db):
    publish("hello", on_commit=True)
    try:
        published_messages.assert_published("hello")
    except AssertionError as error:
        assert "django_capture_on_commit_callbacks(execute=True)" in str(error)
"""

FORGOTTEN = """
import asyncio
import django
import pytest
django.setup()

from django.test import override_settings

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher


@override_settings(WS4REDIS_TIMEOUT=0.2)
def test_a_forgotten_one_is_named():
    publisher = RedisPublisher(facility="news", broadcast=True)
    for publish in (
        lambda: publisher.publish_message("hi"),
        lambda: asyncio.run(publisher.apublish_message("hi")),
    ):
        with pytest.raises(BrokerUnavailable) as caught:
            publish()
        assert "capture_messages()" in str(caught.value)
        assert "pytest's fixture published_messages" in str(caught.value)
"""

WITHOUT_PYTEST_DJANGO = """
import pytest

def test_it_says_what_is_missing(request):
    with pytest.raises(pytest.UsageError, match="pip install pytest-django"):
        request.getfixturevalue("ws4redis_live_server")
"""

IN_MEMORY = "file:memorydb_default?mode=memory&cache=shared"


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


class DjangoTests(SynchronousTestCase):
    """With pytest-django, as far as that is not left out."""

    def run_tests(self, tests: str, *options: str, **variables: str) -> str:
        return run_pytest(
            tests,
            *("-p", "no:twisted", *options),
            **{"DJANGO_SETTINGS_MODULE": SETTINGS, **environment(), **variables},
        )

    def serve(self, settings: str = "", tests: str = LIVE, *options: str) -> None:
        """Run ``tests``, which may use ``HERE``, as the settings may."""
        with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
            here = f"HERE = {folder!r}\n"
            (Path(folder) / "user_settings.py").write_text(here + DJANGO_SETTINGS + settings)
            self.run_tests(
                here + tests,
                *options,
                DJANGO_SETTINGS_MODULE="user_settings",
                PYTHONPATH=os.pathsep.join([folder, str(ROOT)]),
            )

    def test_ws4redis_live_server_with_a_database_in_memory(self) -> None:
        self.serve(tests=f"{LIVE}DATABASE = {IN_MEMORY!r}\n")

    def test_ws4redis_live_server_with_a_database_on_a_disk(self) -> None:
        settings = "DATABASES['default']['TEST'] = {'NAME': HERE + '/test.sqlite3'}\n"
        self.serve(settings, LIVE + "DATABASE = HERE + '/test.sqlite3'\n")

    def test_ws4redis_live_server_in_several_processes(self) -> None:
        independent = LIVE[: LIVE.index("def test_receivers_see")]
        self.serve("", f"{independent}DATABASE = {IN_MEMORY!r}\n", "-n", "2")

    def test_ws4redis_live_server_without_pytest_django(self) -> None:
        self.run_tests(WITHOUT_PYTEST_DJANGO, "-p", "no:django")

    def test_published_messages(self) -> None:
        self.run_tests(CAPTURED, WS4REDIS_CONNECTION="redis://127.0.0.1:1")

    def test_a_forgotten_published_messages_is_named(self) -> None:
        for options in (), ("-p", "no:django"):
            self.run_tests(FORGOTTEN, *options, WS4REDIS_CONNECTION="redis://127.0.0.1:1")


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
