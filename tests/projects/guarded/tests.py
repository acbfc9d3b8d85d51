"""Run by ``tests/programs/test_guardian.py`` with ``django test``."""

from __future__ import annotations

from typing import Any

import websocket
from django.contrib.auth.models import Group, User
from django.test import LiveServerTestCase
from guardian.shortcuts import assign_perm, remove_perm
from shop.models import Order

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.testing.live import LiveServer


class PermissionTests(LiveServer, LiveServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.mine, self.other = Order.objects.create(), Order.objects.create()
        self.mary = User.objects.create_user("mary")

    def connect(self, facility: str) -> Any:
        url = self.websocket_url(facility, "subscribe-broadcast")
        client = websocket.create_connection(url, cookie=self.cookie_header(), timeout=20)
        self.addCleanup(client.close)
        return client

    def assert_refused(self, facility: str) -> None:
        with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
            self.connect(facility)
        self.assertEqual(caught.exception.status_code, 403)

    def test_the_permission_for_the_object_decides(self) -> None:
        mine = f"orders/{self.mine.pk}"
        assign_perm("shop.view_order", self.mary, self.mine)
        self.assert_refused(mine)  # nobody is logged in
        self.client.force_login(self.mary)
        client = self.connect(mine)
        RedisPublisher(facility=mine, broadcast=True).publish_json({"paid": True})
        self.assertEqual(client.recv(), '{"paid":true}')
        for other in (self.other.pk, 10**6, 0):
            self.assert_refused(f"orders/{other}")
        remove_perm("shop.view_order", self.mary, self.mine)
        self.assert_refused(mine)

    def test_a_groups_permission_counts_too(self) -> None:
        fans = Group.objects.create(name="fans")
        assign_perm("shop.view_order", fans, self.mine)
        self.client.force_login(self.mary)
        self.assert_refused(f"orders/{self.mine.pk}")
        self.mary.groups.add(fans)
        self.connect(f"orders/{self.mine.pk}")

    def test_the_other_rule_and_no_rule(self) -> None:
        self.client.force_login(self.mary)
        self.assert_refused("staff/a/b")
        self.connect("news")
        self.mary.is_staff = True
        self.mary.save()
        self.connect("staff/a/b")
