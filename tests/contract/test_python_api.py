"""The contract, section 4: the names that other people's code imports, except the subscriber."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase

from tests.support.brokers import start_broker
from tests.support.django import in_thread, set_up_django
from tests.support.programs import children
from tests.support.redis import RawSubscriber, RedisServer
from tests.support.servers import later
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.errors import AudienceError, BrokerUnavailable
from ws4redis_tx.core.positions import read_position
from ws4redis_tx.redis_store import RedisStore

set_up_django()

from django.contrib.auth.models import AnonymousUser, User
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import request_finished, request_started
from django.template import engines
from django.test import RequestFactory, override_settings

from ws4redis_tx import settings as old_settings
from ws4redis_tx.publisher import SELF, RedisMessage, RedisPublisher


class PublisherTestCase(ContractTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        broker = start_broker(self, self.redis.address)
        self.share(broker)
        yield broker.when_available()


class PublisherTests(PublisherTestCase):
    """4. Python API: ws4redis_tx.publisher.RedisPublisher"""

    def request(self, username: str | None = None, key: str | None = None) -> WSGIRequest:
        request = RequestFactory().get("/chat/")
        request.user = User.objects.get(username=username) if username else AnonymousUser()
        request.session = type("Session", (dict,), {"session_key": key})()
        return request

    @inlineCallbacks
    def test_publish_message_takes_str_bytes_or_redis_message(self) -> Any:
        for message, payload in (
            ("grüße", "grüße".encode()),
            ("grüße".encode(), "grüße".encode()),
            (RedisMessage("grüße"), "grüße".encode()),
            (b"\xff\0", b"\xff\0"),
            ("", b""),
            ("42", b"42"),
        ):
            self.redis.command("FLUSHALL")
            yield self.publish(message, broadcast=True)
            self.assertEqual(self.redis.command("GET", "broadcast:foobar"), payload)
        with self.assertRaises(TypeError):
            yield self.publish(42, broadcast=True)

    @inlineCallbacks
    def test_it_returns_the_sum_of_redis_receiver_counts_over_its_channels(self) -> Any:
        RawSubscriber(self, self.redis.port, "broadcast:foobar", "user:john:foobar")
        RawSubscriber(self, self.redis.port, "broadcast:foobar")
        count = yield self.publish("hi", broadcast=True, users=["john", "mary"])
        self.assertEqual(count, 3)

    @inlineCallbacks
    def test_expire_is_the_settings_unless_it_is_given(self) -> Any:
        for setting, expire, expected in (
            (100, None, 100),
            (100, 20, 20),
            (100, 0, -2),
            (0, None, -2),
            (None, None, -2),
        ):
            self.redis.command("FLUSHALL")
            with override_settings(WS4REDIS_EXPIRE=setting):
                yield self.publish("hi", expire, broadcast=True)
            ttl = self.redis.command("TTL", "broadcast:foobar")
            self.assertTrue(expected - 2 <= ttl <= expected, (ttl, expected))

    @inlineCallbacks
    def test_pipeline_publish_message_is_kept(self) -> Any:
        raw = RawSubscriber(self, self.redis.port, "broadcast:f", "user:john:f")
        publisher = RedisPublisher(facility="f", broadcast=True, users=["john"])
        for arguments in (("hi",), ("hi", 10), ("hi", 10, False)):
            count = yield in_thread(publisher.pipeline_publish_message, *arguments)
            self.assertEqual(count, 2)
            yield raw.take(2)
        yield in_thread(lambda: publisher.pipeline_publish_message("hi", transaction=False))

    @inlineCallbacks
    def test_fetch_message_finds_the_first_of_session_user_each_group_broadcast(self) -> Any:
        request = yield in_thread(self.request, "john", "abc")

        def fetch(*audience: str) -> Any:
            return in_thread(RedisPublisher().fetch_message, request, "foobar", *audience)

        self.assertIsNone((yield fetch()))
        for channel, audience in (
            ("broadcast:foobar", "broadcast"),
            ("group:chatters:foobar", "group"),
            ("user:john:foobar", "user"),
            ("session:abc:foobar", "session"),
        ):
            self.assertIsNone((yield fetch(audience)))
            self.redis.command("SETEX", channel, 10, audience)
            self.assertEqual((yield fetch()), audience.encode())
            self.assertEqual((yield fetch("any")), audience.encode())
            found = yield fetch(audience)
            self.assertIsInstance(found, bytes)
            self.assertEqual(found, audience.encode())
        with self.assertRaises(ValueError):
            yield fetch("everybody")

    @inlineCallbacks
    def test_self_means_the_requests_own(self) -> Any:
        request = yield in_thread(self.request, "john", "abc")
        own = {"users": [SELF], "groups": [SELF], "sessions": [SELF]}
        publisher = yield in_thread(lambda: RedisPublisher(request=request, facility="f", **own))
        self.assertEqual(
            publisher._publishers, {"user:john:f", "group:chatters:f", "session:abc:f"}
        )

    @inlineCallbacks
    def test_what_cannot_be_resolved_yields_no_channel(self) -> Any:
        nobody = yield in_thread(self.request)
        for request in (nobody, RequestFactory().get("/")):
            for audience in ("users", "groups", "sessions"):
                count = yield self.publish(request=request, **{audience: [SELF]})
                self.assertEqual(count, 0)
        self.assertEqual(self.keys(), set())

    def test_a_string_or_a_boolean_for_a_list_is_a_clear_error_and_any_iterable_is_fine(
        self,
    ) -> None:
        for argument in ("users", "groups", "sessions"):
            for wrong in ("john", b"john", True):
                with self.assertRaises((TypeError, ValueError)) as caught:
                    RedisPublisher(facility="f", **{argument: wrong})
                self.assertIn(argument, str(caught.exception))
            for right in (["a"], ("a",), {"a"}, {"a": 1}, iter(["a"]), (x for x in "a")):
                publisher = RedisPublisher(facility="f", **{argument: right})
                self.assertEqual(publisher._publishers, {f"{argument[:-1]}:a:f"})

    @inlineCallbacks
    def test_a_publisher_with_no_audience_at_all_raises_when_it_publishes(self) -> Any:
        publisher = RedisPublisher(facility="f")
        with self.assertRaises(AudienceError):
            yield in_thread(publisher.publish_message, "hi")

    def test_a_facility_that_the_server_would_refuse_is_a_value_error(self) -> None:
        for facility in ("x" * 256, "a\nb", "\ud800"):
            with self.assertRaises(ValueError):
                RedisPublisher(facility=facility, broadcast=True)
        for audience in ("users", "groups", "sessions"):
            with self.assertRaises(ValueError):
                RedisPublisher(facility="a:b", **{audience: ["x"]})
        RedisPublisher(facility="a:b", broadcast=True)
        with self.assertRaises(ValueError):
            RedisPublisher(broadcast=True)

    @inlineCallbacks
    def test_async_views_await_apublish_message(self) -> Any:
        async def view() -> int:
            publisher = RedisPublisher(facility="foobar", broadcast=True)
            return await publisher.apublish_message("hi", 10)

        self.assertEqual((yield deferToThread(asyncio.run, view())), 0)
        self.assertEqual(self.redis.command("GET", "broadcast:foobar"), b"hi")

    def test_on_the_reactor_thread_a_synchronous_call_raises_and_names_the_one_to_use(self) -> None:
        publisher = RedisPublisher(facility="f", broadcast=True)
        for call in (publisher.publish_message, publisher.pipeline_publish_message):
            with self.assertRaises(RuntimeError) as caught:
                call("hi")
            self.assertIn("Deferred", str(caught.exception))
            self.assertIn("ws4redis_tx.service.Publisher", str(caught.exception))
        with self.assertRaises(RuntimeError):
            publisher.fetch_message(RequestFactory().get("/"), "f", "broadcast")

    @inlineCallbacks
    def test_on_an_event_loop_thread_too(self) -> Any:
        async def view() -> None:
            publisher = RedisPublisher(facility="f", broadcast=True)
            with self.assertRaises(RuntimeError) as caught:
                publisher.publish_message("hi")
            self.assertIn("apublish_message", str(caught.exception))

        yield deferToThread(asyncio.run, view())

    def test_for_old_tests_publishers_and_a_connection_with_a_blocking_get(self) -> Any:
        publisher = RedisPublisher(facility="f", broadcast=True, users=["john"])
        self.assertEqual(publisher._publishers, {"broadcast:f", "user:john:f"})
        self.redis.command("SET", "broadcast:f", "hi")
        getting = in_thread(publisher._connection.get, "broadcast:f")
        return getting.addCallback(self.assertEqual, b"hi")


class OutageTests(ContractTestCase):
    """4. Python API: blocks at most its timeout; Redis down raises BrokerUnavailable"""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        broker = start_broker(self, self.redis.address)
        self.share(broker)
        yield broker.when_available()
        self.override(WS4REDIS_TIMEOUT=0.5)

    @inlineCallbacks
    def test_redis_down_raises_and_says_that_nothing_was_published(self) -> Any:
        self.redis.stop()
        while self.broker.commands.connected:
            yield later()
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish("lost", broadcast=True)
        self.assertFalse(caught.exception.maybe_published)

    @inlineCallbacks
    def publish_to_a_redis_that_hangs(self) -> Any:
        """Fire with the error's ``maybe_published``, the seconds it took, and the logged errors."""
        for pid in children(self.redis._process.pid):
            os.kill(pid, signal.SIGSTOP)
            self.addCleanup(os.kill, pid, signal.SIGCONT)
        started = reactor.seconds()
        with self.assertRaises(BrokerUnavailable) as caught:
            yield self.publish("perhaps", broadcast=True)
        taken = reactor.seconds() - started
        maybe_published = caught.exception.maybe_published
        del caught
        gc.collect()
        yield later()
        return maybe_published, taken, self.flushLoggedErrors()

    @inlineCallbacks
    def test_a_redis_that_hangs_raises_within_the_timeout_and_the_fate_is_unknown(self) -> Any:
        """A stopped Redis refuses nothing. After its return the next publish succeeds, and none is
        repeated.
        """
        raw = RawSubscriber(self, self.redis.port, "broadcast:foobar")
        maybe_published, taken, _ = yield self.publish_to_a_redis_that_hangs()
        self.assertTrue(maybe_published)
        self.assertTrue(0.4 < taken < 2)
        for pid in children(self.redis._process.pid):
            os.kill(pid, signal.SIGCONT)
        self.override(WS4REDIS_TIMEOUT=10)
        yield self.broker.when_available()
        self.assertEqual((yield self.publish("next", broadcast=True)), 1)
        arrived = [message for _, message in (yield raw.take(1))]
        if arrived == [b"perhaps"]:
            arrived = [message for _, message in (yield raw.take(1))]
        self.assertEqual(arrived, [b"next"])

    @inlineCallbacks
    def test_what_is_raised_is_not_logged_as_unhandled_besides(self) -> Any:
        _, _, logged = yield self.publish_to_a_redis_that_hangs()
        self.assertEqual(logged, [])


class StoreTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.redis_store and ws4redis_tx.settings"""

    def test_redis_message_is_bytes(self) -> None:
        self.assertIsInstance(RedisMessage("grüße"), bytes)
        self.assertEqual(RedisMessage("grüße"), "grüße".encode())
        self.assertEqual(RedisMessage(b"\xff"), b"\xff")

    def test_the_names_are_where_they_were(self) -> None:
        from ws4redis_tx import publisher, redis_store, subscriber

        self.assertTrue(issubclass(publisher.RedisPublisher, redis_store.RedisStore))
        self.assertTrue(issubclass(subscriber.RedisSubscriber, RedisStore))
        self.assertIs(publisher.SELF, redis_store.SELF)
        self.assertIs(publisher.RedisMessage, redis_store.RedisMessage)

    def test_settings_is_upstreams_module_read_lazily(self) -> None:
        with override_settings(WS4REDIS_HEARTBEAT="beat", WS4REDIS_PREFIX="site"):
            self.assertEqual(old_settings.WS4REDIS_HEARTBEAT, "beat")
            self.assertEqual(old_settings.WS4REDIS_PREFIX, "site")
        self.assertIsNone(old_settings.WS4REDIS_PREFIX)
        self.assertEqual(old_settings.WEBSOCKET_URL, "/ws/")


class TemplateTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.context_processors.default"""

    def test_templates_get_websocket_uri_and_ws4redis_heartbeat(self) -> None:
        template = engines["django"].from_string("{{ WEBSOCKET_URI }} {{ WS4REDIS_HEARTBEAT }}")
        request = RequestFactory(HTTP_HOST="localhost:8000").get("/")
        self.assertEqual(template.render({}, request), "ws://localhost:8000/ws/ null")
        request = RequestFactory(HTTP_HOST="localhost").get("/", secure=True)
        with override_settings(WS4REDIS_HEARTBEAT="--beat--", WEBSOCKET_URL="/live/"):
            self.assertEqual(template.render({}, request), 'wss://localhost/live/ "--beat--"')

    def test_installed_apps_gives_receivers_checks_static_files_and_template_tags(self) -> None:
        from django.contrib.auth.signals import user_logged_in
        from django.contrib.staticfiles import finders
        from django.core.checks.registry import registry
        from django.template.loader import get_template  # noqa: F401

        from ws4redis_tx.django.checks import check_settings

        self.assertIn(check_settings, registry.get_checks())
        self.assertTrue(user_logged_in.has_listeners())
        self.assertIsNotNone(finders.find("js/ws4redis.js"))
        engines["django"].from_string("{% load ws4redis %}")


class ServiceTests(SynchronousTestCase):
    """4. Python API: ws4redis_tx.service and ws4redis_tx.testing"""

    def test_the_doors_for_embedders_and_testers_are_there(self) -> None:
        from ws4redis_tx import service, testing

        for name in ("ServerConfig", "make_service", "make_factory", "make_resource"):
            self.assertTrue(callable(getattr(service, name)))
        factory = testing.make_memory_factory()
        client = testing.connect(factory, "ws://localhost/ws/foobar?subscribe-broadcast")
        self.assertTrue(client.open)
        client.lose_connection()


class JavaScriptTests(SynchronousTestCase):
    """4. Python API: JavaScript (its behaviour is tested in ``tests/js``)"""

    def test_the_options_and_methods_are_there_and_no_jquery(self) -> None:
        from django.contrib.staticfiles import finders

        with open(finders.find("js/ws4redis.js")) as file:
            script = file.read()
        for name in (
            "uri", "connecting", "connected", "disconnected", "receive_message", "heartbeat_msg",
            "send_message", "get_state", "close", "is_connecting", "is_connected", "is_closing",
            "is_closed",
        ):  # fmt: skip
            self.assertIn(name, script)
        self.assertNotIn("jquery", script.lower())
        self.assertNotIn("$", script)


class HistoryTests(PublisherTestCase):
    """4. Python API: positions, idempotency keys and forget; 6. A rendered page closes its gap"""

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        self.redis.command("FLUSHALL")
        self.override(WS4REDIS_HISTORY={"foo*": (5, 60)})

    @inlineCallbacks
    def test_a_publish_returns_its_position_on_facilities_with_a_history_alone(self) -> Any:
        first = yield self.publish("1", broadcast=True, users=["john"])
        second = yield self.publish("2", broadcast=True)
        self.assertLess(read_position(first.position), read_position(second.position))
        other = yield self.publish("3", broadcast=True, facility="other")
        self.assertEqual((other, other.position), (0, ""))
        self.assertEqual(self.redis.command("EXISTS", "stream:broadcast:other"), 0)
        self.assertEqual(self.redis.command("LLEN", "stream:broadcast:foobar"), 2)
        self.assertEqual(self.redis.command("LLEN", "stream:user:john:foobar"), 1)

    @inlineCallbacks
    def test_async_views_have_the_same(self) -> Any:
        async def view() -> Any:
            publisher = RedisPublisher(facility="foobar", broadcast=True)
            before = await RedisPublisher.aposition()
            first = await publisher.apublish_message("hi", idempotency_key="a")
            second = await publisher.apublish_message("hi", idempotency_key="a")
            kept = self.redis.command("LLEN", "stream:broadcast:foobar")
            await publisher.aforget()
            return before, first, second, kept

        before, first, second, kept = yield deferToThread(asyncio.run, view())
        self.assertLess(read_position(before), read_position(first.position))
        self.assertEqual((first.position, kept), (second.position, 1))
        self.assertEqual(self.kept(), [b"0 0 0 "])

    def kept(self) -> list[bytes]:
        found: list[bytes] = self.redis.command("LRANGE", "stream:broadcast:foobar", 0, -1)
        return found

    @inlineCallbacks
    def test_with_an_idempotency_key_a_message_is_published_once(self) -> Any:
        publisher = RedisPublisher(facility="foobar", broadcast=True)
        for _ in range(3):
            yield in_thread(lambda: publisher.publish_message("hi", idempotency_key="order-7"))
        yield in_thread(lambda: publisher.pipeline_publish_message("hi", idempotency_key="8"))
        self.assertEqual(self.redis.command("LLEN", "stream:broadcast:foobar"), 2)
        with self.assertRaises(TypeError) as caught:
            yield in_thread(lambda: publisher.publish_message("hi", idempotency_key=7))
        self.assertIn("idempotency_key", str(caught.exception))

    @inlineCallbacks
    def test_forget_deletes_what_is_persisted_and_kept_of_the_audience_alone(self) -> Any:
        yield self.publish("hi", broadcast=True, users=["john"])
        yield in_thread(RedisPublisher(facility="foobar", broadcast=True).forget)
        names = ("broadcast:foobar", "at:broadcast:foobar")
        self.assertEqual(self.redis.command("EXISTS", *names), 0)
        self.assertEqual(self.kept(), [b"0 0 0 "])
        self.assertEqual(self.redis.command("GET", "user:john:foobar"), b"hi")
        self.assertEqual(self.redis.command("LLEN", "stream:user:john:foobar"), 1)

    @inlineCallbacks
    def test_a_page_has_the_position_at_which_its_request_began(self) -> Any:
        template = engines["django"].from_string("{% load ws4redis %}{% ws4redis_position %}")

        def view() -> Any:
            before = RedisPublisher.position()
            request_started.send(sender=None)
            published = RedisPublisher(facility="foobar", broadcast=True).publish_message("hi")
            rendered = template.render({})
            request_finished.send(sender=None)
            return before, published.position, rendered, template.render({})

        yield in_thread(RedisPublisher.position)  # the data set has begun
        yield later()
        before, published, rendered, outside = yield in_thread(view)
        self.assertTrue(read_position(before) <= read_position(rendered) < read_position(published))
        self.assertTrue(read_position(published) <= read_position(outside))

    @inlineCallbacks
    def test_a_page_is_rendered_without_a_position_when_redis_is_down(self) -> Any:
        yield self.lose_redis()
        template = engines["django"].from_string("{% load ws4redis %}[{% ws4redis_position %}]")
        with self.assertLogs("ws4redis_tx", "WARNING"):
            self.assertEqual((yield in_thread(template.render, {})), "[]")
