"""The contract, section 3: the settings."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import in_thread, log_in, set_up_django
from tests.support.programs import python
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.tap import Options

set_up_django()

from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.models import Session
from django.core.checks import run_checks
from django.core.handlers.wsgi import WSGIRequest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from ws4redis_tx import settings as old_settings
from ws4redis_tx.config import django_settings
from ws4redis_tx.publisher import RedisPublisher


class Subscriber(RedisSubscriber):
    """A subscriber of an application."""


class SettingsTests(SynchronousTestCase):
    """3. Settings: the table"""

    def test_the_defaults(self) -> None:
        self.assertEqual(django_settings.get("WEBSOCKET_URL"), "/ws/")
        self.assertEqual(str(django_settings.get_redis_address()), "redis://localhost:6379/0")
        self.assertEqual(django_settings.get("WS4REDIS_EXPIRE"), 3600)
        self.assertEqual(
            django_settings.get("WS4REDIS_SUBSCRIBER"), "ws4redis_tx.subscriber.RedisSubscriber"
        )
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
        for value in (f"{__name__}.Subscriber", Subscriber):
            with override_settings(WS4REDIS_SUBSCRIBER=value):
                self.assertIs(django_settings.server_config().subscriber, Subscriber)

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
        """Users can import each public module without any settings."""
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
        """Fire with a callback's notes on a request."""
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
        """Even where Django's ``get_user`` would flush it or cycle its key."""
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
