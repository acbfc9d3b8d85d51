"""A connection to Redis that comes back: log-in, preparation, back-off."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.wire.endpoint import CONNECT_TIMEOUT, make_endpoint
from ws4redis_tx.redis.wire.protocol import LOST, CommandProtocol, PubSubProtocol
from ws4redis_tx.redis.wire.refusals import Trouble, trouble
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.waiters import Waiters

PREPARE_TIMEOUT = 30.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 2.0

Spoken = TypeVar("Spoken", bound=CommandProtocol | PubSubProtocol)


class RedisConnection(Generic[Spoken]):
    """One connection to Redis, made anew with jittered back-off whenever it is lost.

    Raises ``ConfigError`` when the address cannot work, such as one with files that are not there.

    :param build: makes the protocol.
    :param prepare: called with each protocol after log-in; the connection counts as made when its
        Deferred fires, and is dropped and tried again when that fails.
    :param prepare_timeout: seconds until it has failed; ``None`` if it keeps deadlines of its own.
    :param on_up: called when the connection is made.
    :param on_down: called with the trouble whenever it is lost or cannot be made.
    """

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        build: Callable[[], Spoken],
        *,
        prepare: Callable[[Spoken], Deferred[Any]],
        prepare_timeout: float | None = PREPARE_TIMEOUT,
        on_up: Callable[[], None],
        on_down: Callable[[Trouble], None],
    ) -> None:
        self._address = address
        self._endpoint = make_endpoint(address, reactor)
        self._reactor = reactor
        self._build = build
        self._prepare = prepare
        self._prepare_timeout = prepare_timeout
        self._on_up = on_up
        self._on_down = on_down
        self._service: ClientService | None = None
        self._stopped = False
        self._sentinels = _watch_sentinels(address, reactor, self._master_moved)
        self._attempt: Spoken | None = None
        self._announcement: Any = None
        self._waiters: Waiters[Spoken] = Waiters()
        self.protocol: Spoken | None = None
        """The one that can be used now; ``None`` as long as there is none, and after ``stop``."""

    def start(self) -> None:
        factory = Factory.forProtocol(self._build)
        factory.noisy = False
        self._stopped = False
        self._service = _QuietClientService(
            _Reporting(self._endpoint, self._attempt_failed),
            factory,
            retryPolicy=_delay,
            clock=self._reactor,
            prepareConnection=self._connected,
        )
        self._service.startService()
        for sentinel in self._sentinels:
            sentinel.start()

    def stop(self) -> Deferred[Any]:
        service, self._service = self._service, None
        self._stopped = True
        # Nothing is asked any more, although answers arrive until the connection is closed.
        self.protocol = None
        if self._announcement is not None and self._announcement.active():
            self._announcement.cancel()
        self._waiters.fail(Failure(BrokerUnavailable("The connection to Redis was stopped.")))
        if service is None:
            return succeed(None)
        return gather([service.stopService(), *(each.stop() for each in self._sentinels)])

    def drop(self, protocol: Spoken, refusal: Exception | None = None) -> None:
        """Make the connection anew: ``protocol`` is of no use any more, from now on, such as
        because of a ``refusal``.
        """
        if self.protocol is protocol:
            self.protocol = None
        if refusal is not None:
            self._on_down(trouble(self._address, refusal))
        protocol.transport.abortConnection()

    def when_connected(self) -> Deferred[Spoken]:
        """Fire when ``protocol`` is there, or fail as the next attempt that fails. There are none
        before ``start``.
        """
        if self._stopped:
            return fail(BrokerUnavailable("The connection to Redis was stopped."))
        if self.protocol is not None:
            return succeed(self.protocol)
        return self._waiters.wait()

    @inlineCallbacks
    def _connected(self, proxy: Any) -> Any:
        # ClientService hands out a proxy; this fires at once, with the protocol itself.
        protocol = self._attempt = yield proxy.whenConnected()
        # While we prepare, ClientService learns of a loss from our failure, and has no place for
        # the loss itself.
        notify, proxy._lostNotification = proxy._lostNotification, lambda reason: None
        try:
            yield self._log_in(protocol).addTimeout(CONNECT_TIMEOUT, self._reactor)
            prepared = self._prepare(protocol)
            if self._prepare_timeout is not None:
                prepared.addTimeout(self._prepare_timeout, self._reactor)
            yield prepared
            if protocol.lost is not None:
                protocol.lost.raiseException()
        except Exception as error:
            protocol.transport.abortConnection()
            self._attempt_failed(protocol.lost or Failure(error))
            raise
        proxy._lostNotification = notify
        self.protocol = protocol
        protocol.whenDisconnected().addCallback(self._disconnected)
        # A waiter may want to stop us, and ClientService cannot be stopped amid its own step.
        self._announcement = self._reactor.callLater(0, self._announce, protocol)

    def _announce(self, protocol: Spoken) -> None:
        if self.protocol is protocol:
            self._waiters.fire(protocol)
            self._on_up()

    @inlineCallbacks
    def _log_in(self, protocol: Spoken) -> Any:
        address = self._address
        if address.password is not None:
            yield protocol.auth(address.password, address.username)
        if address.db:
            yield protocol.select(address.db)
        if address.service is not None:
            role = yield protocol.execute_command("ROLE")
            if role[0] != b"master":
                raise LOST("the sentinels named a server that is not the master")

    def _master_moved(self, host: str, port: int) -> None:
        """The sentinels have a new master; the old one may go on as if nothing had happened, for
        some ten seconds, in which what it is told is lost and what others are told is not heard.
        """
        protocol = self._attempt
        if (
            protocol is not None
            and protocol.connected
            and getattr(self._endpoint, "master", None) != (host, port)
        ):
            self.drop(protocol)

    def _disconnected(self, protocol: Spoken) -> None:
        if self.protocol is protocol:
            self.protocol = None
        if self._service is not None:
            self._on_down(trouble(self._address, LOST("the connection was lost")))

    def _attempt_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        found = trouble(self._address, failure.value)
        self._on_down(found)
        self._waiters.fail(Failure(found.error))


def _watch_sentinels(
    address: RedisAddress, reactor: Any, on_switch: Callable[[str, int], None]
) -> list[RedisConnection[PubSubProtocol]]:
    """A connection to each sentinel of ``address``, if there are any, that tells ``on_switch`` of a
    new master. Several tell it of the same one; one that has not heard of it yet may lead back to
    the old one, until it tells as well.
    """

    def hear(messages: list[tuple[bytes, bytes]]) -> None:
        for _, payload in messages:
            name, _, _, host, port = payload.decode().split(" ")
            if name == address.service:
                on_switch(host, int(port))

    return [
        RedisConnection(
            replace(
                address,
                host=host,
                port=port,
                db=0,
                username=address.sentinel_username,
                password=address.sentinel_password,
                sentinels=(),
                service=None,
            ),
            reactor,
            lambda: PubSubProtocol(hear),
            prepare=lambda protocol: protocol.subscribe(b"+switch-master"),
            on_up=lambda: None,
            on_down=lambda trouble: None,
        )
        for host, port in address.sentinels
    ]


class _QuietClientService(ClientService):
    """``ClientService`` logs every attempt; an outage is said once, by the broker."""

    _log = Logger(observer=LogPublisher())


@implementer(IStreamClientEndpoint)
class _Reporting:
    """An endpoint that tells why a connection failed, which ``ClientService`` keeps to itself."""

    def __init__(
        self, endpoint: IStreamClientEndpoint, on_failure: Callable[[Failure], None]
    ) -> None:
        self._endpoint = endpoint
        self._on_failure = on_failure

    def connect(self, factory: Any) -> Deferred[Any]:
        def failed(failure: Failure) -> Failure:
            self._on_failure(failure)
            return failure

        return self._endpoint.connect(factory).addErrback(failed)


def _delay(attempt: int) -> float:
    """Seconds before the next attempt: exponential, half of it random, 2 s at most."""
    longest = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)
