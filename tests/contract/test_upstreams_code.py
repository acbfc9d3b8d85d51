"""What upstream's users wrote, in callbacks and subscribers: it works, or says what to do."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed

from tests.support.django import set_up_django
from tests.support.memory import URL, AllowAll, WebSocketTests
from tests.support.sites import ContractTestCase, recheck_all
from ws4redis_tx.service import NullHooks
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import capture_messages, connect, make_memory_factory

set_up_django()

from importlib import import_module

from django.conf import settings
from django.contrib.auth import get_user
from django.core.exceptions import PermissionDenied
from django.utils.functional import SimpleLazyObject

from ws4redis_tx.publisher import RedisPublisher


class Refused(PermissionDenied):
    """A subclass refuses too."""


def as_upstream_does(request: Any) -> None:
    """Upstream's own lookup, which it shows as the example to copy."""
    request.session = None
    request.user = None
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, None)
    if session_key is not None:
        engine = import_module(settings.SESSION_ENGINE)
        request.session = engine.SessionStore(session_key)
        request.user = SimpleLazyObject(lambda: get_user(request))


class ProcessRequestTests(ContractTestCase):
    """3. Settings: WS4REDIS_PROCESS_REQUEST"""

    @inlineCallbacks
    def test_what_it_leaves_none_is_no_session_and_nobody(self) -> Any:
        seen: list[Any] = []

        def leave_none(request: Any) -> None:
            request.session = request.user = None

        def leave_user_none(request: Any) -> None:
            request.user = None

        def allowed(request: Any, channels: Any) -> Any:
            seen.append((request.user.is_authenticated, request.session.session_key))
            return channels

        for process in (leave_none, leave_user_none, as_upstream_does):
            yield self.serve(WS4REDIS_PROCESS_REQUEST=process, WS4REDIS_ALLOWED_CHANNELS=allowed)
            yield self.open("foobar?subscribe-broadcast")
            for right, expected in (
                ("subscribe-user", 401), ("subscribe-group", 401), ("subscribe-session", 403),
            ):  # fmt: skip
                status, _ = yield self.refusal(f"/ws/foobar?{right}")
                self.assertEqual(status, expected, right)
        self.assertEqual(set(seen), {(False, None)})

    @inlineCallbacks
    def test_upstreams_own_lookup_finds_who_is_logged_in(self) -> Any:
        yield self.serve(WS4REDIS_PROCESS_REQUEST=as_upstream_does)
        john = yield self.log_in("john")
        yield self.open("foobar?subscribe-user&subscribe-session&subscribe-group", cookies=john)
        self.assertEqual(
            self.channels(),
            {"user:john:foobar", f"session:{john['sessionid']}:foobar", "group:chatters:foobar"},
        )

    @inlineCallbacks
    def test_permission_denied_is_403_and_its_text_stays_here(self) -> Any:
        for error in (PermissionDenied, Refused):

            def refuse(request: Any, error: Any = error) -> None:
                raise error("a secret reason")

            yield self.serve(WS4REDIS_PROCESS_REQUEST=refuse)
            lines = self.log_lines()
            status, answer = yield self.refusal()
            self.assertEqual(status, 403)
            self.assertNotIn(b"secret", answer)
            (line,) = [line for line in lines if "403" in line]
            self.assertIn("WS4REDIS_PROCESS_REQUEST raised PermissionDenied", line)

    @inlineCallbacks
    def test_that_of_a_subscriber_stays_here_too(self) -> Any:
        class Denying(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                raise PermissionDenied("a secret reason")

        yield self.serve(WS4REDIS_SUBSCRIBER=Denying)
        lines = self.log_lines()
        status, answer = yield self.refusal()
        self.assertEqual(status, 403)
        self.assertNotIn(b"secret", answer)
        (line,) = [line for line in lines if "403" in line]
        self.assertIn("raised PermissionDenied", line)

    @inlineCallbacks
    def test_a_generator_that_raises_it_refuses_as_well(self) -> Any:
        def allowed(request: Any, channels: Any) -> Any:
            yield from channels
            raise PermissionDenied

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allowed)
        status, _ = yield self.refusal()
        self.assertEqual(status, 403)

    @inlineCallbacks
    def test_a_recheck_that_it_refuses_closes_the_websocket(self) -> Any:
        allowed = [True]

        def process(request: Any) -> None:
            if not allowed[0]:
                raise PermissionDenied

        service = yield self.serve(WS4REDIS_PROCESS_REQUEST=process)
        client = yield self.open("foobar?subscribe-broadcast")
        allowed.clear()
        allowed.append(False)
        recheck_all(service)
        self.assertEqual((yield client.closed), 1008)


class DeniedBySubscriberTests(WebSocketTests):
    """2. Websocket: PermissionDenied from a subscriber's methods before the 101"""

    def subscriber(self, method: str, answer: Any) -> type[RedisSubscriber]:
        """A subscriber with a method that subscribes first, where it can, and then refuses."""

        def refuse(subscriber: Any, *args: Any, **kwargs: Any) -> Any:
            return answer(getattr(RedisSubscriber, method)(subscriber, *args, **kwargs))

        return type("Denying", (RedisSubscriber,), {method: refuse})

    def test_it_is_403_whichever_method_raises_it_and_leaves_nothing_subscribed(self) -> None:
        def raise_it(_: Any) -> Any:
            raise Refused("a secret reason")

        def fail_with_it(_: Any) -> Any:
            return fail(PermissionDenied("a secret reason"))

        for method, answer in (
            ("__init__", raise_it),
            ("set_pubsub_channels", raise_it),
            ("set_pubsub_channels", fail_with_it),
            ("_get_message_channels", raise_it),
            ("get_prefix", raise_it),
        ):
            self.use(subscriber=self.subscriber(method, answer))
            client = self.connect()
            self.assertEqual(client.refused, 403, method)
            self.assertEqual(list(self.broker.hub.channels), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_an_authorizer_of_ones_own_may_raise_it_too(self) -> None:
        class Denying(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                raise PermissionDenied

        self.use(authorizer=Denying())
        self.assertEqual(self.connect().refused, 403)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_another_exception_of_that_name_is_a_500(self) -> None:
        class PermissionDenied(Exception):
            pass

        def raise_it(_: Any) -> Any:
            raise PermissionDenied

        self.use(subscriber=self.subscriber("set_pubsub_channels", raise_it))
        self.assertEqual(self.connect().refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(PermissionDenied)), 1)


class SubscriberCodeTests(WebSocketTests):
    """4. Python API: code that took ``_connection`` for a client of redis-py"""

    def assert_told(self, kind: type[Exception], *words: str) -> None:
        (failure,) = self.flushLoggedErrors()
        self.assertIsInstance(failure.value, kind)
        for word in words:
            self.assertIn(word, str(failure.value))

    def test_publish_to_one_channel_with_two_arguments_is_told_to_name_a_list(self) -> None:
        class Old(RedisSubscriber):
            arguments: tuple[Any, ...] = ()

            def publish_message(self, message: Any, expire: Any = None) -> Any:
                return self._connection.publish(*self.arguments)

        for Old.arguments in (
            ("broadcast:foobar", "hi"), ("broadcast:foobar", "hi", 60), (b"broadcast:foobar", "hi"),
            (["broadcast:foobar"], "hi"),
        ):  # fmt: skip
            self.use(subscriber=Old)
            client = self.connect("publish-broadcast")
            client.send("hi")
            self.assertEqual(client.close_code, 1011)
            self.assert_told(TypeError, "publish([channel], message, expire)")

    def test_publish_takes_text_and_an_expiry_below_zero_persists_nothing(self) -> None:
        class New(RedisSubscriber):
            def publish_message(self, message: Any, expire: Any = None) -> Any:
                return self._connection.publish(["broadcast:foobar"], "grüße", -1)

        self.use(subscriber=New)
        client = self.connect("publish-broadcast&subscribe-broadcast&echo")
        client.send("hi")
        self.assertEqual((client.messages, self.broker.persisted), (["grüße"], {}))

    def test_so_does_an_expiry_that_an_override_hands_on(self) -> None:
        class Volatile(RedisSubscriber):
            def publish_message(self, message: Any, expire: Any = None) -> Any:
                return super().publish_message(message, -1)

        self.use(subscriber=Volatile)
        self.connect("publish-broadcast").send("hi")
        self.assertEqual(self.broker.persisted, {})

    def test_data_is_told_to_become_json(self) -> None:
        class Old(RedisSubscriber):
            def publish_message(self, message: Any, expire: Any = None) -> Any:
                return self._connection.publish(self._publishers, {"text": "hi"}, 0)

        self.use(subscriber=Old)
        client = self.connect("publish-broadcast")
        client.send("hi")
        self.assertEqual(client.close_code, 1011)
        self.assert_told(TypeError, "dict", "json.dumps")

    def test_sending_what_has_yet_to_arrive_is_told_to_wait_for_it(self) -> None:
        """As upstream's ``send_persisted_messages`` did."""

        class Old(RedisSubscriber):
            def send_persisted_messages(self, websocket: Any) -> None:
                for channel in self._subscription.channels:
                    message = self._connection.get(channel)
                    if message:
                        websocket.send(message)

        self.use(subscriber=Old)
        client = self.connect()
        self.assertEqual(client.close_code, 1011)
        self.assert_told(TypeError, "Deferred", "addCallback", "await")

    def test_whatever_else_is_no_message_is_told_so(self) -> None:
        sent: list[Any] = []

        class Sending(RedisSubscriber):
            def send_persisted_messages(self, websocket: Any) -> Any:
                websocket.send(sent[-1])
                return super().send_persisted_messages(websocket)

        for wrong in (None, 5, {"a": 1}, ["a"]):
            sent.append(wrong)
            self.use(subscriber=Sending)
            client = self.connect()
            self.assertEqual((client.messages, client.close_code), ([], 1011))
            self.assert_told(TypeError, type(wrong).__name__, "json.dumps")
        for right in ("grüße", b"\xff", bytearray(b"a"), memoryview(b"a")):
            sent.append(right)
            self.use(subscriber=Sending)
            self.assertEqual(len(self.connect().messages), 1)

    def test_a_hook_that_sends_it_is_told_so_too(self) -> None:
        told: list[str] = []

        class Hooks(NullHooks):
            def connected(self, connection: Any) -> None:
                for wrong in (Deferred(), succeed("hi"), {"a": 1}):
                    told.append(str(test.assertRaises(TypeError, connection.send, wrong)))

        test = self
        connect(make_memory_factory(hooks=Hooks()), URL)
        for text, word in zip(told, ("await", "await", "json.dumps"), strict=True):
            self.assertIn(word, text)

    def test_a_subclass_that_skips_init_is_told_to_call_it(self) -> None:
        class Skipping(RedisSubscriber):
            def __init__(self, connection: Any) -> None:
                self.connection = connection

        self.use(subscriber=Skipping)
        self.assertEqual(self.connect().refused, 500)
        errors = self.flushLoggedErrors()
        self.assertIn("Skipping.__init__", str(errors[0].value))
        self.assertIn("super().__init__(", str(errors[0].value))
        self.assertEqual(len(errors), 1)


class PublisherCodeTests(ContractTestCase):
    def test_a_publisher_that_skips_init_is_told_to_call_it(self) -> None:
        class Skipping(RedisPublisher):
            def __init__(self) -> None:
                self.facility = "f"

        with capture_messages():
            for call in (
                lambda: Skipping().publish_message("hi"),
                lambda: Skipping().fetch_message(None, "f"),
                lambda: Skipping()._publishers,
            ):
                error = self.assertRaises(AttributeError, call)
                self.assertIn("Skipping.__init__", str(error))
                self.assertIn("super().__init__(", str(error))
        self.assertFalse(hasattr(Skipping(), "anything_else"))

    def test_publish_to_one_channel_is_told_to_name_a_list(self) -> None:
        connection = RedisPublisher(facility="f", broadcast=True)._connection
        for arguments in (("broadcast:f", "hi"), ("broadcast:f", b"hi", 60)):
            error = self.assertRaises(TypeError, connection.publish, *arguments)
            self.assertIn("publish([", str(error))
