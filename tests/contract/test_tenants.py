"""The contract, sections 1 and 3: several tenants in one process.

Both tenants have the same John: the same user, session, group and facility. Only the names in Redis
tell them apart.
"""

from __future__ import annotations

import threading
from typing import Any

from asgiref.sync import async_to_sync
from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support import TIMEOUT
from tests.support.clients import exchange
from tests.support.django import in_thread, set_up_django
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase, Lines
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx import service
from ws4redis_tx.subscriber import RedisSubscriber

set_up_django()

from django.conf import settings
from django.contrib.auth import logout
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest
from django.test import RequestFactory, override_settings

import ws4redis_tx
from ws4redis_tx.config import django_settings
from ws4redis_tx.publisher import SELF, RedisPublisher
from ws4redis_tx.signals import client_connected
from ws4redis_tx.testing import capture_messages
from ws4redis_tx.tickets import amake_ticket, make_ticket

ALL = f"foobar?{SUBSCRIBE_ALL}"
EVERYBODY: dict[str, Any] = {
    "broadcast": True, "users": [SELF], "groups": [SELF], "sessions": [SELF],
}  # fmt: skip


def tenant_of(request: Any) -> str:
    return str(request.headers.get("X-Tenant", ""))


def of(tenant: str) -> dict[str, str]:
    return {"X-Tenant": tenant}


class TenantTestCase(ContractTestCase):
    """John's browser, and requests that it sends to the site of either tenant."""

    def setUp(self) -> None:
        super().setUp()
        self.asked: list[Any] = []
        self.lines = Lines(self).lines

    def tenant_of(self, request: Any) -> str:
        self.asked.append(request)
        return tenant_of(request)

    @inlineCallbacks
    def serve(self, **settings: Any) -> Any:
        settings = {
            "WS4REDIS_TENANT": self.tenant_of, "WS4REDIS_PREFIX": "p", "WS4REDIS_REVOKE": True,
            **settings,
        }  # fmt: skip
        self.service = yield super().serve(**settings)
        self.cookies = yield self.log_in("john")

    def request(self, tenant: str) -> Any:
        """A request of John's to a view."""
        from importlib import import_module

        key = self.cookies[settings.SESSION_COOKIE_NAME]
        request = RequestFactory(HTTP_X_TENANT=tenant).get("/")
        request.user = User.objects.get(username="john")
        request.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
        return request

    def cookie(self) -> str:
        name = settings.SESSION_COOKIE_NAME
        return f"{name}={self.cookies[name]}"

    def enter(self, tenant: str, path: str = ALL, **options: Any) -> Any:
        """Fire with John's websocket on the site of a tenant."""
        return self.open(path, cookies=self.cookies, headers=of(tenant), **options)

    def say(self, tenant: str, message: str, **options: Any) -> Any:
        """Publish to John, in a tenant, on all his channels."""

        def publish() -> Any:
            publisher = RedisPublisher(self.request(tenant), "foobar", **EVERYBODY)
            return publisher.publish_message(message, **options)

        return in_thread(publish)

    @inlineCallbacks
    def assert_closed(self, client: Any) -> Any:
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), 1008)

    @inlineCallbacks
    def assert_open(self, client: Any, tenant: str) -> Any:
        """Check that it still gets messages, after everything that was sent before."""
        self.redis.command("PUBLISH", f"p:t:{tenant}:broadcast:foobar", "still here")
        self.assertEqual((yield client.next()), "still here")
        self.assertFalse(client.closed.called)

    @inlineCallbacks
    def answer(self, tenant: str | None = None, **options: Any) -> Any:
        """Fire with the status and the bytes of the answer to a handshake."""
        headers = {} if tenant is None else {"X_Tenant": tenant}
        options = {"Host": f"127.0.0.1:{self.port}", **headers, **options}
        answer = yield exchange(self.port, handshake_bytes(f"/ws/{ALL}", **options))
        return status_of(answer), answer

    @inlineCallbacks
    def rechecked(self) -> Any:
        """Fire when everybody has been rechecked."""
        revocations = self.service.factory.session_server.revocations
        everybody = revocations._index.all()
        yield gatherResults([revocations._rechecker._recheck(each) for each in everybody])


class IsolationTests(TenantTestCase):
    """1. Redis layout: two tenants of one process never share a name"""

    @inlineCallbacks
    def test_every_name_has_the_tenant_after_the_prefix(self) -> Any:
        yield self.serve()
        yield self.enter("a")
        yield self.say("a", "hi")
        yield in_thread(lambda: make_ticket(self.request("a")))
        key = self.cookies[settings.SESSION_COOKIE_NAME]
        names = {
            f"p:t:a:{audience}:foobar"
            for audience in ("broadcast", "user:john", "group:chatters", f"session:{key}")
        }
        self.assertEqual(self.channels(), names)
        keys = self.keys()
        self.assertEqual({each for each in keys if ":ticket:" not in each},
                         names | {f"p:t:a:at:{name}" for name in names})  # fmt: skip
        (ticket,) = [each for each in keys if ":ticket:" in each]
        self.assertTrue(ticket.startswith("p:t:a:ticket:"))
        self.assertIn(b"p:ctl:revoke", self.redis.command("PUBSUB", "CHANNELS"))

    @inlineCallbacks
    def test_a_message_of_one_tenant_is_not_heard_in_another(self) -> Any:
        yield self.serve()
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        yield self.say("a", "for a")
        yield self.say("b", "for b")
        self.assertEqual((yield a.take(4)), ["for a"] * 4)
        self.assertEqual((yield b.take(4)), ["for b"] * 4)
        yield self.assert_open(a, "a")
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_a_message_that_is_persisted_for_one_tenant_is_not_read_in_another(self) -> Any:
        yield self.serve()
        yield self.say("a", "for a")
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        self.assertEqual((yield a.take(4)), ["for a"] * 4)
        yield self.assert_open(b, "b")
        for tenant, found in (("a", b"for a"), ("b", None)):
            for audience in ("any", "user", "group", "broadcast", "session"):
                fetched = yield in_thread(self.fetch, tenant, audience)
                self.assertEqual(fetched, found)

    def fetch(self, tenant: str, audience: str) -> Any:
        # The publisher was made without a request, as upstream's example does.
        return RedisPublisher().fetch_message(self.request(tenant), "foobar", audience)

    @inlineCallbacks
    def test_what_a_client_publishes_stays_in_its_tenant(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        both = f"{ALL}&{PUBLISH_ALL}"
        a = yield self.enter("a", f"{both}&echo")
        quiet, b = (yield self.enter("a", both)), (yield self.enter("b", both))
        a.sendMessage(b"to a")
        self.assertEqual((yield a.take(4)), ["to a"] * 4)
        self.assertEqual((yield quiet.take(4)), ["to a"] * 4)
        # Without echo it does not get its own message. The other tenant's is another one.
        b.sendMessage(b"to all")
        quiet.sendMessage(b"to all")
        self.assertEqual((yield a.take(4)), ["to all"] * 4)
        yield self.assert_open(quiet, "a")
        yield self.assert_open(b, "b")
        yield self.assert_open(a, "a")

    @inlineCallbacks
    def test_after_an_outage_each_tenant_gets_what_it_missed(self) -> Any:
        redis = RedisServer()
        self.addCleanup(lambda: redis.stop())
        self.redis = redis
        yield self.serve(WS4REDIS_PREFIX=None)
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        name = "t:a:user:john:foobar"
        redis.stop()
        yield self.broker.fence().addErrback(lambda _: None)
        redis = self.redis = RedisServer(port=redis.port)
        redis.command("SETEX", name, "60", "missed")
        redis.command("SETEX", f"t:a:at:{name}", "60", "1")
        yield self.broker.when_available()
        self.assertEqual((yield a.next()), "missed")
        redis.command("PUBLISH", "t:b:broadcast:foobar", "still here")
        self.assertEqual((yield b.next()), "still here")

    @inlineCallbacks
    def test_a_ticket_of_one_tenant_is_worth_nothing_in_another(self) -> Any:
        yield self.serve()
        for make in (make_ticket, async_to_sync(amake_ticket)):
            ticket = yield in_thread(lambda make=make: make(self.request("a")))
            shown = {"Sec_WebSocket_Protocol": f"ws4redis, {ticket}"}
            self.assertEqual((yield self.answer("b", **shown))[0], 403)
            a = yield self.open(ALL, protocols=["ws4redis", ticket], headers=of("a"))
            yield self.say("a", "for a", expire=0)
            self.assertEqual((yield a.take(4)), ["for a"] * 4)
            yield self.rechecked()
            yield self.assert_open(a, "a")

    @inlineCallbacks
    def test_a_limit_for_each_user_counts_in_each_tenant(self) -> Any:
        yield self.serve(WS4REDIS_MAX_CONNECTIONS_PER_USER=1)
        yield self.enter("a")
        yield self.enter("b")
        for tenant in ("a", "b"):
            self.assertEqual((yield self.answer(tenant, Cookie=self.cookie()))[0], 503)

    @inlineCallbacks
    def test_a_subscribers_own_channels_have_the_tenant(self) -> Any:
        class Subscriber(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                done = super().set_pubsub_channels(request, channels)
                self._subscription.subscribe(f"{self.get_prefix()}server:foobar")
                return done

        yield self.serve(WS4REDIS_SUBSCRIBER=Subscriber)
        yield self.enter("a", "foobar")
        self.assertEqual(self.channels(), {"p:t:a:server:foobar"})

    @inlineCallbacks
    def test_a_subscriber_cannot_name_a_channel_of_no_tenant(self) -> Any:
        for name in ("p:server:foobar", "server:foobar", "p:t:b:server:foobar"):

            class Subscriber(RedisSubscriber):
                def set_pubsub_channels(self, request: Any, channels: Any) -> Any:
                    self._subscription = self._connection.pubsub()
                    return self._subscription.subscribe(name)  # noqa: B023

            yield self.serve(WS4REDIS_SUBSCRIBER=Subscriber)
            status, _ = yield self.answer("a", Cookie=self.cookie())
            self.assertEqual(status, 500)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
            self.assertEqual(self.channels(), set())


class CallableTests(TenantTestCase):
    """3. Settings: WS4REDIS_TENANT"""

    @inlineCallbacks
    def test_it_is_asked_once_a_handshake_before_the_session_like_other_callbacks(self) -> Any:
        seen: list[Any] = []

        def look(request: Any) -> str:
            seen.append((
                type(request), hasattr(request, "session"), hasattr(request, "user"),
                request.path, threading.current_thread() is threading.main_thread(),
                settings.SESSION_COOKIE_NAME in request.COOKIES,
            ))  # fmt: skip
            return "a"

        yield self.serve(WS4REDIS_TENANT=look)
        yield self.enter("any")
        self.assertEqual(seen, [(WSGIRequest, False, False, "/ws/foobar", False, True)])

    @inlineCallbacks
    def test_no_answer_is_a_500_and_never_no_tenant(self) -> Any:
        answers: list[Any] = ["", None, b"a", 7, "a:user", "x" * 65, ["a"]]
        yield self.serve(WS4REDIS_TENANT=lambda request: answers[0])
        while answers:
            status, answer = yield self.answer()
            self.assertEqual(status, 500, answers[0])
            self.assertNotIn(b"enant", answer)
            del answers[0]
        failures = self.flushLoggedErrors(TypeError, ValueError)
        self.assertEqual({failure.type for failure in failures}, {TypeError, ValueError})
        for failure in failures:
            self.assertIn("WS4REDIS_TENANT", failure.getErrorMessage())

    @inlineCallbacks
    def test_permission_denied_is_a_403_and_another_exception_a_500(self) -> Any:
        def refuse(request: Any) -> str:
            raise PermissionDenied("secret")

        def fail(request: Any) -> str:
            raise LookupError("secret")

        for callback, status in ((refuse, 403), (fail, 500)):
            yield self.serve(WS4REDIS_TENANT=callback)
            answered, answer = yield self.answer()
            self.assertEqual(answered, status)
            self.assertNotIn(b"secret", answer)
        self.assertEqual(len(self.flushLoggedErrors(LookupError)), 1)

    @inlineCallbacks
    def test_a_recheck_that_finds_another_tenant_closes(self) -> Any:
        tenants = {"/ws/foobar": "a"}
        yield self.serve(WS4REDIS_TENANT=lambda request: tenants[request.path])
        a = yield self.enter("any")
        yield self.rechecked()
        yield self.assert_open(a, "a")
        tenants["/ws/foobar"] = "b"
        yield self.rechecked()
        yield self.assert_closed(a)

    @inlineCallbacks
    def test_callbacks_and_signals_are_told_the_tenant(self) -> Any:
        seen: list[str] = []

        def look(request: Any, channels: Any) -> Any:
            # A publisher in a callback need not ask again.
            RedisPublisher(request, "foobar", broadcast=True).publish_message("from a", 0)
            return channels

        def connected(sender: Any, connection: Any, **kwargs: Any) -> None:
            seen.append(connection.identity.tenant)

        client_connected.connect(connected)
        self.addCleanup(client_connected.disconnect, connected)
        yield self.serve()
        a = yield self.enter("a")
        self.override(WS4REDIS_ALLOWED_CHANNELS=look)
        self.asked.clear()
        yield self.enter("a")
        self.assertEqual(len(self.asked), 1)
        self.assertEqual((yield a.next()), "from a")
        self.assertEqual(seen[:1], ["a"])

    def test_a_name_that_does_not_resolve_is_a_system_check(self) -> None:
        with override_settings(WS4REDIS_TENANT="no.such.callable"):
            (found,) = [each for each in run_checks() if "WS4REDIS_TENANT" in each.msg]
        self.assertEqual(found.id, "ws4redis_tx.E031")


class RevocationTests(TenantTestCase):
    """1. Redis layout: messages on ctl name the tenant"""

    def log_out(self, tenant: str) -> Any:
        return in_thread(lambda: logout(self.request(tenant)))

    @inlineCallbacks
    def test_a_logout_closes_the_websockets_of_its_tenant_alone(self) -> Any:
        yield self.serve()
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        yield self.log_out("a")
        yield self.assert_closed(a)
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_a_server_that_is_started_afterwards_knows_it(self) -> Any:
        yield self.serve()
        key = self.cookies[settings.SESSION_COOKIE_NAME]
        row = yield in_thread(lambda: Session.objects.get(pk=key))
        yield self.log_out("a")
        # A replica of the database, or a cache, may have the session for a moment.
        yield in_thread(lambda: row.save(force_insert=True))
        self.addCleanup(in_thread, lambda: Session.objects.filter(pk=key).delete())
        other = service.make_service(django_settings.server_config(listen=LISTEN))
        self.launch(other)
        yield other.when_ready()
        self.assertEqual((yield self.answer("a", Cookie=self.cookie()))[0], 403)
        b = yield self.enter("b")
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_a_logout_whose_tenant_nobody_knows_raises_nothing(self) -> Any:
        yield self.serve()
        a = yield self.enter("a")
        yield self.log_out("")
        self.assertEqual(len([each for each in self.lines if "could not be told" in each]), 1)
        yield self.assert_open(a, "a")

    @inlineCallbacks
    def test_a_saved_user_is_asked_about_again_in_every_tenant(self) -> Any:
        yield self.serve()
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        for change in (self.save_user, self.leave_group, self.lose_member):
            self.asked.clear()
            yield in_thread(change)
            yield self.rechecked_for_a_while(2)
            self.assertEqual({tenant_of(each) for each in self.asked}, {"a", "b"})
        yield self.assert_open(a, "a")
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_a_deleted_group_is_lost_in_every_tenant(self) -> Any:
        yield self.serve()
        group = yield in_thread(self.join_group)
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        yield in_thread(group.delete)
        yield self.assert_closed(a)
        yield self.assert_closed(b)

    def save_user(self) -> None:
        User.objects.get(username="john").save()

    def join_group(self) -> Any:
        group, _ = Group.objects.get_or_create(name="tenants' testers")
        User.objects.get(username="john").groups.add(group)
        return group

    def leave_group(self) -> None:
        User.objects.get(username="john").groups.remove(self.join_group())

    def lose_member(self) -> None:
        self.join_group().user_set.remove(User.objects.get(username="john"))

    @inlineCallbacks
    def rechecked_for_a_while(self, count: int) -> Any:
        """Fire when the authorizer was asked about that many websockets."""
        while len(self.asked) < count:
            yield self.broker.fence()

    @inlineCallbacks
    def test_disconnect_names_a_tenant(self) -> Any:
        yield self.serve()
        config = self.service.factory.config
        key = self.cookies[settings.SESSION_COOKIE_NAME]

        def tell(**target: Any) -> Any:
            return in_thread(lambda: ws4redis_tx.disconnect(tenant="a", **target))

        def atell(**target: Any) -> Any:
            told = async_to_sync(ws4redis_tx.adisconnect)
            return in_thread(lambda: told(tenant="a", **target))

        def in_reactor(**target: Any) -> Any:
            return service.disconnect(config, self.broker, tenant="a", **target)

        b = yield self.enter("b")
        for tell_all, target in (
            (tell, {"user": "john"}), (tell, {"session": key}), (tell, {"group": "chatters"}),
            (tell, {"facility": "foobar"}), (atell, {"user": "john"}),
            (in_reactor, {"user": "john"}),
        ):  # fmt: skip
            a = yield self.enter("a")
            self.assertEqual((yield tell_all(**target)), 1)
            yield self.assert_closed(a)
            yield self.assert_open(b, "b")
        self.assertRaises(TypeError, service.disconnect, config, self.broker, user="john")
        for wrong in ({}, {"tenant": ""}, {"tenant": None}):
            error = yield self.assertFailure(
                in_thread(lambda wrong=wrong: ws4redis_tx.disconnect(user="john", **wrong)),
                TypeError,
            )
            self.assertIn("tenant=", str(error))


class PublisherTests(TenantTestCase):
    """3. Settings: once a publisher; a publisher without a request says tenant="""

    @inlineCallbacks
    def test_a_request_is_asked_about_once(self) -> Any:
        yield self.serve()
        publisher = yield in_thread(
            lambda: RedisPublisher(self.request("a"), "foobar", **EVERYBODY)
        )
        for _ in range(3):
            yield in_thread(publisher.publish_message, "hi")
        self.assertEqual(len(self.asked), 1)
        self.assertEqual(publisher.get_prefix(), "p:t:a:")

    @inlineCallbacks
    def test_an_async_view_is_asked_about_once_and_not_on_the_event_loop(self) -> Any:
        yield self.serve()
        loops: list[Any] = []

        def look(request: Any) -> str:
            from asyncio import get_running_loop

            try:
                loops.append(get_running_loop())
            except RuntimeError:
                loops.append(None)
            return tenant_of(request)

        self.override(WS4REDIS_TENANT=look)
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        loops.clear()
        request = yield in_thread(self.request, "a")

        async def publish() -> Any:
            publisher = RedisPublisher(request, "foobar", **EVERYBODY)
            self.assertEqual(publisher._publishers, set())
            for message in ("one", "two"):
                await publisher.apublish_message(message)
            return RedisPublisher(request, "foobar", **EVERYBODY)

        publisher = yield in_thread(async_to_sync(publish))
        self.assertEqual(loops, [None])
        # Another thread may use it, too.
        yield in_thread(publisher.publish_message, "three")
        self.assertEqual((yield a.take(12)), ["one"] * 4 + ["two"] * 4 + ["three"] * 4)
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_without_a_request_it_names_its_tenant(self) -> Any:
        yield self.serve()
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        yield self.publish("hi", users=["john"], tenant="a")
        self.assertEqual((yield a.next()), "hi")
        yield self.assert_open(b, "b")
        # The explicit one holds, whoever asks.
        request = yield in_thread(self.request, "b")
        yield self.publish("ho", users=["john"], tenant="a", request=request)
        self.assertEqual((yield a.next()), "ho")
        yield self.assert_open(b, "b")

    @inlineCallbacks
    def test_neither_is_a_type_error_and_so_is_an_empty_answer(self) -> Any:
        yield self.serve()
        for wrong, error in (
            ({}, TypeError), ({"tenant": ""}, TypeError), ({"tenant": b"a"}, TypeError),
            ({"tenant": "a:b"}, ValueError), ({"tenant": "x" * 65}, ValueError),
            ({"request": RequestFactory().get("/")}, TypeError),
        ):  # fmt: skip
            for audience in ({"broadcast": True}, {"users": ["john"]}, {"sessions": ["abc"]}):
                failed = in_thread(
                    lambda more=(wrong, audience): RedisPublisher(
                        facility="foobar", **more[0], **more[1]
                    )
                )
                raised = yield self.assertFailure(failed, error)
                self.assertIn("tenant=", str(raised))
        yield self.assertFailure(
            in_thread(lambda: RedisPublisher().fetch_message(None, "foobar", "broadcast")),
            TypeError,
        )
        self.assertEqual(self.keys(), set())

    @inlineCallbacks
    def test_a_publisher_that_names_a_channel_of_no_tenant_publishes_nothing(self) -> Any:
        class Own(RedisPublisher):
            def _get_message_channels(self, **options: Any) -> Any:
                return [*super()._get_message_channels(**options), "server:foobar"]

        yield self.serve()
        failed = in_thread(lambda: Own(facility="foobar", users=["john"], tenant="a"))
        yield self.assertFailure(failed, ValueError)

    @inlineCallbacks
    def test_a_publisher_for_the_reactor_thread(self) -> Any:
        yield self.serve()
        config = self.service.factory.config
        a, b = (yield self.enter("a")), (yield self.enter("b"))
        publisher = service.Publisher(
            config, self.broker, facility="foobar", users=["john"], tenant="a"
        )
        self.assertEqual(publisher.get_prefix(), "p:t:a:")
        yield publisher.publish_message("hi")
        self.assertEqual((yield a.next()), "hi")
        yield self.assert_open(b, "b")
        identity = service.Identity(username="john", tenant="a")
        request = service.PlainRequest("/ws/foobar", identity)
        publisher = service.Publisher(
            config, self.broker, facility="foobar", users=[SELF], request=request
        )
        yield publisher.publish_message("ho")
        self.assertEqual((yield a.next()), "ho")
        for wrong in ({}, {"tenant": ""}, {"request": object()}):
            with self.assertRaises(TypeError):
                service.Publisher(config, self.broker, facility="foobar", broadcast=True, **wrong)

    def test_a_tenant_needs_the_setting(self) -> None:
        for make in (
            lambda: RedisPublisher(facility="foobar", broadcast=True, tenant="a"),
            lambda: ws4redis_tx.disconnect(user="john", tenant="a"),
        ):
            error = self.assertRaises(TypeError, make)
            self.assertIn("needs the setting WS4REDIS_TENANT", str(error))

    def test_a_test_is_told_the_tenant(self) -> None:
        with override_settings(WS4REDIS_TENANT=tenant_of), capture_messages() as captured:
            RedisPublisher(facility="f", users=["john"], tenant="a").publish_message("hi")
            message = captured.assert_published("hi", users=["john"], facility="f", tenant="a")
            self.assertEqual((message.tenant, message.users), ("a", frozenset({"john"})))
            captured.assert_not_published("hi", tenant="b")
            self.assertIn("of tenant 'a'", str(message))
            error = self.assertRaises(AssertionError, captured.assert_published, tenant="b")
            self.assertIn("of tenant 'b'", str(error))
        with capture_messages() as captured:
            RedisPublisher(facility="f", users=["john"]).publish_message("hi")
            captured.assert_published("hi", tenant="")


class EmbeddedTests(SynchronousTestCase):
    """A server whose visitors are not Django's."""

    def test_an_authorizer_that_names_no_tenant_where_there_must_be_one(self) -> None:
        from ws4redis_tx.testing import connect, make_memory_factory

        class Authorizer:
            def authorize(self, handshake: Any, rights: Any) -> Any:
                tenant = handshake.headers.get("x-tenant", "")
                identity = service.Identity(username="john", tenant=tenant)
                request = service.PlainRequest(handshake.path_info, identity)
                return service.Admission(identity, tuple(rights), request)

        factory = make_memory_factory(
            service.ServerConfig(tenants=True, prefix="p"), authorizer=Authorizer()
        )
        url = "ws://localhost/ws/foobar?subscribe-user"
        self.assertEqual(connect(factory, url).refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        client = connect(factory, url, headers=of("a"))
        self.assertTrue(client.open)
        self.assertEqual(set(factory.broker.hub.channels), {b"p:t:a:user:john:foobar"})
        # A tenant's name that looks like a word of our own is a name like any other.
        ctl = connect(factory, url, headers=of("ctl"))
        factory.broker.publish([b"p:t:ctl:user:john:foobar"], b"hi", 0)
        self.assertEqual((client.messages, ctl.messages), ([], ["hi"]))
