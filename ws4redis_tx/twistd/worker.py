"""A worker, one of several processes that serve the same sockets: its side of the parent's rules.

``workers`` describes what parent and worker say to each other. This module knows processes and
sockets, but neither websockets nor Redis nor Django.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet import unix
from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.tcp import Port
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from ws4redis_tx.system.signals import PARENTS_SIGNALS, ignore, obey, set_exit_alarm, stop

# Its sockets


def inherited_endpoints(
    descriptions: tuple[str, ...],
    descriptors: Sequence[int | None],
    make_endpoint: Callable[[Any, str], Any],
    reactor: Any,
) -> list[Any]:
    """Endpoints that serve the listening sockets ``descriptors``, one for each description.

    Only the kind of a description matters here, not its address. An endpoint without a descriptor
    makes its own socket.
    """
    endpoints = []
    for description, descriptor in zip(descriptions, descriptors, strict=True):
        if descriptor is None:
            endpoints.append(make_endpoint(reactor, description))
        else:
            # Only the process that systemd started may ask systemd for its sockets.
            text = "tcp:0" if description.startswith("systemd:") else description
            endpoints.append(make_endpoint(_AdoptingReactor(descriptor, reactor), text))
    return endpoints


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
            port: Any = InheritedUnixPort._fromListeningDescriptor(
                self._reactor, descriptor, factory
            )
            port.startListening()
            return port


class InheritedUnixPort(unix.Port):
    """A port that leaves the file and the socket to another process, until it owns them.

    Twisted's own port would set the file's mode and the socket's backlog. At its end it would
    remove the file and shut the socket down for all processes.
    """

    _shouldShutdown = False
    _owned = False
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

    def own(self) -> None:
        """Remove the file at the end, and its lock, which the other process has passed on."""
        self._owned = True
        lock = self.getHost().name + b".lock"
        if os.path.islink(lock):
            self.lockFile = FilesystemLock(os.fsdecode(lock))

    def connectionLost(self, reason: Failure) -> None:
        (unix.Port if self._owned else Port).connectionLost(self, reason)


def let_go(port: Any, heir: int) -> None:
    """Have ``port`` close without an effect on the process ``heir``, which serves its socket."""
    port._shouldShutdown = False
    if isinstance(port, unix.Port):
        lock, port.lockFile = port.lockFile, None
        if lock is not None:
            passed_on = f"{os.fsdecode(lock.name)}.{heir}"
            with suppress(OSError):  # this process may have lost the right to write there
                os.symlink(str(heir), passed_on)
                os.replace(passed_on, lock.name)
        port.connectionLost = partial(Port.connectionLost, port)  # type: ignore[method-assign]


# Its end


def obey_parent(
    reactor: Any, *, leave: Callable[[], object], stop_now: Callable[[], object]
) -> None:
    """Do what the parent says. ``leave`` ends this process without a refusal; ``stop_now`` makes a
    stop in progress immediate.
    """

    def stop_gracefully() -> None:
        stop(reactor)

    def stop_immediately() -> None:
        set_exit_alarm()
        if stop(reactor):
            reactor.addSystemEventTrigger("before", "shutdown", stop_now)
        else:
            stop_now()

    def begin() -> None:
        obey(reactor, signal.SIGTERM, stop_gracefully)
        _ParentWatch(leave, stop_immediately, reactor).startReading()

    ignore(PARENTS_SIGNALS)
    # The reactor installs its own signal handlers when it starts, so replace them after that.
    reactor.callWhenRunning(begin)


class _ParentWatch(FileDescriptor):
    """Standard input. The parent holds its other end, and writes to it to have us leave."""

    def __init__(
        self, leave: Callable[[], object], ended: Callable[[], object], reactor: Any
    ) -> None:
        super().__init__(reactor)
        self._leave = leave
        self._ended = ended

    def fileno(self) -> int:
        return 0

    def doRead(self) -> Exception | None:
        if os.read(0, 100):
            self._leave()
            return None
        return CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if reason.check(ConnectionDone):  # not when the reactor shuts down
            self._ended()
