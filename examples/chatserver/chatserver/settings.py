"""Settings of the chat demo, for a developer's own machine.

The demo reads these environment variables:

=====================  =============================================  =======================
variable               meaning                                        default
=====================  =============================================  =======================
``CHATSERVER_DB``      the SQLite file                                ``demo.sqlite3``
``CHATSERVER_DEBUG``   ``0`` turns off Django's DEBUG                 ``1``
``WS4REDIS_CONNECTION``  the URL of Redis                             the default
``NODE_MODULES``         the folder of npm's packages, for one page   ``node_modules``
=====================  =============================================  =======================

The web server and the websocket server must see the same values.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = os.environ.get("CHATSERVER_DEBUG", "1").lower() not in {"", "0", "false", "no", "off"}
# Public, like the demo's passwords, and fixed because both servers must read the same sessions.
SECRET_KEY = "the-chat-demo-runs-on-loopback-only-and-has-no-secrets-to-keep"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ws4redis_tx",
    "chat",
]

MIDDLEWARE = [
    "chatserver.csp.strict_policy",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "chatserver.urls"
WSGI_APPLICATION = "chatserver.wsgi.application"

TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "ws4redis_tx.context_processors.default",
            ],
        },
    },
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("CHATSERVER_DB") or BASE_DIR / "demo.sqlite3",
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "index"
LOGOUT_REDIRECT_URL = "index"

LANGUAGE_CODE = "en"
USE_TZ = True
TIME_ZONE = "UTC"
STATIC_URL = "/static/"

# The page of rooms needs the library "centrifuge", which "npm install" brings, perhaps while the
# server is running already. The others do not.
NODE_MODULES = Path(os.environ.get("NODE_MODULES") or BASE_DIR / "node_modules")
STATICFILES_DIRS = [
    ("centrifuge", NODE_MODULES / "centrifuge" / "dist"),
    ("examples", BASE_DIR.parent / "shared"),
]
SILENCED_SYSTEM_CHECKS = ["staticfiles.W004"]  # that the folder is not there

# Lets a browser that was offline catch up: the last 100 messages of the last day.
WS4REDIS_HISTORY = {"foobar": (100, 86400)}
# Many channels over one connection, for the page of rooms.
WS4REDIS_CENTRIFUGE_URL = "/connection/"
# Who has a room open.
WS4REDIS_PRESENCE = ["foobar"]
# Users may tell each other that they are typing.
WS4REDIS_ALLOWED_CHANNELS = "chatserver.policies.allowed_channels"
if os.environ.get("WS4REDIS_CONNECTION"):
    WS4REDIS_CONNECTION = os.environ["WS4REDIS_CONNECTION"]
