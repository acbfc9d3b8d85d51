"""A message to ourselves through Redis: is the pub/sub connection up, or does it only seem so?"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused
from ws4redis_tx.core.names import control_channel
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.persisted import RedisClock, read_clock
from ws4redis_tx.redis.pubsub import PubSub
from ws4redis_tx.redis.refusals import is_no_permission

_log = Logger()

PROBE_INTERVAL = 10.0
"""Seconds between probes. One that is still out when the next is due shows a deaf connection."""

_PROBE_PATIENCE = 5.0  # seconds that a probe is given, if it was sent out of turn


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
