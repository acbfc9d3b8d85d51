"""One row for each setting: everything that tells of settings comes from it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from dataclasses import fields
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.programs import python
from ws4redis_tx.config.document import option_help, settings_table, typed, with_table
from ws4redis_tx.config.importing import Importable
from ws4redis_tx.config.kinds import Flag, OrNone
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.table import BY_FIELD, FIELDS_ALONE, SETTINGS
from ws4redis_tx.core.errors import ConfigError

PACKAGE = ROOT / "ws4redis_tx"
PAGE = ROOT / "docs" / "reference" / "settings.md"

# People silence checks by their ids.
IDS = {
    "WEBSOCKET_URL": "E001",
    "WS4REDIS_CONNECTION": "E002",
    "WS4REDIS_PREFIX": "E003",
    "WS4REDIS_EXPIRE": "E004",
    "WS4REDIS_SUBSCRIBER": "E005",
    "WS4REDIS_HEARTBEAT": "E006",
    "WS4REDIS_ALLOWED_CHANNELS": "E007",
    "WS4REDIS_PROCESS_REQUEST": "E008",
    "WS4REDIS_ALLOWED_ORIGINS": "E009",
    "WS4REDIS_TIMEOUT": "E010",
    "WS4REDIS_MAX_MESSAGE_SIZE": "E011",
    "WS4REDIS_MAX_PENDING": "E012",
    "WS4REDIS_MAX_CONNECTIONS": "E013",
    "WS4REDIS_SLOW_READER": "E014",
    "WS4REDIS_REQUIRE_ORIGIN": "E015",
    "WS4REDIS_ON_COMMIT": "E016",
    "WS4REDIS_TRUSTED_PROXIES": "E017",
    "WS4REDIS_MAX_CONNECTIONS_PER_USER": "E018",
    "WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS": "E019",
    "WS4REDIS_MAX_AUTHORIZATIONS": "E020",
    "WS4REDIS_RATE": "E021",
    "WS4REDIS_COMPRESSION": "E022",
    "WS4REDIS_RECHECK": "E023",
    "WS4REDIS_REVOKE": "E024",
    "WS4REDIS_MAX_PENDING_TOTAL": "E027",
    "WS4REDIS_TENANT": "E031",
    "WS4REDIS_CLIENT_QUOTA": "E029",
    "WS4REDIS_PRESENCE": "E033",
    "WS4REDIS_PRESENCE_GRACE": "E034",
    "WS4REDIS_TOKEN_SECRET": "E046",
    "WS4REDIS_ENDLESS_TOKENS": "E047",
}


_TABLES = ("table.py", "fields_alone.py")


class RowTests(SynchronousTestCase):
    def test_an_id_stays_with_its_setting_and_is_used_once(self) -> None:
        ids = {row.name: row.check for row in SETTINGS}
        self.assertEqual({name: ids.get(name) for name in IDS}, IDS)
        self.assertEqual([each for each, times in Counter(ids.values()).items() if times > 1], [])
        for check in ids.values():
            self.assertRegex(check, r"^E\d{3}$")

    def test_every_field_has_a_row_and_every_row_its_field(self) -> None:
        self.assertEqual(set(BY_FIELD), {each.name for each in fields(ServerConfig)})

    def test_every_field_has_an_option_callables_apart(self) -> None:
        for row in SETTINGS:
            kind = row.kind.kind if isinstance(row.kind, OrNone) else row.kind
            expected = bool(row.field) and not isinstance(kind, Importable)
            self.assertEqual(bool(row.option), expected, row.name)

    def test_an_option_may_be_given_its_own_default(self) -> None:
        for row in SETTINGS + FIELDS_ALONE:
            if row.option and row.default is not None and not isinstance(row.kind, Flag):
                self.assertEqual(row.from_option(typed(row.default)), row.default, row.option)

    def test_a_row_names_what_the_user_wrote(self) -> None:
        row = BY_FIELD["max_pending"]
        for name, check, value in (
            ("WS4REDIS_MAX_PENDING", row.from_django, 0),
            ("max_pending", row.from_field, 0),
            ("--max-pending", row.from_option, "0"),
        ):
            error = self.assertRaises(ConfigError, check, value)
            self.assertEqual(str(error), f"{name} is 0. Use a whole number, at least 1.")

    def test_a_help_is_a_phrase_without_markup_for_a_terminal(self) -> None:
        for row in SETTINGS + FIELDS_ALONE:
            self.assertNotRegex(row.help, r"\.$|\n|^[A-Z][a-z]+ [a-z]+ the")
            self.assertNotRegex(option_help(row), r"`|\]\(")
            self.assertRegex(option_help(row), r"^[A-Z].*\.$")


class SpellingTests(SynchronousTestCase):
    """The walk from an option to its use: the table, the field, and the module that uses it."""

    # Fields that are words of everyday use.
    GENERAL = {"", "heartbeat", "rate", "subscriber"}
    # Django's code has a function for each, such as get_timeout(); --embedded-redis sets one.
    APART = {
        "WS4REDIS_ALLOWED_ORIGINS", "WS4REDIS_CONNECTION", "WS4REDIS_EXPIRE", "WS4REDIS_PREFIX",
        "WS4REDIS_HISTORY", "WS4REDIS_TENANT", "WS4REDIS_TIMEOUT", "WS4REDIS_TOKEN_SECRET",
    }  # fmt: skip

    def test_no_module_on_the_way_spells_a_setting(self) -> None:
        on_the_way = [PACKAGE / "twistd" / "options.py", PACKAGE / "django" / "checks.py"]
        paths = [*PACKAGE.glob("config/*.py"), *on_the_way]
        sources = {path.name: path.read_text() for path in paths if path.name not in _TABLES}
        for row in SETTINGS:
            if row.name not in self.APART:
                self.assertEqual(self.spelled(row.name, sources), set())
                if row.option:
                    self.assertEqual(self.spelled(f"--{row.option}", sources), set())
                if row.field not in self.GENERAL:
                    self.assertEqual(self.spelled(row.field, sources), {"server_config.py"})

    def spelled(self, word: str, sources: dict[str, str]) -> set[str]:
        pattern = re.compile(rf"(?<![\w-]){word}\b")
        return {name for name, source in sources.items() if pattern.search(source)}


class DocumentTests(SynchronousTestCase):
    def test_the_reference_is_written_from_the_table(self) -> None:
        page = PAGE.read_text()
        self.assertIn(settings_table(), page)
        self.assertEqual(
            with_table(page), page, f"Run python -m ws4redis_tx.config.document {PAGE}"
        )


class NewSettingTests(SynchronousTestCase):
    """A setting is added with one row and one field."""

    ROW = """
    Setting(
        name="WS4REDIS_EXAMPLE", field="example", option="example", check="E999",
        default=7, kind=Count(),
        help="an example",
    ),
"""
    PROGRAM = """
import sys, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["ws4redis_tx", "django.contrib.auth",
                                   "django.contrib.contenttypes"])
django.setup()
from django.core.checks import run_checks
from django.test import override_settings
from ws4redis_tx import settings as old_settings
from ws4redis_tx.config import document
from ws4redis_tx.service import ConfigError, ServerConfig
from ws4redis_tx.twistd.options import Options

print(ServerConfig().example, ServerConfig.from_django().example, old_settings.WS4REDIS_EXAMPLE)
with override_settings(WS4REDIS_EXAMPLE=8):
    print(ServerConfig.from_django().example)
with override_settings(WS4REDIS_EXAMPLE="x"):
    print([each for each in run_checks() if "EXAMPLE" in each.msg])
try:
    ServerConfig(example=0)
except ConfigError as error:
    print(error)
options = Options()
options.parseOptions(["--example=9"])
print(options["config"].example)
print("--example" in str(options), ":param example: an example" in ServerConfig.__doc__)
print(document.settings_table().splitlines()[-1])
"""

    def test_it_is_known_everywhere(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        package = folder / "ws4redis_tx"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        self.insert(
            package / "config" / "table.py", self.ROW.strip("\n"), r'^\)\n"""Those of Django'
        )
        self.insert(
            package / "config" / "server_config.py",
            '    example: int = _default("example")',
            r"^\n    @classmethod",
        )
        program = f"import sys; sys.path.insert(0, {str(folder)!r})\n{self.PROGRAM}"
        result = python("-c", program, DJANGO_SETTINGS_MODULE="")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "7 7 7",
                "8",
                "[<Error: level=40, msg=\"WS4REDIS_EXAMPLE is 'x'.\", "
                "hint='Use a whole number, at least 1.', obj=None, id='ws4redis_tx.E999'>]",
                "example is 0. Use a whole number, at least 1.",
                "9",
                "True True",
                "| `WS4REDIS_EXAMPLE` <br> `--example` <br> `example` | `7` | an example |",
            ],
            result.stderr,
        )

    def insert(self, path: Path, text: str, before: str) -> None:
        found = re.search(before, source := path.read_text(), re.M | re.S)
        assert found is not None
        path.write_text(f"{source[: found.start()]}{text}\n{source[found.start() :]}")
