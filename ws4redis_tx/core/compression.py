"""permessage-deflate (RFC 7692): what is agreed on with a client that offers it.

Neither side keeps its window from one message to the next. So a message can be compressed once
for all who get it, and a client costs no window while it says nothing.
"""

from __future__ import annotations

import re

_NAME = "permessage-deflate"
_AGREED = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"

_BITS = '(?:[89]|1[0-5]|"(?:[89]|1[0-5])")'
# The parameters of an offer, and the values that each may have; '' is none.
_VALUES = {
    "server_no_context_takeover": re.compile(""),
    "client_no_context_takeover": re.compile(""),
    "server_max_window_bits": re.compile(f"={_BITS}"),
    "client_max_window_bits": re.compile(f"(?:={_BITS})?"),
}


def accept_deflate(extensions: str) -> str | None:
    """The answer to a ``Sec-WebSocket-Extensions`` header; ``None`` if nothing in it is accepted.

    The first offer that RFC 7692 allows is. Others, and other extensions, are passed over: a
    client learns that from the answer, and goes on without them.
    """
    for offer in extensions.split(","):
        name, *parameters = (re.sub(r"[ \t]", "", part) for part in offer.split(";"))
        if name == _NAME and (values := _values(parameters)) is not None:
            window = values.get("server_max_window_bits", "").replace('"', "")
            return f"{_AGREED}; server_max_window_bits{window}" if window else _AGREED
    return None


def _values(parameters: list[str]) -> dict[str, str] | None:
    """The parameters of an offer by name, or ``None`` if one is wrong, unknown or said twice."""
    values: dict[str, str] = {}
    for parameter in parameters:
        name = parameter.partition("=")[0]
        value = parameter[len(name) :]
        if name in values or name not in _VALUES or not _VALUES[name].fullmatch(value):
            return None
        values[name] = value
    return values
