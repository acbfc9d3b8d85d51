"""The server's configuration: what cannot work is refused when it is made, by name."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import ConfigError, WS4RedisError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address


class ServerConfigTests(SynchronousTestCase):
    def assert_refused(self, setting: str, **options: Any) -> ConfigError:
        error: ConfigError = self.assertRaises(ConfigError, ServerConfig, **options)
        self.assertEqual(error.setting, setting)
        return error

    def test_the_defaults_are_those_of_the_contract(self) -> None:
        config = ServerConfig()
        self.assertEqual(config.websocket_url, "/ws/")
        self.assertEqual(config.redis, RedisAddress("localhost", 6379, 0))
        self.assertEqual((config.prefix, config.expire, config.heartbeat), ("", 3600, None))
        self.assertEqual(config.subscriber, "ws4redis_tx.subscriber.RedisSubscriber")
        self.assertEqual((config.allowed_origins, config.allowed_hosts), ((), None))
        self.assertEqual((config.require_origin, config.django), (False, False))

    def test_unless_told_it_listens_on_loopback_alone(self) -> None:
        for description in ServerConfig().listen:
            self.assertIn("interface=127.0.0.1", description)

    def test_it_is_frozen_and_takes_keywords_alone(self) -> None:
        with self.assertRaises(FrozenInstanceError):
            ServerConfig().expire = 1  # type: ignore[misc]
        self.assertRaises(TypeError, ServerConfig, RedisAddress())

    def test_every_field_is_described_with_the_default_that_it_has(self) -> None:
        described = dict(re.findall(r":param (\w+):(.*?)(?=:param|\Z)", ServerConfig.__doc__, re.S))
        default = ServerConfig()
        self.assertEqual(list(described), [each.name for each in fields(ServerConfig)])
        for name, text in described.items():
            (said,) = re.findall(r"Default:\s+``(.+?)``", text, re.S)
            names = {"parse_redis_address": parse_redis_address}
            self.assertEqual(eval(said, names), getattr(default, name))

    def test_equal_configurations_are_equal(self) -> None:
        self.assertEqual(ServerConfig(expire=5), ServerConfig(expire=5))
        self.assertNotEqual(ServerConfig(expire=5), ServerConfig())

    def test_its_repr_holds_no_password(self) -> None:
        config = ServerConfig(redis=RedisAddress(password="hunter2", username="u"))
        self.assertNotIn("hunter2", repr(config))
        self.assertNotIn("hunter2", str(config))

    def test_a_redis_url_is_refused_with_what_to_write_and_without_its_password(self) -> None:
        error = self.assert_refused("redis", redis="redis://u:hunter2@localhost")
        self.assertIn("parse_redis_address(", str(error))
        self.assertNotIn("hunter2", str(error))

    def test_one_description_in_place_of_a_tuple_is_refused(self) -> None:
        self.assert_refused("listen", listen="tcp:8080")

    def test_a_heartbeat_is_a_text(self) -> None:
        for heartbeat in (b"--beat--", 5, True):
            self.assert_refused("heartbeat", heartbeat=heartbeat)

    def test_no_prefix_is_an_empty_one(self) -> None:
        self.assertEqual(ServerConfig(prefix=None), ServerConfig())  # type: ignore[arg-type]

    def test_a_prefix_that_could_be_mistaken_is_refused(self) -> None:
        for prefix in ("a:b", "broadcast", "group", "user", "session"):
            with self.subTest(prefix=prefix):
                self.assert_refused("prefix", prefix=prefix)

    def test_an_expiry_that_cannot_work_is_refused(self) -> None:
        for expire in (2**31, 1.5, "3600", True):
            with self.subTest(expire=expire):
                self.assert_refused("expire", expire=expire)

    def test_no_expiry_means_that_nothing_is_persisted(self) -> None:
        for expire in (0, None, -1, False, ""):
            with self.subTest(expire=expire):
                config = ServerConfig(expire=expire)
                self.assertEqual(config.expire, 0)

    def test_a_websocket_url_that_is_no_path_is_refused(self) -> None:
        for url in ("", "ws", "/ws", "ws/", "/ws/?x/", "http://h/ws/", None):
            with self.subTest(url=url):
                self.assert_refused("websocket_url", websocket_url=url)

    def test_a_script_name_that_is_no_beginning_of_a_path_is_refused(self) -> None:
        for name in ("app", "/app/", "/", "/a b", "/app?", None):
            with self.subTest(name=name):
                self.assert_refused("script_name", script_name=name)
        for name in ("", "/app", "/app/shop", "/%C3%A9"):
            self.assertEqual(ServerConfig(script_name=name).script_name, name)

    def test_an_origin_that_is_none_is_refused_and_named(self) -> None:
        error = self.assert_refused("allowed_origins", allowed_origins=("a.example",))
        self.assertIn("a.example", str(error))
        ServerConfig(allowed_origins=("https://a.example", "https://*.b.example", "*"))

    def test_a_limit_that_cannot_work_is_refused(self) -> None:
        for field in (
            "max_message_size", "max_pending", "max_authorizations", "max_connections",
            "max_connections_per_user", "max_connections_per_address", "max_pending_total",
        ):  # fmt: skip
            for value in (0, -1, "1 MiB", True, 1.5):
                with self.subTest(field=field, value=value):
                    self.assert_refused(field, **{field: value})
        for field in ("max_message_size", "max_pending", "max_pending_total", "max_authorizations"):
            self.assert_refused(field, **{field: None})
        self.assert_refused("rate", rate=(1000, 0))
        self.assert_refused("recheck", recheck=1.5)
        self.assert_refused("slow_reader", slow_reader="wait")

    def test_a_boolean_is_one(self) -> None:
        for field in ("compression", "require_origin", "django"):
            for value in ("yes", "", 1, 0, None):
                with self.subTest(field=field, value=value):
                    error = self.assert_refused(field, **{field: value})
                    self.assertEqual(error.remedy, "Use True or False.")

    def test_a_list_becomes_the_tuple_that_the_field_promises(self) -> None:
        config = ServerConfig(
            listen=["tcp:1"],  # type: ignore[arg-type]
            allowed_origins=["https://a.example"],  # type: ignore[arg-type]
            allowed_hosts=["a.example"],  # type: ignore[arg-type]
            trusted_proxies=["unix"],  # type: ignore[arg-type]
            rate=[5, 6],  # type: ignore[arg-type]
        )
        self.assertEqual(config.listen, ("tcp:1",))
        self.assertEqual(config.allowed_origins, ("https://a.example",))
        self.assertEqual(config.allowed_hosts, ("a.example",))
        self.assertEqual((config.trusted_proxies, config.rate), (("unix",), (5, 6)))

    def test_a_subscriber_is_a_callable_or_a_name_that_is_not_imported_yet(self) -> None:
        self.assertEqual(ServerConfig(subscriber="no.such.Name").subscriber, "no.such.Name")
        self.assertIs(ServerConfig(subscriber=dict).subscriber, dict)
        self.assert_refused("subscriber", subscriber=7)


class ConfigErrorTests(SynchronousTestCase):
    def test_it_is_one_text_of_setting_problem_and_remedy(self) -> None:
        error = ConfigError("SETTING", "is 'x'", "Write y.")
        self.assertEqual(str(error), "SETTING is 'x'. Write y.")
        self.assertIsInstance(error, WS4RedisError)
