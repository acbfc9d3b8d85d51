"""The servers with a protocol on top of the websocket, with which the benchmarks compare ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks.driving import payload
from benchmarks.load import Failed, Undelivered
from benchmarks.opening import Opening
from benchmarks.peers import centrifugo, mosquitto, programs, pushpin_origin, socketio_peer
from benchmarks.peers.centrifugo import CentrifugoHistory, CentrifugoInMemory, CentrifugoRedis
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.mosquitto import Mosquitto
from benchmarks.peers.nats import Nats
from benchmarks.peers.protocol_peers import JsonApi
from benchmarks.peers.pushpin import Pushpin
from benchmarks.peers.servers import PEERS
from benchmarks.peers.socketio_peer import SocketIO
from benchmarks.servers import Server
from tests.support.sizes import FULL

MESSAGES = 5


class DeliveryTests(SynchronousTestCase):
    """Each websocket receives all messages in order. Compiling Centrifugo alone takes minutes."""

    def start(self, peer: type[Server]) -> Opening:
        if not FULL:
            raise SkipTest("make test-all runs it")
        try:
            return Opening(peer())
        except Unavailable as error:
            raise SkipTest(str(error)) from error

    def check(self, peer: type[Server]) -> None:
        self.assertIn(peer, PEERS)
        with self.start(peer) as opening:
            self.fan_out(opening)
            opening.close()
            self.assertLess(0, opening.open(200))
            self.fan_out(opening)
            self.assertLess(0, opening.server.memory())
        self.assertTrue(opening.server.versions)

    def fan_out(self, opening: Opening) -> None:
        for _ in range(2):
            opening.load.start()
            opening.server.publish([payload(number) for number in range(MESSAGES)])
            opening.load.every(MESSAGES).check(MESSAGES)

    def test_centrifugo_in_memory(self) -> None:
        self.check(CentrifugoInMemory)

    def test_centrifugo_with_redis(self) -> None:
        self.check(CentrifugoRedis)

    def test_centrifugo_with_redis_and_history(self) -> None:
        self.check(CentrifugoHistory)

    def test_nats(self) -> None:
        self.check(Nats)

    def test_mosquitto(self) -> None:
        self.check(Mosquitto)

    def test_socket_io(self) -> None:
        self.check(SocketIO)

    def test_pushpin(self) -> None:
        self.check(Pushpin)

    def test_centrifugo_checks_the_tokens(self) -> None:
        with self.start(CentrifugoInMemory) as opening:
            self.patch(centrifugo, "_SECRET", "another secret")
            self.assertRaises(Undelivered, opening.open, 1)


class WordTests(SynchronousTestCase):
    """What the clients and the publishers say is what the protocols want."""

    def test_a_token_names_the_user_and_ends_and_is_signed(self) -> None:
        signed, _, signature = centrifugo.token("7").encode().rpartition(b".")
        header, claims = (
            json.loads(base64.urlsafe_b64decode(each + b"==")) for each in signed.split(b".")
        )
        self.assertEqual(header, {"alg": "HS256", "typ": "JWT"})
        self.assertEqual(claims["sub"], "7")
        self.assertLess(time.time() + 3600, claims["exp"])
        expected = hmac.digest(b"the secret of the benchmarks' tokens", signed, hashlib.sha256)
        self.assertEqual(base64.urlsafe_b64decode(signature + b"=="), expected)

    def test_packets_of_mqtt_tell_their_length(self) -> None:
        for size, written in ((0, b"\0"), (127, b"\x7f"), (128, b"\x80\1"), (16384, b"\x80\x80\1")):
            content = b"x" * size
            self.assertEqual(mosquitto.packet(0x30, content), b"\x30" + written + content)

    def test_the_emitter_of_socket_io_packs_an_event_for_a_room(self) -> None:
        text = "y" * 300
        self.assertEqual(
            socketio_peer.emitted(text),
            b"\x93\xda\0\7emitter"
            b"\x83\xda\0\4type\2\xda\0\4data\x92\xda\0\7message\xda\1\x2c"
            + text.encode()
            + b"\xda\0\3nsp\xda\0\1/"
            b"\x83\xda\0\5rooms\x91\xda\0\4load\xda\0\6except\x90\xda\0\5flags\x80",
        )

    def test_the_website_behind_pushpin_accepts_and_subscribes(self) -> None:
        head, _, body = pushpin_origin.answer("/ws/load", "OPEN\r\n").partition(b"\r\n\r\n")
        self.assertTrue(head.startswith(b"HTTP/1.1 200"))
        self.assertIn(b"Content-Length: %d" % len(body), head)
        opened, text, command, end = body.split(b"\r\n")
        self.assertEqual((opened, end), (b"OPEN", b""))
        self.assertEqual(int(text.removeprefix(b"TEXT "), 16), len(command))
        said = json.loads(command.removeprefix(b"c:"))
        self.assertEqual(said, {"type": "subscribe", "channel": "load"})

    def test_the_website_behind_pushpin_has_nothing_to_say_to_other_events(self) -> None:
        answer = pushpin_origin.answer("/ws/load", "DISCONNECT\r\n")
        self.assertTrue(answer.endswith(b"Content-Length: 0\r\n\r\n"))


class PublisherTests(SynchronousTestCase):
    def test_nats_that_has_closed_the_connection_is_noticed(self) -> None:
        nats = Nats.__new__(Nats)  # without a server
        nats._publisher, server = socket.socketpair()
        self.addCleanup(nats._publisher.close)
        server.close()
        self.assertRaises(Failed, nats.publish, [b"0"])


class Api(BaseHTTPRequestHandler):
    """Answers each request with the next of ``answers`` and closes the connection unannounced."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[tuple[int, bytes]]] = []
    received: ClassVar[list[object]] = []

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, self.headers["X-Key"], json.loads(content)))
        status, answer = self.answers.pop(0)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


class JsonApiTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.received: list[object] = []
        self.patch(Api, "received", self.received)
        server = HTTPServer(("127.0.0.1", 0), Api)
        self.addCleanup(server.server_close)
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        self.addCleanup(serving.join)
        self.addCleanup(server.shutdown)
        self.api = JsonApi(server.server_port, "/publish", **{"X-Key": "secret"})
        self.addCleanup(self.api.end)

    def test_each_content_is_posted_once_though_the_server_has_closed_the_connection(self) -> None:
        self.patch(Api, "answers", [(200, b"{}")] * 3)
        for number in range(3):
            self.api.post({"data": number})
        expected = [("/publish", "secret", {"data": number}) for number in range(3)]
        self.assertEqual(self.received, expected)

    def test_a_refusal_ends_the_benchmark_with_what_the_server_said(self) -> None:
        for answer in ((401, b"no such key"), (200, b'{"error":{"message":"no such channel"}}')):
            self.patch(Api, "answers", [answer])
            said = str(self.assertRaises(Failed, self.api.post, {"data": 1}))
            self.assertIn(answer[1].decode(), said)
            self.assertIn("/publish answered", said)


class InstallationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.build = self.folder / "build"
        self.patch(programs, "BUILD", self.build)
        self.patch(programs, "_GO_FOLDER", "")

    def in_path(self, name: str, script: str) -> None:
        """Put a program before all others."""
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        path = f"{self.folder}:{os.environ['PATH']}"
        self.patch(os, "environ", {**os.environ, "PATH": path})

    def without_programs(self) -> None:
        self.patch(os, "environ", {**os.environ, "PATH": ""})

    def unavailable(self, function: Any, *arguments: Any) -> str:
        return str(self.assertRaises(Unavailable, function.__wrapped__, *arguments))

    def test_a_module_of_go_is_compiled_once_into_a_folder_of_its_version(self) -> None:
        self.in_path("go", f'echo "$@" >> {self.folder}/said; touch "$GOBIN/server"')
        for _ in range(2):
            program = programs.go_program.__wrapped__("example.org/some/server/v2", "v2.1.0")
        self.assertEqual(Path(program), self.build / "server-v2.1.0" / "server")
        said = (self.folder / "said").read_text()
        self.assertEqual(said, "install example.org/some/server/v2@v2.1.0\n")

    def test_a_module_that_cannot_be_had_says_so_and_leaves_nothing(self) -> None:
        self.in_path("go", "touch $GOBIN/half; echo no such module; exit 1")
        why = self.unavailable(programs.go_program, "example.org/server/v2", "v2.1.0")
        self.assertIn("no such module", why)
        self.assertEqual(list(self.build.iterdir()), [])

    def test_what_is_missing_is_named(self) -> None:
        self.without_programs()
        why = self.unavailable(programs.go_program, "example.org/server/v2", "v2.1.0")
        self.assertIn("there is no go", why)
        why = self.unavailable(programs.debian_packages, "mosquitto")
        self.assertIn("this system is not Debian", why)
