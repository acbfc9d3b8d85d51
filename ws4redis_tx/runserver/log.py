"""Lines of the log as Django's own server writes them, for requests and for websockets."""

from __future__ import annotations

import logging
import time
from typing import Any, cast

from twisted.logger import LogLevel, formatEvent, globalLogPublisher

_OURS = "ws4redis_tx."

_server = logging.getLogger("django.server")  # Django's own, whose lines have time and colours

_LEVELS = {
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


def begin() -> None:
    """Write what the server logs to Django's logger of its development server."""
    globalLogPublisher.addObserver(cast(Any, observe))
    # Else our warnings would appear a second time.
    logging.getLogger("twisted").addFilter(is_not_ours)


def is_not_ours(record: logging.LogRecord) -> bool:
    event = getattr(record.msg, "event", {})
    return not str(event.get("log_namespace", "")).startswith(_OURS)


def observe(event: Any) -> None:
    level = _LEVELS.get(event["log_level"])
    if level is None or not str(event.get("log_namespace", "")).startswith(_OURS):
        return
    failure = event.get("log_failure")
    exc_info = failure and (failure.type, failure.value, failure.getTracebackObject())
    text = _ended(event) if "facility" in event and "seconds" in event else formatEvent(event)
    _server.log(level, "%s", text, exc_info=exc_info, extra=_extra(event.get("status")))


def _ended(event: Any) -> str:
    """One websocket, or stream of events, from its opening to its end."""
    user = "" if event["user"] == "None" else f", user {event['user']}"
    return (
        f"Websocket {event['facility']} closed by the {event['by']} with {event['code']} after "
        f"{event['seconds']:.1f} s: {event['sent']} sent, {event['received']} received"
        f"{event['dropped']}{user}"
    )


def log_request(request: Any) -> None:
    """A line for a request that Twisted has answered."""
    line = b" ".join((request.method, request.uri, request.clientproto))
    code = request.code
    level = logging.INFO if code < 400 else logging.WARNING if code < 500 else logging.ERROR
    text = line.decode("ascii", "backslashreplace")
    # As the standard library's server does it: no stranger writes control sequences to a terminal.
    text = "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
    _server.log(level, '"%s" %s %s', text, code, request.sentLength, extra=_extra(code))


def _extra(status: object) -> dict[str, object]:
    known = {"status_code": status} if isinstance(status, int) else {}
    return {"server_time": time.strftime("%d/%b/%Y %H:%M:%S"), **known}
