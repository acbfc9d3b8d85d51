"""The server's configuration: what cannot work is refused when it is made, by name."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError, fields
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig, check_expire, check_websocket_url
from ws4redis_tx.core.errors import ConfigError, WS4RedisError
from ws4redis_tx.core.redis_address import RedisAddress


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
            self.assertEqual(eval(said, {"RedisAddress": RedisAddress}), getattr(default, name))

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
        for heartbeat in ("", b"--beat--", 5):
            self.assert_refused("WS4REDIS_HEARTBEAT", heartbeat=heartbeat)

    def test_no_prefix_is_an_empty_one(self) -> None:
        self.assertEqual(ServerConfig(prefix=None), ServerConfig())  # type: ignore[arg-type]

    def test_a_prefix_that_could_be_mistaken_is_refused(self) -> None:
        for prefix in ("a:b", "broadcast", "group", "user", "session"):
            with self.subTest(prefix=prefix):
                self.assert_refused("WS4REDIS_PREFIX", prefix=prefix)

    def test_an_expiry_that_cannot_work_is_refused(self) -> None:
        for expire in (-1, 2**31, 1.5, "3600", True):
            with self.subTest(expire=expire):
                self.assert_refused("WS4REDIS_EXPIRE", expire=expire)

    def test_no_expiry_means_that_nothing_is_persisted(self) -> None:
        for expire in (0, None):
            with self.subTest(expire=expire):
                config = ServerConfig(expire=expire)
                self.assertEqual(config.expire, 0)

    def test_a_websocket_url_that_is_no_path_is_refused(self) -> None:
        for url in ("", "ws", "/ws", "ws/", "/ws/?x/", "http://h/ws/", None):
            with self.subTest(url=url):
                self.assert_refused("WEBSOCKET_URL", websocket_url=url)

    def test_an_origin_that_is_none_is_refused_and_named(self) -> None:
        error = self.assert_refused("WS4REDIS_ALLOWED_ORIGINS", allowed_origins=("a.example",))
        self.assertIn("a.example", str(error))
        ServerConfig(allowed_origins=("https://a.example", "https://*.b.example", "*"))

    def test_a_limit_that_cannot_work_is_refused(self) -> None:
        for option in ("max_message_size", "max_pending"):
            for value in (-1, None, "1 MiB"):
                with self.subTest(option=option, value=value):
                    self.assertRaises(ConfigError, ServerConfig, **{option: value})

    def test_a_message_size_of_0_which_autobahn_reads_as_no_limit_is_refused(self) -> None:
        self.assertRaises(ConfigError, ServerConfig, max_message_size=0)


class WebsocketUrlTests(SynchronousTestCase):
    def test_a_path_that_starts_and_ends_with_a_slash_is_kept(self) -> None:
        for url in ("/", "/ws/", "/live/socket/", "/a-b.c_d~e/"):
            with self.subTest(url=url):
                self.assertEqual(check_websocket_url(url), url)

    def test_all_else_is_refused_with_the_value_and_the_remedy(self) -> None:
        for url in (
            "",
            "ws",
            "/ws",
            "ws/",
            "//",
            "/a//b/",
            "/w s/",
            "/ws/\n",
            "/ü/",
            7,
            None,
            b"/",
        ):
            with self.subTest(url=url):
                error = self.assertRaises(ConfigError, check_websocket_url, url)
                self.assertEqual(error.setting, "WEBSOCKET_URL")
                self.assertIn(repr(url), error.problem)
                self.assertIn("/ws/", error.remedy)

    def test_characters_that_a_browser_would_escape_are_refused(self) -> None:
        for character in '"<>\\^`{|}?#%: ':
            with self.subTest(character=character):
                self.assertRaises(ConfigError, check_websocket_url, f"/a{character}/")


class ExpireTests(SynchronousTestCase):
    def test_whole_seconds_are_kept_and_none_is_0(self) -> None:
        for expire, seconds in ((None, 0), (0, 0), (1, 1), (3600, 3600), (2**31 - 1, 2**31 - 1)):
            self.assertEqual(check_expire(expire), seconds)

    def test_all_else_is_refused_with_the_remedy(self) -> None:
        for expire in (-1, 2**31, 0.5, "60", True, False, b"1"):
            with self.subTest(expire=expire):
                error = self.assertRaises(ConfigError, check_expire, expire)
                self.assertIn(repr(expire), str(error))
                self.assertTrue(error.remedy)


class ConfigErrorTests(SynchronousTestCase):
    def test_it_is_one_text_of_setting_problem_and_remedy(self) -> None:
        error = ConfigError("SETTING", "is 'x'", "Write y.")
        self.assertEqual(str(error), "SETTING is 'x'. Write y.")
        self.assertIsInstance(error, WS4RedisError)
