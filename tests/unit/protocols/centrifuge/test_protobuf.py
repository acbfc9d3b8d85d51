"""Messages in protobuf: they are those that the ``protobuf`` package reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from ws4redis_tx.protocols.centrifuge.wire.protobuf import Protobuf, decode, encode, varint
from ws4redis_tx.protocols.centrifuge.wire.schema import (
    COMMAND,
    EMULATION,
    FLAG,
    HISTORY_REQUEST,
    LIST,
    MAP,
    MESSAGE,
    NUMBER,
    RAW,
    REPLY,
    SIGNED,
    TEXT,
    Field,
    Malformed,
    Message,
    Values,
)

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError
except ImportError:
    descriptor_pb2 = None  # type: ignore[assignment]

ROOTS = {"Command": COMMAND, "Reply": REPLY, "Emulation": EMULATION}


def official(roots: dict[str, Message]) -> dict[str, Any]:
    """Classes of the ``protobuf`` package for our messages, by the names of their roots."""
    if descriptor_pb2 is None:
        raise SkipTest("The package protobuf is not installed.")
    proto = descriptor_pb2.FieldDescriptorProto
    kinds = {
        NUMBER: proto.TYPE_UINT64, SIGNED: proto.TYPE_INT64, FLAG: proto.TYPE_BOOL,
        TEXT: proto.TYPE_STRING, RAW: proto.TYPE_BYTES, MESSAGE: proto.TYPE_MESSAGE,
        LIST: proto.TYPE_MESSAGE, MAP: proto.TYPE_MESSAGE,
    }  # fmt: skip
    file = descriptor_pb2.FileDescriptorProto(name="ours.proto", package="ours", syntax="proto3")
    names: dict[int, str] = {}

    def declare(message: Message, wanted: str = "") -> str:
        name = names.get(id(message))
        if name is None:
            name = names[id(message)] = wanted or f"Message{len(names)}"
            declared = file.message_type.add(name=name)
            for field in message.fields:
                add(declared, field)
        return f".ours.{name}"

    def add(declared: Any, field: Field) -> None:
        single = field.kind not in (LIST, MAP)
        entry = declared.field.add(
            name=field.name,
            number=field.number,
            type=kinds[field.kind],
            label=proto.LABEL_OPTIONAL if single else proto.LABEL_REPEATED,
        )
        if field.kind == MAP:
            pair = "".join(word.title() for word in field.name.split("_")) + "Entry"
            nested = declared.nested_type.add(name=pair)
            nested.options.map_entry = True
            nested.field.add(name="key", number=1, type=proto.TYPE_STRING, label=1)
            kind = proto.TYPE_STRING if field.message is None else proto.TYPE_MESSAGE
            value = nested.field.add(name="value", number=2, type=kind, label=1)
            if field.message is not None:
                value.type_name = declare(field.message)
            entry.type_name = f".ours.{declared.name}.{pair}"
        elif field.message is not None:
            entry.type_name = declare(field.message)

    for name, message in roots.items():
        declare(message, name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ours.{name}"))
        for name in roots
    }


def fill(target: Any, values: Values, message: Message) -> Any:
    """Set the fields of an official message."""
    target.SetInParent()
    for name, value in values.items():
        field = message.by_name[name]
        into = getattr(target, name)
        if field.kind == MESSAGE:
            assert field.message is not None
            fill(into, value, field.message)
        elif field.kind == LIST:
            assert field.message is not None
            for each in value:
                fill(into.add(), each, field.message)
        elif field.kind == MAP:
            for key, each in value.items():
                if field.message is None:
                    into[key] = each
                else:
                    fill(into[key], each, field.message)
        else:
            setattr(target, name, value)
    return target


def contents(source: Any, message: Message) -> Values:
    """The fields of an official message that are not empty."""
    values: Values = {}
    for field in message.fields:
        value = getattr(source, field.name)
        if field.kind == MESSAGE:
            assert field.message is not None
            if source.HasField(field.name):
                values[field.name] = contents(value, field.message)
        elif field.kind == LIST:
            assert field.message is not None
            found = [contents(each, field.message) for each in value]
            if found:
                values[field.name] = found
        elif field.kind == MAP:
            entries = {
                key: each if field.message is None else contents(each, field.message)
                for key, each in value.items()
            }
            if entries:
                values[field.name] = entries
        elif value:
            values[field.name] = value
    return values


def tidied(values: Values, message: Message) -> Values:
    """``values`` without what is empty, as the official package has them."""
    kept: Values = {}
    for name, value in values.items():
        field = message.by_name[name]
        if field.message is not None and field.kind == MESSAGE:
            kept[name] = tidied(value, field.message)
        elif value and field.message is not None and field.kind == LIST:
            kept[name] = [tidied(each, field.message) for each in value]
        elif value and field.message is not None:
            kept[name] = {key: tidied(each, field.message) for key, each in value.items()}
        elif value:
            kept[name] = value
    return kept


def any_of(message: Message) -> st.SearchStrategy[Values]:
    """Any values of a message's fields."""
    kinds: dict[int, Callable[[Field], st.SearchStrategy[Any]]] = {
        NUMBER: lambda field: st.integers(0, 2**64 - 1) | st.sampled_from([0, 127, 128, 2**63]),
        SIGNED: lambda field: st.integers(-(2**63), 2**63 - 1),
        FLAG: lambda field: st.booleans(),
        TEXT: lambda field: st.text(max_size=20) | st.just("x" * 300),
        RAW: lambda field: st.binary(max_size=20) | st.just(b"\xff" * 20_000),
        MESSAGE: lambda field: any_of(_of(field)),
        LIST: lambda field: st.lists(any_of(_of(field)), max_size=3),
        MAP: lambda field: st.dictionaries(
            st.text(max_size=5),
            st.text(max_size=5) if field.message is None else any_of(_of(field)),
            max_size=3,
        ),
    }
    return st.fixed_dictionaries(
        {}, optional={field.name: kinds[field.kind](field) for field in message.fields}
    )


def _of(field: Field) -> Message:
    assert field.message is not None
    return field.message


def read(payload: bytes) -> list[Any]:
    """The commands of a payload; the last element is ``Malformed`` if it has a mistake."""
    found: list[Any] = []
    try:
        for command in Protobuf().read(payload):
            found.append(command)
    except Malformed:
        found.append(Malformed)
    return found


class OfficialTests(SynchronousTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.classes = official(ROOTS)

    def check(self, name: str, values: Values) -> None:
        message, kind = ROOTS[name], self.classes[name]
        wanted = tidied(values, message)
        written = encode(values, message)
        self.assertEqual(contents(kind.FromString(written), message), wanted)
        theirs = fill(kind(), values, message).SerializeToString()
        self.assertEqual(tidied(decode(theirs, message), message), wanted)
        self.assertEqual(tidied(decode(written, message), message), wanted)

    @settings(deadline=None)
    @given(any_of(COMMAND))
    def test_commands_are_those_of_the_official_package(self, values: Values) -> None:
        self.check("Command", values)

    @settings(deadline=None)
    @given(any_of(REPLY))
    def test_so_are_replies_and_pushes(self, values: Values) -> None:
        self.check("Reply", values)

    @settings(deadline=None)
    @given(any_of(EMULATION))
    def test_so_are_the_messages_of_emulation(self, values: Values) -> None:
        self.check("Emulation", values)

    @settings(deadline=None)
    @given(any_of(COMMAND), any_of(COMMAND))
    def test_a_message_in_two_parts_is_merged(self, first: Values, second: Values) -> None:
        written = encode(first, COMMAND) + encode(second, COMMAND)
        theirs = self.classes["Command"].FromString(written)
        self.assertEqual(tidied(decode(written, COMMAND), COMMAND), contents(theirs, COMMAND))

    @settings(deadline=None)
    @given(
        st.binary(max_size=40)
        | st.builds(lambda v, s: encode(v, COMMAND) + s, any_of(COMMAND), st.binary(max_size=8))
    )
    def test_bytes_that_we_read_mean_the_same_to_it(self, data: bytes) -> None:
        try:
            ours = tidied(decode(data, COMMAND), COMMAND)
        except Malformed:
            return
        try:
            theirs = self.classes["Command"].FromString(data)
        except DecodeError:
            return  # it is stricter
        self.assertEqual(ours, contents(theirs, COMMAND))

    @settings(deadline=None)
    @given(st.lists(any_of(COMMAND), min_size=1, max_size=4))
    def test_a_frame_has_messages_each_behind_its_length(self, commands: list[Values]) -> None:
        written = [
            fill(self.classes["Command"](), each, COMMAND).SerializeToString() for each in commands
        ]
        frame = b"".join(varint(len(each)) + each for each in written)
        found = [tidied(each, COMMAND) for each in read(frame)]
        self.assertEqual(found, [tidied(each, COMMAND) for each in commands])

    def test_numbers_of_64_bits_survive_with_their_sign(self) -> None:
        for offset in (0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1):
            self.check("Command", {"subscribe": {"offset": offset}})
        for limit in (-1, -(2**63), 2**63 - 1, -(2**31)):
            self.check("Command", {"history": {"limit": limit}})


class WireTests(SynchronousTestCase):
    def test_an_empty_frame_is_refused_and_an_empty_message_is_a_pong(self) -> None:
        self.assertEqual(read(b""), [Malformed])
        self.assertEqual(read(b"\0"), [{}])
        self.assertEqual(read(b"\0\0"), [{}, {}])

    def test_commands_before_a_mistake_are_read(self) -> None:
        self.assertEqual(read(b"\x02\x08\x07" + b"\x05\x08"), [{"id": 7}, Malformed])

    def test_lengths_and_numbers_that_are_cut_off_or_too_long_are_refused(self) -> None:
        for payload in (
            b"\x01", b"\x80", b"\xff" * 9, b"\xff" * 12, b"\x01\x08", b"\x02\x08\x80",
            b"\x0c\x08" + b"\xff" * 10 + b"\x01",  # a number of eleven bytes
            b"\x02\x22\x01",  # a message in it ends behind it
            b"\x03\x22\x05\x0a", b"\x02\x0d\x01", b"\x03\x09\x01\x02",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x08\x01",
        ):  # fmt: skip
            self.assertEqual(read(payload), [Malformed], payload)

    def test_a_number_inside_a_message_ends_inside_it(self) -> None:
        # The offset's last byte stands behind the end of `since`.
        with self.assertRaises(Malformed):
            decode(varint(8 << 3 | 2) + b"\x02\x08\x80\x01", HISTORY_REQUEST)

    def test_unknown_fields_of_any_form_are_skipped(self) -> None:
        unknown = b"".join([
            varint(200 << 3 | 0) + b"\x05", varint(200 << 3 | 1) + b"8bytes!!",
            varint(200 << 3 | 2) + b"\x03abc", varint(200 << 3 | 5) + b"four",
        ])  # fmt: skip
        message = unknown + b"\x08\x07" + unknown
        self.assertEqual(read(varint(len(message)) + message), [{"id": 7}])

    def test_a_field_in_another_form_is_an_unknown_one(self) -> None:
        message = b"\x0a\x01a" + varint(5 << 3 | 0) + b"\x01"  # `id` with bytes, `subscribe` 1
        self.assertEqual(read(varint(len(message)) + message), [{}])

    def test_groups_and_field_zero_are_refused(self) -> None:
        for message in (b"\x0b\x0c", b"\x0c", b"\x0e\x00", b"\x0f\x00", b"\x00\x01", b"\x02\x00"):
            self.assertEqual(read(varint(len(message)) + message), [Malformed], message)

    def test_a_text_that_is_not_utf_8_is_refused_and_data_is_any_bytes(self) -> None:
        channel = varint(7 << 3 | 2) + b"\x04\x0a\x02\xff\xfe"
        self.assertEqual(read(varint(len(channel)) + channel), [Malformed])
        data = varint(7 << 3 | 2) + b"\x04\x12\x02\xff\xfe"
        self.assertEqual(read(varint(len(data)) + data), [{"publish": {"data": b"\xff\xfe"}}])
        surrogate = varint(7 << 3 | 2) + b"\x05\x0a\x03\xed\xa0\x80"
        self.assertEqual(read(varint(len(surrogate)) + surrogate), [Malformed])

    def test_messages_are_joined_with_nothing_between(self) -> None:
        format = Protobuf()
        written = [format.write({"id": each}) for each in (1, 300)]
        self.assertEqual(format.join(written), b"\x02\x08\x01\x03\x08\xac\x02")
        self.assertEqual(format.write({}), b"\0")
