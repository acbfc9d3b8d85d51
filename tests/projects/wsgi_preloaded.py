"""An application for preloading servers: it publishes when it is loaded, and at each request."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.projects.django_project.settings"

import django

django.setup()

from ws4redis_tx.publisher import RedisPublisher


def publish(text: str) -> int:
    return RedisPublisher(facility="preloaded", broadcast=True).publish_message(text)


publish("at load")


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    publish(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
