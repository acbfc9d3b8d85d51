"""Brokers for tests, a listener that keeps its messages, and awkward payloads."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.redis import RedisServer
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.positions import HistoryRules
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.threads import bridge

AWKWARD = [
    b"42", b"007", b"1.50", b"1_000", b"", b"\0", b"\xff\xfe", b"QUEUED", b"OK", b"a\r\nb",
    "grüße 🎉".encode(), b"x" * 2**20,
]  # fmt: skip


class Listener:
    """Collects its messages, and waits for a number of them."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes | None, bytes]] = []
        self.publications: list[Publication] = []
        self._waiting: list[tuple[int, Deferred[None]]] = []

    def deliver(self, publication: Publication) -> None:
        self.publications.append(publication)
        self.heard.append((publication.channel, publication.payload))
        due = [each for each in self._waiting if each[0] <= len(self.heard)]
        self._waiting = [each for each in self._waiting if each not in due]
        for _, waiting in due:
            waiting.callback(None)

    def wait_for(self, count: int) -> Deferred[None]:
        if len(self.heard) >= count:
            return succeed(None)
        waiting: Deferred[None] = Deferred()
        self._waiting.append((count, waiting))
        return waiting.addTimeout(TIMEOUT, reactor)


class BrokerTestCase(TestCase):
    """A broker with a Redis of its own, and a listener of ``channels``."""

    timeout = 60
    channels: tuple[bytes, ...] = ()
    history: HistoryRules = ()

    @inlineCallbacks
    def setUp(self) -> Any:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.broker = start_broker(self, self.redis.address, "", self.history)
        yield self.broker.when_available()
        self.listener = Listener()
        for channel in self.channels:
            yield self.broker.listen(channel, self.listener)


def start_broker(
    test: TestCase, address: RedisAddress, prefix: str = "", history: HistoryRules = ()
) -> RedisBroker:
    """A broker that is starting, and that stops at the end of the test."""
    broker = RedisBroker(address, prefix, reactor, history)
    broker.startService()
    test.addCleanup(broker.stopService)
    return broker


def share_commands(test: TestCase, commands: Any) -> None:
    """Let publishers use this connection until the end of the test; it leaves the reactor clean."""
    bridge.share_commands(commands)
    test.addCleanup(bridge.share_commands, None)
