"""The contract, section 2: the handshake, judged in the order of its table."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.clients import Client, exchange
from tests.support.django import set_up_django
from tests.support.redis import RedisServer, shared_redis
from tests.support.servers import LISTEN
from tests.support.sites import PUBLISH_ALL, SUBSCRIBE_ALL, ContractTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.service import make_service
from ws4redis_tx.testing import MemoryBroker

set_up_django()

from django.core.exceptions import PermissionDenied
from django.test import override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.policies import allow_all


class HandshakeOrderTests(ContractTestCase):
    """2. Websocket: judged in this order, and the first thing that fails answers"""

    @inlineCallbacks
    def test_one_request_in_which_everything_is_wrong_is_mended_row_by_row(self) -> Any:
        calls: list[str] = []

        def identify(request: Any) -> None:
            raise AttributeError("deliberate")

        def refuse(request: Any, channels: Any) -> Any:
            calls.append("asked")
            raise PermissionDenied

        def of_john(session_key: str | None) -> Any:
            def process(request: Any) -> None:
                from django.contrib.auth.models import User

                request.user = User.objects.get(username="john")
                request.session = type("Session", (dict,), {"session_key": session_key})()

            return process

        broker = MemoryBroker()
        broker.available = False
        self.override(WS4REDIS_PROCESS_REQUEST=identify, WS4REDIS_ALLOWED_CHANNELS=refuse)
        self.launch(make_service(django_settings.server_config(LISTEN), broker=broker))
        host = f"127.0.0.1:{self.port}"
        method = "POST"
        target = "/elsewhere/a:b?subscribe-user&subscribe-session"
        headers: dict[str, Any] = {
            "Host": "evil.example",
            "Origin": "http://other.example",
            "Upgrade": None,
            "Sec_WebSocket_Version": "8",
            "Sec_WebSocket_Key": "short",
        }

        @inlineCallbacks
        def expect(status: int, words: str = "") -> Any:
            data = handshake_bytes(target, **headers).replace(b"GET", method.encode(), 1)
            answer = yield exchange(self.port, data)
            self.assertEqual(status_of(answer), status, answer)
            self.assertIn(words.lower(), answer.decode().lower())
            return answer

        yield expect(404)
        target = target.replace("/elsewhere/", "/ws/")
        yield expect(405, "\r\nAllow: GET\r\n")
        method = "GET"
        answer = yield expect(426, "\r\nUpgrade: websocket\r\n")
        self.assertNotIn(b"Sec-WebSocket-Version", answer)
        headers["Upgrade"] = "websocket"
        yield expect(426, "\r\nSec-WebSocket-Version: 13\r\n")
        headers["Sec_WebSocket_Version"] = "13"
        yield expect(400, "Sec-WebSocket-Key")
        headers["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        yield expect(503, "\r\nRetry-After: ")
        broker.available = True
        yield expect(400, "Host")
        headers["Host"] = host
        yield expect(403, "origin")
        headers["Origin"] = f"http://{host}"
        yield expect(500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.assertEqual(calls, [])
        self.override(WS4REDIS_PROCESS_REQUEST=lambda request: None)
        yield expect(403)
        self.assertEqual(calls, ["asked"])
        self.override(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        yield expect(401, "\r\nWWW-Authenticate: ")
        self.override(WS4REDIS_PROCESS_REQUEST=of_john(None))
        yield expect(403, "session")
        self.override(WS4REDIS_PROCESS_REQUEST=of_john("abc"))
        yield expect(400, "facility")
        target = target.replace("a:b", "ab")
        self.assertEqual(set(broker.hub.channels), set())
        client = yield self.open("ab?subscribe-user&subscribe-session")
        self.assertEqual(set(broker.hub.channels), {b"user:john:ab", b"session:abc:ab"})
        self.assertIsInstance(client, Client)

    @inlineCallbacks
    def test_a_body_does_not_change_which_row_answers(self) -> Any:
        yield self.serve()
        for method, target, status in (("POST", "/ws/foobar", 405), ("GET", "/elsewhere", 404)):
            head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n"
            answer = yield exchange(self.port, head.encode() + b"a=b")
            self.assertEqual(status_of(answer), status, target)


class HandshakeTests(ContractTestCase):
    """2. Websocket: the rows of the handshake's table, one by one"""

    @inlineCallbacks
    def test_the_path_is_under_websocket_url_else_404(self) -> Any:
        yield self.serve(WEBSOCKET_URL="/live/now/")
        for path in ("/", "/ws/foobar", "/live/foobar", "/live/now", "/LIVE/now/foobar", "*"):
            status, _ = yield self.refusal(path)
            self.assertEqual(status, 404, path)

    @inlineCallbacks
    def test_another_method_is_405_with_allow(self) -> Any:
        yield self.serve()
        for method in (b"POST", b"HEAD", b"OPTIONS", b"PUT", b"get"):
            answer = yield exchange(self.port, handshake_bytes().replace(b"GET", method, 1))
            self.assertEqual(status_of(answer), 405)
            self.assertIn(b"\r\nAllow: GET\r\n", answer)

    @inlineCallbacks
    def test_no_upgrade_is_426_with_one_line_that_explains_the_url(self) -> Any:
        yield self.serve()
        for headers in ({"Upgrade": None}, {"Connection": "keep-alive"}, {"Upgrade": "h2c"}):
            status, answer = yield self.refusal(**headers)
            self.assertEqual(status, 426)
            self.assertIn(b"\r\nUpgrade: websocket\r\n", answer)
            body = answer.partition(b"\r\n\r\n")[2]
            self.assertEqual(body.count(b"\n"), 1)
            self.assertIn(b"new WebSocket(", body)

    @inlineCallbacks
    def test_a_version_other_than_13_is_426_with_the_right_one(self) -> Any:
        yield self.serve()
        for version in (None, "8", "12", "14", "013", "13, 8"):
            status, answer = yield self.refusal(Sec_WebSocket_Version=version)
            self.assertEqual(status, 426, version)
            self.assertIn(b"\r\nSec-WebSocket-Version: 13\r\n", answer)

    @inlineCallbacks
    def test_what_is_not_well_formed_is_400(self) -> Any:
        yield self.serve()
        for headers in (
            {"Sec_WebSocket_Key": None},
            {"Sec_WebSocket_Key": "short"},
            {"Sec_WebSocket_Protocol": "a b"},
            {"Content_Length": "5"},
            {"X_A": "a\rb"},
        ):
            status, _ = yield self.refusal(**headers)
            self.assertEqual(status, 400, headers)
        without_host = handshake_bytes(Host=None)
        self.assertEqual(status_of((yield exchange(self.port, without_host))), 400)

    @inlineCallbacks
    def test_a_server_that_drains_or_has_no_redis_answers_503_with_retry_after(self) -> Any:
        redis = RedisServer()
        self.redis = redis
        service = yield self.serve()
        redis.stop()
        yield service.factory.broker.fence().addErrback(lambda _: None)
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertIn(b"\r\nRetry-After: ", answer)
        self.redis = shared_redis()
        service = yield self.serve()
        service.factory.drain(1012)
        status, answer = yield self.refusal()
        self.assertEqual(status, 503)
        self.assertIn(b"\r\nRetry-After: ", answer)

    @inlineCallbacks
    def test_a_host_that_is_not_in_allowed_hosts_is_400(self) -> Any:
        yield self.serve(ALLOWED_HOSTS=["example.com", ".sub.example"])
        for host in ("127.0.0.1", "evil.example", "example.com.evil", "example.com, a", "a@b"):
            status, _ = yield self.refusal(Host=host)
            self.assertEqual(status, 400, host)
        for host in ("example.com", "EXAMPLE.com:8000", "a.sub.example"):
            status, _ = yield self.refusal(Host=host, Origin="http://not.there")
            self.assertEqual(status, 403, host)

    @inlineCallbacks
    def test_without_django_the_host_is_loopback_or_that_of_a_configured_origin(self) -> Any:
        yield self.start_server(allowed_origins=("https://chat.example",))
        for host, expected in (
            ("evil.example", 400), ("localhost", 403), ("[::1]:8000", 403), ("127.0.0.2", 403),
            ("chat.example", 403),
        ):  # fmt: skip
            status, _ = yield self.refusal(Host=host, Origin="http://not.there")
            self.assertEqual(status, expected, host)

    @inlineCallbacks
    def test_an_exception_in_the_lookup_is_500_with_neutral_text_and_a_traceback(self) -> Any:
        def process(request: Any) -> None:
            raise RuntimeError("a secret\r\nX-Injected: yes")

        yield self.serve(WS4REDIS_PROCESS_REQUEST=process)
        status, answer = yield self.refusal()
        self.assertEqual(status, 500)
        for words in (b"secret", b"Injected", b"RuntimeError", b"Traceback"):
            self.assertNotIn(words, answer)
        self.assertIn("process", self.flushLoggedErrors(RuntimeError)[0].getTraceback())

    @inlineCallbacks
    def test_permission_denied_is_403_and_its_text_stays_here(self) -> Any:
        def refuse(request: Any, channels: Any) -> Any:
            raise PermissionDenied("a secret reason")

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=refuse)
        status, answer = yield self.refusal()
        self.assertEqual(status, 403)
        self.assertNotIn(b"secret", answer)

    @inlineCallbacks
    def test_any_other_exception_or_answer_is_500_and_never_granted(self) -> Any:
        yield self.serve()

        def broken(request: Any, channels: Any) -> Any:
            raise AttributeError("deliberate")

        answers = (
            None, False, True, 7, object(), "subscribe-broadcast", b"subscribe-broadcast",
            ["subscribe-everything"], [None], ["subscribe-broadcast", 7], [["subscribe-user"]],
        )  # fmt: skip
        callbacks = [lambda request, channels, answer=answer: answer for answer in answers]
        logged: list[Any] = []
        for callback in (broken, *callbacks):
            with override_settings(WS4REDIS_ALLOWED_CHANNELS=callback):
                status, answer = yield self.refusal()
            self.assertEqual(status, 500)
            self.assertNotIn(b"deliberate", answer)
            logged += self.flushLoggedErrors()
        # Failures of one kind in one place have one traceback.
        kinds = [failure.type for failure in logged]
        self.assertEqual((kinds[0], kinds.count(AttributeError)), (AttributeError, 1))
        self.assertGreater(len(kinds), 1)
        self.assertEqual(self.channels(), set())

    @inlineCallbacks
    def test_a_user_or_group_right_without_login_is_401_with_www_authenticate(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in ("subscribe-user", "subscribe-group", "publish-user", "publish-group"):
            status, answer = yield self.refusal(f"/ws/foobar?subscribe-broadcast&{right}")
            self.assertEqual(status, 401, right)
            self.assertIn(b"\r\nWWW-Authenticate: ", answer)

    @inlineCallbacks
    def test_a_session_right_without_a_session_key_is_403(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow_all)
        for right in ("subscribe-session", "publish-session"):
            for cookie in (None, "sessionid=", "sessionid=forged", "sessionid=" + "a" * 32):
                status, _ = yield self.refusal(f"/ws/foobar?{right}", Cookie=cookie)
                self.assertEqual(status, 403, right)

    @inlineCallbacks
    def test_with_signed_cookies_a_session_right_is_always_403(self) -> Any:
        yield self.serve(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies")
        john = yield self.log_in("john")
        cookie = f"sessionid={john['sessionid']}"
        status, _ = yield self.refusal("/ws/foobar?subscribe-session", Cookie=cookie)
        self.assertEqual(status, 403)
        yield self.open("foobar?subscribe-user", cookies=john)
        self.assertEqual(self.channels(), {"user:john:foobar"})

    @inlineCallbacks
    def test_what_the_callback_leaves_out_is_narrowed_silently(self) -> Any:
        """Only granted rights are judged: here they no longer need a login."""
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: channels[:1])
        yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}")
        self.assertEqual(self.channels(), {"broadcast:foobar"})

    @inlineCallbacks
    def test_an_empty_answer_opens_subscribed_to_nothing(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=lambda request, channels: ())
        client = yield self.open(f"foobar?{SUBSCRIBE_ALL}&{PUBLISH_ALL}")
        client.sendMessage(b"hi")
        client.sendClose(1000)
        yield client.closed
        self.assertEqual((self.channels(), self.keys()), (set(), set()))
