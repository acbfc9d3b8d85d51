"""Messages keep their bytes when they become frames."""

from __future__ import annotations

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.messages import PersistedMessage, Publication, RedisMessage
from ws4redis_tx.websocket.frames import PLAIN, server_frame

TEXT, BINARY = 1, 2

# A careless client library would turn these into something else.
AWKWARD = [b"", b"42", b"007", b"1.50", b"1_000", b"\0", b"a\0b", b" x ", b"\r\n", b"None"]


def parse_frame(frame: bytes) -> tuple[int, bytes]:
    """Opcode and payload of one unmasked, unfragmented frame, by RFC 6455, section 5.2."""
    first, second = frame[0], frame[1]
    assert first & 0x80, "FIN is not set"
    assert not first & 0x70, "a reserved bit is set"
    assert not second & 0x80, "a server must not mask"
    size, start = second & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(frame[2:4], "big"), 4
        assert size > 125, "the length is not in its shortest form"
    elif size == 127:
        size, start = int.from_bytes(frame[2:10], "big"), 10
        assert 65535 < size < 2**63, "the length is not in its shortest form"
    assert len(frame) == start + size, "the length is wrong"
    return first & 0x0F, frame[start:]


def is_utf8(payload: bytes) -> bool:
    try:
        payload.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return True


class ServerFrameTests(SynchronousTestCase):
    def test_every_size_is_framed_in_its_shortest_form_and_keeps_its_bytes(self) -> None:
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024):
            for letter, opcode in ((b"x", TEXT), (b"\xff", BINARY)):
                if not size and opcode == BINARY:
                    continue
                with self.subTest(size=size, opcode=opcode):
                    payload = letter * size
                    # Not assertEqual: its message would contain the payload.
                    self.assertTrue(parse_frame(server_frame(payload)) == (opcode, payload))

    def test_headers_are_2_4_and_10_bytes_long(self) -> None:
        for size, header in ((125, 2), (126, 4), (65535, 4), (65536, 10)):
            with self.subTest(size=size):
                self.assertEqual(len(server_frame(bytes(size))) - size, header)

    def test_valid_utf8_is_text(self) -> None:
        for payload in (
            *AWKWARD,
            "grüße".encode(),
            "日本".encode(),
            "😀".encode(),
            b"\xef\xbf\xbf",
        ):
            with self.subTest(payload=payload):
                self.assertEqual(parse_frame(server_frame(payload)), (TEXT, payload))

    def test_all_that_is_not_utf8_is_binary(self) -> None:
        for payload in (
            b"\xff",
            b"\x80",
            b"caf\xe9",
            b"\xc0\x80",  # an overlong NUL
            b"\xe2\x82",  # cut off
            b"\xed\xa0\x80",  # a surrogate
            b"\xed\xa0\xbd\xed\xb8\x80",  # a pair of them
            b"\xf4\x90\x80\x80",  # beyond Unicode
            b"x" * 70000 + b"\xff",
        ):
            with self.subTest(payload=payload[-8:]):
                self.assertTrue(parse_frame(server_frame(payload)) == (BINARY, payload))

    @settings(deadline=None, max_examples=150)
    @given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode)))
    def test_any_payload_comes_back_and_is_text_exactly_when_it_is_utf8(
        self, payload: bytes
    ) -> None:
        opcode = TEXT if is_utf8(payload) else BINARY
        self.assertEqual(parse_frame(server_frame(payload)), (opcode, payload))

    @settings(deadline=None, max_examples=20)
    @given(st.integers(0, 70000), st.binary(min_size=1, max_size=3))
    def test_any_length_comes_back(self, size: int, tail: bytes) -> None:
        payload = b"x" * size + tail
        self.assertTrue(parse_frame(server_frame(payload))[1] == payload)

    def test_a_subclass_of_bytes_is_framed_as_plain_bytes(self) -> None:
        frame = server_frame(PersistedMessage(b"x", b"c"))
        self.assertEqual((type(frame), frame), (bytes, b"\x81\x01x"))


class PublicationTests(SynchronousTestCase):
    def test_its_frame_is_that_of_its_payload(self) -> None:
        for payload in (*AWKWARD, b"\xff"):
            self.assertEqual(Publication(b"c", payload).form(PLAIN), server_frame(payload))

    def test_it_keeps_a_form_once_it_is_made(self) -> None:
        publication = Publication(b"c", b"x")
        self.assertNotIn(PLAIN, publication.forms)
        self.assertIs(publication.form(PLAIN), publication.forms[PLAIN])

    def test_it_has_no_sender_unless_told(self) -> None:
        sender = object()
        self.assertIsNone(Publication(b"c", b"x").sender)
        self.assertIs(Publication(b"c", b"x", sender).sender, sender)


class RedisMessageTests(SynchronousTestCase):
    def test_it_is_the_bytes_that_travel(self) -> None:
        for payload in (*AWKWARD, b"\xff\xfe"):
            with self.subTest(payload=payload):
                message = RedisMessage(payload)
                self.assertEqual(message, payload)
                self.assertIsInstance(message, bytes)

    def test_a_str_travels_as_utf8(self) -> None:
        self.assertEqual(RedisMessage("grüße"), "grüße".encode())
        self.assertEqual(RedisMessage(""), b"")

    def test_whatever_holds_bytes_is_taken(self) -> None:
        for kind in (bytearray, memoryview, RedisMessage):
            self.assertEqual(RedisMessage(kind(b"x\0")), b"x\0")

    def test_what_is_no_message_is_a_type_error_that_names_its_type(self) -> None:
        for message in (None, 42, 1.5, True, ["x"], {"x": 1}, object()):
            with self.subTest(message=message):
                error = self.assertRaises(TypeError, RedisMessage, message)
                self.assertIn(type(message).__name__, str(error))

    def test_a_str_that_has_no_utf8_is_a_value_error(self) -> None:
        self.assertRaises(ValueError, RedisMessage, "\ud800")

    def test_it_survives_being_pickled_as_task_queues_do(self) -> None:
        message = pickle.loads(pickle.dumps(RedisMessage(b"\xff")))
        self.assertEqual((type(message), message), (RedisMessage, b"\xff"))


class PersistedMessageTests(SynchronousTestCase):
    def test_it_is_a_message_that_knows_its_channel(self) -> None:
        message = PersistedMessage(b"x", b"broadcast:f")
        self.assertIsInstance(message, RedisMessage)
        self.assertEqual((message, message.channel), (b"x", b"broadcast:f"))

    def test_equal_bytes_of_two_channels_keep_their_channels(self) -> None:
        one, other = PersistedMessage(b"x", b"a"), PersistedMessage(b"x", b"b")
        self.assertEqual((one.channel, other.channel), (b"a", b"b"))
