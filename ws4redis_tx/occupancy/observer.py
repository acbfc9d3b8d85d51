"""The clients of the classic protocol, and of server-sent events: their channels are known when
they open.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from twisted.internet.defer import Deferred, succeed

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.names import audience_of, facility_of
from ws4redis_tx.occupancy.occupancy import Occupancy

_REVOKED = 1008

_AUDIENCES = frozenset({"broadcast", "group", "user"})


class OccupancyObserver:
    """An ``ISessionObserver`` that makes classic clients present, on the channels that they listen
    to at their opening. On a user's own channel it shows only that the user is online.
    """

    idle = False

    def __init__(self, occupancy: Occupancy, prefix: str) -> None:
        self._occupancy = occupancy
        self._prefix = prefix
        # By session: its client and the channels on which it is present.
        self._present: dict[Any, tuple[str, list[bytes]]] = {}
        occupancy.start()

    def refused(self, refusal: object) -> None:
        """It was never there."""

    def opened(self, session: Any) -> None:
        self._occupancy.start()
        names = getattr(session.state, "channels", ())
        channels = [each for each in map(str.encode, names) if self._watches(each)]
        if not channels or session.admitted is None:
            return
        client, user = str(uuid.uuid4()), session.admitted.identity.username or ""
        info = json.dumps({"user": user, "client": client}).encode()
        self._present[session] = client, channels
        for channel in channels:
            self._occupancy.enter(channel, client, info)

    def _watches(self, channel: bytes) -> bool:
        facility = facility_of(self._prefix, channel)
        return (
            facility is not None
            and audience_of(channel) in _AUDIENCES
            and self._occupancy.watches(facility)
        )

    def live(self, session: object) -> None:
        """It was there before."""

    def message(self, session: object, payload: bytes) -> Deferred[bytes | None]:
        return succeed(payload)

    def subscribed(self, session: object, channel: str) -> None:
        """Its protocol makes it present."""

    def unsubscribed(self, session: object, channel: str) -> None:
        """Its protocol lets it leave."""

    def closed(self, session: Any, ending: Any) -> None:
        client, channels = self._present.pop(session, ("", []))
        # A visitor who was sent away does not come back.
        lost = not (ending.by_server and ending.code == _REVOKED)
        for channel in channels:
            self._occupancy.leave(channel, client, lost=lost)

    def settled(self) -> Deferred[Any]:
        return self._occupancy.stop()

    def hurry(self) -> None:
        """Nothing waits for long."""


def observe(
    config: ServerConfig, broker: Any, reactor: Any
) -> tuple[Occupancy | None, list[OccupancyObserver]]:
    """The occupancy of a server, and what makes its classic clients present; nothing for a server
    without presence.
    """
    if not config.presence:
        return None, []
    occupancy = Occupancy(config.presence, config.presence_grace, broker, reactor)
    return occupancy, [OccupancyObserver(occupancy, config.prefix)]
