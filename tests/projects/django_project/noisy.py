"""The demo's settings, with a callback that writes 200 kB at each handshake: with `print`, and into
Django's log, which goes to standard error.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from tests.projects.django_project.settings import *  # noqa: F403


def noisy(request: Any, rights: Iterable[str]) -> Iterable[str]:
    for _ in range(10):
        print("x" * 10_000)
        logging.getLogger("site").warning("y" * 10_000)
    return rights


LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"]},
}
WS4REDIS_ALLOWED_CHANNELS = noisy
