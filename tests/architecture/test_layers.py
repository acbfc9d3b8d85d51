"""The layers: what each module may bring along when it is imported, in a fresh interpreter."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.support import ROOT
from tests.support.programs import python

PACKAGE = ROOT / "ws4redis_tx"

# Modules that Django, or an application's own code, imports wherever it runs.
EVERYWHERE = {
    "ws4redis_tx",
    "ws4redis_tx.apps",
    "ws4redis_tx.threads.bridge",
    "ws4redis_tx.django.checks",
    "ws4redis_tx.config.django_settings",
    "ws4redis_tx.context_processors",
    "ws4redis_tx.policies",
    "ws4redis_tx.publisher",
    "ws4redis_tx.threads.reactor_thread",
    "ws4redis_tx.django.receivers",
    "ws4redis_tx.redis_store",
    "ws4redis_tx.django.revoking",
    "ws4redis_tx.settings",
    "ws4redis_tx.signals",
    "ws4redis_tx.subscriber",
    "ws4redis_tx.tickets",
}
DJANGO = EVERYWHERE - {"ws4redis_tx", "ws4redis_tx.policies", "ws4redis_tx.redis_store"} | {
    "ws4redis_tx.django.authorizer",
    "ws4redis_tx.django.databases",
    "ws4redis_tx.django.site",
    "ws4redis_tx.django.signal_hooks",
    "ws4redis_tx.templatetags",
    "ws4redis_tx.templatetags.ws4redis",
    "ws4redis_tx.testing.capture",
    "ws4redis_tx.testing.live",
}


def module_names() -> list[str]:
    names = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names.append(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return sorted(names)


@cache
def imports() -> dict[str, set[str]]:
    """For each module of ours: ``sys.modules`` of a fresh interpreter that imported it alone.

    Django's part is imported as Django does it, by a process with settings.
    """
    names = module_names()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(imported_by, names), strict=True))


def imported_by(name: str) -> set[str]:
    set_up = "import django; django.setup()" if name in DJANGO else "pass"
    program = f"{set_up}; import sys, json, {name}; print(json.dumps(list(sys.modules)))"
    result = python("-c", program, DJANGO_SETTINGS_MODULE="tests.projects.django_project.settings")
    assert result.returncode == 0, f"{name}: {result.stderr}"
    return set(json.loads(result.stdout))


class LayersTests(TestCase):
    def assert_without(self, name: str, *roots: str) -> None:
        brought = {
            module
            for module in imports()[name]
            if any(module == root or module.startswith(root + ".") for root in roots)
        }
        self.assertEqual(brought, set(), f"{name} brings what it must not know")

    def test_every_module_is_seen(self) -> None:
        self.assertIn("ws4redis_tx.delivery.hub", imports())
        self.assertEqual(len(imports()), len(list(PACKAGE.rglob("*.py"))))

    def test_core_knows_neither_reactor_nor_redis_nor_websocket_library_nor_django(self) -> None:
        for name in imports():
            if name.startswith("ws4redis_tx.core"):
                self.assert_without(name, "twisted", "autobahn", "txredisapi", "django", "crochet")
                self.assert_without(name, "ws4redis_tx.server", "ws4redis_tx.service")

    def test_server_knows_no_django_and_nothing_above_it(self) -> None:
        above = [
            f"ws4redis_tx.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__"
        ] + ["ws4redis_tx.testing"]
        for name in imports():
            if name.startswith("ws4redis_tx.server"):
                self.assert_without(name, "django", *above)

    def test_autobahn_and_txredisapi_stand_in_their_modules_alone(self) -> None:
        for word, *owners in (
            (
                "autobahn",
                "websocket/factory",
                "websocket/incoming",
                "websocket/shared_attributes",
                "websocket/transport",
            ),
            ("txredisapi", "redis/protocol"),
        ):
            importers = sorted(
                path
                for path in PACKAGE.rglob("*.py")
                if f"\nimport {word}" in path.read_text() or f"\nfrom {word}" in path.read_text()
            )
            self.assertEqual(importers, [PACKAGE / f"{each}.py" for each in owners])

    def test_what_django_loads_installs_no_reactor(self) -> None:
        for name in sorted(EVERYWHERE | {"ws4redis_tx.testing.capture"}):
            self.assert_without(name, "twisted.internet.reactor", "txredisapi", "autobahn")

    def test_the_package_itself_imports_nothing(self) -> None:
        self.assertEqual(
            {name for name in imports()["ws4redis_tx"] if name.startswith("ws4redis_tx")},
            {"ws4redis_tx"},
        )
        self.assert_without("ws4redis_tx", "django", "twisted", "autobahn", "txredisapi", "crochet")

    def test_without_django_the_server_imports_none_of_it(self) -> None:
        for name in set(imports()) - DJANGO:
            self.assert_without(name, "django")

    def test_nothing_imports_testing(self) -> None:
        for name in imports():
            if not name.startswith("ws4redis_tx.testing"):
                self.assert_without(name, "ws4redis_tx.testing")

    def test_testing_itself_imports_nothing(self) -> None:
        name = "ws4redis_tx.testing"
        self.assertEqual(
            {each for each in imports()[name] if each.startswith("ws4redis_tx")},
            {"ws4redis_tx", name},
        )
        self.assert_without(name, "django", "twisted", "autobahn", "txredisapi", "crochet")

    def test_no_package_file_hides_the_plugin(self) -> None:
        self.assertEqual(list((ROOT / "twisted").rglob("__init__.py")), [])
        self.assertEqual(
            [path.name for path in Path(ROOT / "twisted").rglob("*.py")], ["ws4redis_plugin.py"]
        )
