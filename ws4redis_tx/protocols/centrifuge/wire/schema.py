"""The messages of Centrifuge's client protocol, and the numbers that their fields have in protobuf.

A message is a ``dict`` from the names of fields to values. A field that is zero, false or empty is
left out. The value of a field of ``RAW`` is bytes: in JSON those of a JSON value, in protobuf any.
"""

from __future__ import annotations

from typing import Any, NamedTuple

NUMBER, SIGNED, FLAG, TEXT, RAW, MESSAGE, LIST, MAP = range(8)
"""Kinds of fields. Numbers have 64 bits, and only those of ``SIGNED`` may be negative. A list has
messages; a map is from texts to texts or messages.
"""

Values = dict[str, Any]
"""A message."""


class Malformed(Exception):
    """A client has sent something that is no message of the protocol."""


class Field(NamedTuple):
    number: int
    name: str
    kind: int
    message: Message | None = None
    """Of the values of ``MESSAGE``, ``LIST`` and ``MAP``; ``None``: a map of texts."""
    kept: bool = False
    """Whether JSON has it even if it is empty."""


class Message:
    """A kind of message."""

    def __init__(self, *fields: Field) -> None:
        self.fields = fields
        self.by_name = {each.name: each for each in fields}
        self.by_number = {each.number: each for each in fields}
        self.keys = {each.name: b'"%b":' % each.name.encode() for each in fields}
        """How a member of a JSON object begins."""


EMPTY = Message()
CHANNEL = Message(Field(1, "channel", TEXT))
TOKEN = Message(Field(1, "token", TEXT))
ERROR = Message(Field(1, "code", NUMBER), Field(2, "message", TEXT), Field(3, "temporary", FLAG))
CLIENT_INFO = Message(
    Field(1, "user", TEXT, kept=True),
    Field(2, "client", TEXT),
    Field(3, "conn_info", RAW),
    Field(4, "chan_info", RAW),
)
PUBLICATION = Message(
    Field(4, "data", RAW),
    Field(5, "info", MESSAGE, CLIENT_INFO),
    Field(6, "offset", NUMBER),
    Field(7, "tags", MAP),
    Field(9, "time", NUMBER),
    Field(14, "epoch", TEXT),
)
STREAM_POSITION = Message(Field(1, "offset", NUMBER), Field(2, "epoch", TEXT))
SUBSCRIBE_REQUEST = Message(
    Field(1, "channel", TEXT),
    Field(2, "token", TEXT),
    Field(3, "recover", FLAG),
    Field(6, "epoch", TEXT),
    Field(7, "offset", NUMBER),
    Field(8, "data", RAW),
    Field(9, "positioned", FLAG),
    Field(10, "recoverable", FLAG),
    Field(11, "join_leave", FLAG),
    Field(12, "delta", TEXT),
    Field(14, "flag", NUMBER),
    Field(15, "type", NUMBER),
)
SUBSCRIBE_RESULT = Message(
    Field(1, "expires", FLAG),
    Field(2, "ttl", NUMBER),
    Field(3, "recoverable", FLAG),
    Field(6, "epoch", TEXT),
    Field(7, "publications", LIST, PUBLICATION),
    Field(8, "recovered", FLAG),
    Field(9, "offset", NUMBER),
    Field(10, "positioned", FLAG),
    Field(11, "data", RAW),
    Field(12, "was_recovering", FLAG),
)
CONNECT_REQUEST = Message(
    Field(1, "token", TEXT),
    Field(2, "data", RAW),
    Field(3, "subs", MAP, SUBSCRIBE_REQUEST),
    Field(4, "name", TEXT),
    Field(5, "version", TEXT),
    Field(6, "headers", MAP),
)
CONNECT_RESULT = Message(
    Field(1, "client", TEXT),
    Field(2, "version", TEXT),
    Field(3, "expires", FLAG),
    Field(4, "ttl", NUMBER),
    Field(5, "data", RAW),
    Field(6, "subs", MAP, SUBSCRIBE_RESULT),
    Field(7, "ping", NUMBER),
    Field(8, "pong", FLAG),
    Field(9, "session", TEXT),
    Field(10, "node", TEXT),
    Field(11, "time", NUMBER),
)
HISTORY_REQUEST = Message(
    Field(1, "channel", TEXT),
    Field(7, "limit", SIGNED),
    Field(8, "since", MESSAGE, STREAM_POSITION),
    Field(9, "reverse", FLAG),
)
HISTORY_RESULT = Message(
    Field(1, "publications", LIST, PUBLICATION, kept=True),
    Field(2, "epoch", TEXT),
    Field(3, "offset", NUMBER, kept=True),
)
TTL = Message(Field(1, "expires", FLAG), Field(2, "ttl", NUMBER))
REFRESH_RESULT = Message(
    Field(1, "client", TEXT),
    Field(2, "version", TEXT),
    Field(3, "expires", FLAG),
    Field(4, "ttl", NUMBER),
)
PUBLISH_REQUEST = Message(Field(1, "channel", TEXT), Field(2, "data", RAW))
RPC_REQUEST = Message(Field(1, "data", RAW), Field(2, "method", TEXT))
DATA = Message(Field(1, "data", RAW))

COMMAND = Message(
    Field(1, "id", NUMBER),
    Field(4, "connect", MESSAGE, CONNECT_REQUEST),
    Field(5, "subscribe", MESSAGE, SUBSCRIBE_REQUEST),
    Field(6, "unsubscribe", MESSAGE, CHANNEL),
    Field(7, "publish", MESSAGE, PUBLISH_REQUEST),
    Field(8, "presence", MESSAGE, CHANNEL),
    Field(9, "presence_stats", MESSAGE, CHANNEL),
    Field(10, "history", MESSAGE, HISTORY_REQUEST),
    Field(11, "ping", MESSAGE, EMPTY),
    Field(12, "send", MESSAGE, DATA),
    Field(13, "rpc", MESSAGE, RPC_REQUEST),
    Field(14, "refresh", MESSAGE, TOKEN),
    Field(15, "sub_refresh", MESSAGE, Message(Field(1, "channel", TEXT), Field(2, "token", TEXT))),
)

_INFO = Message(Field(1, "info", MESSAGE, CLIENT_INFO))
PUSH = Message(
    Field(2, "channel", TEXT),
    Field(4, "pub", MESSAGE, PUBLICATION),
    Field(5, "join", MESSAGE, _INFO),
    Field(6, "leave", MESSAGE, _INFO),
    Field(7, "unsubscribe", MESSAGE, Message(Field(2, "code", NUMBER), Field(3, "reason", TEXT))),
    Field(8, "message", MESSAGE, DATA),
    Field(
        9,
        "subscribe",
        MESSAGE,
        Message(
            Field(1, "recoverable", FLAG),
            Field(4, "epoch", TEXT),
            Field(5, "offset", NUMBER),
            Field(6, "positioned", FLAG),
            Field(7, "data", RAW),
        ),
    ),
    Field(11, "disconnect", MESSAGE, Message(Field(1, "code", NUMBER), Field(2, "reason", TEXT))),
    Field(12, "refresh", MESSAGE, TTL),
)
REPLY = Message(
    Field(1, "id", NUMBER),
    Field(2, "error", MESSAGE, ERROR),
    Field(4, "push", MESSAGE, PUSH),
    Field(5, "connect", MESSAGE, CONNECT_RESULT),
    Field(6, "subscribe", MESSAGE, SUBSCRIBE_RESULT),
    Field(7, "unsubscribe", MESSAGE, EMPTY),
    Field(8, "publish", MESSAGE, EMPTY),
    Field(9, "presence", MESSAGE, Message(Field(1, "presence", MAP, CLIENT_INFO, kept=True))),
    Field(
        10,
        "presence_stats",
        MESSAGE,
        Message(
            Field(1, "num_clients", NUMBER, kept=True),
            Field(2, "num_users", NUMBER, kept=True),
        ),
    ),
    Field(11, "history", MESSAGE, HISTORY_RESULT),
    Field(12, "ping", MESSAGE, EMPTY),
    Field(13, "rpc", MESSAGE, DATA),
    Field(14, "refresh", MESSAGE, REFRESH_RESULT),
    Field(15, "sub_refresh", MESSAGE, TTL),
)
EMULATION = Message(Field(1, "node", TEXT), Field(2, "session", TEXT), Field(3, "data", RAW))
