"""Other people's tests, run as they run them: by pytest or Django, in processes and folders of
their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import ROOT

# crochet's own
_WARNINGS = ("-W", "error", "-W", "ignore:isSet:DeprecationWarning")

DJANGO_SETTINGS = """
from tests.projects.django_project.settings import *

WS4REDIS_REVOKE = True
WS4REDIS_CONNECTION = "redis://127.0.0.1:1"
"""


def run_pytest(tests: str, *options: str, **variables: str) -> str:
    """What pytest printed of a file ``tests``; all of them passed."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        (Path(folder) / "test_project.py").write_text(tests)
        printed = _run(
            folder,
            ["-m", "pytest", *_WARNINGS, "-rA", *options],
            [str(ROOT)],
            variables,
        )
    assert f"{tests.count('def test_')} passed" in printed, printed
    return printed


def run_django_tests(tests: str, settings: str = DJANGO_SETTINGS, *options: str) -> None:
    """``manage.py test`` of a file ``tests``; all of them passed. The settings may use ``HERE``."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        (Path(folder) / "user_settings.py").write_text(f"HERE = {folder!r}\n{settings}")
        (Path(folder) / "test_project.py").write_text(tests)
        printed = run_django(
            folder, "-m", "django", "test", *options, DJANGO_SETTINGS_MODULE="user_settings"
        )
    assert f"Ran {tests.count('def test_')} tests" in printed.replace(" test in", " tests in"), (
        printed
    )


def run_django(folder: str | Path, *arguments: str, **variables: str) -> str:
    printed = _run(folder, [*_WARNINGS, *arguments], [str(folder), str(ROOT)], variables)
    assert "\nOK\n" in printed, printed
    return printed


def _run(
    folder: str | Path, arguments: list[str], paths: list[str], variables: dict[str, str]
) -> str:
    inherited = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr
