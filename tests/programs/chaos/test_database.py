"""The database goes away: open websockets stay and hear everything, others get 503 meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue, inlineCallbacks
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.programs.chaos.harness import ChaosTestCase, within
from tests.support.clients import exchange, open_websocket
from tests.support.django import SETTINGS, cookies_of, in_thread, log_in, set_up_django
from tests.support.programs import twistd
from tests.support.redis import shared_redis
from tests.support.wires import handshake_bytes, status_of

set_up_django()

from django.contrib.auth.models import Group, User
from django.db import connections
from django.test import override_settings

from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.policies import allow_all


class DatabaseTests(ChaosTestCase):
    options = {"recheck": 1}

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        allowed = override_settings(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        allowed.enable()
        self.addCleanup(allowed.disable)
        self.authorizer = DjangoAuthorizer(reactor)
        self.addCleanup(self.authorizer.stop)
        yield in_thread(self.make_member)
        self.addCleanup(in_thread, self.delete_member)
        self.cookies = cookies_of((yield log_in("member")))

    def make_member(self) -> None:
        member = User.objects.create_user("member", password="secret")
        member.groups.add(Group.objects.create(name="staff"))

    def delete_member(self) -> None:
        User.objects.filter(username="member").delete()
        Group.objects.filter(name="staff").delete()

    def open(self, path: str, **options: Any) -> Any:
        return super().open(path, cookies=self.cookies, **options)

    def failures(self) -> DeferredQueue[None]:
        """An item for each lookup that fails from now on."""
        failures: DeferredQueue[None] = DeferredQueue()
        authorize = self.authorizer.authorize

        def fail(failure: Failure) -> Failure:
            failures.put(None)
            return failure

        self.patch(self.authorizer, "authorize", lambda *given: authorize(*given).addErrback(fail))
        return failures

    @inlineCallbacks
    def test_it_goes_away(self) -> Any:
        # New connections fail; the lookups' threads keep none between two batches.
        gone = mock.patch.dict(connections.settings["default"], NAME="/nonexistent/db.sqlite3")
        self.addCleanup(gone.stop)

        @inlineCallbacks
        def begin() -> Any:
            failures = self.failures()
            gone.start()
            for _ in range(5 * len(self.ears)):  # time counts, not failures
                yield within(failures.get(), "a recheck failed")

        yield self.fault(begin, gone.stop)
        self.assertEqual(self.closed, 0)


class ServerTests(TestCase):
    """A real ``twistd ws4redis``, whose database is a file."""

    timeout = 60

    @inlineCallbacks
    def test_its_folder_is_not_there_for_a_while(self) -> Any:
        cookies = cookies_of((yield log_in("john")))
        top = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, top)
        here, away = top / "here", top / "away"
        here.mkdir()
        shutil.copy(os.environ["CHATSERVER_DB"], here / "db")
        redis = shared_redis()
        program = twistd(
            "--listen=tcp:0:interface=127.0.0.1", f"--redis={redis.address}", "--recheck=1",
            f"--settings={SETTINGS}", CHATSERVER_DB=str(here / "db"),
        )  # fmt: skip
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"Ready: websockets at (ws://\S+:(\d+)/ws/)")
        url, port = ready[1] + "foobar?subscribe-user", int(ready[2])
        client = yield open_websocket(url, cookies=cookies)
        here.rename(away)
        yield program.wait_for("A websocket whose rechecks still fail after 30 s is closed")
        header = "; ".join(f"{name}={value}" for name, value in cookies.items())
        for _ in range(5):
            answer = yield exchange(port, handshake_bytes(Cookie=header, Host="localhost"))
            self.assertEqual(status_of(answer), 503)
            self.assertIn(b"\r\nRetry-After: ", answer)
        redis.command("PUBLISH", "user:john:foobar", "still here")
        self.assertEqual((yield client.next()), "still here")
        away.rename(here)
        newcomer = yield open_websocket(url, cookies=cookies)
        for each in client, newcomer:
            each.sendClose(1000)
            self.assertEqual((yield each.closed), 1000)
        self.assertEqual(program.printed.count("does not answer"), 1)
        self.assertNotIn("Traceback", program.printed)
