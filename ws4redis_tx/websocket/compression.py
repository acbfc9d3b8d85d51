"""permessage-deflate (RFC 7692): its negotiation, and the compression of messages.

Neither side keeps its window from one message to the next. So a message can be compressed once for
all of its receivers, and an idle client costs no memory for a window.
"""

from __future__ import annotations

import re
import zlib

SMALLEST, LARGEST = 128, 1 << 17
"""Bytes of the smallest and the largest message that is compressed. A shorter one gains next to
nothing. The whole process waits during the compression: milliseconds for the largest.
"""

# A longer message is compressed at the fastest level, which takes a quarter of the time.
_DEFAULT_LEVEL_MAX = 1 << 14
# The compressor looks back over at most 2 ** _MAX_BITS bytes, less a margin.
_MAX_BITS, _MARGIN = 15, 262
# Each message ends with this, which is left out on the wire (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"

# Browsers send fewer than a hundred characters. Reading a header of 16 KiB takes milliseconds.
_LONGEST_HEADER = 1024

_NAME = "permessage-deflate"
_AGREED = f"{_NAME}; server_no_context_takeover; client_no_context_takeover"

_BITS = '(?:[89]|1[0-5]|"(?:[89]|1[0-5])")'
# The parameters of an offer, and the values that each may have. '' means no value.
_VALUES = {
    "server_no_context_takeover": re.compile(""),
    "client_no_context_takeover": re.compile(""),
    "server_max_window_bits": re.compile(f"={_BITS}"),
    "client_max_window_bits": re.compile(f"(?:={_BITS})?"),
}


def accept_deflate(extensions: str) -> str | None:
    """The answer to a ``Sec-WebSocket-Extensions`` header; ``None`` if nothing in it is accepted.

    The first offer that RFC 7692 allows is accepted. Other offers and other extensions are
    ignored: the client learns that from the answer, and does without them. So is a header of more
    than 1024 characters.
    """
    if len(extensions) > _LONGEST_HEADER:
        return None
    for offer in extensions.split(","):
        name, *parameters = (re.sub(r"[ \t]", "", part) for part in offer.split(";"))
        if name == _NAME and (values := _values(parameters)) is not None:
            window = values.get("server_max_window_bits", "").replace('"', "")
            return f"{_AGREED}; server_max_window_bits{window}" if window else _AGREED
    return None


def fits_all(answer: str) -> bool:
    """Whether a client that got this answer can inflate a message that is deflated once for all.

    A client that asked for a smaller window gets its messages uncompressed, which the extension
    allows for each message. No browser asks for one, and it would need a form of its own.
    """
    return "server_max_window_bits" not in answer or answer.endswith(f"={_MAX_BITS}")


def deflate(payload: bytes) -> bytes | None:
    """Return the payload of a compressed frame, or ``None`` if that is not shorter or if
    ``payload`` is too short or too long to try. Equal payloads give equal bytes.
    """
    size = len(payload)
    if not SMALLEST <= size <= LARGEST:
        return None
    # The window is no larger than the message can use: preparing the largest window takes four
    # times as long as compressing a kibibyte.
    bits = min((size + _MARGIN - 1).bit_length(), _MAX_BITS)
    level = zlib.Z_DEFAULT_COMPRESSION if size <= _DEFAULT_LEVEL_MAX else zlib.Z_BEST_SPEED
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits, bits - 7)
    deflated = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    deflated = deflated.removesuffix(_TAIL)
    return deflated if len(deflated) < size else None


def _values(parameters: list[str]) -> dict[str, str] | None:
    """The parameters of an offer by name, or ``None`` if one is wrong, unknown or repeated."""
    values: dict[str, str] = {}
    for parameter in parameters:
        name = parameter.partition("=")[0]
        value = parameter[len(name) :]
        if name in values or name not in _VALUES or not _VALUES[name].fullmatch(value):
            return None
        values[name] = value
    return values
