"""A client that sends its token in a header, as a browser could not, and prints its messages.

TOKEN=$(python tokens.py robot chat) python client.py
"""

from __future__ import annotations

import os
import sys
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.task import react

URL = "ws://127.0.0.1:8080/ws/chat?subscribe-broadcast"


class Listener(WebSocketClientProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.ended: Deferred[None] = Deferred()

    def onOpen(self) -> None:
        print("Listening", flush=True)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        print(payload.decode(errors="replace"), flush=True)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:
        print(f"Closed ({code}): {reason}", flush=True)
        self.ended.callback(None)


@inlineCallbacks
def main(reactor: Any, url: str = URL) -> Any:
    # Not from the command line, because other users of the machine can see that.
    token = os.environ["TOKEN"]
    factory = WebSocketClientFactory(
        url, headers={"Authorization": f"Bearer {token}"}, reactor=reactor
    )
    factory.protocol = Listener
    endpoint: Any = HostnameEndpoint(reactor, factory.host, factory.port)
    if factory.isSecure:
        from twisted.internet.ssl import optionsForClientTLS  # pip install 'twisted[tls]'

        endpoint = wrapClientTLS(optionsForClientTLS(factory.host), endpoint)
    client = yield endpoint.connect(factory)
    yield client.ended


if __name__ == "__main__":
    react(main, sys.argv[1:])
