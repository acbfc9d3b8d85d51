"""The tokens of connections and subscriptions: what they give, and for how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import inlineCallbacks

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.tokens import (
    ConnectionClaims,
    SubscriptionClaims,
    TokenExpired,
    TokenInvalid,
    Tokens,
)
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Ends
from ws4redis_tx.protocols.centrifuge.names import Name
from ws4redis_tx.protocols.centrifuge.rights import ask_again
from ws4redis_tx.protocols.centrifuge.subscription import Subscription
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection

_SIGNED = ("broadcast", "group")  # audiences whose channels a token may name


class TokenRules:
    """Applies tokens. A ticket, which has no dot, is the authorizer's alone.

    :param tokens: ``None``: tokens are good for nothing.
    :param note: logs why a token was refused.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        config: ServerConfig,
        reactor: Any,
        note: Callable[[str, str], object],
    ) -> None:
        self._tokens = tokens
        self._config = config
        self._reactor = reactor
        self._note = note
        self.unix_time: Callable[[], float] = lambda: time.time()
        """A test may replace it."""

    def lifetime(self, expires: float | None) -> Values:
        """As an answer says it: a library asks for another token when it is over."""
        if expires is None:
            return {}
        return {"expires": True, "ttl": max(1, math.ceil(expires - self.unix_time()))}

    def until_refused(self, expires: float) -> float:
        """Seconds until what has expired is ended."""
        grace: float = self._config.centrifuge_expired_grace
        return max(0.0, expires - self.unix_time()) + grace

    # Of connections

    def connect(self, connection: Connection, text: str) -> None:
        """Take what a token gives, before the authorizer is asked. Raises ``CommandError`` or
        ``Ends``.
        """
        if self._tokens is None:
            raise Ends(errors.INVALID_TOKEN)
        if "." not in text:
            return
        try:
            self._take(connection, self._tokens.connection(text))
        except Denied as denied:
            raise self.error(denied) from None

    def _take(self, connection: Connection, claims: ConnectionClaims) -> None:
        connection.info, connection.expires = claims.info, claims.expires
        connection.claimed = {**dict.fromkeys(claims.channels, b""), **claims.subs}
        connection.stop_timer("expired")
        if claims.expires is not None:
            seconds = self.until_refused(claims.expires)
            connection.set_timer("expired", seconds, errors.CONNECTION_EXPIRED)

    def error(self, denied: Denied) -> Exception:
        """What to answer to a token, or to a visitor, that is refused."""
        if isinstance(denied, TokenExpired | TokenInvalid):
            self._note("token", f"A token was refused: {denied.detail}")
        if isinstance(denied, TokenInvalid):
            return Ends(errors.INVALID_TOKEN)
        if isinstance(denied, TokenExpired):
            return CommandError(errors.TOKEN_EXPIRED)
        return CommandError(errors.UNAUTHORIZED if denied.status == 401 else errors.DENIED)

    @inlineCallbacks
    def refresh(self, connection: Connection, number: int, text: str) -> Any:
        """Put another token in the place of a connection's: with all that it gives."""
        if self._tokens is None or "." not in text:
            raise Ends(errors.INVALID_TOKEN)
        try:
            claims = self._tokens.connection(text)
            handshake = replace(connection.handshake, credential=text, redeemed="")
            if claims.sub != (connection.identity.username or ""):
                raise TokenInvalid("sub", "is another user's")
            admission = yield connection.session.authorize(handshake, ())
        except TokenExpired as denied:
            self.error(denied)
            raise Ends(errors.CONNECTION_EXPIRED) from None
        except Denied as denied:
            self.error(denied)
            raise Ends(errors.INVALID_TOKEN) from None
        connection.handshake, connection.identity = handshake, admission.identity
        claimed = connection.claimed
        self._take(connection, claims)
        for each in list(connection.subscriptions.values()):
            if each.name.text in claimed and each.name.text not in connection.claimed:
                connection.end(each, errors.SERVER_UNSUBSCRIBE)
        yield ask_again(connection)
        connection.reply(number, "refresh", self.lifetime(claims.expires))

    # Of subscriptions

    def subscription(self, connection: Connection, name: Name, text: str) -> SubscriptionClaims:
        """The claims of a token that is the right to one channel. Raises ``CommandError`` or
        ``Ends``.
        """
        if self._tokens is None or name.audience not in _SIGNED:
            raise CommandError(errors.DENIED)
        try:
            claims = self._tokens.subscription(text)
        except TokenExpired as denied:
            raise self.error(denied) from None
        except TokenInvalid as denied:
            self.error(denied)
            raise CommandError(errors.DENIED) from None
        self._check(connection, name, claims)
        return claims

    def _check(self, connection: Connection, name: Name, claims: SubscriptionClaims) -> None:
        identity = connection.identity
        for claim, said, right in (
            ("channel", claims.channel, name.text),
            ("sub", claims.sub, identity.username or ""),
            ("tenant", claims.tenant, identity.tenant),
        ):
            if said != right:
                raise self.error(TokenInvalid(claim, "is not this connection's"))

    def sub_refresh(
        self, connection: Connection, number: int, subscription: Subscription, text: str
    ) -> None:
        """Put another token in the place of a subscription's."""
        if self._tokens is None:
            raise Ends(errors.INVALID_TOKEN)
        try:
            claims = self._tokens.subscription(text)
        except Denied as denied:
            raise self.error(denied) from None
        self._check(connection, subscription.name, claims)
        subscription.take(claims.info, claims.expires)
        connection.reply(number, "sub_refresh", self.lifetime(claims.expires))
