"""A server of Centrifuge's protocol in memory, with a clock that the test advances."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.positions import History
from ws4redis_tx.revocation.messages import CONTROL_NAME, disconnection
from ws4redis_tx.testing import (
    CentrifugeClient,
    MemoryBroker,
    connect,
    connect_centrifuge,
    make_memory_factory,
)

URL = "ws://localhost/connection/websocket"

KEPT = History(5, 600)
"""The history of the facility ``kept``."""


class John(AllowAll):
    """Knows everybody as John, of the staff. ``asked`` has what it was asked about."""

    identity = Identity("the key", "john", ("staff",), "7")

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def authorize(self, handshake: Any, rights: Any) -> Any:
        self.asked.append((handshake.facility, tuple(rights)))
        request = PlainRequest(handshake.path_info, self.identity)
        return Admission(self.identity, tuple(rights), request)


class SlowJohn(John):
    """Answers when the test calls ``answer``."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []

    def authorize(self, handshake: Any, rights: Any) -> Any:
        answer = super().authorize(handshake, rights)
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return waiting.addCallback(lambda _: answer)

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            each.callback(None)


class ChannelsTestCase(SynchronousTestCase):
    broker: Any

    def setUp(self) -> None:
        self.use()

    def use(
        self, authorizer: Any = None, broker: MemoryBroker | None = None, **fields: Any
    ) -> None:
        self.clock = Clock()
        self.config = ServerConfig(
            centrifuge_url="/connection/", history=(("kept", *KEPT),), **fields
        )
        self.factory = make_memory_factory(
            self.config, authorizer=authorizer or AllowAll(), broker=broker, clock=self.clock
        )
        self.broker = self.factory.broker
        self.server = self.factory.session_server

    def connect(self, query: str = "", **options: Any) -> CentrifugeClient:
        return connect_centrifuge(self.factory, URL + query, **options)

    def open(self, query: str = "") -> CentrifugeClient:
        """A client that has not sent ``connect``."""
        return CentrifugeClient(connect(self.factory, URL + query), None)

    def say(self, *numbers: int, facility: str = "plain") -> None:
        channel = f"broadcast:{facility}".encode()
        for number in numbers:
            self.broker.publish_elsewhere([channel], b"%d" % number)

    def take_away(self, **whom: Any) -> None:
        """Disconnect a user, a group, a facility …, as ``ws4redis_tx.disconnect`` does."""
        payload = disconnection(**whom).payload
        self.broker.publish_elsewhere([f"ctl:{CONTROL_NAME}".encode()], payload)

    def state(self) -> Any:
        """The server's data about its only client."""
        (session,) = self.server.sessions
        return session.state

    def assert_nothing_left(self) -> None:
        """No client has left anything behind."""
        self.assertEqual(list(self.broker.hub.channels), [])
        self.assertEqual((self.server.sessions, self.server.opening), (set(), set()))
        self.assertEqual(self.server.revocations._index.size, 0)
        self.clock.pump([1.0] * 40)
        self.assertEqual(self.flushLoggedErrors(), [])
