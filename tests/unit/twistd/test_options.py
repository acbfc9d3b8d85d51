"""The options of ``twistd ws4redis``: each setting has one, and it goes before the setting."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import SETTINGS
from tests.support.programs import python, write_file
from ws4redis_tx import tap
from ws4redis_tx.config.kinds import Flag
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.table import BY_FIELD
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.tap import makeService
from ws4redis_tx.twistd.options import Options

SECRETS = Path(__file__).with_name("token-secrets.txt")

# An option as it is written, and the value of the field.
WRITTEN: dict[str, tuple[list[str], Any]] = {
    "listen": (["--listen=tcp:1", "--listen=tcp:2"], ("tcp:1", "tcp:2")),
    "websocket_url": (["--websocket-url=/live/"], "/live/"),
    "centrifuge_url": (["--centrifuge-url=/connection/"], "/connection/"),
    "redis": (["--redis=redis://r.example/3"], RedisAddress("r.example", db=3)),
    "prefix": (["--prefix=site"], "site"),
    "expire": (["--expire=0"], 0),
    "history": (
        ["--history=orders=5,60", "--history=chat/*=7,80"],
        (("orders", 5, 60), ("chat/*", 7, 80)),
    ),
    "presence": (["--presence=chat/*", "--presence=news"], ("chat/*", "news")),
    "presence_grace": (["--presence-grace=0"], 0),
    "heartbeat": (["--heartbeat=beat"], "beat"),
    "allowed_origins": (["--origin=https://a.example", "--origin=*"], ("https://a.example", "*")),
    "require_origin": (["--require-origin"], True),
    "token_secret": ([f"--token-secret=@{SECRETS}"], tuple(SECRETS.read_text().split("\n")[::2])),
    "endless_tokens": (["--endless-tokens"], True),
    "trusted_proxies": (["--trusted-proxy=unix", "--trusted-proxy=::1"], ("unix", "::1")),
    "max_message_size": (["--max-message-size=5"], 5),
    "max_pending": (["--max-pending=6"], 6),
    "slow_reader": (["--slow-reader=latest"], "latest"),
    "max_pending_total": (["--max-pending-total=12"], 12),
    "max_connections": (["--max-connections=7"], 7),
    "max_connections_per_user": (["--max-connections-per-user=8"], 8),
    "max_connections_per_address": (["--max-connections-per-address=9"], 9),
    "max_authorizations": (["--max-authorizations=10"], 10),
    "rate": (["--rate=100,65536"], (100, 65536)),
    "client_quota": (["--client-quota=12"], 12),
    "compression": (["--compression"], True),
    "recheck": (["--recheck=11"], 11),
}


class OptionsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})  # without Django
        self.patch(sys, "path", sys.path[:])

    def parse(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(list(arguments))
        return options

    def config(self, *arguments: str) -> ServerConfig:
        config: ServerConfig = self.parse(*arguments)["config"]
        return config

    def complaint(self, *arguments: str) -> str:
        return str(self.assertRaises(UsageError, self.parse, *arguments))


class PlainTests(OptionsTestCase):
    """Without Django."""

    def test_without_options_there_are_the_defaults(self) -> None:
        self.assertEqual(self.config(), ServerConfig())

    def test_each_sets_its_field_and_nothing_else(self) -> None:
        self.assertEqual(set(WRITTEN), {row.field for row in BY_FIELD.values() if row.option})
        for field, (arguments, value) in WRITTEN.items():
            with self.subTest(field=field):
                self.assertEqual(self.config(*arguments), ServerConfig(**{field: value}))

    def test_the_help_names_each_with_its_default(self) -> None:
        text = " ".join(str(Options()).split())
        for row in BY_FIELD.values():
            if row.option:
                equals = "" if isinstance(row.kind, Flag) else "="
                self.assertIn(f"--{row.option}{equals} ", text)
        for option, default in (
            ("--max-pending=", "(default: 4194304)"),
            ("--rate=", "(default: 1000,16777216)"),
            ("--listen=", "(repeatable; default: tcp:8080:interface=127.0.0.1)"),
            ("--slow-reader=", "(default: close)"),
        ):
            self.assertRegex(text, rf"{option} [^=]+{default.replace('(', '.')[:-1]}")

    def test_a_limit_is_switched_off_by_a_word(self) -> None:
        self.assertIsNone(self.config("--rate=none").rate)
        self.assertIsNone(
            self.config("--max-connections=5", "--max-connections=none").max_connections
        )
        self.assertEqual(self.config("--expire=none").expire, 0)

    def test_of_a_switch_that_is_set_both_ways_the_last_counts(self) -> None:
        self.assertFalse(self.config("--compression", "--no-compression").compression)
        self.assertTrue(self.config("--no-require-origin", "--require-origin").require_origin)

    def test_a_mistake_is_told_under_the_option_with_what_to_write_there(self) -> None:
        for argument, expected in (
            ("--max-pending=0", "--max-pending is 0. Use a whole number, at least 1."),
            ("--max-authorizations=many", "--max-authorizations is 'many'. Use a whole number"),
            ("--max-connections=0", "Use a whole number, at least 1, or None for as many as"),
            ("--rate=5", "--rate is '5'. Write messages and bytes a second, such as 1000,16777216"),
            ("--heartbeat=", "--heartbeat is empty. Write a value, or leave the option out."),
            (
                "--slow-reader=wait",
                "--slow-reader is 'wait'. Use one of close, drop_oldest, latest",
            ),
            ("--origin=a.example", "--origin holds 'a.example', which is not an origin."),
            (
                "--redis=http://localhost",
                "--redis does not begin with redis:// or a like scheme. Write redis://host",
            ),
            ("--drain=soon", "--drain is 'soon'. Write a number of seconds, such as 5."),
        ):
            self.assertIn(expected, self.complaint(argument))

    def test_a_switch_takes_no_value(self) -> None:
        self.assertIn("compression", self.complaint("--compression=yes"))

    def test_redis_may_stand_in_a_file_or_in_the_environment(self) -> None:
        url, address = (
            "redis://:secret@r.example/3",
            RedisAddress("r.example", db=3, password="secret"),
        )
        self.assertEqual(self.config(f"--redis=@{write_file(self, url)}").redis, address)
        os.environ["WS4REDIS_CONNECTION"] = url
        self.assertEqual(self.config().redis, address)
        self.assertEqual(self.config("--redis=redis://localhost").redis, RedisAddress())
        os.environ["WS4REDIS_CONNECTION"] = "http://localhost"
        self.assertIn("WS4REDIS_CONNECTION does not begin with redis://", self.complaint())

    def test_the_secret_of_tokens_stands_in_a_file_or_in_the_environment_and_is_never_shown(
        self,
    ) -> None:
        secret = "hunter2 hunter2 hunter2 hunter2 hunter2"
        self.assertIn("pass --token-secret @FILE", self.complaint(f"--token-secret={secret}"))
        os.environ["WS4REDIS_TOKEN_SECRET"] = secret
        options = self.parse()
        self.assertEqual(options["config"].token_secret, (secret,))
        self.assertEqual(options["doubts"], [])
        self.assertNotIn("hunter2", repr(options["config"]))
        os.environ["WS4REDIS_TOKEN_SECRET"] = "hunter2"
        for text in (
            self.complaint(),
            self.complaint(f"--token-secret={secret}"),
            self.complaint(f"--token-secret=@{write_file(self, 'hunter2')}"),
            self.complaint(f"--token-secret=@{write_file(self, '')}"),
            self.complaint("--token-secret=@/no/such/file"),
        ):
            self.assertNotIn("hunter2", text)
            self.assertIn("TOKEN_SECRET" if text.startswith("WS4") else "--token-secret", text)

    def test_an_option_with_a_typo_names_the_nearest(self) -> None:
        for argument, expected in (
            ("--prefx=a", "--prefx is not an option. Did you mean --prefix?"),
            ("--embeded-redis", "Did you mean --embedded-redis?"),
            ("--setings=a", "Did you mean --settings?"),
            ("--no-compresion", "Did you mean --no-compression?"),
            ("--allowed-origins=a", "Did you mean --origin?"),
            ("--re=5", "--re is short for --recheck, --redis, --require-origin. Write one"),
            ("-x", "-x is not an option."),
        ):
            self.assertIn(expected, self.complaint(argument))

    def test_an_argument_that_is_no_option_is_told_without_showing_it(self) -> None:
        for arguments in (
            ["redis://:secret@localhost"],
            ["--prefix", "a", "secret"],
            ["secret", "--prefix=a"],
        ):
            text = self.complaint(*arguments)
            self.assertIn("takes options only, such as --settings mysite.settings", text)
            self.assertNotIn("secret", text)

    def test_a_setting_in_the_environment_that_has_no_effect_there_is_told(self) -> None:
        os.environ["WS4REDIS_PREFIX"] = "a"
        (doubt,) = self.parse()["doubts"]
        self.assertIn("WS4REDIS_PREFIX is in the environment, where it has no effect", str(doubt))
        self.assertIn("--prefix", str(doubt))
        os.environ["WS4REDIS_CONNECTION"] = "redis://localhost"
        os.environ["WS4REDIS_FULL"] = "1"
        self.assertEqual(len(self.parse()["doubts"]), 1)

    def test_what_shows_only_at_the_start_is_told_under_the_option_too(self) -> None:
        self.patch(tap, "poll_directly", lambda reactor: None)
        for argument, expected in (
            ("--listen=udp:1", "--listen is 'udp:1', which Twisted cannot listen on"),
            ("--redis=rediss://h?ssl_ca_certs=/no/such", "--redis has a ssl_ca_certs that cannot"),
        ):
            error = self.assertRaises(SystemExit, makeService, self.parse(argument))
            self.assertIn(f"twistd ws4redis: {expected}", str(error))

    def test_events_go_straight_to_their_connections(self) -> None:
        told: list[object] = []
        self.patch(tap, "poll_directly", told.append)
        self.assertRaises(SystemExit, makeService, self.parse("--listen=udp:1"))
        self.assertEqual(told, [reactor])


class DjangoTests(SynchronousTestCase):
    """With a Django site's settings, each time in the same fresh process."""

    PROGRAM = """
import django, json, sys
django.setup()
from dataclasses import fields
from django.test import override_settings
from twisted.internet import reactor
from twisted.python.usage import UsageError
from ws4redis_tx.twistd.options import Options

def parsed(arguments, settings):
    options = Options()
    with override_settings(**settings):
        try:
            options.parseOptions([f"--settings={sys.argv[1]}", *arguments])
        except UsageError as error:
            return str(error)
    config = options["config"]
    return {each.name: getattr(config, each.name) for each in fields(config)}

cases = json.loads(sys.argv[2])
print(json.dumps([parsed(*case) for case in cases], default=str))
"""

    def ask(self, *cases: tuple[list[str], dict[str, Any]]) -> list[Any]:
        result = python(
            "-c", self.PROGRAM, SETTINGS, json.dumps(cases), DJANGO_SETTINGS_MODULE=SETTINGS
        )
        answers: list[Any] = json.loads(result.stdout or f"[{json.dumps(result.stderr)}]")
        return answers

    def test_each_goes_before_its_setting(self) -> None:
        answers = self.ask(*[(arguments, {}) for arguments, _ in WRITTEN.values()])
        for (field, (_, value)), answer in zip(WRITTEN.items(), answers, strict=True):
            with self.subTest(field=field):
                self.assertEqual(answer[field], json.loads(json.dumps(value, default=str)))

    def test_a_switch_and_a_limit_can_be_switched_off(self) -> None:
        settings = {
            "WS4REDIS_COMPRESSION": True,
            "WS4REDIS_REQUIRE_ORIGIN": True,
            "WS4REDIS_MAX_CONNECTIONS_PER_USER": 5,
            "WS4REDIS_RATE": [5, 5],
        }
        off = ["--no-compression", "--no-require-origin", "--max-connections-per-user=none"]
        on, changed = self.ask(([], settings), ([*off, "--rate=none"], settings))
        names = ("compression", "require_origin", "max_connections_per_user", "rate")
        self.assertEqual([on[name] for name in names], [True, True, 5, [5, 5]])
        self.assertEqual([changed[name] for name in names], [False, False, None, None])

    def test_a_mistake_is_told_under_the_name_where_it_stands(self) -> None:
        wrong = {"WS4REDIS_MAX_PENDING": 0}
        in_settings, in_option, replaced = self.ask(
            ([], wrong), (["--max-pending=0"], {}), (["--max-pending=5"], wrong)
        )
        self.assertEqual(in_settings, "WS4REDIS_MAX_PENDING is 0. Use a whole number, at least 1.")
        self.assertEqual(in_option, "--max-pending is 0. Use a whole number, at least 1.")
        self.assertEqual(replaced["max_pending"], 5)


class DoubtTests(SynchronousTestCase):
    """With a Django site's settings: what is taken, and told at the start nevertheless."""

    PROGRAM = """
import django, json, sys
django.setup()
from django.conf import settings
from django.test import override_settings
from ws4redis_tx.twistd.options import Options

def doubts(arguments, changes):
    options = Options()
    with override_settings(**changes):
        options.parseOptions([f"--settings={sys.argv[1]}", *arguments])
    return [str(each) for each in options["doubts"]]

cases = json.loads(sys.argv[2])
print(json.dumps([doubts(*case) for case in cases]))
"""

    def ask(self, *cases: tuple[list[str], dict[str, Any]], **environment: str) -> list[Any]:
        result = python(
            "-c", self.PROGRAM, SETTINGS, json.dumps(cases), DJANGO_SETTINGS_MODULE=SETTINGS,
            **environment,
        )  # fmt: skip
        self.assertEqual(result.returncode, 0, result.stderr)
        answers: list[Any] = json.loads(result.stdout)
        return answers

    def test_options_that_contradict_the_settings_that_django_uses(self) -> None:
        elsewhere = {"WS4REDIS_CONNECTION": "redis://:secret@r.example/1"}
        cases = (
            (["--prefix=a"], {}, "--prefix says 'a', but WS4REDIS_PREFIX says None"),
            (["--prefix=a"], {"WS4REDIS_PREFIX": "b"}, "but WS4REDIS_PREFIX says 'b'"),
            (["--redis=redis://localhost/1"], {}, "--redis says redis://localhost:6379/1, but"),
            (["--redis=redis://localhost"], elsewhere, "WS4REDIS_CONNECTION says redis://r.exa"),
            (["--embedded-redis"], elsewhere, "--embedded-redis says redis://127.0.0.1:"),
            (["--embedded-redis"], {}, "but WS4REDIS_CONNECTION says redis://localhost:6379/0"),
            (["--embedded-redis", "--serve-django"], elsewhere, "--embedded-redis says"),
            (["--websocket-url=/live/"], {}, "--websocket-url says '/live/', but WEBSOCKET_URL"),
            (["--heartbeat=a"], {}, "--heartbeat says 'a', but WS4REDIS_HEARTBEAT says None"),
        )
        answers = self.ask(*[(arguments, settings) for arguments, settings, _ in cases])
        for (arguments, settings, expected), answer in zip(cases, answers, strict=True):
            self.assertEqual(len(answer), 1, (arguments, settings, answer))
            self.assertIn(expected, answer[0])
            self.assertNotIn("secret", answer[0])

    def test_options_that_say_the_same_or_concern_the_server_alone(self) -> None:
        cases = (
            ([], {}),
            (["--prefix=a"], {"WS4REDIS_PREFIX": "a"}),
            (["--redis=redis://localhost"], {}),
            (["--redis=redis://localhost:6379/1"], {"WS4REDIS_CONNECTION": {"db": 1}}),
            (["--expire=5", "--max-pending=5", "--recheck=5", "--origin=*"], {}),
            (["--serve-django", "--embedded-redis", "--prefix=a", "--websocket-url=/a/"], {}),
        )
        self.assertEqual(self.ask(*cases), [[]] * len(cases))

    def test_settings_that_have_no_effect_and_an_app_that_is_not_installed(self) -> None:
        apps = ["django.contrib.auth", "django.contrib.contenttypes"]
        unknown, uninstalled = self.ask(
            ([], {"WS4REDIS_EXPIRES": 5}), ([], {"INSTALLED_APPS": apps})
        )
        self.assertIn("Did you mean WS4REDIS_EXPIRE?", unknown[0])
        self.assertIn("INSTALLED_APPS lacks 'ws4redis_tx'", uninstalled[0])

    def test_the_address_in_the_environment_counts_without_django_alone(self) -> None:
        program = """
from django.conf import settings
settings.configure()
import json, os, sys
from ws4redis_tx.twistd.options import Options
options = Options()
options.parseOptions(["--settings=none"])
print(json.dumps([str(each) for each in options["doubts"]]))
"""
        url = "redis://:secret@r.example"
        result = python("-c", program, WS4REDIS_CONNECTION=url)
        text = " ".join(json.loads(result.stdout))
        self.assertIn("WS4REDIS_CONNECTION is in the environment, where it has no effect", text)
        self.assertNotIn("secret", text)
