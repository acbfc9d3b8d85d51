"""The contract, section 4: ``RedisSubscriber``."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.django import set_up_django
from tests.support.memory import WebSocketTests
from tests.support.servers import later
from tests.support.sites import ContractTestCase
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryClient

set_up_django()


from ws4redis_tx.policies import allow_all
from ws4redis_tx.publisher import SELF, RedisMessage


class Filtering(RedisSubscriber):
    """Publishes in upper case, and drops rude messages."""

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Any:
        if b"rude" in message:
            return None
        return super().publish_message(RedisMessage(message.upper()), expire)


class WithServerAudience(RedisSubscriber):
    """Adds an audience: everybody may hear the server's own messages, and may answer them."""

    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]
    verb = ""
    asked: Any = ()

    def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
        self.asked = channels
        self.verb = "publish"
        return super().set_pubsub_channels(request, channels)

    def _get_message_channels(
        self, request: Any = None, facility: str = "", **audience: Any
    ) -> Any:
        names = super()._get_message_channels(request=request, facility=facility, **audience)
        if f"{self.verb}-server" in self.asked:
            names.append(f"{self.get_prefix()}server:{facility}")
        self.verb = "subscribe"
        return names


class InTheOldWay(RedisSubscriber):
    """Overrides all of ``set_pubsub_channels``, as code for the old package does."""

    def set_pubsub_channels(self, request: Any, channels: Any) -> None:
        facility = request.path_info.replace("/ws/", "", 1)
        audience = {"broadcast": "publish-broadcast" in channels}
        self._publishers = set()
        for key in self._get_message_channels(request=request, facility=facility, **audience):
            self._publishers.add(key)
        audience = {"users": [SELF] if "subscribe-user" in channels else [], "broadcast": True}
        self._subscription = self._connection.pubsub()
        for key in self._get_message_channels(request=request, facility=facility, **audience):
            self._subscription.subscribe(key)


class Deferring(RedisSubscriber):
    """Each of its methods returns a Deferred that fires later."""

    calls: list[str] = []

    def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
        self.calls.append("set_pubsub_channels")
        base = super()
        return later().addCallback(lambda _: base.set_pubsub_channels(request, channels))

    def send_persisted_messages(self, websocket: Any) -> Any:
        self.calls.append("send_persisted_messages")
        websocket.send("welcome")
        base = super()
        return later().addCallback(lambda _: base.send_persisted_messages(websocket))

    def publish_message(self, message: RedisMessage, expire: int | None = None) -> Any:
        self.calls.append("publish_message")
        base = super()
        return later().addCallback(lambda _: base.publish_message(message, expire))

    def release(self) -> Any:
        self.calls.append("release")
        return later().addCallback(lambda _: super(Deferring, self).release())


class SubscriberTests(ContractTestCase):
    """4. Python API: ws4redis_tx.subscriber.RedisSubscriber, replaceable"""

    @inlineCallbacks
    def serve(self, subscriber: Any = None, **settings: Any) -> Any:
        if subscriber is not None:
            settings["WS4REDIS_SUBSCRIBER"] = subscriber
        yield super().serve(WS4REDIS_ALLOWED_CHANNELS=allow_all, **settings)

    @inlineCallbacks
    def test_the_setting_names_the_class_that_is_used(self) -> Any:
        yield self.serve(f"{__name__}.Filtering")
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        for message in (b"hi", b"rude words", b"bye"):
            client.sendMessage(message)
        self.assertEqual((yield client.take(2)), ["HI", "BYE"])

    @inlineCallbacks
    def test_an_audience_added_by_get_message_channels_and_the_class_lists(self) -> Any:
        yield self.serve(WithServerAudience, WS4REDIS_PREFIX="site")
        hearing = yield self.open("foobar?subscribe-server")
        speaking = yield self.open("foobar?publish-server&nonsense")
        self.assertEqual(self.channels(), {"site:server:foobar"})
        self.redis.command("PUBLISH", "site:server:foobar", "1")
        speaking.sendMessage(b"2")
        self.assertEqual((yield hearing.take(2)), ["1", "2"])

    @inlineCallbacks
    def test_set_pubsub_channels_overridden_whole_as_old_code_does(self) -> Any:
        yield self.serve(InTheOldWay)
        john = yield self.log_in("john")
        client = yield self.open("foobar?subscribe-user&publish-broadcast&echo", cookies=john)
        self.assertEqual(self.channels(), {"user:john:foobar", "broadcast:foobar"})
        client.sendMessage(b"to all")
        self.redis.command("PUBLISH", "user:john:foobar", "to john")
        self.assertEqual(sorted((yield client.take(2))), ["to all", "to john"])

    @inlineCallbacks
    def test_each_method_may_return_a_deferred(self) -> Any:
        Deferring.calls = []
        yield self.serve(Deferring)
        self.redis.command("SETEX", "broadcast:foobar", 60, "persisted")
        client = yield self.open("foobar?subscribe-broadcast&publish-broadcast&echo")
        self.assertEqual(self.redis.command("PUBLISH", "broadcast:foobar", "live"), 1)
        self.assertEqual((yield client.take(3)), ["welcome", "persisted", "live"])
        client.sendMessage(b"mine")
        client.sendClose(1000)
        yield client.closed
        self.assertEqual(self.redis.command("GET", "broadcast:foobar"), b"mine")
        while self.channels():
            yield self.broker.fence()
        self.assertEqual(
            Deferring.calls,
            ["set_pubsub_channels", "send_persisted_messages", "publish_message", "release"],
        )

    @inlineCallbacks
    def test_send_persisted_messages_under_either_name_is_right_after_open(self) -> Any:
        class New(RedisSubscriber):
            def send_persisted_messages(self, websocket: Any) -> Any:
                websocket.send("new")
                return super().send_persisted_messages(websocket)

        class Old(RedisSubscriber):
            def send_persited_messages(self, websocket: Any) -> Any:
                websocket.send("old")
                return super().send_persited_messages(websocket)

        for subscriber, expected in ((New, "new"), (Old, "old")):
            yield self.serve(subscriber)
            self.redis.command("SETEX", "broadcast:foobar", 60, "persisted")
            client = yield self.open("foobar?subscribe-broadcast")
            self.assertEqual((yield client.take(2)), [expected, "persisted"])

    @inlineCallbacks
    def test_parse_response_fires_with_the_next_message_on_a_subscribed_channel(self) -> Any:
        made: list[RedisSubscriber] = []

        class Pulling(RedisSubscriber):
            def __init__(self, connection: Any) -> None:
                super().__init__(connection)
                made.append(self)

        yield self.serve(Pulling)
        client = yield self.open("foobar?subscribe-broadcast")
        pulled = made[0].parse_response()
        self.redis.command("PUBLISH", "broadcast:foobar", "hi")
        self.assertEqual((yield pulled), b"hi")
        self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_get_file_descriptor_is_that_of_the_redis_connection_it_listens_on(self) -> Any:
        made: list[RedisSubscriber] = []

        class Noting(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                made.append(self)
                return super().set_pubsub_channels(request, channels)

        yield self.serve(Noting)
        yield self.open("foobar?subscribe-broadcast")
        with socket.socket(fileno=os.dup(made[0].get_file_descriptor())) as copy:
            self.assertEqual(copy.getpeername(), ("127.0.0.1", self.redis.port))
            clients = self.redis.command("CLIENT", "LIST", "TYPE", "pubsub").decode()
            self.assertIn(f"addr=127.0.0.1:{copy.getsockname()[1]} ", clients)

    @inlineCallbacks
    def test_publish_message_is_called_for_each_client_message_with_a_redis_message(self) -> Any:
        seen: list[Any] = []

        class Noting(RedisSubscriber):
            def publish_message(self, message: Any, expire: int | None = None) -> Any:
                seen.append((type(message), bytes(message), expire))
                return super().publish_message(message, 5)

        yield self.serve(Noting)
        client = yield self.open("foobar?publish-broadcast")
        client.sendMessage("grüße".encode())
        client.sendMessage(b"\xff", isBinary=True)
        client.sendClose(1000)
        yield client.closed
        self.assertEqual(
            seen, [(RedisMessage, "grüße".encode(), None), (RedisMessage, b"\xff", None)]
        )
        self.assertTrue(0 < self.redis.command("TTL", "broadcast:foobar") <= 5)


class ReleaseTests(WebSocketTests):
    """4. Python API: release() is called exactly once, for whatever reason"""

    def test_whatever_ended_the_websocket_it_is_released_once_and_nothing_stays_subscribed(
        self,
    ) -> None:
        def refused(client: MemoryClient) -> None:
            client.send_bytes(b"\x81\xfe\x00")
            client.send_bytes(b"\xff" * 200)

        def server_closes(client: MemoryClient) -> None:
            client._server.session.close(1008)

        ends: tuple[Any, ...] = (
            MemoryClient.close,
            MemoryClient.lose_connection,
            refused,
            server_closes,
            lambda client: self.factory.drain(1001),
        )
        for end in ends:
            self.setUp()
            client = self.connect()
            self.assertTrue(client.open)
            end(client)
            self.clock.advance(10)
            client.lose_connection()
            self.clock.advance(10)
            self.assert_nothing_left()

    def test_also_when_the_handshake_is_refused_after_it_subscribed(self) -> None:
        class Undecided(RedisSubscriber):
            released: list[Any] = []

            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                super().set_pubsub_channels(request, channels)
                raise RuntimeError("deliberate")

            def release(self) -> None:
                self.released.append(self)
                super().release()

        self.use(subscriber=Undecided)
        self.assertEqual(self.connect().refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(Undecided.released), 1)
        self.assertEqual(list(self.broker.hub.channels), [])
