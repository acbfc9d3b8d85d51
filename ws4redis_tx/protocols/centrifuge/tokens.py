"""The tokens of connections and subscriptions: what they give, and for how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from twisted.internet.defer import inlineCallbacks
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.names import TICKET_PREFIX
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
from ws4redis_tx.protocols.centrifuge.opening import claimed_names, subscribe_claimed
from ws4redis_tx.protocols.centrifuge.rights import need
from ws4redis_tx.protocols.centrifuge.wire.schema import Values
from ws4redis_tx.revocation.session_index import NO_GRANTS

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection
    from ws4redis_tx.protocols.centrifuge.subscription import Subscription

_Claims = TypeVar("_Claims", ConnectionClaims, SubscriptionClaims)


class TokenRight:
    """An ``IRevocable``: the right to one subscription, which a token of its own gives."""

    __slots__ = ("_subscription", "admitted")

    grants = NO_GRANTS
    part = True

    def __init__(self, subscription: Subscription) -> None:
        self.admitted: Any = None
        self._subscription = subscription

    @property
    def ended(self) -> bool:
        return self._subscription.connection.session.ended

    def revoke(self, code: int = 1008) -> None:
        connection, name = self._subscription.connection, self._subscription.name.text
        connection.session.withdraw(self)
        if connection.subscriptions.get(name) is self._subscription:
            connection.end(self._subscription, errors.SERVER_UNSUBSCRIBE)

    def close(self, code: int, reason: str) -> None:
        self._subscription.connection.session.close(code, reason)


class TokenRules:
    """Applies a token to a connection, or to a subscription.

    :param tokens: ``None``: no token is accepted.
    :param note: writes a line to the log.
    """

    def __init__(
        self,
        tokens: Tokens | None,
        config: ServerConfig,
        reactor: Any,
        note: Callable[[str, str], object],
    ) -> None:
        self._tokens = tokens or Tokens(())
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

    # Of a connection

    def connect(self, connection: Connection, text: str) -> None:
        """Take what a token gives, before the authorizer is asked. A ticket is the authorizer's."""
        if not text.startswith(TICKET_PREFIX):
            claims = self._read(
                self._tokens.connection,
                text,
                expired=CommandError(errors.TOKEN_EXPIRED),
                invalid=Ends(errors.INVALID_TOKEN),
            )
            self._take(connection, claims)

    def error(self, denied: Denied) -> Exception | None:
        """What to answer to a token that the authorizer has refused."""
        if isinstance(denied, TokenExpired):
            self._tell(denied)
            return CommandError(errors.TOKEN_EXPIRED)
        if isinstance(denied, TokenInvalid):
            self._tell(denied)
            return Ends(errors.INVALID_TOKEN)
        return None

    def _take(self, connection: Connection, claims: ConnectionClaims) -> None:
        connection.info = claims.info
        connection.claimed = {**dict.fromkeys(claims.channels, (b"", b"")), **claims.subs}
        connection.expires = claims.expires
        if claims.expires is None:
            connection.stop_timer("expired")
        else:
            left = self._time_left(claims.expires)
            connection.set_timer("expired", left, connection.disconnect, errors.CONNECTION_EXPIRED)

    def _time_left(self, expires: float) -> float:
        """Seconds, with those in which the client may still bring another token."""
        return max(0.0, expires - self.unix_time()) + self._config.centrifuge_expired_grace

    @inlineCallbacks
    def refresh(self, connection: Connection, number: int, text: str) -> Any:
        """Put another token in the place of a connection's."""
        claims = self._read(
            self._tokens.connection,
            text,
            expired=Ends(errors.CONNECTION_EXPIRED),
            invalid=Ends(errors.INVALID_TOKEN),
        )
        self._check_owner(connection, claims, Ends(errors.INVALID_TOKEN))
        handshake = replace(connection.handshake, credential=text, redeemed="")
        try:
            admission = yield connection.session.authorize(handshake, ())
        except (Denied, BrokerUnavailable) as error:
            if not isinstance(error, Denied) or error.status >= 500:
                raise CommandError(errors.TOO_MANY) from None
            self._tell(error)
            expired = isinstance(error, TokenExpired)
            end = errors.CONNECTION_EXPIRED if expired else errors.INVALID_TOKEN
            raise Ends(end) from None
        before = connection.claimed
        connection.handshake, connection.identity = handshake, admission.identity
        self._take(connection, claims)
        connection.forget_answers()
        no_longer = set(before) - set(connection.claimed)
        try:
            claimed = yield claimed_names(connection)
        except Exception:
            yield self._drop_lost(connection, no_longer)
            raise
        connection.reply(number, "refresh", self.lifetime(claims.expires))
        yield self._drop_lost(connection, no_longer)
        yield subscribe_claimed(connection, claimed)

    @inlineCallbacks
    def _drop_lost(self, connection: Connection, no_longer_claimed: set[str]) -> Any:
        """Unsubscribe from what only the previous token gave."""
        connection.session.grants.clear()
        for subscription in list(connection.subscriptions.values()):
            name = subscription.name
            lost = subscription.server_side and name.text in no_longer_claimed
            if subscription.own and not lost:
                continue
            ending = errors.SERVER_UNSUBSCRIBE
            if not lost:
                try:
                    yield need(connection, name, "subscribe")
                    connection.protocol.channel_of(name, connection)
                    continue
                except Exception:
                    if connection.error_for("refresh", Failure()).temporary:
                        ending = errors.UNSUBSCRIBE_INSUFFICIENT  # it comes back by itself
            if connection.subscriptions.get(name.text) is subscription:
                connection.end(subscription, ending)

    # Of a subscription

    def subscription(self, connection: Connection, name: Name, text: str) -> SubscriptionClaims:
        """The claims of a token that is the right to one channel."""
        if name.audience not in ("broadcast", "group"):
            raise CommandError(errors.DENIED)
        claims = self._read(
            self._tokens.subscription,
            text,
            expired=CommandError(errors.TOKEN_EXPIRED),
            invalid=CommandError(errors.DENIED),
        )
        self._check_subscription(connection, name, claims)
        return claims

    def sub_refresh(
        self, connection: Connection, number: int, subscription: Subscription, text: str
    ) -> None:
        """Put another token in the place of a subscription's."""
        claims = self._read(
            self._tokens.subscription,
            text,
            expired=CommandError(errors.TOKEN_EXPIRED),
            invalid=Ends(errors.INVALID_TOKEN),
        )
        self._check_subscription(connection, subscription.name, claims)
        subscription.take(claims)
        connection.reply(number, "sub_refresh", self.lifetime(claims.expires))

    def watch(self, subscription: Subscription, claims: SubscriptionClaims) -> TokenRight:
        """End the subscription when its token expires or is revoked. Raises ``CommandError`` for
        one that is void.
        """
        connection = subscription.connection
        right = TokenRight(subscription)
        path = self._config.websocket_url + quote(subscription.name.facility)
        handshake = replace(connection.handshake, path=path)
        issued = self.unix_time() if claims.issued is None else claims.issued
        try:
            connection.session.admit(
                right, handshake, Admission(connection.identity, (), None, issued=issued)
            )
        except Denied as denied:
            self._tell(denied)
            raise CommandError(errors.TOKEN_EXPIRED) from None
        timer = subscription.timer
        if timer is not None and timer.active():
            timer.cancel()
        subscription.timer = None
        if claims.expires is not None:
            left = self._time_left(claims.expires)
            subscription.timer = self._reactor.callLater(left, _expire, subscription)
        return right

    def _check_subscription(
        self, connection: Connection, name: Name, claims: SubscriptionClaims
    ) -> None:
        self._check_owner(connection, claims, CommandError(errors.DENIED))
        try:
            named = connection.protocol.known_name(connection, claims.channel)
        except CommandError:
            named = None
        # The text is the client's own, where a site has other names.
        if claims.channel != name.text and (named is None or named[1:] != name[1:]):
            self._tell(TokenInvalid("channel", "is not the one that it was shown for"))
            raise Ends(errors.INVALID_TOKEN)

    def _check_owner(
        self,
        connection: Connection,
        claims: ConnectionClaims | SubscriptionClaims,
        elsewhere: Exception,
    ) -> None:
        """Raises ``elsewhere`` for the token of another tenant."""
        if claims.tenant != connection.identity.tenant:
            self._tell(TokenInvalid("tenant", "is not that of the connection"))
            raise elsewhere
        if claims.sub != (connection.identity.username or ""):
            problem = "is not the connection's user"
            if not claims.sub:
                problem = "is missing, and the connection has a user"
            self._tell(TokenInvalid("sub", problem))
            raise Ends(errors.INVALID_TOKEN)

    def _read(
        self,
        read: Callable[[str], _Claims],
        text: str,
        *,
        expired: Exception,
        invalid: Exception,
    ) -> _Claims:
        try:
            return read(text)
        except TokenExpired as error:
            self._tell(error)
            raise expired from None
        except TokenInvalid as error:
            self._tell(error)
            raise invalid from None

    def _tell(self, denied: Denied) -> None:
        # One kind for each claim, so that equal lines are summed up.
        kind = f"token {getattr(denied, 'claim', '')}"
        self._note(kind, f"A client's token was refused: {denied.detail or denied.reason}")


def _expire(subscription: Subscription) -> None:
    connection = subscription.connection
    if subscription.server_side:
        connection.disconnect(errors.SUBSCRIPTION_EXPIRED)
    else:
        connection.end(subscription, errors.UNSUBSCRIBE_EXPIRED)
