"""What an application's hooks are told, and their say: the real protocol on a fake wire."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.memory import AllowAll, SlowBroker, Waiting
from tests.support.outboxes import FedOutbox
from tests.support.wires import Written
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable, Denied, MessageRefused
from ws4redis_tx.core.interfaces import Closing, NullHooks, Refusal
from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.delivery.feed import CountedFeed, Feed
from ws4redis_tx.scheduling.serial_queue import LIMIT
from ws4redis_tx.sessions.inbox import MAX_UNACKNOWLEDGED
from ws4redis_tx.sessions.server import PING_INTERVAL, PING_TIMEOUT
from ws4redis_tx.testing import (
    MemoryBroker,
    MemoryClient,
    client_frame,
    connect,
    make_memory_factory,
)
from ws4redis_tx.websocket.frames import DEFLATED, PLAIN

CHANNEL = b"broadcast:foobar"
URL = "ws://localhost/ws/foobar"
BOTH = "subscribe-broadcast&publish-broadcast"
ALL = f"{BOTH}&echo"


class Noting(NullHooks):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.connections: list[Any] = []

    def connected(self, connection: Any) -> Any:
        self.connections.append(connection)
        self.told.append("connected")

    def refused(self, refusal: Refusal) -> Any:
        self.told.append(refusal)

    def message(self, connection: Any, message: bytes) -> Any:
        self.told.append(message)
        return message

    def closed(self, connection: Any, closing: Closing) -> Any:
        self.told.append(closing)

    @property
    def closing(self) -> Closing:
        (closing,) = [each for each in self.told if isinstance(each, Closing)]
        return closing


class Patient(Noting):
    """Each hook waits for the test's answer."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[Any]] = []

    def _wait(self, told: object) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.waiting.append(waiting)
        return waiting.addCallback(lambda answer: told if answer is None else answer)

    def connected(self, connection: Any) -> Any:
        super().connected(connection)
        return self._wait(None)

    def message(self, connection: Any, message: bytes) -> Any:
        return self._wait(super().message(connection, message))

    def closed(self, connection: Any, closing: Closing) -> Any:
        super().closed(connection, closing)
        return self._wait(None)

    def answer(self, answer: Any = None) -> None:
        self.waiting.pop(0).callback(answer)


class Visitor(AllowAll):
    """An authorizer that knows everybody as John."""

    identity = Identity("the key", "john", ("staff",), "7")

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        request = PlainRequest(handshake.path_info, self.identity)
        return Admission(self.identity, tuple(rights), request)


class HooksTestCase(SynchronousTestCase):
    def use(
        self,
        hooks: Any = None,
        broker: MemoryBroker | None = None,
        authorizer: Any = None,
        **config: Any,
    ) -> None:
        self.clock = Clock()
        self.hooks = hooks or Noting()
        self.broker = broker or MemoryBroker()
        self.factory = make_memory_factory(
            ServerConfig(**config),
            broker=self.broker,
            authorizer=authorizer or AllowAll(),
            hooks=self.hooks,
            clock=self.clock,
        )

    def saying(self, message: Callable[..., Any]) -> Noting:
        """Hooks whose ``message`` this is."""
        hooks = Noting()
        hooks.message = message  # type: ignore[method-assign]
        return hooks

    def connect(self, flags: str = ALL) -> MemoryClient:
        return connect(self.factory, f"{URL}?{flags}")


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


class MessageTests(HooksTestCase):
    def test_a_message_is_published_as_the_hook_answers_it(self) -> None:
        answers: list[Any] = [b"a", "\u00e4", b"\xff", b""]
        self.use(self.saying(lambda connection, message: answers[int(message)]))
        client = self.connect()
        for i in range(4):
            client.send(str(i))
        self.assertEqual(client.messages, ["a", "\u00e4", b"\xff", ""])

    def test_none_publishes_nothing_and_the_client_goes_on(self) -> None:
        self.use(self.saying(lambda connection, message: message if message != b"no" else None))
        client = self.connect()
        for message in ("a", "no", "b"):
            client.send(message)
        self.assertEqual(client.messages, ["a", "b"])
        self.assertTrue(client.open)

    def test_an_answer_goes_to_this_client_alone(self) -> None:
        def answer(connection: Any, message: bytes) -> None:
            connection.send(b"you said " + message)

        self.use(self.saying(answer))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual((client.messages, other.messages), (["you said a"], []))

    def test_a_refused_message_closes_with_1008_and_says_why(self) -> None:
        def refuse(connection: Any, message: bytes) -> bytes:
            raise MessageRefused("\u00e4" * 100)

        self.use(self.saying(refuse))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1008)
        self.assertTrue(other.open)
        self.assertEqual(other.messages, [])
        client.lose_connection()
        self.assertEqual(self.hooks.closing.reason, "\u00e4" * 61)

    def test_what_a_refused_client_sent_besides_is_neither_asked_about_nor_published(self) -> None:
        asked = []

        async def refuse(connection: Any, message: bytes) -> bytes:
            asked.append(message)
            await waiting
            raise MessageRefused

        waiting: Deferred[None] = Deferred()
        self.use(self.saying(refuse))
        client, other = self.connect(), self.connect()
        client.send("a")
        client.send("b")
        waiting.callback(None)
        self.assertEqual((client.close_code, asked, other.messages), (1008, [b"a"], []))

    def test_an_exception_is_logged_closes_with_1011_and_harms_nobody_else(self) -> None:
        def fail(connection: Any, message: bytes) -> bytes:
            raise ZeroDivisionError

        self.use(self.saying(fail))
        client, other = self.connect(), self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.broker.publish([CHANNEL], b"still here", 0)
        self.assertEqual(other.messages, ["still here"])

    def test_so_does_an_answer_that_is_no_message(self) -> None:
        self.use(self.saying(lambda connection, message: {"text": "a"}))
        client = self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1011)
        (error,) = self.flushLoggedErrors(TypeError)
        self.assertIn("answered a dict", str(error.value))

    def test_hooks_that_wait_keep_the_order_and_are_asked_one_at_a_time(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        for message in ("a", "b", "c"):
            client.send(message)
        self.assertEqual(self.hooks.told, ["connected", b"a"])
        self.hooks.answer()
        self.assertEqual(client.messages, ["a"])
        self.hooks.answer("B")
        self.hooks.answer()
        self.assertEqual(client.messages, ["a", "B", "c"])

    def test_one_that_answers_at_once_does_not_overtake_one_that_waited(self) -> None:
        waiting: Deferred[bytes] = Deferred()
        self.use(self.saying(lambda connection, message: waiting if message == b"0" else message))
        client = self.connect()
        for i in range(60):
            client.send(str(i))
        waiting.callback(b"0")
        self.assertEqual(client.messages, [str(i) for i in range(60)])

    def test_the_next_hook_does_not_wait_for_redis(self) -> None:
        broker = SlowBroker("publish")
        self.use(broker=broker)
        client = self.connect()
        client.send("a")
        client.send("b")
        self.assertEqual(self.hooks.told, ["connected", b"a", b"b"])
        broker.answer("publish")

    def test_a_client_is_not_read_while_too_many_of_its_messages_wait(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        transport = client._server.transport
        for _ in range(MAX_UNACKNOWLEDGED):
            self.assertEqual(transport.producerState, "producing")
            client.send("a")
        self.assertEqual(transport.producerState, "paused")
        self.hooks.answer()
        self.assertEqual(transport.producerState, "producing")

    def test_one_that_is_not_read_is_not_taken_for_dead(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        client.answers_pings = False  # nobody would read the answer
        client.send_bytes(client_frame(1, b"a") * (MAX_UNACKNOWLEDGED + 20))
        for _ in range(20):
            self.clock.pump([0.1] * 30)
            self.hooks.answer()
        self.assertTrue(client.open)
        for _ in range(MAX_UNACKNOWLEDGED):
            self.hooks.answer()
        for _ in range(int(10 * (2 * PING_INTERVAL + PING_TIMEOUT))):
            if client.open:
                self.clock.advance(0.1)
        self.assertFalse(client.open)

    def test_one_that_does_not_read_and_is_gone_is_noticed_nevertheless(self) -> None:
        self.use()
        client = self.connect()
        client.answers_pings = False
        client._server.pauseProducing()
        for _ in range(int(10 * (2 * PING_INTERVAL + PING_TIMEOUT))):
            if client.open:
                self.clock.advance(0.1)
        self.assertFalse(client.open)

    def test_a_clients_close_is_answered_when_its_messages_were_published(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client.close(4000)
        self.assertIsNone(client.close_code)
        self.hooks.answer()
        self.assertEqual((client.close_code, other.messages), (4000, ["a"]))

    def test_what_the_end_overtakes_in_a_hook_is_not_published(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client.send("b")
        client.lose_connection()
        self.hooks.answer()
        self.assertEqual(other.messages, [])
        self.assertEqual(self.hooks.told[2:], [b"a", self.hooks.closing])

    def test_a_revoked_client_says_nothing_more(self) -> None:
        self.use(Patient())
        client, other = self.connect(), self.connect()
        self.hooks.answer()
        self.hooks.answer()
        client.send("a")
        client._server.session.revoke()
        self.hooks.answer()
        self.assertEqual(other.messages, [])

    def test_heartbeats_are_no_messages(self) -> None:
        self.use(heartbeat="--beat--")
        client = self.connect()
        client.send("--beat--")
        client.send("a")
        client.lose_connection()
        self.assertEqual(self.hooks.told[1], b"a")
        self.assertEqual(self.hooks.closing.received, 1)

    def test_a_publish_that_fails_closes_as_without_hooks(self) -> None:
        class Down(MemoryBroker):
            def publish(self, *arguments: Any) -> Any:
                raise BrokerUnavailable("gone")

        self.use(broker=Down())
        client = self.connect()
        client.send("a")
        self.assertEqual(client.close_code, 1013)


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

        for hooks, why in ((Some(), "without refused, message, closed"), (Noting, "a class")):
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


class ClosingTests(HooksTestCase):
    def closing(self, **expected: Any) -> None:
        closing = self.hooks.closing
        found = {name: getattr(closing, name) for name in expected}
        self.assertEqual(found, expected)

    def test_the_clients_code(self) -> None:
        self.use()
        self.connect().send_bytes(client_frame(8, (4001).to_bytes(2, "big") + b"bye"))
        self.closing(code=4001, reason="bye", by_server=False, clean=True)

    def test_no_code(self) -> None:
        self.use()
        self.connect().send_bytes(client_frame(8, b""))
        self.closing(code=1005, reason="", by_server=False, clean=True)

    def test_a_connection_that_was_lost(self) -> None:
        self.use()
        self.connect().lose_connection()
        self.closing(code=1006, by_server=False, clean=False)

    def test_the_clients_code_when_it_did_not_wait_for_the_answer(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        client.send("a")
        client.send_bytes(client_frame(8, (4001).to_bytes(2, "big") + b"bye"))
        client.lose_connection()
        self.hooks.answer()
        self.closing(code=4001, reason="bye", by_server=False, clean=False)

    def test_the_servers_code(self) -> None:
        self.use()
        client = self.connect()
        self.hooks.connections[0].close(4002, "enough")
        self.assertEqual(client.close_code, 4002)
        client.send_bytes(client_frame(8, (4002).to_bytes(2, "big")))
        self.closing(code=4002, reason="enough", by_server=True, clean=True)

    def test_a_subscribers_reason_that_is_too_long(self) -> None:
        self.use()
        client = self.connect()
        client._server.session.close(4000, "\u00e4" * 100)
        client.lose_connection()
        self.closing(code=4000, reason="\u00e4" * 61, by_server=True, clean=False)

    def test_what_is_no_message_is_a_type_error_and_not_so_many_zeros(self) -> None:
        self.use()
        client = self.connect()
        for message in (3, [1, 2], None):
            with self.assertRaises(TypeError):
                self.hooks.connections[0].send(message)
        self.assertEqual(client.messages, [])

    def test_a_code_that_must_not_be_on_the_wire_is_a_value_error(self) -> None:
        self.use()
        client = self.connect()
        for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000):
            with self.assertRaises(ValueError):
                self.hooks.connections[0].close(code)
        self.assertTrue(client.open)

    def test_sending_and_closing_after_the_end_do_nothing(self) -> None:
        self.use()
        client = self.connect()
        client.close()
        client.lose_connection()
        (connection,) = self.hooks.connections
        connection.send("late")
        connection.close()
        self.assertEqual(client.messages, [])

    def test_how_long_and_how_many(self) -> None:
        self.use()
        client = self.connect()
        self.broker.publish([CHANNEL], b"1", 0)
        self.hooks.connections[0].send("2")
        client.send("3")
        client.send("4")
        self.clock.advance(3)
        client.lose_connection()
        self.closing(sent=4, received=2, dropped=0, seconds=3)

    def test_messages_that_come_together_count_each(self) -> None:
        messages = Joined([Publication(CHANNEL, b"%d" % i) for i in range(3)])
        for codec in (PLAIN, DEFLATED):
            delivery = FedOutbox(
                Written(), self.fail, 1 << 20, CLOSE, codec=codec, kind=CountedFeed
            )
            delivery.deliver(messages)
            delivery.go_live()
            delivery.deliver(messages)
            self.assertEqual(delivery.feed.sent, 6)

    def test_heartbeats_and_own_messages_without_echo_count_as_nothing(self) -> None:
        self.use(heartbeat="--beat--")
        client = self.connect(BOTH)
        client.send("a")
        self.clock.pump([1] * 10)
        self.assertIn("--beat--", client.messages)
        client.lose_connection()
        self.closing(sent=0, received=1)

    def test_messages_that_waited_are_sent_when_they_are_and_those_that_gave_way_dropped(
        self,
    ) -> None:
        for compression in (False, True):
            self.use(slow_reader="latest", compression=compression)
            self.broker.publish([CHANNEL], b"persisted", 60)
            client = connect(
                self.factory,
                f"{URL}?{ALL}",
                headers={"Sec-WebSocket-Extensions": "permessage-deflate"} if compression else {},
            )
            client._server.pauseProducing()
            for i in range(10):
                self.broker.publish([CHANNEL], b"%d" % i * 100, 0)
            client._server.resumeProducing()
            client._server.pauseProducing()
            self.broker.publish([CHANNEL], b"never sent", 0)
            self.assertEqual(client.messages, ["persisted", "9" * 100])
            client.lose_connection()
            self.closing(sent=2, dropped=9)


class DrainTests(HooksTestCase):
    def test_a_drain_waits_for_the_hooks(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        client.lose_connection()
        self.assertNoResult(done)
        self.hooks.answer()
        self.successResultOf(done)
        self.assertEqual(self.hooks.closing.code, 1001)

    def test_unless_somebody_is_in_a_hurry(self) -> None:
        self.use(Patient())
        self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        self.factory.abort()
        self.successResultOf(done)
        self.hooks.answer()

    def test_also_where_a_connection_is_lost_later_than_it_is_aborted(self) -> None:
        self.use(Patient())
        client = self.connect()
        self.hooks.answer()
        self.patch(client._server.transport, "abortConnection", lambda: None)
        done = self.factory.drain(1001)
        self.factory.abort()
        self.assertNoResult(done)
        client.lose_connection()
        self.successResultOf(done)
        self.hooks.answer()

    def test_after_it_was_opened_up_again_nobody_is_in_a_hurry(self) -> None:
        self.use(Patient())
        self.factory.drain(1001)
        self.factory.abort()
        self.factory.open_up()
        client = self.connect()
        self.hooks.answer()
        done = self.factory.drain(1001)
        client.lose_connection()
        self.assertNoResult(done)
        self.hooks.answer()
        self.successResultOf(done)

    def test_without_websockets_it_waits_for_nothing(self) -> None:
        self.use(Patient())
        self.successResultOf(self.factory.drain(1001))


class PlainTests(HooksTestCase):
    def test_a_server_without_hooks_counts_nothing(self) -> None:
        client = connect(make_memory_factory(), "ws://localhost/ws/x?subscribe-broadcast")
        self.assertIs(type(client._server.session.feed), Feed)
