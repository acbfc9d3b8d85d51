"""System checks: the settings that cannot work, as ``manage.py check`` reports them."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from ws4redis_tx.config import django_settings

# An id stays with its setting for good.
_IDS = {
    "WEBSOCKET_URL": "ws4redis_tx.E001",
    "WS4REDIS_CONNECTION": "ws4redis_tx.E002",
    "WS4REDIS_PREFIX": "ws4redis_tx.E003",
    "WS4REDIS_EXPIRE": "ws4redis_tx.E004",
    "WS4REDIS_SUBSCRIBER": "ws4redis_tx.E005",
    "WS4REDIS_HEARTBEAT": "ws4redis_tx.E006",
    "WS4REDIS_ALLOWED_CHANNELS": "ws4redis_tx.E007",
    "WS4REDIS_PROCESS_REQUEST": "ws4redis_tx.E008",
    "WS4REDIS_ALLOWED_ORIGINS": "ws4redis_tx.E009",
    "WS4REDIS_TIMEOUT": "ws4redis_tx.E010",
    "WS4REDIS_MAX_MESSAGE_SIZE": "ws4redis_tx.E011",
    "WS4REDIS_MAX_PENDING": "ws4redis_tx.E012",
    "WS4REDIS_MAX_CONNECTIONS": "ws4redis_tx.E013",
    "WS4REDIS_SLOW_READER": "ws4redis_tx.E014",
    "WS4REDIS_REQUIRE_ORIGIN": "ws4redis_tx.E015",
    "WS4REDIS_ON_COMMIT": "ws4redis_tx.E016",
    "WS4REDIS_TRUSTED_PROXIES": "ws4redis_tx.E017",
    "WS4REDIS_MAX_CONNECTIONS_PER_USER": "ws4redis_tx.E018",
    "WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS": "ws4redis_tx.E019",
    "WS4REDIS_MAX_AUTHORIZATIONS": "ws4redis_tx.E020",
    "WS4REDIS_RATE": "ws4redis_tx.E021",
    "WS4REDIS_COMPRESSION": "ws4redis_tx.E022",
    "WS4REDIS_RECHECK": "ws4redis_tx.E023",
    "WS4REDIS_REVOKE": "ws4redis_tx.E024",
}


def check_settings(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    return [
        Error(f"{error.setting} {error.problem}.", hint=error.remedy, id=_IDS[error.setting])
        for error in django_settings.problems()
    ]
