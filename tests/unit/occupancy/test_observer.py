"""Classic clients and those of server-sent events are present, too. The server is in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, listen, make_memory_factory

ALL = "subscribe-broadcast&subscribe-group&subscribe-user&subscribe-session"


class Visitors:
    """Each is who the cookie says, in the groups ``staff`` and ``admins``, and has all rights."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        name = handshake.headers.get("cookie", "").removeprefix("user=")
        identity = Identity(f"key of {name}", name or None, ("staff", "admins"), name or None)
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class ObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock)
        self.use(presence=("chat/*",))

    def use(self, **config: Any) -> None:
        self.factory = make_memory_factory(
            ServerConfig(**config), broker=self.broker, authorizer=Visitors(), clock=self.clock
        )

    def open(self, path: str, user: str = "mary") -> MemoryClient:
        cookies = {"user": user} if user else {}
        return connect(self.factory, f"ws://localhost/ws/{path}", cookies=cookies)

    def present(self, channel: str) -> list[str]:
        found = self.successResultOf(self.broker.presence.present(channel.encode()))
        for each in found:
            self.assertEqual(json.loads(each.info), {"user": each.user, "client": each.client})
            self.assertRegex(each.client, r"^[0-9a-f-]{36}$")
        return sorted(each.user for each in found)

    def is_online(self, user: str) -> bool:
        online: bool = self.successResultOf(self.broker.presence.is_online("", user))
        return online

    def test_a_websocket_is_present_on_the_channels_that_it_hears(self) -> None:
        self.open("chat/room?" + ALL)
        self.open("chat/room?subscribe-broadcast", "")
        self.open("chat/room?subscribe-broadcast", "joe")
        self.open("chat/other?subscribe-broadcast", "joe")
        self.assertEqual(self.present("broadcast:chat/room"), ["", "joe", "mary"])
        self.assertEqual(self.present("group:staff:chat/room"), ["mary"])
        self.assertEqual(self.present("group:admins:chat/room"), ["mary"])
        self.assertEqual(self.present("broadcast:chat/other"), ["joe"])

    def test_nobody_s_session_key_is_kept(self) -> None:
        self.open("chat/room?subscribe-session")
        self.assertEqual(self.broker.presence._kept, {})

    def test_who_hears_only_what_is_for_him_is_online(self) -> None:
        client = self.open("chat/room?subscribe-user")
        self.assertTrue(self.is_online("mary"))
        client.close()
        client.lose_connection()
        self.clock.pump([1] * 12)
        self.assertFalse(self.is_online("mary"))

    def test_facilities_without_presence_know_nobody(self) -> None:
        self.open("news?" + ALL)
        self.assertEqual(self.broker.presence._kept, {})
        self.assertFalse(self.is_online("mary"))

    def test_without_the_setting_there_is_no_observer(self) -> None:
        self.use()
        self.assertEqual(self.factory.session_server.observers, [])

    def test_an_end_of_any_kind_leaves_after_the_grace(self) -> None:
        clients = [self.open("chat/room?subscribe-broadcast", user) for user in "abc"]
        clients[0].close()
        clients[1].lose_connection()
        for each in clients[:2]:
            each.lose_connection()
        self.clock.pump([1] * 9)
        self.assertEqual(self.present("broadcast:chat/room"), ["a", "b", "c"])
        self.clock.pump([1] * 2)
        self.assertEqual(self.present("broadcast:chat/room"), ["c"])

    def test_a_visitor_who_was_sent_away_leaves_at_once(self) -> None:
        self.open("chat/room?subscribe-broadcast")
        (session,) = self.factory.session_server.sessions
        session.revoke()
        self.clock.pump([1] * 4)
        self.assertEqual(self.present("broadcast:chat/room"), [])

    def test_events_count_as_well(self) -> None:
        url = "http://localhost/ws/chat/room?subscribe-broadcast"
        listen(self.factory, url, cookies={"user": "mary"})
        self.assertEqual(self.present("broadcast:chat/room"), ["mary"])

    def test_messages_go_through(self) -> None:
        client = self.open("chat/room?subscribe-broadcast&publish-broadcast&echo")
        client.send("hello")
        self.assertEqual(client.messages, ["hello"])

    def test_three_tabs(self) -> None:
        tabs = [self.open("chat/room?subscribe-broadcast") for _ in range(3)]
        tabs[0].close()
        tabs[0].lose_connection()
        self.clock.pump([1] * 12)
        self.assertEqual(self.present("broadcast:chat/room"), ["mary", "mary"])
        tabs[1].lose_connection()
        self.clock.pump([1] * 2)
        self.open("chat/room?subscribe-broadcast")
        self.clock.pump([1] * 60)
        self.assertEqual(self.present("broadcast:chat/room"), ["mary", "mary"])
        self.assertTrue(self.is_online("mary"))

    def test_a_drain_leaves_the_rest_to_other_servers(self) -> None:
        self.open("chat/room?subscribe-broadcast")
        other = make_memory_factory(
            ServerConfig(presence=("chat/*",)), broker=self.broker, clock=self.clock
        )
        self.clock.pump([5] * 5)
        drained = self.factory.drain(1012)
        self.clock.pump([1] * 4)
        self.successResultOf(drained)
        self.assertEqual(self.present("broadcast:chat/room"), ["mary"])
        self.clock.pump([5] * 4)
        self.assertEqual(self.present("broadcast:chat/room"), [])
        self.assertEqual(self.broker.presence._kept, {})
        self.successResultOf(other.drain(1012))
        self.assertEqual(self.clock.getDelayedCalls(), [])
