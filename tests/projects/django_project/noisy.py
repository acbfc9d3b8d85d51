"""The demo's settings, with a callback that writes 100 kB into the log at each handshake."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.projects.django_project.settings import *  # noqa: F403


def noisy(request: Any, rights: Iterable[str]) -> Iterable[str]:
    for _ in range(10):
        print("x" * 10_000)
    return rights


WS4REDIS_ALLOWED_CHANNELS = noisy
