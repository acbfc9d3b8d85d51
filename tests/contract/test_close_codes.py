"""The contract, section 2: close codes."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks

from tests.support.clients import open_websocket
from tests.support.django import set_up_django
from tests.support.memory import WebSocketTests
from tests.support.servers import LISTEN
from tests.support.sites import ContractTestCase
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.service import make_service
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, client_frame

set_up_django()


from ws4redis_tx.config import django_settings


class CloseCodeTests(WebSocketTests):
    """2. Websocket: close codes (1001 and 1012: ``StopCodeTests``)"""

    def test_1007_bad_utf_8(self) -> None:
        client = self.connect("publish-broadcast")
        client.send_bytes(client_frame(1, b"\xc3("))
        self.assertEqual(client.close_code, 1007)

    def test_1008_revoked(self) -> None:
        client = self.connect()
        client._server.session.close(1008, "Revoked.")
        self.assertEqual(client.close_code, 1008)

    def test_1009_too_big(self) -> None:
        self.use(max_message_size=10)
        client = self.connect("publish-broadcast")
        client.send("x" * 10)
        self.assertIsNone(client.close_code)
        client.send("x" * 11)
        self.assertEqual(client.close_code, 1009)

    def test_1011_internal(self) -> None:
        class Failing(RedisSubscriber):
            def publish_message(self, *args: Any, **kwargs: Any) -> Any:
                raise RuntimeError("deliberate")

        self.use(subscriber=Failing)
        client = self.connect("publish-broadcast")
        client.send("hi")
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_1013_too_slow(self) -> None:
        self.use(max_pending=100)
        client = self.connect()
        client._server.pauseProducing()
        for _ in range(3):
            self.publish(b"x" * 90)
        self.assertEqual(client.close_code, 1013)

    def test_1013_its_messages_fate_is_unknown(self) -> None:
        class Lossy(MemoryBroker):
            def publish(self, *args: Any) -> Deferred[int]:
                return fail(BrokerUnavailable("no answer", maybe_published=True))

        self.use(Lossy())
        client = self.connect("publish-broadcast")
        client.send("hi")
        self.assertEqual(client.close_code, 1013)

    def test_the_clients_own_code_is_echoed(self) -> None:
        for code in (1000, 1001, 1003, 1007, 1008, 1011, 1012, 1013, 1014, 3000, 4999):
            client = self.connect()
            client.close(code)
            self.assertEqual(client.close_code, code)


class StopCodeTests(ContractTestCase):
    """2. Websocket: close codes"""

    @inlineCallbacks
    def closed_with(self, stop_code: int | None) -> Any:
        service = make_service(django_settings.server_config(LISTEN))
        service.startService()
        self.url = f"ws://127.0.0.1:{service.ports[0].getHost().port}/ws/"
        yield service.when_ready()
        client = yield open_websocket(self.url + "foobar?subscribe-broadcast")
        if stop_code is not None:
            service.stop_code = stop_code
        yield service.stopService()
        return (yield client.closed)

    @inlineCallbacks
    def test_1001_an_embedding_application_stops_the_service(self) -> Any:
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        self.assertEqual((yield self.closed_with(None)), 1001)

    @inlineCallbacks
    def test_1012_the_server_restarts(self) -> Any:
        """``twistd`` sets this code; ``test_twistd`` checks that SIGTERM leads to it."""
        self.override(WS4REDIS_CONNECTION=str(self.redis.address))
        self.assertEqual((yield self.closed_with(1012)), 1012)
