"""Programs that publish with Django, in processes of their own."""

from __future__ import annotations

from importlib.util import find_spec

from twisted.trial.unittest import SkipTest

from tests.support.programs import python
from ws4redis_tx.core.redis_address import RedisAddress

SETTINGS = "tests.projects.django_project.settings"

_PRELUDE = "import django; django.setup(); from ws4redis_tx.publisher import *\n"


def run_publisher(script: str, address: RedisAddress, *, first: str = "") -> str:
    """Run ``script`` in a process with Django and the publisher; return its output. ``first`` runs
    before anything is imported.
    """
    result = python(
        "-W",
        "error::RuntimeWarning",
        "-c",
        first + "\n" + _PRELUDE + script,
        DJANGO_SETTINGS_MODULE=SETTINGS,
        WS4REDIS_CONNECTION=str(address),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def needs(*modules: str) -> None:
    """Skip the test, and say why, unless these modules are installed."""
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        names = " ".join(missing)
        raise SkipTest(f"{names} is not installed: pip install {names}")
