"""hiredis, a dictionary and ``socket.send``: the minimal cost of a message to a client on Twisted.

``python -m benchmarks.peers.minimal_relay PORT REDIS_PORT``. A client's target names the user whose
messages it receives (``…&user=NAME``). There is no authorization, no queue and no pings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import hiredis
from twisted.internet import epollreactor

epollreactor.install()

from twisted.internet import reactor  # noqa: E402
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol  # noqa: E402
from twisted.internet.protocol import Factory, Protocol  # noqa: E402

from benchmarks.peers.python_loop import ACCEPT  # noqa: E402
from ws4redis_tx.websocket.frames import server_frame  # noqa: E402

FACILITY = b"load"


class Relay(Protocol):
    """The connection to Redis. ``sends`` maps each channel to the ``send`` method of its client's
    socket. The client gets its 101 when the channel's subscription is active.
    """

    def __init__(self) -> None:
        self.sends: dict[bytes, Callable[[bytes], int]] = {}
        self._replies = hiredis.Reader()

    def dataReceived(self, data: bytes) -> None:
        self._replies.feed(data)
        while reply := self._replies.gets():
            if reply[0] == b"message":
                self.sends[reply[1]](server_frame(reply[2]))
            else:
                self.sends[reply[1]](ACCEPT)

    def add(self, user: bytes, send: Callable[[bytes], int]) -> None:
        channel = b"user:%s:%s" % (user, FACILITY)
        self.sends[channel] = send
        self.transport.write(b"SUBSCRIBE %s\r\n" % channel)


class Client(Protocol):
    factory: Clients

    def dataReceived(self, data: bytes) -> None:
        target = data.split(b" ", 2)[1]
        user = target.rpartition(b"&user=")[2]
        self.factory.relay.add(user, self.transport.socket.send)


class Clients(Factory):
    protocol = Client

    def __init__(self, relay: Relay) -> None:
        self.relay = relay


def serve(port: int, redis_port: int) -> None:
    def connected(relay: Relay) -> None:
        reactor.listenTCP(port, Clients(relay), backlog=2048, interface="127.0.0.1")
        print("ready", flush=True)

    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", redis_port)
    connectProtocol(endpoint, Relay()).addCallback(connected)
    reactor.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]))
