"""Messages in protobuf's wire format, as far as this protocol has it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ws4redis_tx.protocols.centrifuge.wire.schema import (
    COMMAND,
    FLAG,
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

_VARINT, _FIXED64, _SIZED, _FIXED32 = 0, 1, 2, 5
_VARINTS = frozenset({NUMBER, SIGNED, FLAG})
_MASK = (1 << 64) - 1


class Protobuf:
    """A client's messages, each behind its length."""

    binary = True

    def read(self, payload: bytes) -> Iterator[Values]:
        """The commands of one payload, in their order. Raises ``Malformed`` at the first
        that is not a command.
        """
        if not payload:
            raise Malformed("An empty frame.")
        index = 0
        while index < len(payload):
            size, index = _read_varint(payload, index)
            if index + size > len(payload):
                raise Malformed("A message is cut off.")
            yield decode(payload, COMMAND, index, index + size)
            index += size

    def write(self, reply: Values) -> bytes:
        message = encode(reply, REPLY)
        return varint(len(message)) + message

    def join(self, messages: Iterable[bytes]) -> bytes:
        return b"".join(messages)


def varint(number: int) -> bytes:
    """Negative numbers have ten bytes, as protobuf has them."""
    number &= _MASK
    if number < 0x80:
        return bytes((number,))
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def encode(values: Values, message: Message) -> bytes:
    parts: list[bytes] = []
    for field in message.fields:
        value = values.get(field.name)
        if value is None:
            continue
        if field.kind in _VARINTS:
            if value:
                parts += (varint(field.number << 3 | _VARINT), varint(int(value)))
        elif field.kind == MAP:
            for key, each in value.items():
                parts += _sized(field.number, _entry(key, each, field))
        elif field.kind == LIST:
            assert field.message is not None
            for each in value:
                parts += _sized(field.number, encode(each, field.message))
        elif field.kind == MESSAGE or value:
            parts += _sized(field.number, _bytes_of(value, field))
    return b"".join(parts)


def _sized(number: int, content: bytes) -> tuple[bytes, bytes, bytes]:
    return varint(number << 3 | _SIZED), varint(len(content)), content


def _bytes_of(value: Any, field: Field) -> bytes:
    if field.message is not None:
        return encode(value, field.message)
    encoded: bytes = value.encode() if isinstance(value, str) else value
    return encoded


def _entry(key: str, value: Any, field: Field) -> bytes:
    content = _bytes_of(value, field)
    return b"".join([*_sized(1, key.encode()), *_sized(2, content)])


def decode(data: bytes, message: Message, index: int = 0, end: int | None = None) -> Values:
    """Read one message. Fields that are not known are left out. Raises ``Malformed``."""
    values: Values = {}
    _merge(values, data, message, index, len(data) if end is None else end)
    return values


def _merge(values: Values, data: bytes, message: Message, index: int, end: int) -> None:
    while index < end:
        tag, index = _read_varint(data, index)
        kind, field = tag & 7, message.by_number.get(tag >> 3)
        if tag >> 3 == 0:
            raise Malformed("A field has no number.")
        if kind == _VARINT:
            number, index = _read_varint(data, index)
            if field is not None and field.kind in _VARINTS:
                values[field.name] = _varint_value(number, field)
            continue
        if kind == _SIZED:
            size, index = _read_varint(data, index)
            if field is not None and index + size <= end and field.kind not in _VARINTS:
                _add(values, field, data, index, index + size)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise Malformed("A field has an unknown form.")
        index += size
        if index > end:
            raise Malformed("A field is cut off.")
    if index > end:
        raise Malformed("A field is cut off.")


def _add(values: Values, field: Field, data: bytes, start: int, end: int) -> None:
    if field.kind == MAP:
        entry = decode(data, _ENTRY, start, end)
        content = entry.get("value", b"")
        values.setdefault(field.name, {})[entry.get("key", "")] = (
            decode(content, field.message) if field.message else _text(content)
        )
    elif field.kind == LIST:
        assert field.message is not None
        values.setdefault(field.name, []).append(decode(data, field.message, start, end))
    elif field.kind == MESSAGE:
        assert field.message is not None
        _merge(values.setdefault(field.name, {}), data, field.message, start, end)
    elif field.kind == TEXT:
        values[field.name] = _text(data[start:end])
    else:
        values[field.name] = data[start:end]


_ENTRY = Message(Field(1, "key", TEXT), Field(2, "value", RAW))


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Malformed("A text is not UTF-8.") from None


def _varint_value(number: int, field: Field) -> int:
    if field.kind == FLAG:
        return bool(number)
    return number - (1 << 64) if field.kind == SIGNED and number >> 63 else number


def _read_varint(data: bytes, index: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if index >= len(data) or shift > 63:
            raise Malformed("A number is cut off, or too long.")
        digit = data[index]
        number |= (digit & 0x7F) << shift
        index += 1
        if digit < 0x80:
            return number & _MASK, index
        shift += 7
