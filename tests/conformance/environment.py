"""The Testsuite's environment with Python 2.7, made once and kept until its requirements change.

The Testsuite never left Python 2. ``virtualenv`` before 20.22 can still make an environment for
it; we install that version into a temporary folder.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.support.environments import run, succeeds

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
TESTSUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv<20.22"


class NoPython2(Exception):
    """The Testsuite cannot run, because there is no Python 2.7."""


def find_python2(given: str | None = None) -> str:
    """The path of a Python 2.7 that runs: the one given, or on ``PATH``, or one of pyenv's."""
    on_path = [shutil.which(name) for name in ("python2.7", "python2")]
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(map(str, versions.glob("2.7*/bin/python2.7")), reverse=True)
    for candidate in [given] if given else [*on_path, *installed]:
        if candidate and _is_python2(candidate):
            return candidate
    if given:
        raise NoPython2(f"{given!r} is not a working Python 2.7. Name another, or omit the option.")
    raise NoPython2(
        "No Python 2.7 was found on PATH or among pyenv's. The Autobahn Testsuite needs one: "
        "Install it with 'pyenv install 2.7.18', or name one with --python2 PATH."
    )


def make_environment(folder: Path, python2: str) -> Path:
    """The path of ``wstest`` in ``folder``, which is rebuilt unless it is complete and current."""
    wstest = folder / "bin" / "wstest"
    # Written last, so that an unfinished environment is never used.
    label = folder / "made-from.txt"
    wanted = f"{python2}\n{TESTSUITE}\n{REQUIREMENTS.read_text()}"
    if label.is_file() and label.read_text() == wanted and succeeds(str(wstest), "-a"):
        return wstest
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as tool:
        run(sys.executable, "-m", "venv", tool)
        run(f"{tool}/bin/python", "-m", "pip", "install", VIRTUALENV)
        run(f"{tool}/bin/virtualenv", "--python", python2, str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install"]
    run(*pip, "--requirement", str(REQUIREMENTS))
    run(*pip, "--no-deps", "--no-build-isolation", TESTSUITE)
    label.write_text(wanted)
    return wstest


def _is_python2(path: str) -> bool:
    return succeeds(path, "-c", "import sys; assert sys.version_info[:2] == (2, 7)")
