"""Gives templates the websocket server's URI and the heartbeat string.

Knows how to build a websocket URI for a request, and how to make a string safe inside a
``<script>``. It does not know which facilities and rights exist, nor where the settings come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

from django.http import HttpRequest
from django.urls import get_script_prefix
from django.utils.safestring import SafeString, mark_safe

from ws4redis_tx.config import django_settings

# Escaped, the JSON stays valid, and cannot end a script, start a comment or close an attribute.
_SCRIPT_ESCAPES = {ord(char): f"\\u{ord(char):04X}" for char in "<>&'"}


def default(request: HttpRequest) -> dict[str, str]:
    """Provide ``WEBSOCKET_URI`` and ``WS4REDIS_HEARTBEAT``.

    Templates append a facility and flags to the URI. The heartbeat is a JavaScript literal, a
    string or ``null``. Use it without quotes: ``heartbeat_msg: {{ WS4REDIS_HEARTBEAT }}``.
    """
    return {
        "WEBSOCKET_URI": websocket_uri(request),
        "WS4REDIS_HEARTBEAT": _script_literal(django_settings.get("WS4REDIS_HEARTBEAT") or None),
    }


def websocket_uri(request: HttpRequest, facility: str = "", flags: Iterable[str] = ()) -> str:
    """The URI under which the browser that sent ``request`` reaches a facility.

    The URI is absolute, has the host that the browser used, and begins with ``wss`` if the request
    came over TLS. Facility and flags are percent-encoded; slashes in the facility stay. Raises
    Django's ``DisallowedHost`` if ``ALLOWED_HOSTS`` does not allow the host.
    """
    scheme = "wss" if request.is_secure() else "ws"
    return f"{scheme}://{request.get_host()}{websocket_path(request, facility, flags)}"


def websocket_path(request: HttpRequest, facility: str = "", flags: Iterable[str] = ()) -> str:
    """The same without scheme and host, for whatever knows the page's own: htmx's extensions, and
    ``EventSource``. It begins with ``/`` and asks for no host.
    """
    path = f"{_prefix(request)}{quote(facility, safe='/')}"
    query = "&".join(quote(flag, safe="") for flag in flags)
    return path + (f"?{query}" if query else "")


def _prefix(request: HttpRequest) -> str:
    """``WEBSOCKET_URL`` under the script prefix, unless it begins with the prefix itself."""
    url: str = django_settings.get("WEBSOCKET_URL")
    prefix = get_script_prefix()
    if prefix == "/":  # as in threads that Django did not start
        prefix = request.path.removesuffix(request.path_info)
    prefix = prefix.rstrip("/")
    return url if url.startswith(f"{prefix}/") else quote(prefix, safe="/") + url


def _script_literal(value: str | None) -> SafeString:
    # json.dumps returns only ASCII, so it has already escaped U+2028 and U+2029.
    return mark_safe(json.dumps(value).translate(_SCRIPT_ESCAPES))
