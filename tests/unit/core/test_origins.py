"""Host and Origin: the pages that may open a visitor's websocket, row by row."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import ConfigError, Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.origins import OriginPolicy


def handshake(host: str, origin: str | None = None, *, secure: bool = False) -> Handshake:
    headers = {"host": host} if origin is None else {"host": host, "origin": origin}
    return Handshake(
        path="/ws/f",
        query="",
        websocket_url="/ws/",
        flags=(),
        headers=headers,
        key="",
        subprotocols=(),
        secure=secure,
        peer="",
    )


class OriginTestCase(SynchronousTestCase):
    def status(self, policy: OriginPolicy, asked: Handshake) -> int:
        """The status of the answer; 101 if Host and Origin are allowed."""
        try:
            policy.check(asked)
        except Denied as denied:
            return denied.status
        return 101

    def assert_rows(
        self, policy: OriginPolicy, status: int, rows: Sequence[tuple[str, str]], *, secure: bool
    ) -> None:
        for host, origin in rows:
            with self.subTest(host=host, origin=origin, secure=secure):
                got = self.status(policy, handshake(host, origin, secure=secure))
                self.assertEqual(got, status, f"Host {host!r}, Origin {origin!r}, TLS {secure}")


class SameHostTests(OriginTestCase):
    """With no setting except ``ALLOWED_HOSTS = ['*']``, the Origin must equal the Host."""

    POLICY = OriginPolicy(allowed_hosts=["*"])

    def test_the_same_host_and_port_are_let_in_on_a_plain_listener(self) -> None:
        rows = [
            ("example.com", "http://example.com"),
            ("example.com:80", "http://example.com"),
            ("example.com", "http://example.com:80"),
            ("example.com:8000", "http://example.com:8000"),
            ("EXAMPLE.com", "HTTP://example.COM"),
            ("example.com.", "http://example.com"),
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("[::1]", "http://[::1]"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("[2001:DB8::1]:80", "http://[2001:db8::1]"),
        ]
        self.assert_rows(self.POLICY, 101, rows, secure=False)

    def test_an_https_origin_is_let_in_on_a_plain_listener_because_tls_ends_in_front(self) -> None:
        rows = [
            ("example.com", "https://example.com"),
            ("example.com:443", "https://example.com"),
            ("example.com", "https://example.com:443"),
            ("example.com:8443", "https://example.com:8443"),
            ("[::1]", "https://[::1]"),
        ]
        self.assert_rows(self.POLICY, 101, rows, secure=False)
        self.assert_rows(self.POLICY, 101, rows, secure=True)

    def test_an_http_origin_on_a_tls_listener_is_refused(self) -> None:
        rows = [
            ("example.com", "http://example.com"),
            ("example.com:80", "http://example.com"),
            ("example.com:443", "http://example.com:443"),
            ("example.com:8443", "http://example.com:8443"),
            ("[::1]", "http://[::1]"),
        ]
        self.assert_rows(self.POLICY, 403, rows, secure=True)

    def test_another_host_or_port_is_refused(self) -> None:
        rows = [
            ("example.com", "http://evil.example"),
            ("example.com", "https://evil.example"),
            ("example.com", "http://www.example.com"),
            ("www.example.com", "http://example.com"),
            ("example.com", "http://example.com.evil.example"),
            ("example.com", "http://evilexample.com"),
            ("example.com", "http://example.com:8000"),
            ("example.com:8000", "http://example.com"),
            ("example.com:8000", "http://example.com:8001"),
            ("example.com:80", "https://example.com"),
            ("example.com:443", "http://example.com"),
            ("example.com", "http://example.com:443"),
            ("localhost", "http://127.0.0.1"),
            ("[::1]", "http://[::2]"),
            ("[::1]:1", "http://[::1:1]"),
        ]
        self.assert_rows(self.POLICY, 403, rows, secure=False)

    def test_null_and_malformed_origins_are_refused(self) -> None:
        for policy in (self.POLICY, OriginPolicy(["*"], ["*"])):
            rows = [
                ("example.com", origin)
                for origin in (
                    "null",
                    "",
                    "*",
                    "example.com",
                    "//example.com",
                    "http://",
                    "http:example.com",
                    "http://example.com/",
                    "http://example.com/path",
                    "http://example.com?x",
                    "http://example.com#x",
                    "http://user@example.com",
                    "http://evil.example@example.com",
                    "http://example.com:",
                    "http://example.com:x",
                    "http://example.com:99999",
                    "http://example.com:-80",
                    "http://example.com http://evil.example",
                    "http://example.com, http://example.com",
                    "http://*.example.com",
                    "http://[example.com]",
                    "http://[::1",
                    "http://::1",
                    "file://",
                )
            ]
            self.assert_rows(policy, 403, rows, secure=False)

    def test_port_0_is_not_the_default_port(self) -> None:
        rows = [
            ("example.com", "http://example.com:0"),
            ("example.com", "https://example.com:0"),
        ]
        self.assert_rows(self.POLICY, 403, rows, secure=False)

    def test_an_origin_is_accepted_for_no_host_but_its_own_whatever_the_bytes(self) -> None:
        @settings(deadline=None, max_examples=200)
        @given(st.text(st.characters(max_codepoint=255), max_size=30))
        def check(text: str) -> None:
            for origin in (text, f"http://{text}", f"https://{text}.example.com"):
                status = self.status(self.POLICY, handshake("example.com", origin))
                if status == 101:
                    self.assertIn(
                        origin.lower().rstrip("."),
                        {
                            "http://example.com",
                            "https://example.com",
                            "http://example.com:80",
                            "https://example.com:443",
                        },
                    )
                else:
                    self.assertEqual(status, 403)

        check()


class MissingOriginTests(OriginTestCase):
    def test_a_client_without_an_origin_is_no_browser_and_is_let_in(self) -> None:
        for secure in (False, True):
            asked = handshake("example.com", secure=secure)
            self.assertEqual(self.status(OriginPolicy((), ["*"]), asked), 101)

    def test_it_is_refused_when_an_origin_is_required(self) -> None:
        for allowed in ((), ("*",), ("http://example.com",)):
            with self.subTest(allowed=allowed):
                policy = OriginPolicy(allowed, ["*"], require_origin=True)
                self.assertEqual(self.status(policy, handshake("example.com")), 403)

    def test_whoever_sends_one_is_judged_as_ever_when_it_is_required(self) -> None:
        policy = OriginPolicy((), ["*"], require_origin=True)
        for origin, status in (("http://example.com", 101), ("http://evil.example", 403)):
            self.assertEqual(self.status(policy, handshake("example.com", origin)), status)


class AllowedOriginTests(OriginTestCase):
    def test_an_exact_origin_is_let_in_with_its_scheme_and_port_alone(self) -> None:
        policy = OriginPolicy(["https://a.example", "http://b.example:8000"], ["api.example"])
        for origin, status in (
            ("https://a.example", 101),
            ("https://a.example:443", 101),
            ("HTTPS://A.example", 101),
            ("http://b.example:8000", 101),
            ("http://a.example", 403),
            ("https://a.example:8443", 403),
            ("https://www.a.example", 403),
            ("https://a.example.evil.example", 403),
            ("http://b.example", 403),
            ("https://b.example:8000", 403),
            ("http://b.example:80000", 403),
            ("null", 403),
        ):
            for secure in (False, True):
                self.assert_rows(policy, status, [("api.example", origin)], secure=secure)

    def test_a_wildcard_lets_in_subdomains_of_any_depth_and_not_the_domain_itself(self) -> None:
        policy = OriginPolicy(["https://*.example.com"], ["api.test"])
        for origin, status in (
            ("https://www.example.com", 101),
            ("https://a.b.example.com", 101),
            ("https://example.com", 403),
            ("https://evilexample.com", 403),
            ("https://www.example.com.evil.test", 403),
            ("http://www.example.com", 403),
            ("https://www.example.com:8443", 403),
            ("https://*.example.com", 403),
        ):
            self.assert_rows(policy, status, [("api.test", origin)], secure=False)

    def test_a_wildcard_with_a_port_means_that_port(self) -> None:
        policy = OriginPolicy(["https://*.example.com:8443"], ["api.test"])
        for origin, status in (
            ("https://www.example.com:8443", 101),
            ("https://www.example.com", 403),
        ):
            self.assert_rows(policy, status, [("api.test", origin)], secure=False)

    def test_an_allowed_ipv6_origin_is_let_in(self) -> None:
        policy = OriginPolicy(["http://[2001:db8::1]:8000"], ["api.test"])
        self.assert_rows(policy, 101, [("api.test", "http://[2001:DB8::1]:8000")], secure=False)

    def test_a_star_lets_in_every_origin(self) -> None:
        policy = OriginPolicy(["*"], ["api.test"])
        rows = [("api.test", "https://evil.example"), ("api.test", "http://[::1]:5")]
        self.assert_rows(policy, 101, rows, secure=False)
        self.assert_rows(policy, 101, rows, secure=True)

    def test_the_own_host_stays_let_in_beside_them(self) -> None:
        policy = OriginPolicy(["https://a.example"], ["api.example"])
        self.assert_rows(policy, 101, [("api.example", "http://api.example")], secure=False)

    def test_what_is_no_origin_is_a_config_error_that_names_setting_value_and_remedy(self) -> None:
        for text in (
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://*",
            "https://a.*.example.com",
            "https://user@example.com",
            "https://example.com:x",
            "https://example.com:99999",
            r"https://.*\.example\.com$",
            "null",
            " https://example.com",
            None,
            7,
        ):
            with self.subTest(text=text):
                error = self.assertRaises(ConfigError, OriginPolicy, [text])
                self.assertEqual(error.setting, "WS4REDIS_ALLOWED_ORIGINS")
                self.assertIn(repr(text), str(error))
                self.assertIn("https://*.example.com", error.remedy)


class HostTests(OriginTestCase):
    def test_with_allowed_hosts_the_host_matches_a_pattern_of_djangos_kind(self) -> None:
        policy = OriginPolicy((), ["example.com", ".example.org", "[::1]", "UPPER.test"])
        for host, status in (
            ("example.com", 101),
            ("EXAMPLE.COM", 101),
            ("example.com.", 101),
            ("example.com:8000", 101),
            ("example.org", 101),
            ("www.example.org", 101),
            ("a.b.example.org:1", 101),
            ("[::1]", 101),
            ("[::1]:8000", 101),
            ("upper.test", 101),
            ("www.example.com", 400),
            ("evilexample.org", 400),
            ("example.org.evil.test", 400),
            ("localhost", 400),
            ("127.0.0.1", 400),
        ):
            with self.subTest(host=host):
                self.assertEqual(self.status(policy, handshake(host)), status)

    def test_no_pattern_lets_nothing_in_and_a_star_everything(self) -> None:
        self.assertEqual(self.status(OriginPolicy((), []), handshake("localhost")), 400)
        self.assertEqual(self.status(OriginPolicy((), ["*"]), handshake("a.test:1")), 101)

    def test_without_django_the_host_is_loopback(self) -> None:
        policy = OriginPolicy()
        for host, status in (
            ("localhost", 101),
            ("localhost:8000", 101),
            ("LOCALHOST.", 101),
            ("shop.localhost", 101),
            ("127.0.0.1:8000", 101),
            ("127.8.9.1", 101),
            ("[::1]:8000", 101),
            ("example.com", 400),
            ("localhost.evil.example", 400),
            ("evillocalhost", 400),
            ("127.0.0.1.evil.example", 400),
            ("192.168.0.1", 400),
            ("[2001:db8::1]", 400),
            ("0.0.0.0", 400),
        ):
            with self.subTest(host=host):
                self.assertEqual(self.status(policy, handshake(host)), status)

    def test_without_django_the_host_may_be_a_configured_origins_host(self) -> None:
        policy = OriginPolicy(["https://a.example:8443", "https://*.b.example"])
        for host, status in (
            ("a.example", 101),
            ("a.example:9000", 101),
            ("www.b.example", 101),
            ("localhost", 101),
            ("www.a.example", 400),
            ("b.example", 400),
            ("evil.example", 400),
        ):
            with self.subTest(host=host):
                self.assertEqual(self.status(policy, handshake(host)), status)

    def test_a_rebound_name_is_refused_although_its_origin_is_its_host(self) -> None:
        asked = handshake("evil.example", "http://evil.example")
        self.assertEqual(self.status(OriginPolicy(), asked), 400)

    def test_a_malformed_host_is_refused_even_when_every_host_is_allowed(self) -> None:
        for host in (
            "",
            ":80",
            "a b",
            "a:b",
            "a:80:80",
            "a/b",
            "user@a",
            "a,b",
            "a?b",
            "a#b",
            "[::1",
            "::1",
            "[x]",
            "a:123456",
        ):
            with self.subTest(host=host):
                policy = OriginPolicy(["*"], ["*"])
                self.assertEqual(self.status(policy, handshake(host)), 400)


class TellingTests(OriginTestCase):
    def refused(self, policy: OriginPolicy, asked: Handshake) -> Denied:
        denied: Denied = self.assertRaises(Denied, policy.check, asked)
        return denied

    def test_the_log_line_of_a_missing_origin_names_the_setting_that_requires_it(self) -> None:
        policy = OriginPolicy((), ["*"], require_origin=True)
        denied = self.refused(policy, handshake("api.test"))
        for word in ("api.test", "WS4REDIS_REQUIRE_ORIGIN"):
            self.assertIn(word, denied.detail)

    def test_the_log_line_of_a_400_names_the_host_and_the_setting(self) -> None:
        denied = self.refused(OriginPolicy((), ["a.test"]), handshake("b.test"))
        for word in ("b.test", "ALLOWED_HOSTS"):
            self.assertIn(word, denied.detail)

    def test_nothing_of_it_goes_onto_the_wire_or_breaks_a_log_line(self) -> None:
        for asked in (
            handshake("b.test"),
            handshake("a.test", "https://evil.example"),
            handshake("a.test", "x\x85y\x9bz"),
        ):
            denied = self.refused(OriginPolicy((), ["a.test"]), asked)
            self.assertNotIn("test", denied.reason)
            self.assertNotIn("evil", denied.reason)
            self.assertTrue(denied.detail.isprintable(), denied.detail)
