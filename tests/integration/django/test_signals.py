"""Django's signals about websockets: sent in a thread, in order, and never blocking anyone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import open_websocket
from tests.support.django import cookies_of, log_in, set_up_django
from tests.support.memory import AllowAll
from tests.support.servers import LISTEN, ServerTestCase
from ws4redis_tx.core.interfaces import Closing
from ws4redis_tx.service import ConfigError, ServerConfig, make_service
from ws4redis_tx.testing import connect, connect_centrifuge, make_memory_factory

set_up_django()

from django.contrib.auth.models import User
from django.db import connection as database
from django.test import override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.django import signal_hooks
from ws4redis_tx.django.databases import tidy
from ws4redis_tx.django.signal_hooks import STOP_WAIT, SignalHooks
from ws4redis_tx.policies import allow_all
from ws4redis_tx.signals import (
    client_connected,
    client_disconnected,
    client_subscribed,
    client_unsubscribed,
    message_received,
)

CLOSING = Closing(1000, "", False, True, 0, 0, 0, 1.0)


@dataclass(frozen=True)
class Somebody:
    """Stands in for a connection."""

    name: str


class Slow(Clock):
    """A clock that the test moves, beside the reactor's threads."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("callFromThread", "addSystemEventTrigger", "removeSystemEventTrigger"):
            setattr(self, name, getattr(reactor, name))


class SignalsTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.received: DeferredQueue[Any] = DeferredQueue()
        self.said: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)

    def _observe(self, event: Any) -> None:
        if event["log_level"] is LogLevel.warn:
            self.said.append(event["log_format"].format(**event))

    def serve(self, clock: Any = None) -> None:
        self.hooks = SignalHooks(clock or reactor)
        self.addCleanup(self.hooks.stop)

    def receive(self, signal: Any, receiver: Callable[..., Any]) -> None:
        """Connect ``receiver``; ``next`` returns the values that it returns in its thread."""

        def received(**values: Any) -> None:
            answer = receiver(**values)
            reactor.callFromThread(self.received.put, answer)

        self.connect(signal, received)

    def connect(self, signal: Any, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver, weak=False)
        self.addCleanup(signal.disconnect, receiver)

    def next(self) -> Deferred[Any]:
        return self.received.get().addTimeout(TIMEOUT, reactor)

    def blocked(self) -> threading.Event:
        """An event for which receivers of ``client_connected`` wait."""
        go, arrived = threading.Event(), threading.Event()
        self.addCleanup(go.set)

        def wait(**values: Any) -> None:
            arrived.set()
            go.wait()

        self.connect(client_connected, wait)
        self.hooks.connected(Somebody("slow"))
        arrived.wait()
        return go


class SendingTests(SignalsTestCase):
    @inlineCallbacks
    def test_events_arrive_in_their_order_in_one_thread_that_is_not_the_reactors(self) -> Any:
        self.serve()
        threads = set()

        def note(signal: Any, **values: Any) -> Any:
            threads.add(threading.current_thread())
            return values["connection"].name, values.get("message"), values.get("closing")

        for signal in (client_connected, message_received, client_disconnected):
            self.receive(signal, note)
        john, mary = Somebody("john"), Somebody("mary")
        self.hooks.connected(john)
        self.hooks.connected(mary)
        self.assertEqual(self.hooks.message(john, b"1"), b"1")
        self.hooks.message(mary, b"2")
        self.hooks.closed(john, CLOSING)
        came = []
        for _ in range(5):
            came.append((yield self.next()))
        self.assertEqual(
            came,
            [
                ("john", None, None),
                ("mary", None, None),
                ("john", b"1", None),
                ("mary", b"2", None),
                ("john", None, CLOSING),
            ],
        )
        (thread,) = threads
        self.assertIsNot(thread, threading.current_thread())

    @inlineCallbacks
    def test_subscriptions_come_in_order_with_the_others(self) -> Any:
        self.serve()

        def note(signal: Any, **values: Any) -> Any:
            return signal, values["connection"].name, values.get("channel")

        signals = client_connected, client_subscribed, client_unsubscribed, client_disconnected
        for signal in signals:
            self.receive(signal, note)
        john = Somebody("john")
        self.hooks.connected(john)
        self.hooks.subscribed(john, "broadcast:a")
        self.hooks.unsubscribed(john, "broadcast:a")
        self.hooks.closed(john, CLOSING)
        for signal, channel in zip(
            signals, (None, "broadcast:a", "broadcast:a", None), strict=True
        ):
            self.assertEqual((yield self.next()), (signal, "john", channel))

    @inlineCallbacks
    def test_who_receives_subscriptions_alone_is_told_of_them(self) -> Any:
        hooks = SignalHooks(reactor)
        self.addCleanup(hooks.stop)
        self.assertTrue(hooks.idle)
        self.receive(client_subscribed, lambda **values: values["channel"])
        self.assertFalse(hooks.idle)
        factory = make_memory_factory(
            ServerConfig(centrifuge_url="/connection/"), authorizer=AllowAll(), hooks=hooks
        )
        client = connect_centrifuge(factory)
        client.subscribe("broadcast:a")
        self.assertEqual((yield self.next()), "broadcast:a")

    @inlineCallbacks
    def test_a_receiver_has_the_database_and_leaves_no_connection_open(self) -> Any:
        self.serve()

        def noting(ending: bool) -> None:
            tidy(ending)
            reactor.callFromThread(self.received.put, database.connection)

        def look(**values: Any) -> Any:
            return User.objects.filter(username="john").count(), database.connection is None

        self.patch(signal_hooks, "tidy", noting)
        self.receive(client_connected, look)
        for _ in range(2):
            self.hooks.connected(Somebody("john"))
            for expected in (None, (1, False), None):
                self.assertEqual((yield self.next()), expected)

    @inlineCallbacks
    def test_a_transaction_that_a_receiver_leaves_open_is_nobody_elses(self) -> Any:
        self.serve()

        def leave_open(connection: Any, **values: Any) -> bool:
            clean: bool = database.get_autocommit()
            database.set_autocommit(False)
            return clean

        self.receive(client_connected, leave_open)
        for _ in range(3):
            self.hooks.connected(Somebody("john"))
        for _ in range(3):
            self.assertTrue((yield self.next()))

    @inlineCallbacks
    def test_a_receiver_that_raises_harms_no_other(self) -> Any:
        self.serve()

        def fail(**values: Any) -> None:
            raise ZeroDivisionError

        self.connect(client_connected, fail)
        self.receive(client_connected, lambda connection, **values: connection.name)
        for name in ("john", "mary"):
            with self.assertLogs("django.dispatch", "ERROR"):
                self.hooks.connected(Somebody(name))
                self.assertEqual((yield self.next()), name)

    @inlineCallbacks
    def test_nor_does_one_that_exits(self) -> Any:
        self.serve()
        self.receive(client_disconnected, lambda **values: "gone")
        self.connect(client_connected, lambda **values: exit(1))
        self.hooks.connected(Somebody("john"))
        self.hooks.closed(Somebody("john"), CLOSING)
        self.assertEqual((yield self.next()), "gone")
        yield self.hooks.stop()
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    @inlineCallbacks
    def test_a_receiver_may_be_async(self) -> Any:
        self.serve()

        async def receive(connection: Any, **values: Any) -> None:
            reactor.callFromThread(self.received.put, connection.name)

        self.connect(client_connected, receive)
        self.hooks.connected(Somebody("john"))
        self.assertEqual((yield self.next()), "john")

    def test_without_receivers_nothing_is_queued(self) -> None:
        self.serve()
        self.connect(client_connected, lambda **values: None)
        self.assertFalse(self.hooks.idle)
        self.assertEqual(self.hooks.message(Somebody("john"), b"1"), b"1")
        self.hooks.closed(Somebody("john"), CLOSING)
        self.assertIsNone(self.hooks._events)

    def test_whether_anybody_listens_is_seen_at_once(self) -> None:
        self.serve()
        self.assertTrue(self.hooks.idle)
        for signal in (client_connected, message_received, client_disconnected):
            receiver = signal.connect(_ignore) or _ignore
            self.assertFalse(self.hooks.idle)
            signal.disconnect(receiver)
            self.assertTrue(self.hooks.idle)


class SlowTests(SignalsTestCase):
    @inlineCallbacks
    def test_what_waits_is_bounded_and_what_is_dropped_is_said(self) -> Any:
        self.patch(signal_hooks, "MOST_EVENTS", 10)
        self.patch(signal_hooks, "MOST_MESSAGES", 5)
        self.serve()
        go = self.blocked()
        self.receive(message_received, lambda message, **values: message)
        self.receive(client_disconnected, lambda **values: "gone")
        for i in range(20):
            self.hooks.message(Somebody("john"), b"%d" % i)
        for _ in range(20):
            self.hooks.closed(Somebody("john"), CLOSING)
        self.assertEqual(len(self.said), 1)
        self.assertIn("are too slow: 5 events wait", self.said[0])
        go.set()
        came = []
        for _ in range(9):
            came.append((yield self.next()))
        self.assertEqual(came, [b"0", b"1", b"2", b"3", *["gone"] * 5])
        yield self.hooks.stop()
        self.assertEqual(self.said[1:], ["31 websocket signals were not sent"])
        self.assertEqual(self.received.pending, [])

    @inlineCallbacks
    def test_so_are_the_bytes_of_messages_though_one_always_has_room(self) -> Any:
        self.patch(signal_hooks, "MOST_BYTES", 10)
        self.serve()
        go = self.blocked()
        self.receive(message_received, lambda message, **values: message)
        for message in (b"x" * 100, b"y", b""):
            self.hooks.message(Somebody("john"), message)
        go.set()
        self.assertEqual((yield self.next()), b"x" * 100)
        self.assertEqual((yield self.next()), b"")
        yield self.hooks.stop()
        self.assertEqual(self.said[1:], ["1 websocket signals were not sent"])

    @inlineCallbacks
    def test_a_stop_waits_for_what_waits(self) -> Any:
        self.serve()
        go = self.blocked()
        self.receive(client_disconnected, lambda **values: "gone")
        self.hooks.closed(Somebody("john"), CLOSING)
        stopped = self.hooks.stop()
        self.assertNoResult(stopped)
        go.set()
        yield stopped
        self.assertEqual(len(self.received.pending), 1)

    @inlineCallbacks
    def test_but_not_for_ever(self) -> Any:
        clock = Slow()
        self.serve(clock)
        go = self.blocked()
        self.receive(client_disconnected, lambda **values: "gone")
        self.hooks.closed(Somebody("john"), CLOSING)
        stopped = self.hooks.stop()
        clock.advance(STOP_WAIT)
        yield stopped
        self.assertEqual(self.said, ["2 websocket signals were not sent"])
        go.set()

    @inlineCallbacks
    def test_after_a_stop_it_may_be_used_again(self) -> Any:
        self.serve()
        self.receive(client_connected, lambda connection, **values: connection.name)
        for name in ("john", "mary"):
            self.hooks.connected(Somebody(name))
            self.assertEqual((yield self.next()), name)
            yield self.hooks.stop()


class InMemoryTests(SignalsTestCase):
    def test_a_server_in_memory_sends_none(self) -> None:
        self.receive(message_received, lambda connection, message, **values: message)
        factory = make_memory_factory(ServerConfig(django=True), authorizer=AllowAll())
        client = connect(factory, "ws://localhost/ws/foobar?publish-broadcast&echo")
        client.send("a")
        self.assertTrue(client.open)
        self.assertEqual(client._server.session.observers, ())

    def test_nor_does_it_know_djangos_visitors_and_says_so(self) -> None:
        error = self.assertRaises(ConfigError, make_memory_factory, ServerConfig(django=True))
        self.assertIn("LiveServer", str(error))


class ServedTests(SignalsTestCase, ServerTestCase):
    """Real clients and real receivers, in both directions."""

    def setUp(self) -> None:
        ServerTestCase.setUp(self)
        SignalsTestCase.setUp(self)
        override = override_settings(
            WS4REDIS_CONNECTION=str(self.redis.address), WS4REDIS_ALLOWED_CHANNELS=allow_all
        )
        override.enable()
        self.addCleanup(override.disable)

    @inlineCallbacks
    def start(self) -> Any:
        service = make_service(django_settings.server_config(listen=LISTEN))
        self.launch(service)
        yield service.when_ready()
        return service

    @inlineCallbacks
    def test_receivers_know_who_it_is_and_may_answer(self) -> Any:
        def greet(connection: Any, **values: Any) -> Any:
            user = User.objects.get(pk=connection.identity.user_id)
            connection.send(f"hello {user.username}")
            return connection

        def answer(connection: Any, message: bytes, **values: Any) -> Any:
            connection.close(4000, message.decode())
            return connection

        self.receive(client_connected, greet)
        self.receive(message_received, answer)
        self.receive(client_disconnected, lambda connection, closing, **values: closing)
        yield self.start()
        john = cookies_of((yield log_in("john")))
        client = yield open_websocket(self.url + "foobar?publish-broadcast", cookies=john)
        self.assertEqual((yield client.next()), "hello john")
        connection = yield self.next()
        self.assertEqual(connection.facility, "foobar")
        client.sendMessage(b"bye")
        self.assertEqual((yield client.closed), 4000)
        self.assertIs((yield self.next()), connection)
        closing = yield self.next()
        self.assertEqual((closing.code, closing.reason), (4000, "bye"))
        self.assertEqual((closing.sent, closing.received, closing.by_server), (1, 1, True))

    @inlineCallbacks
    def test_those_that_the_stop_closes_are_told_of_before_it_is_over(self) -> Any:
        self.receive(client_disconnected, lambda connection, closing, **values: closing.code)
        service = make_service(django_settings.server_config(listen=LISTEN))
        service.startService()
        port = service.ports[0].getHost().port
        yield service.when_ready()
        client = yield open_websocket(f"ws://127.0.0.1:{port}/ws/foobar")
        yield service.stopService()
        self.assertEqual(self.received.pending, [1001])
        yield client.closed

    @inlineCallbacks
    def test_without_receivers_websockets_are_plain(self) -> Any:
        service = yield self.start()
        (observer,) = service.factory.session_server.observers
        self.assertTrue(observer.idle)


def _ignore(**values: Any) -> None:
    pass
