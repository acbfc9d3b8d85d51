"""Ready-made values for ``WS4REDIS_ALLOWED_CHANNELS``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def allow_all(request: Any, channels: Sequence[str]) -> Sequence[str]:
    """Grant every requested right, as *django-websocket-redis* did: every visitor may publish to
    everybody.
    """
    return channels
