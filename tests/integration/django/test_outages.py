"""A database or a session store that is down: 503, one line in the log, and nobody logged out."""

from __future__ import annotations

import errno
import sys
from typing import Any
from unittest import mock

import valkey
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.django import in_thread, set_up_django
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.errors import Denied, Outage, is_outage
from ws4redis_tx.core.handshake import judge_request
from ws4redis_tx.core.http import read_request

set_up_django()

from django.conf import settings
from django.db import OperationalError, ProgrammingError, connections
from django.test import override_settings

from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.databases import OutageLog
from ws4redis_tx.policies import allow_all


class DatabaseTests(ContractTestCase):
    def take_database_away(self) -> None:
        """New connections fail; the lookups' threads keep none between two batches."""
        gone = mock.patch.dict(connections.settings["default"], NAME="/nonexistent/db.sqlite3")
        gone.start()
        self.addCleanup(gone.stop)
        self.gone = gone

    def listen_to_log(self) -> list[Any]:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    @inlineCallbacks
    def test_handshakes_are_answered_with_503_and_one_line_without_a_traceback(self) -> Any:
        cookies = yield self.log_in("john")
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        self.take_database_away()
        events = self.listen_to_log()
        for _ in range(21):
            status, answer = yield self.refusal(Cookie=_header(cookies))
            self.assertEqual(status, 503)
            self.assertIn(b"\r\nRetry-After: ", answer)
            self.assertNotIn(b"unable", answer)
        (event,) = [each for each in events if each["log_namespace"].startswith("ws4redis_tx")]
        self.assertEqual(event["log_level"], LogLevel.warn)
        self.assertNotIn("log_failure", event)
        self.assertIn("unable to open database file", formatEvent(event))
        self.gone.stop()
        yield self.open("/ws/foobar?subscribe-user", cookies=cookies)


def _header(cookies: Any) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


class SessionStoreTests(TestCase):
    """A session store in Redis, read by Django's own backend."""

    timeout = 60

    def setUp(self) -> None:
        self.store = RedisServer()
        self.addCleanup(self.store.stop)
        # The two clients have the same names, and Django asks for the other one.
        library = mock.patch.dict(sys.modules, redis=valkey)
        library.start()
        self.addCleanup(library.stop)
        where = f"redis://127.0.0.1:{self.store.port}"
        override = override_settings(
            CACHES={
                "default": {
                    "BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": where,
                }
            }
        )  # fmt: skip
        override.enable()
        self.addCleanup(override.disable)
        self.authorizer = DjangoAuthorizer(reactor)
        self.addCleanup(self.authorizer.stop)

    @inlineCallbacks
    def ask(self, engine: str) -> Any:
        """Ask about a session of that engine, before and after its store went away."""

        def make() -> str:
            from importlib import import_module

            session = import_module(engine).SessionStore()
            session["color"] = "red"
            session.save()
            return str(session.session_key)

        override = override_settings(SESSION_ENGINE=engine)
        override.enable()
        self.addCleanup(override.disable)
        key = yield in_thread(make)
        data = handshake_bytes("/ws/f?x", Cookie=f"{settings.SESSION_COOKIE_NAME}={key}")
        request = read_request(data.removesuffix(b"\r\n\r\n"))
        handshake = judge_request(request, "/ws/", secure=False, peer="127.0.0.1")
        admission = yield self.authorizer.authorize(handshake, ())
        self.assertEqual(admission.identity.session_key, key)
        self.store.stop()
        admission = yield self.authorizer.authorize(handshake, ())
        self.assertEqual(admission.identity.session_key, key)

    @inlineCallbacks
    def test_a_cache_that_is_down_logs_nobody_out(self) -> Any:
        outage = yield self.assertFailure(
            self.ask("django.contrib.sessions.backends.cache"), Outage
        )
        self.assertEqual(outage.status, 503)
        self.assertIn("ConnectionError", outage.detail)

    @inlineCallbacks
    def test_cached_db_needs_no_cache(self) -> Any:
        yield self.ask("django.contrib.sessions.backends.cached_db")


class KindTests(SynchronousTestCase):
    def test_what_cannot_be_reached_is_an_outage_and_a_bug_is_none(self) -> None:
        wrapped = LookupError("wrapped")
        wrapped.__cause__ = OperationalError("gone")
        for error in (
            OperationalError("server closed the connection unexpectedly"), wrapped,
            ConnectionRefusedError(), TimeoutError(), OSError(errno.EHOSTUNREACH, "no"),
            valkey.exceptions.ConnectionError(), valkey.exceptions.TimeoutError(),
            valkey.exceptions.BusyLoadingError(),
        ):  # fmt: skip
            self.assertTrue(is_outage(error), error)
        for error in (
            LookupError(), ProgrammingError(), FileNotFoundError(2, "no"), PermissionError(13, ""),
        ):  # fmt: skip
            self.assertFalse(is_outage(error), error)

    def test_a_table_that_was_never_made_is_a_bug(self) -> None:
        with self.assertRaises(OperationalError) as caught, connections["default"].cursor() as it:
            it.execute("SELECT * FROM never_made")
        self.assertFalse(is_outage(caught.exception))

    def test_an_error_that_causes_itself_is_judged_once(self) -> None:
        error = LookupError()
        error.__cause__ = error
        self.assertFalse(is_outage(error))

    def test_each_outage_has_a_line_and_a_bug_passes(self) -> None:
        clock, events = Clock(), []
        log = OutageLog(clock)
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for _ in range(100):
            self.assertIsInstance(log.judge(Failure(OperationalError("no\nroute"))).value, Outage)
            clock.advance(10)
        self.assertEqual(len(events), 1)
        clock.advance(100)
        log.judge(Failure(OperationalError()))
        self.assertEqual(len(events), 2)
        for error in (LookupError(), Denied(403, "no")):
            self.assertIs(log.judge(Failure(error)).value, error)
        self.assertEqual(len(events), 2)
