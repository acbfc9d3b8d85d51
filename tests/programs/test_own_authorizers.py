"""The standalone example is run and attacked; the blocks of the guide to authorizers are run."""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
import time
import urllib.request
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.brokers import share_commands
from tests.support.clients import exchange, open_websocket
from tests.support.django import in_thread, log_in, set_up_django
from tests.support.pages import DOCS, broken_links
from tests.support.programs import TWISTD, Program
from tests.support.redis import shared_redis
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.interfaces import IAuthorizer
from ws4redis_tx.revocation.messages import RECHECK, Revocation
from ws4redis_tx.service import make_service
from ws4redis_tx.testing import MemoryClient, connect, make_memory_factory

set_up_django()

from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory, override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.tickets import make_ticket

GUIDE = (ROOT / "docs" / "authorizers.md").read_text()

EXAMPLE = ROOT / "examples" / "standalone"
KEY = b"k" * 32
RIGHTS = ["subscribe-user", "subscribe-group", "subscribe-broadcast"]
FLAGS = "&".join(RIGHTS)


@cache
def example() -> ModuleType:
    """The module that users copy."""
    folder = str(EXAMPLE)
    sys.path.insert(0, folder)
    try:
        import tokens
    finally:
        sys.path.remove(folder)
    return tokens


class TokenTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.tokens: Any = example()
        self.clock = Clock()
        self.started = time.time()
        self.authorizer: IAuthorizer = self.tokens.TokenAuthorizer(KEY, self.now)
        self.factory = make_memory_factory(
            ServerConfig(recheck=0), authorizer=self.authorizer, clock=self.clock
        )

    def now(self) -> float:
        return self.started + self.clock.seconds()

    def claims(self, **values: Any) -> Any:
        standard = {"user": "john", "facility": "chat", "rights": RIGHTS, "groups": ["staff"]}
        return self.tokens.Claims(**{**standard, "expires": self.now() + 60, **values})

    def token(self, key: bytes = KEY, **values: Any) -> str:
        token: str = self.tokens.make_token(key, self.claims(**values))
        return token

    def show(self, token: str, target: str = f"chat?{FLAGS}") -> MemoryClient:
        """Send the token in both ways; the answers must agree."""
        offered, bearer = (
            connect(self.factory, f"ws://localhost/ws/{target}", headers=headers)
            for headers in (
                {"Sec-WebSocket-Protocol": f"chat, token.{token}"},
                {"Authorization": f"Bearer {token}"},
            )
        )
        self.assertEqual((offered.open, offered.refused), (bearer.open, bearer.refused))
        return offered

    def publish(self, *channels: bytes) -> None:
        for channel in channels:
            self.factory.broker.publish([channel], channel, 0)


class TokenTests(TokenTestCase):
    def test_it_says_who_comes(self) -> None:
        client = self.show(self.token())
        names = [b"user:john:chat", b"group:staff:chat", b"broadcast:chat"]
        self.publish(b"user:mary:chat", *names)
        self.assertEqual(client.messages, [name.decode() for name in names])
        self.assertEqual(client.response_headers["sec-websocket-protocol"], "chat")

    def test_it_grants_no_more_than_it_says(self) -> None:
        client = self.show(self.token(rights=["subscribe-user"]), f"chat?{FLAGS}&publish-broadcast")
        client.send("to all")
        self.publish(b"broadcast:chat", b"group:staff:chat", b"user:john:chat")
        self.assertEqual(client.messages, ["user:john:chat"])
        self.assertEqual(self.factory.broker.persisted, {})

    def test_when_it_expires_the_websocket_ends(self) -> None:
        client = self.show(self.token())
        self.clock.advance(59)
        self.clock.advance(0)
        self.assertTrue(client.open)
        self.clock.advance(2)
        self.clock.advance(0)
        self.assertEqual(client.close_code, 1008)

    def test_its_user_can_be_disconnected_and_rechecked(self) -> None:
        client, other = self.show(self.token()), self.show(self.token(user="mary"))
        for verb in (RECHECK, "disconnect"):
            self.factory.broker.publish(
                [b"ctl:revoke"], Revocation(verb, "user", ("john",)).payload, 0
            )
            self.clock.advance(0)
            self.assertEqual(client.open, verb == RECHECK)
        self.assertEqual(client.close_code, 1008)
        self.assertTrue(other.open)

    def test_a_key_that_can_be_guessed_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "A key of 31 bytes"):
            self.tokens.TokenAuthorizer(b"k" * 31)


class AttackTests(TokenTestCase):
    def assert_refused(self, token: str, status: int = 401, **options: Any) -> None:
        client = self.show(token, **options)
        self.assertEqual(client.refused, status)
        self.assertNotIn(token or "nothing", str(client.response_headers))

    def test_a_replayed_one_is_good_until_it_expires_and_not_after(self) -> None:
        token = self.token()
        self.assertTrue(self.show(token).open)
        self.assertTrue(self.show(token).open)
        self.clock.advance(60)
        self.assert_refused(token)

    def test_one_that_never_expires_is_refused(self) -> None:
        self.assert_refused(self.token(expires=float("nan")))

    def test_one_that_was_made_with_another_key_is_refused(self) -> None:
        self.assert_refused(self.token(b"j" * 32))

    def test_a_signature_does_not_fit_other_claims(self) -> None:
        payload, signature = self.token().split(".")
        other, _ = self.token(user="admin").split(".")
        self.assert_refused(f"{other}.{signature}")
        self.assert_refused(f"{payload}.")
        self.assert_refused(f"{payload}{signature}")
        self.assert_refused(f".{signature}")
        self.assert_refused(payload)
        self.assert_refused("")
        self.assert_refused(f"{payload}.{signature}.")

    def test_what_the_key_signs_elsewhere_is_no_token(self) -> None:
        import base64
        import hmac

        payload = self.token().partition(".")[0]
        signed = hmac.digest(KEY, payload.encode(), "sha256")
        self.assert_refused(f"{payload}.{base64.urlsafe_b64encode(signed).decode().rstrip('=')}")

    @given(st.text(st.characters(min_codepoint=33, max_codepoint=255)), st.integers(0, 300))
    def test_no_other_text_is_one(self, text: str, start: int) -> None:
        token = self.token()
        for guess in (text, token[:start] + text, f"{token}{text}"):
            if guess != token:
                with self.assertRaises(Denied) as caught:
                    self.tokens.read_token(KEY, guess, self.now())
                self.assertEqual(caught.exception.status, 401)

    def test_what_is_not_signed_is_not_read(self) -> None:
        def fail(_: str) -> None:
            raise AssertionError("it was read")

        self.patch(self.tokens, "_decode", fail)
        self.assert_refused(self.token(b"j" * 32))

    def test_at_another_facility_it_is_refused(self) -> None:
        for target in ("other", "chat/", "Chat", ""):
            self.assert_refused(self.token(), 403, target=f"{target}?{FLAGS}")

    def test_in_the_url_it_is_not_looked_for(self) -> None:
        token = self.token()
        for name in ("token", "access_token", "authorization", "Authorization"):
            client = connect(self.factory, f"ws://localhost/ws/chat?{FLAGS}&{name}={token}")
            self.assertEqual(client.refused, 401)

    def test_one_that_would_be_answered_is_refused(self) -> None:
        token = self.token()
        for offered in (f"token.{token}", f"token.{token}, chat", f"token.x, token.{token}"):
            client = connect(
                self.factory,
                "ws://localhost/ws/chat",
                headers={"Sec-WebSocket-Protocol": offered},
            )
            self.assertEqual(client.refused, 400)
            self.assertNotIn(token, str(client.response_headers))

    def test_another_sites_page_is_refused_whatever_it_shows(self) -> None:
        client = connect(
            self.factory,
            "ws://localhost/ws/chat",
            origin="https://evil.example",
            headers={"Sec-WebSocket-Protocol": f"chat, token.{self.token()}"},
        )
        self.assertEqual(client.refused, 403)

    def test_it_is_compared_in_constant_time(self) -> None:
        compared: list[tuple[bytes, bytes]] = []
        compare = self.tokens.hmac.compare_digest

        def note(a: bytes, b: bytes) -> bool:
            compared.append((a, b))
            return bool(compare(a, b))

        self.patch(self.tokens.hmac, "compare_digest", note)
        payload, signature = self.token().split(".")
        other = "y" if signature.startswith("x") else "x"
        self.assert_refused(f"{payload}.{other}{signature[1:]}")
        self.assertEqual(len(compared), 2)

    def test_what_it_holds_is_readable_and_no_secret(self) -> None:
        payload = self.token().partition(".")[0]
        self.assertEqual(json.loads(self.tokens._decode(payload))["user"], "john")


class StandaloneTests(TestCase):
    """Without Django: a signed token lets its owner in."""

    timeout = 60
    key = KEY.decode()

    @inlineCallbacks
    def setUp(self) -> Any:
        self.program = Program(
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "--python",
            str(EXAMPLE / "standalone.tac"),
            TOKEN_KEY=self.key,
            WS4REDIS_CONNECTION=str(shared_redis().address),
            LISTEN="tcp:0:interface=127.0.0.1",
        )
        self.addCleanup(self.program.end)
        self.port = int((yield self.program.wait_for(r"Site starting on (\d+)"))[1])
        self.url = f"ws://127.0.0.1:{self.port}/ws/chat?subscribe-broadcast"

    @inlineCallbacks
    def token(self, *options: str, key: str = key) -> Any:
        """A token as the program prints it."""
        command = (sys.executable, str(EXAMPLE / "tokens.py"), "john", *options)
        program = yield Program(*command, TOKEN_KEY=key).ended
        self.assertEqual(program.status, 0, program.printed)
        return program.printed.strip()

    @inlineCallbacks
    def status(self, target: str = "/ws/chat", **headers: str) -> Any:
        status = 503
        while status == 503:  # not connected to Redis yet
            answer = yield exchange(self.port, handshake_bytes(target, **headers))
            status = status_of(answer)
        for header in headers.values():
            self.assertNotIn(header[-20:].encode(), answer)
        return status

    @inlineCallbacks
    def test_the_page_and_a_program_talk(self) -> Any:
        def get() -> str:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=20) as response:
                return response.read().decode()

        page = yield deferToThread(get)
        path = re.search(r"/ws/\S+?(?=`)", page)[0]
        first, second = re.search(r"\[\"(\w+)\", `(\w+\.)", page).groups()
        token = yield self.token("chat")
        yield self.status()
        client = Program(
            sys.executable, str(EXAMPLE / "client.py"), self.url, TOKEN=(yield self.token("chat"))
        )
        self.addCleanup(client.end)
        yield client.wait_for("Listening")
        browser = yield open_websocket(
            f"ws://127.0.0.1:{self.port}{path}",
            protocols=[first, second + token],
            origin=f"http://127.0.0.1:{self.port}",
        )
        self.assertEqual(browser.selected_protocol, first)
        browser.sendMessage(b"hello")
        self.assertEqual((yield browser.next()), "hello")
        yield client.wait_for("hello")
        yield self.program.signal_and_wait("TERM")
        self.assertEqual((yield browser.closed), 1001)
        yield client.wait_for(r"Closed \(1001\)")
        yield client.ended

    @inlineCallbacks
    def test_a_program_that_was_told_to_use_tls_sends_its_token_over_nothing_else(self) -> Any:
        received: Deferred[bytes] = Deferred()

        class Spy(Protocol):
            def dataReceived(self, data: bytes) -> None:
                received.callback(data)
                self.transport.abortConnection()

        port = reactor.listenTCP(0, Factory.forProtocol(Spy), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"wss://localhost:{port.getHost().port}/ws/chat"
        client = Program(sys.executable, str(EXAMPLE / "client.py"), url, TOKEN="secret")
        self.addCleanup(client.end)
        data = yield received.addTimeout(20, reactor)
        self.assertEqual(data[:1], b"\x16")  # the beginning of TLS
        self.assertNotIn(b"secret", data)
        yield client.ended

    @inlineCallbacks
    def test_who_has_no_good_token_for_the_facility_stays_outside(self) -> Any:
        good = yield self.token("chat")
        forged = yield self.token("chat", key="another key" * 4)
        expired = yield self.token("chat", "--seconds=-1")
        elsewhere = yield self.token("other")
        self.assertEqual((yield self.status()), 401)
        self.assertEqual((yield self.status(f"/ws/chat?token={good}&access_token={good}")), 401)
        for token, status in ((forged, 401), (expired, 401), (elsewhere, 403)):
            self.assertEqual((yield self.status(Authorization=f"Bearer {token}")), status)
            offered = f"chat, token.{token}"
            self.assertEqual((yield self.status(Sec_WebSocket_Protocol=offered)), status)
        for _ in range(2):  # it is a token, not a ticket
            client = yield open_websocket(self.url, headers={"Authorization": f"Bearer {good}"})
            client.sendClose(1000)
            yield client.closed
        foreign = {"Origin": "https://evil.example", "Authorization": f"Bearer {good}"}
        self.assertEqual((yield self.status(**foreign)), 403)
        self.assertNotIn(good, self.program.printed)

    @inlineCallbacks
    def test_a_key_that_can_be_guessed_is_refused_with_the_remedy(self) -> Any:
        for name in ("tokens.py", "standalone.tac"):
            command = [sys.executable, str(EXAMPLE / name), "john", "chat"]
            if name.endswith(".tac"):
                command = [TWISTD, "--nodaemon", "--pidfile=", "--python", str(EXAMPLE / name)]
            program = yield Program(*command, TOKEN_KEY="secret").ended
            self.assertIn("TOKEN_KEY has 6 bytes", program.printed)
            self.assertIn("secrets.token_hex(32)", program.printed)
            self.assertNotEqual(program.status, 0)


class GuideTests(ServerTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(
            re.findall(r"^```(\w+)$", GUIDE, re.M),
            ["python", "sh", "js", "python", "js", "python"],
        )

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(DOCS / "authorizers.md"), [])

    def test_the_signatures_and_fields_it_names_are_those_there_are(self) -> None:
        signature = inspect.signature(make_ticket)
        bare = [
            each.replace(annotation=inspect.Parameter.empty)
            for each in signature.parameters.values()
        ]
        self.assertIn(f"`make_ticket{inspect.Signature(bare)}`:\n", GUIDE)
        (row,) = re.findall(r"^\| `handshake` \| .*: (.*) \|$", GUIDE, re.M)
        for name in re.findall(r"`(\w+)`", row):
            self.assertTrue(hasattr(Handshake, name), name)

    def test_an_authorizer_of_your_own(self) -> None:
        names = run(blocks("python")[0])
        asked: list[str] = []
        user = SimpleNamespace(name="john", number=7, groups=("staff",))

        def find_user(key: str) -> Deferred[Any]:
            asked.append(key)
            return succeed(user if key == "good" else None)

        factory = make_memory_factory(authorizer=names["KeyAuthorizer"](find_user))
        url = f"ws://localhost/ws/chat?{FLAGS}"
        client = connect(factory, url, headers={"X-API-Key": "good"})
        factory.broker.publish([b"user:john:chat"], b"for john", 0)
        factory.broker.publish([b"group:staff:chat"], b"for staff", 0)
        self.assertEqual(client.messages, ["for john", "for staff"])
        refused = connect(factory, url, headers={"X-API-Key": "bad"})
        self.assertEqual(refused.refused, 401)
        self.assertEqual(refused.response_headers["www-authenticate"], "Key")
        self.assertEqual(asked, ["good", "bad"])
        self.assertIsInstance(
            names["make_push"](find_user).factory.session_server.authorizer, names["KeyAuthorizer"]
        )

    @inlineCallbacks
    def test_the_standalone_server(self) -> Any:
        (script,) = blocks("sh")
        key = "-c 'import secrets; print(secrets.token_hex(32))'"
        self.assertIn(key, script)
        script = script.replace("twistd ", "exec twistd --pidfile= ")
        program = Program(
            *("sh", "-ec", script),
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            WS4REDIS_CONNECTION=str(self.redis.address),
            LISTEN="tcp:0:interface=127.0.0.1",
        )
        self.addCleanup(program.end)
        yield program.wait_for(r"Site starting on \d+")

    def test_a_page_with_a_token(self) -> None:
        tokens = example()
        factory = make_memory_factory(authorizer=tokens.TokenAuthorizer(KEY))
        claims = tokens.Claims("john", "chat", RIGHTS, [], time.time() + 60)
        offered, target = offer(blocks("js")[0], {"token": tokens.make_token(KEY, claims)})
        client = connect(
            factory, f"ws://localhost{target}", headers={"Sec-WebSocket-Protocol": offered}
        )
        self.assertEqual(client.response_headers["sec-websocket-protocol"], "chat")

    @inlineCallbacks
    def test_a_page_with_a_ticket(self) -> Any:
        view, settings = (run(code) for code in blocks("python")[1:])
        hosts = [
            host.replace("push.example.net", "127.0.0.1") for host in settings["ALLOWED_HOSTS"]
        ]
        origins = settings["WS4REDIS_ALLOWED_ORIGINS"]
        change = override_settings(
            WS4REDIS_CONNECTION=str(self.redis.address),
            ALLOWED_HOSTS=hosts,
            WS4REDIS_ALLOWED_ORIGINS=origins,
        )
        change.enable()
        self.addCleanup(change.disable)
        service = make_service(django_settings.server_config(listen=LISTEN))
        self.launch(service)
        yield service.when_ready()
        share_commands(self, service.factory.broker.commands)
        browser = yield log_in("john")

        def ask(method: str = "post", session: Any = browser.session) -> Any:
            request = getattr(RequestFactory(), method)("/ticket/", headers={"host": hosts[0]})
            request.session, request.user = session, get_user(SimpleNamespace(session=session))
            return view["ticket"](request)

        self.assertEqual((yield in_thread(ask, "get")).status_code, 405)
        self.assertEqual((yield in_thread(ask, "post", SessionStore())).status_code, 302)
        for origin, opens in ((origins[0], True), ("https://push.example.com", False)):
            ticket = json.loads((yield in_thread(ask)).content)["ticket"]
            offered, target = offer(blocks("js")[1], {"ticket": ticket})
            opening = self.open(
                target.removeprefix("/ws/"), protocols=offered.split(", "), origin=origin
            )
            if opens:
                client = yield opening
                self.assertEqual(client.selected_protocol, "ws4redis")
                self.redis.command("PUBLISH", "user:john:orders", "shipped")
                self.assertEqual((yield client.next()), "shipped")
            else:
                yield self.assertFailure(opening, ConnectionError)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.M | re.S)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(code, names)
    return names


def offer(script: str, variables: dict[str, str]) -> tuple[str, str]:
    """The subprotocols that a script's websocket offers, and the path that it asks for."""
    listed = re.search(r"new WebSocket\(url, \[(.+)\]\)", script)[1]
    words = []
    for each in listed.split(", "):
        quoted = re.fullmatch(r"\"(.+)\"|`(.+)`|(\w+)", each)
        text = quoted[1] or quoted[2] or f"${{{quoted[3]}}}"
        words.append(re.sub(r"\$\{(\w+)\}", lambda found: variables[found[1]], text))
    return ", ".join(words), re.search(r'url = "wss://[^/]+(/[^"]+)"', script)[1]
