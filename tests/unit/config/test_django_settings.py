"""Settings: read when used, checked all at once."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import SETTINGS, set_up_django
from tests.support.programs import python

set_up_django()

from django.conf import settings
from django.core.checks import run_checks
from django.template import engines
from django.test import RequestFactory, override_settings

from ws4redis_tx import settings as old_settings
from ws4redis_tx.config import django_settings
from ws4redis_tx.config.fields_alone import DEFAULT_LISTEN
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.table import BY_NAME
from ws4redis_tx.context_processors import default
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.policies import allow_all
from ws4redis_tx.subscriber import RedisSubscriber


def complaints() -> dict[str, str]:
    return {each.id: str(each) for each in run_checks() if each.id.startswith("ws4redis_tx")}


class SettingsTests(SynchronousTestCase):
    def test_defaults_are_the_contracts(self) -> None:
        config = django_settings.server_config()
        self.assertEqual(config.websocket_url, "/ws/")
        self.assertEqual(config.redis, RedisAddress(host="localhost", port=6379, db=0))
        self.assertEqual((config.prefix, config.expire, config.heartbeat), ("", 3600, None))
        self.assertEqual(config.listen, DEFAULT_LISTEN)
        self.assertEqual(config.subscriber.__qualname__, "RedisSubscriber")  # type: ignore[union-attr]
        self.assertEqual(complaints(), {})

    def test_they_are_read_when_they_are_asked_for(self) -> None:
        with override_settings(WS4REDIS_EXPIRE=5, WEBSOCKET_URL="/live/"):
            self.assertEqual((django_settings.get_expire(), old_settings.WS4REDIS_EXPIRE), (5, 5))
            self.assertEqual(django_settings.server_config().websocket_url, "/live/")
        self.assertEqual(old_settings.WS4REDIS_EXPIRE, 3600)
        self.assertEqual(old_settings.WEBSOCKET_URL, "/ws/")
        with self.assertRaises(AttributeError):
            old_settings.WS4REDIS_NONSENSE  # noqa: B018

    def test_an_embedder_takes_them_all_and_changes_some(self) -> None:
        with override_settings(WS4REDIS_EXPIRE=5, WS4REDIS_PREFIX="site"):
            config = ServerConfig.from_django(listen=("tcp:9999",), expire=7)
        self.assertEqual((config.django, config.prefix), (True, "site"))
        self.assertEqual((config.listen, config.expire), (("tcp:9999",), 7))
        self.assertRaises(TypeError, ServerConfig.from_django, nonsense=1)
        self.assertRaises(ConfigError, ServerConfig.from_django, expire="7")

    def test_before_django_is_set_up_there_are_none_to_take(self) -> None:
        program = (
            "from ws4redis_tx.service import ConfigError, ServerConfig\n"
            "try: ServerConfig.from_django()\n"
            "except ConfigError as error: print(error)"
        )
        result = python("-c", program, DJANGO_SETTINGS_MODULE=SETTINGS)
        self.assertIn("call django.setup() first", result.stdout, result.stderr)

    def test_djangos_hosts_and_trusted_origins_count(self) -> None:
        with override_settings(
            ALLOWED_HOSTS=["a.example"],
            CSRF_TRUSTED_ORIGINS=["https://b.example"],
            WS4REDIS_ALLOWED_ORIGINS=["https://*.c.example"],
        ):
            config = django_settings.server_config()
        self.assertEqual(config.allowed_hosts, ("a.example",))
        self.assertEqual(config.allowed_origins, ("https://*.c.example", "https://b.example"))
        with override_settings(DEBUG=True, ALLOWED_HOSTS=[]):
            self.assertIn("127.0.0.1", django_settings.server_config().allowed_hosts or ())

    def test_every_mistake_is_reported_at_once_with_its_id_and_a_hint(self) -> None:
        wrong: dict[str, Any] = {
            "WS4REDIS_MAX_MESSAGE_SIZE": 0,
            "WS4REDIS_MAX_PENDING": None,
            "WS4REDIS_MAX_PENDING_TOTAL": 0,
            "WS4REDIS_MAX_CONNECTIONS": 0,
            "WS4REDIS_SLOW_READER": "wait",
            "WS4REDIS_REQUIRE_ORIGIN": 1,
            "WS4REDIS_ON_COMMIT": "yes",
            "WS4REDIS_TRUSTED_PROXIES": "127.0.0.1",
            "WS4REDIS_MAX_CONNECTIONS_PER_USER": "7",
            "WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS": True,
            "WS4REDIS_MAX_AUTHORIZATIONS": -1,
            "WS4REDIS_RATE": 1000,
            "WS4REDIS_CLIENT_QUOTA": -1,
            "WS4REDIS_COMPRESSION": "yes",
            "WEBSOCKET_URL": "ws",
            "WS4REDIS_CONNECTION": "http://localhost",
            "WS4REDIS_PREFIX": "group",
            "WS4REDIS_EXPIRE": "soon",
            "WS4REDIS_SUBSCRIBER": "no.such.Subscriber",
            "WS4REDIS_HEARTBEAT": 7,
            "WS4REDIS_ALLOWED_CHANNELS": "no.such.callback",
            "WS4REDIS_PROCESS_REQUEST": 7,
            "WS4REDIS_ALLOWED_ORIGINS": "example.com",
            "WS4REDIS_TIMEOUT": 0,
            "WS4REDIS_RECHECK": "soon",
            "WS4REDIS_REVOKE": "no",
            "WS4REDIS_TENANT": "no.such.callback",
            "WS4REDIS_HISTORY": {"orders": 100},
            "WS4REDIS_TOKEN_SECRET": "guessed",
            "WS4REDIS_CENTRIFUGE_URL": "connection",
            "WS4REDIS_PRESENCE": "chat",
            "WS4REDIS_PRESENCE_GRACE": 41,
            "WS4REDIS_CENTRIFUGE_NAMES": "no.such.callback",
            "WS4REDIS_RPC": "no.such.callback",
            "WS4REDIS_ENDLESS_TOKENS": "yes",
        }
        with override_settings(**wrong):
            found = complaints()
        self.assertEqual(sorted(found), sorted(f"ws4redis_tx.{BY_NAME[x].check}" for x in wrong))
        for row in BY_NAME.values():
            complaint = found[f"ws4redis_tx.{row.check}"]
            self.assertIn(f"{row.name} ", complaint)
            self.assertIn("HINT", complaint)

    def test_the_secret_of_tokens_is_derived_unless_it_is_written(self) -> None:
        keys = {"SECRET_KEY": "the newest key", "SECRET_KEY_FALLBACKS": ["an older key"]}
        with override_settings(**keys, WS4REDIS_TOKEN_SECRET=None):
            _newest, older = secrets = django_settings.get_token_secrets()
            self.assertEqual(django_settings.server_config().token_secret, secrets)
        for secret in secrets:
            self.assertEqual(len(secret), 64)
            self.assertNotIn("key", secret)
        with override_settings(SECRET_KEY="an older key", SECRET_KEY_FALLBACKS=[]):
            self.assertEqual(django_settings.get_token_secrets(), (older,))
        with override_settings(SECRET_KEY="", SECRET_KEY_FALLBACKS=[]):
            self.assertEqual(django_settings.get_token_secrets(), ())
        written = ["x" * 32, "y" * 32]
        for value, expected in ((written, ("x" * 32, "y" * 32)), (written[0], ("x" * 32,))):
            with override_settings(WS4REDIS_TOKEN_SECRET=value):
                self.assertEqual(django_settings.get_token_secrets(), expected)
                self.assertNotIn("xxx", repr(django_settings.server_config()))

    def test_no_error_shows_the_secret_of_tokens(self) -> None:
        for value in ("hunter2", ["hunter2"], b"hunter2" * 9, [b"hunter2" * 9], {"hunter2": 1}, 7):
            with override_settings(WS4REDIS_TOKEN_SECRET=value):
                (complaint,) = complaints().values()
            self.assertIn("WS4REDIS_TOKEN_SECRET ", complaint)
            self.assertNotIn("hunter2", complaint)

    def test_an_origin_that_cannot_work_is_told_under_the_setting_that_holds_it(self) -> None:
        with override_settings(CSRF_TRUSTED_ORIGINS=["https://b.example/"]):
            (complaint,) = complaints().values()
        self.assertIn("CSRF_TRUSTED_ORIGINS holds 'https://b.example/'", complaint)
        self.assertIn("ws4redis_tx.E009", complaint)

    def test_a_dotted_name_and_a_callable_mean_the_same(self) -> None:
        for value in (allow_all, "ws4redis_tx.policies.allow_all"):
            with override_settings(WS4REDIS_ALLOWED_CHANNELS=value):
                self.assertIs(django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS"), allow_all)


class WarningTests(SynchronousTestCase):
    """What has no effect is told by ``manage.py check`` and at the start."""

    def test_an_unknown_setting_is_a_warning_with_the_nearest_name(self) -> None:
        for name, nearest in (
            ("WS4REDIS_EXPIRES", "WS4REDIS_EXPIRE"),
            ("WS4REDIS_ALLOWED_CHANELS", "WS4REDIS_ALLOWED_CHANNELS"),
            ("WS4REDIS_WEBSOCKET_URL", "WEBSOCKET_URL"),
            ("WS4_REDIS_PREFIX", "WS4REDIS_PREFIX"),
            ("WS4REDISPREFIX", "WS4REDIS_PREFIX"),
        ):
            with override_settings(**{name: 5}):
                (complaint,) = complaints().values()
                (doubt,) = django_settings.doubts()
            self.assertIn("ws4redis_tx.W001", complaint)
            self.assertIn(f"{name} is not a setting of ws4redis_tx, and has no effect", complaint)
            self.assertIn(f"Did you mean {nearest}?", complaint)
            self.assertIn(str(doubt[1].remedy), complaint)

    def test_each_unknown_setting_is_told(self) -> None:
        with override_settings(WS4REDIS_EXPIRES=5, WS4REDIS_PREFX="a", WS4REDIS_EXPIRE=5):
            found = [error.setting for _, error in django_settings.doubts()]
        self.assertEqual(found, ["WS4REDIS_EXPIRES", "WS4REDIS_PREFX"])

    def test_an_application_that_is_not_installed_is_a_warning(self) -> None:
        installed = [each for each in settings.INSTALLED_APPS if each != "ws4redis_tx"]
        with override_settings(INSTALLED_APPS=installed):
            (complaint,) = complaints().values()
        self.assertIn("ws4redis_tx.W002", complaint)
        self.assertIn("INSTALLED_APPS lacks 'ws4redis_tx'", complaint)
        self.assertIn("logout", complaint)

    def test_the_check_runs_where_the_publisher_is_imported_and_the_app_is_not_installed(
        self,
    ) -> None:
        program = """
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes"])
import django
from ws4redis_tx.publisher import RedisPublisher
django.setup()
from django.core.management import call_command
call_command("check")
"""
        result = python("-c", program)
        self.assertIn("ws4redis_tx.W002", result.stderr)


class Extended(RedisSubscriber):
    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]


class TemplateTests(SynchronousTestCase):
    def render(self, template: str, **options: Any) -> str:
        request = RequestFactory(HTTP_HOST="localhost:8000").get("/", **options)
        return engines["django"].from_string(template).render({}, request)

    def test_the_context_processor_names_uri_and_heartbeat(self) -> None:
        request = RequestFactory(HTTP_HOST="localhost:8000").get("/")
        self.assertEqual(
            default(request),
            {"WEBSOCKET_URI": "ws://localhost:8000/ws/", "WS4REDIS_HEARTBEAT": "null"},
        )
        with override_settings(WS4REDIS_HEARTBEAT="</script>", WEBSOCKET_URL="/live/"):
            values = default(RequestFactory(HTTP_HOST="localhost").get("/", secure=True))
        self.assertEqual(values["WEBSOCKET_URI"], "wss://localhost/live/")
        self.assertNotIn("<", values["WS4REDIS_HEARTBEAT"])

    def test_the_tag_names_the_whole_url(self) -> None:
        url = self.render(
            "{% load ws4redis %}{% websocket_url 'foo bar/ü' 'subscribe-broadcast' 'echo' %}"
        )
        self.assertEqual(
            url.replace("&amp;", "&"),
            "ws://localhost:8000/ws/foo%20bar/%C3%BC?subscribe-broadcast&echo",
        )

    def tag(self, arguments: str, **context: Any) -> str:
        request = RequestFactory(HTTP_HOST="localhost").get("/")
        template = f"{{% load ws4redis %}}{{% websocket_url {arguments} %}}"
        return str(engines["django"].from_string(template).render(context, request))

    def test_the_tag_takes_no_empty_variable(self) -> None:
        for arguments, context in (
            ("undefined 'subscribe-user'", {}),
            ("room.name 'subscribe-user'", {"room": {}}),
            ("empty 'subscribe-user'", {"empty": ""}),
            ("nothing 'subscribe-user'", {"nothing": None}),
            ("undefined", {}),
        ):
            error = self.assertRaises(ValueError, self.tag, arguments, **context)
            self.assertIn("{% websocket_url %}: the facility is empty", str(error))
        error = self.assertRaises(ValueError, self.tag, "'news' undefined")
        self.assertIn("{% websocket_url %}: a flag is empty", str(error))

    def test_the_tag_takes_the_empty_facility_that_is_meant(self) -> None:
        for arguments in ("'' 'echo'", "undefined|default:'' 'echo'"):
            self.assertEqual(self.tag(arguments), "ws://localhost/ws/?echo")
        self.assertEqual(self.tag("room", room=5), "ws://localhost/ws/5")

    def test_the_tag_takes_no_url_that_the_server_would_refuse(self) -> None:
        for arguments, expected in (
            ("'news' 'subscribe-brodcast'", "Did you mean subscribe-broadcast?"),
            ("'a:b' 'subscribe-user'", "contains a ':'"),
            ("long 'subscribe-broadcast'", "longer than 255 bytes"),
        ):
            error = self.assertRaises(ValueError, self.tag, arguments, long="x" * 256)
            self.assertIn("{% websocket_url %}: ", str(error))
            self.assertIn(expected, str(error))
        self.assertIn("a%3Ab?Subscribe", self.tag("'a:b' 'Subscribe-Broadcast' 'v'"))

    def test_the_tag_knows_the_rights_of_the_subscriber(self) -> None:
        with override_settings(WS4REDIS_SUBSCRIBER=f"{__name__}.Extended"):
            self.assertIn("?subscribe-server", self.tag("'news' 'subscribe-server'"))
