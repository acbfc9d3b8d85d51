"""The settings under the module name that *django-websocket-redis* had.

Each attribute is read from Django whenever it is asked for: ``settings.WS4REDIS_EXPIRE``.
"""

from __future__ import annotations

from typing import Any

from ws4redis_tx import conf


def __getattr__(name: str) -> Any:
    if name not in conf.DEFAULTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return conf.get(name)
