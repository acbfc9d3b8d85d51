"""Other sites' pages, and names that were rebound to this server."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.security.cases import SecurityTestCase


class OriginAndHostTests(SecurityTestCase):
    """Other sites' pages, and names that were rebound to this server."""

    @inlineCallbacks
    def test_a_page_of_another_site_cannot_use_a_visitors_cookies(self) -> Any:
        yield self.serve()
        john = yield self.john()
        for origin in (
            "https://evil.example",
            "http://127.0.0.1.evil.example",
            f"http://127.0.0.1:{self.port}.evil.example",
            f"http://127.0.0.1:{self.port}@evil.example",
            f"http://127.0.0.1:{self.port} http://evil.example",
            "http://127.0.0.1:1",
            "null",
            "file://",
            "",
        ):
            status, answer = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=john, Origin=origin
            )
            self.assertEqual(status, 403, origin)
            self.assertNotIn(b"evil", answer)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_dns_rebinding_fails_on_the_host(self) -> Any:
        # To the browser, page and server are the same host.
        yield self.serve()
        john = yield self.john()
        for host in ("evil.example", f"evil.example:{self.port}", "127.0.0.1.evil.example"):
            status, answer = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=john, Host=host, Origin=f"http://{host}"
            )
            self.assertEqual(status, 400, host)
            self.assertNotIn(b"evil", answer)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_client_that_says_what_only_a_proxy_may_say_is_not_believed(self) -> Any:
        yield self.serve(WS4REDIS_TRUSTED_PROXIES=["192.0.2.1"])
        john = yield self.john()
        forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https"}
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user", Cookie=john, Origin="https://evil.example", **forged
        )
        self.assertEqual(status, 403)
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user",
            Cookie=john,
            Host="evil.example",
            Origin="http://evil.example",
            X_Forwarded_Host=f"127.0.0.1:{self.port}",
        )
        self.assertEqual(status, 400)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_behind_a_proxy_with_tls_a_page_without_tls_is_another_site(self) -> Any:
        # An attacker in the network between can forge a page without TLS.
        john = yield self.john()
        yield self.serve(WS4REDIS_TRUSTED_PROXIES=["127.0.0.1"], ALLOWED_HOSTS=["www.example.com"])
        told = {"X_Forwarded_Host": "www.example.com", "X_Forwarded_Proto": "https"}
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user", Cookie=john, Origin="http://www.example.com", **told
        )
        self.assertEqual(status, 403)
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user",
            Cookie=john,
            Origin="https://evil.example",
            **{**told, "X_Forwarded_Host": "evil.example"},
        )
        self.assertEqual(status, 400)
        self.assert_nothing_was_had()
