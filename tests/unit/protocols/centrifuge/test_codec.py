"""A message from Redis as a push: whatever its bytes, a client gets them back."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.messages import Joined, PositionedPublication, Publication
from ws4redis_tx.core.positions import Position
from ws4redis_tx.protocols.centrifuge.wire.codec import PushCodec, describe
from ws4redis_tx.protocols.centrifuge.wire.json import Json
from ws4redis_tx.protocols.centrifuge.wire.protobuf import Protobuf, decode
from ws4redis_tx.protocols.centrifuge.wire.schema import REPLY
from ws4redis_tx.websocket.frames import PLAIN

CHANNEL = b"broadcast:news"


def pushed(payload: bytes, format: Any = None) -> Any:
    """What a client reads that is sent ``payload``."""
    codec = PushCodec(format or Json(), PLAIN, lambda channel: channel.decode())
    frame = codec.encode(Publication(CHANNEL, payload))
    message = frame[2 if frame[1] < 126 else 4 if frame[1] == 126 else 10 :]
    if codec.format.binary:
        start = next(index for index, byte in enumerate(message) if byte < 0x80) + 1
        return frame[0], decode(message[start:], REPLY)["push"]["pub"]
    return frame[0], json.loads(message)["push"]["pub"]


def meaning(pub: Any) -> Any:
    """The bytes that a client unwraps from a push in JSON, or the value in it."""
    wrapping = pub.get("tags", {}).get("ws4redis")
    if wrapping == "text":
        return pub["data"].encode()
    return base64.b64decode(pub["data"]) if wrapping == "base64" else pub["data"]


class PayloadTests(SynchronousTestCase):
    def test_json_passes_as_it_is(self) -> None:
        for payload in (b"1e400", b"12345678901234567890123", b'{"a" : 1, "a":2}', b'"\\ud800"'):
            described = describe(Publication(CHANNEL, payload), Json())
            self.assertEqual(described, {"data": payload, "offset": 0})

    def test_but_for_its_newlines(self) -> None:
        described = describe(Publication(CHANNEL, b'\n{"a":\n 1}\n'), Json())
        self.assertEqual(described["data"], b'{"a": 1}')

    def test_another_text_is_a_string_and_tagged(self) -> None:
        for text in ("hello", "", "{", "\ufeff1", "a\nb\r", "NaN", "1 2", "\0", "\u2028é"):
            opcode, pub = pushed(text.encode())
            self.assertEqual((opcode, pub), (0x81, {"data": text, "tags": {"ws4redis": "text"}}))

    def test_other_bytes_are_base64_and_tagged(self) -> None:
        for payload in (b"\xff", b'"\xed\xa0\x80"', b"\x89PNG\r\n"):
            _, pub = pushed(payload)
            self.assertEqual(pub["tags"], {"ws4redis": "base64"})
            self.assertEqual(base64.b64decode(pub["data"]), payload)

    def test_json_too_deep_to_be_checked_is_a_text(self) -> None:
        payload = b"[" * 50_000 + b"]" * 50_000
        _, pub = pushed(payload)
        self.assertEqual(meaning(pub), payload)

    def test_a_client_in_protobuf_gets_the_bytes_without_a_tag(self) -> None:
        for payload in (b"1", b"hello", b"\xff\0", b'{\n"a":1}'):
            self.assertEqual(pushed(payload, Protobuf()), (0x82, {"data": payload}))

    @settings(deadline=None)
    @given(st.binary() | st.text().map(str.encode) | st.floats().map(lambda f: str(f).encode()))
    def test_any_bytes_come_back(self, payload: bytes) -> None:
        _, pub = pushed(payload)
        value = meaning(pub)
        if "tags" in pub:
            self.assertEqual(value, payload)
        else:
            self.assertEqual(repr(value), repr(json.loads(payload)))


class PushTests(SynchronousTestCase):
    def publication(self, offset: int, info: bytes = b"") -> Publication:
        position = Position(500, 1)
        made = PositionedPublication(CHANNEL, b"1", position, offset=offset, began=0xABC)
        made.info = info
        return made

    def test_it_has_the_offset_and_with_the_first_one_the_epoch(self) -> None:
        self.assertEqual(
            describe(self.publication(1), Json()), {"data": b"1", "offset": 1, "epoch": "abc"}
        )
        self.assertEqual(describe(self.publication(2), Json()), {"data": b"1", "offset": 2})

    def test_it_tells_of_the_client_that_published(self) -> None:
        info = b'{"user":"mary","client":"c1","conn_info":{"a" : 1e400}}'
        self.assertEqual(
            describe(self.publication(2, info), Json())["info"],
            {"user": "mary", "client": "c1", "conn_info": b'{"a" : 1e400}'},
        )
        self.assertEqual(describe(self.publication(2, b"[not"), Json())["info"], {})

    def test_it_names_the_channel_as_the_client_does(self) -> None:
        codec = PushCodec(Json(), PLAIN, lambda channel: "news")
        self.assertEqual(
            codec.encode(Publication(CHANNEL, b"1"))[2:],
            b'{"push":{"channel":"news","pub":{"data":1}}}',
        )

    def test_a_message_of_no_channel_is_a_push_to_this_client(self) -> None:
        codec = PushCodec(Json(), PLAIN, lambda channel: "news")
        self.assertEqual(
            codec.encode(Publication(None, b"1"))[2:], b'{"push":{"message":{"data":1}}}'
        )

    def test_several_messages_are_frames_for_one_write(self) -> None:
        codec = PushCodec(Json(), PLAIN, lambda channel: "c")
        parts = [Publication(CHANNEL, b"1"), Publication(CHANNEL, b"2")]
        self.assertEqual(Joined(parts).form(codec), b"".join(map(codec.encode, parts)))

    def test_messages_may_share_a_frame(self) -> None:
        codec = PushCodec(Json(), PLAIN, lambda channel: "c")
        written = [codec.format.write({"id": each}) for each in (1, 2)]
        self.assertEqual(codec.frame(written)[2:], b'{"id":1}\n{"id":2}')
