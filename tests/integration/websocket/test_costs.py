"""The cost of a fan-out in calls, from Redis' bytes to the sockets of open websockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor, unix
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.calls import counted_calls
from tests.support.small_redis import ADDRESS, RedisWorld
from tests.support.stories import Authorizer
from tests.support.wires import handshake_bytes
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.interfaces import IHooks, NullHooks
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.service import make_factory
from ws4redis_tx.testing import client_frame
from ws4redis_tx.websocket.frames import DEFLATED, server_frame

CHANNEL, OTHER = b"broadcast:f", b"user:u:f"
BOTH = "subscribe-broadcast&subscribe-user"
FEW, MANY = 100, 200
FURTHER = MANY - FEW


class Hooks(NullHooks):
    """Hooks of an application, which do nothing."""


class FanoutTests(SynchronousTestCase):
    """Counted as the difference between a crowd and one twice as large."""

    def open(self, number: int, rights: str = "subscribe-broadcast", **headers: str) -> None:
        """Open websockets at real sockets, without the reactor; ``self.ends`` are the clients'."""
        for _ in range(number):
            ours, theirs = socket.socketpair()
            self.addCleanup(theirs.close)
            for end in (ours, theirs):
                end.setblocking(False)
            protocol = self.factory.buildProtocol(None)
            transport = unix.Server(ours, protocol, "", None, 0, reactor)
            transport.stopReading()
            self.addCleanup(ours.close)
            self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
            protocol.makeConnection(transport)
            protocol.dataReceived(handshake_bytes(f"/ws/f?{rights}", **headers))
            self.protocols.append(protocol)
            self.ends.append(theirs)
        self.settle()
        for end in self.ends[-number:]:
            head = end.recv(1 << 16)
            self.assertTrue(head.startswith(b"HTTP/1.1 101 ") and head.endswith(b"\r\n\r\n"))

    def settle(self) -> None:
        pipes = (self.world.commands, self.world.pubsub)
        while any(pipe.execute() or pipe.arrive() for pipe in pipes):
            pass

    def start(self, hooks: IHooks | None = None) -> None:
        self.world = RedisWorld()
        self.factory = make_factory(
            ServerConfig(redis=ADDRESS, compression=True),
            broker=self.world.broker,
            authorizer=Authorizer(),
            hooks=hooks,
            reactor=Clock(),
        )
        self.protocols: list[Any] = []
        self.ends: list[socket.socket] = []

    def calls(self, *messages: tuple[bytes, bytes]) -> int:
        """Python calls for messages that one read brings, until all are sent."""
        for channel, payload in messages:
            self.world.redis.publish(channel, payload, persist=False)
        return counted_calls(self.world.pubsub.arrive_together).total()

    def further(self, *messages: tuple[bytes, bytes], **options: Any) -> int:
        """Python calls that the further clients of the larger crowd cost, once for each of which it
        is the first message of its connection, and once for all.
        """
        counts = []
        for number in (FEW, MANY):
            self.start(self.hooks)
            self.open(number, **options)
            counts.append((self.calls(*messages), self.calls(*messages)))
        (first_few, few), (first_many, many) = counts
        return max(first_many - first_few, many - few)

    hooks: IHooks | None = None

    def test_a_receiver_costs_no_call(self) -> None:
        """The first message of its connection included."""
        self.assertLess(self.further((CHANNEL, b"hello")), FURTHER // 4)
        for end in self.ends:
            self.assertEqual(end.recv(99), 2 * server_frame(b"hello"))

    def test_nor_does_one_of_all_that_a_read_brings(self) -> None:
        both = [(CHANNEL if n % 3 else OTHER, b"%d" % n) for n in range(20)]
        self.assertLess(self.further(*both, rights=BOTH), FURTHER // 4)
        frames = b"".join(server_frame(payload) for _, payload in both)
        for end in self.ends:
            self.assertEqual(end.recv(1 << 16), 2 * frames)

    def test_nor_one_who_takes_it_compressed(self) -> None:
        message = (CHANNEL, b"compressible " * 50)
        headers = {"Sec_WebSocket_Extensions": "permessage-deflate"}
        self.assertLess(self.further(message, **headers), FURTHER // 4)
        for end in self.ends:
            self.assertEqual(end.recv(1 << 16), 2 * Publication(*message).form(DEFLATED))

    def test_nor_one_whose_neighbour_published_it(self) -> None:
        counts = []
        for number in (FEW, MANY):
            self.start()
            self.open(number)
            self.open(1, "subscribe-broadcast&publish-broadcast")
            self.calls((CHANNEL, b"first"))
            self.protocols[-1].dataReceived(client_frame(1, b"hello"))
            while self.world.commands.execute():
                pass
            counts.append(self.calls())
        self.assertLess(counts[1] - counts[0], FURTHER // 4)
        for end in self.ends[:-1]:
            self.assertEqual(end.recv(99), server_frame(b"first") + server_frame(b"hello"))
        self.assertEqual(self.ends[-1].recv(99), server_frame(b"first"))

    def test_nor_one_that_hooks_watch(self) -> None:
        self.hooks = Hooks()
        self.assertLess(self.further((CHANNEL, b"hello")), FURTHER // 4)
        for end in self.ends:
            self.assertTrue(end.recv(999).endswith(server_frame(b"hello")))
