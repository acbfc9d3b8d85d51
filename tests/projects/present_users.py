"""Settings of a site whose visitors say themselves who they are, in a cookie."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

SECRET_KEY = "secret"
ALLOWED_HOSTS = ["127.0.0.1"]
USE_TZ = True
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "ws4redis_tx"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}

WS4REDIS_CONNECTION = os.environ.get("WS4REDIS_CONNECTION")
WS4REDIS_CENTRIFUGE_URL = "/connection/"
WS4REDIS_PRESENCE = ["room"]
WS4REDIS_PRESENCE_GRACE = 10
WS4REDIS_RECHECK = 0


def _named(name: str) -> Any:
    groups = SimpleNamespace(values_list=lambda *args, **kwargs: [])
    return SimpleNamespace(
        pk=name,
        is_authenticated=True,
        is_active=True,
        username=name,
        groups=groups,
        get_username=lambda: name,
    )


def WS4REDIS_PROCESS_REQUEST(request: Any) -> None:  # noqa: N802
    name = request.COOKIES.get("name")
    request.session = None
    request.user = _named(name) if name else None
