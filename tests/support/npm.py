"""Packages of npm, for tests that need other people's JavaScript."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.support import ROOT

_OPTIONS = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock")


def node_modules(package_json: Path) -> Path:
    """The folder with the packages that this file names. Installs them at first, without running
    their scripts; blocks. Skips the test where that cannot be done.
    """
    found = _installed(package_json.read_text())
    if isinstance(found, str):
        raise SkipTest(found)
    return found


@cache
def _installed(package_json: str) -> Path | str:
    npm = shutil.which("npm")
    if npm is None:
        return "there is no npm (Debian: apt install npm)"
    parent = ROOT / "build" / "npm"
    folder = parent / hashlib.sha256(package_json.encode()).hexdigest()[:16]
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        # Several test processes may do this at a time.
        with tempfile.TemporaryDirectory(dir=parent) as made:
            (Path(made) / "package.json").write_text(package_json)
            try:
                done = subprocess.run(
                    [npm, "install", *_OPTIONS],
                    cwd=made,
                    capture_output=True,
                    text=True,
                    timeout=300,
                )
            except subprocess.TimeoutExpired:
                return "npm does not get an answer from its registry"
            if done.returncode:
                return f"npm cannot install its packages: {done.stderr.strip()[-300:]}"
            try:
                os.rename(Path(made), folder)
            except OSError:
                assert folder.exists()  # another process has
            else:
                Path(made).mkdir()  # for the end of the block
    return folder / "node_modules"
