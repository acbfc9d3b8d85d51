"""Nothing that opens a door is on the wire, in the log or in the process list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import valkey
from django.test import override_settings
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.security.cases import SecurityTestCase, raising
from tests.support.clients import exchange, open_websocket
from tests.support.django import SETTINGS, cookies_of, environment, log_in
from tests.support.programs import children, twistd, write_file
from tests.support.redis import RedisServer
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import parse_redis_address


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
            # This user may only use broadcast channels, so that failures are logged as well.
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
    """No secret is in a repr, a str or an error."""

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
                # A traceback would print this above it.
                self.assertIsNone(error.__cause__)
                self.assertTrue(error.__suppress_context__ or error.__context__ is None)

    def test_a_session_key_is_not_in_an_identitys_repr(self) -> None:
        identity = Identity("s3ss10n", "john", ("chatters",))
        self.assertNotIn("s3ss10n", f"{identity} {identity!r}")
