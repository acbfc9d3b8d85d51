"""The fuzzer's environment, made once and kept until its requirements change.

atheris has wheels for CPython 3.11 to 3.13 on Linux.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.support.environments import run, succeeds

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("3.12", "3.13", "3.11")
PACKAGES = ("atheris>=3", "hypothesis", "PyJWT", "valkey")


class NoAtheris(Exception):
    """No Python here has atheris; the error names the remedy."""


def find_python(given: str | None = None) -> str:
    """The path of a Python that atheris has wheels for: the one given, this one, one on ``PATH``,
    or one of pyenv's.
    """
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates: list[str | None] = [given] if given else [sys.executable]
    if not given:
        candidates += [shutil.which(f"python{version}") for version in VERSIONS]
        for version in VERSIONS:
            candidates += sorted(map(str, versions.glob(f"{version}.*/bin/python{version}")))
    for candidate in candidates:
        if candidate and _fits(candidate):
            return candidate
    raise NoAtheris(
        (f"atheris has no wheels for {given!r}. " if given else "")
        + "atheris needs Linux and a CPython 3.11, 3.12 or 3.13, on PATH, among pyenv's, or named "
        "with --python PATH. Install one with 'pyenv install 3.12'."
    )


def make_environment(folder: Path, python: str) -> str:
    """The path of the environment's Python; the environment is rebuilt unless it is complete and
    current.
    """
    inside = str(folder / "bin" / "python")
    # Written last, so that an unfinished environment is never used.
    label = folder / "made-from.txt"
    wanted = "\n".join([python, *PACKAGES, (ROOT / "setup.py").read_text()])
    if label.is_file() and label.read_text() == wanted and succeeds(inside, "-c", "import atheris"):
        return inside
    shutil.rmtree(folder, ignore_errors=True)
    run(python, "-m", "venv", str(folder))
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--only-binary=atheris", *PACKAGES)
    run(*pip, "--editable", str(ROOT))
    label.write_text(wanted)
    return inside


def _fits(python: str) -> bool:
    versions = tuple(tuple(map(int, version.split("."))) for version in VERSIONS)
    return succeeds(
        python,
        "-c",
        "import platform, sys; "
        f"assert sys.platform == 'linux' and sys.version_info[:2] in {versions}; "
        "assert platform.python_implementation() == 'CPython'",
    )
