"""The package ``ws4redis`` of npm, installed as users do: with its types, and in Node."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.views import serve
from django.test import RequestFactory
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import ws4redis_tx
from tests.support import ROOT
from tests.support.npm import node_modules
from tests.support.programs import Program
from tests.support.sites import ContractTestCase

FOLDER = ROOT / "ws4redis_tx" / "static" / "js"
PROJECT = ROOT / "tests" / "projects" / "client"
TYPESCRIPT = ROOT / "tests" / "support" / "typescript.json"

RESOLUTIONS = (("nodenext", "nodenext"), ("esnext", "bundler"))
"""Values of ``module`` and ``moduleResolution``."""


def install(folder: Path) -> None:
    """Pack it, and install it into a project in ``folder``. Blocks."""
    npm = shutil.which("npm")
    if npm is None:
        raise SkipTest("there is no npm (Debian: apt install npm)")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    options = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--offline")
    for command in (
        (npm, "pack", "--ignore-scripts", str(FOLDER)),
        (npm, "install", *options, f"./ws4redis-{ws4redis_tx.__version__}.tgz"),
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def node() -> list[str]:
    """The command of a Node that has websockets."""
    found = shutil.which("node")
    if found is None:
        raise SkipTest("there is no node (Debian: apt install nodejs)")
    shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = [int(number) for number in re.findall(r"\d+", shown)]
    if version < [20, 10]:
        raise SkipTest(f"Node {shown.strip()} has no websockets: 20.10 has them, 22 by default")
    return [found] if version >= [22] else [found, "--experimental-websocket", "--no-warnings"]


class PackageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def test_its_version_is_that_of_the_server(self) -> None:
        described = json.loads((FOLDER / "package.json").read_text())
        self.assertEqual(described["version"], ws4redis_tx.__version__)

    def test_it_has_the_module_and_its_types_and_nothing_else(self) -> None:
        install(self.folder)
        installed = self.folder / "node_modules" / "ws4redis"
        self.assertEqual(
            sorted(each.name for each in installed.iterdir()),
            ["package.json", "ws4redis.d.mts", "ws4redis.mjs"],
        )
        for name in ("ws4redis.mjs", "ws4redis.d.mts"):
            self.assertEqual((installed / name).read_bytes(), (FOLDER / name).read_bytes())

    def test_strict_typescript_takes_the_types_and_a_users_file_and_finds_mistakes(self) -> None:
        compiler = node_modules(TYPESCRIPT) / ".bin" / "tsc"
        install(self.folder)
        shutil.copy(PROJECT / "page.ts", self.folder)
        for module, resolution in RESOLUTIONS:
            done = subprocess.run(
                [
                    *(compiler, "--strict", "--exactOptionalPropertyTypes", "--noEmit"),
                    *("--target", "es2022", "--lib", "es2022,dom"),
                    *("--module", module, "--moduleResolution", resolution),
                    *("page.ts", "node_modules/ws4redis/ws4redis.d.mts"),
                ],
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual((done.stdout, done.returncode), ("", 0))

    def test_the_declarations_name_what_the_module_exports(self) -> None:
        exported = re.findall(r"^export (?:async )?function (\w+)", self.text("mjs"), re.MULTILINE)
        declared = re.findall(r"^export function (\w+)", self.text("d.mts"), re.MULTILINE)
        self.assertEqual(exported, ["connect"])
        self.assertEqual(set(declared), set(exported))

    def test_django_serves_the_module_as_javascript(self) -> None:
        """A browser runs no module of another type."""
        response = serve(RequestFactory().get("/"), "js/ws4redis.mjs", insecure=True)
        self.addCleanup(response.close)
        self.assertRegex(response["Content-Type"], r"^(text|application)/javascript\b")

    def text(self, ending: str) -> str:
        return (FOLDER / f"ws4redis.{ending}").read_text()


class InNodeTests(ContractTestCase):
    @inlineCallbacks
    def test_a_users_program_talks_to_the_server(self) -> Any:
        command = node()
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        yield deferToThread(install, folder)
        shutil.copy(PROJECT / "hear.mjs", folder)
        yield self.serve(
            WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all",
            WS4REDIS_HISTORY={"node": (10, 60)},
        )
        url = f"{self.url}node?subscribe-broadcast&publish-broadcast&echo"
        program = Program(*command, "hear.mjs", url, folder=folder)
        self.addCleanup(program.end)
        yield program.wait_for("heard hello\n")
        yield self.publish("again", facility="node", broadcast=True)
        yield program.wait_for("heard again")
        yield program.ended
        self.assertEqual(program.status, 0)
        lines = program.printed.splitlines()
        self.assertEqual(lines[:3], ["connecting null null", "open websocket null", "sent true"])
        self.assertIn("open websocket []", lines)
        self.assertEqual(lines[-1], "closed null null")
        self.assertEqual(len([line for line in lines if line.startswith("heard")]), 2)
