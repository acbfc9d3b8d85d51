"""Handshakes in little memory: that of an open websocket is kept, to ask the authorizer again."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Mapping

from ws4redis_tx.core.handshake import Handshake

# What most handshakes have in common, as they look before they are compressed; the likeliest last.
# With it, a browser's takes 0.3 KB instead of 0.7, or 0.5 without; and 10 microseconds.
_USUAL = marshal.dumps(
    [
        ("subscribe-session", "subscribe-group", "subscribe-user", "publish-broadcast", "echo"),
        {
            "x-forwarded-for": "",
            "x-forwarded-proto": "https",
            "x-forwarded-host": "",
            "accept": "*/*",
            "dnt": "1",
            "sec-gpc": "1",
            "sec-fetch-dest": "empty",
            "sec-fetch-mode": "websocket",
            "sec-fetch-site": "same-origin",
            "connection": "keep-alive, Upgrade",
            "host": "127.0.0.1:8080",
            "pragma": "no-cache",
            "cache-control": "no-cache",
            "user-agent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64; Macintosh; Intel Mac OS X "
            "10_15_7; X11; Linux x86_64; iPhone; Android) AppleWebKit/605.1.15 AppleWebKit/537.36 "
            "(KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36 Version/18.1 Gecko/20100101 "
            "Firefox/133.0",
            "upgrade": "websocket",
            "origin": "https://www.",
            "sec-websocket-version": "13",
            "accept-encoding": "gzip, deflate, br, zstd",
            "accept-language": "en-US,en;q=0.9,de;q=0.8",
            "cookie": "csrftoken=; sessionid=",
            "sec-websocket-key": "==",
            "sec-websocket-extensions": "permessage-deflate; client_max_window_bits",
        },
        ("/ws/", "subscribe-broadcast&", ("subscribe-broadcast",)),
    ]
)
_WINDOW = -11  # 2 KiB, which is more than the above has, and no header or checksum
_MEMORY = 4  # of 1 to 9: what the compressor takes for itself


def pack(handshake: Handshake) -> bytes:
    """All of a handshake, for ``unpack`` in this process."""
    fields = [getattr(handshake, name) for name in Handshake.__slots__]
    plain = marshal.dumps([dict(each) if isinstance(each, Mapping) else each for each in fields])
    compressor = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, _MEMORY, zdict=_USUAL)
    return compressor.compress(plain) + compressor.flush()


def unpack(packed: bytes) -> Handshake:
    plain = zlib.decompressobj(_WINDOW, zdict=_USUAL).decompress(packed)
    return Handshake(*marshal.loads(plain))
