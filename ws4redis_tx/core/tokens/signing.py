"""Signing and verifying tokens: HS256, and nothing else that a token may ask for."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.tokens.claims import (
    ConnectionClaims,
    SubscriptionClaims,
    TokenInvalid,
    check_times,
    finite,
    read_connection,
    read_subscription,
)

MOST_BYTES = 32 * 1024
"""Of a token."""

_ALGORITHM = "HS256"

_REMEMBERED = 256  # tokens


_decoder = json.JSONDecoder(parse_float=finite, parse_constant=finite)


class Tokens:
    """Verifies tokens that were signed with one of ``secrets``, and signs with the first.

    :param endless: take tokens without ``iat`` or ``exp``.
    :param unix_time: the clock, in seconds since the epoch.
    """

    __slots__ = ("_endless", "_known", "_secrets", "_unix_time")

    def __init__(
        self,
        secrets: Sequence[str],
        *,
        endless: bool = False,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._secrets = tuple([each.encode() for each in secrets])
        self._endless = endless
        self._unix_time = unix_time
        # A token is shown once, and asked about several times. Threads may share this.
        self._known: dict[str, tuple[dict[str, Any], ConnectionClaims]] = {}

    def connection(self, text: str, *, recheck: bool = False) -> ConnectionClaims:
        """Raises ``TokenInvalid`` or ``TokenExpired``. A ``recheck`` does not judge the times: the
        token was good when its connection began, whose end somebody else looks after.
        """
        known = self._known.get(text)
        if known is None:
            claims = self._verified(text)
            known = claims, read_connection(claims, text)
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[text] = known
        claims, found = known
        if not recheck:
            check_times(claims, self._unix_time(), endless=self._endless)
        return found

    def subscription(self, text: str) -> SubscriptionClaims:
        """Raises ``TokenInvalid`` or ``TokenExpired``."""
        claims = self._verified(text)
        found = read_subscription(claims)
        check_times(claims, self._unix_time(), endless=self._endless)
        return found

    def sign(self, payload: bytes) -> str:
        """A token with this JSON object. Raises ``ConfigError`` without PyJWT."""
        token: str = _jws().encode(payload, self._secrets[0], algorithm=_ALGORITHM)
        return token

    def _verified(self, text: str) -> dict[str, Any]:
        if len(text) > MOST_BYTES:
            raise TokenInvalid("form", f"is longer than {MOST_BYTES} bytes")
        if not text.isascii():
            raise TokenInvalid("form", "is not that of a JSON Web Token")
        try:
            claims = _decoder.decode(self._verified_payload(text).decode())
        except (RecursionError, ValueError):
            raise TokenInvalid("form", "is not JSON") from None
        if not isinstance(claims, dict):
            raise TokenInvalid("form", "is not a JSON object")
        return claims

    def _verified_payload(self, text: str) -> bytes:
        try:
            jws = _jws()
        except ConfigError as error:
            raise TokenInvalid("signature", f"was not verified: {error}") from None
        from jwt import InvalidAlgorithmError, InvalidSignatureError, InvalidTokenError

        for secret in self._secrets:
            try:
                payload: bytes = jws.decode(text, secret, algorithms=[_ALGORITHM])
            except InvalidSignatureError:
                continue
            except InvalidAlgorithmError:
                raise TokenInvalid("alg", f"is not {_ALGORITHM}") from None
            except InvalidTokenError:
                raise TokenInvalid("form", "is not that of a JSON Web Token") from None
            return payload
        raise TokenInvalid("signature", "does not match WS4REDIS_TOKEN_SECRET")


@cache
def _jws() -> Any:
    try:
        from jwt import PyJWS
    except ImportError:
        raise ConfigError(
            "PyJWT", "is not installed", "Install it with pip install 'ws4redis-tx[tokens]'."
        ) from None
    return PyJWS(algorithms=[_ALGORITHM])
