"""Compression over real sockets: clients of an independent implementation, a real Redis."""

from __future__ import annotations

import random
from typing import Any

from autobahn.websocket.compress import PerMessageDeflateOffer
from twisted.internet.defer import inlineCallbacks

from tests.support.servers import ServerTestCase
from tests.support.wires import rows
from ws4redis_tx.websocket.compression import LARGEST


class SendingTests(ServerTestCase):
    """Real clients, of an independent implementation, with a real Redis."""

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        yield self.start_server(compression=True)

    def open_compressing(self, window_bits: int = 0) -> Any:
        return self.open(
            "foobar?subscribe-broadcast",
            compression=PerMessageDeflateOffer(request_max_window_bits=window_bits),
        )

    def publish(self, *messages: bytes | str) -> None:
        for message in messages:
            self.redis.command("PUBLISH", "broadcast:foobar", message)

    @inlineCallbacks
    def test_every_client_gets_the_message_in_the_form_that_it_agreed_on(self) -> Any:
        compressing = yield self.open_compressing()
        plain = yield self.open("foobar?subscribe-broadcast")
        narrow = yield self.open_compressing(window_bits=9)
        messages = [
            rows(1000).decode(),
            "short",
            "grüße, 世界 " * 100,
            b"\xff\x00" * 1000,
            random.Random(1).randbytes(5000),
            rows(100_000).decode(),
            "x" * (LARGEST + 1),
        ]
        self.publish(*messages)
        for client in (compressing, plain, narrow):
            self.assertEqual((yield client.take(len(messages))), messages)
        self.assertEqual(compressing.compressed, [True, False, True, True, False, True, False])
        self.assertEqual(plain.compressed, [False] * len(messages))
        self.assertEqual(narrow.compressed, [False] * len(messages))

    @inlineCallbacks
    def test_what_is_persisted_is_compressed_too(self) -> Any:
        self.redis.command("SET", "broadcast:foobar", rows(1000))
        client = yield self.open_compressing()
        self.assertEqual((yield client.next()), rows(1000).decode())
        self.assertEqual(client.compressed, [True])
