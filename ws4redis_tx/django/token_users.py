"""Visitors who show a token: who they are is in its claims, and the database is not asked."""

from __future__ import annotations

from typing import Any, NoReturn

from django.contrib.auth.models import AnonymousUser

from ws4redis_tx.core.tokens import ConnectionClaims

_REMEDY = (
    "The user of a connection with a token is known by the token alone: get_username(), "
    "is_authenticated, groups (names), and pk if the token has that claim. Look the user up, as in "
    "get_user_model().objects.get_by_natural_key(request.user.get_username()), or put what you "
    "need into the token's groups."
)


class TokenUser:
    """``request.user`` of a visitor who has shown a token. No staff, and no superuser.

    Any other attribute raises ``AttributeError`` with the remedy.
    """

    is_authenticated = True
    is_anonymous = False
    is_staff = False
    is_superuser = False

    def __init__(self, claims: ConnectionClaims) -> None:
        self._name = claims.sub
        self.groups = GroupNames(claims.groups)
        if claims.pk is not None:
            self.pk = claims.pk

    def get_username(self) -> str:
        return self._name

    def __str__(self) -> str:
        return self._name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenUser) and other.get_username() == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("pk", "id"):
            remedy = (
                "Put the claim pk into the token: connection_token() of ws4redis_tx.tokens does."
            )
            raise AttributeError(f"This TokenUser has no {name}. {remedy}")
        raise AttributeError(f"A TokenUser has no {name}. {_REMEDY}")


class GroupNames(tuple[str, ...]):
    """The names of a ``TokenUser``'s groups."""

    __slots__ = ()

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(
            f"The groups of a TokenUser are a tuple of names, without {name}: write "
            f"'editors' in request.user.groups."
        )


def user_of_claims(claims: ConnectionClaims) -> Any:
    """The user of a request."""
    return TokenUser(claims) if claims.sub else AnonymousUser()
