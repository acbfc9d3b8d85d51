"""Settings, for a developer's own machine.

``EXPORTS_DB`` names the SQLite file, ``NODE_MODULES`` the folder of npm's packages,
``EXPORT_SECONDS`` how long a task takes, ``WS4REDIS_CONNECTION`` the Redis server.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
NODE_MODULES = Path(os.environ.get("NODE_MODULES", HERE / "node_modules"))
EXPORT_SECONDS = float(os.environ.get("EXPORT_SECONDS", "8"))

DEBUG = True
# Public, like the passwords: the example runs on loopback only.
SECRET_KEY = "the-exports-run-on-loopback-only-and-have-no-secrets-to-keep"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ws4redis_tx",
    "exports",
]
MIDDLEWARE = [
    "exports.views.strict_policy",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "exports.urls"
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "index"
LOGOUT_REDIRECT_URL = "login"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("EXPORTS_DB", HERE / "exports.sqlite3"),
        # Views and tasks write at the same time.
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20},
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
            ],
        },
    },
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [
    ("htmx", NODE_MODULES / "htmx.org" / "dist"),
    ("htmx", NODE_MODULES / "htmx-ext-sse" / "dist"),
    ("examples", HERE.parent / "shared"),
]
SILENCED_SYSTEM_CHECKS = ["staticfiles.W004"]  # before "npm install" there are no such folders

# A page that was offline gets what it missed.
WS4REDIS_HISTORY = {"exports": (100, 3600)}
if "WS4REDIS_CONNECTION" in os.environ:
    WS4REDIS_CONNECTION = os.environ["WS4REDIS_CONNECTION"]
