"""One client's share of the server's limits."""

from __future__ import annotations

from collections.abc import Hashable

from ws4redis_tx.core.errors import unavailable
from ws4redis_tx.core.limits import Allowance, Quota, Rate


class PeerLimits:
    """One client's places in quotas, and its rate."""

    __slots__ = ("_allowance", "_claims")

    def __init__(self) -> None:
        self._claims: tuple[tuple[Quota, Hashable], ...] = ()
        # Made when the client first sends something.
        self._allowance: Allowance | None = None

    def claim(self, quota: Quota, key: Hashable) -> None:
        """Take a place in ``quota`` for ``key``. Raises ``Denied`` (503) when none is left."""
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

    def allows(self, rate: Rate, now: float, *, messages: int, size: int) -> bool:
        """Count messages and bytes that the client sent; return whether it is within its rate."""
        if self._allowance is None:
            self._allowance = Allowance(rate, now)
        return self._allowance.take(now, messages=messages, size=size)
