"""Tokens: which are good, what they say, and what an error tells."""

from __future__ import annotations

import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.tokens import OTHER, SECRET, signed, token, unsigned
from ws4redis_tx.core.admission import Admission, AnonymousAuthorizer, Identity
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.tokens import (
    MOST_BYTES,
    TokenAuthorizer,
    TokenExpired,
    TokenInvalid,
    Tokens,
    signing,
)

NOW = 1_800_000_000.0
TIMES: dict[str, Any] = {"iat": NOW, "exp": NOW + 600}


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = NOW
        self.tokens = self.make()

    def make(self, *secrets: str, endless: bool = False) -> Tokens:
        return Tokens(secrets or (SECRET,), endless=endless, unix_time=lambda: self.now)

    def assert_invalid(self, claim: str, text: str, tokens: Tokens | None = None) -> TokenInvalid:
        return self.assert_refused(TokenInvalid, claim, (tokens or self.tokens).connection, text)

    def assert_refused(self, kind: Any, claim: str, judge: Any, text: str) -> Any:
        error = self.assertRaises(kind, judge, text)
        self.assertEqual(error.claim, claim)
        self.assertIsInstance(error, Denied)
        self.assertIn(f"the token's {claim} ", error.detail)
        for shown in (str(error), error.reason, error.detail):
            self.assertNotIn(text, shown)
            self.assertNotIn(SECRET, shown)
        return error


class ConnectionTests(TokenTests):
    def test_it_says_who_it_is_and_what_they_have(self) -> None:
        text = token(
            **TIMES,
            sub="ann",
            groups=["a", "b", "a"],
            pk=7,
            info={"name": "Ä", "n": [1, 2.5, None]},
            channels=["broadcast:news"],
            subs={"group:a:x": {"info": {"k": 1}, "data": [1]}, "broadcast:y": {}},
            tenant="acme",
        )
        claims = self.tokens.connection(text)
        self.assertEqual((claims.sub, claims.groups, claims.pk), ("ann", ("a", "b"), "7"))
        self.assertEqual(claims.info, b'{"name":"\\u00c4","n":[1,2.5,null]}')
        self.assertEqual(claims.channels, ("broadcast:news",))
        subs = {"group:a:x": (b'{"k":1}', b"[1]"), "broadcast:y": (b"", b"")}
        self.assertEqual(claims.subs, subs)
        self.assertEqual((claims.tenant, claims.text), ("acme", text))
        self.assertEqual((claims.issued, claims.expires), (NOW, NOW + 600))
        self.assertNotIn(text, repr(claims))

    def test_without_sub_it_is_an_anonymous_visitors(self) -> None:
        for sub in ({}, {"sub": ""}, {"sub": None}):
            claims = self.tokens.connection(token(**TIMES, **sub, groups=["a"], pk=7))
            self.assertEqual((claims.sub, claims.groups, claims.pk), ("", (), None))
            self.assertEqual((claims.info, claims.channels, claims.subs), (b"", (), {}))

    def test_one_with_a_channel_does_not_connect(self) -> None:
        error = self.assert_invalid("channel", token(**TIMES, sub="ann", channel="broadcast:x"))
        self.assertIn("subscription token", error.detail)
        self.assert_invalid("channel", token(**TIMES, sub="ann", channel=None))

    def test_claims_of_the_wrong_form_are_named(self) -> None:
        for claim, values in {
            "sub": (7, ["ann"], {}, "x" * 256, "\ud800"),
            "groups": ("staff", {"a": 1}, [7], [""], ["x" * 256], [["a"]]),
            "pk": (1.5, True, [], "x" * 256, 2**200),
            "channels": ("broadcast:x", [7], [""], ["x" * 256], [f"c{i}" for i in range(129)]),
            "subs": (["a"], {"a": 1}, {"": {}}, {"x" * 256: {}}),
            "tenant": (7, "", "a:b", "x" * 65),
            "iat": ("now", True, [], 1e300, 10**400),
            "exp": ("soon", True, {}, 1e300),
            "nbf": ("now", False),
        }.items():
            for value in values:
                with self.subTest(claim=claim, value=value):
                    self.assert_invalid(claim, token(**{**TIMES, "sub": "ann", claim: value}))

    def test_channels_and_subs_count_together(self) -> None:
        channels, subs = (
            [f"broadcast:{i}" for i in range(100)],
            {f"broadcast:x{i}": {} for i in range(28)},
        )
        text = token(**TIMES, channels=channels, subs=subs)
        self.assertEqual(len(self.tokens.connection(text).subs), 28)
        self.assert_invalid("channels", token(**TIMES, channels=channels, subs={**subs, "y": {}}))


class CostTests(TokenTests):
    """A connection with one facility is judged three times, and a signature costs the most."""

    def test_a_signature_is_verified_once_and_the_times_are_judged_each_time(self) -> None:
        verified: list[str] = []
        verify = Tokens._verified

        def count(tokens: Tokens, text: str) -> Any:
            verified.append(text)
            return verify(tokens, text)

        self.patch(Tokens, "_verified", count)
        text = token(**TIMES, sub="ann")
        for _ in range(3):
            self.assertEqual(self.tokens.connection(text).sub, "ann")
        self.assertEqual(len(verified), 1)
        self.now += 600
        self.assertRaises(TokenExpired, self.tokens.connection, text)
        self.assertEqual(self.tokens.connection(text, recheck=True).sub, "ann")
        self.assertEqual(len(verified), 1)

    def test_what_is_remembered_is_bounded_and_none_of_it_is_forged(self) -> None:
        for number in range(1000):
            self.tokens.connection(token(**TIMES, sub=str(number)))
        self.assertLessEqual(len(self.tokens._known), 256)
        before = len(self.tokens._known)
        self.assert_invalid("signature", token(OTHER, **TIMES, sub="ann"))
        self.assertEqual(len(self.tokens._known), before)


class SubscriptionTests(TokenTests):
    def test_it_says_which_channel_and_for_whom(self) -> None:
        claims = self.tokens.subscription(
            token(**TIMES, channel="group:a:x", sub="ann", info={"k": 1}, tenant="acme")
        )
        self.assertEqual((claims.channel, claims.sub), ("group:a:x", "ann"))
        self.assertEqual((claims.info, claims.tenant), (b'{"k":1}', "acme"))
        self.assertEqual((claims.issued, claims.expires), (NOW, NOW + 600))
        self.assertEqual(self.tokens.subscription(token(**TIMES, channel="broadcast:x")).sub, "")

    def test_one_without_a_channel_does_not_subscribe(self) -> None:
        text = token(**TIMES, sub="ann")
        self.assert_refused(TokenInvalid, "channel", self.tokens.subscription, text)
        for channel in ("", None, 7, ["a"], "x" * 256):
            text = token(**TIMES, channel=channel)
            error = self.assertRaises(TokenInvalid, self.tokens.subscription, text)
            self.assertEqual(error.claim, "channel")


class TimeTests(TokenTests):
    def test_an_expired_one_is_told_so(self) -> None:
        text = token(**TIMES, sub="ann")
        self.now += 599.9
        self.tokens.connection(text)
        self.now += 0.1
        self.assert_refused(TokenExpired, "exp", self.tokens.connection, text)
        text = token(**TIMES, channel="broadcast:x")
        self.assert_refused(TokenExpired, "exp", self.tokens.subscription, text)

    def test_clocks_may_differ_by_ten_seconds(self) -> None:
        for claim in ("iat", "nbf"):
            for ahead in (1, 3, 10):
                self.tokens.connection(token(**{**TIMES, claim: NOW + ahead}))
                self.tokens.subscription(token(**{**TIMES, claim: NOW + ahead}, channel="a"))
            text = token(**{**TIMES, claim: NOW + 11})
            error = self.assert_refused(TokenExpired, claim, self.tokens.connection, text)
            self.assertIn("11 s ahead", error.detail)

    def test_one_without_iat_or_exp_is_taken_only_if_the_site_says_so(self) -> None:
        endless = self.make(endless=True)
        for claim in ("iat", "exp"):
            without = {name: value for name, value in TIMES.items() if name != claim}
            error = self.assert_invalid(claim, token(**without, sub="ann"))
            self.assertIn("WS4REDIS_ENDLESS_TOKENS", error.detail)
            self.assertEqual(endless.connection(token(**without, sub="ann")).sub, "ann")
        claims = endless.connection(token(sub="ann"))
        self.assertEqual((claims.issued, claims.expires), (None, None))
        self.assertIsNone(endless.subscription(token(channel="a")).expires)

    def test_an_endless_one_is_none_if_it_has_an_end(self) -> None:
        endless = self.make(endless=True)
        text = token(sub="ann", exp=NOW - 1)
        self.assert_refused(TokenExpired, "exp", endless.connection, text)

    def test_a_recheck_does_not_judge_the_end(self) -> None:
        text = token(**TIMES, sub="ann")
        self.now += 10_000
        self.assertEqual(self.tokens.connection(text, recheck=True).sub, "ann")
        forged = token(OTHER, **TIMES, sub="ann")
        self.assertRaises(TokenInvalid, self.tokens.connection, forged, recheck=True)


class ForgeryTests(TokenTests):
    def test_another_secret_signs_nothing(self) -> None:
        self.assert_invalid("signature", token(OTHER, **TIMES, sub="ann"))
        self.assert_invalid("signature", token("", **TIMES, sub="ann"))

    def test_any_of_the_secrets_verifies_and_the_first_signs(self) -> None:
        both = self.make(OTHER, SECRET)
        for secret in (SECRET, OTHER):
            self.assertEqual(both.connection(token(secret, **TIMES, sub="ann")).sub, "ann")
        text = both.sign(b'{"iat":1800000000,"exp":1800000600,"sub":"bob"}')
        self.assertEqual(self.make(OTHER).connection(text).sub, "bob")
        self.assert_invalid("signature", text)

    def test_no_other_algorithm_counts(self) -> None:
        for alg in (
            "none",
            "None",
            "NONE",
            "nOnE",
            "",
            "HS384",
            "HS512",
            "RS256",
            "ES256",
            "EdDSA",
            7,
        ):
            with self.subTest(alg=alg):
                self.assert_invalid("alg", token(header={"alg": alg}, **TIMES, sub="ann"))
        self.assert_invalid("alg", unsigned(**TIMES, sub="ann"))
        self.assert_invalid("alg", unsigned("", **TIMES, sub="ann"))
        self.assert_invalid("alg", token(header={"typ": "JWT"}, **TIMES))
        self.assert_invalid("signature", unsigned("HS256", **TIMES, sub="ann"))

    def test_a_header_changes_nothing_else(self) -> None:
        for more in (
            {"kid": "../../dev/null"},
            {"jwk": {"k": ""}},
            {"jku": "http://evil"},
            {"x5u": "x"},
        ):
            header = {"alg": "HS256", **more}
            self.assertEqual(self.tokens.connection(token(header=header, **TIMES)).sub, "")
            self.assert_invalid("signature", token(OTHER, header=header, **TIMES))
        for wrong in ({"crit": ["x"], "x": 1}, {"b64": False, "crit": ["b64"]}, {"kid": 7}):
            self.assert_invalid("form", token(header={"alg": "HS256", **wrong}, **TIMES))

    def test_a_changed_one_is_forged(self) -> None:
        text = token(**TIMES, sub="ann")
        head, _, tail = text.split(".")
        other = token(OTHER, **TIMES, sub="root").split(".")[1]
        self.assert_invalid("signature", ".".join((head, other, tail)))

    def test_anything_else_is_no_token(self) -> None:
        good = token(**TIMES)
        for text in (
            "", ".", "..", "...", "a.b.c", "ä" * 10, "\ud800", " " + good, good + "\n", good + ".x",
            good[:-1] + "=", "ws4redis.ticket.x", "x" * MOST_BYTES, "e30" + good[good.index("."):],
        ):  # fmt: skip
            with self.subTest(text=text[:20]):
                error = self.assertRaises(TokenInvalid, self.tokens.connection, text)
                self.assertIn(error.claim, ("form", "alg", "signature"))
        for payload in (
            b"", b"7", b"[]", b"null", b'"x"', b"{", b"\xff", b'{"exp":NaN}', b'{"exp":1e400}',
            b"[" * 10_000, b'{"iat":' + b"9" * 5000 + b"}",
        ):  # fmt: skip
            with self.subTest(payload=payload[:20]):
                self.assert_invalid("form", signed(payload))

    def test_a_long_one_is_not_even_verified(self) -> None:
        self.patch(signing, "_jws", lambda: self.fail("verified"))
        self.assert_invalid("form", token(**TIMES, info="x" * MOST_BYTES))

    def test_a_site_without_a_secret_takes_none(self) -> None:
        self.assert_invalid("signature", token("", **TIMES), Tokens(()))


class WithoutPyJWTTests(TokenTests):
    def setUp(self) -> None:
        super().setUp()
        signing._jws.cache_clear()
        self.addCleanup(signing._jws.cache_clear)
        before = sys.modules.get("jwt")
        self.addCleanup(sys.modules.__setitem__, "jwt", before)
        sys.modules["jwt"] = None  # type: ignore[assignment]

    def test_the_error_names_the_extra(self) -> None:
        error = self.assert_invalid("signature", token(**TIMES, sub="ann"))
        self.assertIn("pip install 'ws4redis-tx[tokens]'", error.detail)


class AuthorizerTests(TokenTests):
    def authorizer(self, *, tenants: bool = False) -> TokenAuthorizer:
        return TokenAuthorizer(self.tokens, AnonymousAuthorizer(), tenants=tenants)

    def ask(self, credential: str, *rights: str, tenants: bool = False, **changes: Any) -> Any:
        handshake = Handshake(
            "/ws/chat", "", "/ws/", (), {"host": "localhost"}, "", (), False, "", "", credential,
            **changes,
        )  # fmt: skip
        return self.authorizer(tenants=tenants).authorize(handshake, rights)

    def test_a_token_says_who_it_is(self) -> None:
        rights = ("subscribe-user", "subscribe-group", "publish-user")
        text = token(**TIMES, sub="ann", groups=["a"], pk=7)
        admission: Admission = self.ask(text, *rights)
        self.assertEqual(admission.identity, Identity(None, "ann", ("a",), "7"))
        self.assertEqual((admission.rights, admission.issued), (rights, NOW))
        self.assertEqual(getattr(admission.request, "path_info", ""), "/ws/chat")

    def test_it_grants_no_more_than_the_default_policy(self) -> None:
        text = token(**TIMES, sub="ann")
        self.assertRaises(Denied, self.ask, text, "publish-broadcast")

    def test_the_others_are_asked_about_those_without_a_token(self) -> None:
        self.assertEqual(self.ask("").identity, Identity())
        self.assertTrue(self.authorizer().fixed)
        self.assertFalse(TokenAuthorizer(self.tokens, object()).fixed)

    def test_a_bad_one_never_falls_back(self) -> None:
        for text in (token(OTHER, **TIMES), "x", token(**TIMES, channel="broadcast:x")):
            self.assertRaises(TokenInvalid, self.ask, text)

    def test_a_recheck_does_not_judge_the_end(self) -> None:
        text = token(**TIMES, sub="ann")
        self.now += 1000
        self.assertRaises(TokenExpired, self.ask, text)
        self.assertEqual(self.ask(text, recheck=True).identity.username, "ann")

    def test_the_tenant_is_a_claim(self) -> None:
        theirs, none = token(**TIMES, tenant="acme"), token(**TIMES)
        self.assertEqual(self.ask(theirs, tenants=True).identity.tenant, "acme")
        self.assertEqual(self.ask(none).identity.tenant, "")
        for text, tenants in ((theirs, False), (none, True)):
            error = self.assertRaises(TokenInvalid, self.ask, text, tenants=tenants)
            self.assertEqual(error.claim, "tenant")

    def test_an_endless_one_counts_as_issued_now(self) -> None:
        self.tokens = self.make(endless=True)
        self.patch(sys.modules[TokenAuthorizer.__module__].time, "time", lambda: NOW + 5)
        self.assertEqual(self.ask(token(sub="ann")).issued, NOW + 5)
