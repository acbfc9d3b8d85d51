"""The contract, section 8, "Who": tokens and tickets, as Django's authorizer judges them."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.django import in_thread, set_up_django
from tests.support.sites import DjangoTests, override
from tests.support.tokens import OTHER, SECRET, token, unsigned
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import ConfigError, Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.tokens import TokenExpired, TokenInvalid, Tokens, signing
from ws4redis_tx.twistd.mistakes import shared_settings

set_up_django()

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.db import connection as database
from django.template import Context, Template
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from ws4redis_tx.config import django_settings
from ws4redis_tx.django import receivers
from ws4redis_tx.tickets import make_ticket
from ws4redis_tx.tokens import TokenUser, connection_token, subscription_token

RIGHTS = ("subscribe-user", "subscribe-group", "subscribe-broadcast")


def tenant_of(request: Any) -> str:
    return str(request.headers.get("X-Tenant", ""))


def times(**changes: float) -> dict[str, float]:
    now = time.time()
    return {"iat": now, "exp": now + 600, **changes}


class TokenTestCase(DjangoTests):
    """Ann has a token, and a browser in which Bob is logged in."""

    def overrides(self) -> dict[str, Any]:
        return {
            "WS4REDIS_CENTRIFUGE_URL": "/connection/",
            "WS4REDIS_TOKEN_SECRET": SECRET,
            "WS4REDIS_ALLOWED_CHANNELS": self.allow,
        }

    @inlineCallbacks
    def setUp(self) -> Any:
        self.asked: list[Any] = []
        self.allowed: Any = lambda request, rights: rights
        yield super().setUp()
        self.asked.clear()

    def allow(self, request: Any, rights: Any) -> Any:
        self.asked.append(request)
        return self.allowed(request, rights)

    def ask(
        self,
        credential: str,
        *rights: str,
        facility: str = "foobar",
        tenant: str = "",
        **changes: Any,
    ) -> Any:
        """Fire with what the server is told of a client with ``credential`` and Bob's cookie."""
        headers = {
            "host": "127.0.0.1",
            "cookie": f"{settings.SESSION_COOKIE_NAME}={self.key('bob')}",
            "x-tenant": tenant,
        }
        path = f"/ws/{facility}" if rights else "/connection/websocket"
        handshake = Handshake(
            path, "&".join(rights), "/ws/", rights, headers, "", (), False, "127.0.0.1",
            changes.pop("redeemed", ""), credential, **changes,
        )  # fmt: skip
        return self.service.factory.session_server.authorize(handshake, rights)

    @inlineCallbacks
    def refusal(self, kind: Any, *arguments: Any, **options: Any) -> Any:
        error = yield self.assertFailure(self.ask(*arguments, **options), kind)
        return error

    def token(self, name: str = "ann", **options: Any) -> Any:
        return in_thread(lambda: connection_token(self.user(name), **options))


class IdentityTests(TokenTestCase):
    @inlineCallbacks
    def test_it_says_who_it_is_and_the_database_is_not_asked(self) -> Any:
        text = yield self.token()
        pk = yield in_thread(lambda: str(self.user().pk))
        self.patch(self.service.factory.session_server.authorizer, "_context", Unqueried)
        admission = yield self.ask(text, *RIGHTS)
        self.assertEqual(admission.identity, Identity(None, "ann", ("revoked testers",), pk))
        self.assertEqual(admission.rights, RIGHTS)
        self.assertLess(abs(admission.issued - time.time()), 60)
        request = self.asked[-1]
        self.assertEqual((request.path, request.user.get_username()), ("/ws/foobar", "ann"))
        self.assertEqual((request.user.pk, request.session.session_key), (pk, None))

    @inlineCallbacks
    def test_a_cookie_needs_no_token(self) -> Any:
        admission = yield self.ask("", *RIGHTS)
        self.assertEqual((admission.identity.username, admission.issued), ("bob", None))

    @inlineCallbacks
    def test_a_bad_token_never_falls_back_to_the_cookie(self) -> Any:
        for text, kind, claim in (
            (token(OTHER, **times(), sub="ann"), TokenInvalid, "signature"),
            (unsigned(**times(), sub="ann"), TokenInvalid, "alg"),
            (token(header={"alg": "HS512"}, **times(), sub="ann"), TokenInvalid, "alg"),
            (token(**times(exp=time.time() - 1), sub="ann"), TokenExpired, "exp"),
            (token(**times(nbf=time.time() + 60), sub="ann"), TokenExpired, "nbf"),
            (token(**times(), sub="ann", channel="broadcast:x"), TokenInvalid, "channel"),
            (token(**times(), sub="ann", tenant="acme"), TokenInvalid, "tenant"),
            (token(exp=time.time() + 60, sub="ann"), TokenInvalid, "iat"),
            (token(iat=time.time(), sub="ann"), TokenInvalid, "exp"),
            ("nonsense", TokenInvalid, "form"),
            ("ws4redis.ticket.forged", TokenExpired, "ticket"),
        ):
            for rights in ((), RIGHTS):
                error = yield self.refusal(kind, text, *rights)
                self.assertEqual(error.claim, claim)
                self.assertNotIn(text, f"{error} {error.reason} {error.detail}")
        self.assertEqual(self.asked, [])

    @inlineCallbacks
    def test_a_clock_that_is_three_seconds_ahead_does_no_harm(self) -> Any:
        admission = yield self.ask(token(**times(iat=time.time() + 3), sub="ann"))
        self.assertEqual(admission.identity.username, "ann")

    @inlineCallbacks
    def test_without_a_facility_it_is_only_identified(self) -> Any:
        for credential in ((yield self.token()), ""):
            admission = yield self.ask(credential)
            self.assertEqual(admission.rights, ())
            self.assertIsNotNone(admission.identity.username)
        self.assertEqual(self.asked, [])

    @inlineCallbacks
    def test_an_anonymous_one_is_nobodys(self) -> Any:
        for user in (None, AnonymousUser()):
            text = yield in_thread(lambda user=user: connection_token(user))
            admission = yield self.ask(text, "subscribe-broadcast")
            self.assertEqual(admission.identity, Identity())
            self.assertFalse(self.asked[-1].user.is_authenticated)

    @inlineCallbacks
    def test_a_recheck_does_not_judge_its_end(self) -> Any:
        text = token(**times(exp=time.time() - 1), sub="ann")
        admission = yield self.ask(text, *RIGHTS, recheck=True)
        self.assertEqual(admission.identity.username, "ann")
        yield self.refusal(TokenInvalid, token(OTHER, **times(), sub="ann"), *RIGHTS, recheck=True)

    @inlineCallbacks
    def test_a_site_that_looks_users_up_itself_is_not_asked_about_a_token(self) -> Any:
        override(self, WS4REDIS_PROCESS_REQUEST=self.fail)
        admission = yield self.ask((yield self.token()), *RIGHTS)
        self.assertEqual(admission.identity.username, "ann")


class Unqueried:
    """Around a lookup that must not query the database."""

    def __enter__(self) -> None:
        self._queries = CaptureQueriesContext(database)
        self._queries.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._queries.__exit__(*raised)
        assert not len(self._queries), self._queries.captured_queries


class TokenUserTests(TokenTestCase):
    @inlineCallbacks
    def user_seen(self, **claims: Any) -> Any:
        yield self.ask(token(**times(), **claims), "subscribe-broadcast")
        return self.asked[-1].user

    @inlineCallbacks
    def test_it_has_what_the_token_says_and_is_nobody_special(self) -> Any:
        user = yield self.user_seen(sub="ann", groups=["staff"], pk=7)
        self.assertIsInstance(user, TokenUser)
        self.assertEqual((user.get_username(), str(user), user.pk), ("ann", "ann", "7"))
        self.assertEqual((user.is_authenticated, user.is_anonymous), (True, False))
        self.assertEqual((user.is_staff, user.is_superuser), (False, False))
        self.assertIn("staff", user.groups)
        self.assertEqual({user, (yield self.user_seen(sub="ann"))}, {user})
        self.assertNotEqual(user, "ann")

    @inlineCallbacks
    def test_whatever_else_is_asked_of_it_names_the_remedy(self) -> Any:
        user = yield self.user_seen(sub="ann", groups=["staff"])
        for name in ("email", "is_active", "has_perm", "username", "save", "profile"):
            error = self.assertRaises(AttributeError, getattr, user, name)
            self.assertIn(f"A TokenUser has no {name}.", str(error))
            self.assertIn("request.user.get_username()", str(error))
        for name in ("pk", "id"):
            error = self.assertRaises(AttributeError, getattr, user, name)
            self.assertIn("claim pk", str(error))
        error = self.assertRaises(AttributeError, getattr, user.groups, "filter")
        self.assertIn("in request.user.groups", str(error))

    @inlineCallbacks
    def test_a_callback_that_asks_for_more_is_told_in_the_log_and_grants_nothing(self) -> Any:
        self.allowed = lambda request, rights: [request.user.email]
        error = yield self.refusal(AttributeError, (yield self.token()), *RIGHTS)
        self.assertIn("A TokenUser has no email", str(error))


class TicketTests(TokenTestCase):
    def ticket(self, **options: Any) -> Any:
        def make() -> str:
            request = RequestFactory().post("/ticket/")
            request.user, request.session = self.user(), self.browsers["ann"].session
            return make_ticket(request, **options)

        return in_thread(make)

    @inlineCallbacks
    def test_it_admits_its_owner_and_a_used_one_asks_for_another(self) -> Any:
        ticket = yield self.ticket()
        admission = yield self.ask(ticket)
        self.assertEqual(admission.identity.username, "ann")
        self.assertEqual(admission.identity.session_key, self.key("ann"))
        self.assertIsNone(admission.issued)
        error = yield self.refusal(TokenExpired, ticket)
        self.assertNotIn(ticket, f"{error} {error.detail}")
        again = yield self.ask(ticket, *RIGHTS, redeemed=admission.redeemed)
        self.assertEqual((again.identity, again.rights), (admission.identity, RIGHTS))

    @inlineCallbacks
    def test_its_facility_and_rights_bound_all_that_follows(self) -> Any:
        ticket = yield self.ticket(facility="foobar", rights=["subscribe-user"])
        admission = yield self.ask(ticket)
        redeemed = admission.redeemed
        granted = yield self.ask(ticket, *RIGHTS, redeemed=redeemed)
        self.assertEqual(granted.rights, ("subscribe-user",))
        error = yield self.refusal(Denied, ticket, *RIGHTS, facility="other", redeemed=redeemed)
        self.assertEqual(error.status, 403)


class MakingTests(TokenTestCase):
    """``ws4redis_tx.tokens``."""

    def claims(self, text: str) -> Any:
        return Tokens([SECRET]).connection(text)

    def test_what_the_arguments_say_is_in_it(self) -> None:
        text = connection_token(None, 60, {"name": "Ä"}, ["broadcast:news", "group:a:x"])
        claims = self.claims(text)
        self.assertEqual((claims.sub, claims.info), ("", b'{"name":"\\u00c4"}'))
        self.assertEqual(claims.channels, ("broadcast:news", "group:a:x"))
        self.assertApproximates(claims.expires - time.time(), 60, 30)
        self.assertLessEqual(claims.issued, time.time())
        ten = self.claims(connection_token(None, timedelta(minutes=10)))
        self.assertApproximates(ten.expires - time.time(), 600, 30)
        found = Tokens([SECRET]).subscription(subscription_token("group:a:x", info=[1]))
        self.assertEqual((found.channel, found.sub, found.info), ("group:a:x", "", b"[1]"))

    @inlineCallbacks
    def test_a_subscription_token_names_its_user(self) -> Any:
        text = yield in_thread(lambda: subscription_token("broadcast:x", self.user()))
        self.assertEqual(Tokens([SECRET]).subscription(text).sub, "ann")

    def test_it_is_issued_when_the_request_began(self) -> None:
        self.patch(receivers, "monotonic", lambda: time.monotonic() - 5)
        receivers._note_start()
        self.addCleanup(receivers._note_end)
        claims = self.claims(connection_token(None, 60))
        self.assertApproximates(time.time() - claims.issued, 5, 3)
        self.assertApproximates(claims.expires - time.time(), 60, 30)

    def test_a_mistake_names_the_remedy(self) -> None:
        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        cyclic: list[Any] = []
        cyclic.append(cyclic)
        for error, text, call in (
            (TypeError, "request.user", lambda: connection_token("ann")),
            (TypeError, "request.user", lambda: connection_token(request)),
            (ValueError, "ttl=600", lambda: connection_token(None, 0)),
            (ValueError, "ttl=600", lambda: connection_token(None, True)),
            (ValueError, "ttl=600", lambda: connection_token(None, "600")),  # type: ignore[arg-type]
            (TypeError, "['broadcast:news']", lambda: connection_token(None, channels="news")),
            (ValueError, "broadcast:news", lambda: connection_token(None, channels=[""])),
            (ValueError, "broadcast:news", lambda: connection_token(None, channels=[7])),  # type: ignore[list-item]
            (TypeError, "cannot be JSON", lambda: connection_token(None, info=object())),
            (ValueError, "cannot be JSON", lambda: connection_token(None, info=cyclic)),
            (ValueError, "cannot be JSON", lambda: connection_token(None, info=float("nan"))),
            (ValueError, "Shorten info=", lambda: connection_token(None, info="x" * 40_000)),
            (ValueError, "needs no token", lambda: subscription_token("user:x")),
            (ValueError, "needs no token", lambda: subscription_token("session:x")),
            (ValueError, "broadcast:news", lambda: subscription_token("")),
            (TypeError, "WS4REDIS_TENANT", lambda: connection_token(None, tenant="acme")),
            (PermissionDenied, "not active", lambda: connection_token(User(is_active=False))),
            (ValueError, "no name", lambda: connection_token(User())),
        ):
            self.assertIn(text, str(self.assertRaises(error, call)))

    def test_without_pyjwt_or_a_secret_it_says_what_to_do(self) -> None:
        override(self, WS4REDIS_TOKEN_SECRET=None, SECRET_KEY="", SECRET_KEY_FALLBACKS=[])
        error = self.assertRaises(ConfigError, connection_token, None)
        self.assertIn("WS4REDIS_TOKEN_SECRET is not set", str(error))

        def missing() -> Any:
            raise ConfigError("PyJWT", "is not installed", "Install it.")

        override(self, WS4REDIS_TOKEN_SECRET=SECRET)
        self.patch(signing, "_jws", missing)
        self.assertRaises(ConfigError, connection_token, None)

    def test_an_option_that_contradicts_the_secret_is_told_without_showing_either(self) -> None:
        options = {"serve-django": False, "embedded-redis": False}
        (doubt,) = shared_settings(options, {"token_secret": [OTHER]})
        self.assertIn("--token-secret says another secret", str(doubt))
        for secret in (SECRET, OTHER):
            self.assertNotIn(secret, str(doubt))
        self.assertEqual(shared_settings(options, {"token_secret": [SECRET]}), [])

    @inlineCallbacks
    def test_the_secret_is_derived_from_those_of_the_site(self) -> Any:
        override(self, WS4REDIS_TOKEN_SECRET=None, SECRET_KEY="old key", SECRET_KEY_FALLBACKS=[])
        old = yield self.token()
        override(self, SECRET_KEY="new key", SECRET_KEY_FALLBACKS=["old key"])
        new = yield self.token()
        tokens = Tokens(django_settings.get_token_secrets())
        self.assertEqual([tokens.connection(each).sub for each in (old, new)], ["ann"] * 2)
        override(self, SECRET_KEY_FALLBACKS=[])
        tokens = Tokens(django_settings.get_token_secrets())
        self.assertRaises(TokenInvalid, tokens.connection, old)
        self.assertRaises(TokenInvalid, tokens.connection, token("new key", **times(), sub="ann"))

    @inlineCallbacks
    def test_the_tag_makes_one_of_the_pages_visitor(self) -> Any:
        def render(text: str, user: Any = None) -> str:
            request = RequestFactory().get("/")
            if user:
                request.user = user
            template = Template("{% load ws4redis %}" + text)
            return template.render(Context({"request": request, "info": {"n": 1}}))

        user = yield in_thread(self.user)
        text = yield in_thread(render, "{% ws4redis_token ttl=60 info=info %}", user)
        claims = self.claims(text)
        self.assertEqual((claims.sub, claims.info), ("ann", b'{"n":1}'))
        self.assertApproximates(claims.expires - time.time(), 60, 30)
        self.assertEqual(self.claims(render("{% ws4redis_token %}")).sub, "")
        with self.assertRaisesRegex(ImproperlyConfigured, "ws4redis_token"):
            Template("{% load ws4redis %}{% ws4redis_token %}").render(Context())

    def test_an_info_may_hold_what_django_knows_as_json(self) -> None:
        claims = self.claims(connection_token(None, info={"since": timedelta(seconds=5)}))
        self.assertEqual(json.loads(claims.info), {"since": "P0DT00H00M05S"})


class TenantTests(TokenTestCase):
    def overrides(self) -> dict[str, Any]:
        return {**super().overrides(), "WS4REDIS_TENANT": tenant_of}

    @inlineCallbacks
    def setUp(self) -> Any:
        # The websockets of the base class have no tenant.
        self.patch(type(self), "open", lambda *arguments, **options: None)
        yield super().setUp()

    @inlineCallbacks
    def test_the_token_names_the_tenant_of_the_request(self) -> Any:
        text = yield self.token(tenant="acme")
        admission = yield self.ask(text, *RIGHTS, tenant="acme")
        self.assertEqual(admission.identity.tenant, "acme")
        for tenant, other in (("globex", text), ("acme", token(**times(), sub="ann"))):
            error = yield self.refusal(TokenInvalid, other, *RIGHTS, tenant=tenant)
            self.assertEqual(error.claim, "tenant")

    @inlineCallbacks
    def test_one_without_a_tenant_is_not_made(self) -> Any:
        yield self.assertFailure(self.token(), TypeError)
        yield self.assertFailure(in_thread(lambda: subscription_token("broadcast:x")), TypeError)

    def test_the_tag_asks_whose_site_it_is(self) -> None:
        request = RequestFactory(HTTP_X_TENANT="acme").get("/")
        text = Template("{% load ws4redis %}{% ws4redis_token %}").render(
            Context({"request": request})
        )
        self.assertEqual(Tokens([SECRET]).connection(text).tenant, "acme")
