"""A suite as users of the old package wrote it: a blocking client, publishers in plain threads.

The imports and the start of the server are new. ``allow_all`` is set where clients publish to
others, and invalid requests get other statuses.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import websocket
from twisted.internet.defer import Deferred, inlineCallbacks

from tests.support.brokers import share_commands
from tests.support.django import cookies_of, in_thread, log_in, set_up_django
from tests.support.servers import LISTEN, ServerTestCase

set_up_django()

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory, override_settings

from ws4redis_tx import settings as private_settings
from ws4redis_tx.config import django_settings
from ws4redis_tx.policies import allow_all
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.redis_store import SELF, RedisMessage
from ws4redis_tx.service import make_service

MESSAGE = RedisMessage("".join(map(chr, range(33, 127))) + " grüße")


def deny_when_told(request: Any, channels: Any) -> Any:
    """A callback that looks at a header of the handshake."""
    if request.META.get("HTTP_DENY_CHANNELS") == "YES":
        raise PermissionDenied("not this one")
    return channels


class OldSuiteTestCase(ServerTestCase):
    """The server runs in the reactor's thread; the test's body runs in another, and may block."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        override = override_settings(
            WS4REDIS_CONNECTION={"host": "127.0.0.1", "port": self.redis.port, "db": 0},
            WS4REDIS_PREFIX="demo",
            WS4REDIS_ALLOWED_CHANNELS=allow_all,
        )
        override.enable()
        self.addCleanup(override.disable)
        service = make_service(django_settings.server_config(LISTEN))
        self.launch(service)
        yield service.when_ready()
        share_commands(self, service.factory.broker.commands)
        self.base = self.url + "unittest"
        self.clients = {"john": (yield log_in("john")), "mary": (yield log_in("mary"))}

    def in_thread(self, body: Callable[[], Any]) -> Deferred[Any]:
        return in_thread(body)

    def connect(self, flags: str, username: str | None = None, **options: Any) -> Any:
        header = list(options.pop("header", ()))
        if username is not None:
            cookies = cookies_of(self.clients[username])
            header.append(f"Cookie: {settings.SESSION_COOKIE_NAME}={cookies['sessionid']}")
        return websocket.create_connection(
            f"{self.base}?{flags}", header=header, timeout=20, **options
        )

    @contextmanager
    def connected(self, flags: str, username: str | None = None, **options: Any) -> Iterator[Any]:
        """An open connection, closed with a closing handshake afterwards."""
        connection = self.connect(flags, username, **options)
        self.assertTrue(connection.connected)
        try:
            yield connection
        finally:
            connection.close()
        self.assertFalse(connection.connected)

    def request(self, username: str | None = None, *, session: bool = False) -> Any:
        request = RequestFactory().get("/chat/")
        if username is not None:
            request.user = User.objects.get(username=username)
        if session:
            request.session = self.clients[username or "john"].session
        return request


class SubscribeTests(OldSuiteTestCase):
    """A view publishes before the client connects: the client gets that message first."""

    def check(self, flags: str, username: str | None = None, **audience: Any) -> Deferred[Any]:
        def body() -> None:
            if "sessions" in audience:
                audience["request"] = self.request("john", session=True)
            publisher = RedisPublisher(facility="unittest", **audience)
            for publish in (publisher.publish_message, publisher.pipeline_publish_message):
                publish(MESSAGE, 10)
                with self.connected(flags, username) as connection:
                    self.assertEqual(connection.recv(), MESSAGE.decode())
                    publish("and live", 10)
                    self.assertEqual(connection.recv(), "and live")

        return self.in_thread(body)

    def test_broadcast(self) -> Deferred[Any]:
        return self.check("subscribe-broadcast", broadcast=True)

    def test_user(self) -> Deferred[Any]:
        return self.check("subscribe-user", "john", users=["john", "mary"])

    def test_group(self) -> Deferred[Any]:
        return self.check("subscribe-group", "mary", groups=["chatters"])

    def test_session(self) -> Deferred[Any]:
        return self.check("subscribe-session", "john", sessions=[SELF])


class PublishTests(OldSuiteTestCase):
    """A client sends and closes; then a view fetches."""

    def fetch(self, audience: str, request: Any) -> Any:
        return RedisPublisher().fetch_message(request, "unittest", audience)

    def send(self, flags: str, username: str | None = None) -> None:
        with self.connected(flags, username) as connection:
            connection.send(MESSAGE)

    def test_broadcast(self) -> Deferred[Any]:
        def body() -> None:
            self.send("publish-broadcast")
            self.assertEqual(self.fetch("broadcast", self.request()), MESSAGE)
            found = RedisPublisher()._connection.get("demo:broadcast:unittest")
            self.assertEqual(found, MESSAGE)

        return self.in_thread(body)

    def test_user(self) -> Deferred[Any]:
        def body() -> None:
            self.send("publish-user", "john")
            request = self.request("john")
            self.assertEqual(self.fetch("user", request), MESSAGE)
            self.assertIsNone(self.fetch("user", self.request("mary")))
            request.user = None
            self.assertIsNone(self.fetch("user", request))

        return self.in_thread(body)

    def test_group(self) -> Deferred[Any]:
        def body() -> None:
            self.send("publish-group", "john")
            self.assertEqual(self.fetch("group", self.request("mary", session=True)), MESSAGE)

        return self.in_thread(body)

    def test_session(self) -> Deferred[Any]:
        def body() -> None:
            self.send("publish-session", "mary")
            self.assertEqual(self.fetch("session", self.request("mary", session=True)), MESSAGE)
            self.assertIsNone(self.fetch("session", self.request("john", session=True)))

        return self.in_thread(body)

    def test_any(self) -> Deferred[Any]:
        def body() -> None:
            request = self.request("john", session=True)
            for audience in ("broadcast", "group", "user", "session"):
                with self.connected(f"publish-{audience}", "john") as connection:
                    connection.send(audience)
                self.assertEqual(self.fetch("any", request), audience.encode())

        return self.in_thread(body)

    def test_many_times_send_close_fetch(self) -> Deferred[Any]:
        def body() -> None:
            for i in range(50):
                connection = self.connect("publish-broadcast")
                connection.send(f"number {i}")
                connection.close()
                found = self.fetch("broadcast", self.request())
                self.assertEqual(found, f"number {i}".encode())

        return self.in_thread(body)


class PublishAndSubscribeTests(OldSuiteTestCase):
    def test_with_echo_a_client_gets_its_own_message(self) -> Deferred[Any]:
        def body() -> None:
            for audience in ("broadcast", "group", "user", "session"):
                flags = f"subscribe-{audience}&publish-{audience}&echo"
                with self.connected(flags, "john") as connection:
                    connection.send(MESSAGE)
                    self.assertEqual(connection.recv(), MESSAGE.decode())

        return self.in_thread(body)

    def test_without_echo_another_client_gets_it(self) -> Deferred[Any]:
        def body() -> None:
            flags = "subscribe-broadcast&publish-broadcast"
            with self.connected(flags) as first, self.connected(flags) as second:
                first.send("from first")
                self.assertEqual(second.recv(), "from first")
                second.send("from second")
                self.assertEqual(first.recv(), "from second")

        return self.in_thread(body)

    def test_what_was_persisted_arrives_although_the_client_sends_the_same(self) -> Deferred[Any]:
        """The old suite's tests share a facility and a message, and ask for no echo."""

        def body() -> None:
            publisher = RedisPublisher(facility="unittest", broadcast=True)
            for _ in range(200):
                publisher.publish_message(MESSAGE, 10)
                with self.connected("subscribe-broadcast&publish-broadcast") as connection:
                    connection.settimeout(3)
                    connection.send(MESSAGE)
                    self.assertEqual(connection.recv(), MESSAGE.decode())

        return self.in_thread(body)

    def test_binary(self) -> Deferred[Any]:
        def body() -> None:
            with self.connected("subscribe-broadcast&publish-broadcast&echo") as connection:
                for payload in (b"\xff\xfe\x00", bytes(range(256)), b"\x80" * 70_000):
                    connection.send_binary(payload)
                    opcode, received = connection.recv_data()
                    self.assertEqual((opcode, received), (websocket.ABNF.OPCODE_BINARY, payload))

        return self.in_thread(body)


class ChannelTests(OldSuiteTestCase):
    DENY = ("Deny-Channels: YES",)

    def denied(self, flags: str = "subscribe-broadcast&publish-broadcast") -> int:
        """The status of the answer; 101 if nothing was denied."""
        try:
            connection = self.connect(flags, header=self.DENY)
        except websocket.WebSocketException as error:
            status: int = error.status_code
            return status
        connection.close()
        return 101

    def test_a_callback_that_denies_swapped_in_the_settings_at_run_time(self) -> Deferred[Any]:
        def body() -> None:
            with self.connected("subscribe-broadcast&publish-broadcast", header=self.DENY):
                pass
            for callback in (deny_when_told, f"{__name__}.deny_when_told"):
                with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
                    self.assertEqual(self.denied(), 403)
                    with self.connected("subscribe-broadcast&publish-broadcast"):
                        pass

        return self.in_thread(body)

    def test_a_callback_that_denies_swapped_in_the_packages_settings_module(self) -> Deferred[Any]:
        """Old code assigns to ``WS4REDIS_ALLOWED_CHANNELS`` in the package's settings module."""
        self.addCleanup(vars(private_settings).pop, "WS4REDIS_ALLOWED_CHANNELS", None)

        def body() -> None:
            for callback in (deny_when_told, f"{__name__}.deny_when_told"):
                private_settings.WS4REDIS_ALLOWED_CHANNELS = callback
                self.assertEqual(self.denied(), 403)
                with self.connected("subscribe-broadcast&publish-broadcast"):
                    pass

        return self.in_thread(body)


class ConnectionTests(OldSuiteTestCase):
    def test_close_codes_1000_to_1015(self) -> Deferred[Any]:
        """The client ignores the answer and is closed."""

        def body() -> None:
            for code in range(1000, 1016):
                connection = self.connect("subscribe-broadcast&publish-broadcast")
                connection.close(code)
                self.assertFalse(connection.connected)

        return self.in_thread(body)

    def plain(self, method: str, data: bytes | None = None) -> tuple[int, Any, str]:
        url = self.base.replace("ws://", "http://", 1)
        request = urllib.request.Request(url, data=data, method=method)
        with self.assertRaises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=20)
        with caught.exception as answer:
            return answer.code, answer.headers, answer.read().decode()

    def test_an_invalid_request_get(self) -> Deferred[Any]:
        """The old server answered 400; old tests look for these words of it."""

        def body() -> None:
            status, headers, text = self.plain("GET")
            self.assertEqual((status, headers["Upgrade"]), (426, "websocket"))
            self.assertIn("upgrade to a websocket", text)

        return self.in_thread(body)
