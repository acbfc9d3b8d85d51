"""A WSGI application that publishes at each request. It names the interpreter that runs it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

os.environ["DJANGO_SETTINGS_MODULE"] = "tests.projects.django_project.settings"

import django

django.setup()

from ws4redis_tx.publisher import RedisPublisher


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    publisher = RedisPublisher(facility="served", broadcast=True)
    publisher.publish_message(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("mod_wsgi.application_group", "").encode()]
