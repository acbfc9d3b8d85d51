"""Settings of the two shops, for a developer's own machine.

``SHOPS_FOLDER`` names the folder of their databases, ``WS4REDIS_CONNECTION`` the Redis server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SHOPS = ("acme", "bolt")

_FOLDER = Path(os.environ.get("SHOPS_FOLDER", Path(__file__).resolve().parent.parent))

DEBUG = True
# Public, like the passwords: both shops run on loopback only.
SECRET_KEY = "the-shops-run-on-loopback-only-and-have-no-secrets-to-keep"
ALLOWED_HOSTS = [f"{shop}.localhost" for shop in SHOPS]

DATABASES: dict[str, dict[str, Any]] = {
    # A query that no tenant is known for must fail.
    "default": {},
    **{
        shop: {"ENGINE": "django.db.backends.sqlite3", "NAME": _FOLDER / f"{shop}.sqlite3"}
        for shop in SHOPS
    },
}
DATABASE_ROUTERS = ["shops.tenancy.Router"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "ws4redis_tx",
    "shops",
]

MIDDLEWARE = [
    "shops.tenancy.middleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]

ROOT_URLCONF = "shops.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "index"
LOGOUT_REDIRECT_URL = "login"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]

WS4REDIS_TENANT = "shops.tenancy.tenant_of"
if "WS4REDIS_CONNECTION" in os.environ:
    WS4REDIS_CONNECTION = os.environ["WS4REDIS_CONNECTION"]
