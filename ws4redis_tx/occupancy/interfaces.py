"""The seam between a server and the place where all servers keep who is present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from ws4redis_tx.core.messages import Announced, Occupant

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred


class IPresence(Protocol):
    """The part of a broker that keeps who is present: its ``presence``. A broker may lack it.

    Each call is one step, in the order of the calls. Joins and leaves are published in that step,
    on the channel beside that of the client. All fail with ``BrokerUnavailable``.
    """

    def announce(
        self, server: str, lasting: float, occupants: Sequence[Occupant]
    ) -> Deferred[Announced]:
        """Count ``server`` as alive for so many seconds, and keep ``occupants`` as its own. Those
        that are not there yet join. At most 100 of them.
        """

    def withdraw(
        self, server: str, occupants: Sequence[Occupant], *, dead: bool = False
    ) -> Deferred[int]:
        """Take ``occupants`` away, each with its leave unless it is gone already, and fire with the
        number of those that ``server`` has left. With ``dead``, nothing is taken from a server that
        is alive, or that another server has announced meanwhile.
        """

    def left_behind(self, server: str) -> Deferred[list[Occupant]]:
        """Fire with some of a server's clients, without their ``info``; none if it has none."""

    def present(self, channel: bytes, infos: bool = True) -> Deferred[list[Occupant]]:
        """Fire with the clients of ``channel`` whose servers are alive."""

    def is_online(self, tenant: str, user: str) -> Deferred[bool]:
        """Fire with whether a client of ``user`` is there, on any channel."""
