"""Hooks and clients with many channels: who is connected, to what it subscribes, what it says."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll, SlowBroker
from tests.unit.sessions.hooked import Noting, Patient, Visitor
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import Denied, MessageRefused
from ws4redis_tx.core.interfaces import Closing, NullHooks
from ws4redis_tx.revocation.messages import CONTROL_NAME, disconnection
from ws4redis_tx.testing import CentrifugeClient, connect_centrifuge, make_memory_factory

A, B = "broadcast:a", "broadcast:b"


class Following(Noting):
    """Writes down subscriptions, too."""

    def subscribed(self, connection: Any, channel: str) -> None:
        assert connection is self.connections[-1]
        self.told.append(f"+{channel}")

    def unsubscribed(self, connection: Any, channel: str) -> None:
        self.told.append(f"-{channel}")


class Older:
    """Hooks that were written before there were subscriptions."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def connected(self, connection: Any) -> None:
        self.told.append("connected")

    def refused(self, refusal: Any) -> None:
        """Not asked for here."""

    def message(self, connection: Any, message: bytes) -> bytes:
        return message

    def closed(self, connection: Any, closing: Closing) -> None:
        self.told.append("closed")


class ChannelsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.use()

    def use(self, hooks: Any = None, authorizer: Any = None, broker: Any = None) -> None:
        self.clock = Clock()
        self.hooks: Any = Following() if hooks is None else hooks
        self.factory = make_memory_factory(
            ServerConfig(centrifuge_url="/connection/"),
            authorizer=authorizer or Visitor(),
            hooks=self.hooks,
            broker=broker,
            clock=self.clock,
        )
        self.broker = self.factory.broker

    def connect(self, query: str = "") -> CentrifugeClient:
        url = f"ws://localhost/connection/websocket{query}"
        return connect_centrifuge(self.factory, url)

    def saying(self, message: Any) -> Noting:
        hooks = Following()
        hooks.message = message  # type: ignore[method-assign]
        return hooks

    def answer_to(self, client: CentrifugeClient, data: Any) -> Any:
        """The answer to a publish: a result, or a code and a text."""
        answer = client.answers[client.send("publish", channel=A, data=data)]
        return answer if isinstance(answer, dict) else (answer.code, answer.message)


class EventTests(ChannelsTestCase):
    def test_a_client_is_connected_when_it_is_known(self) -> None:
        client = self.connect()
        self.assertEqual(self.hooks.told, ["connected"])
        (connection,) = self.hooks.connections
        self.assertEqual(connection.identity, Visitor.identity)
        self.assertEqual((connection.facility, connection.rights), ("", ()))
        self.assertEqual((connection.channels, connection.peer), ((), "127.0.0.1"))
        client.lose_connection()
        self.assertIsInstance(self.hooks.told[1], Closing)

    def test_one_that_is_never_known_is_told_of_to_nobody(self) -> None:
        class Refusing(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                raise Denied(401, "Who are you?")

        self.use(authorizer=Refusing())
        client = self.connect()
        self.assertIsNotNone(client.error)
        client.lose_connection()
        self.assertEqual(self.hooks.told, [])

    def test_subscriptions_are_told_of_and_end_with_the_connection_at_the_latest(self) -> None:
        client = self.connect()
        for channel in (A, B, "user:a", "group:staff:a"):
            client.subscribe(channel)
        client.unsubscribe(B)
        client.lose_connection()
        self.assertEqual(self.hooks.told[:6], [
            "connected", "+broadcast:a", "+broadcast:b", "+user:john:a", "+group:staff:a",
            "-broadcast:b",
        ])  # fmt: skip
        *ends, closing = self.hooks.told[6:]
        self.assertEqual(sorted(ends), ["-broadcast:a", "-group:staff:a", "-user:john:a"])
        self.assertIsInstance(closing, Closing)

    def test_those_of_the_server_come_after_the_connection(self) -> None:
        self.connect("?facility=a&subscribe-user&subscribe-broadcast")
        first, *others = self.hooks.told
        self.assertEqual(first, "connected")
        self.assertEqual(sorted(others), ["+broadcast:a", "+user:john:a"])

    def test_one_that_fails_or_never_stood_is_told_of_to_nobody(self) -> None:
        self.use(broker=SlowBroker("listen"))
        client = self.connect()
        client.send("subscribe", channel="nonsense")
        client.send("subscribe", channel=A)
        client.lose_connection()
        self.broker.answer("listen")
        self.assertEqual([each for each in self.hooks.told if isinstance(each, str)], ["connected"])

    def test_an_outage_is_no_end(self) -> None:
        client = self.connect()
        client.subscribe(A)
        self.broker.lose_connection()
        self.broker.restore()
        self.assertEqual(self.hooks.told, ["connected", "+broadcast:a"])

    def test_one_that_is_taken_away_ends(self) -> None:
        client = self.connect()
        client.subscribe(A)
        told = disconnection(facility="a").payload
        self.broker.publish([f"ctl:{CONTROL_NAME}".encode()], told, 0)
        self.assertEqual([each.code for each in client.pushes], [2000])
        self.assertEqual(self.hooks.told, ["connected", "+broadcast:a", "-broadcast:a"])
        self.assertTrue(client.connected)

    def test_hooks_without_these_methods_go_on_working(self) -> None:
        self.use(Older())
        client = self.connect()
        client.subscribe(A)
        client.publish(A, 1)
        client.lose_connection()
        self.assertEqual(self.hooks.told, ["connected", "closed"])
        self.assertEqual(client.messages, [1])

    def test_they_come_one_after_the_other(self) -> None:
        class Slow(Patient):
            def subscribed(self, connection: Any, channel: str) -> Any:
                self.told.append(f"+{channel}")
                return self._wait(None)

        self.use(Slow())
        client = self.connect()
        client.subscribe(A)
        client.subscribe(B)
        self.assertEqual(self.hooks.told, ["connected"])
        for number in range(2, 4):
            self.hooks.answer()
            self.assertEqual(len(self.hooks.told), number)
        self.assertEqual(self.hooks.told, ["connected", "+broadcast:a", "+broadcast:b"])

    def test_one_that_fails_is_logged_and_harms_nobody(self) -> None:
        class Failing(NullHooks):
            def subscribed(self, connection: Any, channel: str) -> None:
                raise ZeroDivisionError

        self.use(Failing())
        client = self.connect()
        client.subscribe(A)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(list(client.subscriptions), [A])

    def test_a_hook_speaks_to_its_client_when_it_knows_that_it_is_connected(self) -> None:
        class Greeting(NullHooks):
            def connected(self, connection: Any) -> None:
                connection.send('"hello"')

            def subscribed(self, connection: Any, channel: str) -> None:
                connection.send('"there"')

        self.use(Greeting())
        client = self.connect("?facility=a&subscribe-broadcast")
        self.assertEqual([(each.kind, each.data) for each in client.pushes],
                         [("message", "hello"), ("message", "there")])  # fmt: skip
        first = client.websocket.messages[0]
        assert isinstance(first, str)
        self.assertIn('"connect"', first)

    def test_without_hooks_nobody_is_told(self) -> None:
        self.use(NullHooks())
        client = self.connect()
        client.subscribe(A)
        (session,) = self.factory.session_server.sessions
        self.assertEqual((session.observed, session.state.known), (False, None))
        self.assertIsNone(session.judge(b"1"))


class MessageTests(ChannelsTestCase):
    def test_hooks_see_what_is_published_and_where_and_nothing_else(self) -> None:
        seen: list[Any] = []

        def note(connection: Any, message: Any) -> bytes:
            seen.append((connection, bytes(message), message.channel))
            return bytes(message)

        self.use(self.saying(note))
        client = self.connect()
        client.subscribe(A)
        client.send("history", channel=A)
        client.publish(A, {"n": 1})
        client.publish("user:a", 2)
        client.unsubscribe(A)
        (connection,) = self.hooks.connections
        self.assertEqual(
            seen, [(connection, b'{"n": 1}', "broadcast:a"), (connection, b"2", "user:john:a")]
        )
        self.assertEqual(client.messages, [{"n": 1}])

    def test_it_is_published_as_the_hook_answers_it(self) -> None:
        self.use(self.saying(lambda connection, message: b"[%b]" % message))
        client = self.connect()
        client.subscribe(A)
        self.assertEqual(self.answer_to(client, 1), {})
        (push,) = client.pushes
        self.assertEqual(push.data, [1])
        self.assertEqual(push.info, {"user": "john", "client": client.id})

    def test_none_publishes_nothing_and_is_answered(self) -> None:
        self.use(self.saying(lambda connection, message: None))
        client = self.connect()
        client.subscribe(A)
        self.assertEqual((self.answer_to(client, 1), client.pushes), ({}, []))

    def test_a_refused_one_is_answered_with_103_and_why(self) -> None:
        def refuse(connection: Any, message: bytes) -> bytes:
            raise MessageRefused("Too long.")

        self.use(self.saying(refuse))
        client = self.connect()
        client.subscribe(A)
        self.assertEqual(self.answer_to(client, 1), (103, "Too long."))
        self.assertEqual((client.connected, client.pushes), (True, []))

    def test_a_hook_that_fails_is_logged_and_answered_with_100(self) -> None:
        def fail(connection: Any, message: bytes) -> Any:
            return ZeroDivisionError() if message == b"2" else 1 / 0

        self.use(self.saying(fail))
        client = self.connect()
        client.subscribe(A)
        for data, kind in ((1, ZeroDivisionError), (2, TypeError)):
            self.assertEqual(self.answer_to(client, data)[0], 100)
            self.assertEqual(len(self.flushLoggedErrors(kind)), 1)
        self.assertEqual((client.connected, client.pushes), (True, []))

    def test_a_client_without_the_right_is_not_asked_about(self) -> None:
        class Listening(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                return super().authorize(handshake, [x for x in rights if x.startswith("sub")])

        self.use(authorizer=Listening())
        client = self.connect()
        self.assertEqual(self.answer_to(client, 1)[0], 103)
        self.assertEqual(self.hooks.told, ["connected"])

    def test_answers_keep_the_order_while_a_hook_waits(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def wait(connection: Any, message: bytes) -> bytes:
            await waiting
            return message

        self.use(self.saying(wait))
        client = self.connect()
        numbers = client.send_all(
            ("subscribe", {"channel": A}),
            ("publish", {"channel": A, "data": 1}),
            ("unsubscribe", {"channel": A}),
        )
        self.assertEqual(list(client.answers)[1:], numbers[:1])
        waiting.callback(None)
        self.assertEqual(list(client.answers)[1:], numbers)
        self.assertEqual(client.messages, [1])

    def test_what_is_not_judged_before_the_end_is_not_published(self) -> None:
        waiting: Deferred[None] = Deferred()

        async def wait(connection: Any, message: bytes) -> bytes:
            await waiting
            return message

        self.use(self.saying(wait))
        client, other = self.connect(), self.connect()
        other.subscribe(A)
        client.send("publish", channel=A, data=1)
        client.lose_connection()
        waiting.callback(None)
        self.assertEqual(other.pushes, [])
        self.assertEqual(self.broker.persisted, {})
