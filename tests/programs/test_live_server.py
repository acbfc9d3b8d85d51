"""``LiveServer``: in Django's own test runner, in a process of its own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.programs import DJANGO_SETTINGS, run_django, run_django_tests

ON_DISK = """
DATABASES["default"] |= {"TEST": {"NAME": HERE + "/test.sqlite3"}, "CONN_MAX_AGE": None}
"""

TESTS = """
import json
import os
import queue
import threading
from urllib.request import Request, urlopen

import websocket
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.db import connection, connections, transaction
from django.test import LiveServerTestCase, override_settings
from twisted.internet.error import CannotListenError

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.signals import client_connected, client_disconnected
from ws4redis_tx.testing import LiveServer, capture_messages


def publish(message, **audience):
    RedisPublisher(facility="news", **audience).publish_message(message)


class Live(LiveServer, StaticLiveServerTestCase):
    def open(self, *flags, cookie=None):
        client = websocket.create_connection(
            self.websocket_url("news", *flags),
            cookie=cookie,
            origin=self.live_server_url,
            timeout=20,
        )
        self.addCleanup(client.shutdown)
        return client

    def get(self, path, **headers):
        request = Request(self.live_server_url + path, headers=headers)
        with urlopen(request, timeout=20) as response:
            return response.read().decode()


class LateReceiverTests(Live):
    # A receiver that is slow is not in the middle of the next test.
    may_go_on = threading.Event()
    told = []

    def setUp(self):
        super().setUp()
        client_disconnected.connect(self.disconnected)

    def disconnected(self, connection, **values):
        self.may_go_on.wait(20)
        self.told.append(User.objects.filter(username="peter").count())

    def _fixture_teardown(self):
        assert self.told == [1], self.told
        client_disconnected.disconnect(self.disconnected)
        super()._fixture_teardown()

    def test_it(self):
        User.objects.create_user("peter")
        websocket.create_connection(self.websocket_url("news"), timeout=20).shutdown()
        threading.Timer(0.2, self.may_go_on.set).start()


class IsolationTests(Live):
    left = None

    def test_1_leaves_a_message_and_a_websocket(self):
        publish("left over", broadcast=True)
        type(self).left = websocket.create_connection(self.websocket_url("news"), timeout=20)

    def test_2_finds_neither(self):
        assert self.left is not None
        try:
            while self.left.recv():
                pass
        except ConnectionError:
            pass
        except websocket.WebSocketConnectionClosedException:
            pass
        self.left.shutdown()
        client = self.open("subscribe-broadcast")
        publish("mine", broadcast=True)
        self.assertEqual(client.recv(), "mine")


@override_settings(WS4REDIS_HISTORY={"news": (10, 60)})
class ResumingTests(Live):
    def resume(self, since=""):
        client = websocket.create_connection(
            self.websocket_url("news", "subscribe-broadcast") + f"&since={since}",
            subprotocols=["ws4redis.resume"],
            timeout=20,
        )
        self.addCleanup(client.shutdown)
        return client, json.loads(client.recv())

    def test_a_client_comes_back_to_what_it_missed(self):
        client, first = self.resume()
        self.assertIsNone(first["recovered"])
        client.shutdown()
        news = RedisPublisher(facility="news", broadcast=True)
        for text in ("1", "2"):
            published = news.publish_message(text)
        client, first = self.resume(first["position"])
        self.assertEqual((first["recovered"], first["gap"]), (True, []))
        for text in ("1", "2"):
            head, _, payload = client.recv().partition("\\n")
            self.assertEqual(payload, text)
        position, replayed = head.split(",")
        self.assertEqual((position, replayed), (published.position, "r"))

    def test_a_page_closes_its_own_gap(self):
        position = RedisPublisher.position()
        publish("meanwhile", broadcast=True)
        client, first = self.resume(position)
        self.assertIs(first["recovered"], True)
        self.assertEqual(client.recv().partition("\\n")[2], "meanwhile")

    def test_events(self):
        publish("persisted", broadcast=True)
        url = self.websocket_url("news", "subscribe-broadcast").replace("ws:", "http:")
        request = Request(url, headers={"Accept": "text/event-stream"})
        with urlopen(request, timeout=20) as response:
            lines = iter(response.readline, b"")
            data = [line for line, _ in zip(lines, range(12)) if line.startswith(b"data: ")]
        self.assertIn(b"data: persisted\\n", data)


class VisitorTests(Live):
    def setUp(self):
        super().setUp()
        self.john = User.objects.create_user("john")

    def test_who_is_logged_in_is_known_and_who_logs_out_is_closed(self):
        self.client.force_login(self.john)
        john = self.open("subscribe-user", cookie=self.cookie_header())
        publish("hello", users=["john"])
        self.assertEqual(john.recv(), "hello")
        self.client.logout()
        code, data = john.recv_data()
        self.assertEqual((code, data[:2]), (8, (1008).to_bytes(2, "big")))

    def test_who_is_not_is_not(self):
        with self.assertRaises(websocket.WebSocketBadStatusException) as refused:
            self.open("subscribe-user", cookie=self.cookie_header(self.client_class()))
        self.assertEqual(refused.exception.status_code, 401)

    def test_the_test_and_the_server_share_a_connection_to_a_database_in_memory(self):
        if not connection.is_in_memory_db():
            return
        with transaction.atomic():  # the table is locked for any other
            self.client.force_login(User.objects.create_user("mary"))
            self.open("subscribe-user", cookie=self.cookie_header())
            self.assertIn("mary", self.get("/", Cookie=self.cookie_header()))

    def test_receivers_of_signals_share_it_too(self):
        heard = queue.Queue()

        def connected(connection, **values):
            heard.put(connections["default"] is shared)

        shared = connections["default"]
        client_connected.connect(connected)
        self.addCleanup(client_connected.disconnect, connected)
        self.open("subscribe-broadcast")
        in_memory = connection.is_in_memory_db()
        assert heard.get(timeout=20) is in_memory

    def test_a_lookup_leaves_no_connection_to_the_database(self):
        def opened():
            paths = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
            named = [os.readlink(path) for path in paths if os.path.islink(path)]
            return named.count(str(connection.settings_dict["NAME"]))

        before = opened()
        self.client.force_login(self.john)
        self.open("subscribe-user", cookie=self.cookie_header())
        self.assertEqual(opened(), before)


class PageTests(Live):
    def test_pages_and_static_files_are_served_and_the_pages_lead_to_the_websockets(self):
        self.assertIn(self.websocket_url(""), self.get("/broadcast/"))
        self.assertIn("WS4Redis", self.get("/static/js/ws4redis.js"))

    def test_capturing_works_here_too(self):
        with capture_messages() as published:
            publish("hello", broadcast=True)
        published.assert_published("hello", times=1)


@override_settings(WEBSOCKET_URL="/push/", WS4REDIS_PREFIX="site")
class SettingsTests(LiveServer, LiveServerTestCase):
    def test_settings_of_the_class_are_the_servers(self):
        self.assertEqual(settings.WS4REDIS_CONNECTION, self.redis_url)
        url = self.websocket_url("a b", "subscribe-broadcast")
        self.assertTrue(url.endswith("/push/a%20b?subscribe-broadcast"))
        client = websocket.create_connection(url, timeout=20)
        RedisPublisher(facility="a b", broadcast=True).publish_message("hello")
        self.assertEqual(client.recv(), "hello")
        client.close()


@override_settings(
    WS4REDIS_TENANT=lambda request: request.get_host().partition(":")[0], ALLOWED_HOSTS=["*"]
)
class TenantTests(LiveServer, LiveServerTestCase):
    def test_each_tenant_hears_its_own(self):
        clients = {
            tenant: websocket.create_connection(
                self.websocket_url("news", "subscribe-broadcast"),
                host=tenant, suppress_origin=True, timeout=20,
            )
            for tenant in ("a.example", "b.example")
        }
        for tenant, client in clients.items():
            publish(f"for {tenant}", broadcast=True, tenant=tenant)
        for tenant, client in clients.items():
            self.assertEqual(client.recv(), f"for {tenant}")
            client.close()
        self.assertRaises(TypeError, publish, "for whom?", broadcast=True)


class PortTests(Live):
    def test_a_port_that_is_taken_is_said(self):
        class Second(LiveServer, LiveServerTestCase):
            port = self.server_thread.port

        with self.assertRaises(CannotListenError):
            Second.setUpClass()
        Second.doClassCleanups()
        self.open("subscribe-broadcast")


class EndTests(Live):
    def test_what_was_stopped_leaves_neither_a_thread_nor_a_port(self):
        def threads():
            return [each for each in threading.enumerate() if "live-site" in each.name]

        class Other(LiveServer, LiveServerTestCase):
            pass

        before = threads()
        Other.setUpClass()
        url = Other.live_server_url
        with urlopen(url, timeout=20):
            self.assertGreater(len(threads()), len(before))
        Other.doClassCleanups()
        self.assertEqual(threads(), before)
        with self.assertRaises(OSError):
            urlopen(url, timeout=20)
"""


# Starts the reactor where the tests are found, before the processes that run them are forked.
EARLY = """
from ws4redis_tx.core.errors import BrokerUnavailable

try:
    publish("early", broadcast=True)
except BrokerUnavailable:
    pass
"""


class LiveServerTests(SynchronousTestCase):
    def test_with_a_database_in_memory(self) -> None:
        run_django_tests(TESTS)

    def test_with_a_database_on_a_disk(self) -> None:
        run_django_tests(TESTS, DJANGO_SETTINGS + ON_DISK)

    def test_in_several_processes(self) -> None:
        run_django_tests(TESTS, DJANGO_SETTINGS, "--parallel=2")

    def test_in_processes_that_were_forked_from_one_whose_reactor_ran(self) -> None:
        run_django_tests(TESTS + EARLY, DJANGO_SETTINGS, "--parallel=2")

    def test_the_chats_own_tests_pass(self) -> None:
        run_django(ROOT / "examples" / "chatserver", "manage.py", "test")
