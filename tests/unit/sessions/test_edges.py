"""The edges of a session: whatever its parts do, it ends once and keeps nothing."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sessions.hooked import Noting
from ws4redis_tx.core.admission import ANONYMOUS, AnonymousAuthorizer
from ws4redis_tx.service import (
    Admission,
    Closing,
    Denied,
    Identity,
    PlainRequest,
    ServerConfig,
)
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

CHANNEL = b"broadcast:foobar"
URL = "ws://localhost/ws/foobar"
HEAR = "subscribe-broadcast"
BOTH = "subscribe-broadcast&publish-broadcast&echo"
TURNS = 100  # how many handshakes may ask the authorizer at the same time


def admission(handshake: Any, rights: Sequence[str], who: Identity = ANONYMOUS) -> Admission:
    return Admission(who, tuple(rights), PlainRequest(handshake.path_info, who))


class AllowAll:
    def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
        return admission(handshake, rights)


class Waiting:
    """Answers the first ``slow`` handshakes when the test says so, and later ones at once."""

    def __init__(self, slow: int = 10**6) -> None:
        self.slow = slow
        self.asked: list[Deferred[Any]] = []

    def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
        answer = admission(handshake, rights)
        if len(self.asked) >= self.slow:
            return answer
        waiting: Deferred[Any] = Deferred()
        self.asked.append(waiting)
        return waiting.addCallback(lambda _: answer)


class Cancellable:
    def __init__(self, cancelled: list[Any]) -> None:
        self.cancelled = cancelled

    def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
        return Deferred(self.cancelled.append)


class Listening(MemoryBroker):
    """A broker whose subscriptions stand when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.listening: list[Deferred[None]] = []

    def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
        answer = super().listen(channel, listener)
        if channel != CHANNEL:
            return answer
        waiting: Deferred[None] = Deferred()
        self.listening.append(waiting)
        return waiting.addCallback(lambda _: answer)


def _noting(written: list[bytes], write: Any) -> Any:
    def note(data: bytes) -> None:
        written.append(data)
        write(data)

    return note


class EdgeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def use(
        self,
        *,
        authorizer: Any = None,
        hooks: Any = None,
        subscriber: Any = None,
        broker: Any = None,
        **config: Any,
    ) -> None:
        self.broker = broker or MemoryBroker()
        self.factory = make_memory_factory(
            ServerConfig(**config),
            broker=self.broker,
            authorizer=AllowAll() if authorizer is None else authorizer,
            hooks=hooks,
            subscriber=subscriber,
            clock=self.clock,
        )

    def connect(self, flags: str = HEAR, **options: Any) -> MemoryClient:
        return connect(self.factory, f"{URL}?{flags}", **options)

    def publish(self, payload: bytes = b"x") -> None:
        self.broker.publish([CHANNEL], payload, 0)


class SubscriberTests(EdgeTestCase):
    def test_a_drain_ends_although_a_subscriber_could_not_be_made(self) -> None:
        def broken(connection: Any) -> Any:
            raise RuntimeError("no subscriber")

        self.use(subscriber=broken)
        self.assertEqual(self.connect().refused, 500)
        self.flushLoggedErrors()
        gone = self.factory.drain(1001)
        self.clock.pump([0.5] * 20)
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_subscriber_that_cannot_be_made_logs_one_error(self) -> None:
        def broken(connection: Any) -> Any:
            raise RuntimeError("no subscriber")

        self.use(subscriber=broken)
        self.connect()
        self.assertEqual([each.type for each in self.flushLoggedErrors()], [RuntimeError])

    def test_a_drain_ends_although_a_broker_failed_to_forget(self) -> None:
        class Broken(MemoryBroker):
            def forget(self, listener: Any) -> None:
                raise RuntimeError("forget")

        self.use(broker=Broken())
        with contextlib.suppress(RuntimeError):  # Twisted logs what connectionLost raises
            self.connect().lose_connection()
        self.flushLoggedErrors()
        gone = self.factory.drain(1001)
        self.clock.pump([0.5] * 20)
        self.successResultOf(gone)

    def test_a_drain_ends_although_a_websocket_could_not_be_accepted(self) -> None:
        self.use(hooks=Noting())
        client = MemoryClient(self.factory)

        def register(producer: Any, streaming: bool) -> None:
            raise RuntimeError("there is a producer already")

        client._server.transport.registerProducer = register
        request = [
            "GET /ws/foobar?subscribe-broadcast HTTP/1.1",
            "Host: localhost",
            "Origin: http://localhost",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ]
        client.send_bytes("\r\n".join([*request, "", ""]).encode())
        with contextlib.suppress(KeyError):  # Twisted logs what connectionLost raises
            client.lose_connection()
        self.flushLoggedErrors()
        gone = self.factory.drain(1001)
        self.clock.pump([0.5] * 20)
        self.successResultOf(gone)

    def test_a_coroutine_publishes_with_hooks_too(self) -> None:
        class Async(RedisSubscriber):
            async def publish_message(self, message: Any, expire: Any = None) -> Any:
                return await super().publish_message(message, expire)

        for hooks in (None, Noting()):
            self.use(hooks=hooks, subscriber=Async)
            client = self.connect(BOTH)
            client.send("hi")
            self.assertEqual(client.messages, ["hi"], hooks)

    def test_a_coroutine_that_fails_closes_with_hooks_too(self) -> None:
        class Async(RedisSubscriber):
            async def publish_message(self, message: Any, expire: Any = None) -> Any:
                raise RuntimeError("no")

        for hooks in (None, Noting()):
            self.use(hooks=hooks, subscriber=Async)
            client = self.connect(BOTH)
            client.send("hi")
            self.assertEqual(client.close_code, 1011, hooks)
            self.flushLoggedErrors(RuntimeError)

    def test_a_subscriber_may_keep_things_at_its_connection(self) -> None:
        class Tagging(RedisSubscriber):
            def __init__(self, connection: Any) -> None:
                super().__init__(connection)
                connection.tag = "mine"

        self.use(subscriber=Tagging)
        self.assertTrue(self.connect().open)

    def test_sys_exit_anywhere_before_the_answer_is_a_500(self) -> None:
        def leave(*_: Any, **__: Any) -> Any:
            raise SystemExit

        async def leave_later(*_: Any, **__: Any) -> Any:
            raise SystemExit

        def generator_exit(*_: Any, **__: Any) -> Any:
            raise GeneratorExit

        async def generator_exit_later(*_: Any, **__: Any) -> Any:
            raise GeneratorExit

        for call in (leave, leave_later, generator_exit, generator_exit_later):
            authorizer = AllowAll()
            authorizer.authorize = call  # type: ignore[method-assign]
            self.use(authorizer=authorizer)
            self.assertEqual(self.connect().refused, 500, call)
            self.flushLoggedErrors()
            self.successResultOf(self.factory.drain(1001))

            class Leaving(RedisSubscriber):
                set_pubsub_channels = call

            self.use(subscriber=Leaving)
            self.assertEqual(self.connect().refused, 500, call)
            self.flushLoggedErrors()
            self.successResultOf(self.factory.drain(1001))

    def test_sys_exit_in_an_open_websocket_closes_it_alone(self) -> None:
        def leave(*_: Any, **__: Any) -> Any:
            raise SystemExit

        class Publishing(RedisSubscriber):
            publish_message = leave

        class Replaying(RedisSubscriber):
            send_persisted_messages = leave

        class Releasing(RedisSubscriber):
            release = leave

        for subscriber in (Publishing, Replaying, Releasing):
            for hooks in (None, Noting()):
                self.use(subscriber=subscriber, hooks=hooks)
                client = self.connect(BOTH)
                if subscriber is Publishing:
                    client.send("hi")
                if subscriber is not Releasing:
                    self.assertEqual(client.close_code, 1011)
                client.lose_connection()
                self.flushLoggedErrors()
                self.successResultOf(self.factory.drain(1001))


class HandshakeTests(EdgeTestCase):
    def test_a_subscription_after_a_turn_that_was_waited_for_has_its_time(self) -> None:
        authorizer = Waiting(TURNS)
        self.use(authorizer=authorizer, broker=Listening())
        clients = [self.connect() for _ in range(TURNS)]
        late = self.connect()
        authorizer.asked[0].callback(None)
        clients[0].lose_connection()
        self.clock.advance(5.1)
        self.clock.advance(5.1)
        self.assertEqual(late.refused, 503)

    def test_handshakes_that_were_asked_about_first_open_first(self) -> None:
        authorizer = Waiting(TURNS)
        self.use(authorizer=authorizer, max_connections=1)
        first, *_ = [self.connect() for _ in range(TURNS)]
        later = self.connect()
        authorizer.asked[0].callback(None)
        self.assertEqual((first.open, later.refused), (True, 503))

    def test_nothing_is_subscribed_for_a_client_that_was_refused_meanwhile(self) -> None:
        made: list[Any] = []

        def make(connection: Any) -> Any:
            made.append(connection)
            return RedisSubscriber(connection)

        class Draining(AllowAll):
            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                drain(1001)
                return super().authorize(handshake, rights)

        def drain(code: int) -> None:
            self.factory.drain(code)

        self.use(authorizer=Draining(), subscriber=make)
        client = self.connect()
        self.assertEqual((client.refused, made), (503, []))

    def test_no_slot_and_no_quota_is_lost_whatever_ends_a_handshake(self) -> None:
        gc.collect()
        self.flushLoggedErrors()  # of the tests before, which show sessions that are kept
        authorizer = Waiting()
        self.use(
            authorizer=authorizer,
            max_authorizations=TURNS + 20,
            max_connections_per_address=TURNS + 20,
            recheck=0,
        )
        for turn in range(12):
            before = len(authorizer.asked)
            clients = [self.connect() for _ in range(TURNS + 20)]
            self.assertEqual([each.refused for each in clients], [None] * (TURNS + 20), turn)
            self.assertEqual(self.connect().refused, 503)
            for number, each in enumerate(authorizer.asked[before:]):
                kind = (number + turn) % 4
                if kind == 0:
                    each.callback(None)
                elif kind == 1:
                    each.errback(Denied(403, "no"))
                elif kind == 2:
                    clients[number].lose_connection()
            self.clock.advance(5.1)
            self.clock.advance(61)
            for client in clients:
                client.lose_connection()
            self.clock.advance(61)
        gone = self.factory.drain(1001)
        self.successResultOf(gone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_drain_fires_with_none(self) -> None:
        self.use()
        self.assertIsNone(self.successResultOf(self.factory.drain(1001)))
        self.use(hooks=Noting())
        self.assertIsNone(self.successResultOf(self.factory.drain(1001)))


class MakingTests(EdgeTestCase):
    def test_an_authorizer_that_is_empty_is_asked(self) -> None:
        class Tokens(dict):  # type: ignore[type-arg]
            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                raise Denied(403, "No such token.")

        self.use(authorizer=Tokens())
        self.assertEqual(self.connect().refused, 403)

    def test_hooks_that_are_empty_are_told(self) -> None:
        class Rooms(Noting):
            def __len__(self) -> int:
                return len(self.connections)

        hooks = Rooms()
        self.use(hooks=hooks)
        self.connect()
        self.assertEqual(len(hooks.connections), 1)

    def test_an_authorizer_put_into_the_factory_is_asked(self) -> None:
        class Nobody:
            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                raise Denied(403, "Nobody.")

        self.use()
        self.factory.authorizer = Nobody()  # type: ignore[attr-defined]
        self.assertEqual(self.connect().refused, 403)

    def test_an_authorizer_with_fixed_answers_is_asked_once(self) -> None:
        class Mine(AnonymousAuthorizer):
            asked = 0

            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                self.asked += 1
                return admission(handshake, rights)

        authorizer = Mine()
        self.use(authorizer=authorizer, recheck=10)
        client = self.connect()
        self.clock.pump([1] * 60)
        self.assertEqual((client.open, authorizer.asked), (True, 1))

    def test_an_authorizer_that_asks_the_anonymous_one_is_asked_again(self) -> None:
        class Guarding:
            banned = False

            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                if self.banned:
                    raise Denied(403, "Banned.")
                return AnonymousAuthorizer().authorize(handshake, rights)

        authorizer = Guarding()
        self.use(authorizer=authorizer, recheck=10)
        client = self.connect()
        authorizer.banned = True
        self.clock.pump([1] * 30)
        self.assertEqual(client.close_code, 1008)

    def test_hooks_are_given_the_identity_that_the_authorizer_gave(self) -> None:
        class Tenant(Identity):
            tenant = "acme"

        who = Tenant("key", "john", ("staff",), "7")

        class Knowing:
            def authorize(self, handshake: Any, rights: Sequence[str]) -> Any:
                return admission(handshake, rights, who)

        hooks = Noting()
        self.use(authorizer=Knowing(), hooks=hooks)
        self.connect()
        self.assertIs(hooks.connections[0].identity, who)


class ClosingTests(EdgeTestCase):
    """What the hook ``closed`` is told."""

    def test_messages_after_the_close_frame_were_not_sent(self) -> None:
        hooks = Noting()
        self.use(hooks=hooks)
        client = self.connect()
        self.publish()
        hooks.connections[0].close(4000)
        for _ in range(3):
            self.publish()
        client.lose_connection()
        self.assertEqual((len(client.messages), hooks.closing.sent), (1, 1))

    def test_the_message_that_was_too_much_was_not_sent(self) -> None:
        hooks = Noting()
        self.use(hooks=hooks, max_pending=1000)
        client = self.connect()
        self.publish()
        client._server.pauseProducing()
        while client.close_code is None:
            self.publish()
        self.assertEqual(client.close_code, 1013)
        client.lose_connection()
        self.assertEqual((len(client.messages), hooks.closing.sent), (1, 1))

    def test_sent_and_dropped_are_as_many_as_arrived_and_gave_way(self) -> None:
        for policy in ("drop_oldest", "latest"):
            hooks = Noting()
            self.use(hooks=hooks, max_pending=1000, slow_reader=policy)
            client = self.connect()
            self.publish()
            client._server.pauseProducing()
            for number in range(20):
                self.publish(b"%d" % number)
            client._server.resumeProducing()
            client.lose_connection()
            closing = hooks.closing
            self.assertEqual(closing.sent, len(client.messages), policy)
            self.assertEqual(closing.sent + closing.dropped, 21, policy)

    def test_what_still_waits_at_the_end_was_not_sent(self) -> None:
        hooks = Noting()
        self.use(hooks=hooks)
        client = self.connect()
        client._server.pauseProducing()
        self.publish()
        client.lose_connection()
        self.assertEqual(hooks.closing.sent, 0)


class OpenTests(EdgeTestCase):
    def test_release_is_called_once_and_no_byte_follows_a_close_frame(self) -> None:
        released: list[Any] = []

        class Counting(RedisSubscriber):
            def release(self) -> None:
                released.append(self)
                super().release()

        for ending in ("server", "client", "lost", "abort", "drain", "slow"):
            released.clear()
            hooks = Noting()
            self.use(subscriber=Counting, hooks=hooks, max_pending=500)
            client = self.connect(BOTH)
            written: list[bytes] = []
            client._server.transport.write = _noting(written, client._server.transport.write)
            if ending == "server":
                hooks.connections[0].close(4000)
            elif ending == "client":
                client.close()
            elif ending == "lost":
                client.lose_connection()
            elif ending == "abort":
                self.factory.abort()
            elif ending == "drain":
                self.factory.drain(1012)
            else:
                client._server.pauseProducing()
                for _ in range(9):
                    self.publish(b"y" * 100)
            for _ in range(3):
                self.publish()
            self.clock.pump([1] * 40)
            self.assertEqual(len(released), 1, ending)
            closes = [n for n, data in enumerate(written) if data[:1] == b"\x88"]
            self.assertEqual(closes, [len(written) - 1] if closes else [], ending)
            self.assertEqual(list(self.broker.hub.channels), [], ending)
            self.successResultOf(self.factory.drain(1001))
            self.assertEqual(self.clock.getDelayedCalls(), [], ending)

    def test_a_close_waits_two_seconds_for_acknowledgements(self) -> None:
        class Slow(MemoryBroker):
            def publish(self, *args: Any) -> Any:
                waiting.append(Deferred())
                return waiting[-1]

        for hooks in (None, Noting()):
            waiting: list[Deferred[int]] = []
            self.use(broker=Slow(), hooks=hooks)
            client = self.connect(BOTH)
            client.send("x")
            client.close(4001)
            client.send("y")
            self.clock.advance(1.9)
            self.assertIsNone(client.close_code)
            self.clock.advance(0.2)
            self.assertEqual((client.close_code, len(waiting)), (4001, 1))
            self.use(broker=Slow(), hooks=hooks)
            waiting.clear()
            client = self.connect(BOTH)
            client.send("x")
            client.close(4001)
            waiting[0].callback(1)
            self.assertEqual(client.close_code, 4001)

    def test_messages_of_many_kinds_arrive_in_order_compressed_or_not(self) -> None:
        for headers in ({}, {"Sec-WebSocket-Extensions": "permessage-deflate"}):
            self.use(compression=True)
            client = self.connect(headers=headers)
            sent = ["a", "b" * 5000, json.dumps(list(range(9000))), "c" * 70000, ""]
            self.broker.delay = 1
            for each in sent:
                self.publish(each.encode())
            self.clock.advance(1)
            self.broker.flush()
            self.assertEqual(client.messages, sent)
            client._server.pauseProducing()
            for each in sent:
                self.publish(each.encode())
            self.broker.flush()
            client._server.resumeProducing()
            self.assertEqual(client.messages, sent * 2)


class CancellationTests(EdgeTestCase):
    def test_a_lookup_is_cancelled_when_its_client_leaves_or_its_time_is_over(self) -> None:
        for leave in (True, False):
            cancelled: list[Any] = []
            self.use(authorizer=Cancellable(cancelled))
            client = self.connect()
            if leave:
                client.lose_connection()
            else:
                self.clock.advance(5.1)
                self.assertEqual(client.refused, 503)
            self.assertEqual(len(cancelled), 1)
            self.successResultOf(self.factory.drain(1001))

    def test_an_observer_that_settles_late_is_waited_for(self) -> None:
        waiting: list[Deferred[None]] = []

        class Late(Noting):
            def closed(self, connection: Any, closing: Closing) -> Any:
                waiting.append(Deferred())
                return waiting[-1]

        self.use(hooks=Late())
        self.connect().lose_connection()
        gone = self.factory.drain(1001)
        self.assertNoResult(gone)
        waiting[0].callback(None)
        self.successResultOf(gone)
        self.use(hooks=Late())
        self.connect()
        gone = self.factory.drain(1001)
        self.factory.abort()
        self.successResultOf(gone)
        self.factory.open_up()
        self.assertTrue(self.connect().open)
        gone = self.factory.drain(1001)
        self.clock.pump([0.5] * 10)
        self.assertNoResult(gone)
        self.assertEqual(len(waiting), 3)
