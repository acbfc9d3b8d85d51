"""The seam for a second protocol: one of twenty lines is served beside the classic one, by the
same sessions, over the same transport.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.config import ServerConfig
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import channel_name
from ws4redis_tx.protocols.classic import ClassicProtocol
from ws4redis_tx.protocols.interfaces import ISession
from ws4redis_tx.revocation.messages import disconnection
from ws4redis_tx.sessions.log import ClientLog
from ws4redis_tx.sessions.server import Server
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect
from ws4redis_tx.websocket.factory import WebSocketFactory


class Echo:
    """Echoes every message. The first one identifies the client, which from then on also receives
    the messages published to that user.
    """

    path = "/echo/"

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker

    def handshake(self, session: ISession) -> None:
        session.state = session.handshake  # everybody may connect

    def opened(self, session: ISession) -> None:
        session.feed.go_live()

    def received(self, session: ISession, payload: bytes) -> Any:
        if not isinstance(session.state, Handshake):
            return session.send(payload)
        handshake = replace(session.state, credential=payload.decode())
        admitted = session.authorize(handshake, ["subscribe-user"])
        return admitted.addCallback(self._listen, session).addErrback(_refuse, session)

    def _listen(self, admission: Admission, session: ISession) -> Deferred[None]:
        name = channel_name("", "user", session.state.facility, admission.identity.username)
        session.state = name.encode()
        return self._broker.listen(session.state, session.feed)

    def close_code(self, code: int, reason: str) -> tuple[int, str]:
        return code, reason

    def closed(self, session: ISession) -> None:
        if isinstance(session.state, bytes):
            self._broker.unlisten(session.state, session.feed)


def _refuse(failure: Any, session: ISession) -> None:
    session.close(1008, failure.value.reason)


class Site:
    """Identifies users by their first message."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, list[str]]] = []
        self.late: Deferred[Admission] | None = None

    def authorize(self, handshake: Handshake, rights: Any) -> Any:
        self.asked.append((handshake.credential, list(rights)))
        if self.late is not None:
            return self.late
        if handshake.credential == "stranger":
            raise Denied(403, "Who are you?")
        identity = Identity(None, handshake.credential or None, (), handshake.credential or None)
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class AnotherProtocolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.site = Clock(), Site()
        self.broker = MemoryBroker(self.clock)
        config = ServerConfig(recheck=0)
        log = ClientLog(self.clock)
        protocols = [
            ClassicProtocol(config, self.broker, RedisSubscriber, self.clock, log.note),
            Echo(self.broker),
        ]
        server = Server(config, self.broker, self.site, protocols, self.clock, log)
        self.factory = WebSocketFactory(server)

    def connect(self, path: str) -> MemoryClient:
        return connect(self.factory, f"ws://localhost{path}")

    def publish(self, name: str, payload: bytes) -> None:
        self.successResultOf(self.broker.publish([f"user:{name}:room".encode()], payload, 0))

    def test_it_is_served_under_its_path_and_the_classic_one_under_its_own(self) -> None:
        client, classic = self.connect("/echo/room"), self.connect("/ws/room?publish-broadcast")
        self.assertEqual((client.open, classic.open), (True, True))
        self.assertEqual(self.connect("/other/room").refused, 404)

    def test_nobody_is_asked_for_rights_before_the_first_message(self) -> None:
        client = self.connect("/echo/room")
        self.assertEqual(self.site.asked, [])
        client.send("john")
        self.assertEqual(self.site.asked, [("john", ["subscribe-user"])])
        client.send("hello")
        self.publish("john", b"for john")
        self.publish("mary", b"for mary")
        self.assertEqual(client.messages, ["hello", "for john"])

    def test_a_refusal_closes_it(self) -> None:
        client = self.connect("/echo/room")
        client.send("stranger")
        self.assertEqual(client.close_code, 1008)

    def test_its_rights_are_taken_away_like_any_other(self) -> None:
        john, mary = self.connect("/echo/room"), self.connect("/echo/room")
        john.send("john")
        mary.send("mary")
        revocation = disconnection(user="john")
        self.successResultOf(self.broker.publish([b"ctl:revoke"], revocation.payload, 0))
        self.clock.advance(0)
        self.assertEqual((john.close_code, mary.close_code), (1008, None))

    def test_it_is_rechecked_with_what_it_said(self) -> None:
        client = self.connect("/echo/room")
        client.send("john")
        self.broker.lose_connection()
        self.broker.restore()
        self.clock.advance(0)
        self.assertEqual(self.site.asked, [("john", ["subscribe-user"])] * 2)
        self.assertIsNone(client.close_code)

    def test_an_authorizer_that_takes_too_long_closes_it(self) -> None:
        self.site.late = Deferred()
        client = self.connect("/echo/room")
        client.send("john")
        self.clock.advance(4.9)
        self.assertIsNone(client.close_code)
        self.clock.advance(0.2)
        self.assertEqual(client.close_code, 1008)
        self.assertEqual(len(self.factory.session_server.authorizations), 0)

    def test_one_that_leaves_while_the_authorizer_thinks_leaves_nothing_behind(self) -> None:
        self.site.late = Deferred()
        client = self.connect("/echo/room")
        client.send("john")
        client.lose_connection()
        self.assertEqual(len(self.factory.session_server.authorizations), 0)
        self.assertEqual(list(self.broker.hub.channels), [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
