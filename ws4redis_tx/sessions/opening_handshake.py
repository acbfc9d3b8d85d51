"""The opening handshake: from a request's head to the 101, or to a refusal.

It is ours and not Autobahn's, which answers other statuses, lets bytes inside a header's value
start another header, and opens twice when it is asked twice.

The steps, each of which can be the last:

    read the head → judge its form → can we serve now? → Host and Origin → wait for its turn → who
    is it, what may they do (the authorizer) → subscribe, and wait until the subscriptions stand →
    accept.

The client has 5 s for its head, the authorizer for its answer, and Redis for the subscriptions. A
handshake that waits for its turn is not late: that is up to us.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, check_admission
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.handshake import (
    MAX_HEAD_BYTES,
    Handshake,
    HttpRequest,
    judge_request,
    read_request,
)
from ws4redis_tx.scheduling.deferreds import waits

_log = Logger()

NOTHING_MAY_FOLLOW = "Nothing may follow a handshake before its answer."


class Opening:
    """One handshake. ``websocket`` is told to ``subscribe``, and at the end to ``accept`` or to
    ``refuse``; after every wait it may have ``ended``, as the client left.
    """

    __slots__ = (
        "_answered", "_authorization", "_factory", "_sequence", "_websocket", "handshake",
        "head_read", "path", "peer",
    )  # fmt: skip

    handshake: Handshake
    """Once it was found to be one."""

    def __init__(self, factory: Any, websocket: Any) -> None:
        self._factory = factory
        self._websocket = websocket
        self.head_read = False
        self.path = self.peer = ""
        self._authorization: Deferred[Any] | None = None
        self._answered = False
        self._sequence = 0
        factory.deadlines.add(websocket)

    def receive(self, data: bytes) -> bytes:
        """Take all that has arrived and was not used yet; return what is not used yet."""
        try:
            head, separator, rest = data.partition(b"\r\n\r\n")
            if len(head) > MAX_HEAD_BYTES:
                raise Denied(400, f"The request's head exceeds {MAX_HEAD_BYTES} bytes.")
            if self.head_read:
                raise Denied(400, NOTHING_MAY_FOLLOW)
            if not separator:
                return data
            self.begin(read_request(head, NOTHING_MAY_FOLLOW if rest else ""))
        except Denied as denied:
            self._websocket.refuse(denied)
        return b""

    def begin(self, request: HttpRequest) -> None:
        """Start with a request whose head was read, by us or by an HTTP server before us."""
        self.head_read = True
        self._factory.deadlines.discard(self._websocket)
        self._run(self._judge, request)

    def ask(self) -> None:
        """Its turn has come."""
        self._run(self._ask)

    def give_up(self) -> None:
        """Its turn will not come."""
        self._websocket.refuse(unavailable("its turn to ask the authorizer did not come"))

    def time_out(self) -> None:
        """The client, the authorizer or Redis took too long."""
        if self.head_read:
            self._factory.turns.overdue(self)
            self._websocket.refuse(unavailable("the handshake took longer than its timeout"))
        else:
            self._websocket.drop()

    def abandon(self) -> None:
        """The websocket has ended: nobody needs to know any more who it is."""
        # First, as what is cancelled fails, and is no answer for all that.
        self._factory.turns.leave(self, served=self._answered)
        if self._authorization is not None:
            self._authorization.cancel()

    def _run(self, step: Callable[[Any], None], argument: Any = None) -> None:
        """Do a step; what it raises is the answer."""
        if self._websocket.ended:
            return
        try:
            step(argument)
        except BaseException:  # also sys.exit() in a callback, or an answer that was lost
            self._fail(Failure())

    def _fail(self, failure: Failure) -> None:
        """Answer a step that failed."""
        websocket, error = self._websocket, failure.value
        if websocket.ended:
            return
        if isinstance(error, BrokerUnavailable):
            error = unavailable(str(error))
        elif not isinstance(error, Denied):
            _log.failure("A handshake failed; the client was answered with 500", failure=failure)
            error = Denied(500, "The server failed; its log says why.")
        websocket.refuse(error)

    def _judge(self, request: HttpRequest) -> None:
        factory, websocket = self._factory, self._websocket
        self.path, self.peer = request.target.partition("?")[0], websocket.peer_address
        handshake = judge_request(
            request, factory.config.websocket_url, secure=websocket.secure, peer=self.peer
        )
        handshake = factory.proxies.see_through(handshake)
        self.peer = handshake.peer
        factory.check_capacity()
        websocket.shares.claim(factory.addresses, handshake.peer)
        factory.origins.check(handshake)
        self.handshake = handshake
        if not factory.turns.join(self):
            raise unavailable("WS4REDIS_MAX_AUTHORIZATIONS handshakes wait for the authorizer")

    def _ask(self, _: None) -> None:
        factory = self._factory
        factory.check_capacity()
        self._sequence = factory.revocations.sequence
        authorization = self._authorization = factory.authorize(self.handshake)
        if waits(authorization):
            factory.deadlines.add(self._websocket)
        authorization.addCallbacks(self._admitted, self._not_admitted)

    def _admitted(self, admission: Admission) -> None:
        self._answered = True
        self._run(self._subscribe, admission)
        self._factory.turns.leave(self, served=True)

    def _not_admitted(self, failure: Failure) -> None:
        self._answered = True
        self._fail(failure)
        self._factory.turns.leave(self, served=True)

    def _subscribe(self, admission: Admission) -> None:
        factory, websocket, handshake = self._factory, self._websocket, self.handshake
        check_admission(handshake, admission)
        identity = admission.identity
        websocket.shares.claim(factory.visitors, identity.username or identity.session_key)
        factory.admit(websocket, handshake, admission, self._sequence)
        subscribed: Deferred[Any] = websocket.subscribe(handshake, admission)
        if waits(subscribed):
            factory.deadlines.add(websocket)
        subscribed.addCallbacks(self._subscribed, self._fail)

    def _subscribed(self, _: object) -> None:
        self._run(self._accept)

    def _accept(self, _: None) -> None:
        self._factory.check_capacity()
        self._websocket.accept(self.handshake)


def unavailable(detail: str) -> Denied:
    """With the advice to come back in a while, not all after the same."""
    return Denied(
        503,
        "The server cannot serve websockets now.",
        headers=(("Retry-After", str(random.randint(1, 5))),),
        detail=detail,
    )
