"""``capture_messages``: the messages of Django code and their audiences, without a Redis."""

from __future__ import annotations

import asyncio
import threading
import unittest
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import SETTINGS, environment, set_up_django
from tests.support.programs import python
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.handshake import judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.core.positions import read_position
from ws4redis_tx.testing import CapturedMessages, capture_messages

set_up_django()

from django.contrib.auth.models import User
from django.db import transaction
from django.test import RequestFactory, TestCase, override_settings

import ws4redis_tx
from ws4redis_tx.publisher import SELF, RedisPublisher
from ws4redis_tx.threads import bridge
from ws4redis_tx.tickets import make_ticket, redeem


def publish(message: Any = "hi", expire: int | None = None, **audience: Any) -> int:
    audience.setdefault("facility", "orders")
    return RedisPublisher(**audience).publish_message(message, expire)


class CaptureTests(SynchronousTestCase):
    published: CapturedMessages

    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())

    def complaint(self, *arguments: Any, **criteria: Any) -> str:
        with self.assertRaises(AssertionError) as caught:
            self.published.assert_published(*arguments, **criteria)
        return str(caught.exception)


class WhatTests(CaptureTests):
    def test_each_audience_is_told_from_the_others(self) -> None:
        request = RequestFactory().get("/")
        request.user = User.objects.get(username="john")
        request.session = type("Session", (dict,), {"session_key": "abc"})()
        publish(broadcast=True, users=["mary", "jo:hn"])
        publish(request=request, users=[SELF], groups=[SELF], sessions=[SELF], expire=0)
        first, second = self.published.messages
        self.assertEqual((first.broadcast, first.users), (True, {"mary", "jo:hn"}))
        self.assertEqual((first.groups, first.sessions), (set(), set()))
        self.assertEqual((second.broadcast, second.users), (False, {"john"}))
        self.assertEqual((second.groups, second.sessions), ({"chatters"}, {"abc"}))
        self.assertEqual((first.facility, second.facility), ("orders", "orders"))
        self.assertEqual((first.expire, second.expire), (3600, 0))
        self.assertEqual(
            first.channels, ("broadcast:orders", "user:jo:hn:orders", "user:mary:orders")
        )

    def test_the_prefix_is_no_part_of_it(self) -> None:
        with override_settings(WS4REDIS_PREFIX="site"):
            publish(broadcast=True, facility="a:b")
        (message,) = self.published.messages
        self.assertEqual((message.broadcast, message.facility), (True, "a:b"))
        self.assertEqual(message.channels, ("site:broadcast:a:b",))

    def test_a_subclass_with_channels_of_its_own_is_captured_too(self) -> None:
        class Teams(RedisPublisher):
            def _get_message_channels(self, **audience: Any) -> list[str]:
                return [f"team:{name}:orders" for name in audience.pop("teams", ())]

        Teams(facility="orders", teams=["red"]).publish_message("hi")
        (message,) = self.published.messages
        self.assertEqual((message.channels, message.users), (("team:red:orders",), set()))
        self.assertIn("to channels ['team:red:orders']", self.complaint("ho"))

    def test_the_message_is_there_as_bytes_as_text_and_as_json(self) -> None:
        publish('{"grüße": 1}', broadcast=True)
        publish(b"\xff", broadcast=True)
        first, second = self.published.messages
        self.assertEqual(first.payload, '{"grüße": 1}'.encode())
        self.assertEqual((first.text, first.json()), ('{"grüße": 1}', {"grüße": 1}))
        self.assertEqual(second.payload, b"\xff")
        self.assertRaises(UnicodeDecodeError, lambda: second.text)

    def test_who_publishes_is_told_of_one_server_for_each_channel(self) -> None:
        self.assertEqual(publish(broadcast=True, users=["john"]), 2)

    def test_what_is_wrong_with_a_publisher_is_still_wrong(self) -> None:
        self.assertRaises(TypeError, publish, users="john")
        self.assertRaises(ValueError, publish)
        self.assertRaises(TypeError, publish, 42, broadcast=True)

        async def view(function: Any, *arguments: Any) -> None:
            function(*arguments)

        for publication in (
            view(lambda: publish(broadcast=True)),
            view(RedisPublisher().fetch_message, None, "orders"),
            view(lambda: ws4redis_tx.disconnect(user="john")),
        ):
            self.assertRaises(RuntimeError, asyncio.run, publication)
        self.published.assert_not_published()

    def test_what_was_persisted_is_fetched(self) -> None:
        publish("kept", users=["john"])
        publish("gone by", users=["john"], expire=0)
        request = RequestFactory().get("/")
        request.user = User.objects.get(username="john")
        publisher = RedisPublisher()
        found = publisher.fetch_message(request, "orders")
        self.assertEqual((found, found.channel), (b"kept", b"user:john:orders"))
        self.assertIsNone(publisher.fetch_message(request, "orders", "broadcast"))
        self.published.clear()
        self.assertIsNone(publisher.fetch_message(request, "orders"))
        self.assertEqual(self.published.messages, [])


class PositionTests(CaptureTests):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(override_settings(WS4REDIS_HISTORY={"orders": (10, 60)}))

    def test_what_is_kept_has_a_position_and_the_caller_gets_the_same(self) -> None:
        before = RedisPublisher.position()
        first = publish("1", broadcast=True, users=["john"])
        second = publish("2", broadcast=True)
        captured = [each.position for each in self.published.messages]
        self.assertEqual(captured, [first.position, second.position])
        after = RedisPublisher.position()
        read = [read_position(each) for each in (before, *captured, after)]
        self.assertEqual(sorted(read), read)
        self.assertEqual(len({*read[:3]}), 3)
        self.assertEqual(second.position, after)

    def test_without_a_history_there_is_none(self) -> None:
        published = publish("1", broadcast=True, facility="plain")
        self.assertEqual((published, published.position), (1, ""))
        self.assertEqual(self.published.messages[0].position, "")

    def test_an_idempotency_key_publishes_once_to_the_same_audience(self) -> None:
        orders = RedisPublisher(facility="orders", users=["john"])
        first = orders.publish_message("paid", idempotency_key="7")
        again = orders.publish_message("paid again", idempotency_key="7")
        self.assertEqual((first, first.position), (again, again.position))
        orders.publish_message("sent", idempotency_key="8")
        RedisPublisher(facility="orders", users=["mary"]).publish_message(
            "paid by mary", idempotency_key="7"
        )
        texts = [each.text for each in self.published.messages]
        self.assertEqual(texts, ["paid", "sent", "paid by mary"])
        self.published.clear()
        orders.publish_message("paid", idempotency_key="7")
        self.published.assert_published("paid", times=1)

    def test_with_an_idempotency_key_a_call_that_failed_is_repeated_safely(self) -> None:
        orders = RedisPublisher(facility="orders", users=["john"])
        for maybe_published in (False, True):
            self.published.clear()
            self.published.fail_next(maybe_published=maybe_published)
            with self.assertRaises(BrokerUnavailable):
                orders.publish_message("paid", idempotency_key="7")
            orders.publish_message("paid", idempotency_key="7")
            self.published.assert_published("paid", times=1)

    def test_what_is_forgotten_is_not_fetched(self) -> None:
        orders = RedisPublisher(facility="orders", broadcast=True)
        orders.publish_message("kept")
        publish("another", users=["john"])
        orders.forget()
        self.assertIsNone(orders.fetch_message(None, "orders", "broadcast"))
        self.published.assert_published("kept")
        self.assertEqual(len(self.published.messages), 2)

    def test_async_views(self) -> None:
        async def view() -> None:
            orders = RedisPublisher(facility="orders", broadcast=True)
            first = await orders.apublish_message("1", idempotency_key="7")
            again = await orders.apublish_message("1", idempotency_key="7")
            assert first.position == again.position == await RedisPublisher.aposition()
            await orders.aforget()

        asyncio.run(view())
        self.published.assert_published("1", times=1)
        self.assertIsNone(RedisPublisher().fetch_message(None, "orders"))

    def test_when_redis_is_down_all_of_them_fail(self) -> None:
        self.published.fail_next(2)
        for call in (RedisPublisher.position, RedisPublisher(facility="x", broadcast=True).forget):
            with self.assertRaises(BrokerUnavailable):
                call()


class WhoPublishesTests(CaptureTests):
    def test_async_views(self) -> None:
        async def view() -> int:
            publisher = RedisPublisher(facility="orders", broadcast=True)
            return await publisher.apublish_message("hi")

        self.assertEqual(asyncio.run(view()), 1)
        self.published.assert_published("hi", broadcast=True)

    def test_threads_at_once(self) -> None:
        threads = [
            threading.Thread(target=lambda: [publish(broadcast=True) for _ in range(50)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.published.assert_published("hi", times=200)

    def test_a_publisher_that_was_made_before_and_one_that_is_used_after(self) -> None:
        publisher = RedisPublisher(facility="orders", broadcast=True)
        with capture_messages() as inner:
            publisher.publish_message("1")
        publisher.publish_message("2")
        inner.assert_published("1", times=1)
        self.assertEqual([each.text for each in inner.messages], ["1"])
        self.assertEqual([each.text for each in self.published.messages], ["2"])

    def test_afterwards_the_bridge_is_what_it_was(self) -> None:
        before = bridge.redis()

        @capture_messages()
        def fail() -> None:
            self.assertIsNot(bridge.redis(), before)
            publish(broadcast=True)
            raise KeyError

        for _ in range(2):
            self.assertRaises(KeyError, fail)
            self.assertIs(bridge.redis(), before)

    def test_nobody_is_told_of_who_lost_what_and_that_is_no_message(self) -> None:
        with override_settings(WS4REDIS_REVOKE=True):
            User.objects.get(username="john").save()
            self.assertEqual(ws4redis_tx.disconnect(user="john"), 1)
        self.published.assert_not_published()

    def test_there_is_neither_a_reactor_nor_a_redis(self) -> None:
        result = python(
            "-c",
            "import django; django.setup()\n"
            "import sys, threading\n"
            "from django.contrib.auth.models import User\n"
            "from ws4redis_tx.publisher import RedisPublisher\n"
            "from ws4redis_tx.testing import capture_messages\n"
            "with capture_messages() as published:\n"
            "    RedisPublisher(facility='x', broadcast=True).publish_message('hi')\n"
            "    User.objects.get(username='john').save()\n"
            "published.assert_published('hi')\n"
            "found = {'twisted', 'crochet', 'txredisapi', 'autobahn'} & set(sys.modules)\n"
            "assert not found, found\n"
            "assert threading.active_count() == 1\n",
            DJANGO_SETTINGS_MODULE=SETTINGS,
            WS4REDIS_CONNECTION="redis://127.0.0.1:1",
            **environment(),
        )
        self.assertEqual(result.returncode, 0, result.stderr)


class TicketTests(CaptureTests):
    def request(self) -> Any:
        request = RequestFactory().post("/ticket/")
        request.user = User.objects.get(username="john")
        return request

    def test_a_ticket_is_made_without_a_redis_is_good_once_and_is_no_message(self) -> None:
        ticket = make_ticket(self.request(), facility="foobar")
        head = handshake_bytes(Sec_WebSocket_Protocol=f"ws4redis, {ticket}")[:-4]
        shown = judge_request(read_request(head), "/ws/", secure=False, peer="")
        redeemed = redeem(shown, "")
        assert redeemed is not None
        self.assertEqual(redeemed.user_id, str(self.request().user.pk))
        with self.assertRaises(Denied):
            redeem(shown, "")
        self.published.assert_not_published()

    def test_without_redis_there_is_none(self) -> None:
        self.published.fail_next()
        with self.assertRaises(BrokerUnavailable):
            make_ticket(self.request())


class AssertionTests(CaptureTests):
    def setUp(self) -> None:
        super().setUp()
        publish("hi", users=["john", "mary"])
        publish('{"a": 1, "b": 2}', broadcast=True, expire=0, facility="news")

    def test_it_finds_the_first_message_with_all_that_is_asked_for(self) -> None:
        first, second = self.published.messages
        for expected, criteria in (
            (first, {"message": "hi"}),
            (first, {"message": b"hi"}),
            (first, {"users": {"mary", "john"}}),
            (first, {"users": iter(["john", "mary"]), "broadcast": False}),
            (first, {"facility": "orders"}),
            (first, {"expire": 3600}),
            (first, {}),
            (second, {"json": {"b": 2, "a": 1}}),
            (second, {"broadcast": True, "expire": 0, "facility": "news"}),
        ):
            self.assertIs(self.published.assert_published(**criteria), expected)

    def test_anything_else_is_not_found(self) -> None:
        for criteria in (
            {"message": "h"},
            {"users": ["john"]},
            {"users": ["john", "mary"], "groups": ["chatters"]},
            {"users": ["john", "mary"], "broadcast": True},
            {"users": []},
            {"sessions": ["abc"]},
            {"facility": "order"},
            {"expire": 1},
            {"json": {"a": 1}},
            {"json": None},
            {"message": "hi", "facility": "news"},
            {"broadcast": False, "facility": "news"},
            {"broadcast": False, "facility": "orders"},
        ):
            self.complaint(**criteria)
            self.published.assert_not_published(**criteria)

    def test_the_complaint_says_what_was_wanted_and_what_there_is(self) -> None:
        self.assertEqual(
            self.complaint("ho", users=["john"], facility="orders", expire=5),
            "No message was published like this: 'ho' on facility 'orders' to users ['john'] with "
            "expire=5.\n"
            "Published were:\n"
            "  'hi' on facility 'orders' to users ['john', 'mary'], persisted for 3600 s\n"
            "  '{\"a\": 1, \"b\": 2}' on facility 'news' to everybody, not persisted",
        )
        self.assertIn("JSON of {'c': 3} to nobody.", self.complaint(json={"c": 3}, users=()))
        publish(b"\xff" + b"x" * 1000, groups=["staff"])
        last = self.complaint("ho").splitlines()[-1]
        self.assertTrue(last.startswith(r"  b'\xffxxx"))
        self.assertIn("x'… on facility 'orders' to groups ['staff']", last)
        self.assertLess(len(last), 300)

    def test_the_number_is_compared_if_it_is_given(self) -> None:
        publish("hi", users=["john", "mary"])
        self.published.assert_published("hi")
        self.published.assert_published("hi", times=2)
        self.assertTrue(
            self.complaint("hi", times=1).startswith(
                "2 messages, not 1, were published like this: 'hi'.\nPublished were:"
            )
        )
        self.assertRaises(ValueError, self.published.assert_published, "hi", times=0)

    def test_that_nothing_was_published_is_not_true(self) -> None:
        with self.assertRaises(AssertionError) as caught:
            self.published.assert_not_published()
        self.assertIn("A message was published like this: any.\n", str(caught.exception))
        self.published.clear()
        self.published.assert_not_published()
        self.assertEqual(
            self.complaint("hi"),
            "No message was published like this: 'hi'.\nNothing was published.",
        )

    def test_a_criterion_that_there_is_none_of_is_a_mistake(self) -> None:
        publish(broadcast=True)
        wrong: dict[str, Any] = {"user": ["john"]}
        for look in (self.published.assert_published, self.published.assert_not_published):
            with self.assertRaisesRegex(TypeError, "^user is not a criterion .*, users,"):
                look(**wrong)

    def test_a_text_where_names_are_expected_is_a_mistake(self) -> None:
        for names in ("john", b"john", None, True):
            self.assertRaises(TypeError, self.published.assert_published, users=names)


class FailureTests(CaptureTests):
    def test_the_next_call_fails_and_the_one_after_it_does_not(self) -> None:
        for maybe, texts in ((False, ["2"]), (True, ["1", "2"])):
            self.published.clear()
            self.published.fail_next(maybe_published=maybe)
            with self.assertRaises(BrokerUnavailable) as caught:
                publish("1", broadcast=True)
            self.assertEqual(caught.exception.maybe_published, maybe)
            publish("2", broadcast=True)
            self.assertEqual([each.text for each in self.published.messages], texts)

    def test_a_fetch_fails_too(self) -> None:
        self.published.fail_next(2)
        for _ in range(2):
            with self.assertRaises(BrokerUnavailable):
                RedisPublisher().fetch_message(None, "orders")
        self.assertIsNone(RedisPublisher().fetch_message(None, "orders"))


class DjangoTests(SynchronousTestCase):
    """Within Django's own test cases."""

    def run_one(self, method: Any) -> None:
        result = unittest.TestResult()
        unittest.TestSuite([type("Inner", (TestCase,), {"runTest": method})()]).run(result)
        self.assertEqual(result.failures + result.errors, [])
        self.assertEqual(result.testsRun, 1)

    def test_what_is_published_on_commit_is_seen_when_the_callbacks_are_run(self) -> None:
        def method(test: TestCase) -> None:
            publisher = RedisPublisher(facility="orders", broadcast=True)
            with capture_messages() as published:
                with test.captureOnCommitCallbacks(execute=True), transaction.atomic():
                    self.assertEqual(publisher.publish_message("hi", on_commit=True), 0)
                    published.assert_not_published()
                published.assert_published("hi", times=1)

        self.run_one(method)

    def test_a_test_that_forgot_to_run_the_callbacks_is_told_so(self) -> None:
        def method(test: TestCase) -> None:
            with capture_messages() as published:
                with override_settings(WS4REDIS_ON_COMMIT=True):
                    publish(broadcast=True)
                with test.assertRaisesRegex(AssertionError, r"captureOnCommitCallbacks\(execute"):
                    published.assert_published("hi")

        self.run_one(method)
