"""The lines that clients cause in the log: their texts, and how fast a stranger makes it grow."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, fail
from twisted.logger import LogLevel, formatEvent, formatEventAsClassicLogText, globalLogPublisher
from twisted.python.failure import Failure

from tests.support.memory import AllowAll, WebSocketTests
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient, client_frame, connect

SHOWN = 200
MINUTE = 60.0
NOW = 1_700_000_000.0


class LogTestCase(WebSocketTests):
    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(NOW)
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        self.flushed: list[str] = []

    def lines(self, part: str = "") -> list[str]:
        """The lines that were logged since the last call, of those that contain ``part``."""
        events, self.events[:] = list(self.events), []
        return [line for line in map(formatEvent, events) if part in line]

    def growth(self) -> int:
        """The bytes that were logged since the last call."""
        events, self.events[:] = list(self.events), []
        texts = [formatEventAsClassicLogText(event) or "" for event in events]
        return sum(len(text.encode("utf-8", "backslashreplace")) for text in texts)

    def assert_grows_slowly(self, attack: Callable[[], object]) -> None:
        """Hold the log to 1 KiB/s while ``attack`` is called 20 times a second, once all that may
        be written at once has been.
        """
        for seconds in 40, 60:
            self.lines()
            for _ in range(seconds * 20):
                attack()
                self.clock.advance(0.05)
        self.assertLess(self.growth() / seconds, 1024)


class RefusalTests(LogTestCase):
    def refuse(self, **headers: str) -> str:
        client = connect(self.factory, "ws://localhost/ws/f", headers=headers)
        self.assertIn(client.refused, (400, 403))
        (line,) = self.lines()
        return line

    def test_what_a_client_sent_is_cut_and_escaped_in_little(self) -> None:
        for name in "Host", "Origin":
            for character in "a", "\x80", "'", "\\":
                line = self.refuse(**{name: character * 15_000})
                self.assertNotIn("\x80", line)
                self.assertIn("…", line)
                self.assertLess(len(line), SHOWN + 200)
        line = self.refuse(Host="localhost:1" + "1" * 4, Origin="http://" + "a" * 15_000)
        self.assertLess(len(line), SHOWN + 250)
        self.assertIn("'localhost:11111'", line)
        self.assertIn("WS4REDIS_ALLOWED_ORIGINS", line)

    def test_equal_ones_are_summed_up_in_a_line_a_minute(self) -> None:
        for _ in range(100):
            self.connect(origin="https://evil.example")
        (line,) = self.lines()
        self.assertIn("Refused a websocket with 403: Origin 'https://evil.example'", line)
        self.clock.advance(MINUTE)
        self.assertEqual(self.lines(), [f"99 more like this in the last minute: {line}"])
        self.connect(origin="https://evil.example")
        self.assertEqual(self.lines(), [])
        self.clock.advance(MINUTE)
        self.assertEqual(self.lines(), [f"1 more like this in the last minute: {line}"])

    def test_others_have_their_line_meanwhile(self) -> None:
        for number in range(100):
            self.connect(origin=f"https://{number}.example")
        self.lines()
        self.connect(headers={"Host": "unknown.example"})
        self.assertEqual(len(self.lines("Refused a websocket with 400: Host")), 1)

    def test_the_end_of_the_server_writes_what_was_summed_up_and_leaves_no_timer(self) -> None:
        for _ in range(3):
            self.connect(origin="https://evil.example")
        self.factory.drain(1012)
        self.assertEqual(len(self.lines("2 more like this")), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_plain_request_is_no_refused_websocket(self) -> None:
        for request, status in (
            (b"GET /ws/f HTTP/1.1\r\nHost: localhost\r\n\r\n", 426),
            (b"GET /favicon.ico HTTP/1.1\r\nHost: localhost\r\n\r\n", 404),
            (b"HEAD /ws/f HTTP/1.1\r\nHost: localhost\r\n\r\n", 405),
            (b"\x16\x03\x01\r\n\r\n", 400),
        ):
            client = MemoryClient(self.factory)
            client.send_bytes(request)
            self.assertEqual(client.refused, status)
            (line,) = self.lines()
            self.assertTrue(line.startswith(f"Answered a plain request with {status}: "), line)

    def test_a_handshake_at_a_wrong_path_is_one(self) -> None:
        connect(self.factory, "ws://localhost/elsewhere")
        connect(self.factory, "ws://localhost/ws/f", headers={"Sec-WebSocket-Version": "8"})
        connect(self.factory, "ws://localhost/ws/f", headers={"Connection": "close"})
        statuses = [line[: len("Refused a websocket with 404")][-3:] for line in self.lines()]
        self.assertEqual(statuses, ["404", "426", "426"])

    def test_a_path_below_none_is_named_with_the_settings(self) -> None:
        connect(self.factory, "ws://localhost/connection/websocket?ticket=secret")
        (line,) = self.lines()
        self.assertIn("404: '/connection/websocket' is not below /ws/ (WEBSOCKET_URL", line)
        self.assertIn("WS4REDIS_CENTRIFUGE_URL is not set", line)
        self.assertNotIn("secret", line)
        self.use(centrifuge_url="/connection/")
        connect(self.factory, "ws://localhost/websocket")
        (line,) = self.lines()
        self.assertIn("'/websocket' is not below /ws/ or /connection/", line)
        self.assertNotIn("not set", line)

    def test_no_stranger_makes_the_log_grow_fast(self) -> None:
        number = itertools.count()

        def garbage() -> None:
            MemoryClient(self.factory).send_bytes(b"\x16\x03\x01\r\n\r\n")

        def origin() -> None:
            self.connect(origin=f"https://{next(number)}{'x' * 300}")

        def host() -> None:
            self.connect(headers={"Host": f"{next(number)}.example{'x' * 300}"})

        def right() -> None:
            self.connect("publish-broadcast")

        def websocket() -> None:
            self.connect().close()

        attacks = itertools.cycle((garbage, origin, host, right, websocket))
        self.assert_grows_slowly(lambda: next(attacks)())

    def test_an_authorizers_own_text_is_cut_too(self) -> None:
        class Wordy(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                raise Denied(403, "No.", detail="x" * 100_000)

        self.use(authorizer=Wordy())
        self.connect()
        (line,) = self.lines()
        self.assertLess(len(line), 1000)

    def test_a_connection_that_fails_is_no_error_and_is_summed_up(self) -> None:
        """Bytes that are not TLS, on a port that speaks it: Autobahn has an error for each."""
        for _ in range(10):
            client: Any = MemoryClient(self.factory)
            client._server.connectionLost(Failure(SSL.Error([("SSL routines", "", "bad")])))
        (event,) = self.events
        self.assertEqual(
            formatEvent(event), "A connection failed: Error: [('SSL routines', '', 'bad')]"
        )
        self.assertEqual(event["log_level"], LogLevel.warn)


class FailingAuthorizer(AllowAll):
    def authorize(self, handshake: Any, rights: Any) -> Any:
        raise ValueError(handshake.query)


class FailingSubscriber(RedisSubscriber):
    def release(self) -> Any:
        return fail(ZeroDivisionError())


class FailureTests(LogTestCase):
    def test_a_failure_has_its_traceback_once_and_is_summed_up_then(self) -> None:
        self.use(authorizer=FailingAuthorizer())
        for number in range(100):
            self.assertEqual(self.connect(f"number{number}").refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.clock.advance(MINUTE)
        (line,) = self.lines("99 more like this in the last minute: A handshake failed")
        self.assertIn("ValueError", line)

    def test_so_has_one_at_the_release(self) -> None:
        self.use(subscriber=FailingSubscriber)
        for _ in range(10):
            self.connect().close()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_stranger_who_can_cause_one_does_not_make_the_log_grow_fast(self) -> None:
        self.use(authorizer=FailingAuthorizer())
        number = itertools.count()
        self.assert_grows_slowly(lambda: self.connect(f"{next(number)}{'x' * 5000}"))
        self.flushLoggedErrors(ValueError)

    def test_messages_that_redis_refuses_are_summed_up(self) -> None:
        class Full(MemoryBroker):
            def publish(self, *arguments: Any) -> Deferred[int]:
                return fail(BrokerUnavailable("Redis' memory is full."))

        self.use(broker=Full())
        for _ in range(10):
            client = self.connect("publish-broadcast")
            client.send("a")
            self.assertEqual(client.close_code, 1013)
        self.assertEqual(len(self.lines("was not published")), 1)
        self.clock.advance(MINUTE)
        self.assertEqual(len(self.lines("9 more like this")), 1)


class Everybody(AllowAll):
    """Everybody is the user of their query."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        identity = Identity(None, handshake.query.rpartition("user=")[2], user_id="1")
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class EndTests(LogTestCase):
    def ended(self, client: MemoryClient) -> str:
        client.lose_connection()
        (line,) = self.lines("A websocket ended")
        return line

    def test_a_websocket_that_was_open_has_one_line_with_all_about_it(self) -> None:
        self.use(authorizer=Everybody())
        client = self.connect("subscribe-broadcast&publish-user&user=john")
        self.publish(b"1")
        self.publish(b"2")
        client.send("3")
        self.clock.advance(12.5)
        self.lines()
        client.send_bytes(client_frame(8, (4000).to_bytes(2, "big") + b"bye\n"))
        client.lose_connection()
        self.assertEqual(
            self.lines(),
            [
                "A websocket ended: user 'john', facility 'foobar', subscribe-broadcast "
                "publish-user, from '127.0.0.1', open for 12.5 s, 2 messages sent and 1 received, "
                "code 4000 by the client, 'bye\\n'"
            ],
        )

    def test_one_without_rights_and_the_servers_own_close(self) -> None:
        client = self.connect("")
        next(iter(self.factory.session_server.sessions)).close(1012, "The server restarts.")
        line = self.ended(client)
        self.assertIn("user None, facility 'foobar', no rights, ", line)
        self.assertIn("code 1012 by the server, 'The server restarts.'", line)

    def test_what_a_client_chose_is_cut_and_escaped(self) -> None:
        self.use(authorizer=Everybody())
        name = "\x80" * 1000
        client = connect(self.factory, f"ws://localhost/ws/{'é' * 120}?user={name}")
        self.assertTrue(client.open)
        client.send_bytes(client_frame(8, (1000).to_bytes(2, "big") + b"\x00" * 123))
        client.lose_connection()
        (line,) = self.lines("A websocket ended")
        self.assertNotIn("\x80", line)
        self.assertNotIn("\x00", line)
        self.assertLess(len(line), 900)

    def test_one_that_breaks_the_protocol_has_no_other_line(self) -> None:
        for frame, code in (
            (b"\x83\x80\0\0\0\0", 1002),
            (client_frame(1, b"\xff"), 1007),
            (b"\x81\xff" + (1 << 40).to_bytes(8, "big") + bytes(4), 1009),
        ):
            client = self.connect()
            self.lines()
            client.send_bytes(frame)
            self.clock.advance(2)
            (line,) = self.lines()
            self.assertIn(f"code {code} by the server", line)

    def test_beyond_twenty_a_second_they_are_summed_up(self) -> None:
        clients = [self.connect() for _ in range(100)]
        self.lines()
        for client in clients:
            client.close()
        self.assertEqual(len(self.lines("A websocket ended")), 20)
        self.clock.advance(1)
        self.connect().close()
        self.assertEqual(len(self.lines("A websocket ended")), 1)
        self.clock.advance(MINUTE)
        (line,) = self.lines()
        self.assertTrue(line.startswith("80 more of this kind in the last minute, the latest: "))
        self.assertIn("code 1000 by the client", line)

    def test_codes_are_summed_up_apart(self) -> None:
        clients = [self.connect() for _ in range(40)]
        for client in clients[:30]:
            client.close(1000)
        for client in clients[30:]:
            client.lose_connection()
        self.lines()
        self.clock.advance(MINUTE)
        self.assertEqual([line.partition(" ")[0] for line in self.lines()], ["10", "10"])

    def test_no_stranger_makes_the_log_grow_fast(self) -> None:
        self.assert_grows_slowly(lambda: self.connect().close())

    def test_nor_does_one_with_a_whole_ipv6_network(self) -> None:
        self.use(trusted_proxies=("127.0.0.1",))
        number = itertools.count()

        def attack() -> None:
            address = f"2001:db8:0:1::{next(number):x}"
            self.connect(headers={"X-Forwarded-For": address}).close()

        self.assert_grows_slowly(attack)

    def test_others_have_their_lines_meanwhile(self) -> None:
        self.use(trusted_proxies=("127.0.0.1",))
        for _ in range(100):
            for _ in range(20):
                self.connect(headers={"X-Forwarded-For": "192.0.2.1"}).close()
            self.clock.advance(1)
        self.lines()
        self.connect(headers={"X-Forwarded-For": "192.0.2.2"}).close()
        self.assertEqual(len(self.lines("192.0.2.2")), 1)

    def test_many_addresses_take_little_memory(self) -> None:
        self.use(trusted_proxies=("127.0.0.1",))
        for number in range(3000):
            address = f"192.0.{number // 250}.{number % 250}"
            self.connect(headers={"X-Forwarded-For": address}).close()
            self.clock.advance(1)
        self.assertEqual(len(self.lines("A websocket ended")), 3000)
        self.assertLess(len(self.factory.session_server.log._room), 2000)

    def test_workers_share_the_bounds(self) -> None:
        self.factory.session_server.log.share(4)
        clients = [self.connect() for _ in range(100)]
        self.lines()
        for client in clients:
            client.close()
        self.assertEqual(len(self.lines("A websocket ended")), 5)
        for number in range(100):
            self.connect(origin=f"https://{number}.example")
        self.assertEqual(len(self.lines("Refused")), 1)
