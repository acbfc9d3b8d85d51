"""Django's sessions through the running server: each engine, and usual customisations."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.clients import exchange, open_websocket
from tests.support.django import environment, set_up_django
from tests.support.programs import python, twistd
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.service import make_service

set_up_django()

from django.conf import settings
from django.contrib.auth.models import User
from django.core.cache import caches
from django.test import Client, override_settings

from ws4redis_tx.config import django_settings


class SessionTests(ServerTestCase):
    @inlineCallbacks
    def serve(self) -> Any:
        """Serve with the current settings, and log John in."""
        service = make_service(django_settings.server_config(listen=LISTEN))
        self.launch(service)
        yield service.when_ready()
        self.client = Client()
        self.client.force_login(User.objects.get(username="john"))
        self.key = self.client.cookies[settings.SESSION_COOKIE_NAME].value
        self.cookies = {settings.SESSION_COOKIE_NAME: self.key}

    def override(self, **values: Any) -> None:
        override = override_settings(WS4REDIS_CONNECTION=str(self.redis.address), **values)
        override.enable()
        self.addCleanup(override.disable)

    def stored(self) -> Any:
        store = import_module(settings.SESSION_ENGINE).SessionStore(self.key)
        return dict(store.load()), store.exists(self.key)

    @inlineCallbacks
    def assert_served(self, session: bool = True) -> Any:
        before = self.stored()
        flags = "subscribe-user&subscribe-group" + ("&subscribe-session" if session else "")
        client = yield self.open(f"foobar?{flags}", cookies=self.cookies)
        names = ["user:john", "group:chatters"] + ([f"session:{self.key}"] if session else [])
        for name in names:
            self.assertEqual(self.redis.command("PUBLISH", f"{name}:foobar", name), 1)
        self.assertEqual((yield client.take(len(names))), names)
        self.assertEqual(self.stored(), before)

    @inlineCallbacks
    def serve_engine(self, engine: str, **values: Any) -> Any:
        self.override(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}", **values)
        yield self.serve()

    @inlineCallbacks
    def test_db(self) -> Any:
        yield self.serve_engine("db")
        yield self.assert_served()

    @inlineCallbacks
    def test_cache(self) -> Any:
        yield self.serve_engine("cache")
        yield self.assert_served()

    @inlineCallbacks
    def test_cached_db(self) -> Any:
        yield self.serve_engine("cached_db")
        yield self.assert_served()

    @inlineCallbacks
    def test_cached_db_is_not_filled_by_looking(self) -> Any:
        """An entry added to the cache after a logout would bring the session back."""
        yield self.serve_engine("cached_db")
        caches["default"].clear()
        client = yield self.open("foobar?subscribe-user", cookies=self.cookies)
        self.assertTrue(client.opened.called)
        store = import_module(settings.SESSION_ENGINE).SessionStore(self.key)
        self.assertIsNone(caches["default"].get(store.cache_key))

    @inlineCallbacks
    def test_file(self) -> Any:
        yield self.serve_engine("file")
        yield self.assert_served()

    @inlineCallbacks
    def test_signed_cookies_know_the_user_but_name_no_session_channel(self) -> Any:
        yield self.serve_engine("signed_cookies")
        yield self.assert_served(session=False)
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.key}"
        answer = yield exchange(
            self.port, handshake_bytes("/ws/foobar?subscribe-session", Cookie=cookie)
        )
        self.assertEqual(status_of(answer), 403)

    @inlineCallbacks
    def test_a_cookie_name_of_the_sites_own(self) -> Any:
        yield self.serve_engine("db", SESSION_COOKIE_NAME="own_name")
        self.assertEqual(list(self.cookies), ["own_name"])
        yield self.assert_served()

    @inlineCallbacks
    def test_a_session_signed_with_a_fallback_key(self) -> Any:
        yield self.serve_engine("db")
        self.override(SECRET_KEY="another" * 10, SECRET_KEY_FALLBACKS=[settings.SECRET_KEY])
        yield self.assert_served()

    @inlineCallbacks
    def test_a_user_model_of_the_sites_own(self) -> Any:
        """Its users are identified by an address and have no groups. It runs in separate processes,
        because the setting cannot be overridden.
        """
        variables = {
            **environment(),
            "DJANGO_SETTINGS_MODULE": "tests.projects.django_project.accounts",
        }
        made = python(
            "-c",
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', run_syncdb=True, verbosity=0)\n"
            "from django.contrib.auth import get_user_model\n"
            "from django.test import Client\n"
            "user, _ = get_user_model().objects.get_or_create(email='me@example.com')\n"
            "client = Client(); client.force_login(user)\n"
            "print(client.cookies['sessionid'].value)\n",
            **variables,
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        program = twistd(
            f"--redis={self.redis.address}", "--listen=tcp:0:interface=127.0.0.1", **variables
        )
        self.addCleanup(program.end)
        url = (yield program.wait_for(r"Ready: websockets at (ws://\S+/),"))[1]
        client = yield open_websocket(
            f"{url}foobar?subscribe-user&subscribe-group",
            cookies={"sessionid": made.stdout.strip()},
        )
        self.redis.command("PUBLISH", "user:me@example.com:foobar", "hello")
        self.assertEqual((yield client.next()), "hello")
        client.sendClose(1000)
        yield client.closed
