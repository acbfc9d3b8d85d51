"""The websockets of one server: what they have in common, and which are open."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, AnonymousAuthorizer
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import IAuthorizer, IBroker
from ws4redis_tx.core.limits import Quota, make_rate
from ws4redis_tx.core.messages import server_frame
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection
from ws4redis_tx.revocation.revocations import Revocations
from ws4redis_tx.scheduling.fifo_limiter import FifoLimiter
from ws4redis_tx.scheduling.sweeps import PeriodicSweep
from ws4redis_tx.scheduling.timeouts import Timeouts
from ws4redis_tx.sessions.opening_handshake import Opening, unavailable
from ws4redis_tx.websocket.protocol import WebSocketProtocol
from ws4redis_tx.websocket.shared_attributes import sharing

# For each step of a handshake that is up to others; from our close frame to the client's.
HANDSHAKE_TIMEOUT = 5
CLOSE_TIMEOUT = 1
# Between two heartbeats; the contract allows 5 s of silence.
HEARTBEAT_INTERVAL = 4.0
# Between two pings, and from a ping to a sign of life.
PING_INTERVAL = 25.0
PING_TIMEOUT = 10.0
# Between the portions in which a drain closes websockets.
DRAIN_INTERVAL = 0.05


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
            openHandshakeTimeout=0,  # ours is `deadlines`
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
        self.addresses = Quota(config.max_connections_per_address)
        self.visitors = Quota(config.max_connections_per_user)
        self.deadlines: Timeouts[WebSocketProtocol] = Timeouts(
            HANDSHAKE_TIMEOUT, WebSocketProtocol.time_out, reactor
        )
        self.turns: FifoLimiter[Opening] = FifoLimiter(
            config.max_authorizations, Opening.ask, Opening.give_up, reactor
        )
        self.rate = make_rate(config.rate)
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.heartbeat = None if config.heartbeat is None else config.heartbeat.encode()
        # Seeded by tests that want the same each time.
        self.chance = chance = random.Random()
        self._pings: PeriodicSweep[WebSocketProtocol] = PeriodicSweep(
            PING_INTERVAL,
            WebSocketProtocol.ping,
            reactor,
            chance,
            check_after=PING_TIMEOUT,
            check=lambda websocket: websocket.drop_if_silent(),
        )
        self._beats: PeriodicSweep[WebSocketProtocol] | None = None
        if self.heartbeat is not None:
            beat = server_frame(self.heartbeat)
            self._beats = PeriodicSweep(
                HEARTBEAT_INTERVAL, lambda websocket: websocket.beat(beat), reactor, chance
            )
        self._opening: set[WebSocketProtocol] = set()
        self._websockets: set[WebSocketProtocol] = set()
        self.revocations = Revocations(config, broker, reactor, self.authorize, self._all, chance)
        self.revocations.start()
        self._draining = False
        self._drainer: LoopingCall | None = None
        self._all_gone: list[Deferred[None]] = []
        self._shared: Any = None

    def setProtocolOptions(self, **options: Any) -> None:  # type: ignore[override]
        super().setProtocolOptions(**options)
        self._shared = None

    def buildProtocol(self, addr: object) -> WebSocketProtocol:
        if self._shared is None or self._shared.__base__ is not self.protocol:
            self._shared = sharing(self.protocol, self)
        websocket: WebSocketProtocol = self._shared()
        return websocket

    def check_capacity(self) -> None:
        """Raise ``Denied`` (503) when no websocket can be opened now."""
        if self._draining:
            raise unavailable("the server is going down")
        most = self.config.max_connections
        if most is not None and len(self._websockets) >= most:
            raise unavailable(
                f"there are {most} websockets, which is the most that WS4REDIS_MAX_CONNECTIONS "
                "(--max-connections) allows"
            )
        if not self.broker.available:
            raise unavailable("Redis is unavailable")

    def authorize(self, handshake: Handshake) -> Deferred[Admission]:
        """Ask the authorizer about the rights that the URL names."""
        rights = [flag for flag in handshake.flags if flag in self.known_rights]
        ask: Callable[..., Any] = self.authorizer.authorize
        return maybeDeferred(ask, handshake, rights)

    # Told by the websockets

    def admit(
        self,
        websocket: WebSocketProtocol,
        handshake: Handshake,
        admission: Admission,
        sequence: int,
    ) -> None:
        """Have its rights watched from now on, and those checked that it had at ``sequence``."""
        fixed = isinstance(self.authorizer, AnonymousAuthorizer)
        self.revocations.admit(websocket, handshake, admission, sequence, fixed=fixed)

    def connected(self, websocket: WebSocketProtocol) -> None:
        self._opening.add(websocket)

    def opened(self, websocket: WebSocketProtocol) -> None:
        self.deadlines.discard(websocket)
        self._opening.discard(websocket)
        self._websockets.add(websocket)
        self._pings.add(websocket)
        if self._beats is not None:
            self._beats.add(websocket)

    def closed(self, websocket: WebSocketProtocol) -> None:
        self.deadlines.discard(websocket)
        self._opening.discard(websocket)
        self._websockets.discard(websocket)
        self._pings.discard(websocket)
        self.revocations.closed(websocket)
        if self._beats is not None:
            self._beats.discard(websocket)
        if not self._websockets and not self._opening:
            self._stop_draining()
            self.deadlines.stop()
            self.turns.stop()
            if self._draining:
                self.revocations.stop()
            all_gone, self._all_gone = self._all_gone, []
            for waiting in all_gone:
                waiting.callback(None)

    # The end

    def open_up(self) -> None:
        """Let websockets in, after a ``drain``."""
        self.revocations.start()
        self._draining = False

    def drain(self, code: int, seconds: float = 0.0) -> Deferred[None]:
        """Refuse new websockets, close the open ones with ``code``, spread over ``seconds``; fire
        when all are gone.

        A client that does not answer the close frame, or read it, is dropped after 3 s at most.
        """
        self._draining = True
        for websocket in tuple(self._opening):
            websocket.turn_away(unavailable("the server is going down"))
        self._stop_draining()
        if not self._websockets and not self._opening:
            self.revocations.stop()
            return succeed(None)
        all_gone: Deferred[None] = Deferred()
        self._all_gone.append(all_gone)
        self._drainer = LoopingCall(self._closing(code, seconds))
        self._drainer.clock = self.reactor
        self._drainer.start(DRAIN_INTERVAL)
        return all_gone

    def _closing(self, code: int, seconds: float) -> Callable[[], None]:
        """What, called now and then, closes as many websockets as are due."""
        waiting = list(self._websockets)
        number, started = len(waiting), self.reactor.seconds()

        def close_some() -> None:
            passed = self.reactor.seconds() - started + DRAIN_INTERVAL
            left = number * (1 - passed / max(seconds, DRAIN_INTERVAL))
            while waiting and len(waiting) > left:
                waiting.pop().close(code)
            if not waiting:
                self._stop_draining()

        return close_some

    def abort(self) -> None:
        """End all connections at once, without a close handshake."""
        self._stop_draining()
        for websocket in (*self._opening, *self._websockets):
            websocket.transport.abortConnection()

    def _all(self) -> list[WebSocketProtocol]:
        return [*self._opening, *self._websockets]

    def _stop_draining(self) -> None:
        if self._drainer is not None and self._drainer.running:
            self._drainer.stop()


class _Timer:
    """Autobahn's timers on our reactor; its own are on the global one, and a second too early."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def call_later(self, delay: float, function: Callable[[], object]) -> Any:
        return self._reactor.callLater(delay, function)
