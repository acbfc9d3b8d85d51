"""The listening socket, which outlives a reload."""

from __future__ import annotations

import errno
import os
import socket


def bind(host: str, port: int, ipv6: bool) -> socket.socket:
    """A TCP socket at that address, which does not listen yet. Raises ``OSError`` with a sentence
    for the user.
    """
    bound = socket.socket(socket.AF_INET6 if ipv6 else socket.AF_INET)
    try:
        if os.name == "posix":  # on Windows it would let two servers share a port
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except (OSError, OverflowError) as error:
        bound.close()
        raise _explained(error, host, port) from error
    return bound


def listen(bound: socket.socket) -> None:
    """Let clients connect. Raises ``OSError`` as ``bind`` does: another socket may have been bound
    to the same address, and listen there by now.
    """
    host, port = bound.getsockname()[:2]
    try:
        bound.listen(_BACKLOG)
    except OSError as error:
        raise _explained(error, host, port) from error


_BACKLOG = 2048  # clients that wait during a reload


def _explained(error: OSError | OverflowError, host: str, port: int) -> OSError:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        remedy = f"Stop the other server there, or choose another port: runserver {port + 1}."
        return OSError(f"{place} is in use already. {remedy}")
    if number == errno.EACCES:
        return OSError(f"You may not listen on {place}. Choose a port above 1023.")
    return OSError(f"{place} cannot be listened on: {getattr(error, 'strerror', None) or error}.")
