"""The API for embedding: makes a service, a factory or a resource from a configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred

from ws4redis_tx import __version__
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.table import BY_FIELD
from ws4redis_tx.core.admission import (
    Admission,
    AnonymousAuthorizer,
    Identity,
    PlainRequest,
    default_policy,
)
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError, Denied, MessageRefused
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import (
    Closing,
    IAuthorizer,
    IBroker,
    IConnection,
    IHooks,
    IListener,
    NullHooks,
    Refusal,
)
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import Namespace, check_tenant, known_rights, namespace
from ws4redis_tx.core.positions import history_of
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.emulation.http import Emulation
from ws4redis_tx.occupancy.observer import observe
from ws4redis_tx.protocols.centrifuge.assembly import centrifuge
from ws4redis_tx.protocols.classic import ClassicProtocol
from ws4redis_tx.protocols.interfaces import IProtocol
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.redis_store import NO_BROADCAST, UNNAMED, Names, RedisMessage, RedisStore
from ws4redis_tx.revocation.control_channel import tell_servers
from ws4redis_tx.revocation.messages import disconnection
from ws4redis_tx.revocation.void_tokens import void_by
from ws4redis_tx.scheduling import clock
from ws4redis_tx.sessions.hooks import HookObserver
from ws4redis_tx.sessions.interfaces import ISessionObserver
from ws4redis_tx.sessions.log import ClientLog
from ws4redis_tx.sessions.server import Server
from ws4redis_tx.sse.transport import EventStream
from ws4redis_tx.websocket.factory import WebSocketFactory
from ws4redis_tx.websocket.resource import WebSocketResource
from ws4redis_tx.websocket.service import WebSocketService, make_endpoint

__all__ = [
    "Admission",
    "BrokerUnavailable",
    "Closing",
    "ConfigError",
    "Denied",
    "Handshake",
    "IAuthorizer",
    "IBroker",
    "IConnection",
    "IHooks",
    "IListener",
    "Identity",
    "MessageRefused",
    "NullHooks",
    "PlainRequest",
    "Publication",
    "Publisher",
    "RedisAddress",
    "RedisBroker",
    "Refusal",
    "ServerConfig",
    "WebSocketFactory",
    "WebSocketResource",
    "WebSocketService",
    "default_policy",
    "disconnect",
    "make_broker",
    "make_factory",
    "make_resource",
    "make_service",
    "parse_redis_address",
    "use_monotonic_clock",
]


class Publisher(RedisStore):
    """``RedisPublisher`` for the reactor thread: the same arguments and names, but its
    ``publish_message`` returns a Deferred and does not block.

    ``SELF`` refers to ``request``, whose user and session must be loaded already. ``tenant``
    defaults to that of ``request``, if a handshake brought it. Raises ``TypeError`` if there is
    none and ``config.tenants`` is true.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        *,
        facility: str,
        request: Any = None,
        broadcast: bool = NO_BROADCAST,
        groups: Names = UNNAMED,
        users: Names = UNNAMED,
        sessions: Names = UNNAMED,
        tenant: str | None = None,
    ) -> None:
        super().__init__(broker)
        self._config = config
        known = getattr(request, "ws4redis_identity", None)
        if tenant is None and isinstance(known, Identity):
            tenant = known.tenant
        self._tenant = _checked_tenant(config, tenant)
        self._address(request, facility, broadcast, groups, users, sessions)

    def _namespace(self) -> Namespace:
        return namespace(self._config.prefix, self._tenant or "")

    def publish_message(
        self, message: RedisMessage | bytes | str, expire: int | None = None
    ) -> Deferred[int]:
        """Fire with the sum of Redis' receiver counts, or fail with ``BrokerUnavailable``."""
        prepared = self._prepared(message, expire, self._config.expire)
        history = history_of(self._config.history, self._facility)
        # A broker of an application's own may not know histories.
        kept = {} if history is None else {"history": history}
        published: Deferred[int] = self._connection.publish(*prepared, **kept)
        return published


def disconnect(
    config: ServerConfig,
    broker: IBroker,
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    facility: str | None = None,
    tenant: str | None = None,
) -> Deferred[int]:
    """``ws4redis_tx.disconnect`` for the reactor thread.

    Fires with the number of server processes that were told, or fails with ``BrokerUnavailable``.
    Raises ``TypeError`` unless exactly one valid argument is given, and a tenant with
    ``config.tenants``.
    """
    tenant = _checked_tenant(config, tenant)
    revocation = disconnection(
        user=user, session=session, group=group, facility=facility, tenant=tenant
    )
    void = void_by(revocation, time.time()) if config.centrifuge_url else None
    return tell_servers(config.prefix, broker, revocation, void)


def make_broker(config: ServerConfig, *, reactor: Any = None) -> RedisBroker:
    """A broker for the Redis server of ``config``. Factories and the application's own code can
    share it. It is an ``IService``, which the caller starts and stops.
    """
    return RedisBroker(config.redis, config.prefix, _reactor(reactor), config.history)


def make_factory(
    config: ServerConfig,
    *,
    broker: IBroker,
    authorizer: IAuthorizer | None = None,
    subscriber: Callable[[SubscriberConnection], Any] | None = None,
    hooks: IHooks | None = None,
    reactor: Any = None,
) -> WebSocketFactory:
    """An ``IProtocolFactory`` for any stream server endpoint.

    The caller starts and stops ``broker``, and closes the websockets before it stops it:
    ``factory.drain(1001)`` fires when they are gone. ``subscriber`` defaults to
    ``config.subscriber``. With ``config.django``, ``authorizer`` defaults to Django's and ``hooks``
    to those that send Django's signals; without it, all visitors are anonymous.
    """
    reactor = _reactor(reactor)
    make_subscriber = _subscriber(config, subscriber)
    if authorizer is None:
        authorizer = _default_authorizer(config, make_subscriber, reactor)
    if hooks is None:
        hooks = _default_hooks(config, reactor)
    log = ClientLog(reactor)
    classic = ClassicProtocol(config, broker, make_subscriber, reactor, log.note)
    protocols: list[IProtocol] = [classic]
    occupancy, of_presence = observe(config, broker, reactor)
    if config.centrifuge_url:
        authorizer, protocol = centrifuge(
            config, broker, authorizer, reactor, log, __version__, occupancy, classic.quota
        )
        protocols.append(protocol)
    observers = [*_observers(hooks, reactor), *of_presence]
    server = Server(config, broker, authorizer, protocols, reactor, log, observers, EventStream)
    if config.centrifuge_url:
        server.http = Emulation(server, config.centrifuge_url)
    return WebSocketFactory(server)


def make_resource(factory: WebSocketFactory) -> WebSocketResource:
    """An ``IResource``. Mount it in a ``Site``, beside other pages, at the path of
    ``config.websocket_url``.
    """
    return WebSocketResource(factory)


def make_service(
    config: ServerConfig,
    *,
    authorizer: IAuthorizer | None = None,
    subscriber: Callable[[SubscriberConnection], Any] | None = None,
    broker: IBroker | None = None,
    hooks: IHooks | None = None,
    endpoints: Iterable[Any] | None = None,
    reactor: Any = None,
) -> WebSocketService:
    """An ``IService`` that listens on ``endpoints``, by default on those of ``config.listen``.

    Without ``broker`` it makes one, and starts and stops it with itself.
    """
    reactor = _reactor(reactor)
    subscriber = _subscriber(config, subscriber)
    # The service stops only the parts that it made itself.
    stop: list[Callable[[], object]] = []
    if authorizer is None:
        authorizer = own_authorizer = _default_authorizer(config, subscriber, reactor)
        if config.django:
            stop.append(own_authorizer.stop)
    if hooks is None and config.django:
        hooks = own_hooks = _default_hooks(config, reactor)
        stop.append(own_hooks.stop)
    own_broker = None
    if broker is None:
        broker = own_broker = make_broker(config, reactor=reactor)
    factory = make_factory(
        config,
        broker=broker,
        authorizer=authorizer,
        subscriber=subscriber,
        hooks=hooks,
        reactor=reactor,
    )
    if endpoints is None:
        endpoints = [make_endpoint(reactor, description) for description in config.listen]
    return WebSocketService(factory, endpoints, own_broker, stop)


def use_monotonic_clock(*, reactor: Any = None) -> None:
    """Let all timers of the reactor run on a monotonic clock, so that they take no notice when the
    system clock is set. Call it before a service or a broker is made. ``twistd ws4redis`` does so.

    Twisted's reactors follow the system clock: when it is set back by an hour, timers stop for an
    hour. Timers that are already set keep their times. Once the system clock has been set,
    ``reactor.seconds()`` is no longer the time of day. Idempotent.
    """
    clock.use_monotonic_clock(_reactor(reactor))


def _checked_tenant(config: ServerConfig, tenant: str | None) -> str | None:
    return check_tenant(tenant) if config.tenants or tenant else None


def _subscriber(config: ServerConfig, subscriber: object) -> Callable[..., Any]:
    chosen = config.subscriber if subscriber is None else subscriber
    made: Callable[..., Any] = BY_FIELD["subscriber"].kind.check("subscriber", chosen)
    return made


def _default_authorizer(config: ServerConfig, subscriber: object, reactor: Any) -> Any:
    if not config.django:
        return AnonymousAuthorizer()
    from ws4redis_tx.django.authorizer import DjangoAuthorizer

    return DjangoAuthorizer(reactor, known_rights(subscriber))


def _default_hooks(config: ServerConfig, reactor: Any) -> Any:
    if not config.django:
        return None
    from ws4redis_tx.django.signal_hooks import SignalHooks

    return SignalHooks(reactor)


def _observers(hooks: IHooks | None, reactor: Any) -> list[ISessionObserver]:
    return [] if hooks is None or type(hooks) is NullHooks else [HookObserver(hooks, reactor)]


def _reactor(reactor: Any) -> Any:
    if reactor is None:
        from twisted.internet import reactor
    return reactor
