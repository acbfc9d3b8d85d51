"""A ticket lets its owner in, once; over a real Redis, with Django in a thread."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

from twisted.internet.defer import fail, gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support.clients import exchange, open_websocket
from tests.support.django import SETTINGS, environment, in_thread, set_up_django
from tests.support.events import open_events
from tests.support.logs import log_lines
from tests.support.programs import TWISTD, Program, python, twistd, write_file
from tests.support.redis import RedisServer, shared_redis
from tests.support.servers import LISTEN
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.service import make_service

set_up_django()

from django.conf import settings
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedCookies
from django.core.exceptions import PermissionDenied
from django.test import RequestFactory, override_settings

from tests.support.sites import DjangoTests, override
from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.revocation.messages import RECHECK, Revocation
from ws4redis_tx.tickets import amake_ticket, make_ticket

MINE = "foobar?subscribe-user&subscribe-group"


def process_request(request: Any) -> None:
    """The callback of a site that stores its user's name in a custom session item."""
    from importlib import import_module

    store = import_module(settings.SESSION_ENGINE).SessionStore
    request.session = store(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    name = request.headers.get("X-Member") or request.session.get("member")
    request.user = User.objects.get(username=name) if name else AnonymousUser()


def grant_more(request: Any, channels: list[str]) -> list[str]:
    return [*channels, "publish-broadcast", "echo"]


class TicketTests(DjangoTests):
    def request(self, name: str = "ann", *, session: bool = True) -> Any:
        """A view's request, from a browser or from a program without a session."""
        request = RequestFactory().post("/ticket/")
        request.user = self.user(name)
        if session:
            request.session = self.browsers[name].session
        return request

    def ticket(self, name: str = "ann", *, session: bool = True, **options: Any) -> Any:
        return in_thread(lambda: make_ticket(self.request(name, session=session), **options))

    def show(self, ticket: str, target: str = MINE, **headers: str) -> Any:
        """Fire with the answer to a client that sends no cookie."""
        offered = f"ws4redis, {ticket}"
        data = handshake_bytes(f"/ws/{target}", Sec_WebSocket_Protocol=offered, **headers)
        return exchange(self.port, data)

    @inlineCallbacks
    def assert_refused(self, ticket: str, status: int = 403, **options: Any) -> Any:
        answer = yield self.show(ticket, **options)
        self.assertEqual(status_of(answer), status, answer)
        self.assertNotIn(ticket.encode(), answer)

    @inlineCallbacks
    def enter(self, ticket: str, target: str = MINE) -> Any:
        return (yield self.open(target, protocols=["ws4redis", ticket]))

    @inlineCallbacks
    def recheck(self) -> Any:
        """Fire when everybody has been rechecked."""
        revocations = self.service.factory.session_server.revocations
        rechecker, everybody = revocations._rechecker, revocations._index.all()
        yield gatherResults([rechecker._recheck(each) for each in everybody])


class EventTests(TicketTests):
    """An ``EventSource`` of a page on another host has neither a cookie nor a subprotocol."""

    @inlineCallbacks
    def listen(self, ticket: str, target: str = MINE) -> Any:
        source = yield open_events(self.port, f"/ws/{target}&ticket={ticket}")
        self.addCleanup(source.transport.abortConnection)
        return source

    @inlineCallbacks
    def test_a_parameter_lets_in_its_user_once(self) -> Any:
        ticket = yield self.ticket()
        source = yield self.listen(ticket)
        self.assertEqual(source.status, 200)
        yield source.take(2)
        for name in ("user:ann", "group:revoked testers"):
            self.redis.command("PUBLISH", f"{name}:foobar", name)
            self.assertEqual((yield source.next()).data, name)
        again = yield self.listen(ticket)
        self.assertEqual(again.status, 403)
        self.assertNotIn(ticket, again.head)

    @inlineCallbacks
    def test_a_recheck_needs_no_second_ticket(self) -> Any:
        source = yield self.listen((yield self.ticket()))
        yield source.take(2)
        yield self.recheck()
        self.redis.command("PUBLISH", "user:ann:foobar", "still here")
        self.assertEqual((yield source.next()).data, "still here")

    @inlineCallbacks
    def test_two_are_a_mistake(self) -> Any:
        tickets = yield gatherResults([self.ticket(), self.ticket()])
        source = yield self.listen("&ticket=".join(tickets))
        self.assertEqual(source.status, 400)

    @inlineCallbacks
    def test_a_websocket_takes_none_from_its_url(self) -> Any:
        target = f"{MINE}&ticket={(yield self.ticket())}"
        answer = yield exchange(self.port, handshake_bytes(f"/ws/{target}"))
        self.assertEqual(status_of(answer), 401)

    @inlineCallbacks
    def test_it_is_in_no_log_line(self) -> Any:
        lines = log_lines(self)
        ticket = yield self.ticket()
        source = yield self.listen(ticket)
        yield source.leave()
        yield self.listen(ticket)
        self.assertNotIn(ticket, "".join(lines))


class RedeemingTests(TicketTests):
    @inlineCallbacks
    def test_it_lets_in_its_user_with_the_session_and_the_groups(self) -> Any:
        client = yield self.enter((yield self.ticket()), f"{MINE}&subscribe-session")
        for name in ("user:ann", "group:revoked testers", f"session:{self.key()}"):
            self.redis.command("PUBLISH", f"{name}:foobar", name)
            self.assertEqual((yield client.next()), name)

    @inlineCallbacks
    def test_who_has_no_session_is_the_user_with_the_groups(self) -> Any:
        client = yield self.enter((yield self.ticket(session=False)))
        for name in ("user:ann", "group:revoked testers"):
            self.redis.command("PUBLISH", f"{name}:foobar", name)
            self.assertEqual((yield client.next()), name)
        yield self.assert_refused(
            (yield self.ticket(session=False)), target="foobar?subscribe-session"
        )

    @inlineCallbacks
    def test_it_is_not_answered(self) -> Any:
        ticket = yield self.ticket()
        client = yield self.enter(ticket)
        self.assertEqual(client.selected_protocol, "ws4redis")

    @inlineCallbacks
    def test_one_that_would_be_answered_is_refused_and_not_used_up(self) -> Any:
        ticket = yield self.ticket()
        for offered in (ticket, f"{ticket}, ws4redis", f"a, b, {ticket}", f"a, {ticket}, {ticket}"):
            data = handshake_bytes(f"/ws/{MINE}", Sec_WebSocket_Protocol=offered)
            answer = yield exchange(self.port, data)
            self.assertEqual(status_of(answer), 400, offered)
            self.assertNotIn(ticket.encode(), answer)
        yield self.enter(ticket)

    @inlineCallbacks
    def test_it_goes_before_a_cookie(self) -> Any:
        client = yield self.open(
            MINE, protocols=["ws4redis", (yield self.ticket("ann"))], cookies=self.cookies["bob"]
        )
        self.redis.command("PUBLISH", "user:bob:foobar", "for bob")
        self.redis.command("PUBLISH", "user:ann:foobar", "for ann")
        self.assertEqual((yield client.next()), "for ann")

    @inlineCallbacks
    def test_a_cookie_does_not_help_who_shows_one_that_is_not_good(self) -> Any:
        cookie = f"{settings.SESSION_COOKIE_NAME}={self.key()}"
        yield self.assert_refused("ws4redis.ticket.forged", Cookie=cookie)

    @inlineCallbacks
    def test_another_site_gains_nothing_by_it(self) -> Any:
        ticket = yield self.ticket()
        yield self.assert_refused(ticket, Origin="https://evil.example")
        yield self.enter(ticket)

    @inlineCallbacks
    def test_redis_holds_neither_the_ticket_nor_anything_after_it_was_used(self) -> Any:
        ticket = yield self.ticket()
        (key,) = self.redis.command("KEYS", "ticket:*")
        self.assertRegex(key, rb"^ticket:[0-9a-f]{64}$")
        kept = self.redis.command("GET", key)
        self.assertNotIn(ticket.rpartition(".")[2].encode(), key + kept)
        self.assertIn(self.redis.command("TTL", key), range(10, 31))
        yield self.enter(ticket)
        self.assertEqual(self.redis.command("KEYS", "*ticket*"), [])

    @inlineCallbacks
    def test_its_name_has_the_prefix(self) -> Any:
        override(self, WS4REDIS_PREFIX="site")
        yield self.ticket()
        self.assertEqual(len(self.redis.command("KEYS", "site:ticket:*")), 1)

    @inlineCallbacks
    def test_a_callback_that_looks_users_up_finds_the_session(self) -> Any:
        def join() -> None:
            session = self.browsers["ann"].session
            session["member"] = "ann"
            session.save()

        yield in_thread(join)
        override(self, WS4REDIS_PROCESS_REQUEST=process_request)
        client = yield self.enter((yield self.ticket("ann")), "foobar?subscribe-user")
        self.redis.command("PUBLISH", "user:ann:foobar", "for ann")
        self.assertEqual((yield client.next()), "for ann")
        # The callback may look at anything, but must not find somebody else for the ticket.
        by_header = {"X-Member": "bob"}
        target = "foobar?subscribe-user"
        yield self.open(target, headers=by_header)
        yield self.assert_refused((yield self.ticket("ann")), target=target, X_Member="bob")
        # The callback decides: users that it does not know are refused, even if Django knows them.
        yield self.assert_refused((yield self.ticket("bob")))
        yield self.assertFailure(self.ticket("ann", session=False), PermissionDenied)


class AttackTests(TicketTests):
    @inlineCallbacks
    def test_a_second_time_it_is_refused(self) -> Any:
        for session in (True, False):
            ticket = yield self.ticket(session=session)
            yield self.enter(ticket)
            yield self.assert_refused(ticket)

    @inlineCallbacks
    def test_of_many_who_show_it_at_once_one_gets_in(self) -> Any:
        ticket = yield self.ticket()
        second = make_service(django_settings.server_config(listen=LISTEN))
        second.startService()
        self.addCleanup(second.stopService)
        yield second.when_ready()
        attempts = []
        for port in [self.port, second.ports[0].getHost().port] * 10:
            self.url = f"ws://127.0.0.1:{port}/ws/"
            attempts.append(self.enter(ticket).addCallbacks(lambda _: 1, lambda _: 0))
        self.assertEqual(sum((yield gatherResults(attempts))), 1)

    @inlineCallbacks
    def test_an_expired_one_is_refused(self) -> Any:
        ticket = yield self.ticket(seconds=100)
        (key,) = self.redis.command("KEYS", "ticket:*")
        self.assertIn(self.redis.command("TTL", key), range(80, 101))
        self.redis.command("PEXPIREAT", key, 1)  # in place of waiting
        yield self.assert_refused(ticket)

    @inlineCallbacks
    def test_a_forged_one_is_refused(self) -> Any:
        ticket = yield self.ticket()
        (key,) = self.redis.command("KEYS", "ticket:*")
        digest = key.decode().removeprefix("ticket:")
        changed = ticket[:-1] + ("A" if ticket[-1] != "A" else "B")
        for word in ("", digest, f"*{digest[:8]}", "x" * 2000, self.key()):
            yield self.assert_refused(f"ws4redis.ticket.{word}")
        yield self.assert_refused(changed)
        yield self.enter(ticket)

    @inlineCallbacks
    def test_what_a_ticket_stands_for_cannot_be_said_by_a_client(self) -> Any:
        claim = json.dumps(
            {"user_id": None, "session": self.key(), "user": {}, "facility": None, "rights": None}
        )
        answer = yield exchange(
            self.port, handshake_bytes(f"/ws/{MINE}", Redeemed=claim, redeemed=claim)
        )
        self.assertEqual(status_of(answer), 401)

    @inlineCallbacks
    def test_at_another_facility_it_is_refused_and_used_up(self) -> Any:
        for target in ("other?subscribe-user", "FOOBAR", "foobar/", "", "foobar%2F"):
            ticket = yield self.ticket(facility="foobar")
            yield self.assert_refused(ticket, target=target)
            yield self.assert_refused(ticket)
        yield self.enter((yield self.ticket(facility="foobar")))
        yield self.enter((yield self.ticket(facility="ä/b")), "%C3%A4%2Fb")

    @inlineCallbacks
    def test_it_grants_no_more_than_the_rights_it_was_made_for(self) -> Any:
        override(self, WS4REDIS_ALLOWED_CHANNELS=grant_more)
        ticket = yield self.ticket(rights=["subscribe-user"])
        client = yield self.enter(ticket, f"{MINE}&subscribe-broadcast&publish-broadcast")
        yield self.recheck()
        self.redis.command("PUBLISH", "broadcast:foobar", "for all")
        self.redis.command("PUBLISH", "group:revoked testers:foobar", "for the group")
        self.redis.command("PUBLISH", "user:ann:foobar", "for ann")
        self.assertEqual((yield client.next()), "for ann")
        client.sendMessage(b"to all")
        client.sendClose(1000)  # by its answer, a message would have been published
        self.assertEqual((yield client.closed), 1000)
        self.assertIsNone(self.redis.command("GET", "broadcast:foobar"))

    @inlineCallbacks
    def test_it_grants_no_more_than_the_user_has(self) -> Any:
        ticket = yield self.ticket(rights=["publish-broadcast"])
        yield self.assert_refused(ticket, target="foobar?publish-broadcast")

    @inlineCallbacks
    def change(self, **values: Any) -> Any:
        def change() -> None:
            user = self.user()
            for name, value in values.items():
                setattr(user, name, value)
            user.save()

        with override_settings(WS4REDIS_REVOKE=False):
            yield in_thread(change)

    @inlineCallbacks
    def test_that_of_a_deactivated_user_is_refused(self) -> Any:
        for session in (True, False):
            ticket = yield self.ticket(session=session)
            yield self.change(is_active=False)
            yield self.assert_refused(ticket)
            yield self.change(is_active=True)

    @inlineCallbacks
    def test_that_of_a_user_who_changed_the_password_is_refused(self) -> Any:
        for session in (True, False):
            ticket = yield self.ticket(session=session)
            yield self.change(password=f"another {session}")
            yield self.assert_refused(ticket)
            if session:
                self.browsers["ann"], self.cookies["ann"] = yield in_thread(
                    lambda: self.log_in(self.user())
                )

    @inlineCallbacks
    def test_that_of_a_deleted_user_or_of_a_session_that_was_logged_out_is_refused(self) -> Any:
        late = yield self.ticket()
        yield in_thread(self.browsers["ann"].logout)
        yield self.assert_refused(late)
        alone = yield self.ticket(session=False)
        yield in_thread(lambda: self.user().delete())
        yield self.assert_refused(alone)


class AfterwardsTests(TicketTests):
    """The server rechecks and revokes a websocket that a ticket opened like any other."""

    @inlineCallbacks
    def enter_both(self) -> Any:
        self.by_session = yield self.enter((yield self.ticket()))
        self.by_user = yield self.enter((yield self.ticket(session=False)))

    @inlineCallbacks
    def test_a_recheck_needs_no_second_ticket(self) -> Any:
        yield self.enter_both()
        for _ in range(2):
            yield self.recheck()
        for client in (self.by_session, self.by_user):
            self.redis.command("PUBLISH", "user:ann:foobar", "still here")
            self.assertEqual((yield client.next()), "still here")
            self.assertFalse(client.closed.called)
            if client is self.by_session:
                self.assertEqual((yield self.by_user.next()), "still here")

    @inlineCallbacks
    def test_a_logout_ends_that_of_the_session(self) -> Any:
        yield self.enter_both()
        yield in_thread(self.browsers["ann"].logout)
        yield self.assert_closed(self.by_session)
        self.assertFalse(self.by_user.closed.called)

    @inlineCallbacks
    def assert_ends_both(self, change: Any) -> Any:
        yield self.enter_both()
        yield in_thread(change)
        yield self.assert_closed(self.by_session)
        yield self.assert_closed(self.by_user)
        yield self.assert_open(self.bob)

    @inlineCallbacks
    def test_a_new_password_ends_both(self) -> Any:
        def change() -> None:
            user = self.user()
            user.set_password("new")
            user.save()

        yield self.assert_ends_both(change)

    @inlineCallbacks
    def test_a_user_that_is_made_inactive(self) -> Any:
        def change() -> None:
            user = self.user()
            user.is_active = False
            user.save()

        yield self.assert_ends_both(change)

    @inlineCallbacks
    def test_a_group_that_was_left(self) -> Any:
        yield self.assert_ends_both(lambda: self.user().groups.clear())

    @inlineCallbacks
    def test_what_sends_no_signal_is_found_by_a_recheck(self) -> Any:
        yield self.enter_both()
        yield in_thread(lambda: User.objects.filter(username="ann").update(is_active=False))
        self.broker.publish(
            [b"ctl:revoke"], Revocation(RECHECK, "group", ("revoked testers",)).payload, 0
        )
        yield self.assert_closed(self.by_session)
        yield self.assert_closed(self.by_user)


class MakingTests(TicketTests):
    @inlineCallbacks
    def test_nobody_gets_none(self) -> Any:
        def ask() -> None:
            request = RequestFactory().get("/")
            self.assertRaises(PermissionDenied, make_ticket, request)
            request.user, request.session = AnonymousUser(), self.browsers["ann"].session
            self.assertRaises(PermissionDenied, make_ticket, request)
            request.user = User(pk=123456, username="never saved")
            self.assertRaises(PermissionDenied, make_ticket, request)

        yield in_thread(ask)
        self.assertEqual(self.redis.command("KEYS", "ticket:*"), [])

    @inlineCallbacks
    def test_an_inactive_user_without_a_session_gets_none(self) -> Any:
        def ask() -> None:
            request = self.request(session=False)
            User.objects.filter(username="ann").update(is_active=False)
            self.assertRaises(PermissionDenied, make_ticket, request)

        yield in_thread(ask)

    @inlineCallbacks
    def test_the_session_of_somebody_else_is_not_given_away(self) -> Any:
        """An API that identifies its user by a token may also get any cookie."""

        def ask() -> str:
            request = self.request("ann")
            request.session = self.browsers["bob"].session
            return make_ticket(request)

        client = yield self.enter((yield in_thread(ask)))
        self.redis.command("PUBLISH", "user:bob:foobar", "for bob")
        self.redis.command("PUBLISH", "user:ann:foobar", "for ann")
        self.assertEqual((yield client.next()), "for ann")

    @inlineCallbacks
    def test_a_session_that_is_its_cookie_is_not_put_into_redis(self) -> Any:
        def ask() -> str:
            request = self.request()
            request.session = SignedCookies()
            request.session.update(self.browsers["ann"].session.items())
            request.session.save()
            self.cookie = request.session.session_key
            return make_ticket(request)

        ticket = yield in_thread(ask)
        (key,) = self.redis.command("KEYS", "ticket:*")
        self.assertNotIn(self.cookie.encode(), self.redis.command("GET", key))
        yield self.enter(ticket)

    @inlineCallbacks
    def test_what_makes_no_sense_is_said_at_once(self) -> Any:
        def ask() -> None:
            request = self.request()
            for seconds in (0, -1, 1.5, True, "30", None):
                with self.assertRaisesRegex(ValueError, re.escape(f"seconds={seconds!r}")):
                    make_ticket(request, seconds=seconds)
            for rights in (["subscribe-all"], [None], ["echo"]):
                with self.assertRaisesRegex(ValueError, "which is none of publish-broadcast, "):
                    make_ticket(request, rights=rights)
            with self.assertRaisesRegex(TypeError, r"rights=\['subscribe-user'\]"):
                make_ticket(request, rights="subscribe-user")
            with self.assertRaisesRegex(ValueError, "control character"):
                make_ticket(request, facility="a\n")

        yield in_thread(ask)
        self.assertEqual(self.redis.command("KEYS", "ticket:*"), [])

    @inlineCallbacks
    def test_no_two_are_the_same_and_none_can_be_guessed(self) -> Any:
        made = yield in_thread(lambda: [make_ticket(self.request()) for _ in range(20)])
        self.assertEqual(len(set(made)), 20)
        for ticket in made:
            self.assertRegex(ticket, r"^ws4redis\.ticket\.[A-Za-z0-9_-]{43}$")

    @inlineCallbacks
    def test_an_async_view_awaits_it(self) -> Any:
        def ask() -> str:
            async def view() -> str:
                with self.assertRaisesRegex(RuntimeError, "amake_ticket"):
                    make_ticket(request)
                return await amake_ticket(request, facility="foobar")

            request = self.request()
            return asyncio.run(view())

        yield self.enter((yield in_thread(ask)))

    def test_in_the_reactor_thread_it_says_what_to_use(self) -> None:
        with self.assertRaisesRegex(RuntimeError, r"deferToThread\(make_ticket, …\)"):
            make_ticket(self.request())

    @inlineCallbacks
    def test_without_redis_it_raises(self) -> Any:
        self.patch(self.broker.commands, "put", lambda *_: fail(BrokerUnavailable("It is away.")))
        yield self.assertFailure(self.ticket(), BrokerUnavailable)

    @inlineCallbacks
    def test_where_redis_cannot_be_asked_the_client_is_told_to_come_back(self) -> Any:
        ticket = yield self.ticket()
        self.patch(self.broker.commands, "take", lambda *_: fail(BrokerUnavailable("It is away.")))
        answer = yield self.show(ticket)
        self.assertEqual(status_of(answer), 503)
        self.assertIn(b"Retry-After", answer)


class ProcessTests(TestCase):
    """One process makes the ticket and another gets it; only their settings name the Redis."""

    timeout = 60

    @inlineCallbacks
    def assert_lets_in(self, program: Program, redis: RedisServer) -> Any:
        port = int((yield program.wait_for(r"starting on (\d+)"))[1])
        status = 503
        while status == 503:  # not connected to Redis yet
            status = status_of((yield exchange(port, handshake_bytes("/ws/?subscribe-user"))))
        made = python(
            "-c",
            "import django; django.setup()\n"
            "from django.contrib.auth.models import User\n"
            "from django.test import RequestFactory\n"
            "from ws4redis_tx.tickets import make_ticket\n"
            "request = RequestFactory().post('/')\n"
            "request.user = User.objects.get(username='john')\n"
            "print(make_ticket(request))\n",
            DJANGO_SETTINGS_MODULE=SETTINGS,
            WS4REDIS_CONNECTION=str(redis.address),
            **environment(),
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        ticket = made.stdout.strip()
        url = f"ws://127.0.0.1:{port}/ws/foobar?subscribe-user"
        client = yield open_websocket(url, protocols=["ws4redis", ticket])
        redis.command("PUBLISH", "user:john:foobar", "for john")
        self.assertEqual((yield client.next()), "for john")
        again = open_websocket(url, protocols=["ws4redis", ticket])
        yield self.assertFailure(again, ConnectionError)
        yield program.signal_and_wait("TERM")
        yield client.closed
        self.assertNotIn(ticket, program.printed)
        self.assertNotIn("Traceback", program.printed)

    def variables(self, redis: RedisServer) -> dict[str, str]:
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "WS4REDIS_CONNECTION": str(redis.address),
            **environment(),
        }

    @inlineCallbacks
    def test_the_server_of_twistd(self) -> Any:
        redis = shared_redis()
        program = twistd("--listen=tcp:0:interface=127.0.0.1", **self.variables(redis))
        self.addCleanup(program.end)
        yield self.assert_lets_in(program, redis)

    @inlineCallbacks
    def test_a_server_inside_another_application(self) -> Any:
        redis = shared_redis()
        tac = write_file(
            self,
            "import django; django.setup()\n"
            "from twisted.application.service import Application\n"
            "from ws4redis_tx.config import django_settings\n"
            "from ws4redis_tx.service import make_service\n"
            "application = Application('own')\n"
            "config = django_settings.server_config(listen=('tcp:0:interface=127.0.0.1',))\n"
            "service = make_service(config)\n"
            "service.setServiceParent(application)\n",
        )
        program = Program(
            *(TWISTD, "--nodaemon", "--pidfile=", "--python", tac), **self.variables(redis)
        )
        self.addCleanup(program.end)
        yield self.assert_lets_in(program, redis)
