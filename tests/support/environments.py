"""Environments for programs that need another Python."""

from __future__ import annotations

import os
import subprocess


class EnvironmentFailed(Exception):
    """The environment could not be made; the text is the failed command and its output."""


def clean_variables() -> dict[str, str]:
    """The environment variables of this process, without those that would affect another Python."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "VIRTUAL_ENV"
    }


def succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, env=clean_variables(), capture_output=True).returncode == 0
    except OSError:
        return False


def run(*command: str) -> None:
    done = subprocess.run(
        command,
        env=clean_variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise EnvironmentFailed(f"{' '.join(command)} failed:\n{done.stdout}")
