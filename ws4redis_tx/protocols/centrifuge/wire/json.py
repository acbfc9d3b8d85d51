"""Messages as JSON objects, each on a line.

The value of a field of ``RAW`` is not interpreted: its bytes pass as they are, so that numbers keep
all their digits, and objects their repeated keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]
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


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


class _Digits(str):
    """A number as it was written: it may have more digits than Python converts."""

    __slots__ = ()


# Only integers are ever used.
_decoder = json.JSONDecoder(
    parse_int=_Digits, parse_float=lambda digits: ..., parse_constant=_refuse
)
_scan = _decoder.scan_once  # type: ignore[attr-defined]
_space = re.compile(r"[ \t\r\n]*")
_text = json.JSONEncoder(ensure_ascii=False).encode

_MOST_DIGITS = 20


class Json:
    """A client's messages, one a line."""

    binary = False

    def read(self, payload: bytes) -> Iterator[Values]:
        """The commands of one payload, in their order. Raises ``Malformed`` at the first
        that is not a command.
        """
        lines = payload.split(b"\n")
        if len(lines) > 1 and not lines[-1]:
            lines.pop()
        for line in lines:
            yield decode(line, COMMAND)

    def write(self, reply: Values) -> bytes:
        return encode(reply, REPLY)

    def join(self, messages: Iterable[bytes]) -> bytes:
        return b"\n".join(messages)


def encode(values: Values, message: Message) -> bytes:
    parts: list[bytes] = []
    fields, keys = message.by_name, message.keys
    for name, value in values.items():
        if value:
            parts.append(keys[name] + _value(value, fields[name]))
        elif value is not None and fields[name].kind == MESSAGE:
            parts.append(keys[name] + b"{}")
        elif value is not None and fields[name].kept:
            parts.append(keys[name] + _value(value, fields[name]))
    return b"{%b}" % b",".join(parts)


def _value(value: Any, field: Field) -> bytes:
    kind, message = field.kind, field.message
    if kind == RAW:
        raw: bytes = value
        return raw
    if kind == TEXT:
        return text(value)
    if kind == FLAG:
        return b"true"
    if kind in (NUMBER, SIGNED):
        return b"%d" % value
    if kind == MAP:
        entries = [
            b"%b:%b" % (text(key), text(each) if message is None else encode(each, message))
            for key, each in value.items()
        ]
        return b"{%b}" % b",".join(entries)
    assert message is not None
    if kind == LIST:
        return b"[%b]" % b",".join([encode(each, message) for each in value])
    return encode(value, message)


def text(value: str) -> bytes:
    """``value`` as a JSON string."""
    return _text(value).encode()


def decode(data: bytes, message: Message) -> Values:
    """Read one message. Fields that are not known are left out. Raises ``Malformed``."""
    try:
        source = data.decode()
        start = 0 if source.startswith("{") else _skip(source, 0)
        found, end = _scan(source, start)
        if end != len(source) and _skip(source, end) != len(source):
            raise Malformed("Something follows an object.")
        try:
            return _values(found, message)
        except _Raw:
            values, _ = _object(source, start, message)
    except (ValueError, RecursionError, StopIteration) as error:
        raise Malformed("Not JSON.") from error
    return values


class _Raw(Exception):
    """A value is wanted as it was written."""


def _values(found: Any, message: Message) -> Values:
    """Read a message from what Python's decoder has made of it. Raises ``_Raw``."""
    values: Values = {}
    fields = message.by_name
    for name, value in _members_of(found):
        field = fields.get(name)
        if field is None:
            continue
        _, _, kind, inner, _ = field
        if kind == RAW:
            raise _Raw
        if value is None:
            continue
        if kind == MESSAGE:
            assert inner is not None
            values[name] = _values(value, inner)
        elif kind == MAP:
            values[name] = {_checked(key): _entry(each, inner) for key, each in _members_of(value)}
        else:
            values[name] = _scalar(value, kind)
    return values


def _entry(value: Any, message: Message | None) -> Any:
    """The value of an entry of a map. Null is an empty one."""
    if message is not None:
        return _values({} if value is None else value, message)
    return _scalar("" if value is None else value, TEXT)


def _members_of(found: Any) -> Iterable[tuple[str, Any]]:
    if not isinstance(found, dict):
        raise Malformed("Not an object.")
    return found.items()


def check(source: str) -> None:
    """Raises ``Malformed`` for a text that is not one JSON value."""
    try:
        if _skip(source, _end(source, _skip(source, 0))) == len(source):
            return
    except (ValueError, RecursionError, StopIteration):
        pass
    raise Malformed("Not JSON.")


def _skip(source: str, index: int) -> int:
    match = _space.match(source, index)
    assert match is not None
    return match.end()


def _object(source: str, index: int, message: Message) -> tuple[Values, int]:
    values: Values = {}

    def read(key: str, start: int) -> int:
        field = message.by_name.get(key)
        if field is None:
            return _end(source, start)
        value, end = _read(source, start, field)
        if value is not None:
            values[key] = value
        return end

    return values, _members(source, index, read)


def _members(source: str, index: int, read: Callable[[str, int], int]) -> int:
    """Call ``read`` with each key of an object and the index of its value; it returns the value's
    end. Return the object's.
    """
    if source[index : index + 1] != "{":
        raise Malformed("Not an object.")
    index = _skip(source, index + 1)
    if source[index : index + 1] == "}":
        return index + 1
    while True:
        if source[index : index + 1] != '"':
            raise Malformed("A key is missing.")
        key, index = scanstring(source, index + 1, True)
        index = _skip(source, index)
        if source[index : index + 1] != ":":
            raise Malformed("A colon is missing.")
        index = _skip(source, read(key, _skip(source, index + 1)))
        mark, index = source[index : index + 1], index + 1
        if mark == "}":
            return index
        if mark != ",":
            raise Malformed("A comma is missing.")
        index = _skip(source, index)


def _end(source: str, index: int) -> int:
    end: int = _scan(source, index)[1]
    return end


def _read(source: str, index: int, field: Field) -> tuple[Any, int]:
    """The value of a field, ``None`` for null, and its end."""
    kind, message = field.kind, field.message
    if kind == RAW:
        end = _end(source, index)
        return source[index:end].encode(), end
    if source.startswith("null", index):
        return None, index + 4
    if kind == MESSAGE:
        assert message is not None
        return _object(source, index, message)
    if kind == MAP:
        entries: Values = {}
        value_field = Field(0, "", TEXT if message is None else MESSAGE, message)

        def read(key: str, start: int) -> int:
            value, end = _read(source, start, value_field)
            nothing: Any = "" if message is None else {}
            entries[_checked(key)] = nothing if value is None else value
            return end

        return entries, _members(source, index, read)
    value, end = _scan(source, index)
    return _scalar(value, kind), end


def _scalar(value: Any, kind: int) -> Any:
    if isinstance(value, _Digits):
        if kind in (NUMBER, SIGNED):
            return _number(value, signed=kind == SIGNED)
    elif kind == TEXT and isinstance(value, str):
        return _checked(value)
    elif kind == FLAG and isinstance(value, bool):
        return value
    raise Malformed("A field has another type.")


def _number(digits: str, *, signed: bool) -> int:
    if len(digits) <= _MOST_DIGITS:
        number = int(digits)
        if (-(1 << 63) if signed else 0) <= number < 1 << (63 if signed else 64):
            return number
    raise Malformed("Not a number of 64 bits.")


def _checked(value: str) -> str:
    value.encode()  # a lone surrogate is no text
    return value
