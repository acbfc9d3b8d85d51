"""Tests of Django views that publish. They capture the messages and need no Redis.

In a project's own tests the settings already exist, and you can use ``django.test.TestCase`` in
place of trial's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import django
from django.conf import settings
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.testing import capture_messages

if not settings.configured:
    settings.configure(
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "ws4redis_tx"],
        ALLOWED_HOSTS=["testserver"],
    )
    django.setup()

from django.contrib.auth.models import User
from django.test import RequestFactory

from . import orders


class OrderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())

    def request(self, username: str = "john") -> Any:
        request = RequestFactory().get("/", {"order": "7"})
        request.user = User(username=username)
        return request

    def test_a_shipped_order_notifies_its_customer_and_the_staff(self) -> None:
        orders.ship(self.request())
        self.published.assert_published(
            "Your order is on its way.", facility="orders", users=["john"]
        )
        self.published.assert_published(
            json={"state": "shipped", "order": "7"}, groups=["staff"], expire=0, times=1
        )

    def test_a_shipped_order_notifies_nobody_else(self) -> None:
        orders.ship(self.request())
        self.published.assert_not_published(broadcast=True)
        self.assertEqual(len(self.published.messages), 2)
        self.assertEqual(self.published.messages[1].json()["order"], "7")

    def test_an_order_is_shipped_while_redis_is_away(self) -> None:
        self.published.fail_next()
        self.assertIn(b"not everybody knows", orders.ship(self.request()).content)
        self.published.assert_not_published()

    def test_an_async_view_publishes_too(self) -> None:
        asyncio.run(orders.cancel(self.request()))
        message = self.published.assert_published(facility="orders", broadcast=True)
        self.assertIn("cancelled", message.text)

    def test_the_last_news_is_the_last_published_message(self) -> None:
        self.assertEqual(orders.last_news(self.request()).content, b"no news")
        orders.ship(self.request())
        self.assertEqual(orders.last_news(self.request()).content, b"Your order is on its way.")
        self.assertEqual(orders.last_news(self.request("mary")).content, b"no news")
