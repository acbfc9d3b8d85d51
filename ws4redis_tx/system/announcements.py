"""What others are told of this process: systemd, a pidfile, and the reader of its log."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import Logger

from ws4redis_tx import __version__
from ws4redis_tx.config.server_config import ServerConfig

_log = Logger()


# systemd


def tell_systemd(*states: str) -> None:
    """Send it ``states`` such as ``READY=1``, if it has asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifying:
            notifying.sendto("\n".join(states).encode(), socket.MSG_DONTWAIT, address)


def tell_systemd_reloading() -> None:
    """``READY=1`` has to follow."""
    tell_systemd("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


# The pidfile


def take_pidfile(twistd: Any, arguments: Sequence[str], replaces: bool) -> str | None:
    """The pidfile that this process has to write, which ``twistd`` then neither reads nor writes.

    In the foreground, and when it ``replaces`` another process, a pidfile says nothing about
    whether it may start. In the foreground it is only written if the command line names one. A
    daemon's first pidfile is left to ``twistd``.
    """
    if twistd is None or not twistd.get("pidfile"):
        return None
    foreground = bool(twistd["nodaemon"] or twistd["debug"])
    if not foreground and not replaces:
        return None
    path = os.path.abspath(twistd["pidfile"])
    twistd["pidfile"] = ""
    # Options may be abbreviated.
    asked = any(each.startswith("--pi") for each in arguments)
    return None if foreground and not asked else path


def write_pidfile(path: str, text: str | None = None) -> str:
    """Write our process id, or ``text``, and return what was there before: ``""`` for nothing."""
    file, before = Path(path), ""
    try:
        with suppress(FileNotFoundError):
            before = file.read_text()
        file.write_text(str(os.getpid()) if text is None else text)
    except (OSError, ValueError) as error:
        _log.warn("The pidfile cannot be written: {problem}", problem=str(error))
    return before


def remove_pidfile(path: str) -> None:
    """Remove it, unless it has become another process's."""
    try:
        if Path(path).read_text() == str(os.getpid()):
            os.unlink(path)
    except (OSError, ValueError) as error:
        _log.warn("The pidfile cannot be removed: {problem}", problem=str(error))


# The log


def versions() -> str:
    """Our version, and those of what we stand on, as far as it is installed."""
    found = [f"ws4redis_tx {__version__}"]
    for name in ("Twisted", "autobahn", "txredisapi", "Django"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {python_version()}"])


def listening_places(
    config: ServerConfig, addresses: Sequence[object], *, site: bool
) -> Iterator[str]:
    """What is where, for the log. ``addresses`` are those of ``config.listen``."""
    pairs = list(zip(config.listen, addresses, strict=True))
    hosts = [
        f"{'s' if description.startswith('ssl:') else ''}://{_host(address)}:{address.port}"
        for description, address in pairs
        if isinstance(address, IPv4Address | IPv6Address)
    ]
    for host in hosts:
        yield f"websockets at ws{host}{config.websocket_url}"
    for _, address in pairs:
        if isinstance(address, UNIXAddress) and address.name:
            yield f"websockets at unix:{os.fsdecode(address.name)}"
    for host in hosts if config.centrifuge_url else ():
        yield f"Centrifuge's protocol at ws{host}{config.centrifuge_url}websocket"
    for host in hosts if site else ():
        yield f"the site at http{host}/"


def _host(address: IPv4Address | IPv6Address) -> str:
    if address.host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{address.host}]" if isinstance(address, IPv6Address) else address.host
