"""The settings, under the module name that they had in *django-websocket-redis*.

Each access to an attribute, such as ``settings.WS4REDIS_EXPIRE``, reads Django's settings again.
"""

from __future__ import annotations

from typing import Any

from ws4redis_tx.config import django_settings


def __getattr__(name: str) -> Any:
    if name not in django_settings.DEFAULTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return django_settings.get(name)
