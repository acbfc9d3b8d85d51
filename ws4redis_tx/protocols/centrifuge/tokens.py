"""The tokens of connections and subscriptions: what they give, and for how long."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.errors import CommandError, Ends
from ws4redis_tx.protocols.centrifuge.wire.schema import Values

if TYPE_CHECKING:
    from ws4redis_tx.protocols.centrifuge.connection import Connection


class TokenRules:
    """Applies a token to a connection, or to a subscription.

    :param tokens: a ``core.tokens.Tokens``; ``None``: tokens are good for nothing.
    """

    def __init__(
        self,
        tokens: Any,
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

    def lifetime(self, expires: float) -> Values:
        """As an answer says it: a library asks for another token when it is over."""
        return {"expires": True, "ttl": max(1, math.ceil(expires - self.unix_time()))}

    def connect(self, connection: Connection, text: str) -> None:
        """Take what a token gives, before the authorizer is asked. A ticket is the authorizer's."""
        if text.count(".") != 2:
            return
        if self._tokens is None:
            raise Ends(errors.INVALID_TOKEN)

    def error(self, denied: Denied) -> Exception | None:
        """What to answer to a token that the authorizer has refused."""
        return None

    def subscription(self, connection: Connection, name: Any, text: str) -> Any:
        """The claims of a token that is the right to one channel."""
        raise CommandError(errors.DENIED)

    def refresh(self, connection: Connection, number: int, text: str) -> Any:
        """Put another token in the place of a connection's."""
        raise Ends(errors.INVALID_TOKEN)

    def sub_refresh(self, connection: Connection, number: int, subscription: Any, text: str) -> Any:
        """Put another token in the place of a subscription's."""
        raise CommandError(errors.DENIED)
