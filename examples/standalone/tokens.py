"""Signed tokens in place of sessions: a token names its user, so the server needs no database.

Copy this file into your application, and call ``make_token`` where your users log in. To try it::

    TOKEN_KEY=… python tokens.py john chat

prints a token with which john may listen and talk in the facility ``chat`` for ten minutes.

Anybody who has a token can use it, any number of times, until it expires. Keep its lifetime short,
send it only over TLS, and never put it into a URL. URLs end up in the logs of servers and proxies,
in the browser's history, and in links that people copy.
"""

from __future__ import annotations

import argparse
import base64
import hmac
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake

SHORTEST_KEY = 32


@dataclass(frozen=True)
class Claims:
    """The content of a token. ``expires`` is in seconds since the epoch."""

    user: str
    facility: str
    rights: list[str]
    groups: list[str]
    expires: float


def make_token(key: bytes, claims: Claims) -> str:
    """Return a token, made of characters that are legal in a header and in a subprotocol."""
    payload = _encode(json.dumps(asdict(claims)).encode())
    return f"{payload}.{_signature(key, payload)}"


def read_token(key: bytes, token: str, now: float) -> Claims:
    """Raises ``Denied`` unless the token was made with ``key`` and is still valid at ``now``."""
    payload, _, signature = token.partition(".")
    # In constant time: the duration must not reveal how much of a guess was right.
    if not hmac.compare_digest(_signature(key, payload).encode(), signature.encode()):
        raise _unauthorized("The token is invalid.")
    # Only now: unsigned data is never parsed.
    claims = Claims(**json.loads(_decode(payload)))
    if not now < claims.expires:
        raise _unauthorized("The token has expired.")
    return claims


class TokenAuthorizer:
    """An ``IAuthorizer``. When the token expires, the server closes the websocket, because it asks
    again at ``Admission.expires`` and is refused.
    """

    def __init__(self, key: bytes, now: Callable[[], float] = time.time) -> None:
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"A key of {len(key)} bytes is too short. Use {SHORTEST_KEY} or more.")
        self._key = key
        self._now = now

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        claims = read_token(self._key, token_of(handshake), self._now())
        if claims.facility != handshake.facility:
            raise Denied(403, "The token is for another facility.")
        identity = Identity(username=claims.user, groups=tuple(claims.groups), user_id=claims.user)
        return Admission(
            identity,
            rights=tuple(right for right in rights if right in claims.rights),
            request=PlainRequest(handshake.path_info, identity),
            expires=claims.expires,
        )


def token_of(handshake: Handshake) -> str:
    """Return the token from ``Authorization: Bearer TOKEN``. Browsers do not let a page set that
    header, so a page offers the subprotocols ``chat, token.TOKEN``. The server selects the first.
    """
    scheme, _, token = handshake.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if any(word.startswith("token.") for word in handshake.subprotocols[:1]):
        # The server would send the token back, and responses must not contain credentials.
        raise Denied(400, "Offer the subprotocol 'chat' before the token.")
    for word in handshake.subprotocols:
        if word.startswith("token."):
            return word.removeprefix("token.")
    raise _unauthorized("A token is required.")


def key_from_environment() -> bytes:
    key = os.environ.get("TOKEN_KEY", "").encode()
    if len(key) < SHORTEST_KEY:
        raise SystemExit(
            f"TOKEN_KEY has {len(key)} bytes. Set it to a secret of at least {SHORTEST_KEY}, such "
            "as the output of python -c 'import secrets; print(secrets.token_hex(32))'."
        )
    return key


def _unauthorized(reason: str) -> Denied:
    return Denied(401, reason, headers=(("WWW-Authenticate", "Bearer"),))


def _signature(key: bytes, payload: str) -> str:
    # The first words keep these signatures apart from any others made with the same key.
    return _encode(hmac.digest(key, b"websocket token " + payload.encode(), "sha256"))


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def main() -> None:
    parser = argparse.ArgumentParser(description="Print a token.")
    parser.add_argument("user")
    parser.add_argument("facility")
    parser.add_argument("--group", action="append", default=[], dest="groups")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    claims = Claims(
        options.user,
        options.facility,
        rights=["subscribe-user", "subscribe-group", "subscribe-broadcast", "publish-broadcast"],
        groups=options.groups,
        expires=time.time() + options.seconds,
    )
    print(make_token(key_from_environment(), claims))


if __name__ == "__main__":
    main()
