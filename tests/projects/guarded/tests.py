"""Run by ``tests/programs/test_guardian.py`` with ``django test``."""

from __future__ import annotations

from typing import Any

import websocket
from django.contrib.auth.models import Group, User
from django.test import LiveServerTestCase
from guardian.shortcuts import assign_perm, remove_perm

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.testing.live import LiveServer


class PermissionTests(LiveServer, LiveServerTestCase):
    def connect(self, team: Any) -> Any:
        url = self.websocket_url(f"teams/{team}", "subscribe-broadcast")
        client = websocket.create_connection(url, cookie=self.cookie_header(), timeout=20)
        self.addCleanup(client.close)
        return client

    def assert_refused(self, team: Any) -> None:
        with self.assertRaises(websocket.WebSocketBadStatusException) as caught:
            self.connect(team)
        self.assertEqual(caught.exception.status_code, 403)

    def test_the_permission_for_the_object_decides(self) -> None:
        red, blue = (Group.objects.create(name=name) for name in ("red", "blue"))
        mary = User.objects.create_user("mary")
        assign_perm("auth.view_group", mary, red)
        self.assert_refused(red.pk)  # nobody is logged in
        self.client.force_login(mary)
        client = self.connect(red.pk)
        RedisPublisher(facility=f"teams/{red.pk}", broadcast=True).publish_json({"goals": 3})
        self.assertEqual(client.recv(), '{"goals":3}')
        for other in (blue.pk, 10**6, 0):
            self.assert_refused(other)
        remove_perm("auth.view_group", mary, red)
        self.assert_refused(red.pk)

    def test_a_groups_permission_counts_too(self) -> None:
        red, fans = (Group.objects.create(name=name) for name in ("red", "fans"))
        mary = User.objects.create_user("mary")
        assign_perm("auth.view_group", fans, red)
        self.client.force_login(mary)
        self.assert_refused(red.pk)
        mary.groups.add(fans)
        self.connect(red.pk)
