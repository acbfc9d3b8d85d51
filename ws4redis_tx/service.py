"""The door for embedders: a service, a factory or a resource from a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure
from twisted.python.reflect import namedAny

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import (
    Admission,
    AnonymousAuthorizer,
    Identity,
    PlainRequest,
    default_policy,
)
from ws4redis_tx.core.errors import BrokerUnavailable, ConfigError, Denied, MessageRefused
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.hooks import Closing, NullHooks, Refusal
from ws4redis_tx.core.interfaces import (
    IAuthorizer,
    IBroker,
    IConnection,
    IHooks,
    IListener,
)
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.protocols.subscriber_connection import SubscriberConnection
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.redis_store import Names, RedisMessage, RedisStore
from ws4redis_tx.revocation.messages import CONTROL_NAME, disconnection
from ws4redis_tx.sessions.hooks import HookedFactory
from ws4redis_tx.websocket.factory import WebSocketFactory
from ws4redis_tx.websocket.resource import WebSocketResource

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
]

# Twisted's default of 50 stalls when hundreds of browsers reconnect at once.
_BACKLOG = 2048


class Publisher(RedisStore):
    """``RedisPublisher`` for the reactor thread: the same arguments and names, but its
    ``publish_message`` returns a Deferred and blocks nothing.

    ``request``, which ``SELF`` refers to, is one whose user and session are loaded already.
    """

    def __init__(
        self,
        config: ServerConfig,
        broker: IBroker,
        *,
        facility: str,
        request: Any = None,
        broadcast: bool = False,
        groups: Names = (),
        users: Names = (),
        sessions: Names = (),
    ) -> None:
        super().__init__(broker)
        self._config = config
        self._address(request, facility, broadcast, groups, users, sessions)

    def get_prefix(self) -> str:
        return f"{self._config.prefix}:" if self._config.prefix else ""

    def publish_message(
        self, message: RedisMessage | bytes | str, expire: int | None = None
    ) -> Deferred[int]:
        """Fire with the sum of Redis' receiver counts, or fail with ``BrokerUnavailable``."""
        published: Deferred[int] = self._connection.publish(
            *self._prepared(message, expire, self._config.expire)
        )
        return published


def disconnect(
    config: ServerConfig,
    broker: IBroker,
    *,
    user: Any = None,
    session: Any = None,
    group: Any = None,
    facility: str | None = None,
) -> Deferred[int]:
    """``ws4redis_tx.disconnect`` for the reactor thread: fires with how many server processes were
    told, or fails with ``BrokerUnavailable``. Raises ``TypeError`` unless exactly one is given.
    """
    revocation = disconnection(user=user, session=session, group=group, facility=facility)
    return broker.publish([control_channel(config.prefix, CONTROL_NAME)], revocation.payload, 0)


def make_broker(config: ServerConfig, *, reactor: Any = None) -> RedisBroker:
    """The door to the Redis server of ``config``, to be shared between factories and with the
    application's own code. It is an ``IService``: start it and stop it.
    """
    return RedisBroker(config.redis, config.prefix, _reactor(reactor))


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

    ``broker`` is started and stopped by its owner, who also ends the websockets before that:
    ``factory.drain(1001)`` fires when they are gone. ``authorizer`` defaults to Django's if
    ``config.django``, else to one that knows no visitors; ``subscriber`` to ``config.subscriber``;
    ``hooks`` to those that send Django's signals if ``config.django``, else to none.
    """
    reactor = _reactor(reactor)
    make_subscriber = subscriber or _imported(config.subscriber)
    arguments = config, broker, AnonymousAuthorizer(), make_subscriber, reactor
    if hooks is None and config.django:
        from ws4redis_tx.django.signal_hooks import SignalHooks

        hooks = SignalHooks(reactor)
    if hooks is None or type(hooks) is NullHooks:
        factory: WebSocketFactory = WebSocketFactory(*arguments)
    else:
        factory = HookedFactory(*arguments, hooks=hooks)
    if authorizer is not None:
        factory.authorizer = authorizer
    elif config.django:
        from ws4redis_tx.django.authorizer import DjangoAuthorizer

        factory.authorizer = DjangoAuthorizer(reactor, factory.known_rights)
    return factory


def make_resource(factory: WebSocketFactory) -> WebSocketResource:
    """An ``IResource`` to mount in a ``Site`` at the path of ``config.websocket_url``, which may be
    any, beside other pages.
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
    """An ``IService`` that listens on ``config.listen``, or on ``endpoints`` in its place.

    It starts and stops its broker with itself, unless one is given.
    """
    reactor = _reactor(reactor)
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
    own_authorizer = factory.authorizer if config.django and authorizer is None else None
    own_hooks = getattr(factory, "hooks", None) if config.django and hooks is None else None
    if endpoints is None:
        endpoints = [make_endpoint(reactor, description) for description in config.listen]
    return WebSocketService(factory, endpoints, own_broker, own_authorizer, own_hooks)


class WebSocketService(Service):
    """Listens, and closes its websockets when it is stopped.

    ``listener`` is what listens: the websocket factory, unless it is replaced before the start,
    for instance by a ``Site`` that holds its resource. ``stop_code`` is the close code that
    clients get at the stop: 1001; ``twistd`` sets 1012, as the server is about to come back.
    ``drain`` is over how many seconds these closes are spread, so that the clients do not all
    come back at once: 0, all together; ``twistd`` sets what ``--drain`` says.
    """

    stop_code = 1001
    drain = 0.0

    def __init__(
        self,
        factory: WebSocketFactory,
        endpoints: Iterable[Any],
        own_broker: RedisBroker | None,
        own_authorizer: Any,
        own_hooks: Any = None,
    ) -> None:
        self.factory = factory
        self.listener: Any = factory
        self.ports: list[IListeningPort] = []
        self._endpoints = tuple(endpoints)
        self._own_broker = own_broker
        self._own_authorizer = own_authorizer
        self._own_hooks = own_hooks

    def startService(self) -> None:
        """Raises ``twisted.internet.error.CannotListenError`` if an address cannot be had."""
        super().startService()
        failures: list[Failure] = []
        for endpoint in self._endpoints:
            endpoint.listen(self.listener).addCallbacks(self._listening, failures.append)
        if failures:
            super().stopService()
            ports, self.ports = self.ports, []
            for port in ports:
                port.stopListening()
            failures[0].raiseException()
        self.factory.open_up()
        if self._own_broker is not None:
            self._own_broker.startService()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, close all websockets with ``stop_code``; fire when they are gone."""
        super().stopService()
        ports, self.ports = self.ports, []
        yield gatherResults([maybeDeferred(port.stopListening) for port in ports])
        yield self.factory.drain(self.stop_code, self.drain)
        if self._own_authorizer is not None:
            self._own_authorizer.stop()
        if self._own_hooks is not None:
            yield self._own_hooks.stop()
        if self._own_broker is not None:
            yield self._own_broker.stopService()

    def stop_now(self) -> None:
        """Have a stop that is under way wait for no client any more."""
        self.factory.abort()

    def when_ready(self) -> Deferred[None]:
        """Fire when websockets can be opened: Redis is there."""
        available = self.factory.broker.when_available()
        return available.addCallback(lambda _: self.factory.revocations.when_listening())

    def _listening(self, port: IListeningPort) -> None:
        self.ports.append(port)


def make_endpoint(reactor: Any, description: str) -> Any:
    """The stream server endpoint of one ``config.listen``. Raises ``ConfigError``."""
    kind = description.partition(":")[0]
    if kind in ("tcp", "tcp6", "ssl", "unix") and ":backlog=" not in description:
        description += f":backlog={_BACKLOG}"
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        raise ConfigError(
            "--listen",
            f"is {description!r}, which Twisted cannot listen on ({error})",
            "Write an endpoint such as tcp:8080:interface=127.0.0.1 or unix:/run/ws.sock.",
        ) from error


def _imported(subscriber: Any) -> Any:
    if not isinstance(subscriber, str):
        return subscriber
    try:
        return namedAny(subscriber)
    except Exception as error:
        raise ConfigError(
            "WS4REDIS_SUBSCRIBER",
            f"is {subscriber!r}, which cannot be imported: {error}",
            "Correct the dotted name.",
        ) from error


def _reactor(reactor: Any) -> Any:
    if reactor is None:
        from twisted.internet import reactor
    return reactor
