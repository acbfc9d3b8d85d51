"""The contract, section 4: JSON, templates, and the transaction that a message waits for."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import inspect
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.support.django import in_thread, set_up_django
from ws4redis_tx.testing import CapturedMessages, capture_messages

set_up_django()

from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, transaction
from django.template import TemplateDoesNotExist
from django.test import RequestFactory, modify_settings, override_settings

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher

PAGES = {
    "row.html": "<li>{{ order }}</li>",
    "who.html": "{{ request.path }} {{ who }}",
    "users.html": "{% for user in users %}{{ user.username }}{% endfor %}",
    "error.html": "{{ order.broken }}",
    "orders.html": "<ul>{% partialdef row %}<li>{{ order }}</li>{% endpartialdef %}</ul>",
}
DJANGO_6 = django.VERSION >= (6, 0)


def who(request: Any) -> dict[str, str]:
    """A context processor."""
    return {"who": f"at {request.path}"}


def templates(loader: str = "django.template.loaders.locmem.Loader", **options: Any) -> Any:
    pages = {name: text for name, text in PAGES.items() if DJANGO_6 or name != "orders.html"}
    if loader.startswith("template_partials"):
        options["builtins"] = ["template_partials.templatetags.partials"]
        loaders: Any = [(loader, [("django.template.loaders.locmem.Loader", PAGES)])]
    else:
        loaders = [(loader, pages)]
    processors = ["django.template.context_processors.request", f"{__name__}.who"]
    options |= {"loaders": loaders, "context_processors": processors}
    backend = "django.template.backends.django.DjangoTemplates"
    return override_settings(TEMPLATES=[{"BACKEND": backend, "OPTIONS": options}])


class Order:
    def __str__(self) -> str:
        return "a & b"

    @property
    def broken(self) -> str:
        raise ZeroDivisionError


class ContentsTests(SynchronousTestCase):
    published: CapturedMessages

    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())
        self.enterContext(templates())

    @property
    def publisher(self) -> RedisPublisher:
        return RedisPublisher(facility="f", broadcast=True)

    def texts(self) -> list[str]:
        return [each.payload.decode() for each in self.published.messages]


class JSONTests(ContentsTests):
    def test_it_is_json_as_django_encodes_it(self) -> None:
        number = uuid.uuid4()
        day = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
        name = "é\u2028\ud800"
        data = {"id": number, "at": day, "price": decimal.Decimal("1.50"), "name": name}
        self.publisher.publish_json(data)
        (text,) = self.texts()
        self.assertEqual(
            json.loads(text),
            {"id": str(number), "at": "2026-01-02T03:04:05Z", "price": "1.50", "name": name},
        )
        self.assertNotIn("\n", text)
        text.encode("ascii")  # whatever the client makes of it

    def test_anything_that_is_json_is_a_message(self) -> None:
        for data in ([1, 2], "text", 5, None, True, {}, ""):
            self.publisher.publish_json(data)
            self.assertEqual(json.loads(self.texts()[-1]), data)

    def test_another_encoder_is_taken(self) -> None:
        class Encoder(DjangoJSONEncoder):
            def default(self, value: Any) -> Any:
                return str(value) if isinstance(value, Order) else super().default(value)

        self.publisher.publish_json([Order()], Encoder)
        self.assertEqual(self.texts(), ['["a & b"]'])

    def test_what_no_browser_could_read_is_an_error(self) -> None:
        for data in (float("nan"), [float("inf")]):
            self.assertRaises(ValueError, self.publisher.publish_json, data)
        for unknown in (Order(), {Order()}, User.objects.all()):
            error = self.assertRaises(TypeError, self.publisher.publish_json, unknown)
            self.assertIn("not JSON serializable", str(error))
        self.assertEqual(self.texts(), [])

    def test_data_given_as_a_message_is_told_of_publish_json(self) -> None:
        error = self.assertRaises(TypeError, self.publisher.publish_message, {"a": 1})
        self.assertIn("publish_json", str(error))
        coming = self.publisher.apublish_message({"a": 1})  # type: ignore[arg-type]
        self.assertIn("publish_json", str(self.assertRaises(TypeError, asyncio.run, coming)))


class TemplateTests(ContentsTests):
    def test_it_is_rendered_and_escaped(self) -> None:
        self.publisher.publish_template("row.html", {"order": Order()})
        self.publisher.publish_template("row.html")
        self.assertEqual(self.texts(), ["<li>a &amp; b</li>", "<li></li>"])

    def test_with_a_request_it_has_the_context_processors_values(self) -> None:
        request = RequestFactory().get("/page")
        for given, text in ((request, "/page at /page"), (None, " ")):
            publisher = RedisPublisher(request=given, facility="f", broadcast=True)
            publisher.publish_template("who.html", {})
            self.assertEqual(self.texts()[-1], text)

    def test_it_is_rendered_at_the_call_and_not_on_commit(self) -> None:
        order = ["old"]
        with transaction.atomic():
            self.publisher.publish_template("row.html", {"order": order[0]}, on_commit=True)
            context = {"order": order}
            self.publisher.publish_template("row.html", context, on_commit=True)
            order[0] = "new"
            self.assertRaises(
                ZeroDivisionError,
                self.publisher.publish_template, "error.html", {"order": Order()}, on_commit=True,
            )  # fmt: skip
            self.assertEqual(self.texts(), [])
        self.assertEqual(self.texts(), ["<li>old</li>", "<li>[&#x27;old&#x27;]</li>"])

    def test_an_unknown_one_is_djangos_error(self) -> None:
        error = self.assertRaises(TemplateDoesNotExist, self.publisher.publish_template, "no.html")
        self.assertEqual(str(error), "no.html")


class PartialTests(ContentsTests):
    def test_a_partial_is_rendered_where_django_has_them(self) -> None:
        if not DJANGO_6:
            raise SkipTest("It needs Django 6.0.")
        self.publisher.publish_template("orders.html#row", {"order": Order()})
        self.assertEqual(self.texts(), ["<li>a &amp; b</li>"])
        self.assertRaises(TemplateDoesNotExist, self.publisher.publish_template, "orders.html#no")

    def test_where_it_has_none_the_remedy_is_told(self) -> None:
        if DJANGO_6:
            raise SkipTest("It needs a Django before 6.0.")
        error = self.assertRaises(
            TemplateDoesNotExist, self.publisher.publish_template, "row.html#row"
        )
        for word in ("row.html#row", "Django 6.0", "'template_partials'", "INSTALLED_APPS"):
            self.assertIn(word, str(error))
        self.assertTrue(error.chain or error.tried)  # the places where Django has looked

    def test_the_app_that_older_ones_can_have_is_enough(self) -> None:
        if DJANGO_6:
            raise SkipTest("It needs a Django before 6.0.")
        try:
            import template_partials  # noqa: F401
        except ImportError:
            raise SkipTest("pip install django-template-partials") from None
        app = "template_partials.apps.SimpleAppConfig"
        with (
            modify_settings(INSTALLED_APPS={"append": [app]}),
            templates("template_partials.loader.Loader"),
        ):
            self.publisher.publish_template("orders.html#row", {"order": Order()})
            error = self.assertRaises(
                TemplateDoesNotExist, self.publisher.publish_template, "orders.html#no"
            )
        self.assertEqual(self.texts(), ["<li>a &amp; b</li>"])
        self.assertNotIn("Django 6.0", str(error))


class OptionTests(ContentsTests):
    """What ``publish_message`` takes, these take."""

    def test_they_have_its_arguments(self) -> None:
        names = ("expire", "on_commit", "using", "idempotency_key")
        for twin, taken in (("", names), ("a", ("expire", "idempotency_key"))):
            expected = inspect.signature(getattr(RedisPublisher, f"{twin}publish_message"))
            for kind in ("json", "template"):
                given = inspect.signature(getattr(RedisPublisher, f"{twin}publish_{kind}"))
                for name in taken:
                    self.assertEqual(given.parameters[name], expected.parameters[name], kind)
                self.assertEqual(len(given.parameters), 3 + len(taken))

    def test_they_are_passed_on(self) -> None:
        call: Any
        for call, given in (
            (self.publisher.publish_json, 1), (self.publisher.publish_template, "row.html"),
        ):  # fmt: skip
            for _ in range(2):
                call(given, expire=7, idempotency_key=f"key {given}")
        self.assertEqual([each.expire for each in self.published.messages], [7, 7])
        self.published.fail_next()
        self.assertRaises(BrokerUnavailable, self.publisher.publish_json, 1)

    def test_they_return_what_it_returns(self) -> None:
        published = self.publisher.publish_json(1)
        self.assertTrue(hasattr(published, "position"))


class AsyncTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_the_twins_publish_on_an_event_loop(self) -> Any:
        async def view() -> None:
            publisher = RedisPublisher(facility="f", broadcast=True)
            await publisher.apublish_json([1], expire=7, idempotency_key="a")
            await publisher.apublish_template("row.html", {"order": Order()}, expire=8)
            users = User.objects.filter(username="john")
            await publisher.apublish_template("users.html", {"users": users})

        with templates(), capture_messages() as published:
            yield in_thread(asyncio.run, view())
        self.assertEqual(
            [(each.payload, each.expire) for each in published.messages],
            [(b"[1]", 7), (b"<li>a &amp; b</li>", 8), (b"john", 3600)],
        )

    @inlineCallbacks
    def test_there_the_others_name_them(self) -> Any:
        async def view(name: str) -> None:
            publisher = RedisPublisher(facility="f", broadcast=True)
            with self.assertRaises(RuntimeError) as caught:
                getattr(publisher, f"publish_{name}")("row.html")
            self.assertIn("await publisher.apublish", str(caught.exception))

        with templates():
            for name in ("json", "template"):
                yield in_thread(asyncio.run, view(name))


@contextmanager
def another_database() -> Iterator[None]:
    databases = connections.settings
    databases["other"] = databases["default"]
    try:
        yield
    finally:
        connections["other"].close()
        del databases["other"], connections["other"]


class DatabaseTests(ContentsTests):
    def setUp(self) -> None:
        super().setUp()
        self.enterContext(another_database())

    def calls(self) -> Iterator[Any]:
        publisher = self.publisher
        yield lambda **options: publisher.publish_message("hi", **options)
        yield lambda **options: publisher.pipeline_publish_message("hi", **options)
        yield lambda **options: publisher.publish_json("hi", **options)
        yield lambda **options: publisher.publish_template("row.html", {}, **options)

    def test_it_waits_for_the_transaction_of_the_database_that_is_named(self) -> None:
        for call in self.calls():
            self.published.clear()
            with transaction.atomic(using="other"):
                with transaction.atomic():
                    self.assertEqual(call(on_commit=True, using="other"), 0)
                self.assertEqual(self.texts(), [])  # the default database has committed
            self.assertEqual(len(self.texts()), 1)

    def test_the_default_is_the_default_database(self) -> None:
        with transaction.atomic(using="other"):
            with transaction.atomic():
                self.publisher.publish_message("hi", on_commit=True)
                self.assertEqual(self.texts(), [])
            self.assertEqual(self.texts(), ["hi"])

    def test_nothing_is_published_if_that_transaction_rolls_back(self) -> None:
        for call in self.calls():
            with self.assertRaises(ZeroDivisionError), transaction.atomic(using="other"):
                call(on_commit=True, using="other")
                raise ZeroDivisionError
        self.assertEqual(self.texts(), [])

    def test_outside_of_one_it_publishes_at_once(self) -> None:
        with transaction.atomic():
            self.publisher.publish_message("hi", on_commit=True, using="other")
            self.assertEqual(self.texts(), ["hi"])

    def test_the_setting_counts_too(self) -> None:
        with override_settings(WS4REDIS_ON_COMMIT=True), transaction.atomic(using="other"):
            self.publisher.publish_message("hi", using="other")
            self.assertEqual(self.texts(), [])
        self.assertEqual(self.texts(), ["hi"])

    def test_an_unknown_database_is_named_with_those_that_are_known(self) -> None:
        for call in self.calls():
            error = self.assertRaises(ValueError, call, on_commit=True, using="others")
            for word in ("using='others'", "DATABASES", "'default'", "'other'"):
                self.assertIn(word, str(error))

    def test_a_database_without_on_commit_is_a_mistake(self) -> None:
        for call in self.calls():
            for options in ({}, {"on_commit": False}):
                error = self.assertRaises(ValueError, call, using="other", **options)
                self.assertIn("on_commit=True", str(error))
        self.assertEqual(self.texts(), [])
