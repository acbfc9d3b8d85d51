"""Whose site is it? Here the first word of the host says so, and chooses the database.

The three pieces are those of any such site: a function that tells the tenant of a request, a
middleware that asks it for each page, and a router that uses its answer. ``WS4REDIS_TENANT`` names
the same function for the websocket server.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

_current: ContextVar[str | None] = ContextVar("tenant", default=None)


def tenant_of(request: HttpRequest) -> str:
    """The websocket server asks this in a worker thread, in each handshake, before it looks up the
    session, so that session, user and groups come from the tenant's own database. A publisher in a
    view asks it too.
    """
    tenant = request.get_host().partition(":")[0].partition(".")[0]
    if tenant not in settings.SHOPS:
        raise PermissionDenied(f"There is no shop {tenant!r}.")
    _current.set(tenant)
    return tenant


def middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Any:
    def respond(request: HttpRequest) -> HttpResponse:
        tenant_of(request)
        return get_response(request)

    return respond


class Router:
    """Every query goes to the database of the current tenant; without one, it fails."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return _current.get()

    db_for_write = db_for_read
