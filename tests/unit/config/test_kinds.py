"""Kinds of values: which ones work, what the server makes of them, and what an error says."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.programs import write_file
from ws4redis_tx.config.importing import import_callable
from ws4redis_tx.config.kinds import (
    Address,
    Choice,
    Count,
    Flag,
    Importable,
    Judged,
    Kind,
    Names,
    OptionalNames,
    Origins,
    OrNone,
    RatePair,
    Seconds,
    Text,
    UrlPath,
    WholeSeconds,
)
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies
from ws4redis_tx.core.redis_address import RedisAddress

DOTTED = "ws4redis_tx.policies.allow_all"


class Outer:
    class Inner:
        pass


class KindTestCase(SynchronousTestCase):
    def assert_refused(self, kind: Kind, value: object, *words: str) -> None:
        for check in kind.check, kind.check_field:
            error = self.assertRaises(ConfigError, check, "the_name", value)
            self.assertEqual(error.setting, "the_name")
            for word in words:
                self.assertIn(word, str(error))
            self.assertTrue(error.remedy.endswith("."), error.remedy)

    def assert_cannot_be_read(self, kind: Kind, text: str, *words: str) -> None:
        def read() -> None:
            kind.check("--the-name", kind.read("--the-name", text))

        error = self.assertRaises(ConfigError, read)
        self.assertEqual(error.setting, "--the-name")
        for word in words:
            self.assertIn(word, str(error))

    def read(self, kind: Kind, text: str) -> Any:
        return kind.check("--the-name", kind.read("--the-name", text))


class EveryKindTests(KindTestCase):
    VALUES: tuple[tuple[Kind, tuple[object, ...]], ...] = (
        (Flag(), (True, False)),
        (Count(), (1, 2**40)),
        (WholeSeconds("stop"), (None, 0, 1, 2**31 - 1)),
        (Seconds(), (5, 0.5)),
        (Text(), (None, "beat")),
        (Choice(("a", "b")), ("a", "b")),
        (UrlPath(), ("/", "/ws/")),
        (Judged(check_prefix), (None, "", "site")),
        (Names("a"), ([], ["b", "c"], ("b",))),
        (OptionalNames("127.0.0.1", TrustedProxies), (None, ["127.0.0.1"], ["unix", "10.0.0.0/8"])),
        (Origins("https://a.example", OriginPolicy), (None, "*", ["https://b.example"])),
        (RatePair(), ((1000, 16.5), [1, 2])),
        (OrNone(RatePair(), "no limit"), (None, (1, 2))),
        (Address(), (None, "redis://localhost", {"host": "h"}, RedisAddress("h"))),
        (Importable(), (DOTTED, len)),
    )

    def test_what_was_checked_can_be_checked_again_as_a_field_too(self) -> None:
        """``ServerConfig`` judges again the values that come from checked settings."""
        for kind, values in self.VALUES:
            for value in values:
                with self.subTest(kind=kind, value=value):
                    checked = kind.check("the_name", value)
                    self.assertEqual(kind.check("the_name", checked), checked)
                    self.assertEqual(kind.check_field("the_name", checked), checked)


class NumberTests(KindTestCase):
    def test_a_count_is_a_whole_number_from_1(self) -> None:
        self.assertEqual(self.read(Count(), "7"), 7)
        for value in (0, -1, 1.5, "7", True, None):
            self.assert_refused(Count(), value, repr(value), "at least 1")
        for text in ("0", "-1", "1.5", "many", ""):
            self.assert_cannot_be_read(Count(), text, "Use a whole number, at least 1.")

    def test_whole_seconds_may_be_0_and_less_or_off_is_0(self) -> None:
        kind = WholeSeconds("persist nothing")
        for value, seconds in ((0, 0), (-1, 0), (1, 1), (2**31 - 1, 2**31 - 1)):
            self.assertEqual(kind.check("the_name", value), seconds)
        for off in (None, "", False):
            self.assertEqual(kind.check("the_name", off), 0)
        for text, seconds in (("0", 0), ("-1", 0), ("60", 60), ("none", 0)):
            self.assertEqual(self.read(kind, text), seconds)
        for value in (2**31, 0.5, "60", True, b"1"):
            self.assert_refused(kind, value, repr(value), "or 0 to persist nothing")
        for text in ("soon", "0.5"):
            self.assert_cannot_be_read(kind, text, "or 0 to persist nothing")

    def test_seconds_may_have_a_fraction_and_are_more_than_0(self) -> None:
        self.assertEqual(Seconds().check("the_name", 0.5), 0.5)
        for value in (0, -1, "5", True, None, math.nan, math.inf):
            self.assert_refused(Seconds(), value, repr(value))

    def test_a_rate_is_a_pair(self) -> None:
        kind = OrNone(RatePair(), "no limit")
        self.assertEqual(kind.check("the_name", [5, 0.5]), (5, 0.5))
        for text, pair in (("1000,16777216", (1000, 16777216)), ("5, 0.5", (5, 0.5))):
            self.assertEqual(self.read(kind, text), pair)
        self.assertIsNone(self.read(kind, "none"))
        for value in (
            5, "100", (1,), (1, 2, 3), (0, 5), (5, -1), ("1", "2"), (True, 5), (1, math.inf),
            (1, math.nan),
        ):  # fmt: skip
            self.assert_refused(kind, value, repr(value), "(1000, 16777216), or None for no limit.")
        for text in ("5", "a,b", "1,2,3", "0,5", "nan,5", "1,", ""):
            self.assert_cannot_be_read(kind, text, "such as 1000,16777216, or None for no limit.")


class WordTests(KindTestCase):
    def test_a_flag_is_true_or_false(self) -> None:
        for value in ("yes", "", 1, 0, None):
            self.assert_refused(Flag(), value, repr(value), "Use True or False.")

    def test_an_empty_text_is_none(self) -> None:
        self.assertEqual(self.read(Text(), "none"), "none")
        for off in (None, "", False):
            self.assertIsNone(Text().check("the_name", off))
        for value in (b"beat", 5, True):
            self.assert_refused(Text(), value, repr(value), "Use a text, or None.")

    def test_a_choice_names_its_words(self) -> None:
        kind = Choice(("close", "latest"))
        for value in ("wait", "", None, ["close"]):
            self.assert_refused(kind, value, repr(value), "Use one of close, latest.")

    def test_a_path_starts_and_ends_with_a_slash(self) -> None:
        for path in ("/", "/ws/", "/live/socket/", "/a-b.c_d~e/"):
            self.assertEqual(UrlPath().check("the_name", path), path)
        for path in ("", "ws", "/ws", "ws/", "//", "/a//b/", "/w s/", "/ws/\n", "/ü/", 7, None):
            self.assert_refused(UrlPath(), path, repr(path), "/ws/")

    def test_characters_that_a_browser_would_escape_are_not_in_a_path(self) -> None:
        for character in '"<>\\^`{|}?#%: ':
            self.assert_refused(UrlPath(), f"/a{character}/")

    def test_the_cores_own_errors_come_under_the_name_too(self) -> None:
        self.assert_refused(Judged(check_prefix), "group", "could be mistaken")
        self.assert_refused(Origins("", OriginPolicy), ["a.example"], "holds 'a.example'")
        self.assert_refused(OptionalNames("", TrustedProxies), ["a.example"], "holds 'a.example'")
        self.assert_cannot_be_read(Address(), "http://localhost", "Write redis://host:6379/0")


class NamesTests(KindTestCase):
    def test_a_single_text_is_no_list(self) -> None:
        for value in ("tcp:8080", b"tcp:8080", 5, None):
            self.assert_refused(Names("tcp:8080"), value, repr(value), "tcp:8080")
        for check, remedy in (
            (Names("tcp:8080").check, "Use a list, such as ['tcp:8080']."),
            (Names("tcp:8080").check_field, "Use a tuple, such as ('tcp:8080',)."),
        ):
            error = self.assertRaises(ConfigError, check, "the_name", "tcp:8080")
            self.assertEqual(error.remedy, remedy)

    def test_each_is_a_string(self) -> None:
        self.assert_refused(Names("tcp:8080"), ["tcp:1", 2], "holds 2, which is not a string")

    def test_any_iterable_is_taken_once(self) -> None:
        values = (f"tcp:{port}" for port in (1, 2))
        self.assertEqual(Names("tcp:8080").check("the_name", values), ("tcp:1", "tcp:2"))


class AddressTests(KindTestCase):
    def test_no_error_shows_a_password(self) -> None:
        for value in ("redis://u:hunter2@h:port", {"password": "hunter2", "nonsense": 1}, 7):
            error = self.assertRaises(ConfigError, Address().check, "the_name", value)
            self.assertNotIn("hunter2", str(error))
        error = self.assertRaises(ConfigError, Address().check_field, "redis", "redis://:hunter2@h")
        self.assertNotIn("hunter2", str(error))
        self.assertIn("parse_redis_address(", error.remedy)

    def test_the_command_line_holds_no_password(self) -> None:
        for url in ("redis://:hunter2@h", "sentinel://h/m/0?sentinel_password=hunter2"):
            error = self.assertRaises(ConfigError, Address().read, "--redis", url)
            self.assertIn("pass --redis @FILE", error.remedy)
            self.assertNotIn("hunter2", str(error))

    def test_a_file_may_hold_one(self) -> None:
        path = write_file(self, "redis://:hunter2@h/3\n")
        self.assertEqual(
            self.read(Address(), f"@{path}"), RedisAddress("h", db=3, password="hunter2")
        )
        self.assert_cannot_be_read(Address(), "@does-not-exist", "names a file", "does-not-exist")


class ImportTests(KindTestCase):
    def test_a_dotted_name_is_imported(self) -> None:
        from ws4redis_tx.policies import allow_all

        self.assertIs(import_callable("the_name", DOTTED), allow_all)
        self.assertIs(import_callable("the_name", f"{__name__}.Outer.Inner"), Outer.Inner)
        self.assertIs(import_callable("the_name", allow_all), allow_all)

    def test_a_field_is_imported_by_its_user(self) -> None:
        self.assertEqual(Importable().check_field("subscriber", "no.such.name"), "no.such.name")

    def test_what_cannot_be_imported_is_said_with_the_reason(self) -> None:
        for dotted, reason in (
            ("no.such.name", "No module named 'no'"),
            (f"{__name__}.no_such_name", "no_such_name"),
            (f"{__name__}.Outer.Missing", "Missing"),
            ("nonsense", "names no module"),
            ("", "names no module"),
            ("tests.projects.django_project.failing.anything", "KeyError: 'NO_SUCH_VARIABLE'"),
        ):
            error = self.assertRaises(ConfigError, import_callable, "the_name", dotted)
            self.assertEqual(error.setting, "the_name")
            self.assertRegex(error.problem, f"^is {re.escape(repr(dotted))}, which cannot be imp")
            self.assertIn(reason, error.problem)

    def test_a_module_that_lacks_another_one_is_told_from_one_that_is_missing(self) -> None:
        folder = Path(write_file(self, "")).parent
        (folder / "lacking_another.py").write_text("import no_such_package\n")
        self.patch(sys, "path", [str(folder), *sys.path])
        error = self.assertRaises(ConfigError, import_callable, "the_name", "lacking_another.a")
        self.assertIn("No module named 'no_such_package'", error.problem)

    def test_what_cannot_be_called_is_said(self) -> None:
        for value in (7, None, "math.pi"):
            error = self.assertRaises(ConfigError, import_callable, "the_name", value)
            self.assertIn("cannot be called", error.problem)
