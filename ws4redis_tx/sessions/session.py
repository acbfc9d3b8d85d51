"""One client, from its connection to its release.

A session is opening until its handshake is answered, then open until it has ended. Its transport
moves the bytes, its protocol gives them a meaning, and its outbox keeps them in order. After every
wait, check ``ended``: the client may have left meanwhile.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, Asked
from ws4redis_tx.core.errors import Denied, unavailable
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import Refusal
from ws4redis_tx.core.limits import Quota
from ws4redis_tx.core.messages import payload_of
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.protocols.interfaces import OVER_RATE, IProtocol
from ws4redis_tx.revocation.revocations import NOT_ALLOWED
from ws4redis_tx.revocation.session_index import NO_GRANTS, AdmissionRecord, IRevocable
from ws4redis_tx.sessions.authorization import Authorization, FacilitiesAuthorization
from ws4redis_tx.sessions.inbox import Inbox
from ws4redis_tx.sessions.interfaces import Ending, ITransport
from ws4redis_tx.sessions.observed import Observed
from ws4redis_tx.sessions.opening_handshake import OpeningHandshake
from ws4redis_tx.sessions.peer_limits import PeerLimits

if TYPE_CHECKING:
    from ws4redis_tx.sessions.server import Server


class Session(Observed):
    """An ``ISession``, with everything that the server knows about one client."""

    __slots__ = (
        "_inbox", "_limits", "_since", "admitted", "authorizations", "ended", "feed", "grants",
        "handshake", "opening", "outbox", "peer", "protocol", "server", "state", "transport",
    )  # fmt: skip

    part = False
    handshake: Handshake
    protocol: IProtocol

    def __init__(self, server: Server, transport: ITransport) -> None:
        self.server = server
        self.transport = transport
        self.ended = False
        self.state: Any = None
        self.admitted: AdmissionRecord | None = None
        """The record of its admission, once it is admitted."""
        self.grants: dict[str, Any] = NO_GRANTS
        # Made on first use: most clients send nothing, and most quotas are unlimited.
        self._limits: PeerLimits | None = None
        config = server.config
        self.outbox = Outbox(
            transport.writer, transport.codec, self, config.max_pending, config.slow_reader
        )
        self.observers = ()
        if server.observers:
            self.observers = [each for each in server.observers if not each.idle]
        self.feed = Feed(self.outbox)
        self.authorizations: tuple[Authorization, ...] = ()
        """The questions to the authorizer that are not answered yet."""
        self.peer = ""
        """The client's address, once the session is open."""
        self._since: float | None = None  # when it opened
        # Made when the client first sends something, or does not read.
        self._inbox: Inbox | None = None
        self.opening: OpeningHandshake | None = OpeningHandshake(server, self)
        server.connected(self)

    # The opening handshake

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        return Authorization(self, handshake, rights).begin()

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: tuple[int, Admission] | None
    ) -> Deferred[list[Any]]:
        return FacilitiesAuthorization(self, handshake, asked, known).begin()

    @property
    def revocation(self) -> int:
        return self.server.revocations.sequence

    def answered(self, authorization: Authorization) -> None:
        """The question is answered, or will never be. Idempotent."""
        self.authorizations = tuple([x for x in self.authorizations if x is not authorization])

    def admit(self, owner: IRevocable, handshake: Handshake, admission: Admission) -> None:
        revocations = self.server.revocations
        revocations.admit(owner, handshake, (), admission, revocations.sequence, True)

    def withdraw(self, owner: IRevocable) -> None:
        self.server.revocations.closed(owner)

    def claim(self, quota: Quota, key: Hashable) -> None:
        """Take a place in ``quota`` until the end. Raises ``Denied`` (503) when none is left."""
        if key and not quota.unlimited:  # without a key, the peer is unknown
            self._limits = self._limits or PeerLimits()
            self._limits.claim(quota, key)

    def accept(self) -> None:
        """Answer the handshake, unless it is too late for that."""
        if self.outbox.closed:
            self.refuse(unavailable("too many messages waited for the end of the handshake"))
        elif not self.ended:
            self.opening = None
            self.transport.accept(self.handshake)
            self._since = self.server.reactor.seconds()
            self.peer = self.handshake.peer
            self.server.opened(self)
            if self.observers:
                self.tell("opened")
            try:
                opened = self.protocol.opened(self) or succeed(None)
            except Exception:
                opened = fail()
            opened.addErrback(self.fail, "Opening a websocket failed")
            if self.observers:
                opened.addCallback(lambda _: self.tell("live"))
            del self.handshake

    def refuse(self, denied: Denied) -> None:
        """Answer the handshake with a status, and end."""
        if self.ended:
            return
        opening = self.opening
        if opening is None:
            # It was already accepted: an HTTP response would not be a frame.
            self.close(1011, "The server failed.")
            return
        self.ended = True
        self._abandon()
        self.server.log.refused(denied, websocket=opening.wants_websocket)
        self.transport.refuse(denied)
        refusal = Refusal(denied.status, denied.reason, denied.detail, opening.path, opening.peer)
        for observer in self.observers:
            observer.refused(refusal)

    def turn_away(self, denied: Denied) -> None:
        """Refuse a client that has sent something, and just drop one that has not. A browser would
        otherwise take the refusal as the answer to its next request over that connection.
        """
        if self.transport.request_begun:
            self.refuse(denied)
        else:
            self.transport.drop()

    def time_out(self) -> None:
        """A step of the handshake took too long."""
        if self.opening is not None and not self.ended:
            self.opening.time_out()

    # While it is open

    def send(self, message: bytes | str) -> None:
        """Send a message in order with all others: as text if it is valid UTF-8, else as binary.

        Raises ``TypeError`` for what is neither text nor bytes.
        """
        self.feed.send(payload_of(message))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. Messages that were not written yet are dropped. The reason is
        cut off if it does not fit into a close frame.
        """
        self.transport.close(*self.protocol.close_code(code, reason))

    def revoke(self, code: int = 1008) -> None:
        """End the session because its visitor has lost the right to it, even before it is open."""
        if self.opening is None:
            self.close(code, NOT_ALLOWED)
        else:
            self.refuse(Denied(403, NOT_ALLOWED, detail="it was revoked"))

    def overflow(self) -> None:
        """Called by the outbox: too many messages are waiting."""
        self.feed.close()
        self.close(1013, "Too slow: too many messages were waiting.")

    def grew(self, size: int) -> None:
        """The server holds that many bytes more for this client, or of its messages."""
        self.server.pending_total.grew(self, size)

    def give_way(self) -> None:
        """All clients together hold too much, and this one holds the most."""
        if self.opening is None:
            self.feed.close()
            self.close(1013, "The server holds too much for its clients.")
        else:
            self.turn_away(unavailable("its messages took too much memory"))

    def received(self, payload: bytes) -> None:
        """Take a message of the client's from an open transport."""
        if payload != self.server.heartbeat:
            self._need_inbox().receive(payload)

    def _need_inbox(self) -> Inbox:
        if self._inbox is None:
            self._inbox = Inbox(self)
        return self._inbox

    @property
    def speaks(self) -> bool:
        """Whether a message of the client's still counts: neither side has ended the session."""
        return not self.ended and not self.outbox.closed

    def fail(self, failure: Failure, text: str) -> None:
        """Log ``text`` with a failure of the server's, and close the session with 1011."""
        self.server.log.failed(text, failure)
        self.close(1011, "The server failed.")

    def within_rate(self, *, messages: int = 0, size: int = 0) -> bool:
        """Count messages and bytes of the client's. Close it if they are too many."""
        rate = self.server.rate
        if rate is None:
            return True
        self._limits = self._limits or PeerLimits()
        now = self.server.reactor.seconds()
        if self._limits.allows(rate, now, messages=messages, size=size):
            return True
        self.flooded()
        return False

    def flooded(self) -> None:
        self.close(OVER_RATE, "Too many messages.")

    # Called by the transport

    def pause(self) -> None:
        """The client does not read the bytes that were written: let messages wait."""
        self.outbox.pause()
        self._need_inbox().pace()
        self.grew(sum(map(len, self.transport.outgoing)))

    def resume(self) -> None:
        self.outbox.resume()
        self._need_inbox().pace()

    @property
    def received_number(self) -> int:
        return 0 if self._inbox is None else self._inbox.number

    @property
    def seconds(self) -> float:
        return 0.0 if self._since is None else self.server.reactor.seconds() - self._since

    @property
    def unacknowledged(self) -> int:
        """Bytes of the client's messages that its protocol has not done with."""
        return 0 if self._inbox is None else self._inbox.size

    @property
    def reading(self) -> bool:
        """Whether the server reads the client's bytes. It pauses while the client does not read."""
        return self._inbox is None or self._inbox.reading

    def client_closes(self) -> bool:
        """The client has begun to close. Return whether to answer now. Otherwise
        ``transport.answer_close`` is called when its messages are acknowledged, or after 2 s.
        """
        return self._inbox is None or self._inbox.client_closes()

    def end(self, ending: Ending) -> None:
        """The connection is over. Called once."""
        self.ended = True
        try:
            self._release(ending)
        finally:
            self.server.closed(self)

    def _release(self, ending: Ending) -> None:
        self.feed.close()
        self.grants = NO_GRANTS
        if self._inbox is not None:
            self._inbox.answer_close()  # stops its timer
        self._abandon()
        if self._limits is not None:
            self._limits.give_back()
        if hasattr(self, "protocol"):
            released = maybeDeferred(self.protocol.closed, self)
            released.addErrback(partial(self.server.log.failed, "Releasing a websocket failed"))
        if self._since is not None:
            self.server.log.ended(self, ending.closing(self))
            if self.observers:
                self.tell("closed", ending)

    def _abandon(self) -> None:
        """Cancel the questions to the authorizer that are still waiting for an answer."""
        for authorization in self.authorizations:
            authorization.abandon()
        self.authorizations = ()
