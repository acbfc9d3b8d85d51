"""Publications as pushes, in the form and in the framing that a client has chosen."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from ws4redis_tx.core.messages import Arrival, IFraming, Publication
from ws4redis_tx.delivery.codecs import Codec
from ws4redis_tx.protocols.centrifuge.wire import json as json_format
from ws4redis_tx.protocols.centrifuge.wire.schema import CLIENT_INFO, Malformed, Values

TAG = "ws4redis"
"""The key of the tag that says how a payload that is not JSON is wrapped."""


class IFormat(Protocol):
    """The form of a client's messages: JSON or protobuf."""

    @property
    def binary(self) -> bool:
        """Whether its messages are bytes, and not text."""

    def read(self, payload: bytes) -> Iterator[Values]:
        """The commands of one payload. Raises ``Malformed`` at the first
        that is not a command."""

    def write(self, reply: Values) -> bytes:
        """One message."""

    def join(self, messages: Iterable[bytes]) -> bytes:
        """Several messages, as one payload."""


def describe(publication: Publication, format: IFormat) -> Values:
    """A publication as the protocol has it."""
    values: Values = {"data": publication.payload, "offset": publication.offset}
    if not format.binary:
        values["data"], wrapping = _as_json(publication.payload)
        if wrapping:
            values["tags"] = {TAG: wrapping}
    if publication.info:
        values["info"] = read_info(publication.info)
    if publication.offset == 1 and publication.began:
        values["epoch"] = epoch_text(publication.began)
    return values


def read_info(info: bytes) -> Values:
    """What is said of a client, with the JSON values in it as they are."""
    try:
        return json_format.decode(info, CLIENT_INFO)
    except Malformed:
        return {}


def epoch_text(began: int) -> str:
    return f"{began:x}"


def _as_json(payload: bytes) -> tuple[bytes, str]:
    """A payload as a JSON value, and how it is wrapped: ``""`` if it is one."""
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return json_format.text(base64.b64encode(payload).decode()), "base64"
    try:
        json_format.check(text)
    except Malformed:
        return json_format.text(text), "text"
    return payload.replace(b"\n", b"").strip(), ""


class PushCodec(Codec):
    """An ``ICodec``: each message is one push.

    :param name: the name of a channel as the client knows it.
    """

    __slots__ = ("format", "framing", "name")

    def __init__(self, format: IFormat, framing: IFraming, name: Callable[[bytes], str]) -> None:
        self.format = format
        self.framing = framing
        self.name = name

    def encode(self, publication: Publication, /) -> bytes:
        if publication.channel is None:
            data = describe(publication, self.format)["data"]
            return self.push({"message": {"data": data}})
        return self.under(self.name(publication.channel), publication)

    def under(self, name: str, publication: Publication) -> bytes:
        """The form of a publication on a channel that this client knows by ``name``."""
        if isinstance(publication, Arrival):
            told = {publication.event: {"info": read_info(publication.payload)}}
        else:
            told = {"pub": describe(publication, self.format)}
        return self.push({"channel": name, **told})

    def push(self, values: Values) -> bytes:
        return self.message({"push": values})

    def message(self, values: Values) -> bytes:
        """One message of any kind, framed."""
        return self.frame([self.format.write(values)])

    def frame(self, messages: Sequence[bytes]) -> bytes:
        format = self.format
        return self.framing.frame(format.join(messages), format.binary)
