"""Headlines that appear by server-sent events: settings, views and URLs in one module. One page has
a bare ``EventSource``, another one has htmx.

Run it in this folder::

    npm install
    twistd --nodaemon ws4redis --settings newsroom --serve-django --embedded-redis \
        --listen tcp:8000:interface=127.0.0.1

Then open http://127.0.0.1:8000/ and http://127.0.0.1:8000/htmx/. Only the second needs the files of
htmx, which the first line of the above brings. ``HEADLINES`` names the file of the headlines, which
takes the place of your database; ``WS4REDIS_CONNECTION`` the Redis server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.views.decorators.http import require_POST

HERE = Path(__file__).resolve().parent
HEADLINES = Path(os.environ.get("HEADLINES", HERE / "headlines.txt"))
NODE_MODULES = Path(os.environ.get("NODE_MODULES", HERE / "node_modules"))

DEBUG = True
# Public: the example runs on loopback only.
SECRET_KEY = "the-newsroom-runs-on-loopback-only-and-has-no-secrets-to-keep"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = __name__
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ws4redis_tx",
]
MIDDLEWARE = [f"{__name__}.strict_policy", "django.middleware.csrf.CsrfViewMiddleware"]
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
STATICFILES_DIRS = [
    ("events", HERE / "static"),
    ("examples", HERE.parent / "shared"),
    ("htmx", NODE_MODULES / "htmx.org" / "dist"),
    ("htmx", NODE_MODULES / "htmx-ext-sse" / "dist"),
]
SILENCED_SYSTEM_CHECKS = ["staticfiles.W004"]  # before "npm install" some are not there

WS4REDIS_HISTORY = {"news": (100, 3600)}
if "WS4REDIS_CONNECTION" in os.environ:
    WS4REDIS_CONNECTION = os.environ["WS4REDIS_CONNECTION"]


def item(id: str, text: str) -> SafeString:
    """A headline as HTML. By its id, a page knows whether it shows it already."""
    return format_html('<li id="{}">{}</li>', id, text)


def items() -> SafeString:
    lines = HEADLINES.read_text().splitlines() if HEADLINES.exists() else []
    return format_html_join("", "{}", ((item(*line.split(" ", 1)),) for line in lines))


def plain(request: HttpRequest) -> HttpResponse:
    return render(request, "plain.html", {"items": items()})


def htmx(request: HttpRequest) -> HttpResponse:
    return render(request, "htmx.html", {"items": items()})


def headlines(request: HttpRequest) -> HttpResponse:
    """All of them again, for a page that may have missed some."""
    return HttpResponse(items())


@require_POST
def publish(request: HttpRequest) -> HttpResponse:
    """Store a headline, then publish it, so that a page that hears of it can also load it."""
    from ws4redis_tx.publisher import RedisPublisher

    id, text = f"h{uuid.uuid4().hex}", " ".join(request.POST["headline"].split())
    with HEADLINES.open("a") as file:
        file.write(f"{id} {text}\n")
    publisher = RedisPublisher(facility="news", broadcast=True)
    publisher.publish_message(item(id, text))
    return HttpResponse(status=204)


def strict_policy(get_response: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """No inline script or style, no other host. Django 6 has a middleware for it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; object-src 'none'"
        return response

    return middleware


urlpatterns = [
    path("", plain),
    path("htmx/", htmx),
    path("headlines/", headlines, name="headlines"),
    path("publish/", publish, name="publish"),
]
