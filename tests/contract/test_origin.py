"""The contract, section 2: Origin."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.django import set_up_django
from tests.support.memory import WebSocketTests
from tests.support.sites import ContractTestCase
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.errors import ConfigError, Denied
from ws4redis_tx.core.handshake import judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.core.origins import OriginPolicy

set_up_django()

from django.test import override_settings

from ws4redis_tx.config import django_settings


class OriginTests(WebSocketTests):
    """2. Websocket: Origin"""

    def judge(self, host: str, origin: str | None, secure: bool = False, **policy: Any) -> int:
        """The status of a refusal, 101 if there is none."""
        data = handshake_bytes(Host=host, Origin=origin).removesuffix(b"\r\n\r\n")
        handshake = judge_request(read_request(data), "/ws/", secure=secure, peer="")
        try:
            OriginPolicy(allowed_hosts=("*",), **policy).check(handshake)
        except Denied as denied:
            return denied.status
        return 101

    def test_host_and_port_equal_the_host_headers(self) -> None:
        for host, origin, expected in (
            ("a.example", "http://a.example", 101),
            ("a.example", "http://a.example:80", 101),
            ("a.example:80", "http://a.example", 101),
            ("a.example:8000", "http://a.example:8000", 101),
            ("A.example", "http://a.EXAMPLE", 101),
            ("[::1]:8000", "http://[::1]:8000", 101),
            ("a.example", "http://b.example", 403),
            ("a.example", "http://a.example.b", 403),
            ("a.example", "http://a.example:8000", 403),
            ("a.example:8000", "http://a.example", 403),
            ("a.example:443", "https://a.example", 101),
        ):
            self.assertEqual(self.judge(host, origin), expected, (host, origin))

    def test_https_on_a_plain_listener_is_accepted_http_on_a_tls_listener_is_not(self) -> None:
        self.assertEqual(self.judge("a.example", "https://a.example"), 101)
        self.assertEqual(self.judge("a.example", "https://a.example", secure=True), 101)
        self.assertEqual(self.judge("a.example", "http://a.example", secure=True), 403)
        self.assertEqual(self.judge("a.example:80", "http://a.example", secure=True), 403)

    def test_csrf_trusted_origins_and_allowed_origins_are_allowed_too(self) -> None:
        with override_settings(
            CSRF_TRUSTED_ORIGINS=["https://trusted.example"],
            WS4REDIS_ALLOWED_ORIGINS=["https://*.example.com", "http://b.example:81"],
        ):
            origins = django_settings.server_config().allowed_origins
        for origin, expected in (
            ("https://trusted.example", 101),
            ("https://a.example.com", 101),
            ("https://a.b.example.com:443", 101),
            ("http://b.example:81", 101),
            ("https://example.com", 403),
            ("http://a.example.com", 403),
            ("https://aexample.com", 403),
            ("https://a.example.com.evil", 403),
            ("http://b.example", 403),
        ):
            self.assertEqual(self.judge("h", origin, allowed_origins=origins), expected, origin)

    def test_there_are_no_regular_expressions_and_a_star_allows_all(self) -> None:
        for wrong in ("https://.*", "https://a*.example", "*.example"):
            with self.assertRaises(ConfigError):
                OriginPolicy((wrong,))
        for text in ("https://(a|b).example", "https://..example", "https://a.example$"):
            self.assertEqual(self.judge("h", "https://a.example", allowed_origins=(text,)), 403)
        self.assertEqual(self.judge("h", "http://any.example", allowed_origins=("*",)), 101)

    def test_null_and_malformed_ones_are_refused_even_then(self) -> None:
        for origin in (
            "null",
            "",
            "a.example",
            "http://",
            "http://a/b",
            "http://a b",
            "http://a,b",
        ):
            for origins in ((), ("*",)):
                self.assertEqual(self.judge("a", origin, allowed_origins=origins), 403, origin)

    def test_a_missing_one_is_let_in_unless_it_is_required(self) -> None:
        self.assertEqual(self.judge("a.example", None), 101)
        self.assertEqual(self.judge("a.example", None, require_origin=True), 403)
        with override_settings(WS4REDIS_REQUIRE_ORIGIN=True):
            self.assertTrue(django_settings.server_config().require_origin)


class OriginLogTests(ContractTestCase):
    """2. Websocket: Origin"""

    @inlineCallbacks
    def test_the_log_line_of_a_403_names_origin_host_and_the_setting(self) -> Any:
        yield self.serve()
        lines = self.log_lines()
        yield self.refusal(Origin="https://evil.example")
        line = next(line for line in lines if "evil.example" in line)
        self.assertIn(f"127.0.0.1:{self.port}", line)
        self.assertIn("WS4REDIS_ALLOWED_ORIGINS", line)
