"""What templates need to reach the websocket server: its URI, and the heartbeat's magic string.

Knows how a websocket URI is put together for a request, and how a string is made safe inside a
``<script>``. It does not know which facilities and rights exist, nor where the settings come from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote

from django.http import HttpRequest
from django.utils.safestring import SafeString, mark_safe

from ws4redis_tx.config import django_settings

# Valid JSON either way, but without what could end a script, start a comment or close an attribute.
_SCRIPT_ESCAPES = {ord(char): f"\\u{ord(char):04X}" for char in "<>&'"}


def default(request: HttpRequest) -> dict[str, str]:
    """``WEBSOCKET_URI``, to which a facility and flags are appended, and ``WS4REDIS_HEARTBEAT``.

    The heartbeat is a JavaScript literal, a string or ``null``, to be written as it is:
    ``heartbeat_msg: {{ WS4REDIS_HEARTBEAT }}``.
    """
    return {
        "WEBSOCKET_URI": websocket_uri(request),
        "WS4REDIS_HEARTBEAT": _script_literal(django_settings.get("WS4REDIS_HEARTBEAT")),
    }


def websocket_uri(request: HttpRequest, facility: str = "", flags: Iterable[str] = ()) -> str:
    """The URI under which the browser that sent ``request`` reaches a facility.

    Absolute, with the host the browser used (checked against ``ALLOWED_HOSTS``, else Django's
    ``DisallowedHost`` is raised), and ``wss`` if it came over TLS. Facility and flags are
    percent-encoded; slashes in the facility stay.
    """
    scheme = "wss" if request.is_secure() else "ws"
    path = f"{django_settings.get('WEBSOCKET_URL')}{quote(facility, safe='/')}"
    query = "&".join(quote(flag, safe="") for flag in flags)
    return f"{scheme}://{request.get_host()}{path}" + (f"?{query}" if query else "")


def _script_literal(value: str | None) -> SafeString:
    # json.dumps leaves nothing but ASCII, so U+2028 and U+2029 are escaped already.
    return mark_safe(json.dumps(value).translate(_SCRIPT_ESCAPES))
