"""Websockets that tell an application's hooks of themselves.

A server without hooks makes none of these, and so pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.admission import Admission, Identity
from ws4redis_tx.core.errors import Denied, MessageRefused
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.hooks import Closing, Refusal
from ws4redis_tx.core.interfaces import IHooks
from ws4redis_tx.delivery.outbox import (
    CompressedDelivery,
    CountedCompressedDelivery,
    CountedDelivery,
    Delivery,
)
from ws4redis_tx.scheduling.serial_queue import SerialQueue, call
from ws4redis_tx.websocket.factory import WebSocketFactory
from ws4redis_tx.websocket.protocol import WebSocketProtocol

_log = Logger()

_HOOKS = ("connected", "refused", "message", "closed")

_NO_CODE = 1005
# That may stand in a close frame (RFC 6455, section 7.4, and what was registered since).
_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})

_COUNTED: dict[type[Delivery], type[Delivery]] = {
    Delivery: CountedDelivery,
    CompressedDelivery: CountedCompressedDelivery,
}


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Connection:
    """An ``IConnection``."""

    facility: str
    identity: Identity
    rights: tuple[str, ...]
    channels: tuple[str, ...] = field(repr=False)  # among them a session's key
    peer: str
    _in_reactor: Callable[..., object] = field(repr=False)
    _websocket: HookedWebSocket = field(repr=False)

    def send(self, message: bytes | str) -> None:
        payload = message.encode() if isinstance(message, str) else bytes(memoryview(message))
        self._in_reactor(self._websocket.send, payload)

    def close(self, code: int = 1000, reason: str = "") -> None:
        if code not in _CODES:
            raise ValueError(f"{code} is no code for a close frame. Use 1000, or one from 4000 on.")
        self._in_reactor(self._websocket.close, code, reason)


class HookedWebSocket(WebSocketProtocol):
    """A websocket whose hooks are called one after another."""

    factory: HookedFactory

    _handshake: tuple[Handshake, Admission] | None = None
    _told: Connection | None = None
    _line: SerialQueue
    _since = 0.0
    _received = 0

    def _make_delivery(self, kind: type[Delivery]) -> Delivery:
        return super()._make_delivery(_COUNTED[kind])

    def refuse(self, denied: Denied) -> None:
        if self.ended:
            return
        opening = self._opening
        super().refuse(denied)
        if opening is not None:  # else it was open, and `closed` tells of it
            self.factory.refused(
                Refusal(denied.status, denied.reason, denied.detail, opening.path, opening.peer)
            )

    def subscribe(self, handshake: Handshake, admission: Admission) -> Deferred[Any]:
        self._handshake = handshake, admission
        return super().subscribe(handshake, admission)

    def introduce(self) -> None:
        """It is open; what it has to tell waits until what is persisted was sent."""
        assert self._handshake is not None and self._connection is not None
        (handshake, admission), self._handshake = self._handshake, None
        self._since = self.factory.reactor.seconds()
        self._told = Connection(
            handshake.facility,
            admission.identity,
            tuple(admission.rights),
            self._connection.channels,
            handshake.peer,
            self.factory.in_reactor,
            self,
        )
        self._line = SerialQueue(self.factory.reactor)
        self._line.add(self.factory.hooks.connected, self._told).addErrback(
            _hook_failed, "connected"
        )

    def _replayed(self, result: object) -> None:
        super()._replayed(result)
        self._line.start()

    def _publish(self, payload: bytes) -> Deferred[Any]:
        self._received += 1
        answered = self._line.add(self._judge, payload)
        return answered.addCallback(self._judged).addErrback(self._message_failed)

    def _judge(self, payload: bytes) -> Any:
        if self._told is None or not self._speaks():
            return None
        return self.factory.hooks.message(self._told, payload)

    def _judged(self, answer: object) -> Any:
        if answer is None or not self._speaks():
            return None
        if not isinstance(answer, str | bytes):
            raise TypeError(
                f"The hook `message` answered a {type(answer).__name__}. Answer bytes or a str to "
                "have it published, or None for nothing."
            )
        return super()._publish(answer.encode() if isinstance(answer, str) else answer)

    def _speaks(self) -> bool:
        """Whether what the client said still counts: nobody has ended it, or taken its rights."""
        return self._subscriber is not None and self.state == self.STATE_OPEN

    def _message_failed(self, failure: Failure) -> None:
        if isinstance(failure.value, MessageRefused):
            self.close(1008, failure.value.reason)
        else:
            self._failed(failure, "The hook `message` failed; the websocket was closed with 1011")

    def drop_if_silent(self) -> None:
        # Of one whose messages wait for their hooks, no answer is read.
        if self._reading or self._delivery.paused:
            super().drop_if_silent()

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        asked = self._close_frame  # the client's, as long as it waits for hooks
        super().onClose(wasClean, code, reason)
        if self._told is None:
            return
        by_server = bool(self.closedByMe)
        if by_server:
            code, reason = self.localCloseCode, (self.localCloseReason or b"").decode()
        elif asked is not None:
            code, reason = asked[0], (asked[1] or b"").decode(errors="replace")
        delivery: Any = self._delivery
        closing = Closing(
            code=_NO_CODE if code is None else code,
            reason=reason or "",
            by_server=by_server,
            clean=wasClean,
            sent=delivery.sent,
            received=self._received,
            dropped=delivery.dropped,
            seconds=self.factory.reactor.seconds() - self._since,
        )
        self._line.start()
        self._line.add(self.factory.hooks.closed, self._told, closing).addErrback(
            _hook_failed, "closed"
        ).addBoth(self.factory.told, self)


class HookedFactory(WebSocketFactory):
    """Makes websockets that tell ``hooks`` of themselves.

    While hooks say that they are ``idle``, as nobody listens to them, it makes ordinary ones.
    """

    def __init__(self, *arguments: Any, hooks: IHooks) -> None:
        super().__init__(*arguments)
        missing = [name for name in _HOOKS if not callable(getattr(hooks, name, None))]
        if missing or isinstance(hooks, type):
            raise TypeError(
                f"hooks is {hooks!r}, which is "
                + (f"without {', '.join(missing)}" if missing else "a class")
                + ". Use an instance of a class that is derived from NullHooks."
            )
        self.hooks = hooks
        self._thread = get_ident()
        self._untold: set[WebSocketProtocol] = set()
        self._all_told: list[Deferred[None]] = []
        self._hurried = False

    def buildProtocol(self, addr: object) -> WebSocketProtocol:
        idle = getattr(self.hooks, "idle", False)
        self.protocol = WebSocketProtocol if idle else HookedWebSocket
        self._thread = get_ident()
        return super().buildProtocol(addr)

    def in_reactor(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call it in the reactor's thread; at once, if this is it."""
        if get_ident() == self._thread:
            function(*arguments)
        else:
            self.reactor.callFromThread(function, *arguments)

    def refused(self, refusal: Refusal) -> None:
        call(self.reactor, self.hooks.refused, refusal).addErrback(_hook_failed, "refused")

    def opened(self, websocket: WebSocketProtocol) -> None:
        super().opened(websocket)
        if isinstance(websocket, HookedWebSocket):
            self._untold.add(websocket)
            websocket.introduce()

    def told(self, _: object, websocket: HookedWebSocket) -> None:
        """Its last hook is done."""
        self._untold.discard(websocket)
        if not self._untold:
            self._wait_no_longer()

    def open_up(self) -> None:
        super().open_up()
        self._hurried = False

    def drain(self, code: int, seconds: float = 0.0) -> Deferred[None]:
        """As without hooks, and wait for the hooks of those that were closed."""
        return super().drain(code, seconds).addCallback(lambda _: self._when_told())

    def abort(self) -> None:
        self._hurried = self._draining  # they are lost in the reactor's next turn only
        super().abort()
        self._wait_no_longer()

    def _when_told(self) -> Deferred[None]:
        if self._hurried or not self._untold:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._all_told.append(waiting)
        return waiting

    def _wait_no_longer(self) -> None:
        all_told, self._all_told = self._all_told, []
        for waiting in all_told:
            waiting.callback(None)


def _hook_failed(failure: Failure, hook: str) -> None:
    _log.failure("The hook `{hook}` failed", failure=failure, hook=hook)
