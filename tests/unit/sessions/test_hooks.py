"""The calls of an application's hooks: the real protocol on a fake wire."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred

from tests.support.memory import AllowAll, SlowBroker, Waiting
from tests.unit.sessions.hooked import ALL, CHANNEL, URL, HooksTestCase, Noting, Patient, Visitor
from ws4redis_tx.core.admission import Admission
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.interfaces import Closing, NullHooks, Refusal
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.scheduling.serial_queue import LIMIT
from ws4redis_tx.testing import MemoryClient, connect, make_memory_factory


class EventTests(HooksTestCase):
    def test_connected_comes_first_and_closed_last_and_once(self) -> None:
        self.use()
        client = self.connect()
        client.send("a")
        client.close()
        client.lose_connection()
        self.assertEqual(self.hooks.told[:-1], ["connected", b"a"])
        self.assertIsInstance(self.hooks.told[-1], Closing)

    def test_a_connection_says_whose_it_is_and_what_it_may(self) -> None:
        self.use(authorizer=Visitor())
        self.connect("subscribe-broadcast&subscribe-session&publish-user")
        (connection,) = self.hooks.connections
        self.assertEqual(connection.facility, "foobar")
        self.assertEqual(connection.identity, Visitor.identity)
        self.assertEqual(connection.peer, "127.0.0.1")
        self.assertEqual(
            connection.rights, ("subscribe-broadcast", "subscribe-session", "publish-user")
        )
        self.assertEqual(set(connection.channels), {"broadcast:foobar", "session:the key:foobar"})

    def test_its_repr_shows_no_session_key(self) -> None:
        self.use(authorizer=Visitor())
        self.connect("subscribe-session")
        self.assertIn("john", repr(self.hooks.connections))
        self.assertNotIn("the key", repr(self.hooks.connections))

    def test_it_is_the_same_object_each_time_and_a_key_to_remember_something_by(self) -> None:
        online: dict[Any, int] = {}

        class Presence(NullHooks):
            def connected(self, connection: Any) -> None:
                online[connection] = 0

            def message(self, connection: Any, message: bytes) -> None:
                online[connection] += 1

            def closed(self, connection: Any, closing: Closing) -> None:
                del online[connection]

        self.use(Presence())
        clients = [self.connect(), self.connect()]
        clients[0].send("a")
        self.assertEqual(list(online.values()), [1, 0])
        for client in clients:
            client.lose_connection()
        self.assertEqual(online, {})

    def test_connected_may_greet_after_what_is_persisted(self) -> None:
        hooks = Noting()
        hooks.connected = lambda connection: connection.send("welcome")  # type: ignore[method-assign]
        self.use(hooks)
        self.broker.publish([CHANNEL], b"persisted", 60)
        self.assertEqual(self.connect().messages, ["persisted", "welcome"])

    def test_connected_waits_for_the_end_of_the_replay_and_messages_for_connected(self) -> None:
        broker = SlowBroker("fence")
        self.use(Patient(), broker)
        client = self.connect()
        client.send("a")
        self.assertEqual(self.hooks.told, [])
        broker.answer("fence")
        self.assertEqual(self.hooks.told, ["connected"])
        self.hooks.answer()
        self.assertEqual(self.hooks.told, ["connected", b"a"])

    def test_who_leaves_during_the_replay_was_connected_and_closed(self) -> None:
        self.use(broker=SlowBroker("fence"))
        client = self.connect()
        client.send("a")
        client.lose_connection()
        self.assertEqual(self.hooks.told, ["connected", self.hooks.closing])
        self.broker.answer("fence")
        self.assertEqual(self.hooks.told, ["connected", self.hooks.closing])

    def test_closed_waits_for_the_hook_that_is_under_way(self) -> None:
        self.use(Patient())
        client = self.connect()
        client.lose_connection()
        self.assertEqual(self.hooks.told, ["connected"])
        self.hooks.answer()
        self.assertEqual(self.hooks.told, ["connected", self.hooks.closing])

    def test_hooks_may_be_coroutines(self) -> None:
        waiting: Deferred[None] = Deferred()

        class Async(Noting):
            async def connected(self, connection: Any) -> None:
                super().connected(connection)

            async def refused(self, refusal: Refusal) -> None:
                super().refused(refusal)

            async def message(self, connection: Any, message: bytes) -> bytes:
                await waiting
                return message.upper()

            async def closed(self, connection: Any, closing: Closing) -> None:
                super().closed(connection, closing)

        self.use(Async())
        connect(self.factory, "ws://elsewhere/ws/foobar")
        client = self.connect()
        client.send("a")
        self.assertEqual(client.messages, [])
        waiting.callback(None)
        client.close()
        self.assertEqual(client.messages, ["A"])
        self.assertEqual(self.hooks.told[0].status, 400)
        self.assertEqual(self.hooks.told[1:], ["connected", self.hooks.closing])

    def test_hooks_that_do_nothing_cost_nothing(self) -> None:
        self.use(NullHooks())
        self.assertEqual(self.factory.session_server.observers, [])

    def test_while_nobody_listens_to_them_neither_do_others(self) -> None:
        self.use()
        self.hooks.idle = True
        first = self.connect()
        self.hooks.idle = False
        second = self.connect()
        for client in (first, second):
            client.send("a")
        self.assertEqual(self.hooks.told, ["connected", b"a"])
        self.assertEqual(first.messages, ["a", "a"])

    def test_nothing_is_left_of_a_websocket_that_ended(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        for _ in range(3):
            client.send("a")
        client.lose_connection()
        left = weakref.ref(client._server)
        for _ in range(2):
            self.hooks.answer()
        self.hooks.connections.clear()
        del client
        gc.collect()
        self.assertIsNone(left())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RefusalTests(HooksTestCase):
    def test_a_refusal_says_who_was_refused_what_and_why(self) -> None:
        class Strict(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                raise Denied(403, "No.", detail="it is Sunday")

        self.use(authorizer=Strict())
        client = connect(self.factory, "ws://localhost/ws/f%20b?subscribe-user&token=secret")
        self.assertEqual(client.refused, 403)
        self.assertEqual(
            self.hooks.told, [Refusal(403, "No.", "it is Sunday", "/ws/f%20b", "127.0.0.1")]
        )

    def test_so_does_one_of_what_was_refused_before_anybody_was_asked(self) -> None:
        self.use()
        connect(self.factory, f"{URL}?{ALL}", origin="http://evil.example")
        connect(self.factory, "ws://localhost/elsewhere?token=secret")
        self.assertEqual(
            [(refusal.status, refusal.path, refusal.peer) for refusal in self.hooks.told],
            [(403, "/ws/foobar", "127.0.0.1"), (404, "/elsewhere", "127.0.0.1")],
        )

    def test_so_does_one_of_what_is_no_handshake(self) -> None:
        self.use()
        client = MemoryClient(self.factory)
        client.send_bytes(b"\x16\x03\x01\r\n\r\n")
        (refusal,) = self.hooks.told
        self.assertEqual((refusal.status, refusal.path, refusal.peer), (400, "", ""))

    def test_who_leaves_before_the_answer_was_neither_refused_nor_connected(self) -> None:
        self.use(authorizer=Waiting())
        client = self.connect()
        client.lose_connection()
        self.assertEqual(self.hooks.told, [])

    def test_a_refusal_is_told_once(self) -> None:
        self.use(authorizer=Waiting())
        self.connect()
        self.factory.drain(1001)
        self.assertEqual([refusal.status for refusal in self.hooks.told], [503])


class FailingTests(HooksTestCase):
    def test_a_hook_that_fails_is_logged_and_nothing_else_happens(self) -> None:
        class Failing(NullHooks):
            def connected(self, connection: Any) -> None:
                raise ZeroDivisionError

            def refused(self, refusal: Refusal) -> None:
                raise ZeroDivisionError

            async def closed(self, connection: Any, closing: Closing) -> None:
                raise ZeroDivisionError

        self.use(Failing())
        self.assertEqual(connect(self.factory, "ws://localhost/elsewhere").refused, 404)
        client = self.connect()
        client.send("a")
        self.assertEqual(client.messages, ["a"])
        client.close()
        self.assertEqual(client.close_code, 1000)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(list(self.broker.hub.channels), [])

    def test_one_that_never_answers_is_cancelled(self) -> None:
        self.use(Patient())
        client = self.connect()
        client.send("a")
        self.clock.advance(LIMIT)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)
        self.assertTrue(client.open)
        self.clock.advance(LIMIT)
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_nor_is_one_that_is_told_of_a_refusal_waited_for_without_end(self) -> None:
        hooks = Noting()
        hooks.refused = lambda refusal: Deferred()  # type: ignore[method-assign]
        self.use(hooks)
        connect(self.factory, "ws://localhost/elsewhere")
        self.clock.advance(LIMIT)
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_what_are_no_hooks_is_said_before_anybody_connects(self) -> None:
        class Some:
            def connected(self, connection: Any) -> None: ...

        for hooks, why in ((Some(), "lacks refused, message, closed"), (Noting, "a class")):
            error = self.assertRaises(TypeError, make_memory_factory, hooks=hooks)
            self.assertIn(why, str(error))
            self.assertIn("NullHooks", str(error))

    def test_one_that_exits_exits_nothing(self) -> None:
        hooks = Noting()
        hooks.connected = lambda connection: exit(1)  # type: ignore[method-assign]
        self.use(hooks)
        client = self.connect()
        client.send("a")
        self.assertEqual(client.messages, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)


class PlainTests(HooksTestCase):
    def test_a_server_without_hooks_counts_nothing(self) -> None:
        client = connect(make_memory_factory(), "ws://localhost/ws/x?subscribe-broadcast")
        self.assertIs(type(client._server.session.feed), Feed)
