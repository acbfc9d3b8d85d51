"""The seam for other protocols: what it promises to one that asks for rights more than once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import NullHooks
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.sessions.hooks import HookObserver
from ws4redis_tx.sessions.interfaces import ISessionObserver
from ws4redis_tx.sessions.log import ClientLog
from ws4redis_tx.sessions.server import Server
from ws4redis_tx.testing import MemoryBroker, connect
from ws4redis_tx.websocket.factory import WebSocketFactory


class Asking:
    """Asks for rights with each message, which is the credential."""

    path = "/ask/"

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def handshake(self, session: ISession) -> None:
        session.state = session.handshake

    def opened(self, session: ISession) -> None:
        session.feed.go_live()

    def received(self, session: ISession, payload: bytes) -> Any:
        handshake = replace(session.state, credential=payload.decode())
        return session.authorize(handshake, []).addCallback(self._listen, session)

    def _listen(self, admission: Admission, session: ISession) -> Any:
        return self._broker.listen(b"broadcast:room", session.feed)

    def closed(self, session: ISession) -> None:
        self._broker.unlisten(b"broadcast:room", session.feed)


class Site:
    def __init__(self) -> None:
        self.asked: list[Deferred[Admission]] = []

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Any:
        name = handshake.credential
        identity = Identity(None, name, (), name)
        answer = Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))
        waiting: Deferred[Any] = Deferred()
        self.asked.append(waiting)
        return waiting.addCallback(lambda _: answer)


class Noting(NullHooks):
    def __init__(self) -> None:
        self.connections: list[Any] = []

    def connected(self, connection: Any) -> Any:
        self.connections.append(connection)


class SeamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.site = Clock(), Site()
        self.broker = MemoryBroker(self.clock)
        self.use([])

    def use(self, observers: Sequence[ISessionObserver]) -> None:
        self.server = Server(
            ServerConfig(recheck=0),
            self.broker,
            self.site,
            [Asking(self.broker)],
            self.clock,
            ClientLog(self.clock),
            observers,
        )
        self.client = connect(WebSocketFactory(self.server), "ws://localhost/ask/room")

    def test_hooks_are_told_of_a_session_that_asks_once_it_is_open(self) -> None:
        hooks = Noting()
        self.use([HookObserver(hooks, self.clock)])
        self.flushLoggedErrors()
        self.assertEqual((self.client.open, len(hooks.connections)), (True, 1))

    def test_no_slot_is_lost_when_a_client_that_asked_twice_leaves(self) -> None:
        self.client.send("john")
        self.client.send("mary")
        self.client.lose_connection()
        for each in self.site.asked:
            each.callback(None)  # type: ignore[arg-type]
        self.assertEqual(len(self.server.authorizations), 0)

    def test_both_questions_have_their_time(self) -> None:
        self.client.send("john")
        self.client.send("mary")
        self.site.asked[1].callback(None)  # type: ignore[arg-type]
        self.clock.advance(5.1)
        self.assertEqual(len(self.server.authorizations), 0)
        self.assertEqual([each.value.status for each in self.flushLoggedErrors(Denied)], [503])

    def test_nothing_of_a_session_that_was_admitted_twice_is_kept(self) -> None:
        for number, name in enumerate(("john", "mary")):
            self.client.send(name)
            self.site.asked[number].callback(None)  # type: ignore[arg-type]
        self.client.lose_connection()
        index = self.server.revocations._index
        self.assertEqual((len(index._by_user), index.size), (0, 0))

    def test_a_user_that_it_was_first_admitted_as_is_revoked_no_more(self) -> None:
        for number, name in enumerate(("john", "mary")):
            self.client.send(name)
            self.site.asked[number].callback(None)  # type: ignore[arg-type]
        self.client.lose_connection()
        self.assertEqual(list(self.server.revocations._index._by_user.get("john")), [])
