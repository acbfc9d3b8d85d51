"""What ends a websocket, or has it looked at again, when its visitor may no longer have it.

Knows what each websocket was admitted with, the control channel, and the authorizer. Three things
have a visitor's rights looked up again: a message that says that something changed, an outage, in
which such a message may have been missed, and time.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, check_admission, lost
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.revocation.control_channel import ControlChannel
from ws4redis_tx.revocation.messages import LOGOUT, RECHECK, Revocation, digest
from ws4redis_tx.revocation.packing import Packer, unpack
from ws4redis_tx.revocation.recheck_queue import RecheckQueue
from ws4redis_tx.revocation.session_index import AdmissionRecord, SessionIndex
from ws4redis_tx.scheduling.sweeps import PeriodicSweep

_log = Logger()

# A session that was logged out may still be read for a moment, from a replica or a cache.
REFUSED_AFTER_LOGOUT = 30.0
# For the same reason a recheck is done once more, so much later.
AGAIN_AFTER = 2.0
# How long a handshake may be under way, with some to spare: what was said meanwhile holds for it.
REMEMBERED = 10.0
RECHECK_TIMEOUT = 10.0
# After a recheck that failed, until it is tried again; then the websocket is closed.
RETRIES = (2.0, 8.0, 20.0)

_WATCH_INTERVAL = 1.0
_LONGEST_TIMER = 86400.0
_CLOSED_AT_ONCE = 200


class Revocations:
    """Ends websockets, and rechecks them.

    :param authorize: asks the authorizer about a handshake, as at the opening.
    :param websockets: all there are; each has ``admitted``, which is ours, ``ended``, ``revoke()``
        and ``close(code, reason)``.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        reactor: Any,
        authorize: Callable[[Handshake, Sequence[str]], Deferred[Admission]],
        websockets: Callable[[], Iterable[Any]],
        random: Random,
    ) -> None:
        self._broker = broker
        self._reactor = reactor
        self._authorize = authorize
        self._index = SessionIndex(websockets)
        self._packer = Packer()
        self._period = config.recheck
        self._rechecks: RecheckQueue[Any] = RecheckQueue(self._recheck, reactor)
        self._sweep: PeriodicSweep[Any] | None = None
        if self._period:
            # Some together, as the first of a row opens the connection to the database.
            tick = max(min(1.0, self._period), self._period / 1000)
            self._sweep = PeriodicSweep(
                self._period, self._rechecks.eventually, reactor, random, tick=tick
            )
        # Until when the sessions with these digests are refused, the oldest first.
        self._logged_out: dict[str, float] = {}
        self.sequence = 0
        """How much was heard so far: what a handshake that begins now does not know yet."""
        self._missed_before = 0  # what has an earlier number may not have been heard
        self._recent: deque[tuple[float, int, Revocation]] = deque()
        self._again: dict[tuple[str, tuple[str, ...]], float] = {}
        self._again_timer: Any = None
        # How often it failed, and the timer of the next try.
        self._failures: dict[Any, tuple[int, Any]] = {}
        self._failing = False
        control = ControlChannel(config.prefix, broker, reactor, self._heard, self._recheck_all)
        self.start = control.start
        self.when_listening = control.when_tried
        self._stop_listening = control.stop
        self._generation = broker.generation
        self._watch = LoopingCall(self._look_for_an_outage)
        self._watch.clock = reactor

    def stop(self) -> None:
        """Hear nothing more; the websockets are gone already."""
        self._stop_listening()
        self._again.clear()
        _cancel(self._again_timer)

    # What is heard

    def _heard(self, revocation: Revocation) -> None:
        self._remember(revocation)
        if revocation.verb == RECHECK:
            self._recheck_concerned(revocation)
            self._recheck_again_later(revocation)
        else:
            why = f"{revocation.verb} by {revocation.kind}"
            self._end(self._index.concerned(revocation), why)

    def _remember(self, revocation: Revocation) -> None:
        now = self._reactor.seconds()
        self.sequence += 1
        self._recent.append((now, self.sequence, revocation))
        while self._recent[0][0] < now - REMEMBERED:
            self._recent.popleft()
        if revocation.verb == LOGOUT:
            for value in revocation.values:
                self._logged_out.pop(value, None)
                self._logged_out[value] = now + REFUSED_AFTER_LOGOUT
            while self._logged_out[oldest := next(iter(self._logged_out))] <= now:
                del self._logged_out[oldest]

    def _since(self, sequence: int) -> list[Revocation]:
        """What was heard after ``sequence``."""
        heard: list[Revocation] = []
        for _, number, revocation in reversed(self._recent):
            if number <= sequence:
                break
            heard.append(revocation)
        return heard

    def _end(self, websockets: Collection[Any], why: str) -> None:
        """Close them with 1008; many of them by and by, as others want to be served too."""
        if not websockets:
            return
        _log.info("Ended {count} websockets: {why}", count=len(websockets), why=why)
        remaining = list(reversed(list(websockets)))

        def end_some() -> None:
            for _ in range(min(_CLOSED_AT_ONCE, len(remaining))):
                remaining.pop().revoke()
            if remaining:
                self._reactor.callLater(0, end_some)

        end_some()

    # Told by the websockets and their handshakes

    def admit(
        self,
        websocket: Any,
        handshake: Handshake,
        asked: Sequence[str],
        admission: Admission,
        sequence: int,
    ) -> None:
        """Remember a websocket that is about to open, whose authorizer was asked about the rights
        ``asked`` at ``sequence``.

        Raises ``Denied`` (403) when what was heard since then forbids it.
        """
        identity, facility = admission.identity, handshake.facility
        self._check_not_logged_out(identity)
        said = [each for each in self._since(sequence) if each.concerns(identity, facility)]
        if any(each.verb != RECHECK for each in said):
            raise Denied(403, "This is not allowed any more.", detail="it was disconnected")
        if admission.redeemed:
            handshake = replace(handshake, redeemed=admission.redeemed)
        packed = None if admission.fixed else self._packer.pack(handshake)
        self._index.add(
            websocket, AdmissionRecord(identity, admission.rights, asked, facility, packed)
        )
        if self._index.size == 1:
            self._generation = self._broker.generation
            self._watch.start(_WATCH_INTERVAL, now=False)
        if packed is not None:
            if self._sweep is not None:
                self._sweep.add(websocket)
            self._set_timer(websocket, admission.expires)
        if said or sequence < self._missed_before:
            self._rechecks.soon(websocket)

    def closed(self, websocket: Any) -> None:
        """Forget it."""
        if websocket.admitted is None:
            return
        self._set_timer(websocket, None)
        self._index.discard(websocket)
        self._rechecks.discard(websocket)
        self._forget_failures(websocket)
        if self._sweep is not None:
            self._sweep.discard(websocket)
        if not self._index.size:
            self._watch.stop()

    def _check_not_logged_out(self, identity: Identity) -> None:
        if not self._logged_out or identity.session_key is None:
            return
        until = self._logged_out.get(digest(identity.session_key), 0.0)
        if until > self._reactor.seconds():
            raise Denied(403, "This is not allowed any more.", detail="its session was logged out")

    # What has websockets rechecked

    def _recheck_concerned(self, revocation: Revocation) -> None:
        for websocket in self._index.concerned(revocation):
            self._rechecks.soon(websocket)

    def _recheck_again_later(self, revocation: Revocation) -> None:
        """Once more, also those that open meanwhile: what they were judged by may be old."""
        key = (revocation.kind, revocation.values)
        if not self._again:
            self._again_timer = self._reactor.callLater(AGAIN_AFTER, self._recheck_due)
        self._again.pop(key, None)
        self._again[key] = self._reactor.seconds() + AGAIN_AFTER

    def _recheck_due(self) -> None:
        now = self._reactor.seconds()
        while self._again:
            key, due = next(iter(self._again.items()))
            if due > now:
                self._again_timer = self._reactor.callLater(due - now, self._recheck_due)
                return
            del self._again[key]
            revocation = Revocation(RECHECK, *key)
            self._remember(revocation)  # also for handshakes that are still under way
            self._recheck_concerned(revocation)

    def _look_for_an_outage(self) -> None:
        if self._broker.generation != self._generation and self._broker.available:
            self._generation = self._broker.generation
            self._recheck_all()

    def _recheck_all(self) -> None:
        """What was said meanwhile was not heard; handshakes under way do not know it either."""
        self.sequence += 1
        self._missed_before = self.sequence
        for websocket in self._index.all():
            self._rechecks.eventually(websocket)

    def _set_timer(self, websocket: Any, expires: float | None) -> None:
        """Recheck when the session ends, if that is before its next turn."""
        admitted = websocket.admitted
        _cancel(admitted.expiry)
        admitted.expiry = None
        if expires is None:
            return
        left = expires - time.time()
        delay = left + 0.1 if left > 0 else 5.0
        if not self._period or delay < self._period:
            admitted.expiry = self._reactor.callLater(
                min(delay, _LONGEST_TIMER), self._rechecks.soon, websocket
            )

    # A recheck

    def _recheck(self, websocket: Any) -> Deferred[None]:
        admitted = websocket.admitted
        if admitted is None or websocket.ended or admitted.packed is None:
            return succeed(None)
        handshake = unpack(admitted.packed)
        answer: Deferred[Any] = self._authorize(handshake, admitted.asked)
        answer.addTimeout(RECHECK_TIMEOUT, self._reactor)
        answer.addCallback(self._judge, websocket, handshake)
        answer.addErrback(self._not_rechecked, websocket)
        return answer.addErrback(partial(_log.failure, "A recheck failed"))

    def _judge(self, admission: Admission, websocket: Any, handshake: Handshake) -> None:
        admitted = websocket.admitted
        if admitted is None or websocket.ended:
            return
        check_admission(handshake, admission)
        self._failing = False
        self._forget_failures(websocket)
        loss = lost(admitted.identity, admitted.rights, admission)
        if loss:
            self._end([websocket], f"a recheck found that {loss} is gone")
            return
        if admission.identity != admitted.identity:
            self._index.update(websocket, admission.identity)
        self._set_timer(websocket, admission.expires)

    def _not_rechecked(self, failure: Failure, websocket: Any) -> None:
        if websocket.admitted is None or websocket.ended:
            return
        error = failure.value
        if isinstance(error, Denied) and error.status < 500:
            self._end([websocket], f"a recheck was refused with {error.status}")
            return
        if not self._failing:
            self._failing = True  # once for all: it is the database, more often than not
            _log.failure(
                "A recheck failed. It is tried again; who cannot be rechecked is closed with 1011 "
                "after {seconds:g} s",
                failure=failure,
                seconds=sum(RETRIES),
            )
        tried, timer = self._failures.get(websocket, (0, None))
        _cancel(timer)
        if tried < len(RETRIES):
            timer = self._reactor.callLater(RETRIES[tried], self._rechecks.soon, websocket)
            self._failures[websocket] = tried + 1, timer
        else:
            websocket.close(1011, "The server failed.")

    def _forget_failures(self, websocket: Any) -> None:
        _, timer = self._failures.pop(websocket, (0, None))
        _cancel(timer)


def _cancel(timer: Any) -> None:
    if timer is not None and timer.active():
        timer.cancel()
