"""Django is asked together about the facilities of one connection."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from tests.support.django import set_up_django, statements
from tests.support.sites import DjangoTests
from tests.support.tokens import SECRET, token
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.admission import Admission, Asked
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.core.tokens import Tokens

set_up_django()

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.test import override_settings

from ws4redis_tx.django.authorizer import DjangoAuthorizer

BROADCAST = ("subscribe-broadcast",)
ASKED = [Asked("a", BROADCAST), Asked("b/ü", ("subscribe-user",)), Asked("c", BROADCAST)]


def times() -> dict[str, float]:
    return {"iat": time.time(), "exp": time.time() + 600}


class FacilitiesTests(DjangoTests):
    def overrides(self) -> dict[str, Any]:
        return {"WS4REDIS_ALLOWED_CHANNELS": self.allow, "WS4REDIS_TOKEN_SECRET": SECRET}

    @inlineCallbacks
    def setUp(self) -> Any:
        self.requests: list[Any] = []
        yield super().setUp()
        self.authorizer = DjangoAuthorizer(reactor)
        self.authorizer.take_tokens(Tokens((SECRET,)))
        self.addCleanup(self.authorizer.stop)
        self.requests.clear()

    def allow(self, request: Any, rights: Any) -> Any:
        self.requests.append(request)
        if request.path_info == "/ws/refused":
            raise PermissionDenied
        if request.path_info == "/ws/broken":
            raise ZeroDivisionError
        return rights

    def handshake(self, **more: Any) -> Handshake:
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.key('bob')}"
        data = handshake_bytes("/connection/websocket", Cookie=cookie, Host="127.0.0.1")
        request = read_request(data.removesuffix(b"\r\n\r\n"))
        judged = judge_request(request, "/connection/", secure=False, peer="127.0.0.1")
        fields = {name: getattr(judged, name) for name in judged.__slots__}
        return Handshake(**fields | {"websocket_url": "/ws/"} | more)

    @inlineCallbacks
    def test_a_visitor_who_is_known_costs_no_query(self) -> Any:
        handshake = self.handshake()
        known = yield self.authorizer.authorize(handshake, ())
        with statements() as found:
            answers = yield self.authorizer.authorize_facilities(handshake, ASKED, known)
        self.assertEqual(found, [])
        self.assertEqual([each.rights for each in answers], [each.rights for each in ASKED])
        self.assertEqual({each.identity.username for each in answers}, {"bob"})

    @inlineCallbacks
    def test_another_costs_those_of_one_lookup(self) -> Any:
        handshake = self.handshake()
        with statements() as alone:
            yield self.authorizer.authorize(handshake, ())
        with statements() as together:
            yield self.authorizer.authorize_facilities(handshake, ASKED)
        self.assertEqual((len(together), len(alone)), (3, 3))

    @inlineCallbacks
    def test_the_callback_sees_the_request_of_each_facility(self) -> Any:
        handshake = self.handshake()
        known = yield self.authorizer.authorize(handshake, ())
        yield self.authorizer.authorize_facilities(handshake, ASKED, known)
        paths = [request.path_info for request in self.requests]
        self.assertEqual(paths, ["/ws/a", "/ws/b/ü", "/ws/c"])
        self.assertEqual([*self.requests[1].GET], ["subscribe-user"])
        for request in self.requests:
            self.assertEqual(request.user.get_username(), "bob")
            self.assertEqual(request.session.session_key, self.key("bob"))
            self.assertEqual(request.path, request.path_info)
            self.assertEqual(request.get_host(), "127.0.0.1")
        self.assertEqual(known.request.path_info, "/connection/websocket")

    @inlineCallbacks
    def test_a_callback_that_identifies_visitors_sees_the_path_of_each_facility(self) -> Any:
        paths = []

        def process_request(request: Any) -> None:
            paths.append(request.path_info)
            if request.path_info == "/ws/c":
                raise PermissionDenied

        handshake = self.handshake()
        with override_settings(WS4REDIS_PROCESS_REQUEST=process_request):
            known = yield self.authorizer.authorize(handshake, ())
            asked = [Asked("a", BROADCAST), Asked("c", BROADCAST)]
            granted, refused = yield self.authorizer.authorize_facilities(handshake, asked, known)
        self.assertEqual(paths, ["/connection/websocket", "/ws/a", "/ws/c"])
        self.assertEqual((granted.rights, refused.status), (BROADCAST, 403))

    @inlineCallbacks
    def test_each_facility_has_its_own_failure(self) -> Any:
        asked = [Asked(name, BROADCAST) for name in ("refused", "broken", "open")]
        answers = yield self.authorizer.authorize_facilities(self.handshake(), asked)
        refused, broken, granted = answers
        self.assertIsInstance(refused, Denied)
        self.assertIsInstance(broken, ZeroDivisionError)
        self.assertEqual(granted.rights, BROADCAST)

    @inlineCallbacks
    def test_without_a_callback_a_visitor_who_is_known_needs_no_thread(self) -> Any:
        handshake = self.handshake()
        known = yield self.authorizer.authorize(handshake, ())
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=None):
            asked = [*ASKED, Asked("d", ("publish-broadcast",))]
            answers: Any = self.authorizer.authorize_facilities(handshake, asked, known)
        *granted, refused = answers
        self.assertEqual([each.rights for each in granted], [each.rights for each in ASKED])
        self.assertEqual(refused.status, 403)

    @inlineCallbacks
    def test_nor_does_one_with_a_token(self) -> Any:
        handshake = self.handshake(credential=token(**times(), sub="ann", groups=["staff"]))
        answer: Any = self.authorizer.authorize(handshake, ())
        self.assertTrue(answer.called)
        known: Admission = yield answer
        self.assertEqual((known.identity.username, known.identity.groups), ("ann", ("staff",)))
        yield self.authorizer.authorize_facilities(handshake, ASKED, known)
        self.assertEqual([each.user.get_username() for each in self.requests], ["ann"] * 3)
