"""The load client speaks a protocol on top of the websocket: it subscribes, waits until it has,
answers the protocol's pings, and finds the messages inside the frames.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import load as load_module
from benchmarks.load import Dialect, Heard, Load, Undelivered
from tests.support.scripted_server import ACCEPT, CLOSE, PATIENCE, Script, ScriptedServer, receive
from ws4redis_tx.testing import client_frame
from ws4redis_tx.websocket.frames import server_frame

TEXT, BINARY = 1, 2

DIALECT = Dialect(
    marker=b'"data":"', ready=b"subscribed", ping=b"{}", pong=client_frame(TEXT, b"pong")
)
READY = server_frame(b"subscribed")


def numbered(*numbers: int) -> bytes:
    """A frame with a message for each number, each on a line of its own."""
    return server_frame(b"\n".join(b'{"data":"%d 0 xyz"}' % number for number in numbers))


class DialectTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(load_module, "PATIENCE", PATIENCE)
        self.load = Load()
        self.addCleanup(self.load.end)

    def open(self, script: Script, number: int = 1, **options: Any) -> Heard:
        """Open websockets to a server that runs ``script`` for each."""
        server = ScriptedServer(script)
        self.addCleanup(server.end)
        self.load.start()
        return self.load.open(
            server.port, ["/"], number, **{"dialect": DIALECT, "at_once": 1, **options}
        )

    def heard(self, *sent: bytes, messages: int, dialect: Dialect = DIALECT) -> Heard:
        """What a client hears of ``sent``, which comes after the server has accepted it."""
        self.open(lambda client: client.sendall(ACCEPT + READY + b"".join(sent)), dialect=dialect)
        return self.load.every(messages)

    def test_each_client_says_its_own_words_in_the_order_of_opening(self) -> None:
        words = [client_frame(TEXT, b"I am %d" % number) for number in range(3)]
        words[1] += client_frame(BINARY, b"\0\xff\n\t")
        found = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT)
            expected = words[len(found)]
            found.append(receive(client, len(expected)))
            client.sendall(READY)

        self.open(script, 3, said=words)
        self.assertEqual(found, words)

    def test_a_long_token_is_said_whole(self) -> None:
        word = client_frame(TEXT, b"x" * 3000)
        found = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT)
            found.append(receive(client, len(word)))
            client.sendall(READY)

        self.open(script, said=[word])
        self.assertEqual(found, [word])

    def test_a_websocket_is_open_when_it_is_ready_and_that_is_when_its_handshake_ends(self) -> None:
        moments = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT)
            client.recv(65536)
            moments.append(time.monotonic_ns())
            client.sendall(server_frame(b"hello") + READY)

        heard = self.open(script, said=[client_frame(TEXT, b"let me in")])
        self.assertEqual((heard.open, heard.failed), (1, 0))
        (handshake,) = self.load.handshakes()
        self.assertEqual(handshake.status, 101)
        self.assertLess(moments[0], handshake.begun + handshake.took)

    def test_a_dialect_without_such_an_answer_is_ready_at_once(self) -> None:
        dialect = Dialect(marker=b"!")
        heard = self.open(lambda client: client.sendall(ACCEPT), dialect=dialect)
        self.assertEqual(heard.open, 1)

    def test_a_websocket_that_is_closed_before_it_is_ready_has_failed(self) -> None:
        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT + server_frame(b"no such channel") + CLOSE)

        error = self.assertRaises(Undelivered, self.open, script)
        self.assertIn("1 handshakes failed", str(error))
        self.assertEqual([each.status for each in self.load.handshakes()], [0])
        self.assertEqual(self.load.heard().failed, 1)

    def test_a_websocket_that_never_gets_ready_is_noticed(self) -> None:
        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT + server_frame(b"wait"))

        self.assertRaises(Undelivered, self.open, script, patience=0.05)

    def test_a_frame_may_hold_several_messages(self) -> None:
        heard = self.heard(numbered(0, 1), numbered(2), messages=3)
        self.assertEqual((heard.frames, heard.timed), (3, 3))
        heard.check(3)

    def test_the_answer_and_the_first_messages_may_share_a_frame(self) -> None:
        frame = server_frame(b'subscribed\n{"data":"0"}\n{"data":"1"}')
        self.open(lambda client: client.sendall(ACCEPT + frame))
        self.load.every(2).check(2)

    def test_frames_without_a_message_are_not_counted(self) -> None:
        others = [server_frame(b'{"id":7}'), server_frame(b'{"data":""}'), server_frame(b"")]
        self.heard(numbered(0), *others, numbered(1), messages=2).check(2)

    def test_gaps_repetitions_and_disorder_are_noticed_inside_frames(self) -> None:
        heard = self.heard(numbered(0, 2), numbered(2, 1, 3), messages=5)
        self.assertEqual((heard.lost, heard.disordered), (1, 2))
        self.assertRaises(Undelivered, heard.check, 5)

    def test_frames_are_understood_however_they_are_cut(self) -> None:
        long = server_frame(b"-" * 20_000 + b'{"data":"2 0"}')
        data = numbered(0, 1) + long + numbered(*range(3, 203))

        def script(client: socket.socket) -> None:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.sendall(ACCEPT + READY)
            for start in range(100):
                client.sendall(data[start : start + 1])
            for start in range(100, len(data), 777):
                client.sendall(data[start : start + 777])

        self.open(script)
        self.load.every(203).check(203)

    def test_its_pings_are_answered_alone_or_on_a_line_of_their_own(self) -> None:
        frames = (
            server_frame(b"{}"),
            server_frame(b'{}\n{"data":"0"}'),
            server_frame(b'{"data":"1"}\n{}'),
            server_frame(b"x{}"),
            server_frame(b"{}x"),
        )
        answers = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT + READY + b"".join(frames))
            answers.append(receive(client, 3 * len(DIALECT.pong)))
            client.sendall(numbered(2))

        self.open(script)
        heard = self.load.every(3)
        heard.check(3)
        self.assertEqual((answers, heard.pings), ([3 * DIALECT.pong], 3))

    def test_a_ping_may_end_its_line_itself(self) -> None:
        dialect = Dialect(marker=b"\r\n", ping=b"PING\r\n", pong=client_frame(BINARY, b"PONG\r\n"))
        frame = server_frame(b"MSG a 1 3\r\n0 0\r\nPING\r\nMSG a 1 3\r\n1 0\r\n")
        heard = self.heard(frame, messages=2, dialect=dialect)
        heard.check(2)
        self.assertEqual(heard.pings, 1)

    def test_the_websockets_own_pings_are_answered_too(self) -> None:
        answers = []

        def script(client: socket.socket) -> None:
            client.sendall(ACCEPT + READY + b"\x89\x01a")
            answers.append(receive(client, 7))
            client.sendall(numbered(0))

        self.open(script)
        self.load.every(1).check(1)
        self.assertEqual(answers, [b"\x8a\x81\0\0\0\0a"])

    def test_a_marker_of_any_bytes_is_found(self) -> None:
        dialect = Dialect(marker=b"\0\x04load")
        self.heard(server_frame(b"\x30\x09\0\x04load0 0"), messages=1, dialect=dialect).check(1)
