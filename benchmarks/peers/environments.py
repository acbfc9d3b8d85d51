"""Installs the Python and Node packages of other people's servers in subfolders that git ignores.

This neither touches the machine's own Python nor starts a service. Each server is installed on
demand, and again when its requirements change.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from benchmarks.build import BUILD
from tests.support.environments import clean_variables, succeeds

_HERE = Path(__file__).resolve().parent
_PACKAGES = _HERE / "package.json"
# For one command, in seconds.
_PATIENCE = 900

# A reason must fit into a table.
_REASON_LENGTH = 300

Given = ParamSpec("Given")
Installed = TypeVar("Installed")


class Unavailable(Exception):
    """A server cannot be installed here; the text says why."""


class _Reason(str):
    """Why something is unavailable."""


def once(install: Callable[Given, Installed]) -> Callable[Given, Installed]:
    """Like ``functools.cache``, and what is ``Unavailable`` is not tried again either."""

    @cache
    def tried(*given: Given.args, **options: Given.kwargs) -> Installed | _Reason:
        try:
            return install(*given, **options)
        except Unavailable as error:
            return _Reason(error)

    @wraps(install)
    def installed(*given: Given.args, **options: Given.kwargs) -> Installed:
        found = tried(*given, **options)
        if isinstance(found, _Reason):
            raise Unavailable(found)
        return found

    return installed


@dataclass(frozen=True)
class Environment:
    """A program with its packages."""

    program: str
    versions: Mapping[str, str]
    """The versions of the packages."""


def python_with_channels() -> Environment:
    """Return a Python that has Channels, Daphne and uvicorn."""
    return _python("channels", _HERE / "requirements.txt")


def python_with_websockets() -> Environment:
    """Return a Python that has the websocket libraries for asyncio."""
    return _python("asyncio", _HERE / "asyncio_servers" / "requirements.txt")


@once
def _python(name: str, requirements: Path) -> Environment:
    folder = BUILD / name
    python = str(folder / "bin" / "python")
    # Written last, so that an unfinished environment is not used.
    label = folder / "made-from.txt"
    wanted = f"{sys.version}\n{requirements.read_text()}"
    if not (label.is_file() and label.read_text() == wanted and succeeds(python, "-V")):
        shutil.rmtree(folder, ignore_errors=True)
        make(sys.executable, "-m", "venv", str(folder))
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install"]
        make(*pip, "--requirement", str(requirements))
        label.write_text(wanted)
    return Environment(python, _python_versions(python, requirements))


@once
def npm_packages(packages: Path = _PACKAGES) -> Path:
    """Return the folder with the packages in a ``package.json``. Their scripts were not run."""
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(
            "its packages come from npm, and there is no npm (Debian: apt install npm)"
        )
    folder = BUILD / ("npm" if packages == _PACKAGES else packages.parent.name)
    wanted = packages.read_text()
    label = folder / "made-from.txt"
    if not (label.is_file() and label.read_text() == wanted):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(packages, folder)
        quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        make(npm, "install", "--prefix", str(folder), "--ignore-scripts", *quiet)
        label.write_text(wanted)
    return folder / "node_modules"


def node_with(*packages: str) -> Environment:
    """Return Node with the versions of some of ``npm_packages()``."""
    folder = npm_packages()
    node = shutil.which("node")
    if node is None:
        raise Unavailable("it needs Node, and there is no node (Debian: apt install nodejs)")
    versions = {"Node": make(node, "--version").strip().removeprefix("v")}
    return Environment(node, {**versions, **_npm_versions(folder, *packages)})


def bun_with(*packages: str) -> Environment:
    """Return Bun with the versions of some of ``npm_packages()``."""
    folder = npm_packages()
    # npm installs the package for this processor and C library, if there is one.
    for found in sorted(folder.glob("@oven/bun-*/bin/bun")):
        versions = {"Bun": make(str(found), "--version").strip()}
        return Environment(str(found), {**versions, **_npm_versions(folder, *packages)})
    raise Unavailable("npm has no package @oven/bun-… in package.json for this machine")


def _npm_versions(folder: Path, *packages: str) -> dict[str, str]:
    return {
        name: json.loads((folder / name / "package.json").read_text())["version"]
        for name in packages
    }


def _python_versions(python: str, requirements: Path) -> dict[str, str]:
    """Return the installed versions of the packages in ``requirements``."""
    lines = requirements.read_text().splitlines()
    names = [line.partition("==")[0] for line in lines if "==" in line]
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    return dict(zip(names, make(python, "-c", code, *names).split(), strict=True))


def make(*command: str) -> str:
    """Run a command and return its output."""
    name = " ".join([Path(command[0]).name, *command[1:3]])
    try:
        done = subprocess.run(
            command,
            env=clean_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} did not finish within {_PATIENCE} s") from error
    except OSError as error:
        raise Unavailable(f"{name}: {error.strerror}") from error
    if done.returncode:
        said = " ".join(done.stdout.strip().splitlines()[-3:])
        raise Unavailable(f"{name} failed: {said[-_REASON_LENGTH:]}")
    return done.stdout
