"""Users who are no longer let in do not stay in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import time
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.signals import user_logged_out
from django.core.cache import cache
from django.db import transaction
from django.test import RequestFactory, override_settings
from django.utils import timezone
from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue, inlineCallbacks
from twisted.internet.task import Clock

from tests.security.cases import Visit, connect
from tests.support import ROOT, TIMEOUT
from tests.support.django import in_thread, set_up_django
from tests.support.servers import LISTEN
from tests.support.sites import ALL, DjangoTests, Lines, recheck_all
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config import django_settings
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.django import revoking
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.revocation import rechecker
from ws4redis_tx.service import make_service
from ws4redis_tx.threads import bridge
from ws4redis_tx.twistd.embedded_redis import free_port

set_up_django()

from django.contrib.auth.models import User
from django.contrib.sessions.backends.cache import KEY_PREFIX
from django.contrib.sessions.models import Session


class RevocationTests(DjangoTests):
    """Visitors who would no longer be let in lose their open websockets, whatever they kept.

    The clock of postponed work stands still unless a test advances it; everything that happens
    without that happens at once.
    """

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        self.clock = self.stop_clock(self.service)

    def stop_clock(self, service: Any) -> Clock:
        clock = Clock()
        revocations = service.factory.session_server.revocations
        self.patch(revocations, "_reactor", clock)
        self.patch(revocations._rechecker, "_reactor", clock)
        return clock

    @inlineCallbacks
    def status(self, flags: str = "subscribe-user", name: str = "ann") -> Any:
        """Fire with the status that a handshake with the old cookie gets; 101 lets it in."""
        return (yield self.status_at(self.port, flags, name))

    @inlineCallbacks
    def status_at(self, port: int, flags: str, name: str) -> Any:
        handshake = handshake_bytes(
            f"/ws/foobar?{flags}",
            Host=f"127.0.0.1:{port}",
            Cookie=f"{settings.SESSION_COOKIE_NAME}={self.key(name)}",
        )
        visit = yield connect(port, Visit(handshake))
        return status_of((yield visit.ended.addTimeout(TIMEOUT, reactor)))

    @inlineCallbacks
    def test_an_application_that_does_nothing_for_it_gets_it(self) -> Any:
        with override_settings():
            del settings.WS4REDIS_REVOKE
            yield self.assert_ends_ann_alone(self.browsers["ann"].post, "/logout/")

    @inlineCallbacks
    def test_a_logout_ends_what_was_opened_with_the_stolen_cookie(self) -> Any:
        stolen = yield self.open("news?subscribe-session", cookies=self.cookies["ann"])
        _, cookies = yield in_thread(lambda: self.log_in(self.user()))
        elsewhere = yield self.open(ALL, cookies=cookies)
        yield self.assert_ends_ann_alone(self.browsers["ann"].post, "/logout/")
        yield self.assert_closed(stolen)
        yield self.assert_open(elsewhere)
        self.assertEqual((yield self.status()), 401)

    @inlineCallbacks
    def test_the_stolen_key_is_refused_for_30_s_by_all_servers_although_its_session_is_there(
        self,
    ) -> Any:
        second = make_service(django_settings.server_config(listen=LISTEN))
        second.startService()
        self.addCleanup(second.stopService)
        yield second.when_ready()
        clocks = [self.clock, self.stop_clock(second)]
        request = RequestFactory().get("/")
        request.session = self.browsers["ann"].session
        # The session itself stays, as in a cache or a replica that is behind.
        yield in_thread(lambda: user_logged_out.send(User, request=request, user=self.user()))
        yield self.assert_closed(self.ann)
        yield second.factory.broker.fence()
        for passed, status in ((0.0, 403), (29.9, 403), (0.2, 101)):
            for clock in clocks:
                clock.advance(passed)
            for port in (self.port, second.ports[0].getHost().port):
                for flags in ("subscribe-user", "subscribe-broadcast"):
                    self.assertEqual((yield self.status_at(port, flags, "ann")), status, passed)
        self.assertEqual((yield self.status(name="bob")), 101)

    @inlineCallbacks
    def test_password_lock_deletion_and_groups_take_effect_at_once_and_for_good(self) -> Any:
        def save(**values: Any) -> None:
            user = self.user()
            for name, value in values.items():
                setattr(user, name, value)
            user.save()

        changes: list[tuple[Callable[[], Any], int]] = [
            (lambda: save(password=make_password("new")), 401),
            (lambda: save(is_active=False), 401),
            (lambda: self.user().delete(), 401),
            (lambda: self.user().groups.clear(), 101),
            (lambda: self.group.user_set.remove(self.user()), 101),
        ]
        for change, status in changes:
            yield in_thread(self.prepare)
            ann = yield self.open(ALL, cookies=self.cookies["ann"])
            bob = yield self.open(ALL, cookies=self.cookies["bob"])
            yield in_thread(change)
            yield self.assert_closed(ann)
            yield self.assert_open(bob)
            self.assertEqual((yield self.status()), status)
        # A user who lost only the group comes back, and hears nothing of it.
        ann = yield self.open(ALL, cookies=self.cookies["ann"])
        self.redis.command("PUBLISH", "group:revoked testers:foobar", "of the group")
        yield self.assert_open(ann)

    def user_is_saved(self) -> None:
        with transaction.atomic():
            self.user().save()

    @inlineCallbacks
    def test_who_was_rechecked_too_early_is_rechecked_2_s_later(self) -> Any:
        authorizer, answered = self.service.factory.session_server.authorizer, DeferredQueue()
        authorize = authorizer.authorize

        def watched(handshake: Any, rights: Any) -> Any:
            def tell(answer: Any) -> Any:
                answered.put(None)
                return answer

            return authorize(handshake, rights).addBoth(tell)

        self.patch(authorizer, "authorize", watched)
        yield in_thread(self.user_is_saved)
        yield answered.get().addTimeout(TIMEOUT, reactor)
        # A change that the replica did not have yet; no message tells of it.
        yield in_thread(lambda: User.objects.filter(username="ann").update(is_active=False))
        yield self.assert_open(self.ann)
        self.clock.advance(1.9)
        yield self.assert_open(self.ann)
        self.assertEqual(answered.pending, [])
        self.clock.advance(0.2)
        yield self.assert_closed(self.ann)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def test_who_takes_redis_away_keeps_nobody_from_logging_out(self) -> Any:
        commands = Commands(RedisAddress(port=free_port()), "", reactor, timeout=5)
        commands.start()
        self.addCleanup(commands.stop)
        bridge.share_commands(commands)
        self.patch(revoking, "_outage", revoking._Outage())
        waits: list[float] = []
        send = bridge.redis().send

        def watched(channels: Any, message: bytes, patience: float, done: Any, **more: Any) -> bool:
            waits.append(patience)
            return send(channels, message, patience, done, **more)

        self.patch(bridge.redis(), "send", watched)
        log = Lines(self)

        def log_out_and_be_locked() -> Any:
            answer = self.browsers["ann"].post("/logout/")
            user = self.user()
            user.is_active = False
            user.save()
            user.groups.clear()
            return answer

        answer = yield in_thread(log_out_and_be_locked)
        self.assertEqual(answer.status_code, 302)
        self.assertEqual((yield self.status()), 401)
        self.assertLessEqual(max(waits), 0.5)
        self.assertEqual(waits[1:], [0.0] * (len(waits) - 1), "one waits, no more")
        yield self.assertFailure(commands.when_connected(), Exception)  # all have failed
        self.assertEqual(len(log.lines), 1)
        # Nobody told the server; it finds out by itself.
        recheck_all(self.service)
        yield self.assert_closed(self.ann)

    @inlineCallbacks
    def test_logins_and_new_users_cannot_be_used_to_have_others_rechecked(self) -> Any:
        def storm() -> None:
            for _ in range(3):
                self.browsers["bob"].post("/login/", {"username": "bob", "password": "secret"})
                User.objects.create_user("new", password="secret").groups.set([])
                with override_settings(WS4REDIS_REVOKE=False):
                    User.objects.filter(username="new").delete()

        self.assertEqual((yield self.said(storm)), 0)

    @inlineCallbacks
    def test_a_websocket_does_not_outlive_its_session(self) -> Any:
        def ends_in(seconds: float, name: str) -> None:
            end = timezone.now() + timedelta(seconds=seconds)
            Session.objects.filter(pk=self.key(name)).update(expire_date=end)

        difference = time() - self.clock.seconds()
        self.patch(rechecker, "time", lambda: difference + self.clock.seconds())
        for name in ("ann", "bob"):
            yield in_thread(ends_in, 100, name)
        flags = "foobar?subscribe-broadcast"
        ann = yield self.open(flags, cookies=self.cookies["ann"])
        bob = yield self.open(flags, cookies=self.cookies["bob"])
        self.clock.advance(90)
        yield in_thread(ends_in, 1000, "bob")  # its visitor was active meanwhile
        yield in_thread(ends_in, -1, "ann")  # as time passes
        yield self.assert_open(ann)
        self.clock.advance(11)
        yield self.assert_closed(ann)
        yield self.assert_open(bob)

    @inlineCallbacks
    def test_what_sends_no_signal_is_found_at_the_next_recheck(self) -> Any:
        caches = "django.contrib.sessions.backends.cache"
        cookies = "django.contrib.sessions.backends.signed_cookies"
        locked = User.objects.filter(username="ann")
        for engine, change in (
            (settings.SESSION_ENGINE, lambda: locked.update(is_active=False)),
            (caches, lambda: cache.delete(KEY_PREFIX + self.key())),
            (cookies, lambda: locked.update(password="!")),
        ):
            with override_settings(SESSION_ENGINE=engine):
                yield in_thread(self.prepare)
                ann = yield self.open(
                    "foobar?subscribe-broadcast&subscribe-user", cookies=self.cookies["ann"]
                )
                bob = yield self.open(
                    "foobar?subscribe-broadcast&subscribe-user", cookies=self.cookies["bob"]
                )
                self.assertEqual((yield self.said(change)), 0)
                yield self.assert_open(ann)
                self.assertEqual((yield self.status()), 401)
                recheck_all(self.service)
                yield self.assert_closed(ann)
                yield self.assert_open(bob)

    def test_the_documentation_lists_which_is_which(self) -> None:
        text = (ROOT / "docs" / "security.md").read_text()
        section = text.partition("## What takes effect when")[2].partition("\n## ")[0]
        rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| ")]
        for event, when in (
            ("logout (`django", "at once"),
            ("password:", "at once"),
            ("`is_active = False`", "at once"),
            ("`user.delete()`", "at once"),
            ("`user.groups.remove", "at once"),
            ("`ws4redis_tx.disconnect", "at once"),
            ("the session ends (database", "when it ends"),
            ("`QuerySet.update()`", "next recheck"),
            ("cache entry is deleted", "next recheck"),
            ("logout with signed cookies", "when the cookie ends"),
        ):
            (told,) = [then for what, then in rows if event in what]
            self.assertTrue(told.strip().startswith(when), (event, told))
