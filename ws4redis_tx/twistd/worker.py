"""One of several processes that serve the same sockets: its dealings with its parent, ``workers``,
which tells what they say to each other.

Knows processes and sockets; neither websockets nor Redis nor Django.
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

# How long we may take for an end at once, in seconds.
_AT_ONCE = 5


# Its sockets


def inherited_endpoints(
    descriptions: tuple[str, ...],
    descriptors: list[int],
    make_endpoint: Callable[[Any, str], Any],
    reactor: Any,
) -> list[Any]:
    """Endpoints that serve the listening sockets ``descriptors``, one for each description, of
    which only the kind still counts.
    """
    return [
        # Only the process that systemd started may ask for its sockets.
        make_endpoint(
            _Adopting(descriptor, reactor),
            "tcp:0" if description.startswith("systemd:") else description,
        )
        for description, descriptor in zip(descriptions, descriptors, strict=True)
    ]


class _Adopting:
    """The reactor, but whoever wants to listen gets the socket ``descriptor``."""

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
    """Twisted's would set the file's mode and the length of the queue, and in the end remove the
    file and shut the socket down for all. The file and the socket are the parent's.
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
    """End when the parent says so. ``stop_now`` has a stop that is under way wait for nobody."""

    def by_and_by(number: int, frame: Any) -> None:
        reactor.callFromThread(stop)

    def stop() -> bool:
        try:
            reactor.stop()
        except ReactorNotRunning:
            return False
        return True

    def at_once() -> None:
        end_soon()
        if stop():
            reactor.addSystemEventTrigger("before", "shutdown", stop_now)
        else:
            stop_now()

    def begin() -> None:
        signal.signal(signal.SIGTERM, by_and_by)
        _Lifeline(at_once, reactor).startReading()

    # Once it runs, the reactor has put its own handlers in place.
    reactor.callWhenRunning(begin)


def end_soon() -> None:
    """Whatever may hang, such as a view in a thread: the system ends this process then."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_AT_ONCE)


class _Lifeline(FileDescriptor):
    """Standard input, whose other end the parent holds; nothing is ever written into it."""

    def __init__(self, ended: Callable[[], None], reactor: Any) -> None:
        super().__init__(reactor)
        self._ended = ended

    def fileno(self) -> int:
        return 0

    def doRead(self) -> Exception:
        return CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if reason.check(ConnectionDone):  # and not the reactor's own end
            self._ended()
