"""Who is present: what the protocols of clients ask for.

    a client comes            its info is stored, and its join is published
    it unsubscribes           it is taken away, and its leave is published
    its connection is lost    the same, after the grace: a user who is back by then has joined
                              before the old connection leaves
    every 5 s                 the server tells Redis that it is alive
    it is silent for 20 s     the other servers take its clients away. Each leave is published once

``register.py`` tells Redis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Occupant
from ws4redis_tx.occupancy.interfaces import IPresence
from ws4redis_tx.occupancy.register import PATIENCE, PERIOD, Key, Register
from ws4redis_tx.scheduling.timeouts import Timeouts

MOST_LOST = 10_000
"""So many lost clients may wait for the end of their grace. Any more leave at once."""


class Occupancy:
    """The clients that are present, on facilities that match one of the shell ``patterns``.

    :param grace: seconds after which a lost client leaves.
    :param broker: an ``IBroker``. Nobody is present if it has no ``presence``, an ``IPresence``.
    """

    def __init__(self, patterns: Sequence[str], grace: float, broker: Any, reactor: Any) -> None:
        presence: IPresence | None = getattr(broker, "presence", None)
        self._patterns = () if presence is None else tuple(patterns)
        self._grace = grace
        self._broker = broker
        self._lost: Timeouts[Key] = Timeouts(grace, self._leave, reactor)
        self._register: Any = None
        if presence is not None:
            # Nobody leaves before the end of the grace, counted from the last sign of life.
            lasting = max(PATIENCE, grace + PERIOD)
            self._register = Register(presence, broker, lasting, reactor)
        self._starting: Deferred[None] | None = None
        self._end_registration: Callable[[], None] | None = None

    def watches(self, facility: str) -> bool:
        """Whether ``facility`` knows who is there."""
        return _matches(self._patterns, facility)

    def start(self) -> None:
        """Tell Redis that this server is alive, from when Redis is there. Idempotent."""
        if self._patterns and self._starting is None:
            self._starting = self._broker.when_available()
            self._starting.addCallbacks(lambda _: self._start(), lambda cancelled: None)

    def _start(self) -> None:
        self._end_registration = self._broker.on_restored(self._register.restored)
        self._register.start()

    def stop(self) -> Deferred[Any]:
        """Leave the lost clients to the other servers, which publish their leaves after the grace.
        Fire when Redis knows. Idempotent.
        """
        if self._starting is None:
            return succeed(None)
        self._starting.cancel()
        self._starting = None
        if self._end_registration is not None:
            self._end_registration()
        self._lost.stop()
        stopped: Deferred[Any] = self._register.stop(self._grace)
        return stopped

    def enter(self, channel: bytes, client: str, info: bytes) -> Deferred[None]:
        """Make a client present, and publish its join. ``info`` is a JSON object with a ``user``.

        Fires when that is done. Never fails: if Redis is not there, it is done when it is.
        """
        if self._register is None:
            return succeed(None)
        self._lost.discard((channel, client))
        user = json.loads(info).get("user") or ""
        entered: Deferred[None] = self._register.add(Occupant(channel, client, user, info))
        return entered

    def leave(self, channel: bytes, client: str, *, lost: bool) -> None:
        """Let a client leave, and publish that: at once, or after the grace if its connection is
        ``lost``. Does nothing for a client that is not present.
        """
        key = channel, client
        if self._register is None or key not in self._register.occupants:
            return
        if lost and self._grace and len(self._lost) < MOST_LOST:
            if key not in self._lost:
                self._lost.add(key)
        else:
            self._lost.discard(key)
            self._leave(key)

    def settled(self) -> Deferred[None]:
        """Fire when all comings and goings until now were published, or cannot be."""
        return succeed(None) if self._register is None else self._register.settled()

    def _leave(self, key: Key) -> None:
        self._register.remove(key)

    def present(self, channel: bytes) -> Deferred[dict[str, bytes]]:
        """Fire with the ``info`` of each client of ``channel``, at all servers. Fails with
        ``BrokerUnavailable``.
        """
        if self._register is None:
            return fail(BrokerUnavailable("This broker does not know who is present."))
        found: Deferred[Any] = self._register.present(channel)
        return found.addCallback(lambda all: {each.client: each.info for each in all})


@lru_cache(maxsize=1024)
def _matches(patterns: tuple[str, ...], facility: str) -> bool:
    return any(fnmatchcase(facility, each) for each in patterns)
