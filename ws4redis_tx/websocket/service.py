"""Listening for websockets, as a Twisted service."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.sessions.descriptors import Descriptors
from ws4redis_tx.websocket.factory import WebSocketFactory

# Twisted's default of 50 stalls when hundreds of browsers reconnect at once.
_BACKLOG = 2048

# Seconds between two looks for file descriptors that have become free.
_LOOK_INTERVAL = 0.05
# Twisted's `numberAccepts` grows by this after a turn in which it was reached.
_MORE = 20
LEAVE_TIMEOUT = 75.0
"""Seconds within which each handshake is over: 60 in the queue, and its other steps."""


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
        self._gate: _Gate | None = None

    def startService(self) -> None:
        """Raises ``twisted.internet.error.CannotListenError`` if an address is not available."""
        super().startService()
        failures: list[Failure] = []
        server = self.factory.session_server
        self._gate = _Gate(self.listener, self.ports, server.descriptors, server.reactor)
        for endpoint in self._endpoints:
            endpoint.listen(self._gate).addCallbacks(self.ports.append, failures.append)
        if failures:
            super().stopService()
            for port in self._close_gate():
                port.stopListening()
            failures[0].raiseException()
        self.factory.open_up()
        if self._own_broker is not None:
            self._own_broker.startService()

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop listening, close all websockets with ``stop_code``; fire when they are gone."""
        super().stopService()
        ports = self._close_gate()
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

    def _close_gate(self) -> list[IListeningPort]:
        """Return the ports, which listen no more when they are stopped."""
        if self._gate is not None:
            self._gate.close()
        ports, self.ports = self.ports, []
        return ports


class _Gate(Factory):
    """The factory of a listening port. It leaves clients in the system's queue while the process
    has no file descriptor left to answer them.
    """

    noisy = False

    def __init__(
        self, listener: Any, ports: Sequence[Any], descriptors: Descriptors, reactor: Any
    ) -> None:
        self._listener = listener
        self._ports = ports
        self._descriptors = descriptors
        self._reactor = reactor
        # Runs while no client is accepted.
        self._timer: Any = None
        if IProtocolNegotiationFactory.providedBy(listener):
            self.acceptableProtocols = listener.acceptableProtocols
            alsoProvides(self, IProtocolNegotiationFactory)

    def logPrefix(self) -> str:
        return type(self._listener).__name__

    def doStart(self) -> None:
        self._listener.doStart()

    def doStop(self) -> None:
        self._listener.doStop()

    def buildProtocol(self, addr: Any) -> Any:
        room, at_once = self._descriptors.room(), self._descriptors.at_once()
        for port in self._ports:
            # A port accepts so many clients, and at most `_MORE` more, before others have a turn.
            if getattr(port, "numberAccepts", 0) > at_once:
                port.numberAccepts = at_once
        if room <= at_once + _MORE and self._timer is None:
            for port in self._ports:
                port.stopReading()
            self._timer = self._reactor.callLater(_LOOK_INTERVAL, self._look)
        return None if room < 0 else self._listener.buildProtocol(addr)

    def _look(self) -> None:
        self._timer = None
        room = self._descriptors.room() // len(self._ports)
        if room < 2:
            self._timer = self._reactor.callLater(_LOOK_INTERVAL, self._look)
            return
        for port in self._ports:
            port.numberAccepts = min(room // 2, self._descriptors.at_once())
            port.startReading()

    def close(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


@inlineCallbacks
def leave(service: WebSocketService) -> Any:
    """Stop listening, since others serve the same sockets, and fire when all handshakes that have
    begun are over. A stop would refuse them.
    """
    server = service.factory.session_server
    until = server.reactor.seconds() + LEAVE_TIMEOUT
    yield gatherResults([maybeDeferred(port.stopListening) for port in service._close_gate()])
    while server.opening and server.reactor.seconds() < until:
        yield deferLater(server.reactor, 0.05)


def hurry(service: WebSocketService) -> None:
    """Have it close all websockets at once, in a stop that has begun or in the next one."""
    service.drain = 0.0
    if not service.running:
        service.factory.drain(service.stop_code)


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
