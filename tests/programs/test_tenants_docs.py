"""The guide to tenants is true: its blocks are run."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from tests.support.pages import DOCS, blocks_of

set_up_django()

from django.db import connection
from django.test import RequestFactory, override_settings

import ws4redis_tx
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.testing import capture_messages

BLOCKS = blocks_of(DOCS / "tenants.md")


class BlockTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        beginnings = ["WS4REDIS_TENANT =", "def tenant_of", "from django.db", "RedisPublisher("]
        self.assertEqual(len(BLOCKS), len(beginnings))
        for block, beginning in zip(BLOCKS, beginnings, strict=True):
            self.assertEqual(block.language, "python", block.where)
            self.assertTrue(block.code.startswith(beginning), block.where)

    def tenant_of(self, number: int) -> Any:
        names: dict[str, Any] = {}
        exec(BLOCKS[number].code, names)
        return names["tenant_of"]

    def test_the_setting_names_the_function(self) -> None:
        names: dict[str, Any] = {}
        exec(BLOCKS[0].code, names)
        self.assertTrue(names["WS4REDIS_TENANT"].endswith(".tenant_of"))

    @override_settings(ALLOWED_HOSTS=[".example.com"])
    def test_the_host_tells_the_tenant(self) -> None:
        request = RequestFactory(HTTP_HOST="acme.example.com").get("/")
        self.assertEqual(self.tenant_of(1)(request), "acme")

    @override_settings(ALLOWED_HOSTS=[".example.com"])
    def test_django_tenants(self) -> None:
        """With a stand-in for the library, which needs PostgreSQL."""
        acme = SimpleNamespace(schema_name="acme_schema")
        domains = {"acme.example.com": SimpleNamespace(tenant=acme)}
        utils = ModuleType("django_tenants.utils")
        utils.remove_www = lambda host: host.removeprefix("www.")  # type: ignore[attr-defined]
        utils.get_tenant_domain_model = lambda: SimpleNamespace(  # type: ignore[attr-defined]
            objects=SimpleNamespace(get=lambda domain: domains[domain])
        )
        library = {"django_tenants": ModuleType("django_tenants"), "django_tenants.utils": utils}
        chosen: list[Any] = []
        request = RequestFactory(HTTP_HOST="www.acme.example.com:8000").get("/")
        with patch.dict(sys.modules, library):
            connection.set_tenant = chosen.append
            self.addCleanup(delattr, connection, "set_tenant")
            self.assertEqual(self.tenant_of(2)(request), "acme_schema")
        self.assertEqual(chosen, [acme])

    @override_settings(WS4REDIS_TENANT=lambda request: "bolt")
    def test_publishing(self) -> None:
        request = RequestFactory().get("/")
        with capture_messages() as captured:
            exec(
                BLOCKS[3].code,
                {"RedisPublisher": RedisPublisher, "request": request, "ws4redis_tx": ws4redis_tx},
            )
        for tenant in ("acme", "bolt"):
            captured.assert_published(
                "hello", tenant=tenant, facility="news", users=["john"], times=1
            )
