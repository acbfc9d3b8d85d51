"""No test imports another test. Shared code is in ``tests/support``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT

TESTS = ROOT / "tests"


def imports(source: str) -> Iterator[str]:
    """The modules of ``tests`` that a file imports, anywhere in its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            # ``from package import module`` names a module, too.
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name.startswith(("tests.", ".")))


def is_shared(module: str, folder: str) -> bool:
    """Whether a test in ``folder`` may import ``module``: from support, from a project that tests
    serve, or from a helper beside the test.
    """
    allowed = ("tests.support.", "tests.projects.", f"{folder}.")
    is_test = any(part.startswith("test_") for part in module.split("."))
    return f"{module}.".startswith(allowed) and not is_test


def folder_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).parent.parts)


class TestImportTests(SynchronousTestCase):
    def test_tests_import_support_projects_and_helpers_beside_them(self) -> None:
        wrong = [
            f"{path.relative_to(ROOT)}: {module}"
            for path in sorted(TESTS.rglob("*.py"))
            for module in imports(path.read_text())
            if not is_shared(module, folder_of(path))
        ]
        self.assertEqual(wrong, [])

    def test_each_way_to_import_a_test_is_seen(self) -> None:
        for source in (
            "import tests.unit.core.test_names",
            "from tests.unit.core import test_names",
            "from tests.unit.core.test_names import NameTests",
            "def late():\n    from tests.unit.core.test_names import NameTests",
            "from .test_names import NameTests",
        ):
            modules = list(imports(source))
            self.assertFalse(all(is_shared(each, "tests.unit.core") for each in modules), source)

    def test_what_is_shared_may_be_imported(self) -> None:
        for source in (
            "from tests.support import ROOT",
            "from tests.support.wires import handshake_bytes",
            "from tests.programs.chaos.proxy import Proxy",
            "import json",
        ):
            modules = list(imports(source))
            self.assertTrue(all(is_shared(each, "tests.programs.chaos") for each in modules))
