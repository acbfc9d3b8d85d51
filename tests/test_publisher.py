"""Publishing from Django, from an ordinary thread, over crochet and a real Redis."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.demo import in_thread, set_up_django
from tests.support import python, shared_redis
from ws4redis_tx.core.errors import AudienceError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.server.broker import RedisBroker
from ws4redis_tx.server.embedded_redis import free_port

set_up_django()

from django.contrib.auth.models import AnonymousUser, User  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402

from ws4redis_tx import publisher as publisher_module  # noqa: E402
from ws4redis_tx.publisher import SELF, RedisMessage, RedisPublisher  # noqa: E402


class PublisherTests(TestCase):
    timeout = 60

    def setUp(self) -> Any:
        self.redis = shared_redis()
        self.broker = RedisBroker(self.redis.address, "", reactor)
        self.broker.startService()
        self.addCleanup(self.broker.stopService)
        publisher_module.share_commands(self.broker.commands)
        self.addCleanup(publisher_module.share_commands, None)
        return self.broker.when_available()

    def publish(self, message: Any = "hi", expire: int | None = None, **audience: Any) -> Any:
        audience.setdefault("facility", "foobar")
        return in_thread(lambda: RedisPublisher(**audience).publish_message(message, expire))

    def keys(self) -> set[str]:
        return {
            key.decode() for key in self.redis.command("KEYS", "*") if not key.startswith(b"at:")
        }

    def request(self) -> Any:
        """Of John, who is logged in, a chatter, and has a session."""
        request = RequestFactory().get("/")
        request.user = User.objects.get(username="john")
        request.session = type("Session", (dict,), {"session_key": "abc"})()
        return request


class AudienceTests(PublisherTests):
    @inlineCallbacks
    def test_each_audience_has_its_channel(self) -> Any:
        for audience, channels in (
            ({"broadcast": True}, {"broadcast:foobar"}),
            ({"users": ["john", "jo:hn"]}, {"user:john:foobar", "user:jo:hn:foobar"}),
            ({"groups": ["chatters"]}, {"group:chatters:foobar"}),
            ({"sessions": {"abc"}}, {"session:abc:foobar"}),
            ({"users": iter(["a"]), "broadcast": True}, {"user:a:foobar", "broadcast:foobar"}),
            (
                {"request": self.request(), "users": [SELF], "groups": [SELF], "sessions": [SELF]},
                {"user:john:foobar", "group:chatters:foobar", "session:abc:foobar"},
            ),
        ):
            self.redis.command("FLUSHALL")
            self.assertEqual((yield self.publish(**audience)), 0)
            self.assertEqual(self.keys(), channels)

    @inlineCallbacks
    def test_the_prefix_stands_before_every_name(self) -> Any:
        with override_settings(WS4REDIS_PREFIX="site"):
            yield self.publish(broadcast=True)
        self.assertEqual(self.redis.command("GET", "site:broadcast:foobar"), b"hi")

    @inlineCallbacks
    def test_self_of_nobody_is_no_channel(self) -> Any:
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        request.session = type("Session", (dict,), {"session_key": None})()
        for who in (request, None):
            count = yield self.publish(request=who, users=[SELF], groups=[SELF], sessions=[SELF])
            self.assertEqual(count, 0)
        self.assertEqual(self.keys(), set())

    def test_what_is_no_list_of_names_is_a_clear_error(self) -> None:
        for argument in ("users", "groups", "sessions"):
            for value in ("john", b"john", True, False, None, 7, ["john", None], [b"john"]):
                with self.assertRaises(TypeError) as caught:
                    RedisPublisher(facility="foobar", **{argument: value})
                self.assertIsInstance(caught.exception, ValueError)
                self.assertIn(argument, str(caught.exception))

    def test_a_facility_that_the_server_would_refuse_is_a_value_error(self) -> None:
        for facility in ("a\0b", "x" * 256, "\ud800"):
            with self.assertRaises(ValueError):
                RedisPublisher(facility=facility, broadcast=True)
        with self.assertRaises(ValueError):
            RedisPublisher(facility="a:b", users=["john"])
        RedisPublisher(facility="a:b", broadcast=True)
        with self.assertRaises(ValueError):
            RedisPublisher(broadcast=True)

    @inlineCallbacks
    def test_a_publisher_without_audience_raises_when_it_publishes(self) -> Any:
        for audience in ({}, {"users": []}, {"broadcast": False}):
            with self.assertRaises(AudienceError):
                yield self.publish(**audience)


class MessageTests(PublisherTests):
    @inlineCallbacks
    def test_str_bytes_and_redis_messages_are_the_bytes_that_travel(self) -> Any:
        for message, payload in (
            ("grüße", "grüße".encode()),
            (b"\xff\0", b"\xff\0"),
            (RedisMessage("hi"), b"hi"),
            ("", b""),
            ("42", b"42"),
        ):
            yield self.publish(message, broadcast=True)
            self.assertEqual(self.redis.command("GET", "broadcast:foobar"), payload)
        with self.assertRaises(TypeError):
            yield self.publish(42, broadcast=True)

    @inlineCallbacks
    def test_expire_is_the_argument_or_the_setting_and_zero_persists_nothing(self) -> Any:
        yield self.publish(broadcast=True)
        self.assertTrue(3590 < self.redis.command("TTL", "broadcast:foobar") <= 3600)
        yield self.publish(broadcast=True, expire=50)
        self.assertTrue(40 < self.redis.command("TTL", "broadcast:foobar") <= 50)
        self.redis.command("FLUSHALL")
        yield self.publish(broadcast=True, expire=0)
        for setting in (0, None):
            with override_settings(WS4REDIS_EXPIRE=setting):
                yield self.publish(broadcast=True)
        self.assertEqual(self.keys(), set())

    @inlineCallbacks
    def test_fetch_finds_the_first_in_the_order_session_user_group_broadcast(self) -> Any:
        def fetch(audience: str = "any", request: Any = None) -> Any:
            who = request or self.request()
            return in_thread(lambda: RedisPublisher().fetch_message(who, "foobar", audience))

        self.assertIsNone((yield fetch()))
        for name, audience in (
            ("broadcast", {"broadcast": True}),
            ("group", {"groups": ["chatters"]}),
            ("user", {"users": ["john"]}),
            ("session", {"sessions": ["abc"]}),
        ):
            yield self.publish(f"to {name}", **audience)
            self.assertEqual((yield fetch()), f"to {name}".encode())
            self.assertEqual((yield fetch(name)), f"to {name}".encode())
        with self.assertRaises(ValueError):
            yield fetch("everybody")

    @inlineCallbacks
    def test_the_count_is_of_server_processes(self) -> Any:
        class Deaf:
            def deliver(self, publication: Any) -> None:
                pass

        yield self.broker.listen(b"broadcast:foobar", Deaf())
        yield self.broker.listen(b"user:john:foobar", Deaf())
        self.assertEqual((yield self.publish(broadcast=True, users=["john", "mary"])), 2)

    @inlineCallbacks
    def test_old_tests_find_publishers_and_a_blocking_get(self) -> Any:
        publisher = RedisPublisher(facility="foobar", broadcast=True)
        yield in_thread(publisher.pipeline_publish_message, "hi")
        self.assertEqual(publisher._publishers, {"broadcast:foobar"})
        found = yield in_thread(publisher._connection.get, "broadcast:foobar")
        self.assertEqual(found, b"hi")


class ThreadTests(PublisherTests):
    def test_in_the_reactor_thread_it_raises_and_names_what_to_use(self) -> None:
        from twisted.python.threadable import isInIOThread

        self.assertTrue(isInIOThread())
        with self.assertRaises(RuntimeError) as caught:
            RedisPublisher(facility="foobar", broadcast=True).publish_message("hi")
        self.assertIn("broker.publish", str(caught.exception))

    @inlineCallbacks
    def test_on_an_event_loop_it_raises_and_names_what_to_use(self) -> Any:
        async def view() -> int:
            publisher = RedisPublisher(facility="foobar", broadcast=True)
            with self.assertRaises(RuntimeError) as caught:
                publisher.publish_message("hi")
            self.assertIn("apublish_message", str(caught.exception))
            return await publisher.apublish_message("hi")

        self.assertEqual((yield in_thread(asyncio.run, view())), 0)
        self.assertEqual(self.keys(), {"broadcast:foobar"})


class ProcessTests(TestCase):
    """A process that runs no reactor until it publishes."""

    def run_script(self, script: str, address: RedisAddress) -> str:
        prelude = "import django; django.setup(); from ws4redis_tx.publisher import *\n"
        result = python(
            "-W",
            "error::RuntimeWarning",
            "-c",
            prelude + script,
            DJANGO_SETTINGS_MODULE="tests.django_project.settings",
            WS4REDIS_CONNECTION=str(address),
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_the_first_publish_starts_what_it_needs_and_the_process_ends_by_itself(self) -> None:
        redis = shared_redis()
        self.run_script(
            "import threading\n"
            "publish = RedisPublisher(facility='f', broadcast=True).publish_message\n"
            "threads = [threading.Thread(target=publish, args=(str(i),)) for i in range(8)]\n"
            "[thread.start() for thread in threads]; [thread.join() for thread in threads]\n"
            "publish('last')",
            redis.address,
        )
        self.assertEqual(redis.command("GET", "broadcast:f"), b"last")

    def test_redis_that_is_down_raises_within_the_timeout_and_says_where(self) -> None:
        address = RedisAddress(host="127.0.0.1", port=free_port())
        printed = self.run_script(
            "from ws4redis_tx.core.errors import BrokerUnavailable\n"
            "try: RedisPublisher(facility='f', broadcast=True).publish_message('hi')\n"
            "except BrokerUnavailable as error: print(error.maybe_published, error)",
            address,
        )
        self.assertTrue(printed.startswith("False Redis cannot be reached at redis://127.0.0.1:"))
        self.assertIn("WS4REDIS_CONNECTION", printed)

    def test_importing_it_loads_no_reactor(self) -> None:
        printed = self.run_script(
            "import sys; print('twisted.internet.reactor' in sys.modules)",
            RedisAddress(),
        )
        self.assertEqual(printed, "False\n")
