"""A client of server-sent events vanishes without a word. Prints when its stream was open, and when
nobody is present any more.

Runs in a network namespace of its own, as root: ``unshare --net python -m …``.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import make_service
from ws4redis_tx.sessions import server
from ws4redis_tx.sse import response
from ws4redis_tx.testing import MemoryBroker

CLIENT = "127.0.0.5"
CHANNEL = b"broadcast:room"


def route(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), source_address=(CLIENT, 0))
    client.sendall(
        b"GET /ws/room?subscribe-broadcast HTTP/1.1\r\nHost: localhost\r\n"
        b"Accept: text/event-stream\r\n\r\n"
    )
    assert client.recv(1000).startswith(b"HTTP/1.1 200")
    return client


@inlineCallbacks
def main() -> Any:
    route("link", "set", "lo", "up")
    broker = MemoryBroker(reactor)
    config = ServerConfig(presence=("room",), presence_grace=1)
    service = make_service(config, broker=broker, endpoints=[])
    broker.use_history((), "")
    factory = service.factory
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    client = yield deferToThread(connect, port.getHost().port)
    present = yield broker.presence.present(CHANNEL)
    assert len(present) == 1, present
    route("route", "replace", "blackhole", f"{CLIENT}/32", "table", "local")
    print("vanished", flush=True)
    while present:
        yield deferLater(reactor, 0.1)
        present = yield broker.presence.present(CHANNEL)
    print("gone", flush=True)
    client.close()
    reactor.stop()


def failed(failure: Any) -> None:
    failure.printTraceback(sys.stdout)
    reactor.stop()


if __name__ == "__main__":
    if sys.argv[1:] == ["soon"]:
        server.PING_INTERVAL, server.PING_TIMEOUT = 1.0, 0.5
        response.USER_TIMEOUT = 1.0
    reactor.callWhenRunning(lambda: main().addErrback(failed))
    reactor.run()
