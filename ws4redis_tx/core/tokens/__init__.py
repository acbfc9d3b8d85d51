"""Tokens: what a program that cannot send a session's cookie shows instead, signed by the site.

Knows JSON Web Tokens and their claims. It must not know Django, Twisted, or what was revoked.
"""

from ws4redis_tx.core.tokens.authorizer import (
    TokenAuthorizer,
    identity_of_claims,
    issued_of_claims,
    with_tokens,
)
from ws4redis_tx.core.tokens.claims import (
    ConnectionClaims,
    SubscriptionClaims,
    TokenExpired,
    TokenInvalid,
)
from ws4redis_tx.core.tokens.signing import MOST_BYTES, Tokens

__all__ = [
    "MOST_BYTES",
    "ConnectionClaims",
    "SubscriptionClaims",
    "TokenAuthorizer",
    "TokenExpired",
    "TokenInvalid",
    "Tokens",
    "identity_of_claims",
    "issued_of_claims",
    "with_tokens",
]
