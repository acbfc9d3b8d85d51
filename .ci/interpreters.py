"""The Pythons on this machine that we support: on ``PATH``, or among pyenv's.

``python3 .ci/interpreters.py`` prints a line for each, oldest first: its version and its path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

SUPPORTED = ("3.11", "3.12", "3.13", "3.14")


def found() -> dict[str, str]:
    """Paths by version, oldest first."""
    pairs = ((version, _find(version)) for version in SUPPORTED)
    return {version: path for version, path in pairs if path}


def _find(version: str) -> str | None:
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = [shutil.which(name), *sorted(map(str, pyenv.glob(f"{version}.*/bin/{name}")))]
    return next((path for path in candidates if path and _makes_environments(path)), None)


def _makes_environments(python: str) -> bool:
    # pyenv puts a shim on PATH for every version, and it fails for those that are not active.
    return (
        subprocess.run([python, "-c", "import ensurepip, venv"], capture_output=True).returncode
        == 0
    )


if __name__ == "__main__":
    for version, path in found().items():
        print(version, path)
    if not found():
        sys.exit(f"There is none of Python {', '.join(SUPPORTED)}.")
