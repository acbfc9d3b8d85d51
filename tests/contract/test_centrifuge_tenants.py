"""The contract, sections 1 and 8: tokens of several tenants in one process, over the wire."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from tests.support import TIMEOUT
from tests.support.centrifuge import CentrifugeClient, open_centrifuge
from tests.support.clients import open_websocket
from tests.support.django import cookies_of, in_thread, log_in, set_up_django
from tests.support.sites import ContractTestCase

set_up_django()

from django.contrib.auth.models import User

from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.tokens import connection_token, subscription_token

RED, BLUE = "red", "blue"


def of(tenant: str) -> dict[str, str]:
    return {"X-Tenant": tenant}


def allow_none(request: Any, rights: list[str]) -> list[str]:
    """Only tokens give rights."""
    return []


class TenantTokenTests(ContractTestCase):
    """Each tenant has its own John."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.serve(
            WS4REDIS_CENTRIFUGE_URL="/connection/",
            WS4REDIS_TENANT=lambda request: request.headers.get("X-Tenant", ""),
            WS4REDIS_ALLOWED_CHANNELS=allow_none,
            WS4REDIS_ALLOWED_ORIGINS="*",
        )
        self.cookies = cookies_of((yield log_in("john")))
        self.lines = self.log_lines()

    def token(self, tenant: str | None, **options: Any) -> Any:
        def make() -> str:
            john = User.objects.get(username="john")
            return connection_token(john, tenant=tenant, **options)

        return in_thread(make)

    def channel_token(self, tenant: str, channel: str = "broadcast:news") -> Any:
        def make() -> str:
            john = User.objects.get(username="john")
            return subscription_token(channel, john, tenant=tenant)

        return in_thread(make)

    @inlineCallbacks
    def connect(self, tenant: str, **options: Any) -> Any:
        client = yield open_centrifuge(self.port, headers=of(tenant), **options)
        self.addCleanup(self._close, client.websocket)
        return client

    @inlineCallbacks
    def assert_ends(self, code: int, client: Any, **command: Any) -> Any:
        client.send(command)
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), code)

    def assert_told_once(self, text: str) -> None:
        self.assertEqual(len([line for line in self.lines if text in line]), 1, self.lines)
        self.lines.clear()

    @inlineCallbacks
    def assert_hears(self, client: Any, tenant: str) -> Any:
        """Check that a client hears what is published to all of its tenant, and that alone."""
        for each in (RED, BLUE):
            yield in_thread(
                lambda tenant=each: RedisPublisher(
                    facility="news", broadcast=True, tenant=tenant
                ).publish_message(f'"{tenant}"')
            )
        self.assertEqual((yield client.data()), tenant)
        yield client.ask("unsubscribe", channel="nothing")
        self.assertFalse(client.pushes)

    @inlineCallbacks
    def test_one_s_own_connects_and_is_the_right_to_its_channels_of_this_tenant(self) -> Any:
        for tenant in (RED, BLUE):
            text = yield self.token(tenant, channels=["broadcast:news"])
            client = yield self.connect(tenant, connect={"token": text})
            self.assertEqual(list(client.welcome["subs"]), ["broadcast:news"])
            yield self.assert_hears(client, tenant)
            more = yield self.token(tenant, channels=["broadcast:news", "user:inbox"])
            self.assertIn("ttl", (yield client.ask("refresh", token=more)))
            self.assertIn("subscribe", (yield client.push()))
            channels = {each for each in self.channels() if each.endswith("john:inbox")}
            self.assertIn(f"t:{tenant}:user:john:inbox", channels)
        self.assertEqual([line for line in self.lines if "token" in line], [])

    @inlineCallbacks
    def test_another_tenant_s_is_refused_and_the_log_names_the_claim(self) -> Any:
        text = yield self.token(BLUE)
        for options in ({}, {"cookies": self.cookies}):
            url = f"ws://127.0.0.1:{self.port}/connection/websocket"
            client = CentrifugeClient((yield open_websocket(url, headers=of(RED), **options)))
            yield self.assert_ends(3500, client, connect={"token": text})
        told = [line for line in self.lines if "tenant" in line]
        self.assertTrue(told, self.lines)
        self.assertIn("A client's token was refused", told[0])
        self.assertFalse([line for line in self.lines if text in line])
        self.assertEqual(self.channels(), set())

    @inlineCallbacks
    def test_nor_does_a_connection_take_it_later(self) -> Any:
        client = yield self.connect(RED, connect={"token": (yield self.token(RED))})
        yield self.assert_ends(3500, client, refresh={"token": (yield self.token(BLUE))})
        self.assert_told_once("tenant")

    @inlineCallbacks
    def test_a_subscription_s_is_the_right_to_this_tenant_s_channel_alone(self) -> Any:
        for tenant in (RED, BLUE):
            client = yield self.connect(tenant, cookies=self.cookies)
            self.assertEqual((yield client.subscribe("broadcast:news")), 103)
            own = yield self.channel_token(tenant)
            others = yield self.channel_token(BLUE if tenant == RED else RED)
            self.assertEqual((yield client.subscribe("broadcast:news", token=others)), 103)
            self.assertIn("ttl", (yield client.subscribe("broadcast:news", token=own)))
            yield self.assert_hears(client, tenant)
            self.assertEqual(
                (yield client.ask("sub_refresh", channel="broadcast:news", token=others)), 103
            )
        self.assertTrue([line for line in self.lines if "refused" in line and "tenant" in line])
