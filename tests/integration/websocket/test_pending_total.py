"""The bound on memory with real sockets, whose buffers count too."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.support.clients import exchange, open_wire
from tests.support.servers import ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.core.positions import History
from ws4redis_tx.testing.wire import SUBPROTOCOL

MIB = 1024 * 1024


class SocketTests(ServerTestCase):
    @inlineCallbacks
    def test_clients_that_do_not_read_give_way_and_newcomers_get_503_meanwhile(self) -> Any:
        service = yield self.start_server(max_pending_total=4 * MIB)
        server = service.factory.session_server
        buffers = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        service.ports[0].socket.setsockopt(*buffers)  # those of the connections follow it
        wires: list[Any] = []
        self.addCleanup(self.leave, wires)
        for number in range(12):
            head = handshake_bytes(f"/ws/{number}?subscribe-broadcast")
            wire = yield open_wire(self.port, head)
            wire.transport.pauseProducing()
            wires.append(wire)
        for number in range(12):
            message = bytes([number]) * MIB
            self.redis.command("PUBLISH", f"broadcast:{number}", message)
            yield service.factory.broker.fence()
            held = sum(len(p) for each in server._all() for p in each.transport.outgoing)
            # An eighth more, the last message, and a client that is dropped in the next turn.
            self.assertLess(held, 7 * MIB)
        answer = yield exchange(self.port, handshake_bytes())
        self.assertEqual(status_of(answer), 503)
        self.assertIn(b"Retry-After: ", answer)
        while server.pending_total.still_exceeded():
            yield service.factory.broker.fence()
        wires.append((yield open_wire(self.port, handshake_bytes())))

    @inlineCallbacks
    def test_what_clients_missed_and_do_not_read_counts(self) -> Any:
        service = yield self.start_server(max_pending_total=4 * MIB, history=(("f", 100, 3600),))
        server, broker = service.factory.session_server, service.factory.broker
        buffers = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        service.ports[0].socket.setsockopt(*buffers)
        since = yield broker.now()
        for number in range(16):
            message = bytes([number]) * (MIB // 16)
            yield broker.publish([b"broadcast:f"], message, 60, None, History(100, 3600))
        wires: list[Any] = []
        self.addCleanup(self.leave, wires)
        target = f"/ws/f?subscribe-broadcast&since={since}"
        refused = 0
        for _ in range(20):
            head = handshake_bytes(target, **{"Sec-WebSocket-Protocol": SUBPROTOCOL})
            try:
                wire = yield open_wire(self.port, head)
            except AssertionError as error:
                self.assertIn("503", str(error))
                refused += 1
                continue
            wire.transport.pauseProducing()
            wires.append(wire)
            yield broker.fence()  # each of them is served by a read of its own
            held = {id(form): len(form) for each in server._all() for form in each.outbox.forms()}
            self.assertLess(sum(held.values()), 6 * MIB)
        self.assertTrue(refused or any(wire.ended.called for wire in wires))

    def leave(self, wires: list[Any]) -> Any:
        for wire in wires:
            wire.transport.abortConnection()
        return gatherResults([wire.ended for wire in wires])
