"""A site in memory, whose visitors lose sessions, groups and rights."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.revocation.messages import Revocation
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

JOHN = Identity("john's", "john", ("chatters",), "1")


MARY = Identity("mary's", "mary", ("chatters",), "2")


ALL = "subscribe-session&subscribe-user&subscribe-group&subscribe-broadcast"


class Site:
    """An authorizer: the cookie ``who=NAME`` means ``visitors[NAME]``, which is an identity, an
    exception, or a Deferred of one.
    """

    def __init__(self) -> None:
        self.visitors: dict[str, Any] = {"john": JOHN, "mary": MARY, "nobody": Identity()}
        self.withheld: set[str] = set()
        self.added: tuple[str, ...] = ()
        self.expires: float | None = None
        self.redeemed = ""
        self.answer: Admission | None = None
        self.asked: list[str] = []
        self.handshakes: list[Handshake] = []

    def authorize(self, handshake: Handshake, rights: Any) -> Any:
        name = handshake.headers["cookie"].partition("=")[2]
        self.asked.append(name)
        self.handshakes.append(handshake)
        found = self.visitors[name]
        if isinstance(found, Deferred):
            return found
        if isinstance(found, Exception):
            raise found
        return self.admit(found, handshake, rights)

    def admit(self, identity: Identity, handshake: Handshake, rights: Any) -> Admission:
        granted = tuple(right for right in rights if right not in self.withheld)
        request = PlainRequest(handshake.path_info, identity)
        self.answer = Admission(
            identity, granted + self.added, request, self.expires, self.redeemed
        )
        return self.answer


class RevocationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.use()

    def use(self, broker: MemoryBroker | None = None, *, recheck: Any = 0, **config: Any) -> None:
        """Make the server; by default without a period, so that no recheck comes by chance."""
        self.clock = Clock()
        self.broker = broker or MemoryBroker()
        self.site = Site()
        self.factory = make_memory_factory(
            ServerConfig(recheck=recheck, **config),
            broker=self.broker,
            authorizer=self.site,
            clock=self.clock,
        )

    def connect(self, name: str, flags: str = ALL, facility: str = "chat") -> MemoryClient:
        url = f"ws://localhost/ws/{facility}?{flags}"
        return connect(self.factory, url, cookies={"who": name})

    def say(self, revocation: Revocation) -> None:
        self.broker.publish([b"ctl:revoke"], revocation.payload, 0)
        self.clock.advance(0)

    def say_again(self) -> None:
        """Let the time of the second recheck come."""
        self.clock.advance(2)
        self.clock.advance(0)

    def outage(self) -> None:
        """Redis was away: what was said meanwhile was not heard."""
        self.broker.lose_connection()
        self.broker.restore()
        self.clock.advance(0)

    def logged(self) -> list[Any]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events
