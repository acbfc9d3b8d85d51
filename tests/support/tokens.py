"""Tokens, also such as no honest program makes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

SECRET = "the secret of this site, 32 bytes or more"
OTHER = "the secret of some other site, 32 bytes or more"


def token(secret: str = SECRET, /, *, header: Any = None, **claims: Any) -> str:
    """A token with these claims, signed by hand."""
    return signed(json.dumps(claims).encode(), secret, header)


def signed(payload: bytes, secret: str = SECRET, header: Any = None) -> str:
    head = json.dumps({"alg": "HS256", "typ": "JWT"} if header is None else header).encode()
    text = b".".join(map(_encoded, (head, payload)))
    hashes = {"HS384": hashlib.sha384, "HS512": hashlib.sha512}
    digest = hashes.get(str((header or {}).get("alg")), hashlib.sha256)
    signature = hmac.new(secret.encode(), text, digest).digest()
    return b".".join((text, _encoded(signature))).decode()


def unsigned(alg: str = "none", **claims: Any) -> str:
    head = json.dumps({"alg": alg, "typ": "JWT"}).encode()
    return b".".join((*map(_encoded, (head, json.dumps(claims).encode())), b"")).decode()


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
