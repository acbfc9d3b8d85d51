"""Settings as upstream's users wrote them: what was off is off, and nothing is dropped silently."""

from __future__ import annotations

import ssl
import warnings
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address

set_up_django()

from django.core.checks import run_checks
from django.template import engines
from django.test import RequestFactory, override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.publisher import RedisPublisher

OFF: tuple[Any, ...] = (None, "", False)

# Each setting that may be off, with its field, and what is there then.
SETTINGS = (
    ("WS4REDIS_PREFIX", "prefix", ""),
    ("WS4REDIS_EXPIRE", "expire", 0),
    ("WS4REDIS_HISTORY", "history", ()),
    ("WS4REDIS_CENTRIFUGE_URL", "centrifuge_url", None),
    ("WS4REDIS_CENTRIFUGE_NAMES", "centrifuge_names", None),
    ("WS4REDIS_RPC", "rpc", None),
    ("WS4REDIS_PRESENCE", "presence", ()),
    ("WS4REDIS_HEARTBEAT", "heartbeat", None),
    ("WS4REDIS_ALLOWED_CHANNELS", "", None),
    ("WS4REDIS_PROCESS_REQUEST", "", None),
    ("WS4REDIS_TENANT", "", None),
    ("WS4REDIS_CLIENT_QUOTA", "client_quota", None),
    ("WS4REDIS_ALLOWED_ORIGINS", "allowed_origins", ()),
    ("WS4REDIS_TRUSTED_PROXIES", "trusted_proxies", ()),
    ("WS4REDIS_MAX_CONNECTIONS", "max_connections", None),
    ("WS4REDIS_MAX_CONNECTIONS_PER_USER", "max_connections_per_user", None),
    ("WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS", "max_connections_per_address", None),
    ("WS4REDIS_RATE", "rate", None),
    ("WS4REDIS_RECHECK", "recheck", 0),
)

# Options of redis-py that have no effect here, with a word of what replaces them.
REPLACED = (
    ("socket_timeout", 3, "WS4REDIS_TIMEOUT"),
    ("socket_connect_timeout", 3, "WS4REDIS_TIMEOUT"),
    ("socket_keepalive", True, "PING"),
    ("socket_keepalive_options", {1: 2}, "PING"),
    ("health_check_interval", 30, "PING"),
    ("decode_responses", True, "bytes"),
    ("charset", "latin-1", "UTF-8"),
    ("encoding", "latin-1", "UTF-8"),
    ("errors", "ignore", "UTF-8"),
    ("encoding_errors", "ignore", "UTF-8"),
    ("max_connections", 10, "two connections"),
    ("retry_on_timeout", True, "maybe_published"),
    ("retry_on_error", [TimeoutError], "maybe_published"),
    ("retry", object(), "maybe_published"),
    ("client_name", "site", "Remove it"),
    ("protocol", 3, "Remove it"),
    ("ssl_cert_reqs", None, "ssl_ca_certs"),
    ("ssl_cert_reqs", "none", "ssl_ca_certs"),
    ("ssl_cert_reqs", "optional", "ssl_ca_certs"),
    ("ssl_cert_reqs", ssl.CERT_NONE, "ssl_ca_certs"),
    ("ssl_check_hostname", False, "ssl_ca_certs"),
)

# The same options with values that say what is done here anyway.
AGREED = (
    ("socket_timeout", None),
    ("decode_responses", False),
    ("charset", "utf-8"),
    ("encoding", "UTF8"),
    ("encoding_errors", "strict"),
    ("max_connections", None),
    ("retry_on_timeout", False),
    ("health_check_interval", 0),
    ("protocol", 2),
    ("ssl_cert_reqs", "required"),
    ("ssl_cert_reqs", ssl.CERT_REQUIRED),
    ("ssl_check_hostname", True),
)


DERIVED = {"WS4REDIS_TOKEN_SECRET"}
"""Off, they follow from another setting."""


class OffTests(SynchronousTestCase):
    def test_what_meant_off_means_off_for_every_setting(self) -> None:
        for name, field, nothing in SETTINGS:
            for off in OFF:
                with self.subTest(name=name, off=off), override_settings(**{name: off}):
                    self.assertEqual(django_settings.problems(), [])
                    self.assertEqual(django_settings.get_checked(name), nothing)
                    if field:
                        config = django_settings.server_config()
                        self.assertEqual(getattr(config, field), nothing)
                        self.assertEqual(getattr(ServerConfig(**{field: off}), field), nothing)

    def test_no_other_setting_has_an_off(self) -> None:
        """A new setting has to be in the list here, or to refuse these values."""
        for row in django_settings.SETTINGS:
            if row.name not in {name for name, _, _ in SETTINGS} | DERIVED:
                self.assertRaises(ConfigError, row.from_django, "")

    def test_an_empty_option_is_a_mistake(self) -> None:
        """It comes from a variable of the shell that is not set."""
        for row in django_settings.SETTINGS:
            if row.option:
                error = self.assertRaises(ConfigError, row.from_option, "")
                self.assertEqual(error.setting, f"--{row.option}")

    def test_an_expiry_below_zero_is_off(self) -> None:
        for off in (0, -1, -3600):
            with override_settings(WS4REDIS_EXPIRE=off):
                self.assertEqual(django_settings.get_checked("WS4REDIS_EXPIRE"), 0)

    def test_a_page_gets_null_for_a_heartbeat_that_is_off(self) -> None:
        template = engines["django"].from_string("{{ WS4REDIS_HEARTBEAT }}")
        request = RequestFactory(HTTP_HOST="localhost").get("/")
        for off in OFF:
            with override_settings(WS4REDIS_HEARTBEAT=off):
                self.assertEqual(template.render({}, request), "null")

    def test_an_empty_password_or_user_is_none(self) -> None:
        for off in OFF:
            for name in ("password", "username", "unix_socket_path", "ssl_ca_certs"):
                address = parse_redis_address({"host": "h", name: off})
                self.assertEqual(address, RedisAddress("h"), name)
        for url in ("redis://:@h", "redis://h", "sentinel://:@h/m", "unix://:@/r.sock"):
            self.assertIsNone(parse_redis_address(url).password)
        self.assertEqual(RedisAddress(password="", username="", path=""), RedisAddress())


class EmptyPasswordTests(ContractTestCase):
    @inlineCallbacks
    def test_no_auth_is_sent(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        self.override(WS4REDIS_CONNECTION={"host": "127.0.0.1", "port": redis.port, "password": ""})
        yield self.start_server(django_settings.server_config(("tcp:0:interface=127.0.0.1",)))
        self.assertNotIn("cmdstat_auth", str(redis.command("INFO", "commandstats")))


class RedisPyTests(SynchronousTestCase):
    def warnings(self, connection: object) -> list[Any]:
        with override_settings(WS4REDIS_CONNECTION=connection):
            return [each for each in run_checks() if "WS4REDIS_CONNECTION" in each.msg]

    def test_an_option_without_effect_is_taken_and_a_check_says_what_replaces_it(self) -> None:
        for option, value, word in REPLACED:
            connection = {"host": "h", option: value}
            with self.subTest(option=option, value=value):
                (found,) = self.warnings(connection)
                self.assertEqual((found.id, found.level), ("ws4redis_tx.W003", 30))
                self.assertIn(option, found.msg)
                self.assertIn(word, found.hint)
                with override_settings(WS4REDIS_CONNECTION=connection):
                    self.assertEqual(django_settings.get_redis_address(), RedisAddress("h"))

    def test_in_code_python_warns_once(self) -> None:
        globals()["__warningregistry__"] = {}  # without trial, every module has one
        for option, value, word in REPLACED:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("default")
                for _ in range(3):
                    parse_redis_address({"host": "h", option: value})
            (warning,) = caught
            self.assertIn(option, str(warning.message))
            self.assertIn(word, str(warning.message))
            self.assertEqual(warning.filename, __file__)

    def test_a_publish_warns_of_nothing(self) -> None:
        """It would do so each time, and some sites make errors of warnings."""
        with (
            override_settings(WS4REDIS_CONNECTION={"socket_timeout": 5}),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("error")
            django_settings.get_redis_address()
            RedisPublisher(facility="f", broadcast=True)

    def test_what_is_done_here_anyway_is_not_warned_of(self) -> None:
        for option, value in AGREED:
            with self.subTest(option=option, value=value), warnings.catch_warnings():
                warnings.simplefilter("error")
                self.assertEqual(
                    parse_redis_address({"host": "h", option: value}), RedisAddress("h")
                )
                self.assertEqual(self.warnings({"host": "h", option: value}), [])

    def test_no_check_of_a_certificate_can_be_disabled(self) -> None:
        for option, value in (("ssl_cert_reqs", None), ("ssl_check_hostname", False)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                address = parse_redis_address({"host": "h", "ssl": True, option: value})
            self.assertEqual(address, RedisAddress("h", tls=True))

    def test_a_typo_and_what_would_change_who_is_asked_are_refused(self) -> None:
        for option in (
            "passwords",
            "hostname",
            "credential_provider",
            "connection_class",
            "ssl_ca_path",
        ):
            (found,) = self.warnings({option: "s3cret"})
            self.assertEqual((found.id, found.level), ("ws4redis_tx.E002", 40))
            self.assertIn(option, found.msg)
            self.assertNotIn("s3cret", found.msg + found.hint)

    def test_no_warning_shows_a_value(self) -> None:
        for option, _, _ in REPLACED:
            for each in self.warnings({"password": "s3cret", option: "s3cret2"}):
                self.assertNotIn("s3cret", each.msg + each.hint)


class WsgiApplicationTests(SynchronousTestCase):
    def test_upstreams_application_is_told_by_a_check(self) -> None:
        for value in ("ws4redis.django_runserver.application", "ws4redis.uwsgi_runserver.app"):
            with override_settings(WSGI_APPLICATION=value):
                (found,) = [each for each in run_checks() if "WSGI_APPLICATION" in each.msg]
            self.assertEqual((found.id, found.level), ("ws4redis_tx.W004", 30))
            self.assertIn(value, found.msg)
            self.assertIn("twistd ws4redis", found.hint)

    def test_any_other_is_not(self) -> None:
        for value in (None, "mysite.wsgi.application", "ws4redis_tx.something"):
            with override_settings(WSGI_APPLICATION=value):
                found = [each for each in run_checks() if "WSGI_APPLICATION" in each.msg]
            self.assertEqual(found, [])

    def test_a_setting_that_names_the_old_package_is_told_the_new_name(self) -> None:
        for name, value in (
            ("WS4REDIS_SUBSCRIBER", "ws4redis.subscriber.RedisSubscriber"),
            ("WS4REDIS_ALLOWED_CHANNELS", "ws4redis.policies.allow_all"),
        ):
            with override_settings(**{name: value}):
                (error,) = django_settings.problems()
            self.assertIn(f"'{value.replace('ws4redis', 'ws4redis_tx')}'", error.remedy)
