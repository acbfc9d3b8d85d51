"""What this server tells Redis of its clients, and what it does for the clients of dead servers.

One change is told at once, and those that happen meanwhile are told together, in their order. If a
call fails, or if Redis does not know as many clients of this server as it should, the server takes
a new name at its next sign of life, and announces all of its clients again. Those that are there
already do not join twice, and what is left under the old name is that of a dead server.
"""

from __future__ import annotations

import math
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import Announced, Occupant
from ws4redis_tx.occupancy.interfaces import IPresence
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Waiters

_log = Logger()

PERIOD = 5.0
"""Seconds between two signs of life of this server."""

PATIENCE = 20.0
"""Seconds without a sign of life after which a server counts as dead."""

_TOGETHER = 100  # clients of one call

_ROUND = 12 * 3600 / PERIOD  # signs of life within which each client is confirmed once

Key = tuple[bytes, str]
"""A channel and a client."""


class Register:
    """The clients that are present at this server.

    :param lasting: seconds for which a sign of life lasts. A server that is new, or that could not
        reach Redis, waits as long before it judges others: they may not be back yet.
    """

    def __init__(self, presence: IPresence, broker: Any, lasting: float, reactor: Any) -> None:
        self._presence = presence
        self._broker = broker
        self._lasting = lasting
        self._reactor = reactor
        self._server = _new_name()
        self.occupants: dict[Key, Occupant] = {}
        """Those that are present, or should be as soon as Redis is there."""
        self._confirming: Iterator[Occupant] = iter(())
        self._stored: set[Key] = set()  # those that Redis was told of, under the present name
        self._changes: deque[tuple[bool, Occupant]] = deque()  # comings and goings to be told
        self._entering: dict[Key, Waiters[None]] = {}
        self._asked: dict[bytes, Waiters[list[Occupant]]] = {}
        self._settling = Waiters[None]()
        self._due = False  # whether a sign of life is
        self._working = False
        self._in_doubt = False  # whether Redis may know something else than it was told
        self._since: float | None = None  # when the first sign of life was answered
        self._refused = False  # whether the log has said so
        self._dead: set[str] = set()  # the servers whose clients are being taken away
        self._timer = LoopingCall(self.beat)
        self._timer.clock = reactor

    def start(self) -> None:
        self._timer.start(PERIOD)

    def stop(self, lasting: float) -> Deferred[Any]:
        """Forget everything, and let the last sign of life last so long. Fire when it is told."""
        told: Deferred[Any] = succeed(None)
        if self._timer.running:
            self._timer.stop()
            if self._since is not None and self._broker.available:
                told = self._presence.announce(self._server, lasting, [])
                told.addErrback(lambda _: None)  # it ends all the same, a little later
        self.occupants.clear()
        self._begin_anew()
        self._changes.clear()
        self._since = None
        return told

    def add(self, occupant: Occupant) -> Deferred[None]:
        """Fire when it is told, or cannot be told now."""
        key = occupant[:2]
        self.occupants[key] = occupant
        entering = self._entering.setdefault(key, Waiters()).wait()
        if not self._in_doubt:  # else all are announced at the next sign of life
            self._changes.append((True, occupant))
        self._wake()
        return entering

    def remove(self, key: Key) -> None:
        occupant = self.occupants.pop(key)
        if self._in_doubt and key not in self._stored:
            return  # Redis was never told of it
        if self._in_doubt:
            self._stored.discard(key)
        self._changes.append((False, occupant))
        self._wake()

    def present(self, channel: bytes) -> Deferred[list[Occupant]]:
        """Fire with the clients of ``channel`` at all servers, behind all that was told before.
        Those who ask while Redis has yet to answer share the next answer. Fails with
        ``BrokerUnavailable``.
        """
        present = self._asked.setdefault(channel, Waiters()).wait()
        self._wake()
        return present

    def settled(self) -> Deferred[None]:
        """Fire when Redis was told of all that has changed until now, or cannot be told."""
        return self._settling.wait() if self._working else succeed(None)

    def beat(self) -> None:
        """Give a sign of life."""
        self._due = True
        self._wake()

    def restored(self) -> None:
        """Redis was away."""
        self._since = None
        self.beat()

    def _wake(self) -> None:
        if not self._working:
            self._working = True
            self._work()

    @inlineCallbacks
    def _work(self) -> Any:
        error = BrokerUnavailable("There is no connection to Redis.")
        try:
            while self._due or self._changes or self._asked:
                if not self._broker.available:
                    raise error
                yield self._tell()
        except Exception as failure:
            self._since, self._due, self._in_doubt = None, False, True
            if not isinstance(failure, BrokerUnavailable):
                _log.failure("Telling Redis who is present failed; it is tried again")
            elif isinstance(failure, BrokerRefused) and not self._refused:
                self._refused = True
                _log.warn("Redis refuses to keep who is present: {why}", why=str(failure))
        finally:
            self._working = False
            self._release(error)

    def _release(self, error: BrokerUnavailable) -> None:
        """Nothing is told any more for now."""
        entering, self._entering = self._entering, {}
        asked, self._asked = self._asked, {}
        self._settling.fire(None)
        for waiting in entering.values():
            waiting.fire(None)
        for asking in asked.values():
            asking.fail(Failure(error))

    @inlineCallbacks
    def _tell(self) -> Any:
        """Tell a portion of the changes, and answer those who ask behind it."""
        if self._due and self._in_doubt:
            self._begin_anew()
        presence, known = self._presence, len(self._stored)
        settling, self._settling = self._settling, Waiters()
        confirmed = self._to_confirm() if self._due else []
        (coming, going), due = self._portion(), self._due
        self._due = False
        telling: list[Deferred[Any]] = []
        if coming or due:
            self._stored.update([each[:2] for each in (*coming, *confirmed)])
            told = [*coming, *confirmed]
            telling.append(presence.announce(self._server, self._lasting, told))
        if going:
            self._stored.difference_update([each[:2] for each in going])
            withdrawn = presence.withdraw(self._server, going)
            telling.append(withdrawn.addErrback(self._not_withdrawn, going))
        asked, self._asked = self._asked, {}
        for channel, asking in asked.items():
            presence.present(channel).addCallbacks(asking.fire, asking.fail)
        try:
            answers = yield gather(telling)
        finally:
            settling.fire(None)
        for each in coming:
            if each[:2] in self._entering:
                self._entering.pop(each[:2]).fire(None)
        if coming or due:
            self._announced(answers[0], known)

    def _not_withdrawn(self, failure: Failure, going: Sequence[Occupant]) -> Failure:
        self._changes.extendleft([(False, each) for each in reversed(going)])
        return failure

    def _announced(self, announced: Announced, known: int) -> None:
        self._refused = False
        if announced.known != known:
            self._in_doubt = True
        now = self._reactor.seconds()
        if self._since is None:
            self._since = now
        if now - self._since < self._lasting:
            return
        for server in announced.dead:
            if server not in self._dead:
                self._dead.add(server)
                self._take_away(server)

    def _begin_anew(self) -> None:
        """Take a new name, and announce everybody."""
        self._server, self._in_doubt = _new_name(), False
        self._stored.clear()
        going = [each for each in self._changes if not each[0]]
        # One that has gone and come again goes first. The others stay until all have come.
        again = [each for each in going if each[1][:2] in self.occupants]
        rest = [each for each in going if each[1][:2] not in self.occupants]
        coming = [(True, each) for each in self.occupants.values()]
        self._changes = deque([*again, *coming, *rest])

    def _portion(self) -> tuple[list[Occupant], list[Occupant]]:
        """The next comings and goings, none of the same client on the same channel."""
        coming: list[Occupant] = []
        going: list[Occupant] = []
        keys: set[Key] = set()
        while self._changes and len(keys) < _TOGETHER:
            comes, occupant = self._changes[0]
            if occupant[:2] in keys:
                break
            keys.add(occupant[:2])
            (coming if comes else going).append(occupant)
            self._changes.popleft()
        return coming, going

    def _to_confirm(self) -> list[Occupant]:
        """A few of those that Redis knows, so that it forgets none of them."""
        number = min(_TOGETHER, math.ceil(len(self._stored) / _ROUND))
        confirmed = list(islice(self._confirming, number))
        if len(confirmed) < number:
            self._confirming = iter([*self.occupants.values()])
        return [each for each in confirmed if each[:2] in self._stored]

    @inlineCallbacks
    def _take_away(self, server: str) -> Any:
        """Take the clients of a dead server away. Other servers do the same, at the same time."""
        try:
            left = 1
            while left:
                found = yield self._presence.left_behind(server)
                left = yield self._presence.withdraw(server, found, dead=True)
        except BrokerUnavailable:
            pass  # it is dead at the next sign of life, too
        except Exception:
            _log.failure("Taking the clients of a dead server away failed; it is tried again")
        finally:
            self._dead.discard(server)


def _new_name() -> str:
    return secrets.token_hex(8)
