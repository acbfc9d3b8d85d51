"""The authorizer of clients with tokens, on a server without Django."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ws4redis_tx.core.admission import (
    Admission,
    Asked,
    Identity,
    PlainRequest,
    by_default_policy,
    default_policy,
)
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.tokens.claims import ConnectionClaims, TokenInvalid
from ws4redis_tx.core.tokens.signing import Tokens


class TokenAuthorizer:
    """An ``IAuthorizer`` that judges the tokens of those clients that sent one, and asks ``others``
    about the rest. It grants by the default policy.

    :param tenants: whether each visitor belongs to a tenant, which the token names.
    """

    def __init__(self, tokens: Tokens, others: Any, *, tenants: bool = False) -> None:
        self._tokens = tokens
        self._others = others
        self._tenants = tenants
        self.fixed = bool(getattr(others, "fixed", False))
        if hasattr(others, "authorize_facilities"):
            self.authorize_facilities = self._authorize_facilities

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Any:
        if not handshake.credential:
            return self._others.authorize(handshake, rights)
        claims = self._tokens.connection(handshake.credential, recheck=handshake.recheck)
        if bool(claims.tenant) != self._tenants:
            problem = "is missing" if self._tenants else "names one, and this site has none"
            raise TokenInvalid("tenant", problem)
        identity = identity_of_claims(claims)
        request = PlainRequest(handshake.path_info, identity)
        return Admission(identity, default_policy(rights), request, issued=issued_of_claims(claims))

    def _authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> Any:
        if not handshake.credential:
            return self._others.authorize_facilities(handshake, asked, known)
        return by_default_policy(known or self.authorize(handshake, ()), asked)


def with_tokens(authorizer: Any, tokens: Tokens, *, tenants: bool = False) -> Any:
    """``authorizer``, if it judges tokens itself: it has a method ``take_tokens``, which is called
    with ``tokens``. Else a ``TokenAuthorizer`` in front of it.
    """
    take = getattr(authorizer, "take_tokens", None)
    if take is None:
        return TokenAuthorizer(tokens, authorizer, tenants=tenants)
    take(tokens)
    return authorizer


def identity_of_claims(claims: ConnectionClaims) -> Identity:
    return Identity(
        username=claims.sub or None,
        groups=claims.groups,
        user_id=claims.pk,
        tenant=claims.tenant,
    )


def issued_of_claims(claims: ConnectionClaims) -> float:
    """When the token was issued, for ``Admission.issued``. One that does not say counts as new."""
    return time.time() if claims.issued is None else claims.issued
