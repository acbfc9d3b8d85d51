"""What an application's hooks are told, and hooks that do nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ws4redis_tx.core.interfaces import Answer, IConnection


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was answered with an HTTP ``status``.

    ``reason`` is what the client was told, ``detail`` what the log says besides. ``path`` is the
    URL's, percent-encoded and without the query, ``peer`` the client's address; both are ``""``
    where the request was not even read.
    """

    status: int
    reason: str
    detail: str = ""
    path: str = ""
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Closing:
    """How a websocket ended, and what there was until then.

    ``code`` and ``reason`` are those of the close frame that came first, the server's if
    ``by_server``: 1005 for one without a code, 1006 where there was none, with a ``reason`` that
    is no client's. Where a client's close waits for a hook and the server closes, it is the
    server's. ``clean``: both sides sent one. ``sent`` counts the messages handed to the socket,
    ``received`` those of the client, heartbeats left out of both, ``dropped`` those that gave way
    as it did not read; ``seconds`` is how long it was open.
    """

    code: int
    reason: str
    by_server: bool
    clean: bool
    sent: int
    received: int
    dropped: int
    seconds: float


class NullHooks:
    """``IHooks`` that do nothing: a base for those that want to know of some events only."""

    def connected(self, connection: IConnection, /) -> object:
        return None

    def refused(self, refusal: Refusal, /) -> object:
        return None

    def message(self, connection: IConnection, message: bytes, /) -> Answer:
        return message

    def closed(self, connection: IConnection, closing: Closing, /) -> object:
        return None
