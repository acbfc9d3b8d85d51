"""The server that all sessions share: their common parts, and the sessions themselves."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, methodcaller
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import LoopingCall

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import Outage, nothing_below, unavailable
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.http import HttpRequest
from ws4redis_tx.core.interfaces import IAuthorizer, IBroker
from ws4redis_tx.core.limits import Quota, make_rate
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies
from ws4redis_tx.delivery.resuming import ResumingFeed
from ws4redis_tx.protocols.interfaces import IProtocol
from ws4redis_tx.revocation.revocations import Revocations
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.fifo_limiter import FifoLimiter
from ws4redis_tx.scheduling.round_robin import RoundRobin
from ws4redis_tx.scheduling.sweeps import PeriodicSweep
from ws4redis_tx.scheduling.timeouts import Timeouts
from ws4redis_tx.scheduling.waiters import Waiters
from ws4redis_tx.sessions.authorization import Authorization, ask_about_facilities
from ws4redis_tx.sessions.descriptors import Descriptors
from ws4redis_tx.sessions.interfaces import IHttp, ISessionObserver, ITransport, must_implement
from ws4redis_tx.sessions.log import ClientLog
from ws4redis_tx.sessions.pending_total import PendingTotal
from ws4redis_tx.sessions.session import Session

HANDSHAKE_TIMEOUT = 5
"""Seconds for each step of a handshake that depends on the client, the authorizer or Redis."""

PING_INTERVAL, PING_TIMEOUT = 25.0, 10.0
"""Seconds between two checks that a client is alive, and from a check to its sign of life."""

PINGS_TOGETHER = 100
"""Pings that may be sent at once. They take about a millisecond."""

HEARTBEAT_INTERVAL = 4.0
"""Seconds between two heartbeats. The contract allows 5 s of silence."""

MARK_INTERVAL = 20.0
"""Seconds between two marks for a client that keeps its position. The contract allows 25 s. With
heartbeats, a mark takes the place of each.
"""

DRAIN_INTERVAL = 0.05
"""Seconds between the portions in which a drain closes sessions."""


_BROKER = ("listen", "unlisten", "publish", "get", "fence", "forget", "when_available")


class Server:
    """Knows every session from its connection to its end, and closes them all in a drain.

    ``broker`` is started and stopped by its owner. Several transports may share one server.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        authorizer: IAuthorizer,
        protocols: Sequence[IProtocol],
        reactor: Any,
        log: ClientLog,
        observers: Sequence[ISessionObserver] = (),
        make_stream: Callable[[Session], ITransport] | None = None,
    ) -> None:
        self.config = config
        must_implement("broker", broker, _BROKER, "Use make_broker(config).")
        self.broker = broker
        self.use(authorizer)
        self.protocols = protocols
        self.reactor = reactor
        self.observers = observers
        self.make_stream = make_stream
        """Makes the transport of server-sent events take a session's connection over."""
        self.http: IHttp | None = None
        """An ``IHttp``, if there are requests that neither a websocket nor events answer."""
        self.log = log
        self.origins = OriginPolicy(
            config.allowed_origins, config.allowed_hosts, require_origin=config.require_origin
        )
        self.proxies = TrustedProxies(config.trusted_proxies)
        self.rate = make_rate(config.rate)
        self.pending_total = PendingTotal(config.max_pending_total, reactor)
        self.descriptors = Descriptors(reactor.seconds)
        self.addresses = Quota(config.max_connections_per_address)
        self.visitors = Quota(config.max_connections_per_user)
        self.authorization_timeouts: Timeouts[Authorization] = Timeouts(
            HANDSHAKE_TIMEOUT, Authorization.time_out, reactor
        )
        self.timeouts: Timeouts[Session] = Timeouts(HANDSHAKE_TIMEOUT, Session.time_out, reactor)
        self.authorizations: FifoLimiter[Authorization] = FifoLimiter(
            config.max_authorizations, Authorization.ask, Authorization.give_up, reactor
        )
        self.turns: RoundRobin[Session] = RoundRobin(
            lambda session: session.transport.take_step(), reactor
        )
        """The sessions whose clients have sent more than a little at once."""
        self.random = random.Random()
        """Chooses the time of a session's first sweep. A test may seed it."""
        self._liveness: PeriodicSweep[ITransport] = PeriodicSweep(
            PING_INTERVAL,
            methodcaller("check_liveness"),
            reactor,
            self.random,
            check_after=PING_TIMEOUT,
            check=methodcaller("drop_if_silent"),
            check_if=attrgetter("silent"),
            together=PINGS_TOGETHER,
        )
        self.heartbeat = None if config.heartbeat is None else config.heartbeat.encode()
        self._marks: PeriodicSweep[Session] = PeriodicSweep(
            MARK_INTERVAL if self.heartbeat is None else HEARTBEAT_INTERVAL,
            self._send_mark,
            reactor,
            self.random,
        )
        self._heartbeats: PeriodicSweep[Session] | None = None
        if self.heartbeat is not None:
            self._heartbeat_message = Publication(None, self.heartbeat)
            self._heartbeats = PeriodicSweep(
                HEARTBEAT_INTERVAL, self._send_heartbeat, reactor, self.random
            )
        self.opening: set[Session] = set()
        self.sessions: set[Session] = set()
        """The open sessions."""
        self.revocations = Revocations(config, broker, reactor, self, self._all, self.random)
        self.revocations.start()
        self._draining = False
        self._drainer: LoopingCall | None = None
        self._all_gone: Waiters[None] = Waiters()

    def use(self, authorizer: IAuthorizer) -> None:
        """Ask ``authorizer`` from now on. A true ``fixed`` of its says that its answers never
        change: it is asked once for each session. Raises ``TypeError`` for no authorizer.
        """
        remedy = "Use an object with a method authorize(handshake, rights)."
        must_implement("authorizer", authorizer, ["authorize"], remedy)
        self.authorizer = authorizer
        self.fixed = bool(getattr(authorizer, "fixed", False))

    def place(self, request: HttpRequest) -> tuple[HttpRequest, IProtocol]:
        """The protocol with the longest prefix of the path, and the request without the script
        name, unless the protocol's own path begins with it. Raises ``Denied`` (404) for none.
        """
        only, *others = self.protocols
        if not others and request.target.startswith(only.path):
            return request, only
        found = [each for each in self.protocols if request.target.startswith(each.path)]
        if not found:
            request = request.below(self.config.script_name)
            found = [each for each in self.protocols if request.target.startswith(each.path)]
        if not found:
            raise nothing_below([each.path for each in self.protocols], request.path)
        return request, found[0] if len(found) == 1 else max(found, key=lambda each: len(each.path))

    def check_capacity(self, *, opening: bool = True) -> None:
        """Raise ``Denied`` (503) if no session can be opened now; or if one that is open already
        cannot get more.
        """
        if self._draining:
            raise unavailable("the server is shutting down")
        most = self.config.max_connections
        if most is not None and opening and len(self.sessions) >= most:
            raise unavailable(
                f"there are {most} websockets, as many as WS4REDIS_MAX_CONNECTIONS "
                "(--max-connections) allows"
            )
        if self.pending_total.exceeded and self.pending_total.still_exceeded():
            raise Outage("all clients together hold more than WS4REDIS_MAX_PENDING_TOTAL allows")
        if not self.broker.available:
            raise Outage("Redis is unavailable")

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        """Ask the authorizer."""
        ask: Callable[..., Any] = self.authorizer.authorize
        return maybeDeferred(ask, handshake, rights)

    authorize_facilities = ask_about_facilities

    def _send_mark(self, session: Session) -> None:
        assert isinstance(session.feed, ResumingFeed)
        session.feed.mark_now()

    def _send_heartbeat(self, session: Session) -> None:
        message, codec = self._heartbeat_message, session.outbox.codec
        session.outbox.write_control(message.forms.get(codec) or message.form(codec))

    # Called by the sessions

    def connected(self, session: Session) -> None:
        self.opening.add(session)

    def opened(self, session: Session) -> None:
        self.timeouts.discard(session)
        self.opening.discard(session)
        self.sessions.add(session)
        if session.feed.own_pings:
            return
        self._liveness.add(session.transport)
        if isinstance(session.feed, ResumingFeed):
            self._marks.add(session)
        elif self._heartbeats is not None:
            self._heartbeats.add(session)

    def closed(self, session: Session) -> None:
        self.timeouts.discard(session)
        self.opening.discard(session)
        self.sessions.discard(session)
        self._liveness.discard(session.transport)
        self.revocations.closed(session)
        self.pending_total.forget(session)
        self._marks.discard(session)
        if self._heartbeats is not None:
            self._heartbeats.discard(session)
        if not self.sessions and not self.opening:
            self._stop_draining()
            self.timeouts.stop()
            self.authorization_timeouts.stop()
            self.authorizations.stop()
            if self._draining:
                self._stop_listening()
            self._all_gone.fire(None)

    # The end

    def open_up(self) -> None:
        """Let clients in, after a ``drain``."""
        self.revocations.start()
        self._draining = False

    def drain(self, code: int, seconds: float = 0.0) -> Deferred[None]:
        """Refuse new sessions, and close the open ones with ``code``, spread over ``seconds``. Fire
        when all are gone and every observer has settled.

        A client that neither answers nor reads the close is dropped after 3 s at most.
        """
        self._draining = True
        for session in tuple(self.opening):
            session.turn_away(unavailable("the server is shutting down"))
        self._stop_draining()
        if self.sessions or self.opening:
            gone = self._all_gone.wait()
            self._drainer = LoopingCall(self._closing(code, seconds))
            self._drainer.clock = self.reactor
            self._drainer.start(DRAIN_INTERVAL)
        else:
            self._stop_listening()
            gone = succeed(None)
        settled = gone.addCallback(lambda _: gather([each.settled() for each in self.observers]))
        return settled.addCallback(lambda _: self.log.stop())

    def _stop_listening(self) -> None:
        self.revocations.stop()
        if self.http is not None:
            self.http.stop()

    def _closing(self, code: int, seconds: float) -> Callable[[], None]:
        """Return a function that closes the sessions that are due when it is called."""
        waiting = list(self.sessions)
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
        if self._draining:
            for observer in self.observers:
                observer.hurry()
        for session in self._all():
            session.transport.abort()

    def _all(self) -> Iterable[Session]:
        return [*self.opening, *self.sessions]

    def _stop_draining(self) -> None:
        if self._drainer is not None and self._drainer.running:
            self._drainer.stop()
