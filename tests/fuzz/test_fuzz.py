"""Arbitrary bytes from clients, in a handshake and after it, and from Redis; arbitrary faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain, pairwise
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz import targets
from tests.fuzz.conversations import STEPS, conversation
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.errors import BrokerRefused
from ws4redis_tx.protocols.centrifuge.wire.protobuf import varint
from ws4redis_tx.testing import client_frame


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data``, cut into pieces that arrive one by one."""
    inside = sorted({place for place in places if 0 < place < len(data)})
    return [data[start:end] for start, end in pairwise([0, *inside, len(data)])]


CUTS = st.lists(st.integers(1, 300), max_size=4)


def in_pieces(whole: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    return st.builds(cut, whole, CUTS)


def fuzz(examples: int, *arguments: Any, **named: Any) -> Callable[[Any], Any]:
    configured = settings(
        deadline=None,
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
    )
    return lambda test: configured(given(*arguments, **named)(test))


# Handshakes: each part is right, nearly right, or arbitrary.

ODD_BYTES = st.sampled_from(
    [b"\0", b"\n", b"\r", b"\r\n", b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x7f", b"\x85",
     b"\xff", b"\xe2\x80\xa8", b"%", b"%00", b"%ff", b"%2f", b":", b"\t", b" ", b"\xf0\x9f\x98\x80"]
)  # fmt: skip


def seasoned(*sensible: bytes) -> st.SearchStrategy[bytes]:
    """Mostly a sensible value, sometimes one with odd bytes in it, sometimes anything."""
    plain = st.sampled_from(sensible)
    odd = st.lists(plain | ODD_BYTES, max_size=5).map(b"".join)
    return st.one_of(*[plain] * 6, odd, st.binary(max_size=40))


METHODS = seasoned(b"GET", b"GET", b"GET", b"POST", b"HEAD", b"get")
VERSIONS = seasoned(b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2")
FACILITIES = seasoned(b"foobar", b"", b"a/b", b"a:b", b"%C3%A9", b"\xc3\xa9", b"x" * 300)
FLAGS = st.lists(
    seasoned(
        b"subscribe-broadcast", b"subscribe-user", b"subscribe-group", b"subscribe-session",
        b"publish-broadcast", b"publish-user", b"publish-session", b"echo", b"ECHO=1", b"a=b",
    ),
    max_size=4,
).map(b"&".join)  # fmt: skip
TARGETS = st.builds(
    lambda start, facility, mark, query: start + facility + mark + query,
    st.sampled_from([b"/ws/", b"/ws/", b"/ws/", b"/ws/", b"/", b"//ws/", b"http://localhost/ws/"]),
    FACILITIES,
    st.sampled_from([b"?", b"?", b"", b"??", b"#"]),
    FLAGS,
)
COOKIES = st.lists(
    seasoned(
        b"sessionid=JOHN", b"sessionid=JOHN", b"sessionid=", b"sessionid=" + b"a" * 32,
        b'sessionid="\\000\\377\\"', b"=", b";;", b"a", b"csrftoken=x",
    ),
    max_size=4,
).map(b"; ".join)  # fmt: skip
NAMES = seasoned(
    b"Cookie", b"Host", b"Origin", b"Upgrade", b"Connection", b"Content-Length", b"Sec_Key",
    b"Transfer-Encoding", b"X-Forwarded-For", b"X-Forwarded-Host", b"Remote_User", b"Content-Type",
    b"Sec-WebSocket-Extensions", b"Sec-WebSocket-Protocol", b"Sec-WebSocket-Key",
)  # fmt: skip
VALUES = seasoned(
    b"localhost", b"http://localhost", b"null", b"websocket", b"0", b"7", b"a, b", b"chunked",
    b"permessage-deflate; client_max_window_bits", b"http://[::1", b"text/plain; charset=\xff",
)  # fmt: skip


def head(fields: dict[bytes, bytes], method: bytes, target: bytes, version: bytes) -> bytes:
    lines = [name + b": " + value for name, value in fields.items()]
    return b"\r\n".join([b" ".join([method, target, version]), *lines, b"", b""])


FIELDS = st.fixed_dictionaries(
    {
        b"Host": seasoned(b"localhost", b"localhost", b"localhost:80", b"a.example.com", b"evil"),
        b"Upgrade": seasoned(b"websocket", b"websocket", b"WebSocket", b"h2c"),
        b"Connection": seasoned(b"Upgrade", b"Upgrade", b"keep-alive, upgrade"),
        b"Sec-WebSocket-Version": seasoned(b"13", b"13", b"13", b"8"),
        b"Sec-WebSocket-Key": seasoned(*[b"dGhlIHNhbXBsZSBub25jZQ=="] * 3, b"x", b"=" * 24),
    },
    optional={
        b"Cookie": COOKIES,
        b"Origin": seasoned(b"http://localhost", b"http://localhost", b"https://a.example.com"),
        b"Sec-WebSocket-Protocol": seasoned(b"chat", b"a, b", b"\xff", b","),
    },
)
MORE = st.dictionaries(NAMES, VALUES, max_size=3)
# Mostly fuzz one part at a time: with everything wrong, the server refuses too early.
GOOD_HEAD = handshake_bytes("/ws/foobar?subscribe-broadcast")
FRAMES_AFTER = st.just(b"") | st.binary(max_size=20)


def spoilt(data: bytes, places: list[tuple[int, bytes, int]]) -> bytes:
    """``data`` with some of its bytes replaced."""
    for place, odd, length in places:
        place %= len(data) + 1
        data = data[:place] + odd + data[place + length :]
    return data


SPOILS = st.lists(
    st.tuples(st.integers(0, 500), ODD_BYTES | st.binary(max_size=3), st.integers(0, 3)),
    max_size=3,
)


class HandshakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        from django.db import connections

        self.addCleanup(connections.close_all)

    def test_what_is_judged_reaches_every_step(self) -> None:
        answers = [
            targets.handshakes([handshake_bytes(target, **fields)])
            for target, fields in (
                ("/ws/foobar?subscribe-session&subscribe-user", {"Cookie": "sessionid=JOHN"}),
                ("/ws/%00", {}),
                ("/ws/foobar?subscribe-user", {}),
                ("/ws/foobar?subscribe-session", {}),
                ("/", {}),
                ("/ws/", {"Upgrade": None}),
            )
        ]
        answers.append(targets.handshakes([b"POST /ws/ HTTP/1.1\r\n\r\n"]))
        self.assertEqual(answers, [101, 400, 401, 403, 404, 426, 405])

    def test_a_request_line_is_answered_or_refused_by_the_contract(self) -> None:
        outcomes = set()
        good = dict(line.split(b": ") for line in GOOD_HEAD.split(b"\r\n")[1:-2])

        @fuzz(200, METHODS, TARGETS, VERSIONS, COOKIES, CUTS)
        def try_one(method: bytes, target: bytes, version: bytes, cookie: bytes, cuts: Any) -> None:
            data = head({**good, b"Cookie": cookie}, method, target, version)
            outcomes.add(targets.handshakes(cut(data, cuts)))

        try_one()
        self.assertLessEqual({101, 400}, outcomes)

    def test_headers_cookies_and_a_query_string_are_too(self) -> None:
        outcomes = set()

        @fuzz(300, FIELDS, MORE, TARGETS, CUTS)
        def try_one(fields: Any, more: Any, target: bytes, cuts: Any) -> None:
            data = head({**fields, **more}, b"GET", target, b"HTTP/1.1")
            outcomes.add(targets.handshakes(cut(data, cuts)))

        try_one()
        self.assertLessEqual({101, 400}, outcomes)

    def test_any_facility_is(self) -> None:
        outcomes = set()

        @fuzz(150, st.lists(FACILITIES | st.binary(max_size=80), max_size=5), FLAGS)
        def try_one(parts: list[bytes], flags: bytes) -> None:
            target = b"/ws/" + b"".join(parts) + b"?" + flags
            data = GOOD_HEAD.replace(b"/ws/foobar?subscribe-broadcast", target)
            outcomes.add(targets.handshakes([data]))

        try_one()
        self.assertLessEqual({101, 400}, outcomes)

    def test_so_are_any_bytes_at_all(self) -> None:
        outcomes = set()

        @fuzz(200, SPOILS, CUTS, FRAMES_AFTER)
        def try_one(spoils: Any, cuts: Any, after: bytes) -> None:
            pieces = cut(spoilt(GOOD_HEAD, spoils), cuts)
            outcomes.add(targets.handshakes([*pieces, *([after] if after else [])]))

        try_one()
        self.assertLessEqual({101, 400}, outcomes)

        @fuzz(100, in_pieces(st.binary(max_size=300)))
        def try_noise(pieces: list[bytes]) -> None:
            targets.handshakes(pieces)

        try_noise()


# Frames


def frame(first: int, size: int | None, mask: bytes, payload: bytes) -> bytes:
    """Any frame: any first byte, a size that may be wrong, a mask that may be missing."""
    real = len(payload) if size is None else size
    bit = 0x80 if mask else 0
    if real < 126:
        head = bytes([first, bit | real])
    elif real < 65536:
        head = bytes([first, bit | 126]) + real.to_bytes(2, "big")
    else:
        head = bytes([first, bit | 127]) + real.to_bytes(8, "big")
    if mask:
        payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return head + mask + payload


PAYLOADS = (
    st.binary(max_size=130)
    | st.text(max_size=40).map(str.encode)
    | st.sampled_from(
        [b"\x03\xe8", b"\x03\xf5", b"\x03\xfcbye", b"\x03\xe8\xff", b"\0", b"x" * 4097]
    )
    | st.integers(0, 65535).map(lambda code: code.to_bytes(2, "big"))
)
FRAMES = st.builds(
    frame,
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A]) | st.integers(0, 255),
    st.none() | st.none() | st.none() | st.integers(0, 1 << 63),
    st.sampled_from([b"\1\2\3\4", b"\0\0\0\0", b"\1\2\3\4", b""]),
    PAYLOADS,
)
CLOSING = st.builds(
    lambda code, reason: client_frame(8, code.to_bytes(2, "big") + reason),
    st.sampled_from([1000, 1001, 1014, 3000, 4999]),
    st.sampled_from([b"", b"bye", "é".encode()]),
)


class FrameTests(SynchronousTestCase):
    def test_what_is_judged_reaches_every_close_code(self) -> None:
        for code, opcode, payload in (
            (None, 1, b"hi"),
            (1005, 8, b""),
            (1014, 8, b"\x03\xf6"),
            (3000, 8, b"\x0b\xb8bye"),
            (1002, 8, b"\0"),
            (1002, 3, b""),
            (1007, 1, b"\xff"),
            (1009, 2, b"x" * 4097),
        ):
            self.assertEqual(targets.frames([client_frame(opcode, payload)]), code, payload)

    def test_whatever_follows_a_101_is_answered_with_whole_frames_or_a_close_code(self) -> None:
        outcomes = set()
        sane = st.sampled_from([client_frame(1, b"hi"), client_frame(2, b"\xff"), b""])

        @fuzz(300, in_pieces(st.lists(sane | FRAMES | CLOSING, max_size=5).map(b"".join)))
        def try_one(pieces: list[bytes]) -> None:
            outcomes.add(targets.frames(pieces))

        try_one()
        self.assertLessEqual({None, 1002}, outcomes)

        @fuzz(100, in_pieces(st.binary(max_size=200)))
        def try_noise(pieces: list[bytes]) -> None:
            targets.frames(pieces)

        try_noise()


# Centrifuge's protocol

KEYS = st.sampled_from(
    [b"id", b"connect", b"subscribe", b"publish", b"history", b"token", b"data", b"channel",
     b"subs", b"headers", b"since", b"offset", b"epoch", b"limit", b"recover", b"other", b"\\ud800"]
)  # fmt: skip


def objects(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.lists(st.tuples(KEYS, inner), max_size=4).map(
        lambda pairs: b"{" + b",".join(b'"%b":%b' % pair for pair in pairs) + b"}"
    )


JSON_VALUES = st.recursive(
    st.sampled_from(
        [b"null", b"true", b"0", b"-1", b"1e400", b"18446744073709551615", b"18446744073709551616",
         b'""', b'"\\ud800"', b'"a\\n"', b"[]", b"{}", "\"\u2028\"".encode(), b" 1\t", b"{", b"NaN"]
    )
    | st.text(max_size=5).map(lambda text: json.dumps(text, ensure_ascii=False).encode()),
    lambda inner: st.lists(inner, max_size=3).map(lambda each: b"[" + b",".join(each) + b"]")
    | objects(inner),
    max_leaves=6,
)  # fmt: skip


def sized(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


PROTOBUF_FIELDS = st.recursive(
    st.builds(lambda number, value: varint(number << 3) + varint(value),
              st.integers(1, 16), st.integers(0, 2**64 - 1))
    | st.builds(sized, st.integers(1, 16), st.binary(max_size=5)),
    lambda inner: st.builds(sized, st.integers(1, 16), st.lists(inner, max_size=3).map(b"".join)),
    max_leaves=6,
)  # fmt: skip


class CentrifugeTests(SynchronousTestCase):
    def test_any_commands_in_json_are_refused_or_mean_the_same_in_both_forms(self) -> None:
        numbers, lines = set(), objects(JSON_VALUES | objects(JSON_VALUES))
        frames = st.lists(lines | st.just(b"{}"), max_size=3).map(b"\n".join)

        @fuzz(400, frames, SPOILS)
        def try_one(frame: bytes, spoils: Any) -> None:
            numbers.add(targets.centrifuge_commands(False, frame))
            numbers.add(targets.centrifuge_commands(False, spoilt(frame, spoils)))

        try_one()
        self.assertLessEqual({0, 1, 2, 3}, numbers)

    def test_any_commands_in_protobuf_are_refused_or_mean_the_same(self) -> None:
        numbers = set()
        messages = st.lists(PROTOBUF_FIELDS, max_size=4).map(b"".join)
        frames = st.lists(messages, max_size=3).map(
            lambda each: b"".join(varint(len(one)) + one for one in each)
        )

        @fuzz(400, frames | st.binary(max_size=40), SPOILS)
        def try_one(frame: bytes, spoils: Any) -> None:
            numbers.add(targets.centrifuge_commands(True, frame))
            numbers.add(targets.centrifuge_commands(True, spoilt(frame, spoils)))

        try_one()
        self.assertLessEqual({0, 1, 2, 3}, numbers)

    def test_any_message_reaches_a_client_in_json(self) -> None:
        wrappings = set()

        @fuzz(300, JSON_VALUES | st.binary(max_size=20) | st.text(max_size=9).map(str.encode))
        def try_one(payload: bytes) -> None:
            wrappings.add(targets.centrifuge_push(payload))

        try_one()
        self.assertEqual(wrappings, {"", "text", "base64"})

    def test_whatever_a_client_says_and_meets_each_command_is_answered_once(self) -> None:
        numbers = set()
        steps = st.lists(
            st.tuples(st.integers(0, len(STEPS) - 1), st.integers(0, 255)), max_size=60
        )

        @fuzz(150, st.integers(0, 31), steps)
        def try_one(kind: int, steps: list[tuple[int, int]]) -> None:
            numbers.add(conversation(bytes([kind, *chain.from_iterable(steps)])))

        try_one()
        self.assertGreater(len(numbers), 1)

    def test_a_conversation_reaches_every_command(self) -> None:
        every = bytes(each for step in range(len(STEPS)) for each in (step, 1))
        self.assertGreater(conversation(b"\0" + every), 15)


# Redis


def array(values: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(values) + b"".join(values)


def bulk(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)


WORDS = st.sampled_from(
    [b"message", b"subscribe", b"unsubscribe", b"pong", b"PONG", b"pmessage", b"c", b"broadcast:f",
     b"user:u:f", b"PROBE", b"123", b"\xff", b""]
)  # fmt: skip
SCALARS = st.one_of(
    (WORDS | st.binary(max_size=20)).map(bulk),
    st.sampled_from(
        [b":1\r\n", b":-7\r\n", b"$-1\r\n", b"*-1\r\n", b"+OK\r\n", b"+PONG\r\n", b"-ERR no\r\n",
         b"-NOPERM no\r\n", b"-READONLY no\r\n", b"-BUSY no\r\n",
         b"-ERR unknown command\r\n", b"-LOADING\r\n", b"_\r\n", b"#t\r\n", b",1.5\r\n",
         b":99999999999999999999\r\n", b"+QUEUED\r\n", b"*0\r\n", b"(123\r\n", b"-\r\n", b"+\r\n",
         b"#f\r\n", b"%1\r\n*0\r\n*0\r\n"]
    ),
)  # fmt: skip
REPLIES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4).map(array), max_leaves=8)
# Nearly the expected reply.
KINDS = [b"message", b"subscribe", b"unsubscribe", b"pong"]
NEARLY = st.builds(
    lambda kind, rest: array([bulk(kind), *rest]),
    st.sampled_from(KINDS),
    st.lists(WORDS.map(bulk) | REPLIES, min_size=0, max_size=3),
)
SAID = REPLIES | NEARLY | st.binary(max_size=30)
RIGHT = b"".join(
    [array([bulk(b"subscribe"), bulk(b"c"), b":1\r\n"]), array([bulk(b"pong"), bulk(b"")]),
     array([bulk(b"unsubscribe"), bulk(b"c"), b":0\r\n"]), b"+PONG\r\n"]
)  # fmt: skip


class RedisTests(SynchronousTestCase):
    def test_nobody_who_asked_over_pubsub_waits_for_ever(self) -> None:
        heard = []
        message = array([bulk(b"message"), bulk(b"c"), bulk(b"hello")])
        right = st.sampled_from([message, RIGHT, message + RIGHT])
        parts = st.lists(SAID | right, max_size=6).map(b"".join)

        @fuzz(200, in_pieces(parts))
        def try_one(pieces: list[bytes]) -> None:
            heard.extend(targets.pubsub_replies(pieces))

        try_one()
        self.assertIn((b"c", b"hello"), heard)

    def test_nobody_who_asked_a_command_does(self) -> None:
        @fuzz(150, in_pieces(st.lists(SAID, max_size=6).map(b"".join)))
        def try_one(pieces: list[bytes]) -> None:
            targets.command_replies(pieces)

        try_one()

    def test_whatever_redis_says_websockets_work_once_it_speaks_sense(self) -> None:
        places = st.sampled_from(targets.PLACES)

        @fuzz(150, st.lists(st.tuples(places, SAID), min_size=1, max_size=5))
        def try_one(said: list[tuple[str, bytes]]) -> None:
            targets.broker(said)

        try_one()
        self.flushLoggedErrors(BrokerRefused)

    def test_whatever_goes_wrong_outside_the_last_message_arrives_once(self) -> None:
        amounts = st.integers(-7200, 7200)

        @fuzz(150, st.lists(st.tuples(st.sampled_from(targets.FAULTS), amounts), min_size=1))
        def try_one(steps: list[tuple[str, int]]) -> None:
            targets.faults(steps)

        try_one()
        self.flushLoggedErrors(BrokerRefused)
