"""``make demo`` in a fresh clone. Run as a program, it prints the seconds until the site answers:
``python -m tests.programs.test_demo``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import PATIENCE, ROOT
from tests.support.programs import OWN_GROUP, Program
from tests.support.redis import free_port

# In this order
SAID = (
    r"Installing ws4redis_tx",
    r"Preparing the demo's database",
    r"log in as john or mary, password secret",
    r"Open http://127\.0\.0\.1:{port}/",
    r"Ready: .*http://127\.0\.0\.1:{port}/",
)
UNWANTED = ("sphinx", "pytest", "mypy", "ruff", "nox", "towncrier")


def copy_of_the_files(folder: Path) -> None:
    """Copy all that is under version control, as a fresh clone would have it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copy2(ROOT / name, target)


class DemoTests(TestCase):
    timeout = 300

    @inlineCallbacks
    def test_it_installs_what_it_needs_says_what_it_does_and_serves_the_site(self) -> Any:
        if not (ROOT / ".git").exists() or not all(map(shutil.which, ("git", "make"))):
            raise SkipTest("a clone, git and make are needed (Debian: apt install git make)")
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        copy_of_the_files(folder)
        port = free_port()
        begun = time.monotonic()
        program = Program(
            sys.executable,
            *("-c", OWN_GROUP, str(shutil.which("make"))),
            *("demo", f"PORT={port}", f"PYTHON={sys.executable}"),
            folder=folder,
            MAKEFLAGS="",
            PYTHONPATH="",
        )
        program.patience = PATIENCE
        self.addCleanup(self.end, program)
        ready = program.wait_for(SAID[-1].format(port=port))
        try:
            yield ready
        except AssertionError:
            if "pip" in program.printed and "No matching distribution" in program.printed:
                raise SkipTest("pip cannot install what the demo needs") from None
            raise

        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as page:
                return page.read().decode()

        page = yield deferToThread(get)
        print(f"make demo: the site answers after {time.monotonic() - begun:.1f} s")
        self.assertIn("<b>john</b> / secret", page)
        self.assertRegex(program.printed, "(?s)" + ".*".join(SAID).format(port=port))
        (packages,) = folder.glob(".venv/lib/*/site-packages")
        installed = {each.name.lower().partition("-")[0] for each in packages.glob("*.dist-info")}
        self.assertIn("django", installed)
        self.assertEqual(installed.intersection(UNWANTED), set())

    def end(self, program: Program) -> Any:
        if program.status is None and program.signal is None:
            os.killpg(program.pid, signal.SIGINT)  # Ctrl-C
        return program.ended


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-q", "-s", __file__]))
