"""What an attacker sends, and what comes of it: over real sockets, into a server with Django.

A class for each promise of the server's security, a test for each of its sentences. What other
modules test in depth, such as every Origin, is attacked here once.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import valkey
from django.test import override_settings
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from tests.demo import SETTINGS, cookies_of, environment, log_in
from tests.processes import children, twistd
from tests.support import (
    TIMEOUT,
    RedisServer,
    exchange,
    handshake_bytes,
    open_websocket,
    status_of,
    write_file,
)
from tests.test_contract import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from tests.test_load import CLOSE, open_wire
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.config import ServerConfig
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import parse_redis_address

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

    def drained(self, service: Any) -> Any:
        """Fire when the authorizer's threads have handed over what they had to say."""
        threads = service.factory.authorizer._threads
        done = [deferToThreadPool(reactor, threads, lambda: None) for _ in range(threads.max)]
        return done[-1].addCallback(lambda _: service.factory.broker.fence())


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
        service.factory.openHandshakeTimeout = 0.01
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


class RevocationTests(SecurityTestCase):
    """Who is no longer let in does not stay in."""


class PeerLimitTests(SecurityTestCase):
    """No client, user or address gets more than its share."""


class TransportTests(SecurityTestCase):
    """TLS, towards browsers and towards Redis."""


class CompressionTests(SecurityTestCase):
    """What is small on the wire and large in memory."""


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
