"""What one websocket has taken of what its peer may have."""

from __future__ import annotations

from ws4redis_tx.core.limits import Allowance, Quota, Rate
from ws4redis_tx.sessions.opening_handshake import unavailable


class Shares:
    """Its places in quotas, and its rate."""

    __slots__ = ("_allowance", "_claims")

    def __init__(self) -> None:
        self._claims: tuple[tuple[Quota, str], ...] = ()
        # Made when the client says something: most say nothing.
        self._allowance: Allowance | None = None

    def claim(self, quota: Quota, key: str | None) -> None:
        """Take one of what ``key`` may have. Raises ``Denied`` (503) when there is none left."""
        if not key or quota.unlimited:
            return  # somebody who cannot be told from others, or need not be
        if not quota.take(key):
            raise unavailable(
                "this user, session or address has as many websockets as "
                "WS4REDIS_MAX_CONNECTIONS_PER_USER or _PER_ADDRESS allows"
            )
        self._claims += ((quota, key),)

    def give_back(self) -> None:
        for quota, key in self._claims:
            quota.give_back(key)
        self._claims = ()

    def suffice(self, rate: Rate | None, now: float, *, messages: int = 0, size: int = 0) -> bool:
        """Count what the client sent; return whether that is within its rate."""
        if rate is None:
            return True
        if self._allowance is None:
            self._allowance = Allowance(rate, now)
        return self._allowance.take(now, messages=messages, size=size)
