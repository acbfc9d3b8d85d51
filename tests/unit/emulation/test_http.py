"""Centrifuge's protocol over HTTP: streams, and the POSTs of their clients."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.support.exchanges import Exchange, commands, emulated, request
from tests.support.memory import AllowAll
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.emulation.stream import EARLIEST, LATEST
from ws4redis_tx.sessions.server import HANDSHAKE_TIMEOUT
from ws4redis_tx.sse.response import DROP_TIMEOUT
from ws4redis_tx.testing import MemoryBroker, make_memory_factory

CONNECT: dict[str, Any] = {"id": 1, "connect": {}}
SUBSCRIBE = {"id": 2, "subscribe": {"channel": "broadcast:f"}}
GOOD, EVIL = "https://good.example", "https://evil.example"
NEVER_KEPT = "private, no-cache, no-store, must-revalidate, max-age=0"


class EmulationTests(SynchronousTestCase):
    fields: dict[str, Any] = {}

    def setUp(self) -> None:
        self.clock = Clock()
        self.broker = MemoryBroker(self.clock)
        self.config = ServerConfig(
            centrifuge_url="/connection/", allowed_origins=(GOOD,), **self.fields
        )
        self.factory = make_memory_factory(
            self.config, broker=self.broker, authorizer=AllowAll(), clock=self.clock
        )

    def stream(self, body: bytes | None = None, kind: str = "http_stream", **headers: Any) -> Any:
        content = commands(CONNECT) if body is None else body
        exchange = Exchange(self.factory, request(f"/connection/{kind}", content, **headers))
        self.addCleanup(exchange.lose)
        return exchange

    def events(self, commands: bytes, **headers: Any) -> Exchange:
        quoted = "".join(f"%{byte:02X}" for byte in commands)
        target = f"/connection/sse?cf_connect={quoted}"
        exchange = Exchange(self.factory, request(target, None, method="GET", **headers))
        self.addCleanup(exchange.lose)
        return exchange

    def said(self, exchange: Exchange) -> dict[str, str]:
        """What the answer to ``connect`` says of the stream."""
        answer = exchange.messages[0]["connect"]
        return {name: answer[name] for name in ("session", "node")}

    def post(self, body: bytes, target: str = "/emulation", **headers: Any) -> Exchange:
        exchange = Exchange(self.factory, request(target, body, **headers))
        self.addCleanup(exchange.lose)
        return exchange

    def publish(self, payload: bytes, channel: bytes = b"broadcast:f") -> None:
        self.successResultOf(self.broker.publish([channel], payload, 0))


class StreamTests(EmulationTests):
    def test_a_body_of_commands_is_answered_by_lines_without_end(self) -> None:
        exchange = self.stream(commands(CONNECT, SUBSCRIBE))
        self.assertEqual(exchange.status, 200)
        self.assertEqual(exchange.headers["content-type"], "text/plain; charset=utf-8")
        self.assertEqual(exchange.headers["cache-control"], NEVER_KEPT)
        self.assertEqual(exchange.headers["x-accel-buffering"], "no")
        connected, subscribed = exchange.messages
        self.assertEqual((connected["id"], subscribed), (1, {"id": 2, "subscribe": {}}))
        self.publish(b'{"a":1}')
        pub = {"channel": "broadcast:f", "pub": {"data": {"a": 1}}}
        self.assertEqual(exchange.messages[2], {"push": pub})
        self.assertTrue(exchange.open)

    def test_each_message_is_a_chunk_and_a_write(self) -> None:
        exchange = self.stream(commands(CONNECT, SUBSCRIBE))
        before = len(exchange.pieces)
        self.publish(("\U0001f600" * 50_000).encode())
        self.assertEqual(len(exchange.pieces), before + 1)
        self.assertEqual(len(exchange.messages), 3)

    def test_a_binary_body_is_answered_in_protobuf(self) -> None:
        exchange = self.stream(
            commands(CONNECT, SUBSCRIBE, binary=True), Content_Type="application/octet-stream"
        )
        self.assertEqual(exchange.headers["content-type"], "application/octet-stream")
        self.publish(b"\xff\0")
        connected, subscribed, push = exchange.messages
        self.assertEqual((connected["id"], subscribed), (1, {"id": 2, "subscribe": {}}))
        self.assertEqual(push["push"]["pub"], {"data": b"\xff\0"})
        body = emulated(
            connected["connect"], commands({"id": 3, "ping": {}}, binary=True), binary=True
        )
        post = self.post(body, Content_Type="application/octet-stream")
        self.assertEqual(post.status, 204)
        self.assertEqual(exchange.messages[3]["push"]["disconnect"]["code"], 3501)

    def test_the_body_may_come_in_pieces(self) -> None:
        whole = request("/connection/http_stream", commands(CONNECT))
        exchange = Exchange(self.factory, *[whole[i : i + 1] for i in range(len(whole))])
        self.assertEqual(exchange.messages[0]["id"], 1)
        exchange.lose()

    def test_another_method_is_refused(self) -> None:
        for method in ("GET", "PUT", "HEAD"):
            exchange = Exchange(
                self.factory, request("/connection/http_stream", None, method=method)
            )
            self.assertEqual((exchange.status, exchange.headers["allow"]), (405, "POST, OPTIONS"))

    def test_nothing_and_nonsense_are_told_by_a_push_before_the_end(self) -> None:
        for body in (b"", b"nonsense"):
            exchange = self.stream(body)
            self.assertEqual((exchange.status, exchange.messages, exchange.open), (200, [], True))
            self.clock.advance(LATEST)
            code = {"code": 3501, "reason": "bad request"}
            self.assertEqual(exchange.messages, [{"push": {"disconnect": code}}])
            self.assertTrue(exchange.complete)
            self.assertFalse(exchange.open)

    def test_a_body_above_64_kib_is_refused_and_read_to_its_end(self) -> None:
        for size in (65_537, 10**30):
            head = request("/connection/http_stream", None, Content_Length=str(size))
            exchange = Exchange(self.factory, head)
            self.assertEqual((exchange.status, exchange.open), (413, True))
            exchange.send(b"x" * 65_537)
            self.assertTrue(exchange.open)
            self.clock.advance(DROP_TIMEOUT)
            self.assertFalse(exchange.open)
        exchange = self.stream(commands(CONNECT) + b" " * (65_536 - len(commands(CONNECT))))
        self.assertEqual(exchange.status, 200)

    def test_a_body_needs_one_length(self) -> None:
        for headers, status in (
            ({"Content_Length": None, "Transfer_Encoding": "chunked"}, 411),
            ({"Content_Length": "-1"}, 400),
            ({"Content_Length": "1x"}, 400),
            ({"Content_Length": "\xb2"}, 400),
            ({"Content_Length": ""}, 400),
            ({"Content_Length": "5, 6"}, 400),
        ):
            exchange = self.stream(b"", **headers)
            self.assertEqual(exchange.status, status, headers)
        twice = request("/connection/http_stream", b"{}").replace(
            b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n"
        )
        self.assertEqual(Exchange(self.factory, twice).status, 400)

    def test_nothing_may_follow_the_body(self) -> None:
        whole = request("/connection/http_stream", commands(CONNECT)) + b"GET / HTTP/1.1\r\n\r\n"
        self.assertEqual(Exchange(self.factory, whole).status, 400)
        exchange = self.stream()
        exchange.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertFalse(exchange.open)

    def test_a_body_that_never_comes_holds_no_connection(self) -> None:
        exchange = Exchange(
            self.factory, request("/connection/http_stream", None, Content_Length="9")
        )
        self.clock.advance(HANDSHAKE_TIMEOUT - 1)
        self.assertEqual((exchange.status, exchange.open), (None, True))
        exchange.send(b"1")
        self.clock.advance(HANDSHAKE_TIMEOUT)
        self.assertEqual(exchange.status, 503)
        self.clock.advance(DROP_TIMEOUT)
        self.assertFalse(exchange.open)

    def test_the_end_of_the_server_is_a_push_and_then_the_end(self) -> None:
        exchange = self.stream()
        drained = self.factory.drain(1012)
        self.assertEqual(
            exchange.messages[-1], {"push": {"disconnect": {"code": 3001, "reason": "shutdown"}}}
        )
        self.assertTrue(exchange.complete)
        self.successResultOf(drained)

    def test_nothing_is_left_of_a_stream_that_ended(self) -> None:
        exchange = self.stream(commands(CONNECT, SUBSCRIBE))
        said = self.said(exchange)
        exchange.lose()
        self.assertEqual(self.post(emulated(said, commands(SUBSCRIBE))).status, 204)
        self.assertEqual(self.factory.session_server.http._streams, {})
        self.assertEqual(self.broker.hub.channels, set())
        self.successResultOf(self.factory.drain(1012))
        self.assertEqual(self.broker.control.channels, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])


class EventTests(EmulationTests):
    def test_commands_in_the_query_are_answered_by_events(self) -> None:
        exchange = self.events(commands(CONNECT, SUBSCRIBE))
        self.assertEqual(exchange.status, 200)
        self.assertEqual(exchange.headers["content-type"], "text/event-stream; charset=utf-8")
        self.publish(b'{"a":\r\n 1,\r"b":2}')
        self.assertEqual(exchange.chunks[0], b"\r\n")
        connected, subscribed, push = exchange.messages
        self.assertEqual((connected["id"], subscribed), (1, {"id": 2, "subscribe": {}}))
        self.assertEqual(push["push"]["pub"], {"data": {"a": 1, "b": 2}})
        self.assertEqual(exchange.chunks[-1].count(b"\r"), 0)

    def test_so_are_those_in_a_body(self) -> None:
        exchange = self.stream(kind="sse")
        self.assertEqual(exchange.messages[0]["id"], 1)

    def test_without_commands_there_is_nothing(self) -> None:
        for target in ("/connection/sse", "/connection/sse?cf_connect=", "/connection/sse?a=1"):
            exchange = Exchange(
                self.factory, request(target, None, method="GET", Accept="text/event-stream")
            )
            self.assertEqual((exchange.status, exchange.open), (400, False), target)

    def test_a_ping_is_an_event(self) -> None:
        exchange = self.events(commands(CONNECT))
        before = len(exchange.chunks)
        self.clock.pump([1.0] * 25)
        self.assertIn(b"data: {}\n\n", exchange.chunks[before:])

    def test_its_commands_are_seen_by_nobody_else(self) -> None:
        """They may hold a token."""
        seen: list[Any] = []

        class Curious(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                seen.append(handshake)
                return super().authorize(handshake, rights)

        self.factory.session_server.use(Curious())
        with capturedLogs() as events:
            exchange = Exchange(
                self.factory,
                request(
                    f"/connection/sse?a=1&cf%5fconnect={json.dumps(CONNECT)}&b".replace(" ", "+"),
                    None,
                    method="GET",
                ),
            )
            exchange.lose()
        self.assertEqual([each.query for each in seen], ["a=1&b"])
        self.assertNotIn("connect", "".join(formatEvent(each) for each in events))


class PostTests(EmulationTests):
    def test_a_post_is_what_a_client_sends(self) -> None:
        exchange = self.stream()
        for target in ("/emulation", "/connection/emulation"):
            post = self.post(emulated(self.said(exchange), commands(SUBSCRIBE)), target)
            self.assertEqual((post.status, post.pieces, post.open), (204, [], False))
        self.assertEqual(exchange.messages[1], {"id": 2, "subscribe": {}})
        self.assertEqual(exchange.messages[2]["error"]["code"], 105)

    def test_a_pong_is_sent_by_it_and_nothing_else_keeps_the_client(self) -> None:
        answers, silent = self.stream(), self.stream()
        for _ in range(60):
            self.clock.advance(1)
            if answers.messages[-1] == {} and answers.messages.count({}) > getattr(self, "n", 0):
                self.n = answers.messages.count({})
                self.post(emulated(self.said(answers), b"{}"))
        self.assertTrue(answers.open)
        self.assertEqual(silent.messages[-1]["push"]["disconnect"]["code"], 3012)
        self.assertFalse(silent.open)

    def test_what_is_unknown_is_answered(self) -> None:
        said = self.said(self.stream())
        unknown = {**said, "session": "0" * 32}
        self.assertEqual(self.post(emulated(unknown, b"{}")).status, 204)
        for node in ("", "zzz", "0" * 15, said["node"].upper() + "x", "../ctl:revoke"):
            post = self.post(emulated({**said, "node": node}, b"{}"))
            self.assertEqual((post.status, post.open), (404, False), node)
        self.assertEqual(self.post(b"{}").status, 404)

    def test_what_is_no_post_for_a_stream_is_refused(self) -> None:
        for body in (b"", b"nonsense", b"[]", b'{"session":1}', b'{"node":"a","data":{}}',
                     b'{"data":"\\ud800"}', b'{"data":"' + b"\xff" + b'"}'):  # fmt: skip
            self.assertEqual(self.post(body).status, 400, body)
        post = self.post(b"\xff", Content_Type="application/octet-stream")
        self.assertEqual(post.status, 400)
        for method in ("GET", "PUT"):
            exchange = Exchange(self.factory, request("/emulation", None, method=method))
            self.assertEqual(exchange.status, 405)

    def test_a_body_above_64_kib_is_refused(self) -> None:
        self.assertEqual(self.post(b"x" * 65_537).status, 413)

    def test_bad_commands_end_the_stream_and_not_the_post(self) -> None:
        exchange = self.stream()
        self.assertEqual(self.post(emulated(self.said(exchange), b"nonsense")).status, 204)
        self.assertEqual(exchange.messages[-1]["push"]["disconnect"]["code"], 3501)
        self.assertTrue(exchange.complete)

    def test_a_websockets_client_cannot_be_reached(self) -> None:
        said = self.said(self.stream())
        self.assertRegex(said["session"], r"\A[0-9a-f]{32}\Z")
        self.assertNotEqual(said["session"], self.said(self.stream())["session"])

    def test_the_secret_is_in_no_log(self) -> None:
        with capturedLogs() as events:
            exchange = self.stream()
            said = self.said(exchange)
            self.post(emulated(said, commands(SUBSCRIBE)))
            self.post(emulated({**said, "node": "0" * 16}, b"{}"))
            self.post(emulated(said, b"nonsense"))
            self.clock.advance(5)
        text = "".join(formatEvent(each) or "" for each in events)
        self.assertIn("404", text)
        self.assertNotIn(said["session"], text)


class OriginTests(EmulationTests):
    def preflight(self, target: str, origin: str) -> Exchange:
        return Exchange(
            self.factory,
            request(
                target, None, method="OPTIONS", Origin=origin,
                Access_Control_Request_Method="POST",
                Access_Control_Request_Headers="content-type",
            ),
        )  # fmt: skip

    def test_a_foreign_origin_gets_nothing(self) -> None:
        exchange = self.stream(Origin=GOOD)
        said = self.said(exchange)
        before = exchange.messages
        for refused in (
            self.stream(Origin=EVIL),
            self.stream(kind="sse", Origin=EVIL),
            self.events(commands(CONNECT), Origin=EVIL),
            self.events(commands(CONNECT), Sec_Fetch_Site="cross-site"),
            self.post(emulated(said, commands(SUBSCRIBE)), Origin=EVIL, Cookie="sessionid=x"),
            self.post(emulated(said, commands(SUBSCRIBE)), Origin="null"),
            self.post(emulated(said, b"{}"), "/connection/emulation", Origin=EVIL),
            self.preflight("/emulation", EVIL),
        ):
            self.assertEqual(refused.status, 403)
            self.assertNotIn("access-control-allow-origin", refused.headers)
        self.assertEqual(exchange.messages, before)

    def test_an_allowed_one_may_read_the_answers(self) -> None:
        exchange = self.stream(Origin=GOOD)
        post = self.post(emulated(self.said(exchange), b"{}"), Origin=GOOD)
        events = self.events(commands(CONNECT), Origin=GOOD)
        for each in (exchange, post, events):
            self.assertEqual(each.headers["access-control-allow-origin"], GOOD)
            self.assertEqual(each.headers["access-control-allow-credentials"], "true")

    def test_its_browser_is_told_before_it_sends_anything(self) -> None:
        for target in ("/emulation", "/connection/emulation", "/connection/http_stream"):
            answer = self.preflight(target, GOOD)
            self.assertEqual((answer.status, answer.open), (204, False))
            self.assertEqual(answer.headers["access-control-allow-origin"], GOOD)
            self.assertEqual(answer.headers["access-control-allow-methods"], "POST, OPTIONS")
            self.assertEqual(answer.headers["access-control-allow-headers"], "content-type")
            self.assertEqual(answer.headers["access-control-max-age"], "300")

    def test_so_is_another_host(self) -> None:
        for target in ("/connection/http_stream", "/emulation"):
            self.assertEqual(self.post(b"{}", target, Host="evil.example").status, 400)


class LimitTests(EmulationTests):
    fields = {"rate": (2, 1_000_000), "max_connections_per_address": 2}

    def test_posts_count_towards_the_rate_of_their_connection(self) -> None:
        exchange = self.stream()
        said = self.said(exchange)
        statuses = [self.post(emulated(said, b"nothing")).status for _ in range(3)]
        self.assertEqual(statuses, [204] * 3)
        flooded = self.stream()
        self.assertEqual(flooded.status, 200)
        for number in range(2, 40):
            command = {"id": number, "unsubscribe": {"channel": "broadcast:f"}}
            self.post(emulated(self.said(flooded), commands(command)))
        self.assertEqual(flooded.messages[-1]["push"]["disconnect"]["code"], 3013)

    def test_streams_and_posts_count_towards_the_connections_of_an_address(self) -> None:
        first, second = self.stream(), self.stream()
        self.assertEqual((first.status, second.status), (200, 200))
        self.assertEqual(self.stream().status, 503)
        self.assertEqual(self.post(emulated(self.said(first), b"{}")).status, 503)
        second.lose()
        self.assertEqual(self.post(emulated(self.said(first), commands(SUBSCRIBE))).status, 204)


class LateTests(EmulationTests):
    """Fault 13."""

    def test_an_end_before_the_answer_to_connect_is_told_after_a_while(self) -> None:
        times = set()
        for _ in range(20):
            exchange = self.stream(commands(SUBSCRIBE))
            passed = 0.0
            while exchange.open:
                self.clock.advance(0.25)
                passed += 0.25
            times.add(passed)
            self.assertEqual(len(exchange.messages), 1)
        self.assertGreaterEqual(min(times), EARLIEST)
        self.assertLessEqual(max(times), LATEST + 0.25)
        self.assertGreater(len(times), 2)

    def test_an_end_after_it_at_once(self) -> None:
        exchange = self.stream()
        self.post(emulated(self.said(exchange), b"nonsense"))
        self.assertFalse(exchange.open)

    def test_a_stop_before_it_too(self) -> None:
        class Never(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                from twisted.internet.defer import Deferred

                return Deferred()

        self.factory.session_server.use(Never())
        exchange = self.stream()
        drained = self.factory.drain(1012)
        self.clock.advance(EARLIEST / 2)
        self.assertEqual((exchange.messages, exchange.open), ([], True))
        self.clock.advance(LATEST)
        self.assertEqual(exchange.messages[-1]["push"]["disconnect"]["code"], 3001)
        self.successResultOf(drained)

    def test_a_temporary_error_too(self) -> None:
        class Broken(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Any:
                raise ZeroDivisionError

        self.factory.session_server.use(Broken())
        exchange = self.stream()
        self.assertEqual(exchange.messages, [])
        self.clock.advance(EARLIEST / 2)
        self.assertEqual(exchange.messages, [])
        self.clock.advance(LATEST)
        self.assertEqual(exchange.messages[0]["error"]["code"], 100)
        self.flushLoggedErrors(ZeroDivisionError)
