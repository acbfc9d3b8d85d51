"""The opening handshake: from a request's head to the 101, or to a refusal.

It is ours and not Autobahn's, which answers other statuses, lets bytes inside a header's value
start another header, and opens twice when it is asked twice.

The steps, each of which can be the last:

    read the head → judge its form → can we serve now? → Host and Origin → who is it, what may they
    do (the authorizer) → subscribe, and wait until the subscriptions stand → accept.
"""

from __future__ import annotations

import random
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from ws4redis_tx.core.admission import check_admission
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.handshake import (
    MAX_HEAD_BYTES,
    Handshake,
    HttpRequest,
    judge_request,
    read_request,
)

_log = Logger()

NOTHING_MAY_FOLLOW = "Nothing may follow a handshake before its answer."


class Opening:
    """One handshake. ``websocket`` is told to ``subscribe``, and at the end to ``accept`` or to
    ``refuse``; after every wait it may have ``ended``, as the client left.
    """

    __slots__ = ("_authorization", "_factory", "_websocket", "head_read")

    def __init__(self, factory: Any, websocket: Any) -> None:
        self._factory = factory
        self._websocket = websocket
        self.head_read = False
        self._authorization: Deferred[Any] | None = None

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
        self._open(request).addErrback(
            lambda failure: _log.failure("A websocket failed to open", failure=failure)
        )

    def time_out(self) -> None:
        """The handshake took too long."""
        if self.head_read:
            self._websocket.refuse(unavailable("the handshake took longer than its timeout"))
        else:
            self._websocket.drop()

    @inlineCallbacks
    def _open(self, request: HttpRequest) -> Any:
        factory, websocket = self._factory, self._websocket
        try:
            handshake = judge_request(
                request,
                factory.config.websocket_url,
                secure=websocket.secure,
                peer=websocket.peer_address,
            )
            factory.check_capacity()
            handshake = factory.proxies.see_through(handshake)
            websocket.shares.claim(factory.addresses, handshake.peer)
            factory.origins.check(handshake)
            mark = factory.revocations.mark
            admission = yield self._authorize(handshake)
            if websocket.ended:
                return
            check_admission(handshake, admission)
            identity = admission.identity
            websocket.shares.claim(factory.visitors, identity.username or identity.session_key)
            factory.admit(websocket, handshake, admission, mark)
            yield websocket.subscribe(handshake, admission)
            factory.check_capacity()
        except Denied as denied:
            websocket.refuse(denied)
        except BrokerUnavailable as error:
            websocket.refuse(unavailable(str(error)))
        except GeneratorExit:
            raise  # nobody will ever answer what this waits for
        except BaseException:  # also sys.exit() in a callback, or an answer that was lost
            if not websocket.ended:
                _log.failure("A handshake failed; the client was answered with 500")
                websocket.refuse(Denied(500, "The server failed; its log says why."))
        else:
            websocket.accept(handshake)

    @inlineCallbacks
    def _authorize(self, handshake: Handshake) -> Any:
        factory = self._factory
        if not factory.authorizations.take(None):
            raise unavailable("WS4REDIS_MAX_AUTHORIZATIONS handshakes wait for the authorizer")
        try:
            self._authorization = factory.authorize(handshake)
            return (yield self._authorization)
        finally:
            factory.authorizations.give_back(None)

    def abandon(self) -> None:
        """The websocket has ended: nobody needs to know any more who it is."""
        if self._authorization is not None:
            self._authorization.cancel()


def unavailable(detail: str) -> Denied:
    """With the advice to come back in a while, not all after the same."""
    return Denied(
        503,
        "The server cannot serve websockets now.",
        headers=(("Retry-After", str(random.randint(1, 5))),),
        detail=detail,
    )
