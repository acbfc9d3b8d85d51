"""The contract, sections 3 and 4: the settings, and the names that other people's code imports.

Reads along with the page, as ``test_contract`` does for sections 1, 2 and 5.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import in_thread, log_in, set_up_django
from tests.support.memory import WebSocketTests
from tests.support.programs import children, python
from tests.support.redis import RawSubscriber, RedisServer
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from ws4redis_tx.config.server_config import DEFAULT_SUBSCRIBER
from ws4redis_tx.core.errors import AudienceError, BrokerUnavailable, ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.redis_store import RedisStore
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.tap import Options
from ws4redis_tx.testing import MemoryClient

set_up_django()

from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.models import Session
from django.core.checks import run_checks
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.template import engines
from django.test import RequestFactory, override_settings
from django.test.utils import CaptureQueriesContext

from ws4redis_tx import settings as old_settings
from ws4redis_tx.config import django_settings
from ws4redis_tx.policies import allow_all
from ws4redis_tx.publisher import SELF, RedisMessage, RedisPublisher

# Section 3


class SettingsTests(SynchronousTestCase):
    """3. Settings: the table"""

    def test_the_defaults(self) -> None:
        self.assertEqual(django_settings.get("WEBSOCKET_URL"), "/ws/")
        self.assertEqual(str(django_settings.get_redis_address()), "redis://localhost:6379/0")
        self.assertEqual(django_settings.get("WS4REDIS_EXPIRE"), 3600)
        self.assertEqual(django_settings.get("WS4REDIS_SUBSCRIBER"), DEFAULT_SUBSCRIBER)
        for name in (
            "WS4REDIS_PREFIX", "WS4REDIS_HEARTBEAT", "WS4REDIS_ALLOWED_CHANNELS",
            "WS4REDIS_PROCESS_REQUEST", "WS4REDIS_ALLOWED_ORIGINS",
        ):  # fmt: skip
            self.assertIsNone(django_settings.get(name))

    def test_websocket_url(self) -> None:
        with override_settings(WEBSOCKET_URL="/live/"):
            self.assertEqual(django_settings.server_config().websocket_url, "/live/")

    def test_ws4redis_connection_is_a_url_or_the_old_dict(self) -> None:
        expected = RedisAddress("r.example", 7000, db=2, username="u", password="p", tls=True)
        for value in (
            "rediss://u:p@r.example:7000/2",
            {
                "host": "r.example", "port": 7000, "db": 2, "username": "u", "password": "p",
                "ssl": True,
            },
        ):  # fmt: skip
            with override_settings(WS4REDIS_CONNECTION=value):
                self.assertEqual(django_settings.server_config().redis, expected)
        for value in ("unix:///run/r.sock?db=1", {"unix_socket_path": "/run/r.sock", "db": 1}):
            address = parse_redis_address(value)
            self.assertEqual((address.path, address.db), ("/run/r.sock", 1))
        self.assertEqual(parse_redis_address({}), RedisAddress())

    def test_ws4redis_expire_zero_or_none_is_not_persisted(self) -> None:
        for value in (0, None):
            with override_settings(WS4REDIS_EXPIRE=value):
                self.assertEqual(django_settings.server_config().expire, 0)

    def test_ws4redis_subscriber_is_a_dotted_name_or_a_class(self) -> None:
        for value in (f"{__name__}.Filtering", Filtering):
            with override_settings(WS4REDIS_SUBSCRIBER=value):
                self.assertIs(django_settings.server_config().subscriber, Filtering)

    def test_each_has_its_option_of_twistd_ws4redis(self) -> None:
        options = Options()
        options.parseOptions([
            "--websocket-url=/live/", "--redis=redis://r.example/3", "--prefix=site",
            "--expire=5", "--heartbeat=beat", "--origin=https://a.example",
        ])  # fmt: skip
        config = options["config"]
        self.assertEqual(config.websocket_url, "/live/")
        self.assertEqual(config.redis, RedisAddress("r.example", db=3))
        self.assertEqual((config.prefix, config.expire, config.heartbeat), ("site", 5, "beat"))
        self.assertEqual(config.allowed_origins, ("https://a.example",))

    def setUp(self) -> None:
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})
        self.patch(sys, "path", sys.path[:])


class SettingsReadTests(SynchronousTestCase):
    """3. Settings: when they are read"""

    def test_nothing_is_read_at_import(self) -> None:
        """Without any settings, each module that users import can be imported."""
        modules = (
            "publisher", "subscriber", "redis_store", "settings", "policies", "service",
            "context_processors", "django.receivers", "apps",
        )  # fmt: skip
        names = ", ".join(f"ws4redis_tx.{name}" for name in modules)
        result = python("-c", f"import {names}", DJANGO_SETTINGS_MODULE="")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_override_settings_works_everywhere(self) -> None:
        publisher = RedisPublisher(facility="f", broadcast=True)
        with override_settings(WS4REDIS_PREFIX="site", WS4REDIS_EXPIRE=7, WEBSOCKET_URL="/a/"):
            self.assertEqual(publisher.get_prefix(), "site:")
            self.assertEqual(old_settings.WS4REDIS_EXPIRE, 7)
            self.assertEqual(django_settings.server_config().prefix, "site")
        self.assertEqual(old_settings.WS4REDIS_EXPIRE, 3600)

    def test_a_name_that_does_not_resolve_is_a_system_check_and_a_start_up_error(self) -> None:
        for setting in (
            "WS4REDIS_SUBSCRIBER", "WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST",
        ):  # fmt: skip
            for value in ("no.such.name", f"{__name__}.no_such_name", "nonsense"):
                with override_settings(**{setting: value}):
                    found = [error for error in run_checks() if setting in error.msg]
                    self.assertEqual(len(found), 1)
                    self.assertTrue(found[0].id.startswith("ws4redis_tx.E"))
                    self.assertEqual(
                        [error.setting for error in django_settings.problems()], [setting]
                    )

    def test_start_up_errors_are_those_of_the_check(self) -> None:
        """``make_service`` is built from ``server_config``, which needs the subscriber alone."""
        with (
            override_settings(WS4REDIS_SUBSCRIBER="no.such.name"),
            self.assertRaises(ConfigError),
        ):
            django_settings.server_config()

    def test_a_redis_url_with_a_password_on_the_command_line_is_a_usage_error(self) -> None:
        for url in ("redis://:secret@localhost/0", "redis://user:secret@localhost"):
            with self.assertRaises(UsageError) as caught:
                Options().parseOptions([f"--redis={url}"])
            self.assertNotIn("secret", str(caught.exception))
            self.assertIn("--redis @FILE", str(caught.exception))


class DefaultPolicyTests(ContractTestCase):
    """3. Settings: default policy"""

    @inlineCallbacks
    def test_every_subscribe_right_for_oneself_and_publishing_to_oneself(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        flags = f"{SUBSCRIBE_ALL}&publish-session&publish-user&echo"
        client = yield self.open(f"foobar?{flags}", cookies=john)
        self.assertEqual(len(self.channels()), 4)
        client.sendMessage(b"to me")
        self.assertEqual((yield client.take(2)), ["to me"] * 2)

    @inlineCallbacks
    def test_publishing_to_others_is_a_403_and_the_log_names_the_setting(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        lines = self.log_lines()
        for right in ("publish-broadcast", "publish-group"):
            lines.clear()
            status, _ = yield self.refusal(
                f"/ws/foobar?subscribe-broadcast&{right}", Cookie=f"sessionid={john['sessionid']}"
            )
            self.assertEqual(status, 403)
            self.assertTrue(any("WS4REDIS_ALLOWED_CHANNELS" in line for line in lines))

    @inlineCallbacks
    def test_allow_all_lets_everyone_publish_to_everyone(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        john = yield self.log_in("john")
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}&echo", cookies=john)
        client.sendMessage(b"to all")
        self.assertEqual((yield client.take(4)), ["to all"] * 4)


class CallbackTests(ContractTestCase):
    """3. Settings: callbacks"""

    seen: list[dict[str, Any]]

    @inlineCallbacks
    def ask(self, cookies: dict[str, str] | None = None) -> Any:
        """Fire with what a callback saw of a request."""
        self.seen = []

        def callback(request: WSGIRequest, channels: list[str]) -> list[str]:
            self.seen.append(
                {
                    "request": request,
                    "channels": channels,
                    "thread": threading.current_thread(),
                    "users": User.objects.count(),
                }
            )
            return channels

        with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
            yield self.open(
                "foo%C3%BCbar?subscribe-broadcast&a=1&echo",
                cookies=cookies,
                headers={"X-Real-Ip": "10.0.0.1"},
            )
        return self.seen[0]

    @inlineCallbacks
    def test_they_get_a_true_wsgi_request_in_a_worker_thread_where_the_orm_is_welcome(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        seen = yield self.ask(john)
        request = seen["request"]
        self.assertIs(type(request), WSGIRequest)
        self.assertEqual(request.path_info, "/ws/fooübar")
        self.assertEqual(request.GET["a"], "1")
        self.assertEqual(request.META["HTTP_X_REAL_IP"], "10.0.0.1")
        self.assertEqual(request.META["REMOTE_ADDR"], "127.0.0.1")
        self.assertEqual(request.COOKIES["sessionid"], john["sessionid"])
        self.assertEqual(request.headers["X-Real-Ip"], "10.0.0.1")
        self.assertEqual(request.get_host(), f"127.0.0.1:{self.port}")
        self.assertEqual(seen["channels"], ["subscribe-broadcast"])
        self.assertIsNot(seen["thread"], threading.main_thread())
        self.assertGreaterEqual(seen["users"], 2)

    @inlineCallbacks
    def test_user_and_session_are_fully_loaded_and_never_touch_the_database_later(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")
        request = (yield self.ask(john))["request"]

        def look() -> int:
            with CaptureQueriesContext(connection) as queries:
                assert request.user.username == "john" and request.user.is_authenticated
                assert request.session["_auth_user_id"] == str(request.user.pk)
                assert request.session.session_key == john["sessionid"]
            return len(queries)

        self.assertEqual((yield in_thread(look)), 0)

    @inlineCallbacks
    def test_a_visitor_without_a_session_is_anonymous_with_a_session_whose_key_is_none(
        self,
    ) -> Any:
        yield self.serve()
        for cookies in (None, {"sessionid": "forged"}, {"sessionid": "a" * 32}):
            request = (yield self.ask(cookies))["request"]
            self.assertIsInstance(request.user, AnonymousUser)
            self.assertIsNone(request.session.session_key)
            self.assertEqual(dict(request.session.items()), {})

    @inlineCallbacks
    def test_process_request_replaces_the_lookup(self) -> Any:
        def process(request: WSGIRequest) -> None:
            request.user = User.objects.get(username=request.GET["as"])
            request.session = type("Session", (dict,), {"session_key": "own"})()

        for value in (process, f"{__name__}.process_as_mary"):
            yield self.serve(WS4REDIS_PROCESS_REQUEST=value)
            yield self.open("foobar?subscribe-user&subscribe-session&as=mary")
            self.assertEqual(self.channels(), {"user:mary:foobar", "session:own:foobar"})


def process_as_mary(request: WSGIRequest) -> None:
    request.user = User.objects.get(username="mary")
    request.session = type("Session", (dict,), {"session_key": "own"})()


class LookupTests(ContractTestCase):
    """3. Settings: the lookup is read-only; groups"""

    @inlineCallbacks
    def test_a_handshake_leaves_the_stored_session_as_it_was(self) -> Any:
        """Also where Django's ``get_user`` would flush it or cycle its key."""
        from django.conf import settings

        yield self.serve()
        john = yield self.log_in("john")

        def stored() -> Any:
            return list(Session.objects.filter(pk=john["sessionid"]).values())

        before = yield in_thread(stored)
        self.assertEqual(len(before), 1)
        yield self.open("foobar?subscribe-user", cookies=john)
        with override_settings(SECRET_KEY="n" * 60, SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            yield self.open("foobar?subscribe-user", cookies=john)
        with override_settings(SECRET_KEY="n" * 60):
            status, _ = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=f"sessionid={john['sessionid']}"
            )
        self.assertEqual(status, 401)
        self.assertEqual((yield in_thread(stored)), before)

    @inlineCallbacks
    def test_groups_are_the_current_ones_of_the_database_at_each_handshake(self) -> Any:
        yield self.serve()
        john = yield self.log_in("john")

        def join() -> Any:
            User.objects.get(username="john").groups.add(Group.objects.create(name="new"))

        def leave() -> Any:
            Group.objects.get(name="new").delete()

        yield in_thread(join)
        yield self.open("a?subscribe-group", cookies=john)
        self.assertEqual(self.channels(), {"group:chatters:a", "group:new:a"})
        yield in_thread(leave)
        yield self.open("b?subscribe-group", cookies=john)
        self.assertIn("group:chatters:b", self.channels())
        self.assertNotIn("group:new:b", self.channels())

    @inlineCallbacks
    def test_memberof_is_still_written_at_login_for_old_servers(self) -> Any:
        client = yield log_in("john")
        session = yield in_thread(lambda: dict(client.session.items()))
        self.assertEqual(session["ws4redis:memberof"], ["chatters"])

    @inlineCallbacks
    def test_and_is_used_alone_only_under_process_request(self) -> Any:
        def process(request: WSGIRequest) -> None:
            process_as_mary(request)
            request.session["ws4redis:memberof"] = ["by hand"]

        yield self.serve(WS4REDIS_PROCESS_REQUEST=process)
        yield self.open("foobar?subscribe-group")
        self.assertEqual(self.channels(), {"group:by hand:foobar"})


# Section 4


class PublisherTests(ContractTestCase):
    """4. Python API: ws4redis_tx.publisher.RedisPublisher"""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        broker = RedisBroker(self.redis.address, "", reactor)
        broker.startService()
        self.addCleanup(broker.stopService)
        self.share(broker)
        yield broker.when_available()

    def request(self, username: str | None = None, key: str | None = None) -> WSGIRequest:
        request = RequestFactory().get("/chat/")
        request.user = User.objects.get(username=username) if username else AnonymousUser()
        request.session = type("Session", (dict,), {"session_key": key})()
        return request

    @inlineCallbacks
    def test_publish_message_takes_str_bytes_or_redis_message(self) -> Any:
        for message in ("grüße", "grüße".encode(), RedisMessage("grüße")):
            self.redis.command("FLUSHALL")
            yield self.publish(message, broadcast=True)
            self.assertEqual(self.redis.command("GET", "broadcast:foobar"), "grüße".encode())

    @inlineCallbacks
    def test_it_returns_the_sum_of_redis_receiver_counts_over_its_channels(self) -> Any:
        RawSubscriber(self, self.redis.port, "broadcast:foobar", "user:john:foobar")
        RawSubscriber(self, self.redis.port, "broadcast:foobar")
        count = yield self.publish("hi", broadcast=True, users=["john", "mary"])
        self.assertEqual(count, 3)

    @inlineCallbacks
    def test_expire_is_the_settings_unless_it_is_given(self) -> Any:
        for setting, expire, expected in ((100, None, 100), (100, 20, 20), (100, 0, -2)):
            self.redis.command("FLUSHALL")
            with override_settings(WS4REDIS_EXPIRE=setting):
                yield self.publish("hi", expire, broadcast=True)
            ttl = self.redis.command("TTL", "broadcast:foobar")
            self.assertTrue(expected - 2 <= ttl <= expected, (ttl, expected))

    @inlineCallbacks
    def test_pipeline_publish_message_is_kept(self) -> Any:
        raw = RawSubscriber(self, self.redis.port, "broadcast:f", "user:john:f")
        publisher = RedisPublisher(facility="f", broadcast=True, users=["john"])
        for arguments in (("hi",), ("hi", 10), ("hi", 10, False)):
            count = yield in_thread(publisher.pipeline_publish_message, *arguments)
            self.assertEqual(count, 2)
            yield raw.take(2)
        yield in_thread(lambda: publisher.pipeline_publish_message("hi", transaction=False))

    @inlineCallbacks
    def test_fetch_message_finds_the_first_of_session_user_each_group_broadcast(self) -> Any:
        request = yield in_thread(self.request, "john", "abc")

        def fetch(*audience: str) -> Any:
            return in_thread(RedisPublisher().fetch_message, request, "foobar", *audience)

        self.assertIsNone((yield fetch()))
        for channel, audience in (
            ("broadcast:foobar", "broadcast"),
            ("group:chatters:foobar", "group"),
            ("user:john:foobar", "user"),
            ("session:abc:foobar", "session"),
        ):
            self.assertIsNone((yield fetch(audience)))
            self.redis.command("SETEX", channel, 10, audience)
            self.assertEqual((yield fetch()), audience.encode())
            self.assertEqual((yield fetch("any")), audience.encode())
            found = yield fetch(audience)
            self.assertIsInstance(found, bytes)
            self.assertEqual(found, audience.encode())
        with self.assertRaises(ValueError):
            yield fetch("everybody")

    @inlineCallbacks
    def test_self_means_the_requests_own(self) -> Any:
        request = yield in_thread(self.request, "john", "abc")
        own = {"users": [SELF], "groups": [SELF], "sessions": [SELF]}
        publisher = yield in_thread(lambda: RedisPublisher(request=request, facility="f", **own))
        self.assertEqual(
            publisher._publishers, {"user:john:f", "group:chatters:f", "session:abc:f"}
        )

    @inlineCallbacks
    def test_what_cannot_be_resolved_yields_no_channel(self) -> Any:
        nobody = yield in_thread(self.request)
        for request in (nobody, RequestFactory().get("/"), None):
            for audience in ("users", "groups", "sessions"):
                count = yield self.publish(request=request, **{audience: [SELF]})
                self.assertEqual(count, 0)
        self.assertEqual(self.keys(), set())

    def test_a_string_or_a_boolean_for_a_list_is_a_clear_error_and_any_iterable_is_fine(
        self,
    ) -> None:
        for argument in ("users", "groups", "sessions"):
            for wrong in ("john", b"john", True, False):
                with self.assertRaises((TypeError, ValueError)) as caught:
                    RedisPublisher(facility="f", **{argument: wrong})
                self.assertIn(argument, str(caught.exception))
            for right in (["a"], ("a",), {"a"}, {"a": 1}, iter(["a"]), (x for x in "a")):
                publisher = RedisPublisher(facility="f", **{argument: right})
                self.assertEqual(publisher._publishers, {f"{argument[:-1]}:a:f"})

    @inlineCallbacks
    def test_a_publisher_with_no_audience_at_all_raises_when_it_publishes(self) -> Any:
        publisher = RedisPublisher(facility="f")
        with self.assertRaises(AudienceError):
            yield in_thread(publisher.publish_message, "hi")

    def test_a_facility_that_the_server_would_refuse_is_a_value_error(self) -> None:
        for facility in ("x" * 256, "a\nb", "\ud800"):
            with self.assertRaises(ValueError):
                RedisPublisher(facility=facility, broadcast=True)
        for audience in ("users", "groups", "sessions"):
            with self.assertRaises(ValueError):
                RedisPublisher(facility="a:b", **{audience: ["x"]})
        RedisPublisher(facility="a:b", broadcast=True)

    @inlineCallbacks
    def test_async_views_await_apublish_message(self) -> Any:
        async def view() -> int:
            publisher = RedisPublisher(facility="foobar", broadcast=True)
            return await publisher.apublish_message("hi", 10)

        self.assertEqual((yield deferToThread(asyncio.run, view())), 0)
        self.assertEqual(self.redis.command("GET", "broadcast:foobar"), b"hi")

    def test_on_the_reactor_thread_a_synchronous_call_raises_and_names_the_one_to_use(self) -> None:
        publisher = RedisPublisher(facility="f", broadcast=True)
        for call in (publisher.publish_message, publisher.pipeline_publish_message):
            with self.assertRaises(RuntimeError) as caught:
                call("hi")
            self.assertIn("Deferred", str(caught.exception))
        with self.assertRaises(RuntimeError):
            publisher.fetch_message(RequestFactory().get("/"), "f", "broadcast")

    @inlineCallbacks
    def test_on_an_event_loop_thread_too(self) -> Any:
        async def view() -> None:
            publisher = RedisPublisher(facility="f", broadcast=True)
            with self.assertRaises(RuntimeError) as caught:
                publisher.publish_message("hi")
            self.assertIn("apublish_message", str(caught.exception))

        yield deferToThread(asyncio.run, view())

    def test_for_old_tests_publishers_and_a_connection_with_a_blocking_get(self) -> Any:
        publisher = RedisPublisher(facility="f", broadcast=True, users=["john"])
        self.assertEqual(publisher._publishers, {"broadcast:f", "user:john:f"})
        self.redis.command("SET", "broadcast:f", "hi")
        getting = in_thread(publisher._connection.get, "broadcast:f")
        return getting.addCallback(self.assertEqual, b"hi")


class OutageTests(ContractTestCase):
    """4. Python API: blocks at most its timeout; Redis down raises BrokerUnavailable"""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        broker = RedisBroker(self.redis.address, "", reactor)
        broker.startService()
        self.addCleanup(broker.stopService)
        self.share(broker)
        yield broker.when_available()
        self.override(WS4REDIS_TIMEOUT=0.5)

    @inlineCallbacks
    def test_redis_down_raises_and_says_that_nothing_was_published(self) -> Any:
        self.redis.stop()
        while self.broker.commands.connected:
            yield later()
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish("lost", broadcast=True)
        self.assertFalse(caught.exception.maybe_published)

    @inlineCallbacks
    def publish_to_a_redis_that_hangs(self) -> Any:
        """Fire with the error's ``maybe_published``, the time it took, and what was logged."""
        for pid in children(self.redis._process.pid):
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(os.kill, pid, signal.SIGCONT)
        started = reactor.seconds()
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish("perhaps", broadcast=True)
        taken = reactor.seconds() - started
        maybe_published = caught.exception.maybe_published
        del caught
        gc.collect()
        yield later()
        return maybe_published, taken, self.flushLoggedErrors()

    @inlineCallbacks
    def test_a_redis_that_hangs_raises_within_the_timeout_and_the_fate_is_unknown(self) -> Any:
        """Stopped, not refusing. The next publish after it came back succeeds; none is repeated."""
        raw = RawSubscriber(self, self.redis.port, "broadcast:foobar")
        maybe_published, taken, _ = yield self.publish_to_a_redis_that_hangs()
        self.assertTrue(maybe_published)
        self.assertTrue(0.4 < taken < 2)
        for pid in children(self.redis._process.pid):
            os.kill(pid, signal.SIGCONT)
        self.override(WS4REDIS_TIMEOUT=10)
        yield self.broker.when_available()
        self.assertEqual((yield self.publish("next", broadcast=True)), 1)
        arrived = [message for _, message in (yield raw.take(1))]
        if arrived == [b"perhaps"]:
            arrived = [message for _, message in (yield raw.take(1))]
        self.assertEqual(arrived, [b"next"])

    @inlineCallbacks
    def test_what_is_raised_is_not_logged_as_unhandled_besides(self) -> Any:
        _, _, logged = yield self.publish_to_a_redis_that_hangs()
        self.assertEqual(logged, [])


class StoreTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.redis_store and ws4redis_tx.settings"""

    def test_redis_message_is_bytes(self) -> None:
        self.assertIsInstance(RedisMessage("grüße"), bytes)
        self.assertEqual(RedisMessage("grüße"), "grüße".encode())
        self.assertEqual(RedisMessage(b"\xff"), b"\xff")

    def test_the_names_are_where_they_were(self) -> None:
        from ws4redis_tx import publisher, redis_store, subscriber

        self.assertTrue(issubclass(publisher.RedisPublisher, redis_store.RedisStore))
        self.assertTrue(issubclass(subscriber.RedisSubscriber, RedisStore))
        self.assertIs(publisher.SELF, redis_store.SELF)
        self.assertIs(publisher.RedisMessage, redis_store.RedisMessage)

    def test_settings_is_upstreams_module_read_lazily(self) -> None:
        with override_settings(WS4REDIS_HEARTBEAT="beat", WS4REDIS_PREFIX="site"):
            self.assertEqual(old_settings.WS4REDIS_HEARTBEAT, "beat")
            self.assertEqual(old_settings.WS4REDIS_PREFIX, "site")
        self.assertIsNone(old_settings.WS4REDIS_PREFIX)
        self.assertEqual(old_settings.WEBSOCKET_URL, "/ws/")


def later(value: Any = None) -> Deferred[Any]:
    """A Deferred that fires in a later turn of the reactor."""
    return deferLater(reactor, 0, lambda: value)


class Filtering(RedisSubscriber):
    """Publishes in upper case what is not rude."""

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Any:
        if b"rude" in message:
            return None
        return super().publish_message(RedisMessage(message.upper()), expire)


class WithServerAudience(RedisSubscriber):
    """Everybody hears what the server itself has to say, and may answer, as subclasses do it."""

    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]
    verb = ""
    asked: Any = ()

    def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
        self.asked = channels
        self.verb = "publish"
        return super().set_pubsub_channels(request, channels)

    def _get_message_channels(
        self, request: Any = None, facility: str = "", **audience: Any
    ) -> Any:
        names = super()._get_message_channels(request=request, facility=facility, **audience)
        if f"{self.verb}-server" in self.asked:
            names.append(f"{self.get_prefix()}server:{facility}")
        self.verb = "subscribe"
        return names


class InTheOldWay(RedisSubscriber):
    """Overrides ``set_pubsub_channels`` whole, as code written for the old package does."""

    def set_pubsub_channels(self, request: Any, channels: Any) -> None:
        facility = request.path_info.replace("/ws/", "", 1)
        audience = {"broadcast": "publish-broadcast" in channels}
        self._publishers = set()
        for key in self._get_message_channels(request=request, facility=facility, **audience):
            self._publishers.add(key)
        audience = {"users": [SELF] if "subscribe-user" in channels else [], "broadcast": True}
        self._subscription = self._connection.pubsub()
        for key in self._get_message_channels(request=request, facility=facility, **audience):
            self._subscription.subscribe(key)


class Deferring(RedisSubscriber):
    """Each of its methods returns a Deferred that fires later."""

    calls: list[str] = []

    def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
        self.calls.append("set_pubsub_channels")
        base = super()
        return later().addCallback(lambda _: base.set_pubsub_channels(request, channels))

    def send_persisted_messages(self, websocket: Any) -> Any:
        self.calls.append("send_persisted_messages")
        websocket.send("welcome")
        base = super()
        return later().addCallback(lambda _: base.send_persisted_messages(websocket))

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Any:
        self.calls.append("publish_message")
        base = super()
        return later().addCallback(lambda _: base.publish_message(message, expire))

    def release(self) -> Any:
        self.calls.append("release")
        return later().addCallback(lambda _: super(Deferring, self).release())


class SubscriberTests(ContractTestCase):
    """4. Python API: ws4redis_tx.subscriber.RedisSubscriber, replaceable"""

    @inlineCallbacks
    def serve(self, subscriber: Any = None, **settings: Any) -> Any:
        if subscriber is not None:
            settings["WS4REDIS_SUBSCRIBER"] = subscriber
        yield super().serve(WS4REDIS_ALLOWED_CHANNELS=allow_all, **settings)

    @inlineCallbacks
    def test_the_setting_names_the_class_that_is_used(self) -> Any:
        yield self.serve(f"{__name__}.Filtering")
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        for message in (b"hi", b"rude words", b"bye"):
            client.sendMessage(message)
        self.assertEqual((yield client.take(2)), ["HI", "BYE"])

    @inlineCallbacks
    def test_an_audience_added_by_get_message_channels_and_the_class_lists(self) -> Any:
        yield self.serve(WithServerAudience, WS4REDIS_PREFIX="site")
        hearing = yield self.open("foobar?subscribe-server")
        speaking = yield self.open("foobar?publish-server&subscribe-nonsense")
        self.assertEqual(self.channels(), {"site:server:foobar"})
        self.redis.command("PUBLISH", "site:server:foobar", "1")
        speaking.sendMessage(b"2")
        self.assertEqual((yield hearing.take(2)), ["1", "2"])

    @inlineCallbacks
    def test_set_pubsub_channels_overridden_whole_as_old_code_does(self) -> Any:
        yield self.serve(InTheOldWay)
        john = yield self.log_in("john")
        client = yield self.open("foobar?subscribe-user&publish-broadcast&echo", cookies=john)
        self.assertEqual(self.channels(), {"user:john:foobar", "broadcast:foobar"})
        client.sendMessage(b"to all")
        self.redis.command("PUBLISH", "user:john:foobar", "to john")
        self.assertEqual(sorted((yield client.take(2))), ["to all", "to john"])

    @inlineCallbacks
    def test_each_method_may_return_a_deferred(self) -> Any:
        Deferring.calls = []
        yield self.serve(Deferring)
        self.redis.command("SETEX", "broadcast:foobar", 60, "persisted")
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        self.assertEqual(self.redis.command("PUBLISH", "broadcast:foobar", "live"), 1)
        self.assertEqual((yield client.take(3)), ["welcome", "persisted", "live"])
        client.sendMessage(b"mine")
        client.sendClose(1000)
        yield client.closed
        self.assertEqual(self.redis.command("GET", "broadcast:foobar"), b"mine")
        while self.channels():
            yield self.broker.fence()
        self.assertEqual(
            Deferring.calls,
            ["set_pubsub_channels", "send_persisted_messages", "publish_message", "release"],
        )

    @inlineCallbacks
    def test_send_persisted_messages_under_either_name_is_right_after_open(self) -> Any:
        class New(RedisSubscriber):
            def send_persisted_messages(self, websocket: Any) -> Any:
                websocket.send("new")
                return super().send_persisted_messages(websocket)

        class Old(RedisSubscriber):
            def send_persited_messages(self, websocket: Any) -> Any:
                websocket.send("old")
                return super().send_persited_messages(websocket)

        for subscriber, expected in ((New, "new"), (Old, "old")):
            yield self.serve(subscriber)
            self.redis.command("SETEX", "broadcast:foobar", 60, "persisted")
            client = yield self.open("foobar?subscribe-broadcast")
            self.assertEqual((yield client.take(2)), [expected, "persisted"])

    @inlineCallbacks
    def test_parse_response_fires_with_the_next_message_on_a_subscribed_channel(self) -> Any:
        made: list[RedisSubscriber] = []

        class Pulling(RedisSubscriber):
            def __init__(self, connection: Any) -> None:
                super().__init__(connection)
                made.append(self)

        yield self.serve(Pulling)
        client = yield self.open("foobar?subscribe-broadcast")
        pulled = made[0].parse_response()
        self.redis.command("PUBLISH", "broadcast:foobar", "hi")
        self.assertEqual((yield pulled), b"hi")
        self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_get_file_descriptor_is_that_of_the_redis_connection_it_listens_on(self) -> Any:
        made: list[RedisSubscriber] = []

        class Noting(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                made.append(self)
                return super().set_pubsub_channels(request, channels)

        yield self.serve(Noting)
        yield self.open("foobar?subscribe-broadcast")
        with socket.socket(fileno=os.dup(made[0].get_file_descriptor())) as copy:
            self.assertEqual(copy.getpeername(), ("127.0.0.1", self.redis.port))
            clients = self.redis.command("CLIENT", "LIST", "TYPE", "pubsub").decode()
            self.assertIn(f"addr=127.0.0.1:{copy.getsockname()[1]} ", clients)

    @inlineCallbacks
    def test_publish_message_is_called_for_each_client_message_with_a_redis_message(self) -> Any:
        seen: list[Any] = []

        class Noting(RedisSubscriber):
            def publish_message(self, message: Any, expire: int | None = None) -> Any:
                seen.append((type(message), bytes(message), expire))
                return super().publish_message(message, 5)

        yield self.serve(Noting)
        client = yield self.open("foobar?publish-broadcast")
        client.sendMessage("grüße".encode())
        client.sendMessage(b"\xff", isBinary=True)
        client.sendClose(1000)
        yield client.closed
        self.assertEqual(
            seen, [(RedisMessage, "grüße".encode(), None), (RedisMessage, b"\xff", None)]
        )
        self.assertTrue(0 < self.redis.command("TTL", "broadcast:foobar") <= 5)


class ReleaseTests(WebSocketTests):
    """4. Python API: release() is called exactly once, for whatever reason"""

    def test_whatever_ended_the_websocket_it_is_released_once_and_nothing_stays_subscribed(
        self,
    ) -> None:
        def refused(client: MemoryClient) -> None:
            client.send_bytes(b"\x81\xfe\x00")
            client.send_bytes(b"\xff" * 200)

        def server_closes(client: MemoryClient) -> None:
            client._server.close(1008)

        ends: tuple[Any, ...] = (
            MemoryClient.close,
            MemoryClient.lose_connection,
            refused,
            server_closes,
            lambda client: self.factory.drain(1001),
        )
        for end in ends:
            self.setUp()
            client = self.connect()
            self.assertTrue(client.open)
            end(client)
            self.clock.advance(10)
            client.lose_connection()
            self.clock.advance(10)
            self.assert_nothing_left()

    def test_also_when_the_handshake_is_refused_after_it_subscribed(self) -> None:
        class Undecided(RedisSubscriber):
            released: list[Any] = []

            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                super().set_pubsub_channels(request, channels)
                raise RuntimeError("deliberate")

            def release(self) -> None:
                self.released.append(self)
                super().release()

        self.use(subscriber=Undecided)
        self.assertEqual(self.connect().refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(Undecided.released), 1)
        self.assertEqual(list(self.broker.hub.channels), [])


class TemplateTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.context_processors.default"""

    def test_templates_get_websocket_uri_and_ws4redis_heartbeat(self) -> None:
        template = engines["django"].from_string("{{ WEBSOCKET_URI }} {{ WS4REDIS_HEARTBEAT }}")
        request = RequestFactory(HTTP_HOST="localhost:8000").get("/")
        self.assertEqual(template.render({}, request), "ws://localhost:8000/ws/ null")
        request = RequestFactory(HTTP_HOST="localhost").get("/", secure=True)
        with override_settings(WS4REDIS_HEARTBEAT="--beat--", WEBSOCKET_URL="/live/"):
            self.assertEqual(template.render({}, request), 'wss://localhost/live/ "--beat--"')

    def test_installed_apps_gives_receivers_checks_static_files_and_template_tags(self) -> None:
        from django.contrib.auth.signals import user_logged_in
        from django.contrib.staticfiles import finders
        from django.core.checks.registry import registry
        from django.template.loader import get_template  # noqa: F401

        from ws4redis_tx.django.checks import check_settings

        self.assertIn(check_settings, registry.get_checks())
        self.assertTrue(user_logged_in.has_listeners())
        self.assertIsNotNone(finders.find("js/ws4redis.js"))
        engines["django"].from_string("{% load ws4redis %}")


class ServiceTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.service and ws4redis_tx.testing"""

    def test_the_doors_for_embedders_and_testers_are_there(self) -> None:
        from ws4redis_tx import service, testing

        for name in ("ServerConfig", "make_service", "make_factory", "make_resource"):
            self.assertTrue(callable(getattr(service, name)))
        factory = testing.make_memory_factory()
        client = testing.connect(factory, "ws://localhost/ws/foobar?subscribe-broadcast")
        self.assertTrue(client.open)
        client.lose_connection()


class JavaScriptTests(SynchronousTestCase):
    """4. Python API: JavaScript (its behaviour is tested in ``tests/js``)"""

    def test_the_options_and_methods_are_there_and_no_jquery(self) -> None:
        from django.contrib.staticfiles import finders

        with open(finders.find("js/ws4redis.js")) as file:
            script = file.read()
        for name in (
            "uri", "connecting", "connected", "disconnected", "receive_message", "heartbeat_msg",
            "send_message", "get_state", "close", "is_connecting", "is_connected", "is_closing",
            "is_closed",
        ):  # fmt: skip
            self.assertIn(name, script)
        self.assertNotIn("jquery", script.lower())
        self.assertNotIn("$", script)
