"""What an attacker sends, and what comes of it: over real sockets, into a server with Django.

A class for each promise of the server's security, a test for each of its sentences. What other
modules test in depth, such as every Origin, is attacked here once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import valkey
from cryptography import x509
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.contrib.auth.signals import user_logged_out
from django.core.cache import cache
from django.db import transaction
from django.test import RequestFactory, override_settings
from django.utils import timezone
from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, gatherResults, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

import ws4redis_tx
from tests.support import ROOT, TIMEOUT
from tests.support.certificates import TlsTestCase, make_certificate
from tests.support.clients import CLOSE, exchange, open_websocket, open_wire
from tests.support.django import SETTINGS, cookies_of, environment, in_thread, log_in, set_up_django
from tests.support.programs import children, twistd, write_file
from tests.support.redis import RedisServer
from tests.support.servers import LISTEN
from tests.support.sites import (
    ALL,
    PUBLISH_ALL,
    SUBSCRIBE_ALL,
    ContractTestCase,
    DjangoTests,
    Lines,
    recheck_all,
)
from tests.support.wires import COMPRESSED, TEXT, deflate, handshake_bytes, status_of, unfinished
from ws4redis_tx.config import django_settings
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address
from ws4redis_tx.django import revoking
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.scheduling.timeouts import Deadlines
from ws4redis_tx.service import make_service
from ws4redis_tx.testing import client_frame
from ws4redis_tx.threads import bridge
from ws4redis_tx.twistd.embedded_redis import free_port
from ws4redis_tx.websocket.factory import HANDSHAKE_TIMEOUT
from ws4redis_tx.websocket.protocol import WebSocketProtocol

set_up_django()

from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.cache import KEY_PREFIX
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session

# Lines are split at these by Python's own str.splitlines(), and by nobody else.
LINE_BREAKS = (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85")


class SecurityTestCase(ContractTestCase):
    @inlineCallbacks
    def john(self) -> Any:
        """Fire with the Cookie header of a logged-in browser."""
        cookies = yield self.log_in("john")
        return f"sessionid={cookies['sessionid']}"

    def assert_nothing_was_had(self) -> None:
        self.assertEqual((self.channels(), self.keys()), (set(), set()))

    @inlineCallbacks
    def gone(self, service: Any) -> Any:
        """Fire when no websocket is left, and Redis knows it."""
        while service.factory._websockets:
            yield deferLater(reactor, 0)
        yield service.factory.broker.fence()

    @inlineCallbacks
    def drained(self, service: Any) -> Any:
        """Fire when the authorizer's threads have handed over what they had to say."""
        while service.factory.authorizer._lookups.outstanding:
            yield deferLater(reactor, 0)
        yield service.factory.broker.fence()


class OriginAndHostTests(SecurityTestCase):
    """Other sites' pages, and names that were rebound to this server."""

    @inlineCallbacks
    def test_a_page_of_another_site_cannot_use_a_visitors_cookies(self) -> Any:
        yield self.serve()
        john = yield self.john()
        for origin in (
            "https://evil.example",
            "http://127.0.0.1.evil.example",
            f"http://127.0.0.1:{self.port}.evil.example",
            f"http://127.0.0.1:{self.port}@evil.example",
            f"http://127.0.0.1:{self.port} http://evil.example",
            "http://127.0.0.1:1",
            "null",
            "file://",
            "",
        ):
            status, answer = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=john, Origin=origin
            )
            self.assertEqual(status, 403, origin)
            self.assertNotIn(b"evil", answer)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_dns_rebinding_fails_on_the_host(self) -> Any:
        # To the browser, page and server are the same host.
        yield self.serve()
        john = yield self.john()
        for host in ("evil.example", f"evil.example:{self.port}", "127.0.0.1.evil.example"):
            status, answer = yield self.refusal(
                "/ws/foobar?subscribe-user", Cookie=john, Host=host, Origin=f"http://{host}"
            )
            self.assertEqual(status, 400, host)
            self.assertNotIn(b"evil", answer)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_client_that_says_what_only_a_proxy_may_say_is_not_believed(self) -> Any:
        yield self.serve(WS4REDIS_TRUSTED_PROXIES=["192.0.2.1"])
        john = yield self.john()
        forged = {"X_Forwarded_Host": "evil.example", "X_Forwarded_Proto": "https"}
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user", Cookie=john, Origin="https://evil.example", **forged
        )
        self.assertEqual(status, 403)
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user",
            Cookie=john,
            Host="evil.example",
            Origin="http://evil.example",
            X_Forwarded_Host=f"127.0.0.1:{self.port}",
        )
        self.assertEqual(status, 400)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_behind_a_proxy_with_tls_a_page_without_tls_is_another_site(self) -> Any:
        # Who sits in the network between can write a page without TLS.
        john = yield self.john()
        yield self.serve(WS4REDIS_TRUSTED_PROXIES=["127.0.0.1"], ALLOWED_HOSTS=["www.example.com"])
        told = {"X_Forwarded_Host": "www.example.com", "X_Forwarded_Proto": "https"}
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user", Cookie=john, Origin="http://www.example.com", **told
        )
        self.assertEqual(status, 403)
        status, _ = yield self.refusal(
            "/ws/foobar?subscribe-user",
            Cookie=john,
            Origin="https://evil.example",
            **{**told, "X_Forwarded_Host": "evil.example"},
        )
        self.assertEqual(status, 400)
        self.assert_nothing_was_had()


class Conversation(Protocol):
    """``ended`` fires with all that came back, when the server ends it."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.ended.callback(self.received)


class Visit(Conversation):
    """Sends a handshake, and leaves at once if it is let in."""

    _let_in = False

    def __init__(self, handshake: bytes) -> None:
        super().__init__()
        self._handshake = handshake

    def connectionMade(self) -> None:
        self.transport.write(self._handshake)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self._let_in and self.received.startswith(b"HTTP/1.1 101 "):
            self._let_in = True
            self.transport.write(CLOSE)


@implementer(IPullProducer)
class Flood(Conversation):
    """A handshake whose headers do not end before ``left`` bytes are out."""

    left = 21 * 1024 * 1024

    def connectionMade(self) -> None:
        self.transport.write(handshake_bytes().removesuffix(b"\r\n"))
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        if self.left > 0:
            self.left -= 65536
            self.transport.write(b"X-Note: " + b"x" * 65526 + b"\r\n")
        else:
            self.transport.unregisterProducer()

    def stopProducing(self) -> None:
        """The connection is over; nothing to do."""


def connect(port: int, protocol: Protocol) -> Deferred[Any]:
    return connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), protocol)


class HandshakeBytesTests(SecurityTestCase):
    """Bytes that some servers read otherwise than they were meant."""

    @inlineCallbacks
    def test_no_byte_inside_a_value_starts_another_header(self) -> Any:
        yield self.serve()
        john = (yield self.john()).encode()
        plain = handshake_bytes("/ws/foobar?subscribe-user", Host=f"127.0.0.1:{self.port}")
        for byte in (*LINE_BREAKS, b"\n", b"\r", b"\0"):
            for start in (b"X-Note: a", b"User-Agent: a", b"X-Note:"):
                smuggled = start + byte + b"Cookie: " + john + b"\r\n\r\n"
                answer = yield exchange(self.port, plain.removesuffix(b"\r\n") + smuggled)
                # 0x85 is a letter of ISO 8859-1: well-formed, and nobody's session.
                self.assertEqual(status_of(answer), 401 if byte == b"\x85" else 400, byte)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_21_mib_without_an_end_of_the_headers_are_cut_off(self) -> Any:
        service = yield self.serve()
        flood = yield connect(self.port, Flood())
        answer = yield flood.ended.addTimeout(TIMEOUT, reactor)
        # The rest may have been under way, and takes the answer with it.
        self.assertIn(answer[:12], (b"", b"HTTP/1.1 400"))
        self.assertGreater(flood.left, 0, "all of it was read")
        self.assertFalse(service.factory._opening)

    @inlineCallbacks
    def test_a_second_request_while_the_first_is_authorized_opens_nothing(self) -> Any:
        asked: Deferred[None] = Deferred()
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        calls: list[str] = []

        def slow(request: Any, channels: list[str]) -> list[str]:
            calls.append(request.path_info)
            reactor.callFromThread(asked.callback, None)
            go_on.wait(TIMEOUT)
            return channels

        service = yield self.serve(WS4REDIS_ALLOWED_CHANNELS=slow)
        host = f"127.0.0.1:{self.port}"
        wire = yield connect(self.port, Conversation())
        wire.transport.write(handshake_bytes("/ws/one?subscribe-broadcast", Host=host))
        yield asked.addTimeout(TIMEOUT, reactor)
        wire.transport.write(handshake_bytes("/ws/two?subscribe-broadcast", Host=host))
        answer = yield wire.ended.addTimeout(TIMEOUT, reactor)
        go_on.set()
        yield self.drained(service)
        self.assertEqual(status_of(answer), 400)
        self.assertEqual(answer.count(b"HTTP/1.1"), 1)
        self.assertEqual(calls, ["/ws/one"])
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_plain_get_redirects_nowhere(self) -> Any:
        yield self.serve()
        for path in ("/ws/?", "/ws/foobar?", "/?"):
            request = (
                f"GET {path}redirect=https%3A%2F%2Fevil.example&after=1 HTTP/1.1\r\n"
                f"Host: 127.0.0.1:{self.port}\r\n\r\n"
            ).encode()
            answer = yield exchange(self.port, request)
            self.assertEqual(status_of(answer), 404 if path == "/?" else 426)
            for word in (b"evil", b"Location", b"Refresh", b"<"):
                self.assertNotIn(word.lower(), answer.lower())

    @inlineCallbacks
    def test_a_header_with_an_underscore_is_none_of_djangos(self) -> Any:
        seen: list[Any] = []

        def look(request: Any, channels: list[str]) -> list[str]:
            seen.append(request)
            return []

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=look)
        data = handshake_bytes(Host=f"127.0.0.1:{self.port}", X_Real_Ip="192.0.2.7").replace(
            b"Upgrade:",
            b"X_Real_IP: 6.6.6.6\r\nRemote_User: admin\r\nX-Real_IP: 6.6.6.6\r\nUpgrade:",
            1,
        )
        wire = yield open_wire(self.port, data)
        wire.transport.write(CLOSE)
        yield wire.ended
        (request,) = seen
        self.assertEqual(request.META["HTTP_X_REAL_IP"], "192.0.2.7")
        self.assertNotIn("HTTP_REMOTE_USER", request.META)
        self.assertNotIn("6.6.6.6", request.META.values())


def raising(error: BaseException) -> Callable[..., Any]:
    def callback(*_: Any) -> Any:
        raise error

    return callback


def grants_and_raises(request: Any, channels: list[str]) -> Iterator[str]:
    yield from channels
    raise RuntimeError("deliberate")


class Deliberate(BaseException):
    """Not even an ``Exception``."""


ERRORS = (
    RuntimeError, AttributeError, KeyError, TypeError, AssertionError, RecursionError, MemoryError,
    StopIteration, StopAsyncIteration, SystemExit, KeyboardInterrupt, GeneratorExit,
    asyncio.CancelledError, Deliberate,
)  # fmt: skip


class PermissionTests(SecurityTestCase):
    """They fail closed: whatever happens while they are found out, nothing is granted."""

    @inlineCallbacks
    def assert_refused(self, status: int, setting: str, callback: Any, why: Any) -> Any:
        with override_settings(**{setting: callback}):
            answer = yield exchange(
                self.port,
                handshake_bytes(
                    f"/ws/foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}",
                    Host=f"127.0.0.1:{self.port}",
                    Cookie=self.cookie,
                ),
            )
        self.assertEqual(status_of(answer), status, (setting, why))
        self.assertNotIn(b"deliberate", answer)
        self.flushLoggedErrors()
        self.assert_nothing_was_had()

    @inlineCallbacks
    def serve(self, **settings: Any) -> Any:
        service = yield super().serve(**settings)
        self.cookie = yield self.john()
        return service

    @inlineCallbacks
    def test_an_exception_of_any_kind_refuses(self) -> Any:
        yield self.serve()
        for setting in ("WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST"):
            for error in ERRORS:
                callback = raising(error("deliberate"))
                yield self.assert_refused(500, setting, callback, error)

    @inlineCallbacks
    def test_an_answer_of_a_wrong_kind_refuses(self) -> Any:
        yield self.serve()
        for answer in (
            None, True, 7, object(), Exception("deliberate"), "subscribe-user", b"subscribe-user",
            {"subscribe-user": False}.get, ["subscribe-everything"], [None], [["subscribe-user"]],
            [b"subscribe-user"], ["*"], ["SUBSCRIBE-USER"], ["subscribe-user "], [""],
        ):  # fmt: skip
            callback = lambda request, channels, answer=answer: answer  # noqa: E731
            yield self.assert_refused(500, "WS4REDIS_ALLOWED_CHANNELS", callback, answer)
        yield self.assert_refused(
            500, "WS4REDIS_ALLOWED_CHANNELS", grants_and_raises, "a generator that raises"
        )

    @inlineCallbacks
    def test_a_lookup_that_leaves_nonsense_refuses(self) -> Any:
        yield self.serve()
        for name, value, status in (
            ("user", None, 500),
            ("user", "john", 500),
            ("user", True, 500),
            ("session", None, 500),
            ("session", "a session's key", 500),
        ):

            def process(request: Any, name: str = name, value: Any = value) -> None:
                setattr(request, name, value)

            yield self.assert_refused(status, "WS4REDIS_PROCESS_REQUEST", process, (name, value))
        self.override(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        yield self.assert_refused(
            401, "WS4REDIS_PROCESS_REQUEST", lambda request: True, "says True, and sets nothing"
        )

    @inlineCallbacks
    def test_a_timeout_refuses_and_a_late_answer_changes_nothing(self) -> Any:
        service = yield self.serve()
        clock = Clock()
        deadlines = Deadlines(HANDSHAKE_TIMEOUT, WebSocketProtocol.time_out, clock)
        self.patch(service.factory, "deadlines", deadlines)
        for setting in ("WS4REDIS_ALLOWED_CHANNELS", "WS4REDIS_PROCESS_REQUEST"):
            go_on = threading.Event()
            self.addCleanup(go_on.set)
            late: Deferred[None] = Deferred()

            def slow(
                request: Any,
                channels: Any = (),
                go_on: threading.Event = go_on,
                late: Deferred[None] = late,
            ) -> Any:
                reactor.callFromThread(clock.advance, HANDSHAKE_TIMEOUT)
                go_on.wait(TIMEOUT)
                reactor.callFromThread(late.callback, None)
                return channels

            yield self.assert_refused(503, setting, slow, "too late")
            go_on.set()
            yield late.addTimeout(TIMEOUT, reactor)
            yield self.drained(service)
            self.assert_nothing_was_had()

    @inlineCallbacks
    def test_by_default_clients_publish_to_nobody_but_themselves(self) -> Any:
        yield self.serve()
        for right in ("publish-broadcast", "publish-group", "PUBLISH-GROUP", "publish%2Dgroup=no"):
            status, _ = yield self.refusal(f"/ws/foobar?subscribe-user&{right}", Cookie=self.cookie)
            self.assertEqual(status, 403, right)
        self.assert_nothing_was_had()


class ControlChannelTests(SecurityTestCase):
    """What servers tell each other, no client says or hears."""

    @inlineCallbacks
    def test_clients_cannot_write_or_hear_the_control_channel(self) -> Any:
        for prefix, start in ((None, "ctl:"), ("site", "site:ctl:")):
            redis = valkey.Valkey(host="127.0.0.1", port=self.redis.port)
            self.addCleanup(redis.close)
            listening = redis.pubsub()
            self.addCleanup(listening.close)
            listening.psubscribe("*")
            self.assertEqual(listening.get_message(timeout=TIMEOUT)["type"], "psubscribe")
            yield self.serve(
                WS4REDIS_PREFIX=prefix, WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all"
            )
            john = yield self.log_in("john")
            for facility in (
                f"{start}revoke", "ctl:", "site:ctl:x", "..%2F..%2Fctl:x", "%2e%2e/ctl:x", ":ctl:x",
                "*", "ctl", "ctl%3Ax",
            ):  # fmt: skip
                named = "" if ":" in facility or "%3A" in facility else f"&{PUBLISH_ALL}"
                client = yield self.open(
                    f"{facility}?publish-broadcast&subscribe-broadcast&echo{named}", cookies=john
                )
                client.sendMessage(b"attack")
                self.assertEqual((yield client.next()), "attack")
            self.redis.command("PUBLISH", "end", "end")
            written = []
            while not written or written[-1][0] != "end":
                message = yield deferToThread(listening.get_message, timeout=TIMEOUT)
                written.append((message["channel"].decode(), message["data"]))
            attacked = [channel for channel, data in written if data == b"attack"]
            self.assertGreaterEqual(len(attacked), 9)
            audience = re.compile(rf"{'site:' if prefix else ''}(broadcast|group|user|session):")
            for channel in attacked:
                self.assertRegex(channel, audience)
                self.assertFalse(channel.startswith(("ctl:", start)), channel)


class RevocationTests(DjangoTests):
    """Who is no longer let in does not stay in, whatever cookies and sockets they kept.

    The clock of what is put off stands still unless a test advances it: what happens without that
    happens at once.
    """

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        self.clock = self.stop_clock(self.service)

    def stop_clock(self, service: Any) -> Clock:
        clock = Clock()
        self.patch(service.factory.revocations, "_reactor", clock)
        return clock

    @inlineCallbacks
    def status(self, flags: str = "subscribe-user", name: str = "ann") -> Any:
        """Fire with the status of the answer to who still has the cookie; 101 is an open door."""
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
        # As in a cache or a replica that is behind, the session itself stays.
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
        # Who lost the group alone comes back, and hears nothing of it.
        ann = yield self.open(ALL, cookies=self.cookies["ann"])
        self.redis.command("PUBLISH", "group:revoked testers:foobar", "of the group")
        yield self.assert_open(ann)

    @inlineCallbacks
    def test_nobody_is_rechecked_before_the_commit_or_for_what_was_rolled_back(self) -> Any:
        def roll_back() -> None:
            with contextlib.suppress(LookupError), transaction.atomic():
                user = self.user()
                user.is_active = False
                user.save()
                user.groups.clear()
                user.delete()
                raise LookupError

        self.assertEqual((yield self.said(roll_back)), 0)
        self.assertEqual((yield self.said(self.user_is_saved)), 1)
        self.assertIn(b"recheck", self.ear.heard[0])
        yield self.assert_open(self.ann)

    def user_is_saved(self) -> None:
        with transaction.atomic():
            self.user().save()

    @inlineCallbacks
    def test_who_was_rechecked_too_early_is_rechecked_2_s_later(self) -> Any:
        authorizer, answered = self.service.factory.authorizer, DeferredQueue()
        authorize = authorizer.authorize

        def watched(handshake: Any, rights: Any) -> Any:
            def tell(answer: Any) -> Any:
                answered.put(None)
                return answer

            return authorize(handshake, rights).addBoth(tell)

        self.patch(authorizer, "authorize", watched)
        yield in_thread(self.user_is_saved)
        yield answered.get().addTimeout(TIMEOUT, reactor)
        # What the replica did not know yet; nothing more is said.
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
        send = bridge.send

        def watched(work: Any, patience: float, done: Any) -> bool:
            waits.append(patience)
            return send(work, patience, done)

        self.patch(bridge, "send", watched)
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
        # The server was told nothing; it finds out by itself.
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

        for name in ("ann", "bob"):
            yield in_thread(ends_in, 100, name)
        flags = "foobar?subscribe-broadcast"
        ann = yield self.open(flags, cookies=self.cookies["ann"])
        bob = yield self.open(flags, cookies=self.cookies["bob"])
        self.clock.advance(90)
        yield in_thread(ends_in, 1000, "bob")  # its visitor was active meanwhile
        yield in_thread(ends_in, -1, "ann")  # as time does
        yield self.assert_open(ann)
        self.clock.advance(11)
        yield self.assert_closed(ann)
        yield self.assert_open(bob)

    @inlineCallbacks
    def test_disconnect_ends_whom_it_names_by_user_session_group_and_facility(self) -> Any:
        news = yield self.open("news?subscribe-user", cookies=self.cookies["bob"])
        for whom in ({"user": "ann"}, {"session": self.key("ann")}):
            ann = yield self.open(ALL, cookies=self.cookies["ann"])
            yield in_thread(lambda whom=whom: ws4redis_tx.disconnect(**whom))
            yield self.assert_closed(ann)
            yield self.assert_open(self.bob)
        ann = yield self.open(ALL, cookies=self.cookies["ann"])
        yield in_thread(lambda: ws4redis_tx.disconnect(facility="foobar"))
        yield self.assert_closed(ann)
        yield self.assert_closed(self.bob)
        self.redis.command("PUBLISH", "user:bob:news", "still here")
        self.assertEqual((yield news.next()), "still here")
        guest = yield self.open("foobar?subscribe-broadcast")
        yield in_thread(lambda: ws4redis_tx.disconnect(group=self.group))
        yield self.assert_closed(news)
        yield self.assert_open(guest)

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


class PeerLimitTests(SecurityTestCase):
    """No client, user or address gets more than its share."""

    @inlineCallbacks
    def serve(self, **limits: Any) -> Any:
        limits = {f"WS4REDIS_{name}": value for name, value in limits.items()}
        limits.setdefault("WS4REDIS_ALLOWED_CHANNELS", "ws4redis_tx.policies.allow_all")
        return (yield super().serve(**limits))

    @inlineCallbacks
    def assert_flood_is_cut(self, flood: bytes) -> Any:
        """``flood`` closes with 1013, and harms nobody else."""
        other = yield self.open("foobar?subscribe-broadcast")
        client = yield self.open("foobar?publish-broadcast")
        client.transport.write(flood)
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), 1013)
        self.redis.command("PUBLISH", "broadcast:foobar", "the end")
        heard = []
        while not heard or heard[-1] != "the end":
            heard.append((yield other.next()))
        self.assertFalse(other.closed.called)
        return heard[:-1]

    @inlineCallbacks
    def test_a_flood_of_messages_is_cut_off(self) -> Any:
        yield self.serve(RATE=(1, 10**6))
        heard = yield self.assert_flood_is_cut(client_frame(1, b"flood") * 1000)
        self.assertLess(len(heard), 100)
        yield self.assert_flood_is_cut(client_frame(9, b"") * 1000)

    @inlineCallbacks
    def test_a_flood_of_bytes_is_cut_off_although_no_message_ever_ends(self) -> Any:
        yield self.serve(RATE=(10**6, 1000))
        heard = yield self.assert_flood_is_cut(
            unfinished(1, b"x" * 100) + unfinished(0, b"x" * 100) * 5000
        )
        self.assertEqual(heard, [])

    @inlineCallbacks
    def test_who_is_merely_busy_is_within_the_default(self) -> Any:
        yield self.serve()
        client = yield self.open("foobar?publish-broadcast&subscribe-broadcast&echo")
        client.transport.write(client_frame(1, b"busy") * 2000)
        self.assertEqual((yield client.take(2000)), ["busy"] * 2000)

    @inlineCallbacks
    def test_a_user_gets_no_more_websockets_by_logging_in_again(self) -> Any:
        yield self.serve(MAX_CONNECTIONS_PER_USER=2)
        for _ in range(2):
            yield self.open("foobar?subscribe-user", cookies=(yield self.log_in("john")))
        for flags in ("subscribe-user", "subscribe-broadcast", ""):
            status, answer = yield self.refusal(f"/ws/a?{flags}", Cookie=(yield self.john()))
            self.assertEqual(status, 503)
            self.assertIn(b"Retry-After: ", answer)
        yield self.open("foobar?subscribe-user", cookies=(yield self.log_in("mary")))

    @inlineCallbacks
    def test_nor_does_a_session_of_nobody(self) -> Any:
        yield self.serve(MAX_CONNECTIONS_PER_USER=2)

        def visit() -> dict[str, str]:
            session = SessionStore()
            session.create()
            return {"sessionid": session.session_key}

        visitor, other = (yield in_thread(visit)), (yield in_thread(visit))
        for facility in ("a", "b"):
            yield self.open(f"{facility}?subscribe-session", cookies=visitor)
        cookie = f"sessionid={visitor['sessionid']}"
        status, _ = yield self.refusal("/ws/c?subscribe-broadcast", Cookie=cookie)
        self.assertEqual(status, 503)
        yield self.open("a?subscribe-session", cookies=other)

    @inlineCallbacks
    def test_an_address_gets_no_more_by_pretending_to_be_many(self) -> Any:
        asked: list[str] = []

        def ask(request: Any, channels: list[str]) -> list[str]:
            asked.append(request.META["REMOTE_ADDR"])
            return channels

        yield self.serve(MAX_CONNECTIONS_PER_ADDRESS=2, ALLOWED_CHANNELS=ask)
        yield self.open("a?subscribe-broadcast")
        yield self.open("a?subscribe-broadcast", cookies=(yield self.log_in("john")))
        for number in range(5):
            status, answer = yield self.refusal(
                Cookie=(yield self.john()),
                X_Forwarded_For=f"192.0.2.{number}",
                X_Real_IP=f"192.0.2.{number}",
                Forwarded=f"for=192.0.2.{number}",
            )
            self.assertEqual(status, 503)
            self.assertIn(b"Retry-After: ", answer)
        self.assertEqual(asked, ["127.0.0.1"] * 2)

    @inlineCallbacks
    def test_a_storm_of_handshakes_is_refused_before_it_costs_a_query(self) -> Any:
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        looked_up: DeferredQueue[str] = DeferredQueue()

        def look_up(request: Any) -> None:
            reactor.callFromThread(looked_up.put, request.path_info)
            go_on.wait(TIMEOUT)
            request.session, request.user = SessionStore(), AnonymousUser()

        yield self.serve(MAX_AUTHORIZATIONS=1, PROCESS_REQUEST=look_up)
        first = yield connect(
            self.port, Visit(handshake_bytes("/ws/first", Host=f"127.0.0.1:{self.port}"))
        )
        self.assertEqual((yield looked_up.get().addTimeout(TIMEOUT, reactor)), "/ws/first")
        answers = yield gatherResults([self.refusal("/ws/storm") for _ in range(50)])
        for status, answer in answers:
            self.assertEqual(status, 503)
            self.assertRegex(answer, rb"\r\nRetry-After: [1-5]\r\n")
        go_on.set()
        self.assertEqual(status_of((yield first.ended)), 101)
        yield self.open("after")
        self.assertEqual((yield looked_up.get()), "/ws/after")
        self.assertEqual(looked_up.pending, [])


class Thief(Protocol):
    """Stands where Redis should, and keeps what it is told."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.told.append(data)
        self.transport.write(b"+OK\r\n" * data.count(b"*"))


class TransportTests(SecurityTestCase, TlsTestCase):
    """TLS, towards browsers and towards Redis."""

    @inlineCallbacks
    def assert_no_service(self, url: str) -> Any:
        """With Redis at ``url`` nobody is served; fire with the log's reason."""
        complaint = self.complaint()
        self.override(WS4REDIS_CONNECTION=url)
        self.launch(make_service(django_settings.server_config(LISTEN)))
        why = yield complaint
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertNotIn(b"s3cret", answer)
        self.assertNotIn("s3cret", why)
        return why

    @inlineCallbacks
    def set_a_trap(self, name: str) -> Any:
        """Fire with the port of a thief who has a certificate for ``name``, and all it is told."""
        public, both = make_certificate(x509.DNSName(name))
        self.ca_file = write_file(self, public)
        trap = Factory.forProtocol(Thief)
        trap.told = []
        port = yield self.listen(trap, PrivateCertificate.loadPEM(both).options())
        return port, trap.told

    @inlineCallbacks
    def test_a_false_redis_with_a_certificate_of_its_own_making_learns_no_password(self) -> Any:
        port, told = yield self.set_a_trap("localhost")
        why = yield self.assert_no_service(f"rediss://web:s3cret@localhost:{port}/0")
        self.assertIn("certificate", why)
        self.assertEqual(told, [])

    @inlineCallbacks
    def test_nor_does_one_with_a_good_certificate_for_another_host(self) -> Any:
        port, told = yield self.set_a_trap("evil.example")
        yield self.assert_no_service(
            f"rediss://web:s3cret@localhost:{port}/0?ssl_ca_certs={self.ca_file}"
        )
        self.assertEqual(told, [])
        # The same thief, where the name is right, is told all: the trap works.
        port, told = yield self.set_a_trap("localhost")
        broker = self.broker(f"rediss://web:s3cret@localhost:{port}/0?ssl_ca_certs={self.ca_file}")
        yield broker.commands.when_connected()
        self.assertIn(b"s3cret", b"".join(told))

    @inlineCallbacks
    def test_who_has_no_client_certificate_is_not_served_and_who_has_it_is(self) -> Any:
        mine, both = make_certificate(x509.DNSName("client"))
        _, forged = make_certificate(x509.DNSName("client"))
        yield self.open_door(x509.DNSName("localhost"), lets_in=mine)
        url = f"rediss://localhost:{self.port}/0?ssl_ca_certs={self.ca_file}"
        yield self.assert_no_service(url)
        yield self.assert_no_service(f"{url}&ssl_certfile={write_file(self, forged)}")
        yield self.serve_redis(f"{url}&ssl_certfile={write_file(self, both)}")

    @inlineCallbacks
    def test_a_wrong_password_serves_nobody_and_is_in_no_answer_and_no_log(self) -> Any:
        self.redis.command("ACL", "SETUSER", "web", "on", ">right", "~*", "&*", "+@all")
        self.addCleanup(self.redis.command, "ACL", "DELUSER", "web")
        why = yield self.assert_no_service(f"redis://web:s3cret@127.0.0.1:{self.redis.port}/0")
        self.assertIn("WRONGPASS", why)
        yield self.serve_redis(f"redis://web:right@127.0.0.1:{self.redis.port}/0")

    @inlineCallbacks
    def serve_redis(self, url: str) -> Any:
        self.override(WS4REDIS_CONNECTION=url)
        yield self.start_server(django_settings.server_config(LISTEN))
        client = yield self.open("foobar?subscribe-broadcast")
        self.redis.command("PUBLISH", "broadcast:foobar", "hello")
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_where_the_server_speaks_tls_nothing_without_it_gets_in(self) -> Any:
        public, both = make_certificate(x509.DNSName("localhost"))
        file = write_file(self, both)
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        door = f"ssl:0:interface=127.0.0.1:privateKey={file}:certKey={file}"
        yield self.start_server(django_settings.server_config((door,)))
        host, john = f"localhost:{self.port}", (yield self.john())
        told = yield exchange(self.port, handshake_bytes(Host=host, Cookie=john))
        self.assertNotIn(b"HTTP/", told)
        options = optionsForClientTLS("localhost", trustRoot=Certificate.loadPEM(public))
        way = wrapClientTLS(options, HostnameEndpoint(reactor, "localhost", self.port))
        for origin, status in (
            (f"http://{host}", 403),  # whoever sits in between can write such a page
            ("https://localhost", 403),
            (f"https://{host}", 101),
        ):
            target = "/ws/foobar?subscribe-user"
            handshake = handshake_bytes(target, Host=host, Cookie=john, Origin=origin)
            visit = yield connectProtocol(way, Visit(handshake))
            answer = yield visit.ended.addTimeout(TIMEOUT, reactor)
            self.assertEqual(status_of(answer), status, origin)


class CompressionTests(SecurityTestCase):
    """What is small on the wire and large in memory."""

    @inlineCallbacks
    def code_for(self, *frames: bytes) -> Any:
        """Fire with the code that the server closes with after ``frames``."""
        handshake = handshake_bytes(
            "/ws/foobar?publish-broadcast&subscribe-broadcast&echo",
            Host=f"127.0.0.1:{self.port}",
            Sec_WebSocket_Extensions="permessage-deflate",
        )
        wire = yield open_wire(self.port, handshake)
        wire.transport.write(b"".join(frames) + CLOSE)
        answer = yield wire.ended
        self.assertEqual(answer[:1], b"\x88", "only a close frame")
        return int.from_bytes(answer[2:4], "big")

    @inlineCallbacks
    def test_nobody_can_make_the_server_inflate_unless_that_is_switched_on(self) -> Any:
        service = yield self.serve(WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all")
        code = yield self.code_for(client_frame(COMPRESSED | TEXT, deflate(b"small")))
        self.assertEqual(code, 1002)
        yield self.gone(service)
        self.assert_nothing_was_had()

    @inlineCallbacks
    def test_a_bomb_is_refused_at_the_size_limit_and_takes_no_memory(self) -> Any:
        service = yield self.serve(
            WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all",
            WS4REDIS_COMPRESSION=True,
            WS4REDIS_MAX_MESSAGE_SIZE=200_000,
        )
        bomb = deflate(bytes(100_000_000))
        pieces = [bomb[start : start + 10_000] for start in range(0, len(bomb), 10_000)]
        in_frames = [unfinished(COMPRESSED | TEXT, pieces[0])]
        in_frames += [unfinished(0, piece) for piece in pieces[1:]]
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        code = yield self.code_for(client_frame(COMPRESSED | TEXT, bomb))
        self.assertEqual(code, 1009)
        self.assertEqual((yield self.code_for(*in_frames)), 1009)
        self.assertLess(tracemalloc.get_traced_memory()[1], 5_000_000)
        yield self.gone(service)
        self.assert_nothing_was_had()


class WireTests(SecurityTestCase):
    """Errors on the wire are neutral."""

    @inlineCallbacks
    def test_a_refusal_says_nothing_of_the_servers_inside_and_nothing_the_client_said(self) -> Any:
        yield self.serve()
        john = yield self.john()
        attack = "%3Cscript%3Ealert(1)%3C/script%3E<script>%0d%0aSet-Cookie:x=y"
        answers = []
        for target, headers, expected in (
            (f"/{attack}", {}, 404),
            (f"/ws/{attack}?subscribe-user", {}, 401),
            (f"/ws/{attack}?subscribe-session", {}, 403),
            (f"/ws/{attack}", {}, 400),
            (f"/ws/a?{attack}", {"Origin": "http://<script>"}, 403),
            ("/ws/a", {"Host": "<script>"}, 400),
            ("/ws/a", {"Sec_WebSocket_Version": "<script>"}, 426),
            ("/ws/a", {"Upgrade": "<script>"}, 426),
            ("/ws/a", {"Sec_WebSocket_Key": "<script>"}, 400),
            ("/ws/a", {"Sec_WebSocket_Protocol": "<script>"}, 400),
            ("/ws/a?publish-group", {"Cookie": john}, 403),
        ):
            status, answer = yield self.refusal(target, **headers)
            self.assertEqual(status, expected, (target, headers))
            answers.append(answer)
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=raising(RuntimeError("deliberate"))):
            status, answer = yield self.refusal()
        self.assertEqual(status, 500)
        self.flushLoggedErrors(RuntimeError)
        answers.append(answer)
        for answer in answers:
            for word in (
                b"script", b"set-cookie", b"traceback", b"deliberate", b"python", b"twisted",
                b"autobahn", b"django", b"redis", b"server:", b"ws4redis", b".py", b"john",
                john.partition("=")[2].encode(),
            ):  # fmt: skip
                self.assertNotIn(word, answer.lower())


class LogTests(TestCase):
    """Nothing that opens a door is in the log or the process list."""

    timeout = 60

    @inlineCallbacks
    def test_a_run_of_twistd_prints_no_session_key_no_password_and_no_message(self) -> Any:
        redis = RedisServer("--requirepass", "s3cret-passw0rd")
        self.addCleanup(redis.stop)
        with valkey.Valkey(host="127.0.0.1", port=redis.port, password="s3cret-passw0rd") as admin:
            # May broadcast and hear it, and nothing else: what fails is logged as well.
            admin.execute_command(
                "ACL", "SETUSER", "site", "on", ">s3cret-0f-site", "+@all", "-eval", "~*",
                "resetchannels", "&broadcast:*", "&user:*", "&ctl:*",
            )  # fmt: skip
        url = f"redis://site:s3cret-0f-site@127.0.0.1:{redis.port}/0"
        program = twistd(
            "--listen=tcp:0:interface=127.0.0.1",
            f"--settings={SETTINGS}",
            f"--redis=@{write_file(self, url)}",
            **environment(),
        )
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"Ready: websockets at ws://127.0.0.1:(\d+)/")
        port = int(ready[1])
        cookies = cookies_of((yield log_in("john")))
        key = cookies["sessionid"]

        client = yield self.open(port, "subscribe-user&publish-user&echo&tok3n=qu3ry", cookies)
        client.sendMessage(b"a private m3ssage")
        self.assertEqual((yield client.next()), "a private m3ssage")
        client.sendMessage(b"x" * 2_000_000)  # too big
        self.assertEqual((yield client.closed), 1009)
        forbidden = yield self.open(port, "publish-session&subscribe-broadcast", cookies)
        forbidden.sendMessage(b"a private m3ssage")
        yield forbidden.closed
        for flags, headers, status in (
            ("publish-group", {}, 403),
            ("subscribe-user", {"Origin": "https://evil.example"}, 403),
            ("subscribe-user", {"Host": "evil.example"}, 400),
            ("subscribe-user", {"Cookie": f"sessionid={key}x"}, 401),
            ("subscribe-user", {"Cookie": f'sessionid="{key}'}, 401),
            ("subscribe-session", {}, 503),
            ("subscribe-user", {"X_Note": "a\x0b"}, 400),
        ):
            headers = {"Host": f"127.0.0.1:{port}", "Cookie": f"sessionid={key}", **headers}
            answer = yield exchange(
                port, handshake_bytes(f"/ws/foobar?{flags}&tok3n=qu3ry", **headers)
            )
            self.assertEqual(status_of(answer), status, (flags, program.printed))
        lines = "\n".join(
            Path(f"/proc/{pid}/cmdline").read_text()
            for pid in (program.pid, *children(program.pid))
        )
        yield program.signal_and_wait("TERM")
        self.assertIn("Refused a websocket with 403", program.printed)
        self.assertIn("user 'john'", program.printed)
        secrets = (key, "s3cret", "m3ssage", "qu3ry", cookies["csrftoken"], "xxxxxxxx")
        for secret in secrets:
            self.assertNotIn(secret, program.printed)
            self.assertNotIn(secret, lines)

    @inlineCallbacks
    def open(self, port: int, flags: str, cookies: dict[str, str]) -> Any:
        url = f"ws://127.0.0.1:{port}/ws/foobar?{flags}"
        return (yield open_websocket(url, cookies=cookies, origin=f"http://127.0.0.1:{port}"))


class ReprTests(SynchronousTestCase):
    """Nor in what is shown of objects and errors."""

    def test_no_password_is_in_a_repr_a_str_or_an_error(self) -> None:
        for value in (
            "redis://site:s3cret@localhost:6379/0",
            "redis://:s3cret@localhost/0",
            "rediss://site:s3cret@localhost/0",
            "sentinel://site:s3cret@localhost:26379/mymaster/0",
            {"host": "localhost", "username": "site", "password": "s3cret"},
        ):
            address = parse_redis_address(value)
            self.assertEqual(address.password, "s3cret")
            config = ServerConfig(redis=address)
            for text in (repr(address), str(address), f"{address}", repr(config), str(config)):
                self.assertNotIn("s3cret", text)
        for value in (
            "redis://site:s3cret@localhost:port/0",
            "redis://site:s3cret@localhost:6379/zero",
            "redis://site:s3cret@localhost:6379/0?x=1",
            "http://site:s3cret@localhost",
            "redis://site:s3cret@[localhost",
            "redis://site:s3cret@localhost:99999",
            "sentinel://site:s3cret@localhost",
            "site:s3cret@localhost",
            {"password": "s3cret", "port": "x"},
            {"password": "s3cret", "no_such": "key"},
            {"password": ["s3cret"]},
        ):
            with self.subTest(value=value):
                error = self.assertRaises(ConfigError, parse_redis_address, value)
                self.assertNotIn("s3cret", f"{error} {error!r}")
                # What a traceback would print above it.
                self.assertIsNone(error.__cause__)
                self.assertTrue(error.__suppress_context__ or error.__context__ is None)

    def test_a_session_key_is_not_in_an_identitys_repr(self) -> None:
        identity = Identity("s3ss10n", "john", ("chatters",))
        self.assertNotIn("s3ss10n", f"{identity} {identity!r}")
