"""One connection to Redis for pub/sub: subscribing, fences, backpressure, loss. And the probe of
whether it is up, or only seems so: a message to ourselves through Redis.

Neither knows who listens to what.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.persisted import RedisClock, read_clock
from ws4redis_tx.redis.wire.connection import RedisConnection
from ws4redis_tx.redis.wire.protocol import LOST, PubSubProtocol
from ws4redis_tx.redis.wire.refusals import Trouble, is_no_permission
from ws4redis_tx.scheduling.waiters import Waiters

_log = Logger()

SILENCE = 5.0
"""Seconds for which a recovery waits for a connection that brings nothing at all."""

PROBE_INTERVAL = 10.0
"""Seconds between probes. One that is still out when the next is due shows a deaf connection."""

_PROBE_PATIENCE = 5.0  # seconds that a probe is given, if it was sent out of turn


class PubSub:
    """A connection that is made anew whenever it is lost.

    :param on_messages: called with the messages that one read brought, as (channel, payload) pairs
        in Redis' order; also while the connection recovers.
    :param recover: called with each new connection. The connection is ``up`` when the Deferred
        fires, and is tried anew when it fails. It may take its time, and keeps its own deadlines.
    :param on_lost: called when the connection, or the attempt to recover, came to its end.
    :param on_up: called when the connection is ``up``.
    :param on_down: called with the trouble, whenever it is lost or cannot be made.
    """

    def __init__(
        self,
        address: RedisAddress,
        reactor: Any,
        *,
        on_messages: Callable[[list[tuple[bytes, bytes]]], None],
        recover: Callable[[], Deferred[Any]],
        on_lost: Callable[[], None],
        on_up: Callable[[], None],
        on_down: Callable[[Trouble], None],
    ) -> None:
        self._connection = RedisConnection(
            address,
            reactor,
            lambda: PubSubProtocol(on_messages),
            prepare=self._prepare,
            prepare_timeout=None,
            on_up=on_up,
            on_down=on_down,
        )
        self._reactor = reactor
        self._recover = recover
        self._on_lost = on_lost
        # While it recovers, and after; the connection's own only after.
        self._protocol: PubSubProtocol | None = None
        self._fenced: Waiters[None] = Waiters()
        self._fencing = False
        self._paused = False
        self.generation = 0
        """Another number for each connection."""

    def start(self) -> None:
        self._connection.start()

    def stop(self) -> Deferred[Any]:
        return self._connection.stop()

    @property
    def up(self) -> bool:
        return self._connection.protocol is not None

    @property
    def connected(self) -> bool:
        """Whether there is a connection, which may still recover."""
        return self._protocol is not None

    def fileno(self) -> int | None:
        return None if self._protocol is None else self._protocol.transport.fileno()

    def subscribe(self, channel: bytes) -> Deferred[None]:
        """Fire when Redis has confirmed it. Fails when Redis refuses, or the connection is lost."""
        protocol = self._protocol
        return fail(LOST("Not connected")) if protocol is None else protocol.subscribe(channel)

    def unsubscribe(self, channel: bytes) -> None:
        if self._protocol is not None:
            self._protocol.unsubscribe(channel).addErrback(lambda _: None)

    def ping(self) -> Deferred[None]:
        """Fire when all that Redis published before this call was handed to ``on_messages``.

        For ``recover``; others ask for a ``fence``.
        """
        protocol = self._protocol
        return fail(LOST("Not connected")) if protocol is None else protocol.ping()

    def unless_silent(self, answer: Deferred[Any]) -> Deferred[Any]:
        """Cancel ``answer`` when the connection brings nothing for a while. One that is slow brings
        something, and what arrives may be much.
        """
        timer: Any = None

        def look(before: int) -> None:
            nonlocal timer
            reads = 0 if self._protocol is None else self._protocol.reads
            if reads == before and not self._paused:
                answer.cancel()
            else:
                timer = self._reactor.callLater(SILENCE, look, reads)

        def answered(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        look(-1)
        return answer.addBoth(answered)

    def fence(self) -> Deferred[None]:
        """As ``ping``, on a connection that is ``up``. Fails with ``BrokerUnavailable`` otherwise,
        or when the connection is lost.
        """
        fenced = self._fenced.wait()
        if not self._fencing:
            self._send_fence()
        return fenced

    def pause(self) -> None:
        """Read nothing more: messages wait in Redis, and so do acknowledgements behind them."""
        if self._protocol is not None:
            self._paused = True
            self._protocol.transport.pauseProducing()

    def resume(self) -> None:
        self._paused = False
        if self._protocol is not None:
            self._protocol.transport.resumeProducing()

    def drop(self) -> None:
        """Make the connection anew, although it seems to be ``up``, or to recover."""
        if self._protocol is not None:
            self._connection.drop(self._protocol)

    def _prepare(self, protocol: PubSubProtocol) -> Deferred[Any]:
        self._protocol = protocol
        self._paused = False
        self.generation += 1
        protocol.whenDisconnected().addCallback(self._disconnected)
        return self._recover()

    def _disconnected(self, protocol: PubSubProtocol) -> None:
        if self._protocol is protocol:
            self._protocol = None
            self._on_lost()

    def _send_fence(self) -> None:
        """One PING serves all who asked before it was sent."""
        fenced, self._fenced = self._fenced, Waiters()
        protocol = self._connection.protocol
        if protocol is None:
            fenced.fail(_lost())
            return
        self._fencing = True
        protocol.ping().addBoth(self._ponged, fenced)

    def _ponged(self, answer: object, fenced: Waiters[None]) -> None:
        self._fencing = False
        if len(self._fenced):
            self._send_fence()
        if isinstance(answer, Failure):
            fenced.fail(_lost())
        else:
            fenced.fire(None)


def _lost() -> Failure:
    return Failure(BrokerUnavailable("The connection to Redis was lost."))


class Probe:
    """Sends Redis' clock to a channel of our own, now and then, and expects it back.

    :param on_deaf: called when nothing has come back, nor anything else.
    :param on_refused: called when Redis refuses to publish it.
    """

    def __init__(
        self,
        prefix: str,
        commands: Commands,
        reactor: Any,
        *,
        on_deaf: Callable[[], None],
        on_refused: Callable[[], None],
    ) -> None:
        self.channel = control_channel(prefix, f"probe:{secrets.token_hex(8)}")
        self.paused = False
        """Whether we have paused the connection ourselves."""
        self._commands = commands
        self._reactor = reactor
        self._on_deaf = on_deaf
        self._on_refused = on_refused
        self._permitted = True
        self._sent: float | None = None
        self.heard = False
        """Whether anything arrived since it was sent."""
        self._timer = LoopingCall(self._look)
        self._timer.clock = reactor

    @property
    def out(self) -> bool:
        """Whether one is on its way."""
        return self._sent is not None

    def start(self) -> None:
        self._timer.start(PROBE_INTERVAL, now=False)

    def stop(self) -> None:
        if self._timer.running:
            self._timer.stop()

    def subscribe(self, pubsub: PubSub) -> Deferred[None]:
        """Fire when the subscription stands, or is not permitted."""
        return pubsub.subscribe(self.channel).addCallbacks(self._subscribed, self._forbidden)

    def forget(self) -> None:
        """The one on its way will not come."""
        self._sent = None

    def returned(self, payload: bytes) -> RedisClock | None:
        """The probe is back. Return the clock at the moment until which every message has arrived;
        ``None`` if somebody else published this.
        """
        clock = read_clock(payload)
        if clock is not None:
            self._sent = None
        return clock

    def send(self) -> None:
        if self._permitted and self._commands.connected:
            self._sent = self._reactor.seconds()
            self.heard = False
            self._commands.probe(self.channel).addErrback(self._failed)

    def _look(self) -> None:
        if self._sent is None:
            self.send()
        elif self._reactor.seconds() - self._sent < _PROBE_PATIENCE:
            pass
        elif self.heard or self.paused:
            self.heard = False  # behind, not deaf
        elif self._commands.connected:
            self._on_deaf()
        else:
            self.send()

    def _failed(self, failure: Failure) -> None:
        # Trouble of the command connection says nothing about this one.
        self._sent = None
        if failure.check(BrokerRefused):
            self._on_refused()

    def _subscribed(self, _: object) -> None:
        self._permitted = True

    def _forbidden(self, failure: Failure) -> None:
        if not is_no_permission(failure.value):
            failure.raiseException()
        if self._permitted:
            self._permitted = False
            _log.warn(
                "Redis does not let this user subscribe to {channel}: a connection that is up but "
                "deaf is not noticed. Grant &{channels} to mend it.",
                channel=self.channel.decode(),
                channels=self.channel.decode().rpartition("probe:")[0] + "*",
            )
