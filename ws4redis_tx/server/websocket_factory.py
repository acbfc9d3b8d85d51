"""The websockets of one server: what they have in common, and which are open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import LoopingCall

from ws4redis_tx.core.channels import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.core.config import ServerConfig
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.interfaces import IAuthorizer, IBroker
from ws4redis_tx.core.messages import server_frame
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.server.subscription import SubscriberConnection
from ws4redis_tx.server.websocket import BUSY, WebSocketProtocol, unavailable

# From the connection to the answer, and from our close frame to the client's.
HANDSHAKE_TIMEOUT = 5
CLOSE_TIMEOUT = 1
# Between two heartbeats; the contract allows 5 s of silence.
HEARTBEAT_INTERVAL = 4.0


class WebSocketFactory(WebSocketServerFactory):
    """Makes the websockets of one server, and knows those that are open.

    Give it to any stream endpoint. ``broker`` is started and stopped by its owner.
    """

    protocol = WebSocketProtocol
    noisy = False

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        authorizer: IAuthorizer,
        make_subscriber: Callable[[SubscriberConnection], Any],
        reactor: Any,
    ) -> None:
        super().__init__(server="", reactor=reactor)
        self.setProtocolOptions(
            failByDrop=False,
            echoCloseCodeReason=True,
            openHandshakeTimeout=HANDSHAKE_TIMEOUT,
            closeHandshakeTimeout=CLOSE_TIMEOUT,
            maxMessagePayloadSize=config.max_message_size,
            maxFramePayloadSize=config.max_message_size,
        )
        self._batched_timer = _Timer(reactor)
        self.config = config
        self.broker = broker
        self.authorizer = authorizer
        self.make_subscriber = make_subscriber
        self.reactor = reactor
        self.known_rights = {
            *getattr(make_subscriber, "subscription_channels", SUBSCRIBE_RIGHTS),
            *getattr(make_subscriber, "publish_channels", PUBLISH_RIGHTS),
        }
        self.origins = OriginPolicy(
            config.allowed_origins, config.allowed_hosts, require_origin=config.require_origin
        )
        self.heartbeat = None if config.heartbeat is None else config.heartbeat.encode()
        self._heart = LoopingCall(self._beat)
        self._heart.clock = reactor
        self._websockets: set[WebSocketProtocol] = set()
        self._draining = False
        self._all_gone: list[Deferred[None]] = []

    def check_capacity(self) -> None:
        """Raise ``Denied`` (503) when no websocket can be opened now."""
        if self._draining:
            raise Denied(503, "The server is going down.", headers=BUSY)
        most = self.config.max_connections
        if most is not None and len(self._websockets) >= most:
            raise unavailable(f"there are {most} websockets, which is max_connections")
        if not self.broker.available:
            raise unavailable("Redis is unavailable")

    def opened(self, websocket: WebSocketProtocol) -> None:
        self._websockets.add(websocket)
        if self.heartbeat is not None and not self._heart.running:
            self._heart.start(HEARTBEAT_INTERVAL, now=False)

    def closed(self, websocket: WebSocketProtocol) -> None:
        self._websockets.discard(websocket)
        if not self._websockets:
            if self._heart.running:
                self._heart.stop()
            all_gone, self._all_gone = self._all_gone, []
            for waiting in all_gone:
                waiting.callback(None)

    def open_up(self) -> None:
        """Let websockets in, after a ``drain``."""
        self._draining = False

    def drain(self, code: int) -> Deferred[None]:
        """Refuse new websockets, close the open ones with ``code``; fire when all are gone.

        A client that does not answer the close frame, or read it, is dropped after 3 s at most.
        """
        self._draining = True
        for websocket in tuple(self._websockets):
            websocket.close(code)
        if not self._websockets:
            return succeed(None)
        all_gone: Deferred[None] = Deferred()
        self._all_gone.append(all_gone)
        return all_gone

    def _beat(self) -> None:
        assert self.heartbeat is not None
        beat = server_frame(self.heartbeat)
        for websocket in tuple(self._websockets):
            websocket._delivery.interject(beat)


class _Timer:
    """Autobahn's timers on our reactor; its own are on the global one, and a second too early."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_later(self, delay: float, function: Callable[[], object]) -> Any:
        return self._reactor.callLater(delay, function)
