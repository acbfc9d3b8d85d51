"""Sending without a Python call for each receiver: the parts that all of this room share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ws4redis_tx.core.interfaces import takes_nothing


class IDirect(Protocol):
    """The attribute ``direct`` of a listener. Such a listener also counts what it was sent, in its
    attribute ``written``.
    """

    codec: Any
    """The ``ICodec`` of its messages; ``None``: they must be handed to the listener itself."""

    send: Callable[[bytes], int]
    """The socket's own ``send``, or ``takes_nothing`` while messages must be handed to the
    listener. ``CHANGES`` counts each time that it is set.
    """

    def leave(self, data: bytes, sent: int) -> None:
        """Take the rest of ``data``, of which ``send`` took ``sent`` bytes."""


class _Careful:
    """Of a listener that must be handed all messages itself."""

    codec: Any = None
    send = staticmethod(takes_nothing)

    def leave(self, data: bytes, sent: int) -> None:
        raise AssertionError("nothing was sent")


CAREFUL = _Careful()


class _Changes:
    """Counts whatever may make a ``send`` that was looked up earlier the wrong one to call: in this
    process, a ``send`` was set, or a listener left a channel.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


CHANGES = _Changes()
