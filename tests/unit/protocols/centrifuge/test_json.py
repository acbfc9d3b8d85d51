"""Messages in JSON: how frames are divided, and bytes that pass as they are."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.protocols.centrifuge.wire.json import Json, check, decode, encode
from ws4redis_tx.protocols.centrifuge.wire.schema import (
    CLIENT_INFO,
    COMMAND,
    PUBLICATION,
    REPLY,
    Malformed,
)


def read(payload: bytes) -> list[Any]:
    """The commands of a payload; the last element is ``Malformed`` if it has a mistake."""
    found: list[Any] = []
    try:
        for command in Json().read(payload):
            found.append(command)
    except Malformed:
        found.append(Malformed)
    return found


def raw(value: bytes) -> Any:
    """The bytes of ``data`` in a command, or ``Malformed``."""
    [command] = read(b'{"id":1,"publish":{"channel":"c","data":%b}}' % value)
    return command if command is Malformed else command["publish"]["data"]


class FrameTests(SynchronousTestCase):
    def test_a_frame_has_one_or_more_commands_each_on_a_line(self) -> None:
        self.assertEqual(read(b'{"id":1}'), [{"id": 1}])
        self.assertEqual(read(b'{"id":1}\n{"id":2}\n{}'), [{"id": 1}, {"id": 2}, {}])

    def test_one_newline_at_the_end_and_carriage_returns_are_allowed(self) -> None:
        self.assertEqual(read(b'{"id":1}\n'), [{"id": 1}])
        self.assertEqual(read(b'{"id":1}\r\n{"id":2}\r\n'), [{"id": 1}, {"id": 2}])

    def test_no_empty_line_is(self) -> None:
        for payload in (b"", b"\n", b'\n{"id":1}', b"\r\n", b" "):
            self.assertEqual(read(payload), [Malformed], payload)
        self.assertEqual(read(b'{"id":1}\n\n'), [{"id": 1}, Malformed])
        self.assertEqual(read(b'{"id":1}\n\n{"id":2}'), [{"id": 1}, Malformed])

    def test_commands_before_a_mistake_are_read(self) -> None:
        self.assertEqual(read(b'{"id":1}\n{"id":\n{"id":3}'), [{"id": 1}, Malformed])

    def test_only_objects_are_commands(self) -> None:
        for payload in (
            b"1", b'"a"', b"null", b"[]", b"[{}]", b"true", b"{", b"{}}", b"{} {}", b'{"id":1,}',
            b'{"id" 1}', b'{id:1}', b"{,}", b'{"id":1 "a":2}', b'{"id":1}{"id":2}', b"\xff",
            b'\xef\xbb\xbf{"id":1}', b'{"id":1}\x00', b'{"i\x01d":1}', b'{"a":nul}', b'{"a":NaN}',
            b'{"a":-Infinity}', b'{"id":nullx}', b'{"connect":{"token":"\xed\xa0\x80"}}',
        ):  # fmt: skip
            self.assertEqual(read(payload), [Malformed], payload)

    def test_blanks_are_free(self) -> None:
        self.assertEqual(
            read(b' {\t"id" : 1 , "send" : { "data" : {} } } \r'),
            [{"id": 1, "send": {"data": b"{}"}}],
        )

    def test_fields_that_are_not_known_are_ignored(self) -> None:
        payload = b'{"new":[{"a":[1e999,"\\ud800"]}],"id":1,"send":{"more":null,"data":1},"":2}'
        self.assertEqual(read(payload), [{"id": 1, "send": {"data": b"1"}}])

    def test_null_is_no_value(self) -> None:
        payload = b'{"id":null,"connect":{"token":null,"subs":null,"headers":{"a":null}}}'
        self.assertEqual(read(payload), [{"connect": {"headers": {"a": ""}}}])


class RawTests(SynchronousTestCase):
    def test_data_is_kept_byte_for_byte(self) -> None:
        for value in (
            b"null", b"true", b"0", b"-0", b"1e400", b"12345678901234567890123", b"1.50", b'""',
            b'"\\u00e9\\/\\ud83d\\ude00 \\ud800"', "\"é\U0001f600\u2028\"".encode(),
            b'{"a" : 1,  "a":2, "b":[ 1 ,\t2 ]}', b"[]", b"9" * 10_000, b'{"\\u0000":"\\n"}',
        ):  # fmt: skip
            self.assertEqual(raw(value), value)
            self.assertEqual(raw(b" \t" + value + b" "), value)

    def test_it_is_json(self) -> None:
        for value in (
            b"", b"nul", b"01", b".5", b"+1", b"1.", b"'a'", b'"\t"', b'"\\x"', b"[1,]", b"{1:2}",
            b"NaN", b"Infinity", b'"\xff"', b"undefined", b"[", b'{"a"}', b"1 2",
        ):  # fmt: skip
            self.assertEqual(raw(value), Malformed, value)

    def test_nesting_is_bounded_and_its_depth_harms_nobody(self) -> None:
        self.assertEqual(raw(b"[" * 200 + b"]" * 200), b"[" * 200 + b"]" * 200)
        for value in (b"[" * 60_000, b'{"a":' * 60_000, b"[" * 30_000 + b"]" * 30_000):
            self.assertEqual(raw(value), Malformed)
            self.assertEqual(read(b'{"new":' + value + b"}"), [Malformed])
            with self.assertRaises(Malformed):
                check(value.decode())

    def test_it_is_sent_as_it_is(self) -> None:
        for value in (b"null", b"1e400", b'{"a":1, "a":2}'):
            self.assertEqual(
                encode({"id": 3, "rpc": {"data": value}}, REPLY),
                b'{"id":3,"rpc":{"data":%b}}' % value,
            )


class ValueTests(SynchronousTestCase):
    def test_numbers_have_64_bits(self) -> None:
        def offset(digits: bytes) -> Any:
            [command] = read(b'{"history":{"since":{"offset":%b}}}' % digits)
            return command if command is Malformed else command["history"]["since"]["offset"]

        self.assertEqual(offset(b"0"), 0)
        self.assertEqual(offset(b"%d" % (2**64 - 1)), 2**64 - 1)
        for digits in (
            b"%d" % 2**64, b"99999999999999999999", b"1" * 5000, b"-1", b"1.0", b"1e3", b'"1"',
            b"true", b"[]", b"{}", b"01", b"",
        ):  # fmt: skip
            self.assertEqual(offset(digits), Malformed, digits)

    def test_a_limit_may_be_negative(self) -> None:
        def limit(digits: bytes) -> Any:
            [command] = read(b'{"history":{"limit":%b}}' % digits)
            return command if command is Malformed else command["history"]["limit"]

        self.assertEqual([limit(b"-1"), limit(b"%d" % -(2**63))], [-1, -(2**63)])
        self.assertEqual(limit(b"%d" % (2**63 - 1)), 2**63 - 1)
        self.assertEqual([limit(b"%d" % 2**63), limit(b"%d" % (-(2**63) - 1))], [Malformed] * 2)

    def test_each_field_has_its_type(self) -> None:
        for payload in (
            b'{"connect":{"token":123}}', b'{"connect":{"token":true}}', b'{"connect":[]}',
            b'{"connect":{"token":{}}}', b'{"subscribe":{"recover":1}}', b'{"connect":"a"}',
            b'{"subscribe":{"recover":"true"}}', b'{"connect":{"subs":[]}}', b'{"connect":1}',
            b'{"connect":{"subs":{"a":1}}}', b'{"connect":{"headers":{"a":1}}}', b'{"id":"1"}',
            b'{"connect":{"token":1.5}}', b'{"subscribe":{"offset":false}}', b'{"id":1.5}',
        ):  # fmt: skip
            self.assertEqual(read(payload), [Malformed], payload)

    def test_a_lone_surrogate_is_no_text(self) -> None:
        for text in (b'"\\ud800"', b'"a\\udc00b"', b'"\\ud800\\ud800"'):
            self.assertEqual(read(b'{"subscribe":{"channel":%b}}' % text), [Malformed], text)
            self.assertEqual(read(b'{"connect":{"subs":{%b:{}}}}' % text), [Malformed], text)
            self.assertEqual(read(b'{"connect":{"headers":{"a":%b}}}' % text), [Malformed], text)
        self.assertEqual(
            read(b'{"subscribe":{"channel":"\\ud83d\\ude00"}}'),
            [{"subscribe": {"channel": "\U0001f600"}}],
        )

    def test_the_last_of_repeated_fields_counts(self) -> None:
        self.assertEqual(read(b'{"id":1,"id":2}'), [{"id": 2}])

    def test_subscriptions_are_read_by_their_channels(self) -> None:
        payload = b'{"connect":{"subs":{"a":{"recover":true,"offset":7},"b":{},"c":null}}}'
        subs = {"a": {"recover": True, "offset": 7}, "b": {}, "c": {}}
        self.assertEqual(read(payload), [{"connect": {"subs": subs}}])


class WritingTests(SynchronousTestCase):
    def test_what_is_empty_is_left_out(self) -> None:
        values = {"id": 0, "subscribe": {"expires": False, "epoch": "", "data": b"", "ttl": 0}}
        self.assertEqual(encode(values, REPLY), b'{"subscribe":{}}')
        self.assertEqual(encode({}, REPLY), b"{}")

    def test_but_for_what_the_protocol_keeps(self) -> None:
        for values, written in (
            ({"history": {"publications": [], "offset": 0}}, '{"publications":[],"offset":0}'),
            ({"presence": {"presence": {}}}, '{"presence":{}}'),
            ({"presence_stats": {"num_clients": 0, "num_users": 0}},
             '{"num_clients":0,"num_users":0}'),
        ):  # fmt: skip
            [(name, _)] = values.items()
            self.assertEqual(encode(values, REPLY), f'{{"{name}":{written}}}'.encode())
        self.assertEqual(
            encode({"data": b"1", "info": {"user": "", "client": "c"}}, PUBLICATION),
            b'{"data":1,"info":{"user":"","client":"c"}}',
        )

    def test_numbers_keep_their_digits(self) -> None:
        most = 2**64 - 1
        self.assertEqual(encode({"offset": most}, PUBLICATION), b'{"offset":%d}' % most)
        self.assertEqual(decode(b'{"offset":%d}' % most, PUBLICATION), {"offset": most})

    def test_several_messages_are_lines(self) -> None:
        lines = [encode({"id": each}, REPLY) for each in (1, 2)]
        self.assertEqual(Json().join(lines), b'{"id":1}\n{"id":2}')

    @settings(deadline=None)
    @given(
        st.fixed_dictionaries(
            {"user": st.text()},
            optional={"client": st.text(min_size=1), "conn_info": st.just(b"[]")},
        )
    )
    def test_every_text_is_one_line_of_json(self, info: dict[str, Any]) -> None:
        written = encode(info, CLIENT_INFO)
        self.assertNotIn(b"\n", written)
        self.assertEqual(
            json.loads(written), {**info, **({"conn_info": []} if "conn_info" in info else {})}
        )
        self.assertEqual(decode(written, CLIENT_INFO), info)

    def test_a_command_survives(self) -> None:
        command = {
            "id": 2**32 - 1,
            "connect": {"token": "t", "subs": {"ä": {"offset": 1, "epoch": "e"}}, "data": b"[1]"},
        }
        self.assertEqual(read(encode(command, COMMAND)), [command])
