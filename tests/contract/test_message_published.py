"""The contract, section 4: the signal ``message_published``."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from typing import Any, cast
from unittest.mock import patch

from asgiref.sync import async_to_sync, sync_to_async
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Published
from ws4redis_tx.core.names import without_session_key
from ws4redis_tx.testing import CapturedMessages, capture_messages

set_up_django()

from django.db import transaction
from django.test import override_settings

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.publishing import publish_signal
from ws4redis_tx.signals import message_published
from ws4redis_tx.threads import bridge

KEY = "k" * 32


class SignalTestCase(SynchronousTestCase):
    published: CapturedMessages

    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())
        self.told: list[dict[str, Any]] = []

    def connect(self, receiver: Any) -> None:
        message_published.connect(receiver, weak=False)
        self.addCleanup(message_published.disconnect, receiver)

    def listen(self) -> None:
        def receiver(signal: Any, **told: Any) -> None:
            self.told.append({**told, "thread": threading.current_thread()})

        self.connect(receiver)

    def publish(self, message: Any = "hello", **audience: Any) -> int:
        return RedisPublisher(facility="news", **audience).publish_message(message)


class WhatTests(SignalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.listen()

    def test_channels_size_receivers_duration_and_error(self) -> None:
        with patch("time.monotonic", side_effect=[10.0, 10.25]):
            self.publish("grüße", broadcast=True, users=["mary"])
        (told,) = self.told
        self.assertEqual(told["channels"], ("broadcast:news", "user:mary:news"))
        self.assertEqual((told["size"], told["receivers"]), (7, 2))
        self.assertEqual((told["duration"], told["error"]), (0.25, None))
        self.assertIs(told["sender"], RedisPublisher)
        self.assertFalse(told["on_commit"])

    def test_each_publish_once(self) -> None:
        publisher = RedisPublisher(facility="news", broadcast=True)
        publisher.publish_message("1")
        publisher.pipeline_publish_message("2")
        publisher._connection.publish(["broadcast:old"], "3", 0)
        async_to_sync(publisher.apublish_message)("4")
        self.assertEqual(len(self.told), 4)

    def test_a_failed_one_has_the_error_that_the_caller_gets(self) -> None:
        for publish in (self.publish, self.apublish):
            self.published.fail_next()
            error = self.assertRaises(BrokerUnavailable, publish, broadcast=True)
            self.assertIs(self.told[-1]["error"], error)
            self.assertEqual(self.told[-1]["receivers"], 0)

    def apublish(self, **audience: Any) -> int:
        publisher = RedisPublisher(facility="news", **audience)
        return async_to_sync(publisher.apublish_message)("hello")

    def test_nobody_is_told_too(self) -> None:
        for publish in (self.publish, self.apublish):
            publish(users=[])
            self.assertEqual((self.told[-1]["channels"], self.told[-1]["receivers"]), ((), 0))

    def test_a_cancelled_one_is_not_told(self) -> None:
        class Hanging:
            async def apublish(self, *arguments: Any) -> Published:
                publishing.cancel()
                await asyncio.Event().wait()
                return Published(0)

        async def main() -> None:
            nonlocal publishing
            publisher = RedisPublisher(facility="news", broadcast=True)
            publishing = asyncio.create_task(publisher.apublish_message("hello"))
            await asyncio.wait([publishing])

        publishing: asyncio.Task[Published]
        with bridge.replaced(cast(Any, Hanging())):
            asyncio.run(main())
        self.assertTrue(publishing.cancelled())
        self.assertEqual(self.told, [])

    def test_an_argument_that_is_refused_is_no_publish(self) -> None:
        self.assertRaises(TypeError, self.publish, {"a": 1}, broadcast=True)
        self.assertRaises(ValueError, self.publish, groups="editors")
        self.assertEqual(self.told, [])

    def test_a_session_key_is_cut(self) -> None:
        self.publish(sessions=[KEY], broadcast=True)
        self.assertEqual(self.told[0]["channels"], ("broadcast:news", "session:…:news"))
        with override_settings(WS4REDIS_PREFIX="shop", WS4REDIS_TENANT=lambda request: "a"):
            self.publish(sessions=[KEY], tenant="a")
        self.assertEqual(self.told[1]["channels"], ("shop:t:a:session:…:news",))
        self.assertNotIn(KEY, repr(self.told))

    def test_only_a_session_key_is_cut(self) -> None:
        for prefix, channel, shown in (
            ("", f"session:{KEY}:", "session:…:"),
            ("p", f"p:session:{KEY}", "p:session:…"),
            ("", f"session:{KEY}:x:news", "session:…:news"),
            ("p", f"session:{KEY}:news", "session:…:news"),
            ("", "broadcast:session:a:b", "broadcast:session:a:b"),
            ("", "group:session:a:news", "group:session:a:news"),
            ("p", f"p:mine:session:{KEY}:news:session:x", "p:mine:session:…"),
            ("", "server", "server"),
        ):
            self.assertEqual(without_session_key(prefix, channel), shown)


class CallerTests(SignalTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.listen()

    def assert_caller(self, line: int) -> None:
        self.assertEqual(self.told[-1]["caller"], f"{__file__}:{line}")

    def line_before(self) -> int:
        """The number of the line before the one that calls this."""
        return inspect.stack()[1].lineno - 1

    def test_a_line_of_a_view(self) -> None:
        publisher = RedisPublisher(facility="news", broadcast=True)
        publisher.publish_message("hello")
        line = self.line_before()
        self.assert_caller(line)

    def test_a_line_of_an_async_view(self) -> None:
        async def view() -> int:
            publisher = RedisPublisher(facility="news", broadcast=True)
            await publisher.apublish_message("hello")
            return self.line_before()

        self.assert_caller(asyncio.run(view()))

    def test_a_line_in_a_thread_of_djangos(self) -> None:
        def work() -> int:
            publisher = RedisPublisher(facility="news", broadcast=True)
            publisher.publish_message("hello")
            return self.line_before()

        self.assert_caller(asyncio.run(sync_to_async(work)()))

    def test_the_line_that_published_on_commit_not_the_one_that_committed(self) -> None:
        publisher = RedisPublisher(facility="news", broadcast=True)
        with transaction.atomic():
            publisher.publish_message("1", on_commit=True)
            line = self.line_before()
        self.assert_caller(line)

    def test_a_task_has_none(self) -> None:
        async def main() -> None:
            publisher = RedisPublisher(facility="news", broadcast=True)
            await asyncio.gather(publisher.apublish_message("1"))

        asyncio.run(main())
        self.assertEqual(self.told[0]["caller"], "")


class WhenTests(SignalTestCase):
    def test_after_redis_has_answered_and_before_the_call_returns(self) -> None:
        seen: list[int] = []
        self.connect(lambda **told: seen.append(len(self.published.messages)))
        self.publish(broadcast=True)
        self.assertEqual(seen, [1])

    def test_after_the_commit(self) -> None:
        self.listen()
        with transaction.atomic():
            publisher = RedisPublisher(facility="news", broadcast=True)
            publisher.publish_message("1", on_commit=True)
            self.assertEqual(self.told, [])
        self.assertEqual((self.told[0]["on_commit"], self.told[0]["receivers"]), (True, 1))

    def test_not_after_a_rollback(self) -> None:
        self.listen()
        with transaction.atomic():
            RedisPublisher(facility="news", broadcast=True).publish_message("1", on_commit=True)
            transaction.set_rollback(True)
        self.assertEqual(self.told, [])

    def test_a_receiver_may_publish(self) -> None:
        self.listen()

        def publish_too(on_commit: bool, **told: Any) -> None:
            if on_commit:
                self.publish("too", users=["mary"])

        self.connect(publish_too)
        with transaction.atomic():
            RedisPublisher(facility="news", broadcast=True).publish_message("1", on_commit=True)
        self.assertEqual([each["on_commit"] for each in self.told], [True, False])


class WhereTests(SignalTestCase):
    def test_in_the_thread_that_publishes(self) -> None:
        self.listen()
        thread = threading.Thread(target=lambda: self.publish(broadcast=True))
        thread.start()
        thread.join()
        self.assertIs(self.told[0]["thread"], thread)

    def test_async_receivers_run_on_the_event_loop_and_others_beside_it(self) -> None:
        self.listen()
        loops: list[Any] = []

        async def receiver(**told: Any) -> None:
            loops.append(asyncio.get_running_loop())

        self.connect(receiver)

        async def main() -> tuple[Any, Any]:
            await RedisPublisher(facility="news", broadcast=True).apublish_message("hello")
            return asyncio.get_running_loop(), threading.current_thread()

        loop, thread = asyncio.run(main())
        self.assertEqual(loops, [loop])
        self.assertIsNot(self.told[0]["thread"], thread)


class FaultTests(SignalTestCase):
    def test_a_receiver_that_raises_is_logged_and_the_others_are_told(self) -> None:
        def fail(**told: Any) -> None:
            raise RuntimeError("receiver")

        self.connect(fail)
        self.listen()
        publisher = RedisPublisher(facility="news", broadcast=True)
        for publish in (
            lambda: publisher.publish_message("hello"),
            lambda: async_to_sync(publisher.apublish_message)("hello"),
        ):
            with self.assertLogs("django.dispatch", logging.ERROR):
                self.assertEqual(publish(), 1)
        self.assertEqual(len(self.told), 2)

    def test_the_error_of_a_publish_is_raised_whatever_receivers_do(self) -> None:
        def fail(**told: Any) -> None:
            raise RuntimeError("receiver")

        self.connect(fail)
        self.published.fail_next()
        with self.assertLogs("django.dispatch", logging.ERROR):
            self.assertRaises(BrokerUnavailable, self.publish, broadcast=True)


class CostTests(SignalTestCase):
    def test_nobody_connected_nothing_computed(self) -> None:
        forbidden = dict.fromkeys(("_caller", "_for_people", "Scheduled", "time"))
        publisher = RedisPublisher(facility="news", broadcast=True)
        with patch.multiple(publish_signal, **forbidden):
            publisher.publish_message("1")
            async_to_sync(publisher.apublish_message)("2")
            with transaction.atomic():
                publisher.publish_message("3", on_commit=True)
        self.assertEqual(len(self.published.messages), 3)
