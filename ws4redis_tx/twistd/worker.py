"""A worker, one of several processes that serve the same sockets: its side of the parent's rules.

``workers`` describes what parent and worker say to each other. This module knows processes and
sockets, but neither websockets nor Redis nor Django.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone, ReactorNotRunning
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Port
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

# Seconds that an immediate stop may take.
_STOP_NOW_TIMEOUT = 5


# Its sockets


def inherited_endpoints(
    descriptions: tuple[str, ...],
    descriptors: list[int],
    make_endpoint: Callable[[Any, str], Any],
    reactor: Any,
) -> list[Any]:
    """Endpoints that serve the listening sockets ``descriptors``, one for each description.

    Only the kind of a description matters here, not its address.
    """
    return [
        # Only the process that systemd started may ask systemd for its sockets.
        make_endpoint(
            _AdoptingReactor(descriptor, reactor),
            "tcp:0" if description.startswith("systemd:") else description,
        )
        for description, descriptor in zip(descriptions, descriptors, strict=True)
    ]


class _AdoptingReactor:
    """The reactor, except that its ``listen…`` methods adopt the socket ``descriptor``."""

    def __init__(self, descriptor: int, reactor: Any) -> None:
        self._descriptor = descriptor
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, *_: Any, **__: Any) -> Any:
        return self._adopt(factory)

    def listenUNIX(self, address: str, factory: Any, *_: Any, **__: Any) -> Any:
        return self._adopt(factory)

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, *_: Any, **__: Any) -> Any:
        return self._adopt(TLSMemoryBIOFactory(contextFactory, False, factory))

    def _adopt(self, factory: Any) -> Any:
        with socket.socket(fileno=self._descriptor) as inherited:
            family, descriptor = inherited.family, inherited.fileno()
            if family != socket.AF_UNIX:
                return self._reactor.adoptStreamPort(descriptor, family, factory)
            port: Any = _InheritedUnixPort._fromListeningDescriptor(
                self._reactor, descriptor, factory
            )
            port.startListening()
            return port


class _InheritedUnixPort(unix.Port):
    """A port that leaves the file and the socket to the parent, which owns them.

    Twisted's own port would set the file's mode and the socket's backlog. At its end it would
    remove the file and shut the socket down for all processes.
    """

    _shouldShutdown = False
    factory: Any
    fileno: Any
    _preexistingSocket: Any

    def startListening(self) -> None:
        self.socket, self._preexistingSocket = self._preexistingSocket, None
        self.fileno = self.socket.fileno
        self.factory.doStart()
        self.connected = True
        self.numberAccepts = 100
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        Port.connectionLost(self, reason)


# Its end


def obey_parent(reactor: Any, stop_now: Callable[[], object]) -> None:
    """Stop when the parent says so. ``stop_now`` makes a stop in progress immediate."""

    def stop_gracefully(number: int, frame: Any) -> None:
        reactor.callFromThread(stop)

    def stop() -> bool:
        try:
            reactor.stop()
        except ReactorNotRunning:
            return False
        return True

    def stop_immediately() -> None:
        set_exit_alarm()
        if stop():
            reactor.addSystemEventTrigger("before", "shutdown", stop_now)
        else:
            stop_now()

    def begin() -> None:
        signal.signal(signal.SIGTERM, stop_gracefully)
        _ParentWatch(stop_immediately, reactor).startReading()

    # The reactor installs its own signal handlers when it starts, so replace them after that.
    reactor.callWhenRunning(begin)


def set_exit_alarm() -> None:
    """Have the system end this process after ``_STOP_NOW_TIMEOUT`` s, even if a thread hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_STOP_NOW_TIMEOUT)


class _ParentWatch(FileDescriptor):
    """Standard input. The parent holds its other end and never writes to it."""

    def __init__(self, ended: Callable[[], None], reactor: Any) -> None:
        super().__init__(reactor)
        self._ended = ended

    def fileno(self) -> int:
        return 0

    def doRead(self) -> Exception:
        return CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if reason.check(ConnectionDone):  # not when the reactor shuts down
            self._ended()
