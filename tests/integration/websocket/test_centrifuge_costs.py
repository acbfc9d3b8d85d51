"""The cost of a fan-out to clients of Centrifuge's protocol, in calls."""

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
from ws4redis_tx.service import make_factory
from ws4redis_tx.testing import client_frame

CHANNELS = b"broadcast:f", b"broadcast:g"
COMMANDS = b'{"id":1,"connect":{}}\n' + b"\n".join(
    b'{"id":%d,"subscribe":{"channel":"%b"}}' % (number, channel)
    for number, channel in enumerate(CHANNELS, 2)
)


class CentrifugeCostTests(SynchronousTestCase):
    def start(self, number: int) -> None:
        """Connect so many clients at real sockets, without the reactor."""
        self.world = RedisWorld()
        self.factory = make_factory(
            ServerConfig(redis=ADDRESS, centrifuge_url="/connection/"),
            broker=self.world.broker,
            authorizer=Authorizer(),
            reactor=Clock(),
        )
        self.ends: list[socket.socket] = []
        for _ in range(number):
            ours, theirs = socket.socketpair()
            self.addCleanup(theirs.close)
            self.addCleanup(ours.close)
            ours.setblocking(False)
            theirs.setblocking(False)
            protocol: Any = self.factory.buildProtocol(None)
            transport = unix.Server(ours, protocol, "", None, 0, reactor)
            transport.stopReading()
            self.addCleanup(protocol.connectionLost, Failure(ConnectionDone()))
            protocol.makeConnection(transport)
            protocol.dataReceived(handshake_bytes("/connection/websocket"))
            protocol.dataReceived(client_frame(1, COMMANDS))
            self.ends.append(theirs)
        pipes = (self.world.commands, self.world.pubsub)
        while any(pipe.execute() or pipe.arrive() for pipe in pipes):
            pass
        for end in self.ends:
            self.assertEqual(end.recv(1 << 16).count(b'"subscribe"'), len(CHANNELS))

    def calls(self, *messages: tuple[bytes, bytes]) -> int:
        """Python calls for messages that one read brings, until all are sent."""
        for channel, payload in messages:
            self.world.redis.publish(channel, payload, persist=False)
        return counted_calls(self.world.pubsub.arrive_together).total()

    def further(self, *messages: tuple[bytes, bytes]) -> int:
        """Python calls that a hundred more receivers cost."""
        counts = []
        for number in (100, 200):
            self.start(number)
            self.calls(*messages)  # the first one sorts the receivers
            counts.append(self.calls(*messages))
            for end in self.ends:
                sent = end.recv(1 << 16)
                self.assertEqual(sent.count(b'"pub"'), 2 * len(messages))
        return counts[1] - counts[0]

    def test_a_receiver_costs_no_call(self) -> None:
        self.assertLess(self.further((CHANNELS[0], b"1")), 25)

    def test_nor_does_one_of_a_burst_on_several_channels(self) -> None:
        burst = [(channel, b"%d" % number) for number in range(3) for channel in CHANNELS]
        self.assertLess(self.further(*burst), 25)
