"""Looking up again whether a session may still have what it was admitted with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from random import Random
from time import time
from typing import Any, Protocol

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import MOST_TOGETHER, Admission, Asked, check_admission, lost
from ws4redis_tx.core.errors import Denied, Outage
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.revocation.packing import unpack
from ws4redis_tx.revocation.recheck_queue import RecheckQueue
from ws4redis_tx.revocation.session_index import IGrant, IRevocable, SessionIndex
from ws4redis_tx.scheduling.sweeps import PeriodicSweep

_log = Logger()

RECHECK_TIMEOUT = 10.0

PATIENCE = 30.0
"""Seconds from a session's first failure. The first recheck that fails after them closes it."""

# Seconds from the first failure to each retry.
_RETRIES = (2.0, 10.0, PATIENCE)

_CLOCK_INTERVAL = 60.0
"""Seconds between looks at the system clock, which says when a visitor's session ends, and may be
set meanwhile. Timers do not follow it.
"""


class IAsked(Protocol):
    """Asks the authorizer. Fails if it does."""

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]: ...

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> Deferred[Sequence[Admission | Exception]]: ...


class Rechecker:
    """Rechecks sessions: when it is asked to, once in each period, and when a visitor's own
    session, such as Django's, ends.

    A recheck that fails is tried again. One that fails 30 s after the session's first failure, or
    later, closes the session with 1011. Time alone counts: rechecks may also have other causes.

    :param period: in seconds; ``0`` or ``None``: nobody is rechecked for time alone.
    :param index: has the sessions' records.
    :param end: called with a session or grant that lost something, and why.
    """

    def __init__(
        self,
        period: int | None,
        authorizer: IAsked,
        index: SessionIndex,
        end: Callable[[IRevocable | IGrant, str], None],
        reactor: Any,
        random: Random,
    ) -> None:
        self._period = period
        self._authorizer = authorizer
        self._index = index
        self._end = end
        self._reactor = reactor
        self._queue: RecheckQueue[IRevocable] = RecheckQueue(self._recheck, reactor)
        self._sweep: PeriodicSweep[IRevocable] | None = None
        if period:
            # Many together, as they share queries and a connection to the database.
            tick = max(min(1.0, period), min(5.0, period / 60), period / 1000)
            self._sweep = PeriodicSweep(period, self._queue.eventually, reactor, random, tick=tick)
        # When a session's rechecks began to fail, and the timer of the next try.
        self._failures: dict[IRevocable, tuple[float, Any]] = {}
        self._failing = False
        # Its recheck is being cancelled, which is no failure.
        self._forgetting: IRevocable | None = None
        self.unix_time: Callable[[], float] = lambda: time()
        """The time by which visitors' sessions end. A test may replace it."""

    def watch(self, session: IRevocable, expires: float | None) -> None:
        """Recheck it once in each period, and at ``expires`` (Unix time), until ``forget``."""
        if self._sweep is not None:
            self._sweep.add(session)
        self._set_timer(session, expires)

    def forget(self, session: IRevocable) -> None:
        """The session is gone. Before its record is discarded."""
        self._set_timer(session, None)
        self._forgetting = session
        self._queue.discard(session)
        self._forgetting = None
        self._forget_failures(session)
        if self._sweep is not None:
            self._sweep.discard(session)

    def soon(self, session: IRevocable) -> None:
        """Something about its visitor has changed."""
        self._queue.soon(session)

    def eventually(self, session: IRevocable) -> None:
        """Something may have changed: after those that are urgent."""
        self._queue.eventually(session)

    def _set_timer(self, session: IRevocable, expires: float | None) -> None:
        """Recheck when the visitor's session ends, if that is before the next turn."""
        admitted = session.admitted
        if admitted is None:
            return
        _cancel(admitted.expiry)
        admitted.expiry = None
        if expires is None:
            return
        left = expires - self.unix_time()
        delay = left + 0.1 if left > 0 else 5.0
        if self._period and delay >= self._period:
            return
        if delay > _CLOCK_INTERVAL:
            admitted.expiry = self._reactor.callLater(
                _CLOCK_INTERVAL, self._look_again, session, expires
            )
        else:
            admitted.expiry = self._reactor.callLater(delay, self._queue.soon, session)

    def _look_again(self, session: IRevocable, expires: float) -> None:
        if self.unix_time() >= expires:
            self._queue.soon(session)
        else:
            self._set_timer(session, expires)

    # A recheck

    def _recheck(self, session: IRevocable) -> Deferred[None]:
        admitted = session.admitted
        if admitted is None or session.ended or admitted.packed is None:
            return succeed(None)
        handshake = replace(unpack(admitted.packed), recheck=True)
        answer: Deferred[Any] = self._authorizer.authorize(handshake, admitted.asked)
        answer.addTimeout(RECHECK_TIMEOUT, self._reactor)
        answer.addCallback(self._judge, session, handshake)
        answer.addCallback(self._recheck_grants, session, handshake)
        answer.addErrback(self._not_rechecked, session)
        return answer.addErrback(partial(_log.failure, "A recheck failed"))

    def _judge(
        self, admission: Admission, session: IRevocable, handshake: Handshake
    ) -> Admission | None:
        """Return it for a session that goes on."""
        admitted = session.admitted
        if admitted is None or session.ended:
            return None
        check_admission(handshake, admission)
        if not session.grants:
            self._succeeded(session)
        loss = lost(admitted.identity, admitted.rights, admission)
        if loss:
            self._end(session, f"a recheck found that {loss} is gone")
            return None
        if admission.identity != admitted.identity:
            self._index.update(session, admission.identity)
        self._set_timer(session, admission.expires)
        return admission

    @inlineCallbacks
    def _recheck_grants(
        self, admission: Admission | None, session: IRevocable, handshake: Handshake
    ) -> Any:
        """In portions, each with a time limit of its own. All are judged before one that failed
        makes the recheck fail.
        """
        if admission is None or not session.grants:
            return
        failed: Exception | None = None
        grants = [*session.grants.values()]
        for start in range(0, len(grants), MOST_TOGETHER):
            portion = grants[start : start + MOST_TOGETHER]
            asked = [Asked(each.facility, each.asked) for each in portion]
            answer = self._authorizer.authorize_facilities(handshake, asked, admission)
            answers = yield answer.addTimeout(RECHECK_TIMEOUT, self._reactor)
            if session.admitted is None or session.ended:
                return
            for grant, outcome in zip(portion, answers, strict=True):
                failed = self._judge_grant(session, grant, handshake, outcome) or failed
        if failed is not None:
            raise failed
        self._succeeded(session)

    def _judge_grant(
        self,
        session: IRevocable,
        grant: IGrant,
        handshake: Handshake,
        answer: Admission | Exception,
    ) -> Exception | None:
        """Return what has failed, unless that takes the grant away."""
        if session.grants.get(grant.facility) is not grant:
            return None
        try:
            if isinstance(answer, Exception):
                raise answer
            check_admission(handshake, answer, facility=grant.facility)
            loss = lost(grant.identity, grant.rights, answer)
        except Denied as denied:
            if denied.status >= 500:
                return denied
            self._end(grant, f"a recheck was refused with {denied.status}")
            return None
        except Exception as error:
            return error
        if loss:
            self._end(grant, f"a recheck found that {loss} is gone")
        else:
            grant.identity = answer.identity
        return None

    def _succeeded(self, session: IRevocable) -> None:
        self._failing = False
        self._forget_failures(session)

    def _not_rechecked(self, failure: Failure, session: IRevocable) -> None:
        if session.admitted is None or session.ended or session is self._forgetting:
            return
        error = failure.value
        if isinstance(error, Denied) and error.status < 500:
            self._end(session, f"a recheck was refused with {error.status}")
            return
        if not self._failing and not isinstance(error, Outage):  # an outage has a line already
            self._failing = True  # once for all: it is the database, more often than not
            _log.failure(
                "A recheck failed. It is tried again; a websocket whose rechecks still fail after "
                "{seconds:g} s is closed with 1011",
                failure=failure,
                seconds=PATIENCE,
            )
        now = self._reactor.seconds()
        since, timer = self._failures.get(session, (now, None))
        _cancel(timer)
        due = next((each for each in _RETRIES if since + each > now), None)
        if due is None:
            session.close(1011, "The server failed.")
        else:
            timer = self._reactor.callLater(since + due - now, self._queue.soon, session)
            self._failures[session] = since, timer

    def _forget_failures(self, session: IRevocable) -> None:
        _, timer = self._failures.pop(session, (0.0, None))
        _cancel(timer)


def _cancel(timer: Any) -> None:
    if timer is not None and timer.active():
        timer.cancel()
