"""The documentation as a whole: every block of code is run by a test, and the tables are complete.

A page with blocks other than commands has its own test module, with a
``test_every_block_is_known_here``. This module checks the commands on all other pages.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.pages import DOCS, Block, blocks_of, pages
from ws4redis_tx.config import django_settings
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.tap import Options

MAKEFILE = (ROOT / "Makefile").read_text()
# Not code: pictures, and directives that Sphinx checks by itself.
PICTURES = re.compile(r"|text|\{[\w-]+\}")


def has_a_test_of_its_own(page: Path) -> bool:
    if page.parent.name == "tutorials":
        return True  # test_tutorials follows every tutorial
    return any(
        "def test_every_block_is_known_here" in text and f'"{page.name}"' in text
        for text in (each.read_text() for each in (ROOT / "tests").rglob("test_*.py"))
    )


def commands(block: Block) -> list[list[str]]:
    lines = block.code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


class BlockTests(SynchronousTestCase):
    def test_every_block_is_run_or_looked_at(self) -> None:
        for page in pages():
            if not has_a_test_of_its_own(page):
                for block in blocks_of(page):
                    self.look_at(block)

    def look_at(self, block: Block) -> None:
        if PICTURES.fullmatch(block.language):
            return
        self.assertEqual(
            block.language, "sh", f"Nothing runs it: {block.where}. Give the page a test."
        )
        for words in commands(block):
            kind = Path(words[0]).name
            self.assertIn(kind, ("make", "python"), block.where)
            getattr(self, f"look_at_{kind}")(words, block.where)

    def look_at_make(self, words: list[str], where: str) -> None:
        for word in words[1:]:
            name, _, value = word.partition("=")
            self.assertIn(f"\n{name} ?=" if value else f"\n{name}: ", MAKEFILE, where)

    def look_at_python(self, words: list[str], where: str) -> None:
        self.assertEqual(words[1], "-m", where)
        self.look_at_program(words[2], where, [each for each in words[3:] if each[:2] == "--"])

    def look_at_program(self, module: str, where: str, options: Sequence[str] = ()) -> None:
        found = find_spec(f"{module}.__main__") if is_package(module) else find_spec(module)
        self.assertIsNotNone(found, f"{module}: {where}")
        source = Path(found.origin).read_text()
        for option in options:
            self.assertIn(f'"{option}"', source, where)

    def test_the_programs_named_within_a_sentence_exist(self) -> None:
        for page in pages():
            for module in re.findall(r"`python -m ((?:tests|benchmarks)[\w.]*)", page.read_text()):
                self.look_at_program(module, str(page))

    def test_every_fence_is_closed_and_at_the_beginning_of_its_line(self) -> None:
        for page in pages():
            fences = page.read_text().count("```")
            self.assertEqual(fences, 2 * len(blocks_of(page)), page.name)


def is_package(module: str) -> bool:
    found = find_spec(module)
    return found is not None and found.submodule_search_locations is not None


class SettingsTests(SynchronousTestCase):
    """The reference of settings, against the code."""

    def setUp(self) -> None:
        text = (DOCS / "reference" / "settings.md").read_text()
        self.settings: dict[str, str] = {}
        self.options: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        for names, default in re.findall(r"^\| (`[^|]+`) \|([^|]*)\|", text, re.M):
            for name in re.findall(r"`([^`]+)`", names):
                if name.isupper():
                    self.settings[name] = default.strip(" `")
                elif name.startswith("--"):
                    self.options[name] = default.strip(" `")
                else:
                    self.fields[name] = default.strip(" `")

    def test_every_setting_is_there_with_its_default(self) -> None:
        named = {name: ast.literal_eval(default) for name, default in self.settings.items()}
        self.assertEqual(named, django_settings.DEFAULTS)

    def test_every_option_of_twistd_is_there(self) -> None:
        known = {f"--{name.rstrip('=')}" for name in Options().longOpt}
        self.assertEqual(set(self.options), known - {"--version", "--help"})

    def test_every_field_is_there_with_its_default(self) -> None:
        elsewhere = {  # in a sentence
            "allowed_hosts", "django", "script_name", "tenants", "centrifuge_ping",
            "centrifuge_pong", "centrifuge_connect_timeout", "centrifuge_expired_grace",
        }  # fmt: skip
        self.assertEqual(set(self.fields) | elsewhere, {each.name for each in fields(ServerConfig)})
        # These have another type than the setting; a test below checks the listening addresses.
        others = (
            "redis", "prefix", "history", "presence", "allowed_origins", "trusted_proxies",
            "listen", "token_secret",
        )  # fmt: skip
        for name, default in self.fields.items():
            if name not in others:
                self.assertEqual(ast.literal_eval(default), getattr(ServerConfig(), name), name)

    def test_the_options_without_a_setting_have_their_defaults(self) -> None:
        self.assertEqual(self.options["--listen"], *ServerConfig().listen)
        options = Options()
        for option in ("--workers", "--drain"):
            self.assertEqual(self.options[option], options[option[2:]])


class NamesTests(SynchronousTestCase):
    """The reference of names to import, against the modules' ``__all__``."""

    def test_every_exported_name_is_on_a_page_of_the_reference(self) -> None:
        text = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
        modules = set(re.findall(r"automodule:: ws4redis_tx\.([\w.]+)", text))
        named = set(re.findall(r"\w+", text))
        for module in re.findall(r"automodule:: ws4redis_tx\.([\w.]+)\n   :members:\n", text):
            named |= {node.name for node in tree(module).body if isinstance(node, ast.ClassDef)}
        self.assertLess({"publisher", "service", "subscriber", "testing", "tickets"}, modules)
        for module in modules:
            told = set(re.findall(r"\w+", ast.get_docstring(tree(module)) or ""))
            self.assertEqual(exported(module) - named - told, set(), module)


def exported(module: str) -> set[str]:
    """The names in ``__all__``, read from the source: some modules need a Django site to import."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def tree(module: str) -> ast.Module:
    path = ROOT / "ws4redis_tx" / module.replace(".", "/")
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())
