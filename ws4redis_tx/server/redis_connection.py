"""A connection to Redis that comes back: endpoint, log-in, back-off. Only here: txredisapi.

The library's own factories reconnect but neither resubscribe nor survive an error at log-in, so
only its protocol classes are used, under Twisted's ``ClientService``.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail, inlineCallbacks
from twisted.internet.endpoints import (
    HostnameEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress

ResponseError = txredisapi.ResponseError
LOST = txredisapi.ConnectionError

_log = Logger()

CONNECT_TIMEOUT = 5.0
# A failover should not wait for a sentinel that went down with the master.
SENTINEL_TIMEOUT = 1.0
# Subscribing to 100,000 channels again takes a while.
PREPARE_TIMEOUT = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0


class CommandProtocol(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Commands and their answers, in order; bytes stay bytes."""

    def __init__(self) -> None:
        super().__init__(charset=None, convertNumbers=False)


class PubSubProtocol(txredisapi.SubscriberProtocol):  # type: ignore[misc]
    """Subscriptions, their acknowledgements and messages, in the order Redis sent them.

    ``on_messages`` gets what one read brought, as (channel, payload) pairs. An acknowledgement or
    PONG fires after every message that came before it was handed over.
    """

    def __init__(self, on_messages: Callable[[list[tuple[bytes, bytes]]], None]) -> None:
        super().__init__(charset=None, convertNumbers=False)
        self._on_messages = on_messages
        self._messages: list[tuple[bytes, bytes]] = []
        self._expected: deque[tuple[bytes, bytes | None, Deferred[None]]] = deque()

    def subscribe(self, channel: bytes) -> Deferred[None]:
        return self._expect(b"subscribe", channel, "SUBSCRIBE", channel)

    def unsubscribe(self, channel: bytes) -> Deferred[None]:
        return self._expect(b"unsubscribe", channel, "UNSUBSCRIBE", channel)

    def ping(self) -> Deferred[None]:
        return self._expect(b"pong", None, "PING")

    def _expect(self, kind: bytes, channel: bytes | None, *command: object) -> Deferred[None]:
        if not self.connected:
            return fail(LOST("Not connected"))
        answered: Deferred[None] = Deferred()
        self._expected.append((kind, channel, answered))
        self.transport.write(self._build_command(*command))
        return answered

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        super().dataReceived(data, unpause)
        self._hand_over()

    def replyReceived(self, reply: Any) -> None:
        if type(reply) is list and len(reply) == 3 and reply[0] == b"message":
            self._messages.append((reply[1], reply[2]))
        elif self.replyQueue.waiting:  # AUTH and SELECT, before anything else
            self.replyQueue.put(reply)
        else:
            self._hand_over()
            self._answered(reply)

    def _hand_over(self) -> None:
        if self._messages:
            messages, self._messages = self._messages, []
            self._on_messages(messages)

    def _answered(self, reply: Any) -> None:
        if not self._expected:
            self._out_of_step()
            return
        kind, channel, answered = self._expected.popleft()
        if isinstance(reply, Exception):
            answered.errback(reply)
        elif _matches(reply, kind, channel):
            answered.callback(None)
        else:
            answered.errback(LOST("Redis answered something else"))
            self._out_of_step()

    def _out_of_step(self) -> None:
        _log.error("Redis sent an answer that nothing asked for; connecting anew.")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        expected, self._expected = self._expected, deque()
        for _, _, answered in expected:
            answered.errback(LOST("Lost connection"))


class RedisConnection:
    """One connection to Redis, made anew with jittered back-off whenever it is lost.

    :param build: makes the protocol.
    :param prepare: called with each protocol after log-in; the connection counts as made when its
        Deferred fires, and is dropped and tried again when that fails.
    :param on_up: called when the connection is made.
    :param on_down: called with a text, without secrets, whenever it is lost or cannot be made.
    """

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        build: Callable[[], Any],
        *,
        prepare: Callable[[Any], Deferred[Any]],
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
    ) -> None:
        self._address = address
        self._reactor = reactor
        self._build = build
        self._prepare = prepare
        self._on_up = on_up
        self._on_down = on_down
        self._service: ClientService | None = None
        self.protocol: Any = None

    def start(self) -> None:
        factory = Factory.forProtocol(self._build)
        factory.noisy = False
        self._service = _QuietClientService(
            _Reporting(make_endpoint(self._address, self._reactor), self._down),
            factory,
            retryPolicy=_delay,
            clock=self._reactor,
            prepareConnection=self._connected,
        )
        self._service.startService()

    def stop(self) -> Deferred[None]:
        service, self._service = self._service, None
        assert service is not None
        return service.stopService()

    def drop(self, protocol: Any) -> None:
        """Make the connection anew: ``protocol`` is of no use any more, from now on."""
        if self.protocol is protocol:
            self.protocol = None
        protocol.transport.abortConnection()

    def when_connected(self) -> Deferred[Any]:
        """Fire with the protocol, or fail at the next attempt that fails."""
        if self._service is None:
            return fail(BrokerUnavailable("The connection to Redis was stopped."))
        return self._service.whenConnected(failAfterFailures=1)

    @inlineCallbacks
    def _connected(self, proxy: Any) -> Any:
        # ClientService hands out a proxy; this fires at once, with the protocol itself.
        protocol = yield proxy.whenConnected()
        try:
            yield self._log_in(protocol).addTimeout(CONNECT_TIMEOUT, self._reactor)
            yield self._prepare(protocol).addTimeout(PREPARE_TIMEOUT, self._reactor)
        except Exception as error:
            protocol.transport.abortConnection()
            self._down(str(error) or type(error).__name__)
            raise
        self.protocol = protocol
        protocol.whenDisconnected().addCallback(self._disconnected)
        # Whoever is told may want to stop us, which ClientService cannot do amid its own step.
        self._reactor.callLater(0, self._announce, protocol)

    def _announce(self, protocol: Any) -> None:
        if self.protocol is protocol:
            self._on_up()

    @inlineCallbacks
    def _log_in(self, protocol: Any) -> Any:
        address = self._address
        if address.password is not None:
            yield protocol.auth(address.password, address.username)
        if address.db:
            yield protocol.select(address.db)
        if address.service is not None:
            role = yield protocol.execute_command("ROLE")
            if role[0] != b"master":
                raise LOST("the sentinels named a server that is not the master")

    def _disconnected(self, protocol: Any) -> None:
        self.protocol = None
        if self._service is not None:
            self._down("the connection was lost")

    def _down(self, problem: str) -> None:
        self._on_down(f"{self._address}: {problem}")


class _QuietClientService(ClientService):
    """``ClientService`` logs every attempt; an outage is said once, by the broker."""

    _log = Logger(observer=LogPublisher())


@implementer(IStreamClientEndpoint)
class _Reporting:
    """An endpoint that tells why a connection failed, which ``ClientService`` keeps to itself."""

    def __init__(self, endpoint: IStreamClientEndpoint, on_down: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._on_down = on_down

    def connect(self, factory: Any) -> Deferred[Any]:
        def failed(failure: Failure) -> Failure:
            self._on_down(str(failure.value) or type(failure.value).__name__)
            return failure

        return self._endpoint.connect(factory).addErrback(failed)


def _matches(reply: Any, kind: bytes, channel: bytes | None) -> bool:
    if kind == b"pong":  # a status while nothing is subscribed, then a list
        return reply == b"PONG" or (isinstance(reply, list) and reply[0] == kind)
    return isinstance(reply, list) and reply[:2] == [kind, channel]


@implementer(IStreamClientEndpoint)
class SentinelEndpoint:
    """Whichever server is the master now, according to the first sentinel that answers."""

    def __init__(self, address: RedisAddress, reactor: Any) -> None:
        self._address = address
        self._reactor = reactor

    @inlineCallbacks
    def connect(self, factory: Any) -> Any:
        for host, port in self._address.sentinels:
            try:
                found = yield self._ask(host, port)
            except Exception:
                continue  # the next one may answer
            if found:
                master = HostnameEndpoint(
                    self._reactor, found[0].decode(), int(found[1]), timeout=CONNECT_TIMEOUT
                )
                return (yield master.connect(factory))
        raise LOST("no sentinel that answers knows the master")

    @inlineCallbacks
    def _ask(self, host: str, port: int) -> Any:
        endpoint = HostnameEndpoint(self._reactor, host, port, timeout=SENTINEL_TIMEOUT)
        sentinel = yield connectProtocol(endpoint, CommandProtocol())
        try:
            question = ("SENTINEL", "get-master-addr-by-name", self._address.service)
            asked = sentinel.execute_command(*question)
            return (yield asked.addTimeout(SENTINEL_TIMEOUT, self._reactor))
        finally:
            sentinel.transport.loseConnection()


def make_endpoint(address: RedisAddress, reactor: Any) -> IStreamClientEndpoint:
    """TLS checks certificate and host name, against ``ca_file`` or the system's authorities."""
    if address.service is not None:
        return SentinelEndpoint(address, reactor)
    if address.path is not None:
        return UNIXClientEndpoint(reactor, address.path, timeout=CONNECT_TIMEOUT)
    endpoint = HostnameEndpoint(reactor, address.host, address.port, timeout=CONNECT_TIMEOUT)
    if not address.tls:
        return endpoint
    trust = None
    if address.ca_file is not None:
        with open(address.ca_file, "rb") as file:
            trust = trustRootFromCertificates([Certificate.loadPEM(file.read())])
    client = None
    if address.certificate_file is not None:
        pem = b""
        for path in (address.certificate_file, address.key_file):
            if path is not None:
                with open(path, "rb") as file:
                    pem += file.read()
        client = PrivateCertificate.loadPEM(pem)
    options = optionsForClientTLS(address.host, trustRoot=trust, clientCertificate=client)
    return wrapClientTLS(options, endpoint)


def _delay(attempt: int) -> float:
    """Seconds before the next attempt: exponential, half of it random, 2 s at most."""
    longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)
