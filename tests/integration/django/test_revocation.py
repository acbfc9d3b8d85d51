"""Changes in Django reach open websockets, over a real Redis, with Django in a thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.brokers import share_commands
from tests.support.django import environment, in_thread, set_up_django
from tests.support.programs import python
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN
from tests.support.sites import ALL, DjangoTests, Lines, override, recheck_all
from ws4redis_tx.twistd.embedded_redis import free_port

set_up_django()

from django.contrib.auth import logout
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.auth.signals import user_logged_out
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client, RequestFactory, override_settings
from django.utils import timezone

import ws4redis_tx
from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.django import revoking
from ws4redis_tx.service import make_service
from ws4redis_tx.threads import bridge


class LogoutTests(DjangoTests):
    @inlineCallbacks
    def test_a_logout_of_nobody_or_without_a_request_harms_nothing(self) -> Any:
        def log_out() -> None:
            request = RequestFactory().get("/")
            request.session, request.user = SessionStore(), AnonymousUser()
            logout(request)
            user_logged_out.send(sender=User, request=None, user=None)
            user_logged_out.send(sender=User, request=object(), user=None)

        self.assertEqual((yield self.said(log_out)), 0)

    @inlineCallbacks
    def test_a_server_that_is_started_right_afterwards_knows_it(self) -> Any:
        row = yield in_thread(lambda: Session.objects.get(pk=self.key()))
        yield self.assert_ends_ann_alone(lambda: self.browsers["ann"].logout())
        # A replica of the database, or a cache, may have the session for a moment.
        yield in_thread(lambda: row.save(force_insert=True))
        self.addCleanup(in_thread, lambda: Session.objects.filter(pk=self.key()).delete())
        other = make_service(django_settings.server_config(listen=LISTEN))
        self.launch(other)
        yield other.when_ready()
        refused = yield self.assertFailure(self.open(ALL, cookies=self.cookies["ann"]), Exception)
        self.assertIn("403", str(refused))
        yield self.open(ALL, cookies=self.cookies["bob"])


class UserTests(DjangoTests):
    def change(self, **values: Any) -> None:
        user = self.user()
        for name, value in values.items():
            setattr(user, name, value)
        user.save()

    @inlineCallbacks
    def test_a_user_that_is_renamed(self) -> Any:
        yield self.assert_ends_ann_alone(lambda: self.change(username="anne"))

    @inlineCallbacks
    def test_users_that_a_query_deletes(self) -> Any:
        yield self.assert_ends_ann_alone(lambda: User.objects.filter(username="ann").delete())

    @inlineCallbacks
    def test_a_save_through_a_proxy(self) -> Any:
        from tests.projects.accounts.proxies import Member

        def change() -> None:
            member = Member.objects.get(username="ann")
            member.is_active = False
            member.save()

        from ws4redis_tx.django import receivers

        receivers.connect()  # it was defined after Django's start
        yield self.assert_ends_ann_alone(change)

    @inlineCallbacks
    def test_what_changes_nothing_closes_nothing(self) -> Any:
        yield in_thread(lambda: self.change(first_name="Ann"))
        yield self.assert_open(self.ann)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def test_creations_and_logins_say_nothing(self) -> Any:
        def work() -> None:
            User.objects.create_user("new", password="secret")
            User(username="anne").save()
            self.browsers["ann"].post("/login/", {"username": "new", "password": "secret"})
            user = self.user()
            user.last_login = timezone.now()
            user.save(update_fields=["last_login"])
            Group.objects.create(name="revoked and new")

        self.assertEqual((yield self.said(work)), 0)

    @inlineCallbacks
    def test_nothing_is_said_before_the_commit_and_nothing_after_a_rollback(self) -> Any:
        def roll_back() -> None:
            try:
                with transaction.atomic():
                    self.change(is_active=False)
                    self.user().groups.clear()
                    self.group.delete()
                    raise LookupError
            except LookupError:
                pass

        self.assertEqual((yield self.said(roll_back)), 0)

        def commit() -> None:
            with transaction.atomic():
                self.change(is_active=False)
                before.append(list(self.ear.heard))

        before: list[list[bytes]] = []
        self.assertEqual((yield self.said(commit)), 1)
        self.assertEqual(before, [[]])

    @inlineCallbacks
    def test_switched_off_nothing_is_said(self) -> Any:
        with override_settings(WS4REDIS_REVOKE=False):
            self.assertEqual((yield self.said(lambda: self.change(is_active=False))), 0)

    def test_a_user_model_without_groups(self) -> None:
        """In a separate process, because this setting cannot be overridden."""
        program = (
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', run_syncdb=True, verbosity=0)\n"
            "from ws4redis_tx.django import receivers\n"
            "receivers.tell = lambda revocation: print(revocation.payload.decode())\n"
            "from django.contrib.auth import get_user_model\n"
            "user, _ = get_user_model().objects.get_or_create(email='she@example.com')\n"
            "user.save()\n"
            "print(user.pk)\n"
        )
        variables = {
            **environment(),
            "DJANGO_SETTINGS_MODULE": "tests.projects.django_project.accounts",
        }
        result = python("-c", program, **variables)
        said, primary_key = result.stdout.split("\n")[:2]
        self.assertEqual(said, f'{{"recheck": {{"user": ["{primary_key}"]}}}}', result.stderr)


class GroupTests(DjangoTests):
    @inlineCallbacks
    def test_a_user_is_removed_from_a_group(self) -> Any:
        yield self.assert_ends_ann_alone(lambda: self.user().groups.remove(self.group))

    @inlineCallbacks
    def test_a_users_groups_are_set(self) -> Any:
        yield self.assert_ends_ann_alone(lambda: self.user().groups.set([]))

    @inlineCallbacks
    def test_a_group_removes_all_its_users(self) -> Any:
        yield in_thread(self.group.user_set.clear)
        yield self.assert_closed(self.ann)
        yield self.assert_closed(self.bob)

    @inlineCallbacks
    def test_a_group_is_renamed(self) -> Any:
        def rename() -> None:
            self.group.name = "revoked and renamed"
            self.group.save()

        yield in_thread(rename)
        yield self.assert_closed(self.ann)

    @inlineCallbacks
    def test_a_group_is_deleted(self) -> Any:
        yield in_thread(lambda: Group.objects.filter(name="revoked testers").delete())
        yield self.assert_closed(self.ann)

    @inlineCallbacks
    def test_a_group_that_is_saved_under_its_name_says_nothing(self) -> Any:
        self.assertEqual((yield self.said(self.group.save)), 0)

    @inlineCallbacks
    def test_who_joins_a_group_keeps_the_websocket_and_nobody_is_told(self) -> Any:
        def join() -> None:
            other = Group.objects.create(name="revoked others")
            self.user().groups.add(other)
            other.user_set.add(self.user("bob"))

        self.assertEqual((yield self.said(join)), 0)
        yield self.assert_open(self.ann)

    @inlineCallbacks
    def test_who_uses_no_group_right_keeps_the_websocket(self) -> Any:
        client = yield self.open("foobar?subscribe-broadcast", cookies=self.cookies["ann"])
        yield self.assert_ends_ann_alone(lambda: self.user().groups.clear())
        yield self.assert_open(client)


class DisconnectTests(DjangoTests):
    @inlineCallbacks
    def test_by_user_session_group_and_facility(self) -> Any:
        elsewhere = yield self.open("news?subscribe-broadcast", cookies=self.cookies["bob"])
        ann = yield in_thread(self.user)
        for whom, closed in (
            ({"user": ann}, [self.ann]),
            ({"session": self.key("bob")}, [self.bob, elsewhere]),
        ):
            told = yield in_thread(lambda whom=whom: ws4redis_tx.disconnect(**whom))
            self.assertEqual(told, 1)
            for client in closed:
                yield self.assert_closed(client)
        for whom in (
            {"user": "ann"},
            {"group": self.group},
            {"group": "revoked testers"},
            {"facility": "foobar"},
            {"session": self.browsers["ann"].session},
        ):
            client = yield self.open(ALL, cookies=self.cookies["ann"])
            yield in_thread(lambda whom=whom: ws4redis_tx.disconnect(**whom))
            yield self.assert_closed(client)

    @inlineCallbacks
    def test_from_async_code(self) -> Any:
        yield in_thread(lambda: asyncio.run(ws4redis_tx.adisconnect(user="ann")))
        yield self.assert_closed(self.ann)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def test_where_it_would_block_it_says_what_to_use(self) -> Any:
        with self.assertRaises(RuntimeError) as caught:
            ws4redis_tx.disconnect(user="ann")
        self.assertIn("ws4redis_tx.service.disconnect", str(caught.exception))

        async def view() -> None:
            ws4redis_tx.disconnect(user="ann")

        with self.assertRaises(RuntimeError) as caught:
            yield in_thread(lambda: asyncio.run(view()))
        self.assertIn("ws4redis_tx.adisconnect", str(caught.exception))

    def test_it_takes_exactly_one(self) -> None:
        with self.assertRaises(TypeError):
            ws4redis_tx.disconnect()
        with self.assertRaises(TypeError):
            ws4redis_tx.disconnect(user="ann", facility="foobar")


class ExpiryTests(DjangoTests):
    def overrides(self) -> dict[str, Any]:
        return {"WS4REDIS_RECHECK": 0}

    @inlineCallbacks
    def test_a_session_that_is_deleted_is_found_at_the_next_recheck(self) -> Any:
        delete = Session.objects.filter(pk=self.key("ann")).delete
        self.assertEqual((yield self.said(delete)), 0)
        yield self.assert_open(self.ann)
        recheck_all(self.service)
        yield self.assert_closed(self.ann)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def test_a_recheck_leaves_the_session_as_it_is(self) -> Any:
        def stored() -> list[Any]:
            return list(Session.objects.filter(pk=self.key()).values_list())

        before = yield in_thread(stored)
        yield in_thread(lambda: User.objects.filter(username="ann").update(password="new"))
        recheck_all(self.service)
        yield self.assert_closed(self.ann)
        self.assertEqual((yield in_thread(stored)), before)
        self.assertEqual(len(before), 1)


class WithoutRedisTests(TestCase):
    """Redis is unavailable: nothing fails, and nothing waits for long."""

    timeout = 60

    def setUp(self) -> None:
        from ws4redis_tx.redis.commands import Commands

        self.port = free_port()
        override(self, WS4REDIS_CONNECTION=f"redis://127.0.0.1:{self.port}")
        self.commands = Commands(django_settings.get_redis_address(), "", reactor, timeout=5)
        self.commands.start()
        self.addCleanup(self.commands.stop)
        share_commands(self, self.commands)
        self.patch(revoking, "_outage", revoking._Outage())
        self.log = Lines(self)

    def log_out_and_in(self) -> None:
        browser = Client(HTTP_HOST="127.0.0.1")
        for _ in range(3):
            browser.force_login(User.objects.get(username="john"))
            browser.logout()
            assert "_auth_user_id" not in browser.session
            user = User.objects.get(username="john")
            user.save()
            user.groups.set(user.groups.all())

    @inlineCallbacks
    def test_a_logout_works_and_all_of_it_is_one_line_in_the_log(self) -> Any:
        yield in_thread(self.log_out_and_in)
        yield self.assertFailure(self.commands.when_connected(), Exception)  # all of them failed
        self.assertEqual(len(self.log.lines), 1)
        self.assertIn("WS4REDIS_RECHECK", self.log.lines[0])
        with self.assertRaises(BrokerUnavailable):
            yield in_thread(lambda: ws4redis_tx.disconnect(user="john"))

    @inlineCallbacks
    def test_a_redis_that_does_not_answer_holds_up_the_first_one_only(self) -> Any:
        waits: list[float] = []
        send = bridge.redis().send

        def watched(channels: Any, message: bytes, patience: float, done: Any, **more: Any) -> bool:
            waits.append(patience)
            return send(channels, message, patience, done, **more)

        self.patch(bridge.redis(), "send", watched)
        from twisted.internet.protocol import Factory, Protocol

        silent = reactor.listenTCP(self.port, Factory.forProtocol(Protocol))
        self.addCleanup(silent.stopListening)
        yield in_thread(self.log_out_and_in)
        self.assertEqual(waits[0], 0.5)
        self.assertEqual(set(waits[1:]), {0.0})
        self.assertEqual(len(self.log.lines), 1)

    @inlineCallbacks
    def test_in_the_reactor_thread_and_on_an_event_loop_nobody_waits(self) -> Any:
        waits: list[float] = []
        self.patch(
            bridge.redis(),
            "send",
            lambda channels, message, patience, done: waits.append(patience) or False,
        )

        async def view() -> None:
            revoking.tell(revoking.disconnection(user="john"))

        yield in_thread(lambda: asyncio.run(view()))
        revoking.tell(revoking.disconnection(user="john"))
        self.assertEqual(waits, [0.0, 0.0])
        self.assertEqual(self.log.lines, [])

    @inlineCallbacks
    def test_when_redis_is_back_it_is_told_again(self) -> Any:
        yield in_thread(self.log_out_and_in)
        redis = RedisServer(port=self.port)
        self.addCleanup(redis.stop)
        while not self.commands.connected:
            yield self.commands.when_connected().addErrback(lambda _: None)
        arrived = threading.Event()
        revoking._outage._lasting = True
        done = revoking._outage._done
        self.patch(revoking._outage, "_done", lambda result: (done(result), arrived.set()))
        yield in_thread(lambda: User.objects.get(username="john").save())
        yield in_thread(arrived.wait, TIMEOUT)
        self.assertFalse(revoking._outage._lasting)

    @inlineCallbacks
    def test_whatever_goes_wrong_the_logout_works(self) -> Any:
        def broken(*arguments: Any) -> bool:
            raise LookupError("deliberate")

        self.patch(bridge.redis(), "send", broken)
        yield in_thread(self.log_out_and_in)
        self.assertTrue(self.log.lines)
