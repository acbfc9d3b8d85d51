"""permessage-deflate (RFC 7692): what is agreed on with a client that offers it, and deflating.

Neither side keeps its window from one message to the next. So a message can be compressed once
for all who get it, and a client costs no window while it says nothing.
"""

from __future__ import annotations

import re
import zlib

SMALLEST, LARGEST = 128, 1 << 17
"""Bytes of a message that is worth compressing, and of one that does not take too long: a shorter
one gains next to nothing, and the whole process waits while one is compressed: milliseconds for
this size.
"""

# What is longer is compressed in the quickest way, which takes a quarter of the time.
_THOROUGH = 1 << 14
# How far back the compressor looks, at most: 2 to the power of this, less some bytes.
_MOST_BITS, _MARGIN = 15, 262
# Ends each message, and is left out on the wire (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"

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


def fits_all(answer: str) -> bool:
    """Whether a client with whom this was agreed on can inflate what is deflated once for all.

    One that asked for a smaller window gets what the server sends as it is, which is up to each
    message: no browser asks, and a second form would have to be made for it.
    """
    return "server_max_window_bits" not in answer or answer.endswith(f"={_MOST_BITS}")


def deflate(payload: bytes) -> bytes | None:
    """``payload`` as a compressed frame carries it; ``None`` if it does not get shorter, or is too
    short or too long to try. Equal payloads give equal bytes.
    """
    size = len(payload)
    if not SMALLEST <= size <= LARGEST:
        return None
    # No larger a window than it can use: to prepare the largest takes four times as long as to
    # compress a kibibyte.
    bits = min((size + _MARGIN - 1).bit_length(), _MOST_BITS)
    level = zlib.Z_DEFAULT_COMPRESSION if size <= _THOROUGH else zlib.Z_BEST_SPEED
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, bits - 7)
    deflated = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    deflated = deflated.removesuffix(_TAIL)
    return deflated if len(deflated) < size else None


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
