"""Listening for websockets, as a Twisted service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.websocket.factory import WebSocketFactory

# Twisted's default of 50 stalls when hundreds of browsers reconnect at once.
_BACKLOG = 2048


class WebSocketService(Service):
    """Listens, and closes its websockets when it is stopped.

    ``listener`` is the factory that listens: the websocket factory, unless it is replaced before
    the start, for example by a ``Site`` that holds its resource. ``stop_code`` is the close code
    at the stop: 1001; ``twistd`` sets 1012, because the server is about to come back. ``drain`` is
    the number of seconds over which the closes are spread, so that the clients do not all come
    back at once; ``twistd`` sets the value of ``--drain``.
    """

    stop_code = 1001
    drain = 0.0

    def __init__(
        self,
        factory: WebSocketFactory,
        endpoints: Iterable[Any],
        own_broker: IService | None = None,
        stop: Sequence[Callable[[], object]] = (),
    ) -> None:
        """``own_broker`` starts and stops with the service. The functions in ``stop`` are called
        one after another when the websockets are gone.
        """
        self.factory = factory
        self.listener: Any = factory
        self.ports: list[IListeningPort] = []
        self._endpoints = tuple(endpoints)
        self._own_broker = own_broker
        self._stop = stop

    def startService(self) -> None:
        """Raises ``twisted.internet.error.CannotListenError`` if an address is not available."""
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
        for function in self._stop:
            yield maybeDeferred(function)
        if self._own_broker is not None:
            yield self._own_broker.stopService()

    def stop_now(self) -> None:
        """Make a stop that has begun wait for clients no longer."""
        self.factory.abort()

    def when_ready(self) -> Deferred[None]:
        """Fire when websockets can be opened, because Redis is available."""
        server = self.factory.session_server
        available = server.broker.when_available()
        return available.addCallback(lambda _: server.revocations.when_listening())

    def _listening(self, port: IListeningPort) -> None:
        self.ports.append(port)


def make_endpoint(reactor: Any, description: str) -> Any:
    """The stream server endpoint for one item of ``config.listen``. Raises ``ConfigError``."""
    kind = description.partition(":")[0]
    if kind in ("tcp", "tcp6", "ssl", "unix") and ":backlog=" not in description:
        description += f":backlog={_BACKLOG}"
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        raise ConfigError(
            "listen",
            f"is {description!r}, which Twisted cannot listen on ({error})",
            "Write an endpoint such as tcp:8080:interface=127.0.0.1 or unix:/run/ws.sock.",
        ) from error
