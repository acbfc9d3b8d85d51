"""The address of Redis: every form of the setting, and no password in any output."""

from __future__ import annotations

import traceback
from dataclasses import FrozenInstanceError, replace
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address

SECRET = "hunter2"


class UrlTests(SynchronousTestCase):
    def assert_means(self, value: object, **fields: Any) -> None:
        self.assertEqual(parse_redis_address(value), replace(RedisAddress(), **fields))

    def test_nothing_means_the_default(self) -> None:
        self.assert_means(None, host="localhost", port=6379, db=0)
        self.assert_means("redis://localhost:6379/0")

    def test_an_address_is_an_address_already(self) -> None:
        address = RedisAddress(port=7)
        self.assertIs(parse_redis_address(address), address)

    def test_each_part_of_a_url_may_be_left_out(self) -> None:
        self.assert_means("redis://")
        self.assert_means("redis://cache", host="cache")
        self.assert_means("redis://cache/", host="cache")
        self.assert_means("redis://:7000", port=7000)
        self.assert_means("redis://cache:7000/3", host="cache", port=7000, db=3)
        self.assert_means("redis://cache?db=3", host="cache", db=3)

    def test_user_and_password_are_percent_decoded(self) -> None:
        self.assert_means("redis://u:p@h", host="h", username="u", password="p")
        self.assert_means("redis://:p@h", host="h", password="p")
        self.assert_means("redis://u@h", host="h", username="u")
        self.assert_means(
            "redis://a%40b:p%2Fw%3A%23%40@h", host="h", username="a@b", password="p/w:#@"
        )

    def test_rediss_is_tls(self) -> None:
        self.assert_means("rediss://h:6380/1", host="h", port=6380, db=1, tls=True)
        self.assert_means(
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem",
            host="h",
            tls=True,
            ca_file="/ca.pem",
            certificate_file="/c.pem",
            key_file="/k.pem",
        )

    def test_a_unix_url_is_a_path(self) -> None:
        self.assert_means("unix:///run/redis.sock", path="/run/redis.sock")
        self.assert_means("unix:///run/redis.sock?db=2", path="/run/redis.sock", db=2)
        self.assert_means("unix:///run/my%20redis.sock", path="/run/my redis.sock")
        self.assert_means("unix://u:p@/r.sock", path="/r.sock", username="u", password="p")

    def test_an_ipv6_host_stands_in_brackets(self) -> None:
        self.assert_means("redis://[::1]:7000/1", host="::1", port=7000, db=1)

    def test_a_sentinel_url_names_sentinels_service_and_database(self) -> None:
        address = parse_redis_address("sentinel://u:p%40ss@one,two:5/my%20master/3")
        self.assertEqual(address.sentinels, (("one", 26379), ("two", 5)))
        self.assertEqual((address.service, address.db), ("my master", 3))
        self.assertEqual((address.username, address.password), ("u", "p@ss"))
        self.assertEqual(str(address), "sentinel://u@one:26379,two:5/my%20master/3")
        for url in ("sentinel://", "sentinel://one", "sentinel://one:x/m", "sentinel://one/m/x"):
            self.assertRaises(ConfigError, parse_redis_address, url)

    def test_what_is_no_address_is_a_config_error_with_the_setting_and_a_remedy(self) -> None:
        for value in (
            "",
            "localhost",
            "localhost:6379",
            "http://localhost",
            "redis://h:x",
            "redis://h:99999",
            "redis://h/x",
            "redis://h/-1",
            "redis://[::1",
            "unix://",
            "unix:///r.sock?db=x",
            6379,
            b"redis://h",
            ["redis://h"],
        ):
            with self.subTest(value=value):
                error = self.assertRaises(ConfigError, parse_redis_address, value)
                self.assertEqual(error.setting, "The address of Redis")
                self.assertIn("The address of Redis", str(error))
                self.assertTrue(error.remedy)

    def test_a_url_without_slashes_is_refused_and_not_read_as_localhost(self) -> None:
        self.assertRaises(ConfigError, parse_redis_address, "redis:cache.example:6379")

    def test_an_embedded_server_is_an_address_of_this_machine(self) -> None:
        for url in ("embedded://localhost:6379", "embedded://localhost", "embedded://"):
            address = parse_redis_address(url)
            self.assertTrue(address.embedded)
            self.assertEqual(str(address), "embedded://localhost:6379")
            # The same place under another name is the same connection.
            self.assertEqual(address, parse_redis_address("redis://localhost:6379/0"))
        self.assertFalse(parse_redis_address("redis://localhost").embedded)
        self.assertEqual(parse_redis_address("embedded://127.0.0.1:7000/0").port, 7000)
        for url in (
            "embedded://cache.example:6379",
            "embedded://[::1]:6379",
            "embedded://localhost/1",
            "embedded://localhost?db=1",
            f"embedded://:{SECRET}@localhost",
        ):
            error = self.assertRaises(ConfigError, parse_redis_address, url)
            self.assertIn("Write embedded://localhost:6379.", str(error))
            self.assertNotIn(SECRET, str(error))

    @settings(deadline=None, max_examples=100)
    @given(
        st.builds(
            RedisAddress,
            host=st.sampled_from(["localhost", "::1", "10.0.0.1", "cache.example"]),
            port=st.integers(0, 65535),
            db=st.integers(0, 15),
            username=st.none() | st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
            path=st.none() | st.text("ab /?#%é", min_size=1, max_size=8).map(lambda p: f"/{p}"),
        )
    )
    def test_an_address_without_password_and_files_is_read_back_from_its_text(
        self, address: RedisAddress
    ) -> None:
        if address.path is not None:
            address = RedisAddress(path=address.path, db=address.db)
        self.assertEqual(parse_redis_address(str(address)), address)


class DictionaryTests(SynchronousTestCase):
    def test_the_old_dictionary_is_understood(self) -> None:
        self.assertEqual(parse_redis_address({}), RedisAddress())
        self.assertEqual(
            parse_redis_address(
                {"host": "h", "port": 7, "db": 2, "password": "p", "username": "u"}
            ),
            RedisAddress("h", 7, 2, "u", "p"),
        )
        self.assertEqual(
            parse_redis_address({"unix_socket_path": "/r.sock", "db": 1}),
            RedisAddress(path="/r.sock", db=1),
        )

    def test_ssl_options_are_understood(self) -> None:
        self.assertEqual(
            parse_redis_address(
                {
                    "ssl": True,
                    "ssl_ca_certs": "/ca.pem",
                    "ssl_certfile": "/c.pem",
                    "ssl_keyfile": "/k.pem",
                }
            ),
            RedisAddress(tls=True, ca_file="/ca.pem", certificate_file="/c.pem", key_file="/k.pem"),
        )
        self.assertEqual(parse_redis_address({"ssl": False}), RedisAddress())

    def test_none_means_the_default(self) -> None:
        keys = ("host", "port", "db", "password", "username", "unix_socket_path", "ssl")
        self.assertEqual(parse_redis_address(dict.fromkeys(keys)), RedisAddress())

    def test_numbers_may_be_text_as_they_come_from_an_environment(self) -> None:
        self.assertEqual(parse_redis_address({"port": "7", "db": "2"}), RedisAddress(port=7, db=2))

    def test_an_unknown_key_is_named_with_those_that_are_known(self) -> None:
        error = self.assertRaises(ConfigError, parse_redis_address, {"hostname": SECRET})
        self.assertIn("hostname", error.problem)
        self.assertIn("unix_socket_path", error.remedy)

    def test_a_value_that_cannot_work_is_a_config_error(self) -> None:
        for mapping in (
            {"port": "x"},
            {"port": -1},
            {"db": "x"},
            {"db": -1},
            {"db": [0]},
            {"host": 7},
            {"host": b"h"},
            {"password": 7},
            {"ssl": "yes"},
            {"unix_socket_path": 7},
        ):
            with self.subTest(mapping=mapping):
                error = self.assertRaises(ConfigError, parse_redis_address, mapping)
                self.assertEqual(error.setting, "The address of Redis")

    def test_a_port_beyond_65535_is_refused_as_in_a_url(self) -> None:
        self.assertRaises(ConfigError, parse_redis_address, {"port": 70000})

    def test_a_number_with_a_fraction_is_refused_and_not_cut_off(self) -> None:
        self.assertRaises(ConfigError, parse_redis_address, {"port": 6379.5})
        self.assertRaises(ConfigError, parse_redis_address, {"db": 0.9})

    def test_every_ssl_option_of_the_old_dictionary_is_understood(self) -> None:
        for name, value in (("ssl_cert_reqs", "required"), ("ssl_check_hostname", True)):
            with self.subTest(name=name):
                parse_redis_address({"ssl": True, name: value})


class SecrecyTests(SynchronousTestCase):
    def test_no_password_stands_in_the_text_or_the_repr_of_an_address(self) -> None:
        for value in (
            f"redis://u:{SECRET}@h:7/1",
            f"redis://:{SECRET}@h",
            f"rediss://u:{SECRET}@h",
            f"unix://u:{SECRET}@/r.sock",
            {"password": SECRET},
            {"password": SECRET, "unix_socket_path": "/r.sock", "username": "u"},
        ):
            with self.subTest(value=value):
                address = parse_redis_address(value)
                self.assertEqual(address.password, SECRET)
                for text in (str(address), repr(address), f"{address}", repr([address])):
                    self.assertNotIn(SECRET, text)

    def test_no_password_stands_in_a_config_error_nor_in_its_traceback(self) -> None:
        for value in (
            f"http://u:{SECRET}@h",
            f"redis://u:{SECRET}@h/x",
            f"redis://u:{SECRET}@h/-1",
            f"redis://u:{SECRET}@h:x/0",
            f"redis://u:{SECRET}@[::1",
            f"redis://u:{SECRET}/with/slash@h",
            f"redis://u:{SECRET}#with-hash@h",
            f"redis://u:{SECRET}?with-mark@h",
            f"u:{SECRET}@h",
            f":{SECRET}@h",
            f"//u:{SECRET}@h",
            SECRET,
            {"password": SECRET, "db": "x"},
            {"password": SECRET, "hostname": "h"},
            {"password": [SECRET]},
            {"password": SECRET.encode()},
            {"host": [SECRET]},
            [SECRET],
            SECRET.encode(),
        ):
            with self.subTest(value=value):
                error = self.assertRaises(ConfigError, parse_redis_address, value)
                self.assertNotIn(SECRET, str(error))
                self.assertNotIn(SECRET, repr(error))
                self.assertNotIn(SECRET, "".join(traceback.format_exception(error)))

    @settings(deadline=None, max_examples=100)
    @given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
    def test_any_password_survives_a_url_and_shows_nowhere(self, password: str) -> None:
        marked = f"{SECRET}{password}"
        address = parse_redis_address(f"redis://u:{quote(marked, safe='')}@h/1")
        self.assertEqual(address, RedisAddress("h", db=1, username="u", password=marked))
        self.assertNotIn(SECRET, str(address) + repr(address))

    def test_an_address_is_frozen(self) -> None:
        with self.assertRaises(FrozenInstanceError):
            RedisAddress().host = "h"  # type: ignore[misc]


class ContradictionTests(SynchronousTestCase):
    def test_tls_files_without_tls_and_tls_without_tcp_are_refused(self) -> None:
        for value, remedy in (
            ("redis://h:1/0?ssl_ca_certs=/x", "rediss://"),
            ("sentinel://h/m/0?ssl_certfile=/x", "ssl=true"),
            ({"host": "h", "ssl_ca_certs": "/x"}, "'ssl': True"),
            ({"unix_socket_path": "/x", "ssl": True}, "Leave ssl out"),
        ):
            error = self.assertRaises(ConfigError, parse_redis_address, value)
            self.assertIn(remedy, str(error))

    def test_sentinels_by_ipv6_address_stand_in_brackets_and_none_is_empty(self) -> None:
        address = parse_redis_address("sentinel://[::1]:26380,h/m/0")
        self.assertEqual(address.sentinels, (("::1", 26380), ("h", 26379)))
        for hosts in ("h1,,h2", "::1", "h:x", ""):
            self.assertRaises(ConfigError, parse_redis_address, f"sentinel://{hosts}/m/0")
