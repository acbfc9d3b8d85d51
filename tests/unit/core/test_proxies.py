"""``X-Forwarded-*`` headers: the trusted proxies, and the effects."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.wires import handshake_bytes
from ws4redis_tx.core import proxies as module
from ws4redis_tx.core.errors import ConfigError, Denied
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies, counted_address


def handshake(peer: str, secure: bool = False, **headers: str | None) -> Handshake:
    head = handshake_bytes(**headers).removesuffix(b"\r\n\r\n")
    return judge_request(read_request(head), "/ws/", secure=secure, peer=peer)


class TrustedProxyTests(SynchronousTestCase):
    def seen(self, peer: str, *proxies: str, **headers: str) -> Handshake:
        return TrustedProxies(proxies).see_through(handshake(peer, **headers))

    def test_the_client_is_the_last_address_that_is_no_proxy_of_ours(self) -> None:
        for forwarded, client in (
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7, 10.0.0.2", "192.0.2.7"),
            # The client itself may have written everything before it.
            ("127.0.0.1, 192.0.2.7", "192.0.2.7"),
            ("10.0.0.9, 192.0.2.7, 10.0.0.2", "192.0.2.7"),
            ("192.0.2.7:55123", "192.0.2.7"),
            ("[2001:db8::7]:55123", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("10.0.0.3", "10.0.0.3"),
            ("nonsense", "10.0.0.1"),
            ("192.0.2.7, nonsense", "10.0.0.1"),
            ("", "10.0.0.1"),
        ):
            seen = self.seen("10.0.0.1", "10.0.0.0/8", X_Forwarded_For=forwarded)
            self.assertEqual(seen.peer, client, forwarded)

    def test_a_way_through_more_proxies_than_there_are_is_not_followed(self) -> None:
        parsed: list[str] = []
        parse = module._address

        def counted(text: str) -> object:
            parsed.append(text)
            return parse(text)

        self.patch(module, "_address", counted)
        for number, client in ((20, "192.0.2.7"), (1500, "10.0.0.2")):
            parsed.clear()
            forwarded = "192.0.2.7" + ", 10.0.0.2" * number
            seen = self.seen("10.0.0.1", "10.0.0.0/8", X_Forwarded_For=forwarded)
            self.assertEqual(seen.peer, client)
            self.assertLess(len(parsed), 100)

    def test_scheme_and_host_are_those_of_the_first_proxy(self) -> None:
        seen = self.seen(
            "127.0.0.1",
            "127.0.0.1",
            X_Forwarded_Proto="https, http",
            X_Forwarded_Host="www.example.com, inner",
            Host="inner",
        )
        self.assertEqual((seen.secure, seen.headers["host"]), (True, "www.example.com"))

    def test_without_the_headers_nothing_changes(self) -> None:
        before = handshake("127.0.0.1", secure=True)
        after = TrustedProxies(["127.0.0.1"]).see_through(before)
        self.assertEqual(after, before)

    def test_a_proxy_on_a_unix_socket_is_named_unix(self) -> None:
        for proxies, client in ((["unix"], "192.0.2.7"), (["10.0.0.0/8"], "")):
            seen = self.seen("", *proxies, X_Forwarded_For="192.0.2.7")
            self.assertEqual(seen.peer, client)

    def test_from_anybody_else_they_are_taken_away(self) -> None:
        seen = self.seen(
            "192.0.2.66",
            "10.0.0.0/8",
            X_Forwarded_For="10.0.0.1",
            X_Forwarded_Proto="https",
            X_Forwarded_Host="evil.example",
        )
        self.assertEqual(
            (seen.peer, seen.secure, seen.headers["host"]), ("192.0.2.66", False, "localhost")
        )
        self.assertFalse([name for name in seen.headers if name.startswith("x-forwarded")])

    def test_where_no_proxy_is_named_they_change_nothing_and_are_djangos(self) -> None:
        before = handshake("192.0.2.66", X_Forwarded_Host="evil.example")
        self.assertIs(TrustedProxies([]).see_through(before), before)

    def test_what_is_no_address_is_a_config_error(self) -> None:
        for name in ("example.com", "10.0.0.0/99", "10.0.0.1/8", ""):
            error = self.assertRaises(ConfigError, TrustedProxies, [name])
            self.assertIn("WS4REDIS_TRUSTED_PROXIES", str(error))

    def test_host_and_origin_are_judged_by_what_the_proxy_says(self) -> None:
        """Every combination of TLS in front, TLS here or none, the page's scheme, and the host."""
        policy = OriginPolicy((), ["www.example.com"])
        proxies = TrustedProxies(["10.0.0.1"])
        for peer, secure, forwarded, origin, status in (
            # TLS ends in front
            ("10.0.0.1", False, "https", "https://www.example.com", 0),
            ("10.0.0.1", False, "https", "http://www.example.com", 403),
            ("10.0.0.1", False, "https", "https://evil.example", 403),
            ("10.0.0.1", False, "https", "null", 403),
            # no TLS at all
            ("10.0.0.1", False, "http", "http://www.example.com", 0),
            # no header, or one that is not trusted
            ("10.0.0.1", False, None, "https://www.example.com", 0),
            ("192.0.2.66", False, "http", "https://www.example.com", 0),
            ("192.0.2.66", True, "http", "http://www.example.com", 403),
            # TLS here
            ("192.0.2.66", True, None, "https://www.example.com", 0),
            ("192.0.2.66", True, None, "http://www.example.com", 403),
            # TLS in front and in between, but not for the page
            ("10.0.0.1", True, "http", "http://www.example.com", 0),
        ):
            with self.subTest(peer=peer, secure=secure, forwarded=forwarded, origin=origin):
                seen = proxies.see_through(
                    handshake(
                        peer,
                        secure,
                        Host="www.example.com",
                        Origin=origin,
                        X_Forwarded_Proto=forwarded,
                    )
                )
                if status:
                    denied = self.assertRaises(Denied, policy.check, seen)
                    self.assertEqual(denied.status, status)
                else:
                    policy.check(seen)

    def test_a_rebound_name_fails_on_the_host_check_behind_a_proxy_too(self) -> None:
        policy = OriginPolicy((), ["www.example.com"])
        for headers in (
            {"Host": "rebound.evil.example"},
            {"Host": "inner", "X_Forwarded_Host": "rebound.evil.example"},
        ):
            seen = self.seen(
                "10.0.0.1", "10.0.0.1", Origin="http://rebound.evil.example", **headers
            )
            self.assertEqual(self.assertRaises(Denied, policy.check, seen).status, 400)


class CountedAddressTests(SynchronousTestCase):
    """Whoever is given an IPv6 network has 2 ** 64 addresses in it, or more."""

    def test_an_ipv6_network_of_64_bits_counts_as_one(self) -> None:
        first = counted_address("2001:db8:1:2::1")
        for same in (
            "2001:db8:1:2:ffff:ffff:ffff:ffff",
            "2001:0DB8:1:2:3::",
            "2001:db8:1:2::1%eth0",
        ):
            self.assertEqual(counted_address(same), first)
        for other in ("2001:db8:1:3::1", "2001:db8::1", "::1", "fe80::1"):
            self.assertNotEqual(counted_address(other), first)

    def test_an_ipv4_address_counts_as_itself_also_if_it_is_mapped_into_ipv6(self) -> None:
        self.assertEqual(counted_address("192.0.2.7"), "192.0.2.7")
        self.assertEqual(counted_address("::ffff:192.0.2.7"), "192.0.2.7")
        self.assertEqual(counted_address("::ffff:c000:207"), "192.0.2.7")
        self.assertNotEqual(counted_address("::ffff:192.0.2.8"), "192.0.2.7")

    def test_what_is_no_address_counts_as_it_is(self) -> None:
        for peer in ("", "unix", "localhost"):
            self.assertEqual(counted_address(peer), peer)
