"""Revocations: hearing them, remembering them, and ending or rechecking the sessions concerned.

Three things have a visitor's rights looked up again: a message which says that something changed,
an outage in which such a message may have been missed, and time (``rechecker``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, is_same_visitor
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.tokens import TokenExpired
from ws4redis_tx.revocation.control_channel import ControlChannel
from ws4redis_tx.revocation.latest import LatestRevocations
from ws4redis_tx.revocation.messages import (
    LOGOUT,
    RECHECK,
    Revocation,
    digest,
)
from ws4redis_tx.revocation.packing import Packer
from ws4redis_tx.revocation.rechecker import IAsked, Rechecker
from ws4redis_tx.revocation.second_looks import SecondLooks
from ws4redis_tx.revocation.session_index import AdmissionRecord, IGrant, IRevocable, SessionIndex
from ws4redis_tx.revocation.void_tokens import CLOSE_CODE, Voiding, VoidTokens
from ws4redis_tx.scheduling.summaries import Summaries

_log = Logger()

# A session that was logged out may still be read for a moment, from a replica or a cache.
REFUSED_AFTER_LOGOUT = 30.0
# How long a handshake may be under way, with some to spare: what was said meanwhile holds for it.
REMEMBERED = 10.0

_CLOSED_AT_ONCE = 200
NOT_ALLOWED = "This is not allowed any more."
_VOID = "their tokens are void"


class Revocations:
    """Ends sessions, and has them rechecked.

    :param authorizer: asks the authorizer, as at the opening.
    :param sessions: all there are.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        reactor: Any,
        authorizer: IAsked,
        sessions: Callable[[], Iterable[IRevocable]],
        random: Random,
    ) -> None:
        self._broker = broker
        self._reactor = reactor
        self._index = SessionIndex(sessions)
        self._packer = Packer()
        self._rechecker = Rechecker(
            config.recheck, authorizer, self._index, self._end_one, reactor, random
        )
        self._control = ControlChannel(
            config.prefix, broker, reactor, self._heard, self._catch_up, self._voided
        )
        self._latest = LatestRevocations(broker, config.prefix, bool(config.centrifuge_url))
        self._void_tokens = VoidTokens()
        self._unregister: Callable[[], None] | None = None
        self.sequence = 0
        """The number of the last thing that was heard. A handshake notes it before the authorizer
        is asked: the answer does not know of anything later.
        """
        self._missed_before = 0  # something that came before this number may have been missed
        self._recent: deque[tuple[float, int, Revocation]] = deque()
        # Until when the sessions with these digests are refused, the oldest first.
        self._logged_out: dict[str, float] = {}
        self._ending: list[Any] = []
        self._lines = Summaries(reactor)
        self._second_looks = SecondLooks(reactor, self._look_again)

    def use_time(self, unix_time: Callable[[], float]) -> None:
        """Let visitors' sessions end by this clock, in seconds since the epoch, in a test."""
        self._rechecker.unix_time = unix_time

    def start(self) -> None:
        """Listen. Idempotent."""
        if self._unregister is None:
            self._unregister = self._broker.on_restored(self._catch_up)
        self._control.start()

    def stop(self) -> None:
        """Hear nothing more; the sessions are gone already. Idempotent."""
        if self._unregister is not None:
            self._unregister()
            self._unregister = None
        self._control.stop()
        self._lines.stop()
        self._second_looks.stop()
        for timer in self._ending:
            if timer.active():
                timer.cancel()

    def when_listening(self) -> Deferred[None]:
        """Fire when revocations are heard, or Redis has refused that for now."""
        return self._control.when_tried()

    # Told by the sessions and their handshakes

    def admit(
        self,
        session: IRevocable,
        handshake: Handshake,
        asked: Sequence[str],
        admission: Admission,
        sequence: int,
        fixed: bool,
    ) -> None:
        """Remember a session that is about to open, whose authorizer was asked about the rights
        ``asked`` at ``sequence``. A second admission takes the place of the first.

        ``fixed``: the authorizer's answers never change, and there is nothing to recheck.

        Raises ``Denied`` (403) when what was heard since then forbids it, and ``TokenExpired`` for
        a token that is void.
        """
        identity, facility = admission.identity, handshake.facility
        self._check_not_logged_out(identity)
        if admission.issued is not None:
            self.check_token(identity, admission.issued)
        changed = self._has_changed(sequence, identity, facility)
        if admission.redeemed:
            handshake = replace(handshake, redeemed=admission.redeemed)
        packed = None if fixed else self._packer.pack(handshake)
        self.closed(session)
        admitted = AdmissionRecord(
            identity, admission.rights, asked, facility, packed, admission.issued
        )
        self._index.add(session, admitted)
        if packed is not None:
            self._rechecker.watch(session, admission.expires)
        if changed:
            self._rechecker.soon(session)

    def check_grant(self, session: IRevocable, grant: IGrant, sequence: int) -> None:
        """Raise ``Denied`` (403) for what the authorizer was asked about at ``sequence`` and has
        granted, when what was heard since then forbids it, or the visitor is another one than the
        session's.
        """
        admitted = session.admitted
        if admitted is None or not is_same_visitor(admitted.identity, grant.identity):
            raise Denied(403, NOT_ALLOWED, detail="the visitor has changed")
        if self._has_changed(sequence, grant.identity, grant.facility):
            self._rechecker.soon(session)

    def _has_changed(self, sequence: int, identity: Identity, facility: str) -> bool:
        """Whether what was heard since ``sequence`` asks for a recheck. Raises ``Denied`` (403) if
        it forbids the session.
        """
        if sequence == self.sequence:
            return False
        said = [each for each in self._since(sequence) if each.concerns(identity, facility)]
        if any(each.verb != RECHECK for each in said):
            raise Denied(403, NOT_ALLOWED, detail="it was disconnected")
        return bool(said) or sequence < self._missed_before

    def check_token(self, identity: Identity, issued: float) -> None:
        """Raise ``TokenExpired`` if a token of ``identity`` that was ``issued`` then (Unix time)
        has become void.
        """
        if self._void_tokens.covers(identity, issued):
            raise TokenExpired(
                "iat", "precedes a revocation of its user's (a logout, a password, a group)"
            )

    def closed(self, session: IRevocable) -> None:
        """Forget it."""
        if session.admitted is not None:
            self._rechecker.forget(session)
            self._index.discard(session)

    def _check_not_logged_out(self, identity: Identity) -> None:
        if not self._logged_out or identity.session_key is None:
            return
        until = self._logged_out.get(digest(identity.session_key, identity.tenant), 0.0)
        if until > self._reactor.seconds():
            raise Denied(403, NOT_ALLOWED, detail="its session was logged out")

    # Told by the control channel

    def _heard(self, revocation: Revocation) -> None:
        self._remember(revocation)
        if revocation.verb == RECHECK:
            self._recheck_concerned(revocation)
            self._second_looks.later(revocation)
        else:
            why = f"{revocation.verb} by {revocation.kind}"
            self._end(self._index.concerned(revocation), why)

    def _voided(self, voiding: Voiding) -> None:
        self._void_tokens.add(voiding)
        self._end(self._index.with_tokens(voiding), _VOID, CLOSE_CODE)

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
        """Those that were heard after ``sequence``."""
        heard: list[Revocation] = []
        for _, number, revocation in reversed(self._recent):
            if number <= sequence:
                break
            heard.append(revocation)
        return heard

    # Whom it concerns

    def _end(self, lost: Collection[IRevocable | IGrant], why: str, code: int = 1008) -> None:
        """End them; many of them a few at a time, as others want to be served too."""
        if lost:
            line = f"Revoked {len(lost)} connections or rights: {why}"
            if self._lines.admits(why, line):
                _log.info("{line}", line=line)
            self._end_some(list(reversed(list(lost))), code)

    def _end_one(self, lost: IRevocable | IGrant, why: str) -> None:
        self._end([lost], why)

    def _end_some(self, remaining: list[IRevocable | IGrant], code: int) -> None:
        for _ in range(min(_CLOSED_AT_ONCE, len(remaining))):
            try:
                remaining.pop().revoke(code)
            except Exception:
                _log.failure("Revoking failed; others go on")
        if remaining:
            self._ending = [each for each in self._ending if each.active()]
            self._ending.append(self._reactor.callLater(0, self._end_some, remaining, code))

    def _recheck_concerned(self, revocation: Revocation) -> None:
        for session in self._index.sessions_concerned(revocation):
            self._rechecker.soon(session)

    def _look_again(self, revocation: Revocation) -> None:
        self._remember(revocation)  # also for handshakes that are still under way
        self._recheck_concerned(revocation)

    def _catch_up(self) -> Deferred[None]:
        """Revocations may have been missed. Logouts and void tokens are known, from the lists of
        the latest ones: a session that ended may still be read for a moment. Fire when they are
        read, or cannot be.
        """
        self._recheck_all()
        # Cancelling the one that is returned must not cancel what was asked of Redis.
        known: Deferred[None] = Deferred()
        self._latest.read().addCallback(self._read, known)
        return known

    def _read(self, found: tuple[list[str], list[Any]], known: Deferred[None]) -> None:
        digests, void = found
        if digests:
            self._heard(Revocation(LOGOUT, "session", tuple(digests)))
        self._void_tokens.add_lists(void, self._rechecker.unix_time())
        self._end(self._index.covered_by(self._void_tokens), _VOID, CLOSE_CODE)
        known.callback(None)

    def _recheck_all(self) -> None:
        """Revocations may have been missed until now. Handshakes that are under way do not know of
        them either.
        """
        self.sequence += 1
        self._missed_before = self.sequence
        for session in self._index.all():
            self._rechecker.eventually(session)
