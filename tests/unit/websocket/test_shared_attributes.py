"""Every attribute of Autobahn's websocket exists, and most of them are shared by all."""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketServerProtocol
from twisted.internet.defer import Deferred

from tests.support.memory import WebSocketTests
from ws4redis_tx.testing import client_frame
from ws4redis_tx.websocket import shared_attributes as shared
from ws4redis_tx.websocket.transport import WebSocketTransport

# The number of an open websocket's own attributes. Autobahn would give it some seventy.
MOST_ATTRIBUTES = 16


class SharedTests(WebSocketTests):
    def server(self, flags: str = "subscribe-broadcast") -> Any:
        return self.connect(flags)._server

    def test_every_attribute_and_option_of_autobahn_is_there(self) -> None:
        websocket = self.server()
        for name in (*shared.initial(self.factory), *WebSocketServerProtocol.CONFIG_ATTRS):
            self.assertTrue(hasattr(websocket, name), name)

    def test_autobahn_has_nothing_that_changes_in_place_besides_what_is_known_to(self) -> None:
        known = {*shared._MAKERS, *shared._SHARED, *WebSocketServerProtocol.CONFIG_ATTRS}
        unknown = {
            name
            for name, value in shared.initial(self.factory).items()
            if name not in known and not isinstance(value, shared._IMMUTABLE)
        }
        self.assertEqual(unknown, {"send_queue"})

    def test_what_changes_in_place_is_each_websockets_own(self) -> None:
        first, second = self.server(), self.server()
        for name in ("send_queue", "utf8validator", "is_open", "is_closed", "_transport_details"):
            self.assertIs(getattr(first, name), getattr(first, name), name)
            self.assertIsNot(getattr(first, name), getattr(second, name), name)

    def test_half_a_letter_of_one_client_is_not_completed_by_another(self) -> None:
        first, second = self.connect("publish-broadcast"), self.connect("publish-broadcast")
        begin, end = (client_frame(1, half) for half in "ü".encode().partition(b"\xbc")[:2])
        begin, end = bytes([begin[0] & 0x7F]) + begin[1:], bytes([0x80]) + end[1:]
        first.send_bytes(begin)
        second.send_bytes(begin)
        second.send_bytes(bytes([0x80]) + client_frame(1, b"x")[1:])
        first.send_bytes(end)
        self.assertEqual(second.close_code, 1007)
        self.assertTrue(first.open)

    def test_few_attributes_are_each_websockets_own(self) -> None:
        own = vars(self.server())
        self.assertLessEqual(len(own), MOST_ATTRIBUTES, sorted(own))

    def test_options_that_are_set_later_hold_for_the_websockets_made_later(self) -> None:
        before = self.server()
        self.factory.setProtocolOptions(maxMessagePayloadSize=7)
        self.assertNotEqual(before.maxMessagePayloadSize, 7)
        self.assertEqual(self.server().maxMessagePayloadSize, 7)

    def test_a_protocol_of_ones_own_keeps_its_own_options(self) -> None:
        class Own(WebSocketTransport):
            maxMessagePayloadSize = 7  # noqa: N815

        self.factory.protocol = Own
        websocket = self.server()
        self.assertIsInstance(websocket, Own)
        self.assertEqual(websocket.maxMessagePayloadSize, 7)

    def test_a_callable_option_stays_what_it_is(self) -> None:
        self.factory.setProtocolOptions(perMessageCompressionAccept=lambda offers: offers)
        self.assertEqual(self.server().perMessageCompressionAccept([1]), [1])

    def test_the_end_can_be_waited_for(self) -> None:
        client = self.connect()
        closed: Deferred[Any] = client._server.is_closed
        self.assertNoResult(closed)
        client.close()
        self.assertIs(self.successResultOf(closed), client._server)
