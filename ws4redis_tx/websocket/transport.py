"""The websocket transport: frames, pings and close handshakes of one connection, over Autobahn.

Autobahn handles the protocol of an open websocket: frames, masks, UTF-8, the close handshake. The
session handles the opening handshake.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.util import peer2str
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from txaio import make_logger  # type: ignore[attr-defined]
from zope.interface import implementer

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake, acceptance
from ws4redis_tx.core.http import HttpRequest, refusal
from ws4redis_tx.core.interfaces import IWriter
from ws4redis_tx.core.messages import ICodec
from ws4redis_tx.scheduling.immediate_writer import immediate_writer, unsent
from ws4redis_tx.sessions.interfaces import Ending
from ws4redis_tx.sessions.session import Session
from ws4redis_tx.websocket.compression import accept_deflate, fits_all
from ws4redis_tx.websocket.frames import DEFLATED, PING, PLAIN, pong_frame
from ws4redis_tx.websocket.incoming import Inflate, TurnTaking

DROP_TIMEOUT = 2.0
"""Seconds after the end of a websocket, until its connection is aborted."""

NO_CODE = 1005  # the close frame had no code (RFC 6455, section 7.1.5)
BAD_GATEWAY = 1014
LONGEST_REASON = 123  # bytes

# A client's pong without a payload: two bytes and a mask.
_PONG, _PONG_SIZE = b"\x8a\x80", 6


@implementer(IPushProducer)
class WebSocketTransport(TurnTaking):
    """An ``ITransport``: one websocket.

    Its factory makes it from a subclass with the attributes that Autobahn would give each instance.
    """

    transport: Any
    factory: Any

    # The line of the websocket's end says what Autobahn's warnings would say.
    log = make_logger(level="error")

    codec: ICodec = PLAIN
    writer: IWriter
    silent = False
    # While the client is paused and silent: as it was at the ping, or at the pause after it.
    _unsent = 0
    _close_frame: tuple[Any, Any] | None = None
    _drop_timer: Any = None
    _extensions: str | None = None
    _perMessageCompress: Any  # noqa: N815, Autobahn's
    state: int

    # Autobahn's attributes of an open websocket.
    websocket_version = 13
    websocket_protocol_in_use: str | None = None
    current_frame: Any = None

    def __init__(self) -> None:
        """Like ``connectionMade``, it replaces Autobahn's: see ``shared_attributes``."""

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.writer = immediate_writer(self.transport)
        self.session = Session(self.factory.session_server, self)

    @property
    def peer(self) -> str:  # type: ignore[override]
        """For Autobahn's log."""
        name: str = peer2str(self.transport)
        return name

    def dataReceived(self, data: bytes) -> None:
        if self.silent:
            self.silent = False
            if (
                len(data) == _PONG_SIZE
                and data.startswith(_PONG)
                and not self.data  # not within a frame
                and self.current_frame is None
            ):
                return  # the answer to our ping: all that an idle client sends
        if self._within_rate(size=len(data)):
            self._dataReceived(data)
            if self.inside_message or self.data:
                self.tell_growth()

    # The opening handshake

    @property
    def secure(self) -> bool:
        return bool(ISSLTransport.providedBy(self.transport))

    @property
    def peer_address(self) -> str:
        host: str = getattr(self.transport.getPeer(), "host", "")
        return host

    @property
    def request_begun(self) -> bool:
        opening = self.session.opening
        return bool(self.data) or (opening is not None and opening.head_read)

    def processHandshake(self) -> None:
        """Called by Autobahn for each piece of data that arrives before the websocket is open."""
        opening = self.session.opening
        if opening is not None:
            # Emptied first: Autobahn would read leftovers as frames once the websocket opens.
            data, self.data = self.data, b""
            self.data = opening.receive(data) or self.data

    def begin(self, request: HttpRequest, body: bytes) -> None:
        """Start with a request that an HTTP server has read."""
        assert self.session.opening is not None
        self.session.opening.begin(request, body)

    def negotiate(self, handshake: Handshake) -> ICodec:
        """Replaces Autobahn's negotiation, which answers 400 to offers that it could decline."""
        if self.factory.config.compression:
            offers = handshake.headers.get("sec-websocket-extensions", "")
            self._extensions = accept_deflate(offers)
            if self._extensions is not None and fits_all(self._extensions):
                return DEFLATED
        return PLAIN

    def accept(self, handshake: Handshake) -> None:
        subprotocol = self.websocket_protocol_in_use = next(iter(handshake.subprotocols), None)
        headers: dict[str, str] = {}
        if self._extensions is not None:
            headers["Sec-WebSocket-Extensions"] = self._extensions
            self._perMessageCompress = Inflate(self.factory.config.max_message_size)
        self.writer.write(acceptance(handshake, subprotocol, headers))
        self.state = self.STATE_OPEN
        self.transport.registerProducer(self, True)

    def refuse(self, denied: Denied) -> None:
        self.writer.write(refusal(denied))
        self.drop()

    # An open websocket

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._within_rate(messages=1)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._perMessageCompress is not None and not self._within_rate(size=len(payload)):
            return
        if self.state == self.STATE_OPEN:  # otherwise one side has begun to close
            self.session.received(payload)

    def onPing(self, payload: bytes) -> None:
        # The outbox drops the pong while the client does not read: pongs would pile up.
        if self.state == self.STATE_OPEN and self._within_rate(messages=1):
            self.session.outbox.write_control(pong_frame(payload))

    def onPong(self, payload: bytes) -> None:
        self._within_rate(messages=1)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # Autobahn sends everything through this method, and nothing before the outbox is closed:
        # pings and pongs are ours.
        self.writer.write(data)

    def _within_rate(self, *, messages: int = 0, size: int = 0) -> bool:
        return self.state != self.STATE_OPEN or self.session.within_rate(
            messages=messages, size=size
        )

    # Liveness and pace

    def check_liveness(self) -> None:
        if self.state == self.STATE_OPEN:
            outbox = self.session.outbox
            self.silent = True
            if outbox.paused:
                self._unsent = unsent(self.transport)
            outbox.write_control(PING)

    def drop_if_silent(self) -> None:
        if not self.silent or self.state != self.STATE_OPEN:
            return
        paused = self.session.outbox.paused
        # While the server does not read from a client, it cannot see the pong. A client that reads
        # its messages, however slowly, is alive.
        if (self._reads or paused) and not (paused and unsent(self.transport) < self._unsent):
            self.wasNotCleanReason = "it did not answer a ping"
            self.dropConnection(abort=True)

    def pauseProducing(self) -> None:
        if self.silent:
            # The ping may be behind bytes that the client has yet to read.
            self._unsent = unsent(self.transport)
        self.session.pause()

    def resumeProducing(self) -> None:
        self.silent = False
        self.session.resume()

    def stopProducing(self) -> None:
        self.session.feed.close()

    # The end

    def close(self, code: int, reason: str) -> None:
        if self.state == self.STATE_OPEN:
            whole = reason.encode()[:LONGEST_REASON].decode(errors="ignore")
            self.sendCloseFrame(code, whole.encode())

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        # Every close goes through here. Nothing is sent after a close frame.
        self.session.feed.close()
        self.forget_message()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> bool | None:
        if self.state == self.STATE_OPEN and not self.session.client_closes():
            if self._close_frame is None:
                self._close_frame = (code, reasonRaw)
            return None
        return self._answer_close_frame(code, reasonRaw)

    def answer_close(self) -> None:
        if self._close_frame is not None:
            frame, self._close_frame = self._close_frame, None
            self._answer_close_frame(*frame)

    def _answer_close_frame(self, code: Any, reasonRaw: Any) -> bool | None:
        """Answer the client's close frame."""
        if code == BAD_GATEWAY and self.state == self.STATE_OPEN:
            # A newer code, which Autobahn does not know.
            self.wasClean = True
            self.remoteCloseCode = code
            self.sendCloseFrame(code, isReply=True)
            self.dropConnection(abort=False)
            return None
        answer: bool | None = super().onCloseFrame(code, reasonRaw)
        return answer

    def drop(self) -> None:
        self.wasClean = True
        self.dropConnection(abort=False)

    def abort(self) -> None:
        self.transport.abortConnection()

    def dropConnection(self, abort: bool = False) -> None:
        # After a close handshake Autobahn aborts, which would lose a close frame on its way.
        abort = abort and not self.wasClean
        if not abort and self._drop_timer is None and self.state != self.STATE_CLOSED:
            # A client that does not read or acknowledge the rest must not hold the connection.
            self._drop_timer = self.factory.reactor.callLater(
                DROP_TIMEOUT, self.transport.abortConnection
            )
        super().dropConnection(abort=abort)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not isinstance(reason.value, ConnectionClosed):
            what = "A TLS connection failed" if self.secure else "A connection failed"
            self.session.server.log.warn(what, f"{type(reason.value).__name__}: {reason.value}")
        # Skips the lines and the texts that Autobahn makes for its own log.
        self._connectionLost(reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        by_server = bool(self.closedByMe)
        if by_server:
            code, reason = self.localCloseCode, (self.localCloseReason or b"").decode()
        elif self._close_frame is not None:  # the client's frame, not answered yet
            code, raw = self._close_frame
            reason = (raw or b"").decode(errors="replace")
        if self.closeHandshakeTimeoutCall is not None:
            # Autobahn does not cancel it if the client leaves without an answer.
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        if self._drop_timer is not None and self._drop_timer.active():
            self._drop_timer.cancel()
        self.session.end(
            Ending(NO_CODE if code is None else code, reason or "", by_server, wasClean)
        )
