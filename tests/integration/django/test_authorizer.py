"""Looking up a visitor in Django finds the right rights, and changes nothing."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredQueue,
    gatherResults,
    inlineCallbacks,
)
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.django import set_up_django
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.admission import Admission, check_admission
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request

set_up_django()

from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Group
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, connections
from django.test import Client, override_settings

from ws4redis_tx.django import authorizer
from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.policies import allow_all

User = get_user_model()
ALL = (
    "subscribe-session", "subscribe-group", "subscribe-user", "subscribe-broadcast",
    "publish-session", "publish-user",
)  # fmt: skip


def grant_nothing(request: Any, channels: list[str]) -> list[str]:
    return []


def grant_by_path(request: Any, channels: list[str]) -> list[str]:
    assert request.META["QUERY_STRING"] and request.GET and request.COOKIES is not None
    assert request.headers["Host"] == "localhost"
    return ["subscribe-broadcast"] if request.path_info == "/ws/foobar" else []


def handshake(cookie: str = "", target: str = "/ws/foobar?x") -> Handshake:
    data = handshake_bytes(target, Cookie=cookie or None, X_Real="a", Cookie_=None)
    request = read_request(data.removesuffix(b"\r\n\r\n"))
    return judge_request(request, "/ws/", secure=False, peer="127.0.0.1")


class AuthorizerTests(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.authorizer = DjangoAuthorizer(reactor)
        self.addCleanup(self.authorizer.stop)
        self.john = User.objects.create_user("jo:hn", password="secret")
        self.addCleanup(self.john.delete)
        group, _ = Group.objects.get_or_create(name="testers")
        self.john.groups.add(group)

    def override(self, **values: Any) -> None:
        override = override_settings(**values)
        override.enable()
        self.addCleanup(override.disable)

    def log_in(self) -> str:
        """Log John in and return a Cookie header."""
        self.client = Client()
        self.client.force_login(self.john)
        return f"{settings.SESSION_COOKIE_NAME}={self.session_key()}"

    def session_key(self) -> str:
        return str(self.client.cookies[settings.SESSION_COOKIE_NAME].value)

    def authorize(self, cookie: str = "", rights: tuple[str, ...] = ALL) -> Deferred[Admission]:
        return self.authorizer.authorize(handshake(cookie), rights)


class IdentityTests(AuthorizerTests):
    @inlineCallbacks
    def test_a_session_names_its_user_and_the_users_current_groups(self) -> Any:
        cookie = self.log_in()
        admission = yield self.authorize(cookie)
        self.assertEqual(admission.identity.username, "jo:hn")
        self.assertEqual(admission.identity.session_key, self.session_key())
        self.assertEqual(admission.identity.groups, ("testers",))
        self.assertEqual(admission.rights, ALL)
        self.john.groups.clear()
        admission = yield self.authorize(cookie)
        self.assertEqual(admission.identity.groups, ())

    @inlineCallbacks
    def test_nobody_is_nobody(self) -> Any:
        for cookie in ("", "sessionid=", "sessionid=forged", "sessionid=" + "x" * 32, "bad;;="):
            admission = yield self.authorize(cookie)
            self.assertIsNone(admission.identity.username)
            self.assertIsNone(admission.identity.session_key)
            self.assertIsInstance(admission.request.user, AnonymousUser)
            self.assertIsNone(admission.request.session.session_key)
            for rights, status in ((("subscribe-user",), 401), (("subscribe-session",), 403)):
                denied = yield self.authorize(cookie, rights)
                with self.assertRaises(Denied) as caught:
                    check_admission(handshake(), denied)
                self.assertEqual(caught.exception.status, status)

    @inlineCallbacks
    def test_after_a_password_change_elsewhere_the_visitor_is_nobody_and_not_logged_out(
        self,
    ) -> Any:
        cookie = self.log_in()
        self.john.set_password("new")
        self.john.save()
        before = self.stored()
        admission = yield self.authorize(cookie)
        self.assertIsNone(admission.identity.username)
        self.assertIsNone(admission.identity.session_key)
        self.assertEqual(self.stored(), before)

    @inlineCallbacks
    def test_every_session_engine_is_read_and_left_as_it_was(self) -> Any:
        for engine in ("db", "cache", "cached_db", "file"):
            with override_settings(
                SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
                SESSION_COOKIE_NAME="own_name",
            ):
                cookie = self.log_in()
                before = self.stored()
                admission = yield self.authorize(cookie)
                self.assertEqual(admission.identity.username, "jo:hn", engine)
                self.assertEqual(admission.identity.session_key, self.session_key())
                self.assertEqual(self.stored(), before)

    @inlineCallbacks
    def test_an_expired_session_file_is_nobodys_and_left_where_it_is(self) -> Any:
        self.override(SESSION_ENGINE="django.contrib.sessions.backends.file")
        cookie = self.log_in()
        self.override(SESSION_COOKIE_AGE=-10)
        before = os.listdir(settings.SESSION_FILE_PATH)
        admission = yield self.authorize(cookie)
        self.assertIsNone(admission.identity.session_key)
        self.assertEqual(os.listdir(settings.SESSION_FILE_PATH), before)

    def stored(self) -> Any:
        """The session as it is stored now."""
        from importlib import import_module

        store = import_module(settings.SESSION_ENGINE).SessionStore(self.session_key())
        return dict(store.load()), store.exists(self.session_key())


class MemberOfTests(AuthorizerTests):
    """``session['ws4redis:memberof']``, as the application wrote it."""

    GROUPS = ("subscribe-group", "publish-group")

    def setUp(self) -> None:
        super().setUp()
        self.override(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        self.cookie = self.log_in()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.observe)
        self.addCleanup(globalLogPublisher.removeObserver, self.observe)

    def observe(self, event: Any) -> None:
        text = formatEvent(event)
        if "memberof" in text:
            self.lines.append(text)
            self.in_reactor = threading.current_thread() is threading.main_thread()

    def write(self, value: Any) -> None:
        session = self.client.session
        session["ws4redis:memberof"] = value
        session.save()

    @inlineCallbacks
    def ask(self, *rights: str, times: int = 1) -> Any:
        """Fire with the groups, once the lines of the lookups are in the log."""
        for _ in range(times):
            admission = yield self.authorize(self.cookie, rights or ("subscribe-group",))
        logged: Deferred[None] = Deferred()
        reactor.callLater(0, logged.callback, None)  # after what the thread called
        yield logged
        return admission.identity.groups

    @inlineCallbacks
    def test_groups_that_are_none_of_djangos_are_not_used_and_one_line_says_so(self) -> Any:
        self.write(["room-5", "testers", "room-6"])
        self.assertEqual((yield self.ask(times=3)), ("testers",))
        self.assertEqual((yield self.ask("publish-group")), ("testers",))
        (line,) = self.lines
        self.assertIn("'room-5', 'room-6'", line)
        self.assertNotIn("testers", line)
        self.assertIn("the subscriber", line)
        self.assertIn("migrating", line)
        self.assertNotIn(self.session_key(), line)
        self.assertTrue(self.in_reactor)

    @inlineCallbacks
    def test_djangos_own_groups_are_none_even_if_the_user_has_left_them(self) -> Any:
        other, _ = Group.objects.get_or_create(name="left since")
        self.addCleanup(other.delete)
        for value in (["testers"], ["testers", "left since"], [], None, "room-5", 5, {"a": 1}):
            self.write(value)
            yield self.ask()
        self.assertEqual(self.lines, [])

    @inlineCallbacks
    def test_without_a_group_right_nobody_looks(self) -> Any:
        self.write(["room-5"])
        yield self.ask("subscribe-user", "subscribe-broadcast")
        self.assertEqual(self.lines, [])

    @inlineCallbacks
    def test_long_names_and_long_lists_are_cut(self) -> Any:
        self.write([f"room-{number}-" + "x" * 1000 for number in range(1000)])
        yield self.ask()
        self.assertLess(len(self.lines[0]), 700)

    @inlineCallbacks
    def test_a_process_request_uses_them_so_that_nothing_is_to_be_told(self) -> Any:
        def process(request: Any) -> None:
            request.user = User.objects.get(pk=self.john.pk)
            request.session = SessionStore(self.session_key())

        self.write(["room-5"])
        self.override(WS4REDIS_PROCESS_REQUEST=process)
        self.assertEqual((yield self.ask()), ("room-5",))
        self.assertEqual(self.lines, [])


class CallbackTests(AuthorizerTests):
    @inlineCallbacks
    def answer(self, callback: Any, rights: tuple[str, ...] = ("subscribe-broadcast",)) -> Any:
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
            admission = yield self.authorize(rights=rights)
        return admission.rights

    @inlineCallbacks
    def test_what_it_answers_is_granted(self) -> Any:
        asked = ("subscribe-broadcast", "publish-broadcast")
        self.assertEqual((yield self.answer(allow_all, asked)), asked)
        self.assertEqual((yield self.answer("ws4redis_tx.policies.allow_all", asked)), asked)
        self.assertEqual((yield self.answer(grant_nothing, asked)), ())
        self.assertEqual(
            (yield self.answer("tests.integration.django.test_authorizer.grant_by_path", asked)),
            ("subscribe-broadcast",),
        )
        self.assertEqual(
            (yield self.answer(lambda request, channels: {"subscribe-user"}, asked)),
            ("subscribe-user",),
        )

    @inlineCallbacks
    def test_a_process_request_that_sets_nothing_leaves_nobody(self) -> Any:
        with override_settings(WS4REDIS_PROCESS_REQUEST=lambda request: None):
            admission = yield self.authorize(self.log_in())
        self.assertIsNone(admission.identity.username)
        self.assertIsNone(admission.identity.session_key)


class QueueTests(AuthorizerTests):
    """Lookups run one at a time and wait in a queue; slow ones run two at a time."""

    @inlineCallbacks
    def test_a_lookup_that_nobody_waits_for_any_more_is_not_made(self) -> Any:
        gate = threading.Event()
        self.addCleanup(gate.set)
        looked_up: list[str] = []

        def process_request(request: Any) -> None:
            looked_up.append(request.COOKIES["number"])
            if len(looked_up) <= 2:
                gate.wait(TIMEOUT)

        self.override(WS4REDIS_PROCESS_REQUEST=process_request)
        lookups = [self.authorize(f"number={number}") for number in range(5)]
        for number in (2, 4):
            lookups[number].addErrback(lambda failure: failure.trap(CancelledError))
            lookups[number].cancel()
        gate.set()
        yield gatherResults(lookups)
        self.assertEqual(sorted(looked_up), ["0", "1", "3"])

    @inlineCallbacks
    def test_handshakes_go_before_rechecks(self) -> Any:
        looked_up: list[str] = []
        self.override(
            WS4REDIS_PROCESS_REQUEST=lambda request: looked_up.append(request.COOKIES["number"])
        )
        self.authorizer = one_thread(self)
        handshakes = [handshake(f"number={number}") for number in range(4)]
        rechecks = [replace(each, recheck=True) for each in handshakes[:2]]
        yield gatherResults(
            [self.authorizer.authorize(each, ALL) for each in rechecks + handshakes[2:]]
        )
        self.assertEqual(looked_up, ["2", "3", "0", "1"])

    @inlineCallbacks
    def test_stopping_waits_for_no_database(self) -> Any:
        gate, asked = threading.Event(), threading.Event()
        self.addCleanup(gate.set)

        def process_request(request: Any) -> None:
            asked.set()
            gate.wait(TIMEOUT)

        self.override(WS4REDIS_PROCESS_REQUEST=process_request)
        lookup = self.authorize()
        yield deferToThread(asked.wait, TIMEOUT)
        self.authorizer.stop()  # returns although the lookup hangs
        self.assertFalse(lookup.called)
        gate.set()
        yield lookup

    @inlineCallbacks
    def test_one_connection_serves_a_row_of_lookups_and_is_closed_after_it(self) -> Any:
        made: list[Any] = []
        closed: DeferredQueue[None] = DeferredQueue()
        gate = threading.Event()
        self.addCleanup(gate.set)

        def close(self: Any) -> None:
            original(self)
            reactor.callFromThread(closed.put, None)

        def process_request(request: Any) -> None:
            gate.wait(TIMEOUT)
            request.session, request.user = SessionStore(), User.objects.get(pk=self.john.pk)
            made.append(connection.connection)

        original = type(connections["default"]).close
        self.patch(type(connections["default"]), "close", close)
        self.override(WS4REDIS_PROCESS_REQUEST=process_request)
        self.authorizer = one_thread(self)
        lookups = [self.authorize() for _ in range(3)]
        gate.set()
        yield gatherResults(lookups)
        self.assertIsNotNone(made[0])
        self.assertEqual(len(set(map(id, made))), 1)
        yield closed.get().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def test_a_connection_that_a_callback_broke_serves_no_other_lookup(self) -> Any:
        broken: list[Any] = []
        gate = threading.Event()
        self.addCleanup(gate.set)

        def process_request(request: Any) -> None:
            gate.wait(TIMEOUT)
            used = connection.connection
            request.session, request.user = SessionStore(), User.objects.get(pk=self.john.pk)
            broken.append((used, connection.get_autocommit()))
            if len(broken) == 1:
                connection.set_autocommit(False)

        self.override(WS4REDIS_PROCESS_REQUEST=process_request)
        self.authorizer = one_thread(self)
        lookups = [self.authorize() for _ in range(2)]
        gate.set()
        yield gatherResults(lookups)
        self.assertEqual(broken[1], (None, True))


def one_thread(test: AuthorizerTests) -> DjangoAuthorizer:
    """An authorizer that keeps to one thread, however slow this machine is."""
    test.patch(authorizer, "_THREADS", 1)
    made = DjangoAuthorizer(reactor)
    test.addCleanup(made.stop)
    return made
