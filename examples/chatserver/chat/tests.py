"""Tests of the messages that a site publishes: ``python manage.py test``.

``PublishingTests`` need no Redis and no server: they capture the messages that the views publish.
``LiveTests`` use a real server, a real Redis, and websockets of clients that are logged in.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from urllib.request import urlopen

import websocket
from django.contrib.auth.models import Group, User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import TestCase

from ws4redis_tx.testing import LiveServer, capture_messages


class PublishingTests(TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        cls.john, cls.mary = (User.objects.create_user(name) for name in ("john", "mary"))
        cls.john.groups.add(Group.objects.create(name="chatters"))

    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())
        self.client.force_login(self.john)

    def test_a_message_to_mary_goes_to_her_alone(self) -> None:
        self.client.post("/user/", {"user": "mary", "message": "hello"})
        self.published.assert_published("john: hello", facility="foobar", users=["mary"], times=1)

    def test_a_message_to_all_goes_to_everybody(self) -> None:
        self.client.post("/broadcast/", {"message": "hello"})
        self.published.assert_published("john: hello", broadcast=True)

    def test_only_members_may_write_to_the_group(self) -> None:
        self.client.force_login(self.mary)
        refused = self.client.post("/group/", {"group": "chatters", "message": "hello"})
        self.assertEqual(refused.status_code, HTTPStatus.FORBIDDEN)
        self.published.assert_not_published()

    def test_a_message_that_is_not_sent_is_kept_in_the_form(self) -> None:
        self.published.fail_next()
        page = self.client.post("/broadcast/", {"message": "hello"})
        self.assertContains(
            page, "Your message was not sent", status_code=HTTPStatus.SERVICE_UNAVAILABLE
        )
        self.assertContains(page, "hello", status_code=HTTPStatus.SERVICE_UNAVAILABLE)


class LiveTests(LiveServer, StaticLiveServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.mary = User.objects.create_user("mary")
        self.client.force_login(User.objects.create_user("john"))

    def open(self, url: str, cookies: str) -> websocket.WebSocket:
        client = websocket.create_connection(
            url, cookie=cookies, origin=self.live_server_url, timeout=20
        )
        self.addCleanup(client.close)
        return client

    def test_messages_arrive_at_the_url_on_the_page(self) -> None:
        with urlopen(f"{self.live_server_url}/broadcast/") as page:
            (url,) = re.findall(r'data-websocket="([^"]+)"', page.read().decode())
        guest = self.open(url, cookies="")
        self.client.post("/broadcast/", {"message": "hello"})
        self.assertEqual(guest.recv(), "john: hello")

    def test_a_message_to_mary_arrives_in_her_browser(self) -> None:
        browser = self.client_class()
        browser.force_login(self.mary)
        mary = self.open(
            self.websocket_url("foobar", "subscribe-user"), self.cookie_header(browser)
        )
        self.client.post("/user/", {"user": "mary", "message": "hello"})
        self.assertEqual(mary.recv(), "john: hello")
