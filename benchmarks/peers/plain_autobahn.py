"""Autobahn's websocket server with its defaults: the cost of a handshake without our code.

``python -m benchmarks.peers.plain_autobahn PORT``. Each client gets a 101 and then nothing.
"""

from __future__ import annotations

import sys

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet import reactor


def serve(port: int) -> None:
    factory = WebSocketServerFactory()
    factory.protocol = WebSocketServerProtocol
    reactor.listenTCP(port, factory, backlog=2048, interface="127.0.0.1")
    reactor.callWhenRunning(print, "ready", flush=True)
    reactor.run()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
