"""The opening handshake: from a request's head to its acceptance or its refusal.

It replaces Autobahn's, which answers with other statuses, lets bytes inside a header's value start
another header, and opens twice if a second request arrives during the first.

Each of these steps can refuse the client:

    read the head → check its form → check the capacity → Host and Origin → the protocol's part
    (classic: wait for a turn → ask the authorizer → subscribe) → accept.

The client has 5 s for its head, the authorizer 5 s for its answer, and Redis 5 s for the
subscriptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.python.failure import Failure

from ws4redis_tx.core.errors import (
    BrokerUnavailable,
    Denied,
    Outage,
    is_bad_request,
    is_outage,
    is_permission_denied,
    unavailable,
)
from ws4redis_tx.core.handshake import asks_for_events, asks_for_websocket, judge_request
from ws4redis_tx.core.http import MAX_HEAD_BYTES, HttpRequest, read_request
from ws4redis_tx.core.proxies import counted_address

if TYPE_CHECKING:
    from ws4redis_tx.sessions.server import Server
    from ws4redis_tx.sessions.session import Session

NOTHING_MAY_FOLLOW = "Nothing may follow a handshake before its answer."


class OpeningHandshake:
    """One handshake. At its end it tells its session to ``accept`` or to ``refuse``."""

    __slots__ = ("_server", "head_read", "path", "peer", "session", "wants_websocket")

    def __init__(self, server: Server, session: Session) -> None:
        self._server = server
        self.session = session
        self.head_read = False
        self.path = self.peer = ""
        self.wants_websocket = False
        """Whether a request was read that asks for a websocket."""
        server.timeouts.add(session)

    def receive(self, data: bytes) -> bytes:
        """Take all unused bytes that have arrived; return those that are still unused."""
        try:
            head, separator, rest = data.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD_BYTES:
                raise Denied(400, f"The request's head exceeds {MAX_HEAD_BYTES} bytes.")
            if self.head_read:
                raise Denied(400, NOTHING_MAY_FOLLOW)
            if not separator:
                return data
            request, http = read_request(head), self._server.http
            if rest and (http is None or not http.serves(request.path)):
                request = read_request(head, NOTHING_MAY_FOLLOW)
            self.begin(request, rest)
        except Denied as denied:
            self.session.refuse(denied)
        return b""

    def begin(self, request: HttpRequest, rest: bytes = b"") -> None:
        """Start with a request whose head was read here or by an HTTP server. ``rest`` is what came
        behind it.
        """
        server, session = self._server, self.session
        self.head_read = True
        self.wants_websocket = True
        server.timeouts.discard(session)
        if session.ended:
            return
        try:
            self.path, self.peer = request.path, session.transport.peer_address
            http = server.http
            if http is not None and http.serves(request.path):
                answer = http.begin(self, request, rest)
            else:
                events = False
                if server.make_stream is not None and asks_for_events(request):
                    events = True
                    session.transport = server.make_stream(session)
                request, protocol = server.place(request)
                self.judge(request, protocol.path, events=events)
                session.outbox.codec = session.transport.negotiate(session.handshake)
                session.protocol = protocol
                answer = protocol.handshake(session)
        except BaseException:  # also sys.exit() in a callback
            self.wants_websocket = asks_for_websocket(request)
            self._fail(Failure())
            return
        if answer is None:
            self._accept(None)
            return
        if (not answer.called or answer.paused) and not session.authorizations:
            server.timeouts.add(session)
        answer.addCallbacks(self._accept, self._fail)

    def time_out(self) -> None:
        """The client, the authorizer or Redis took too long."""
        if self.head_read:
            self.session.refuse(unavailable("the handshake took longer than its timeout"))
        else:
            self.session.transport.drop()

    def judge(
        self, request: HttpRequest, path: str, *, events: bool = False, lasting: bool = True
    ) -> None:
        """Check the form of a request for something below ``path``, whether there is room for a
        ``lasting`` session, and Host and Origin.
        """
        server, session = self._server, self.session
        transport = session.transport
        handshake = server.proxies.see_through(
            judge_request(request, path, secure=transport.secure, peer=self.peer, events=events)
        )
        self.peer = handshake.peer
        session.handshake = handshake
        if lasting:
            server.check_capacity()
        server.descriptors.check(transport.connection)
        session.claim(server.addresses, counted_address(handshake.peer))
        server.origins.check(handshake)

    def _accept(self, _: object) -> None:
        if self.session.ended:
            return
        try:
            self._server.check_capacity()  # again: the answer may have taken a while
            self.session.accept()
        except Exception:
            self._fail(Failure())

    def _fail(self, failure: Failure) -> None:
        session, error = self.session, failure.value
        if session.ended:
            return
        if isinstance(error, BrokerUnavailable):
            kind = unavailable if self._server.broker.available else Outage
            error = kind(str(error))
        elif is_permission_denied(error):
            detail = f"the subscriber or the authorizer raised PermissionDenied ({error})"
            error = Denied(403, "This is not allowed.", detail=detail)
        elif is_bad_request(error):
            detail = f"the subscriber or the authorizer raised {type(error).__name__}"
            error = Denied(400, "The request is not well-formed.", detail=detail)
        elif error is not None and not isinstance(error, Denied) and is_outage(error):
            raised = f"{type(error).__name__}: {error}"
            error = unavailable(f"the subscriber or the authorizer raised {raised}")
        elif not isinstance(error, Denied):
            text = "A handshake failed; the client was answered with 500"
            self._server.log.failed(text, failure)
            error = Denied(500, "The server failed; its log says why.")
        session.refuse(error)
