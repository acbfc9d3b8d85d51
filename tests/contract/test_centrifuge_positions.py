"""The contract, section 6: the position on one channel at which a page's request began."""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import PermissionDenied
from twisted.internet.defer import inlineCallbacks

from tests.support.centrifuge import open_centrifuge
from tests.support.django import cookies_of, in_thread, log_in, set_up_django
from tests.support.servers import later
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.positions import read_position

set_up_django()

from django.contrib.auth.models import AnonymousUser, User
from django.core.signals import request_finished, request_started
from django.template import TemplateSyntaxError, engines
from django.test import RequestFactory

from ws4redis_tx.policies import allow_all
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.testing import capture_messages

TAG = "{% load ws4redis %}{% ws4redis_stream_position name %}"


def names(request: Any, name: str) -> str | None:
    if name == "hidden":
        raise PermissionDenied
    return {"#mine": "user:news", "headlines": "broadcast:news"}.get(name)


def render(name: str, request: Any = None) -> str:
    if request is None:
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
    return str(engines["django"].from_string(TAG).render({"name": name, "request": request}))


class StreamPositionTestCase(ContractTestCase):
    more: dict[str, Any] = {}

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.serve_centrifuge(
            WS4REDIS_HISTORY={"news": (3, 600)},
            WS4REDIS_ALLOWED_CHANNELS=allow_all,
            WS4REDIS_ALLOWED_ORIGINS="*",
            **self.more,
        )
        self.browser = yield log_in("john")

    def request(self, **headers: str) -> Any:
        """A request of John's to a view."""
        request: Any = RequestFactory(**dict[str, Any](headers)).get("/")
        request.user = User.objects.get(username="john")
        request.session = self.browser.session
        return request

    def view(self, name: str, *between: str, **headers: str) -> Any:
        """Fire with what the tag says, on a page behind whose query others publish. The messages
        go to all of John's channels.
        """

        def answer() -> str:
            request = self.request(**headers)
            request_started.send(sender=None)
            try:
                for message in between:
                    self.publisher(request).publish_message(message)
                return render(name, request)
            finally:
                request_finished.send(sender=None)

        return in_thread(answer)

    def publisher(self, request: Any) -> RedisPublisher:
        return RedisPublisher(
            request, "news", broadcast=True, users=["john"], groups=["chatters"],
            sessions=[self.browser.session.session_key],
        )  # fmt: skip

    def say(self, message: str, **headers: str) -> Any:
        return in_thread(lambda: self.publisher(self.request(**headers)).publish_message(message))

    @inlineCallbacks
    def connect(self, **options: Any) -> Any:
        client = yield open_centrifuge(self.port, cookies=cookies_of(self.browser), **options)
        self.addCleanup(self._close, client.websocket)
        return client

    @inlineCallbacks
    def assert_closes_the_gap(self, name: str, client: Any, **headers: str) -> Any:
        yield self.say('"before"', **headers)
        yield later()
        since = json.loads((yield self.view(name, '"between"', **headers)))
        answer = yield client.subscribe(name, recover=True, **since)
        yield self.say('"after"', **headers)
        self.assertTrue(answer["recovered"], name)
        # The position is a little earlier than the request: by the time that Redis took to answer.
        heard = [each["data"] for each in answer["publications"]]
        while "before" in heard:
            del heard[: heard.index("before") + 1]
        self.assertEqual(heard, ["between"], name)
        self.assertEqual((yield client.data()), "after", name)


class PageTests(StreamPositionTestCase):
    @inlineCallbacks
    def test_what_comes_between_a_view_s_query_and_the_page_s_subscribe_arrives_once(self) -> Any:
        for name in ("broadcast:news", "user:news", "session:news", "group:chatters:news"):
            yield self.assert_closes_the_gap(name, (yield self.connect()))

    @inlineCallbacks
    def test_that_is_so_on_a_channel_without_a_message(self) -> Any:
        client = yield self.connect()
        since = json.loads((yield self.view("broadcast:news")))
        self.assertEqual(since["offset"], 0)
        yield self.say('"first"')
        answer = yield client.subscribe("broadcast:news", recover=True, **since)
        self.assertTrue(answer["recovered"])
        self.assertEqual([each["data"] for each in answer["publications"]], ["first"])

    @inlineCallbacks
    def test_and_if_the_first_message_comes_while_the_page_is_made(self) -> Any:
        client = yield self.connect()
        yield in_thread(RedisPublisher.position)  # the data set has begun
        yield later()
        since = json.loads((yield self.view("broadcast:news", '"first"', '"second"')))
        answer = yield client.subscribe("broadcast:news", recover=True, **since)
        self.assertTrue(answer["recovered"])
        self.assertEqual([each["data"] for each in answer["publications"]], ["first", "second"])

    @inlineCallbacks
    def test_more_than_the_history_keeps_is_a_gap(self) -> Any:
        """It keeps three, and one more as a proof. No page is needed, whose position is not exact
        to the message.
        """
        commands, client = self.broker.commands, (yield self.connect())
        stamps = []
        for number in range(1, 7):
            published = yield self.publish(str(number), facility="news", broadcast=True)
            position = read_position(published.position)
            assert position is not None
            stamps.append(position)
            for known, position in enumerate(stamps, 1):
                earlier = position._replace(stamp=position.stamp - 1)
                for at, offset in ((position, known), (earlier, known - 1)):
                    found, epoch = yield commands.stream_at(b"broadcast:news", at)
                    missed = number - offset
                    self.assertEqual(found, offset if missed <= 3 else 0, (number, offset))
                    self.assertEqual(epoch, stamps[0].stamp)
                    answer = yield client.subscribe(
                        "broadcast:news", recover=True, offset=found, epoch=f"{epoch:x}"
                    )
                    self.assertIs(answer.get("recovered", False), missed <= 3, (number, offset))
                    self.assertEqual(
                        len(answer.get("publications", ())), missed if missed <= 3 else 0
                    )
                    yield client.ask("unsubscribe", channel="broadcast:news")

    @inlineCallbacks
    def test_what_was_forgotten_meanwhile_is_a_gap(self) -> Any:
        yield self.say("0")
        yield later()

        def forgetful() -> str:
            request = self.request()
            request_started.send(sender=None)
            self.publisher(request).publish_message("1")
            self.publisher(request).forget()
            self.publisher(request).publish_message("2")
            rendered = render("broadcast:news", request)
            request_finished.send(sender=None)
            return rendered

        since = json.loads((yield in_thread(forgetful)))
        client = yield self.connect()
        answer = yield client.subscribe("broadcast:news", recover=True, **since)
        self.assertFalse(answer.get("recovered", False))

    @inlineCallbacks
    def test_outside_of_a_request_it_is_the_present(self) -> Any:
        yield self.say("1")
        position = yield in_thread(render, "broadcast:news")
        client = yield self.connect()
        answer = yield client.subscribe("broadcast:news")
        self.assertEqual(
            json.loads(position), {"offset": answer["offset"], "epoch": answer["epoch"]}
        )

    @inlineCallbacks
    def test_a_position_needs_no_escaping(self) -> Any:
        position = yield in_thread(render, "broadcast:news")
        self.assertRegex(position, r'^\{"offset": \d+, "epoch": "-?[0-9a-f]+"\}$')


class MistakeTests(StreamPositionTestCase):
    @inlineCallbacks
    def test_a_name_that_cannot_work_says_so(self) -> Any:
        for name, reason in {
            "broadcast:chat": "WS4REDIS_HISTORY",
            "news": "'broadcast:news'",
            "user:john:news": "'broadcast:news'",
            "": "empty",
            "broadcast:" + "x" * 300: "255 bytes",
        }.items():
            with self.assertRaises((ValueError, TemplateSyntaxError)) as caught:
                yield in_thread(render, name)
            self.assertIn(reason, str(caught.exception), name)

    @inlineCallbacks
    def test_a_visitor_without_the_channel_gets_none(self) -> Any:
        for name in ("user:news", "session:news"):
            self.assertEqual((yield in_thread(render, name)), "null")

    @inlineCallbacks
    def test_a_page_is_rendered_without_it_when_redis_is_down(self) -> Any:
        yield self.lose_redis()
        with self.assertLogs("ws4redis_tx", "WARNING"):
            self.assertEqual((yield in_thread(render, "broadcast:news")), "null")

    @inlineCallbacks
    def test_captured_messages_have_no_history(self) -> Any:
        def rendered() -> str:
            with capture_messages():
                return render("broadcast:news")

        self.assertEqual((yield in_thread(rendered)), "null")

    @inlineCallbacks
    def test_on_an_event_loop_it_names_the_remedy(self) -> Any:
        async def view() -> str:
            return render("broadcast:news")

        from asgiref.sync import async_to_sync

        with self.assertRaises(RuntimeError) as caught:
            yield in_thread(async_to_sync(view))
        self.assertIn("sync_to_async", str(caught.exception))


class NameTests(StreamPositionTestCase):
    more = {"WS4REDIS_CENTRIFUGE_NAMES": names}

    @inlineCallbacks
    def test_an_application_s_own_names_are_those_of_the_client(self) -> Any:
        for name in ("#mine", "headlines"):
            yield self.assert_closes_the_gap(name, (yield self.connect()))
        for name, error in {"broadcast:news": ValueError, "hidden": PermissionDenied}.items():
            with self.assertRaises(error):
                yield in_thread(render, name)


class TenantTests(StreamPositionTestCase):
    more = {"WS4REDIS_TENANT": lambda request: request.headers.get("X-Tenant", "")}

    @inlineCallbacks
    def test_it_is_that_of_the_tenant_s_channel(self) -> Any:
        for tenant in ("red", "blue"):
            client = yield self.connect(headers={"X-Tenant": tenant})
            yield self.assert_closes_the_gap("user:news", client, HTTP_X_TENANT=tenant)
        yield self.say("1", HTTP_X_TENANT="red")
        offsets = []
        for tenant in ("red", "blue"):
            request = yield in_thread(lambda at=tenant: self.request(HTTP_X_TENANT=at))
            position = yield in_thread(render, "user:news", request)
            offsets.append(json.loads(position)["offset"])
        self.assertEqual(offsets, [4, 3])
