"""The subprotocol ``ws4redis.resume``: messages with positions, and the way of a resume.

    client: opens with ``since=POSITION`` and offers the subprotocol
    server: subscribes, and reads what the histories have after the position, in one step
    server: waits until everything that was published before that step has arrived (a fence)
    server: sends the first frame, a JSON object with the position and with the gaps, if any
    server: sends what was missed, then what has arrived meanwhile and is later, then goes live

Each message is ``HEAD LF payload``. A frame without a line feed is a mark: the position has moved
on. While the server catches up, no frame has a position beyond what was sent before it. After an
outage of Redis the server itself catches up from the position of all that had arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import parse_qs

from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.messages import ICodec, Notice, Publication
from ws4redis_tx.core.positions import IHistory, Missed, Position, read_position, status
from ws4redis_tx.delivery.codecs import Codec
from ws4redis_tx.delivery.resuming import ResumingFeed
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.protocols.replay import RETRY_INTERVAL
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection

SUBPROTOCOL = "ws4redis.resume"


def position_asked_for(handshake: Handshake) -> str:
    """The position that a client names, ``""`` for none. A browser that reconnects an EventSource
    sends the newest in a header, beside its first URL; some libraries send a parameter.
    """
    parameters = parse_qs(handshake.query)
    asked = [""]
    for name in ("since", "lastEventId"):
        asked += parameters.get(name, [])
    if handshake.events:
        asked.append(handshake.headers.get("last-event-id", ""))
    return next(filter(None, reversed(asked)), "")


class PositionCodec(Codec):
    """Puts the position before each message, and leaves the rest to another codec."""

    __slots__ = ("_framing",)

    def __init__(self, framing: ICodec) -> None:
        self._framing = framing

    def encode(self, publication: Publication, /) -> bytes:
        position = publication.position
        if position is None:
            return b""  # a heartbeat: a mark takes its place
        head = f"{position},r\n" if publication.replayed else f"{position}\n"
        return self._frame(head.encode() + publication.payload)

    def notify(self, notice: Notice) -> bytes:
        """The mark, or the frame of a later gap."""
        if notice.gap:
            return self.opening(notice.position, False, notice.gap)
        return self._frame(str(notice.position).encode())

    def opening(self, position: Position, recovered: bool | None, gaps: Collection[bytes]) -> bytes:
        """The first frame."""
        return self._frame(status(position, recovered, gaps))

    def live(self, position: Position) -> bytes:
        """Nothing ends a replay."""
        return b""

    def _frame(self, payload: bytes) -> bytes:
        return self._framing.encode(Publication(None, payload))


class Resume:
    """One client's catching up, at its opening and after each outage."""

    __slots__ = (
        "_again", "_asked", "_broker", "_codec", "_connection", "_feed", "_forget", "_history",
        "_opening", "_reactor", "_running", "_send_persisted", "_session", "_since",
    )  # fmt: skip

    def __init__(
        self,
        connection: SubscriberConnection,
        session: ISession,
        feed: ResumingFeed,
        broker: Any,
        reactor: Any,
    ) -> None:
        self._connection = connection
        self._session = session
        self._feed = feed
        self._broker = broker
        self._history: IHistory = broker
        self._codec: Any = session.outbox.codec
        self._reactor = reactor
        self._asked = position_asked_for(session.handshake)
        self._since = read_position(self._asked) if self._asked else connection.start
        send_persisted = connection.subscriber.send_persisted_messages
        # An application's own subscriber may send something else.
        self._send_persisted: Callable[[Any], Any] | None = send_persisted
        if getattr(send_persisted, "standard", False):
            self._send_persisted = None
        self._running: Deferred[Any] | None = None
        self._opening = True
        self._again = False  # the connection to Redis was lost meanwhile
        self._forget = self._history.on_lost(self._lost)

    def run(self) -> Deferred[None]:
        """Fire when the feed is live or closed. Fail if an application's subscriber fails."""
        return self._start().addErrback(lambda failure: failure.trap(CancelledError) and None)

    def cancel(self) -> None:
        """The feed was closed."""
        self._forget()
        if self._running is not None:
            self._running.cancel()

    def _start(self) -> Deferred[Any]:
        running = self._run()
        if not running.called:  # else the broker has answered at once
            self._running = running
        return running

    @inlineCallbacks
    def _run(self) -> Any:
        while not self._feed.closed:
            self._again = False
            try:
                yield self._broker.when_available()
                missed = yield self._history.missed(
                    [*self._connection.encoded_channels()],
                    self._since,
                    persisted=self._from_now,
                    replayed=self._opening,
                )
                if self._send_persisted is not None:
                    self._feed.since = missed.since
                    yield maybeDeferred(self._send_persisted, self._session)
            except BrokerUnavailable as error:
                if isinstance(error, BrokerRefused) and self._broker.available:
                    raise  # this read alone
                self._again = True
                yield deferLater(self._reactor, RETRY_INTERVAL if self._broker.available else 0)
            if not self._again:
                self._catch_up(missed)
                return
            self._feed.restart()

    @property
    def _from_now(self) -> bool:
        """Whether the persisted messages belong to what the client is sent."""
        return self._opening and not self._asked and self._send_persisted is None

    def _catch_up(self, missed: Missed) -> None:
        gaps = missed.gaps if self._asked or not self._opening else frozenset[bytes]()
        first = last = b""
        if self._opening:
            recovered = not gaps if self._asked else None
            first = self._codec.opening(missed.since, recovered, gaps)
            last = self._codec.live(missed.until)
        elif gaps:
            first = self._codec.notify(Notice(missed.since, gaps))
        self._opening, self._send_persisted, self._running = False, None, None
        self._feed.catch_up(first, missed, last)

    def _lost(self) -> None:
        """The connection to Redis is lost, and the feed has all that came over it."""
        self._again = True
        if self._running is None and not self._feed.closed:
            self._since = self._history.position
            self._feed.fall_back(self._since)
            self._start().addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._session.fail(failure, "Catching up after an outage of Redis failed")
