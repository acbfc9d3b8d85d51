"""The site whose channels ``CHANNELS`` names, as ``centrifuge-check`` describes their kinds."""

from __future__ import annotations

import os
from typing import Any

from django.core.exceptions import PermissionDenied

SECRET_KEY = "not the secret of the tokens"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "ws4redis_tx",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"

CHANNELS = {
    "plain": "broadcast:plain-{}",
    "hist": "broadcast:hist-{}",
    "pres": "broadcast:pres-{}",
    "closed": "broadcast:closed-{}",
    "nosuch": "nosuch:{}",
}

WS4REDIS_CONNECTION = os.environ.get("WS4REDIS_CONNECTION")
WS4REDIS_CENTRIFUGE_URL = "/connection/"
WS4REDIS_TOKEN_SECRET = "the secret of the tokens in the cases"
WS4REDIS_ENDLESS_TOKENS = True
WS4REDIS_HISTORY = {"hist-*": (10, 3600)}
WS4REDIS_PRESENCE = ["pres-*"]
WS4REDIS_PRESENCE_GRACE = 0  # the reference server has none
WS4REDIS_ALLOWED_ORIGINS = ["http://good.example"]


def WS4REDIS_ALLOWED_CHANNELS(request: Any, channels: Any) -> Any:  # noqa: N802
    """Everybody may do everything, but for one kind of channels."""
    if request.path.startswith("/ws/closed-"):
        raise PermissionDenied
    return channels
