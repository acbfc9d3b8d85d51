"""The chat demo in this process: Django's setup, its database, users that log in."""

from __future__ import annotations

import io
import os
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

SETTINGS = "tests.projects.django_project.settings"


@cache
def set_up_django() -> None:
    """Set up settings, tables, john and mary, once per process. Blocks."""
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    import django
    from django.core.management import call_command

    django.setup()
    call_command("prepare_demo", stdout=io.StringIO())


def environment() -> dict[str, str]:
    """The variables that show another process the same site and database."""
    set_up_django()
    return {"CHATSERVER_DB": os.environ["CHATSERVER_DB"]}


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that any thread executes within the context."""
    from django.db.backends.utils import CursorWrapper

    found: list[str] = []
    execute = CursorWrapper.execute

    def remember(self: Any, sql: str, params: Any = None) -> Any:
        found.append(sql)
        return execute(self, sql, params)

    with mock.patch.object(CursorWrapper, "execute", remember):
        yield found


def in_thread(function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
    """Call it in a worker thread, like a view, and then close that thread's connections."""

    def work() -> Any:
        from django.db import connections

        try:
            return function(*arguments)
        finally:
            connections.close_all()

    return deferToThread(work)


def log_in(username: str) -> Any:
    """Fire with a Django test client that has logged in on the login page."""

    def work() -> Any:
        from django.test import Client

        client = Client(HTTP_HOST="127.0.0.1")
        response = client.post("/login/", {"username": username, "password": "secret"})
        assert response.status_code == 302, response.content
        client.get("/broadcast/")  # brings the CSRF cookie
        return client

    set_up_django()
    return in_thread(work)


def cookies_of(client: Any) -> dict[str, str]:
    return {name: morsel.value for name, morsel in client.cookies.items()}


def post(url: str, cookies: dict[str, str], **fields: str) -> Any:
    """Fire with the status of an ordinary POST, as the page's form sends it."""

    def work() -> int:
        request = urllib.request.Request(
            url,
            data=urllib.parse.urlencode(fields).encode(),
            headers={
                "Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items()),
                "X-CSRFToken": cookies["csrftoken"],
                "Accept": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status

    return deferToThread(work)
