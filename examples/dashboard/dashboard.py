"""A dashboard with a live plot: settings, readings, views and URLs in one module.

Run it in this folder::

    twistd --nodaemon ws4redis --settings dashboard --serve-django --embedded-redis \
        --listen tcp:8000:interface=127.0.0.1

Then open http://127.0.0.1:8000/. A thread publishes 40 readings in a second, as a program that
measures would. A browser that cannot keep up must not fall behind, so with the policy ``latest`` it
gets the newest reading and none of the older ones that still wait. ``READINGS_PER_SECOND`` changes
the rate, ``WS4REDIS_CONNECTION`` names the Redis server.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

HERE = Path(__file__).resolve().parent
RATE = float(os.environ.get("READINGS_PER_SECOND", "40"))
FACILITY = "readings"

DEBUG = True
# Public: the example runs on loopback only.
SECRET_KEY = "the-dashboard-runs-on-loopback-only-and-has-no-secrets-to-keep"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = __name__
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ws4redis_tx",
]
MIDDLEWARE = [f"{__name__}.strict_policy"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [HERE / "templates"],
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    },
]
STATIC_URL = "/static/"
STATICFILES_DIRS = [("dashboard", HERE / "static"), ("examples", HERE.parent / "shared")]

# A slow browser gets the newest reading.
WS4REDIS_SLOW_READER = "latest"
WS4REDIS_MAX_PENDING = 64 * 1024
if "WS4REDIS_CONNECTION" in os.environ:
    WS4REDIS_CONNECTION = os.environ["WS4REDIS_CONNECTION"]

# The key, title and unit of what is measured, and its usual value
MEASURED = (
    ("wind", "Wind", "m/s", 9.0),
    ("power", "Power", "MW", 2.4),
    ("rotor", "Rotor", "rpm", 14.0),
)


def readings() -> Iterator[dict[str, Any]]:
    """What a wind turbine might measure, without end. They are numbered."""
    gust = 0.0
    for number in itertools.count(1):
        gust = 0.97 * gust + random.gauss(0, 0.35)
        wind = max(0.0, 9 + 2 * math.sin(number / 90) + gust)
        power = 3.6 / (1 + math.exp((9 - wind) / 1.4))
        rotor = min(19.0, 5 + wind + random.gauss(0, 0.15))
        values = {"wind": round(wind, 2), "power": round(power, 3), "rotor": round(rotor, 2)}
        yield {"number": number, "at": round(time.time(), 3), "values": values}


def publish_for_ever() -> None:
    from ws4redis_tx.core.errors import BrokerUnavailable
    from ws4redis_tx.publisher import RedisPublisher

    publisher = RedisPublisher(facility=FACILITY, broadcast=True)
    for reading in readings():
        with suppress(BrokerUnavailable):  # the next reading follows
            publisher.publish_json(reading)
        time.sleep(1 / RATE)


_first = threading.Lock()  # taken by the first visitor, and never released


def start_measuring() -> None:
    """Once in a process. Yours is a program of its own, and publishes in the same way."""
    if RATE > 0 and _first.acquire(blocking=False):
        threading.Thread(target=publish_for_ever, daemon=True).start()


def dashboard(request: HttpRequest) -> HttpResponse:
    start_measuring()
    return render(request, "dashboard.html", {"measured": MEASURED, "facility": FACILITY})


def strict_policy(get_response: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """No inline script, no other host. Django 6 has a middleware for it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; object-src 'none'"
        return response

    return middleware


urlpatterns = [path("", dashboard)]
