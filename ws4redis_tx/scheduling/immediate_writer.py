"""Writing to a transport at once. Knows the inside of Twisted's TCP transport.

``transport.write`` queues, asks epoll and sends in the next turn: three system calls a message, and
a fan-out that seems short but leaves all its sending to one long turn. Here a socket is given at
once what it takes at once.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import tcp

from ws4redis_tx.core.interfaces import NO_SOCKET, ISocket, IWriter


def immediate_writer(transport: Any) -> IWriter:
    """A writer that sends at once. From then on everything must be written through it: a frame that
    is written to ``transport`` could end up inside another.

    Only a plain TCP socket has one; any other ``transport`` is returned as it is.
    """
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return _ImmediateWriter(transport)
    writer: IWriter = transport
    return writer


def unsent(transport: Any) -> int:
    """Bytes that the peer has not acknowledged yet, as far as the system tells."""
    connection = tcp_connection(transport)
    if connection is None:
        return 0
    waiting: int = len(connection.dataBuffer) - connection.offset + connection._tempDataLen
    try:
        import fcntl
        import termios

        queued = fcntl.ioctl(connection.socket.fileno(), termios.TIOCOUTQ, bytes(4))
    except (AttributeError, ImportError, OSError, ValueError):  # no socket; Windows has no module
        return waiting
    return waiting + int.from_bytes(queued, sys.byteorder)


def unsent_pieces(transport: Any) -> list[bytes]:
    """What ``transport`` keeps because the system has not taken it yet."""
    pieces: list[bytes] = list(getattr(transport, "_appSendBuffer", ()))  # of TLS
    connection = tcp_connection(transport)
    if connection is not None:
        pieces += [connection.dataBuffer, *connection._tempDataBuffer]
    return [each for each in pieces if each]


def discard_unsent(transport: Any) -> None:
    """Free what is kept for a connection that was lost. Garbage collection may come late."""
    if hasattr(transport, "_appSendBuffer"):
        transport._appSendBuffer = []
    connection = tcp_connection(transport)
    if connection is not None:
        connection.dataBuffer, connection.offset = b"", 0
        connection._tempDataBuffer, connection._tempDataLen = [], 0


def tcp_connection(transport: Any) -> Any:
    """The TCP connection below ``transport``, which may be TLS or a wrapper, if there is one."""
    while transport is not None and not isinstance(transport, tcp.Connection):
        transport = getattr(transport, "transport", None)
    return transport


class _ImmediateWriter:
    """An ``IDirectWriter``."""

    # The transport is not looked at as long as it has nothing to send.
    __slots__ = ("_socket", "_transport", "direct")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._socket: ISocket = transport.socket
        self.direct: ISocket = NO_SOCKET

    def write(self, data: bytes) -> None:
        if self.direct is NO_SOCKET:
            transport = self._transport
            if transport.dataBuffer or transport._tempDataBuffer:
                transport.write(data)
                return
            self.direct = self._socket
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0  # full, or lost: the transport finds out which
        if sent < len(data):
            self.leave(data, sent)

    def leave(self, data: bytes, sent: int) -> None:
        """Leave the rest to the transport, as its ``write`` does, but without a copy: other clients
        may keep the same bytes.
        """
        self.direct = NO_SOCKET
        transport = self._transport
        if transport.connected and not transport._writeDisconnected:
            transport.dataBuffer, transport.offset = data, sent
            transport._maybePauseProducer()
            transport.startWriting()
