"""The rooms: their imports, their sizes, and the modules that the doors bring along."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from graphlib import CycleError, TopologicalSorter

from twisted.trial.unittest import SynchronousTestCase

from tests.architecture.imports import (
    DOORS,
    PACKAGE,
    ROOMS,
    ROOT,
    SHIMS,
    arrows,
    drawing,
    modules,
    room_of,
)
from tests.support.programs import python

MOST_MODULES, MOST_LINES, MOST_SHIM_LINES = 12, 300, 6

# Libraries that only some modules may import.
OWNERS = {
    "autobahn": {"websocket"},
    "txredisapi": {"redis.wire.protocol"},
    "crochet": {"twistd.process", "tap"},
    "debug_toolbar": {"panels"},
    "django": {
        "django", "publishing", "testing.capture", "testing.live", "testing.pytest_plugin",
        "config.django_settings", "twistd.options", "runserver", "doors",
    },
}  # fmt: skip

# Doors that Django or an application imports anywhere. They must not import a reactor.
EVERYWHERE = {
    "ws4redis_tx", "ws4redis_tx.apps", "ws4redis_tx.context_processors", "ws4redis_tx.panels",
    "ws4redis_tx.policies", "ws4redis_tx.presence", "ws4redis_tx.publisher",
    "ws4redis_tx.redis_store", "ws4redis_tx.settings", "ws4redis_tx.signals",
    "ws4redis_tx.subscriber", "ws4redis_tx.testing.capture", "ws4redis_tx.tickets",
    "ws4redis_tx.tokens",
}  # fmt: skip

# Doors that need Django. The others must not import it.
NEED_DJANGO = EVERYWHERE - {
    "ws4redis_tx", "ws4redis_tx.policies", "ws4redis_tx.redis_store", "ws4redis_tx.subscriber",
} | {"ws4redis_tx.templatetags", "ws4redis_tx.testing.live"}  # fmt: skip


class TableTests(SynchronousTestCase):
    def test_each_module_stands_in_a_room_or_is_a_door(self) -> None:
        self.assertEqual({room_of(name) for name in modules()} - set(ROOMS), {"doors"})
        self.assertEqual({name for name in DOORS if not (PACKAGE / name).is_dir()} - set(modules()),
                         set())  # fmt: skip

    def test_a_room_may_import_only_rooms_above_it(self) -> None:
        above: set[str] = {"doors"}
        for room, allowed in ROOMS.items():
            self.assertEqual(allowed - above, set(), room)
            above.add(room)

    def test_no_module_imports_what_its_room_must_not_know(self) -> None:
        wrong = [
            str(arrow)
            for arrow in arrows()
            if (here := room_of(arrow.importer)) != (there := room_of(arrow.imported))
            and here != "doors"
            and there not in ROOMS[here]
        ]
        self.assertEqual(wrong, [])

    def test_no_arrow_of_the_table_is_there_for_nobody(self) -> None:
        found = {(room_of(each.importer), room_of(each.imported)) for each in arrows()}
        unused = [
            f"{room} → {other}"
            for room, allowed in ROOMS.items()
            for other in allowed
            if (room, other) not in found
        ]
        self.assertEqual(unused, [])

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        at_import = {
            name: {node.lineno for node in _at_import(ast.parse(path.read_text()))}
            for name, path in modules().items()
        }
        graph: dict[str, set[str]] = {name: set() for name in at_import}
        for arrow in arrows():
            if arrow.line in at_import[arrow.importer] and arrow.imported != arrow.importer:
                graph[arrow.importer].add(arrow.imported)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(f"a circle: {' → '.join(error.args[1])}")

    def test_the_page_shows_the_drawing(self) -> None:
        page = (ROOT / "docs" / "architecture.md").read_text()
        self.assertIn(drawing(), page, "run python -m tests.architecture.imports")


class SizeTests(SynchronousTestCase):
    def test_no_room_has_too_many_modules(self) -> None:
        for room in ROOMS:
            names = {name for name in modules() if room_of(name) == room} - {room}
            self.assertLessEqual(len(names), MOST_MODULES, room)

    def test_no_module_has_too_many_lines(self) -> None:
        for name, path in modules().items():
            most = MOST_SHIM_LINES if name in SHIMS else MOST_LINES
            self.assertLessEqual(len(path.read_text().splitlines()), most, name)

    def test_each_room_says_what_it_must_not_know(self) -> None:
        for room in ROOMS:
            text = ast.get_docstring(ast.parse(modules()[room].read_text())) or ""
            self.assertIn("now", text, room)  # "Knows …", "must not know …"
            self.assertGreaterEqual(len(text.splitlines()), 3, room)


class PrivateTests(SynchronousTestCase):
    def test_no_module_uses_a_private_name_of_another(self) -> None:
        owners = {name: _private_names(path.read_text()) for name, path in modules().items()}
        ours = set().union(*owners.values())
        wrong = []
        for name, path in modules().items():
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                used = _private_use(node)
                if used in ours and used not in owners[name]:
                    wrong.append(f"{name}:{node.lineno} uses {used}")
        self.assertEqual(wrong, [])


class LibraryTests(SynchronousTestCase):
    def test_each_library_is_known_where_it_may_be(self) -> None:
        for library, owners in OWNERS.items():
            for name, path in modules().items():
                imported = _libraries(ast.parse(path.read_text()))
                if library in imported:
                    self.assertTrue({name, room_of(name)} & owners, f"{name} imports {library}")

    def test_the_core_knows_the_standard_library_alone(self) -> None:
        for name, path in modules().items():
            if room_of(name) in ("core", "delivery"):
                tree = ast.parse(path.read_text())
                found = _libraries(tree, at_import=True)
                self.assertFalse(found & {"twisted", "zope", "hiredis", *OWNERS}, name)


@cache
def brought() -> dict[str, set[str]]:
    """For each door: ``sys.modules`` of a fresh interpreter that imported only this door."""
    names = {f"ws4redis_tx.{name}" for name in DOORS if name != "__init__"}
    names |= {"ws4redis_tx", "ws4redis_tx.testing", *EVERYWHERE, *NEED_DJANGO}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ordered = sorted(names)
        return dict(zip(ordered, pool.map(_brought_by, ordered), strict=True))


def _brought_by(name: str) -> set[str]:
    set_up = "import django; django.setup()" if name in NEED_DJANGO else "pass"
    program = f"{set_up}; import sys, json, {name}; print(json.dumps(list(sys.modules)))"
    result = python("-c", program, DJANGO_SETTINGS_MODULE="tests.projects.django_project.settings")
    assert result.returncode == 0, f"{name}: {result.stderr}"
    return set(json.loads(result.stdout))


class DoorTests(SynchronousTestCase):
    def assert_without(self, name: str, *roots: str) -> None:
        found = {
            module
            for module in brought()[name]
            if any(module == root or module.startswith(root + ".") for root in roots)
        }
        self.assertEqual(found, set(), f"{name} brings what it must not know")

    def test_a_door_that_django_opens_installs_no_reactor(self) -> None:
        for name in sorted(EVERYWHERE):
            self.assert_without(name, "twisted.internet.reactor", "txredisapi", "autobahn")

    def test_a_door_that_does_not_need_django_imports_none_of_it(self) -> None:
        for name in sorted(set(brought()) - NEED_DJANGO):
            self.assert_without(name, "django")

    def test_only_the_panel_brings_the_debug_toolbar(self) -> None:
        for name in sorted(set(brought()) - {"ws4redis_tx.panels"}):
            self.assert_without(name, "debug_toolbar")

    def test_the_package_itself_imports_nothing(self) -> None:
        for name in ("ws4redis_tx", "ws4redis_tx.testing"):
            ours = {each for each in brought()[name] if each.startswith("ws4redis_tx")}
            self.assertEqual(ours, {"ws4redis_tx", name})
            self.assert_without(name, "django", "twisted", "autobahn", "txredisapi", "crochet")

    def test_nothing_imports_testing(self) -> None:
        wrong = [
            str(arrow)
            for arrow in arrows()
            if room_of(arrow.imported) == "testing" and room_of(arrow.importer) != "testing"
        ]
        self.assertEqual(wrong, [])

    def test_no_package_file_hides_the_plugin(self) -> None:
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        self.assertEqual(
            [path.name for path in (ROOT / "twisted").rglob("*.py")], ["ws4redis_plugin.py"]
        )


def _at_import(tree: ast.AST) -> Iterator[ast.stmt]:
    """The import statements that run when a module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for statement in node.orelse:
                yield from _at_import(ast.Module([statement], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _at_import(node)


def _libraries(tree: ast.AST, *, at_import: bool = False) -> set[str]:
    """The first words of the modules that are imported."""
    nodes = _at_import(tree) if at_import else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module.partition(".")[0])
    return found


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def _private_names(source: str) -> set[str]:
    """The private names that a module defines: its own, its classes' and their instances'."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # __slots__
    return {name for name in found if _is_private(name)}


def _private_use(node: ast.AST) -> str | None:
    """The private name that a node takes from elsewhere, if any. A class may use its base's names
    through ``self``.
    """
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        base = node.value
        own = isinstance(base, ast.Name) and base.id in ("self", "cls")
        is_super = isinstance(base, ast.Call) and ast.unparse(base.func) == "super"
        return None if own or is_super else node.attr
    if isinstance(node, ast.alias) and _is_private(node.name):
        return node.name
    return None
