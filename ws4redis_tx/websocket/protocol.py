"""One websocket: from its connection to its release. Only here, and in its factory: Autobahn.

After the opening handshake (``opening.py``) a connection is open: what is persisted is replayed
while live messages queue, then it is live, until ``release``, exactly once. Autobahn speaks the
protocol of an open websocket: frames, masks, UTF-8, the close handshake.

Whoever waited looks at ``ended`` afterwards: the client may have left meanwhile.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.util import peer2str
from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.handshake import Handshake, HttpRequest, acceptance, refusal
from ws4redis_tx.core.messages import PING, RedisMessage, pong_frame
from ws4redis_tx.delivery.outbox import CompressedDelivery, Delivery
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection
from ws4redis_tx.revocation.session_index import AdmissionRecord
from ws4redis_tx.scheduling.immediate_writer import immediate_writer, unsent
from ws4redis_tx.sessions.opening_handshake import Opening, unavailable
from ws4redis_tx.sessions.peer_limits import Shares
from ws4redis_tx.sessions.replay import Replay
from ws4redis_tx.websocket.compression import accept_deflate, fits_all
from ws4redis_tx.websocket.inflate import Inflate

_log = Logger()

# Messages of one client that Redis has yet to acknowledge, before no more is read from it.
MOST_UNACKNOWLEDGED = 64
# How long a client's close waits for Redis to acknowledge what the client sent before it.
CLOSE_WAIT = 2.0
# How long a connection that is over may take to be gone.
DROP_TIMEOUT = 2.0

# A message may have so many fragments, or as many of that many bytes as its size allows.
FEW_FRAGMENTS, SMALL_FRAGMENT = 1024, 64
# Of a frame, that are kept apart until it is complete.
MANY_PIECES = 256

BAD_GATEWAY = 1014
LONGEST_REASON = 123  # bytes

# A client's pong without a payload: its head, and a mask.
_PONG, _PONG_SIZE = b"\x8a\x80", 6


@implementer(IPushProducer)
class WebSocketProtocol(WebSocketServerProtocol):
    """One websocket. ``send`` and ``close`` are what a subscriber may call.

    Its factory makes it of a subclass that has what Autobahn would give to each instance.
    """

    transport: Any
    factory: Any

    ended = False
    admitted: AdmissionRecord | None = None
    _opening: Opening | None = None
    _subscriber: Any = None
    _connection: SubscriberConnection | None = None
    _username: str | None = None
    _unacknowledged = 0
    _unacknowledged_size = 0
    _reading = True
    _silent = False
    _unsent = 0
    _close_frame: tuple[Any, Any] | None = None
    _close_timer: Any = None
    _drop_timer: Any = None
    _replay: Replay | None = None
    _was_open = False
    _compression: str | None = None
    _perMessageCompress: Any  # noqa: N815, Autobahn's
    state: int

    # Autobahn's, of an open websocket.
    websocket_version = 13
    websocket_protocol_in_use: str | None = None
    inside_message = False
    current_frame: Any = None

    def __init__(self) -> None:
        """In place of Autobahn's, and so is ``connectionMade``: see ``websocket_shared``."""

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self._writer = immediate_writer(self.transport)
        self._delivery = self._make_delivery(Delivery)
        self.shares = Shares()
        self._opening = Opening(self.factory, self)
        self.factory.connected(self)

    def _make_delivery(self, kind: type[Delivery]) -> Delivery:
        config = self.factory.config
        return kind(self._writer, self._overflow, config.max_pending, config.slow_reader)

    @property
    def peer(self) -> str:  # type: ignore[override]
        """For Autobahn's log."""
        name: str = peer2str(self.transport)
        return name

    def dataReceived(self, data: bytes) -> None:
        if self._silent:
            self._silent = False
            if len(data) == _PONG_SIZE and data.startswith(_PONG) and not self._within_frame():
                return  # the answer that was asked for, which is all that an idle client says
        if self._within_rate(size=len(data)):
            self._dataReceived(data)

    # The opening handshake

    @property
    def secure(self) -> bool:
        return bool(ISSLTransport.providedBy(self.transport))

    @property
    def peer_address(self) -> str:
        host: str = getattr(self.transport.getPeer(), "host", "")
        return host

    def processHandshake(self) -> None:
        """Called by Autobahn with each piece that arrives before the websocket is open."""
        if self._opening is not None:
            # Taken away first: what is left when the websocket opens would be read as frames.
            data, self.data = self.data, b""
            self.data = self._opening.receive(data) or self.data

    def begin(self, request: HttpRequest) -> None:
        """Start with a request that an HTTP server has read."""
        assert self._opening is not None
        self._opening.begin(request)

    def time_out(self) -> None:
        """A step of the handshake took too long."""
        if self._opening is not None and not self.ended:
            self._opening.time_out()

    def subscribe(self, handshake: Handshake, admission: Admission) -> Deferred[Any]:
        """Fire when all that the client may hear is subscribed to."""
        factory = self.factory
        self._username = admission.identity.username
        self._agree_on_compression(handshake)
        connection = self._connection = SubscriberConnection(
            factory.config, factory.broker, self._delivery, echo="echo" in handshake.flags
        )
        self._subscriber = factory.make_subscriber(connection)
        return maybeDeferred(
            self._subscriber.set_pubsub_channels, admission.request, list(admission.rights)
        ).addCallback(connection.when_subscribed)

    def accept(self, handshake: Handshake) -> None:
        """Answer 101, unless it is too late for that."""
        if self._delivery.closed:
            # More came than may wait for it, before it was open.
            self.refuse(unavailable("too many messages waited for the handshake's end"))
        elif not self.ended:
            subprotocol = self.websocket_protocol_in_use = next(iter(handshake.subprotocols), None)
            headers: dict[str, str] = {}
            if self._compression is not None:
                headers["Sec-WebSocket-Extensions"] = self._compression
                self._perMessageCompress = Inflate(self.factory.config.max_message_size)
            self._opening = None
            self._writer.write(acceptance(handshake, subprotocol, headers))
            self.state = self.STATE_OPEN
            self._was_open = True
            self.transport.registerProducer(self, True)
            factory = self.factory
            factory.opened(self)
            self._replay = Replay(
                self._subscriber, self, self._delivery, factory.broker, factory.reactor
            )
            self._replay.run().addErrback(
                self._failed, "Replaying persisted messages failed"
            ).addCallback(self._replayed)

    def _agree_on_compression(self, handshake: Handshake) -> None:
        """Decide what the 101 says of it, before messages wait in one form or the other.

        Ours, as Autobahn's answers 400 to offers that it can decline.
        """
        if self.factory.config.compression:
            offers = handshake.headers.get("sec-websocket-extensions", "")
            self._compression = accept_deflate(offers)
            if self._compression is not None and fits_all(self._compression):
                self._delivery = self._make_delivery(CompressedDelivery)

    def refuse(self, denied: Denied) -> None:
        """Answer with a status, and end."""
        if self.ended:
            return
        if self._opening is None:
            # It was accepted already, and a second answer would be no frame.
            self.close(1011, "The server failed.")
            return
        self.ended = True
        self._opening.abandon()
        _log.info(
            "Refused a websocket with {status}: {detail}",
            status=denied.status,
            detail=denied.detail or denied.reason,
        )
        self._writer.write(refusal(denied))
        self.drop()

    def turn_away(self, denied: Denied) -> None:
        """Refuse who asks; only end who has said nothing: a browser would take the answer for one
        to what it asks later over that connection.
        """
        if self.data or (self._opening is not None and self._opening.head_read):
            self.refuse(denied)
        else:
            self.drop()

    def drop(self) -> None:
        """End without a word, once what was written is out."""
        self.wasClean = True
        self.dropConnection(abort=False)

    # An open websocket

    def _replayed(self, _: object) -> None:
        self._replay = None

    def send(self, message: bytes | str) -> None:
        """Send a message, in order with all others; text if it is valid UTF-8, else binary."""
        self._delivery.send(message.encode() if isinstance(message, str) else message)

    def ping(self) -> None:
        """Ask the client for a sign of life, which ``drop_if_silent`` looks for later."""
        if self.state == self.STATE_OPEN:
            self._silent = True
            self._unsent = unsent(self.transport) if self._delivery.paused else 0
            self._delivery.interject(PING)

    def drop_if_silent(self) -> None:
        if not self._silent or self.state != self.STATE_OPEN:
            return
        # One that reads, slowly, what it has yet to read is alive.
        if not self._delivery.paused or unsent(self.transport) >= self._unsent:
            self.wasNotCleanReason = "it does not answer a ping"
            self.dropConnection(abort=True)

    def _within_frame(self) -> bool:
        """Whether what comes next from the client is not the start of a frame."""
        return bool(self.data) or self.current_frame is not None

    def beat(self, frame: bytes) -> None:
        """Send a heartbeat, unless the client is not reading what it has."""
        self._delivery.interject(frame)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Begin the close handshake. What is not written yet is dropped, and so is of the reason
        what a close frame has no room for.
        """
        if self.state == self.STATE_OPEN:
            whole = reason.encode()[:LONGEST_REASON].decode(errors="ignore")
            self.sendCloseFrame(code, whole.encode())

    def revoke(self) -> None:
        """End, as the visitor may not have this any more; may be called before it is open."""
        if self._opening is None:
            self.close(1008, "This is not allowed any more.")
        else:
            self.refuse(Denied(403, "This is not allowed any more.", detail="it was revoked"))

    def onPing(self, payload: bytes) -> None:
        # Not past the pause of a client that does not read: pongs would pile up without end.
        if self.state == self.STATE_OPEN and self._within_rate(messages=1):
            self._delivery.interject(pong_frame(payload))

    def onPong(self, payload: bytes) -> None:
        self._within_rate(messages=1)

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)
        self._within_rate(messages=1)
        # Fragments of nothing add nothing to the message's size, and each is kept.
        most = max(FEW_FRAGMENTS, self.factory.config.max_message_size // SMALL_FRAGMENT)
        if len(self.message_data) > most:
            self._max_message_size_exceeded(length, most, "The message has too many fragments.")

    def onMessageFrameData(self, payload: bytes) -> None:
        super().onMessageFrameData(payload)
        if self.frame_data is not None and len(self.frame_data) > MANY_PIECES:
            # As small as the network makes them, they would take many times their size.
            whole, *pieces = self.frame_data
            whole = whole if isinstance(whole, bytearray) else bytearray(whole)
            whole += b"".join(pieces)
            self.frame_data = [whole]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self._perMessageCompress is not None and not self._within_rate(size=len(payload)):
            return
        if payload == self.factory.heartbeat:
            return
        if self._close_frame is not None or self.state != self.STATE_OPEN:
            return  # one of us has said that it is over
        self._unacknowledged += 1
        self._unacknowledged_size += len(payload)
        self._pace()
        self._publish(payload).addBoth(self._acknowledged, len(payload))

    def _publish(self, payload: bytes) -> Deferred[Any]:
        return maybeDeferred(self._subscriber.publish_message, RedisMessage(payload)).addErrback(
            self._not_published
        )

    def _not_published(self, failure: Failure) -> None:
        if failure.check(BrokerUnavailable):
            _log.warn("A client's message was not published: {why}", why=str(failure.value))
            self.close(1013, "The message may not have been published.")
        else:
            self._failed(failure, "Publishing a client's message failed")

    def _acknowledged(self, _: object, size: int) -> None:
        self._unacknowledged -= 1
        self._unacknowledged_size -= size
        self._pace()
        if not self._unacknowledged and self._close_frame is not None:
            self._answer_close()

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> bool | None:
        if self.state == self.STATE_OPEN and self._unacknowledged:
            if self._close_frame is None:
                self._close_frame = (code, reasonRaw)
                self._close_timer = self.factory.reactor.callLater(CLOSE_WAIT, self._answer_close)
            return None
        return self._end_by(code, reasonRaw)

    def _end_by(self, code: Any, reasonRaw: Any) -> bool | None:
        """Answer the client's close frame."""
        if code == BAD_GATEWAY and self.state == self.STATE_OPEN:
            # Registered since, and unknown to Autobahn.
            self.wasClean = True
            self.remoteCloseCode = code
            self.sendCloseFrame(code, isReply=True)
            self.dropConnection(abort=False)
            return None
        answer: bool | None = super().onCloseFrame(code, reasonRaw)
        return answer

    def dropConnection(self, abort: bool = False) -> None:
        # After a close handshake Autobahn aborts, and with it a close frame on its way.
        abort = abort and not self.wasClean
        if not abort and self._drop_timer is None and self.state != self.STATE_CLOSED:
            # What the client does not read, or does not acknowledge, must not keep it here.
            self._drop_timer = self.factory.reactor.callLater(
                DROP_TIMEOUT, self.transport.abortConnection
            )
        super().dropConnection(abort=abort)

    def _answer_close(self) -> None:
        if self._close_frame is None:
            return
        frame, self._close_frame = self._close_frame, None
        if self._close_timer.active():
            self._close_timer.cancel()
        if not self.ended:
            self._end_by(*frame)

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        # All that Autobahn sends.
        self._writer.write(data)

    def sendCloseFrame(
        self, code: int | None = None, reasonUtf8: bytes | None = None, isReply: bool = False
    ) -> None:
        # Every way to close goes through here: nothing is sent after a close frame.
        self._delivery.close()
        super().sendCloseFrame(code, reasonUtf8, isReply)

    def _overflow(self) -> None:
        self.close(1013, "Too slow: too many messages were waiting.")

    def _failed(self, failure: Failure, what: str) -> None:
        _log.failure(what, failure=failure)
        self.close(1011, "The server failed.")

    def pauseProducing(self) -> None:
        if self._silent:
            # The ping may be behind what it has yet to read.
            self._unsent = unsent(self.transport)
        self._delivery.pause()
        self._pace()

    def resumeProducing(self) -> None:
        self._silent = False
        self._delivery.resume()
        self._pace()

    def _within_rate(self, *, messages: int = 0, size: int = 0) -> bool:
        """Count what an open websocket sent, and close it with 1013 when that is too much."""
        if self.state != self.STATE_OPEN or self.shares.suffice(
            self.factory.rate, self.factory.reactor.seconds(), messages=messages, size=size
        ):
            return True
        self.close(1013, "Too many messages.")
        return False

    def _pace(self) -> None:
        """Read nothing from a client that does not read, or whose messages Redis has yet to get:
        what it sends would pile up here.
        """
        reading = (
            self._unacknowledged < MOST_UNACKNOWLEDGED
            and self._unacknowledged_size <= self.factory.config.max_pending
            and not self._delivery.paused
        )
        if reading is not self._reading and not self.ended:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def stopProducing(self) -> None:
        self._delivery.close()

    # The end

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if isinstance(reason.value, ConnectionClosed):
            # Without what Autobahn formats for its debug log.
            self._connectionLost(reason)  # type: ignore[arg-type]
        else:
            super().connectionLost(reason)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.ended = True
        self._delivery.close()
        self._answer_close()
        if self._opening is not None:
            self._opening.abandon()
        self.shares.give_back()
        if self.closeHandshakeTimeoutCall is not None:
            # Autobahn forgets it when the client is gone without an answer.
            self.closeHandshakeTimeoutCall.cancel()
            self.closeHandshakeTimeoutCall = None
        if self._drop_timer is not None and self._drop_timer.active():
            self._drop_timer.cancel()
        if self._replay is not None:
            self._replay.cancel()
        self.factory.closed(self)
        subscriber, self._subscriber = self._subscriber, None
        connection, self._connection = self._connection, None
        if subscriber is None or connection is None:
            return
        maybeDeferred(subscriber.release).addErrback(
            lambda failure: _log.failure("release() failed", failure=failure)
        )
        connection.release()
        if self._was_open:
            dropped = self._delivery.dropped
            _log.info(
                "A websocket ended: user {user!r}, code {code}{dropped}",
                user=self._username,
                code=self.localCloseCode or code,
                dropped=f", {dropped} messages dropped as it did not read" if dropped else "",
            )
