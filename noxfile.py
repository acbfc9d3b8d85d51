"""The matrix: each Python that is found, with the oldest and the newest Django and Twisted.

``nox`` alone runs all tests on the oldest and the newest Python; ``nox --list`` shows the rest, and
``nox --session "tests-3.12(oldest)" -- tests/unit`` runs a part of one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent / ".ci"))
from interpreters import SUPPORTED, found

OLDEST = Path("tests") / "oldest.txt"
# Twisted before 26.10 does not close its socket when the port is taken.
FORGOTTEN_SOCKETS = ("-W", "ignore:unclosed <socket:ResourceWarning")
PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")

pythons = found()
absent = [version for version in SUPPORTED if version not in pythons]
if absent:
    print(f"NOT tested, as it is not on this machine: Python {', '.join(absent)}", file=sys.stderr)
# nox looks for interpreters on PATH only.
for path in pythons.values():
    os.environ["PATH"] = f"{Path(path).parent}:{os.environ['PATH']}"

nox.needs_version = ">=2024.4"
nox.options.default_venv_backend = "venv"
nox.options.pythons = [*pythons][:1] + [*pythons][1:][-1:]


@nox.session(python=[*pythons])
@nox.parametrize(
    ("django", "twisted"),
    [
        nox.param("oldest", "oldest", id="oldest"),
        nox.param("newest", "newest", id="newest"),
        nox.param("oldest", "newest", id="oldest-django"),
        nox.param("newest", "oldest", id="oldest-twisted"),
    ],
)
def tests(session: nox.Session, django: str, twisted: str) -> None:
    """All tests. "Twisted" stands for every dependency but Django and django-debug-toolbar."""
    # nox would make its own temporary folder that of the tests, and its path is too long for the
    # Unix sockets in there.
    constraints = Path(session.virtualenv.location) / "constraints.txt"
    lines = (Path(__file__).parent / OLDEST).read_text().splitlines()
    chosen = [
        line for line in lines
        if (django if "django" in line.lower() else twisted) == "oldest"
    ]  # fmt: skip
    constraints.write_text("\n".join(chosen) + "\n")
    session.install("--constraint", str(constraints), "--editable", ".[embedded,test]")
    options = FORGOTTEN_SOCKETS if twisted == "oldest" else ()
    session.run("python", "-m", "pytest", *PARALLEL, *options, *(session.posargs or ["tests"]))
