"""Sending without a Python call for each receiver: the parts that this room's modules share."""

from __future__ import annotations

from typing import Any, Protocol

from ws4redis_tx.core.interfaces import NO_SOCKET, ISocket


class IDirect(Protocol):
    """A client's socket, as its ``Feed`` shows it."""

    codec: Any
    """The ``ICodec`` of its messages; ``None``: they must be handed to the listener itself."""

    socket: ISocket
    """The client's socket, or ``NO_SOCKET`` while messages must be handed to the listener.
    ``CHANGES`` counts each time that it is set.
    """

    def leave(self, data: bytes, sent: int) -> None:
        """Take the rest of ``data``, of which the socket took ``sent`` bytes."""


class _Careful:
    """Of a listener that must be handed all messages itself."""

    codec: Any = None
    socket: ISocket = NO_SOCKET

    def leave(self, data: bytes, sent: int) -> None:
        raise AssertionError("nothing was sent")


CAREFUL = _Careful()


class _Changes:
    """Counts the events of this process that can make a socket that was looked up earlier the
    wrong one to write to: an outbox's ``socket`` or a feed's ``direct`` was set, or a listener left
    a channel.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0


CHANGES = _Changes()


class IUnsettled(Protocol):
    """Counts messages of its receivers that are not in their ``written`` yet."""

    def settle(self) -> None:
        """Bring the ``written`` of each receiver up to date."""


UNSETTLED: set[IUnsettled] = set()


def settle_all() -> None:
    """Bring every feed's ``written`` up to date. Not exact while a listener is being called: those
    who were served just before it are counted a moment later.
    """
    for each in tuple(UNSETTLED):
        each.settle()
