"""The cost of a message in calls. Unlike a timing, it is deterministic, so a test can guard it."""

from __future__ import annotations

import socket

from twisted.internet import reactor, tcp
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from tests.support.outboxes import FedOutbox
from tests.support.wires import from_redis
from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import ICodec, Publication
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.dispatcher import Dispatcher
from ws4redis_tx.redis.wire.protocol import PubSubProtocol
from ws4redis_tx.scheduling.immediate_writer import immediate_writer
from ws4redis_tx.websocket.frames import DEFLATED, PLAIN, server_frame

# Calls for 64 receivers together, after which the clock is read.
MOST_FOR_A_PORTION = 5

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class FanoutCostTests(SynchronousTestCase):
    """From Redis' bytes to real sockets, through a server's own parts."""

    def setUp(self) -> None:
        address, clock = RedisAddress(), MemoryReactorClock()
        self.dispatcher = Dispatcher(
            address,
            "",
            clock,
            Commands(address, "", clock, timeout=1),
            on_up=lambda: None,
            on_down=lambda problem: None,
        )
        self.redis = PubSubProtocol(self.dispatcher.receive)

    def listen(self, number: int, *channels: bytes, codec: ICodec = PLAIN) -> list[socket.socket]:
        """The clients' ends of ``number`` connections."""
        clients = []
        for _ in range(number):
            ours, theirs = socket.socketpair()
            for end in (ours, theirs):
                self.addCleanup(end.close)
                end.setblocking(False)
            clients.append(theirs)
            transport = tcp.Connection(ours, Protocol(), reactor)
            transport.connected = True
            writer = immediate_writer(transport)
            writer.write(ACCEPTED)
            theirs.recv(99)
            delivery = FedOutbox(writer, self.fail, 1 << 20, CLOSE, codec=codec)
            delivery.go_live()
            for channel in channels:
                self.dispatcher.hub.add(channel, delivery.feed)
        return clients

    def calls(self, *messages: tuple[bytes, bytes]) -> int:
        """Python calls for the messages of one read, until all are handed over."""
        received = from_redis(*messages)
        return counted_calls(lambda: self.redis.dataReceived(received)).total()

    def test_a_receiver_costs_no_call_not_even_for_its_first_message(self) -> None:
        first = self.listen(65, b"broadcast:x")
        before = self.calls((b"broadcast:x", b"1"))
        second = self.listen(64, b"broadcast:x")
        calls = self.calls((b"broadcast:x", b"2")) - before
        self.assertLessEqual(calls, MOST_FOR_A_PORTION)
        for client in first:
            self.assertEqual(client.recv(99), server_frame(b"1") + server_frame(b"2"))
        for client in second:
            self.assertEqual(client.recv(99), server_frame(b"2"))

    def test_so_does_one_of_all_that_a_read_brings(self) -> None:
        both = [(b"broadcast:x" if n % 3 else b"group:g:x", b"%d" % n) for n in range(150)]
        self.listen(1, b"broadcast:x", b"group:g:x")
        self.listen(1, b"broadcast:x")
        before = self.calls(*both)
        first = self.listen(32, b"broadcast:x", b"group:g:x")
        second = self.listen(32, b"broadcast:x")
        self.assertLessEqual(self.calls(*both) - before, MOST_FOR_A_PORTION)
        for client in first:
            frames = b"".join(server_frame(payload) for _, payload in both)
            self.assertEqual(client.recv(1 << 20), frames)
        for client in second:
            frames = b"".join(
                server_frame(payload) for channel, payload in both if channel == b"broadcast:x"
            )
            self.assertEqual(client.recv(1 << 20), frames)

    def test_one_who_takes_it_compressed_costs_no_more(self) -> None:
        message = (b"broadcast:x", b"compressible " * 50)
        self.listen(65, b"broadcast:x", codec=DEFLATED)
        before = self.calls(message)
        clients = self.listen(64, b"broadcast:x", codec=DEFLATED)
        self.assertLessEqual(self.calls(message) - before, MOST_FOR_A_PORTION)
        for client in clients:
            self.assertEqual(client.recv(99), Publication(*message).form(DEFLATED))

    def test_a_message_to_one_client_costs_few_calls(self) -> None:
        for number in range(100):
            self.listen(1, b"user:%d:x" % number)
        self.assertLessEqual(self.calls((b"user:50:x", b"hello")), 12)
