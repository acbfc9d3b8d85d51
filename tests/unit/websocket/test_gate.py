"""The gate of a listening port: a service that was left can still be stopped."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import succeed
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.testing import connect, make_memory_factory
from ws4redis_tx.websocket.service import WebSocketService, leave


class Port:
    numberAccepts = 1  # noqa: N815

    def stopReading(self) -> None: ...  # noqa: N802

    def startReading(self) -> None: ...  # noqa: N802

    def stopListening(self) -> None: ...  # noqa: N802


class Endpoint:
    def listen(self, factory: Any) -> Any:
        self.factory = factory
        return succeed(Port())


class NoDescriptors:
    """The process has as many file descriptors as it may have."""

    def room(self) -> int:
        return 0

    def at_once(self) -> int:
        return 16

    def check(self, transport: Any) -> None: ...


class GateTests(SynchronousTestCase):
    def test_a_service_that_waits_for_descriptors_is_left_and_stopped(self) -> None:
        factory, endpoint = make_memory_factory(), Endpoint()
        factory.session_server.descriptors = NoDescriptors()
        service = WebSocketService(factory, [endpoint])
        service.startService()
        client = connect(factory, "ws://localhost/ws/foobar?subscribe-broadcast")
        endpoint.factory.buildProtocol(None)  # now the timer runs
        self.successResultOf(leave(service))
        service.stop_code = 1012
        service.stopService()
        self.assertEqual(client.close_code, 1012)
