"""Writing to a transport without waiting for the reactor's next turn. Knows Twisted's TCP inside.

``transport.write`` queues, asks epoll and sends in the next turn: three system calls a message, and
a fan-out that seems short but leaves all its sending to one long turn. What a socket takes at once
is given to it at once.
"""

from __future__ import annotations

import fcntl
import sys
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp


def immediate_write(transport: Any) -> Callable[[bytes], object]:
    """A function that writes like ``transport.write`` does, in order with it, but at once.

    For a plain socket; for what is encrypted or no socket, ``transport.write`` itself.
    """
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return _ImmediateWriter(transport).write
    write: Callable[[bytes], object] = transport.write
    return write


def unsent(transport: Any) -> int:
    """Bytes that the peer has yet to acknowledge, as far as the system tells: to see progress."""
    while transport is not None and not isinstance(transport, tcp.Connection):
        transport = getattr(transport, "transport", None)  # below TLS
    if transport is None:
        return 0
    waiting: int = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    try:
        queued = fcntl.ioctl(transport.socket.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return waiting
    return waiting + int.from_bytes(queued, sys.byteorder)


class _ImmediateWriter:
    __slots__ = ("_send", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._send = transport.socket.send

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport.dataBuffer or transport._tempDataBuffer or not transport.connected:
            transport.write(data)
            return
        try:
            sent = self._send(data)
        except OSError:
            sent = 0  # full, or lost: the transport finds out which
        if sent < len(data):
            transport.write(data[sent:])
