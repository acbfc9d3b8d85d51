"""The contract, section 8: a revocation closes what a token opened, and makes older tokens void."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks

from tests.support import TIMEOUT
from tests.support.centrifuge import open_centrifuge
from tests.support.django import in_thread, set_up_django
from tests.support.servers import LISTEN
from tests.support.sites import DjangoTests, override
from tests.support.tokens import SECRET, token
from ws4redis_tx.service import disconnect as disconnect_in_reactor
from ws4redis_tx.service import make_service

set_up_django()


from django.contrib.auth.models import Group, User
from django.contrib.auth.signals import user_logged_out
from django.test import RequestFactory

import ws4redis_tx
from ws4redis_tx.config import django_settings
from ws4redis_tx.tokens import connection_token

EXPIRED, TOKEN_EXPIRED = 3005, 109


class TokenRevocationTestCase(DjangoTests):
    def overrides(self) -> dict[str, Any]:
        return {"WS4REDIS_CENTRIFUGE_URL": "/connection/", "WS4REDIS_TOKEN_SECRET": SECRET}

    def token(self, name: str = "ann") -> Any:
        return in_thread(lambda: connection_token(self.user(name)))

    @inlineCallbacks
    def connect(self, token: str, port: int = 0) -> Any:
        """Fire with a client, whose ``welcome`` is the code of an error if it is refused."""
        client = yield open_centrifuge(port or self.port, connect={"token": token})
        self.addCleanup(self._close, client.websocket)
        return client

    @inlineCallbacks
    def assert_void(self, token: str, port: int = 0) -> Any:
        client = yield self.connect(token, port)
        self.assertEqual(client.welcome, TOKEN_EXPIRED)

    @inlineCallbacks
    def assert_good(self, token: str, port: int = 0) -> Any:
        client = yield self.connect(token, port)
        self.assertIsInstance(client.welcome, dict)
        return client

    @inlineCallbacks
    def assert_voids(self, change: Callable[[], Any]) -> Any:
        """Check that ``change`` ends what Ann's token opened, and leaves Bob alone."""
        old, bobs = (yield self.token()), (yield self.token("bob"))
        ann, bob = (yield self.assert_good(old)), (yield self.assert_good(bobs))
        yield in_thread(change)
        self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), EXPIRED)
        yield self.assert_void(old)
        self.assertEqual((yield bob.ask("subscribe", channel="broadcast:x")), {})
        yield self.assert_good(bobs)

    @inlineCallbacks
    def assert_leaves(self, change: Callable[[], Any]) -> Any:
        text = yield self.token()
        ann = yield self.assert_good(text)
        yield in_thread(change)
        yield self.broker.fence()
        yield self.assert_good(text)
        self.assertEqual((yield ann.ask("subscribe", channel="broadcast:x")), {})

    def change(self, **values: Any) -> None:
        user = self.user()
        for name, value in values.items():
            setattr(user, name, value)
        user.save()


class SignalTests(TokenRevocationTestCase):
    @inlineCallbacks
    def test_a_logout(self) -> Any:
        yield self.assert_voids(lambda: self.browsers["ann"].post("/logout/"))

    @inlineCallbacks
    def test_a_logout_of_an_api_that_has_no_session(self) -> Any:
        def log_out() -> None:
            request = RequestFactory().post("/")
            user_logged_out.send(User, request=request, user=self.user())

        yield self.assert_voids(log_out)

    @inlineCallbacks
    def test_another_password(self) -> Any:
        def change() -> None:
            user = self.user()
            user.set_password("another")
            user.save()

        yield self.assert_voids(change)

    @inlineCallbacks
    def test_a_deactivated_user(self) -> Any:
        yield self.assert_voids(lambda: self.change(is_active=False))

    @inlineCallbacks
    def test_another_name(self) -> Any:
        yield self.assert_voids(lambda: self.change(username="anne"))

    @inlineCallbacks
    def test_a_deleted_user(self) -> Any:
        yield self.assert_voids(lambda: self.user().delete())

    @inlineCallbacks
    def test_a_lost_group(self) -> Any:
        yield self.assert_voids(lambda: self.user().groups.clear())

    @inlineCallbacks
    def test_a_group_that_removes_somebody(self) -> Any:
        yield self.assert_voids(lambda: self.group.user_set.remove(self.user()))

    @inlineCallbacks
    def test_a_user_who_is_disconnected(self) -> Any:
        yield self.assert_voids(lambda: ws4redis_tx.disconnect(user="ann"))
        yield self.assert_voids(lambda: ws4redis_tx.disconnect(user=self.user()))

    @inlineCallbacks
    def test_one_who_is_disconnected_from_the_reactor(self) -> Any:
        old = yield self.token()
        ann = yield self.assert_good(old)
        yield disconnect_in_reactor(self.service.factory.config, self.broker, user="ann")
        self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), EXPIRED)
        yield self.assert_void(old)

    @inlineCallbacks
    def test_a_group_that_is_renamed_deleted_emptied_or_disconnected(self) -> Any:
        def rename() -> None:
            group = Group.objects.get(pk=self.group.pk)
            group.name = "revoked and renamed"
            group.save()

        for change in (
            lambda: ws4redis_tx.disconnect(group="revoked testers"),
            lambda: self.group.user_set.clear(),
            rename,
            lambda: Group.objects.get(pk=self.group.pk).delete(),
        ):
            yield in_thread(lambda: self.user().groups.add(self.group))
            old = yield self.token()
            ann = yield self.assert_good(old)
            yield in_thread(change)
            self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), EXPIRED)
            yield self.assert_void(old)


class OtherChangeTests(TokenRevocationTestCase):
    """Sites save their users often, and a token whose user lost nothing stays good."""

    @inlineCallbacks
    def test_a_save_that_changes_nothing_of_the_login(self) -> Any:
        yield self.assert_leaves(lambda: self.change(first_name="Ann", email="a@example.com"))
        yield self.assert_leaves(lambda: self.user().save())

    @inlineCallbacks
    def test_a_save_of_other_fields(self) -> Any:
        def save() -> None:
            user = self.user()
            user.password = "this one is not saved"
            user.save(update_fields=["first_name"])

        yield self.assert_leaves(save)

    @inlineCallbacks
    def test_a_login_and_a_gained_group(self) -> Any:
        yield self.assert_leaves(lambda: self.log_in(self.user()))

        def join() -> None:
            self.user().groups.add(Group.objects.create(name="revoked, too"))

        yield self.assert_leaves(join)

    @inlineCallbacks
    def test_a_site_without_such_clients_asks_and_tells_nothing_more(self) -> Any:
        override(self, WS4REDIS_CENTRIFUGE_URL=None)
        self.assertEqual((yield self.said(lambda: self.change(is_active=True))), 1)

        def save() -> None:
            user = self.user()
            with self.assertNumQueries(1):
                user.save()

        yield in_thread(save)
        self.assertEqual((yield self.said(lambda: self.browsers["ann"].post("/logout/"))), 1)
        self.assertEqual(self.redis.command("KEYS", "ctl:void:*"), [])

    def assertNumQueries(self, number: int) -> Any:  # noqa: N802
        from django.db import connection
        from django.test.utils import CaptureQueriesContext

        test = self

        class Counted(CaptureQueriesContext):
            def __exit__(self, *raised: Any) -> None:
                super().__exit__(*raised)
                updates = [each["sql"] for each in self if "auth_user" in each["sql"]]
                test.assertEqual(len(updates), number, updates)

        return Counted(connection)


class LaterTests(TokenRevocationTestCase):
    @inlineCallbacks
    def test_a_newer_token_is_good(self) -> Any:
        yield in_thread(lambda: self.browsers["ann"].post("/logout/"))
        yield self.assert_good((yield self.token()))

    @inlineCallbacks
    def test_a_server_that_is_started_later_knows_it(self) -> Any:
        old = yield self.token()
        for change in (
            lambda: self.browsers["ann"].post("/logout/"),
            lambda: ws4redis_tx.disconnect(user="bob"),
        ):
            yield in_thread(change)
        bobs = yield in_thread(lambda: token(iat=time.time() - 60, exp=time.time() + 60, sub="bob"))
        second = make_service(django_settings.server_config(listen=LISTEN))
        second.startService()
        self.addCleanup(second.stopService)
        yield second.when_ready()
        port = second.ports[0].getHost().port
        for text in (old, bobs):
            yield self.assert_void(text, port)
        yield self.assert_good((yield self.token()), port)

    @inlineCallbacks
    def test_redis_keeps_it_for_a_day_and_learns_no_name(self) -> Any:
        yield in_thread(lambda: self.browsers["ann"].post("/logout/"))
        keys = self.redis.command("KEYS", "ctl:void:*")
        self.assertIn(len(keys), (1, 2))
        for key in keys:
            self.assertIn(self.redis.command("TTL", key), range(86_000, 86_401))
            self.assertRegex(self.redis.command("GET", key), rb"^(1:[0-9a-f]{32}:\d+\.\d+\n)+$")

    @inlineCallbacks
    def test_a_token_of_another_program_that_names_no_primary_key_is_void_too(self) -> Any:
        for change in (
            lambda: self.browsers["ann"].post("/logout/"),
            lambda: self.change(is_active=False),
        ):
            text = token(iat=time.time(), exp=time.time() + 60, sub="ann")
            ann = yield self.assert_good(text)
            yield in_thread(change)
            self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), EXPIRED)
            yield self.assert_void(text)

    @inlineCallbacks
    def test_an_endless_one_is_closed_and_may_come_back(self) -> Any:
        override(self, WS4REDIS_ENDLESS_TOKENS=True)
        second = make_service(django_settings.server_config(listen=LISTEN))
        second.startService()
        self.addCleanup(second.stopService)
        yield second.when_ready()
        port = second.ports[0].getHost().port
        ann = yield self.assert_good(token(sub="ann"), port)
        yield in_thread(lambda: self.browsers["ann"].post("/logout/"))
        self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), EXPIRED)
        yield self.assert_good(token(sub="ann"), port)
