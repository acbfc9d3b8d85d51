"""Looks up visitors one after another in one thread, as Django itself would.

``python -m benchmarks.site.lookups`` reads session keys, one on each line, and prints the µs of CPU
per lookup.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import django

_WARM = 50


def look_up(session_key: str) -> list[str]:
    """Read the session, its user and the user's groups; return their names."""
    from django.contrib.auth import get_user
    from django.contrib.sessions.backends.db import SessionStore
    from django.http import HttpRequest

    request = HttpRequest()
    request.session = SessionStore(session_key)
    user = get_user(request)
    if not user.is_authenticated:
        raise SystemExit("A visitor is not logged in.")
    return list(user.groups.values_list("name", flat=True))


def measure(session_keys: Sequence[str]) -> float:
    """Return the µs of CPU per lookup."""
    for session_key in session_keys[:_WARM]:
        look_up(session_key)
    before = time.thread_time()
    for session_key in session_keys:
        look_up(session_key)
    return (time.thread_time() - before) / len(session_keys) * 1e6


if __name__ == "__main__":
    django.setup()
    print(measure(sys.stdin.read().split()))
