"""Replaces a server by a new one on the same sockets, at SIGUSR2: either side.

The old server starts the command that started it, with whatever is installed by now. The new one
inherits the listening sockets, the pipes of an embedded Redis, and one end of a connection over
which they talk:

- ``ready PID`` from the new one: it has reached Redis, and serves.
- ``go`` from the old one: it has let go of the sockets' files, the pidfile and the embedded Redis,
  which are the new one's from now on. It accepts nobody any more, closes its clients and ends.

If the connection ends before ``go``, the other side has given up or was killed. The old one then
goes on as if nothing had happened, and the new one ends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from ws4redis_tx.system.announcements import tell_systemd, tell_systemd_reloading
from ws4redis_tx.system.launch import Inheritance, Launch
from ws4redis_tx.system.signals import SERVERS_SIGNALS, blocked, stop
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.worker import let_go
from ws4redis_tx.twistd.worker_log import LineSplitter
from ws4redis_tx.websocket.service import WebSocketService, leave

_log = Logger()

REPLACEMENT_TIMEOUT = 60.0
"""Seconds after which a new server, or a new worker, that is not ready is given up."""


class _Talk(LineOnlyReceiver):
    """One end of the connection between the two."""

    delimiter = b"\n"

    def __init__(self, heard: Callable[[bytes], object], ended: Callable[[], object]) -> None:
        self._heard = heard
        self._ended = ended

    def lineReceived(self, line: bytes) -> None:
        self._heard(line)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended()

    def end(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _talk(reactor: Any, descriptor: int, talk: _Talk) -> None:
    factory = Factory.forProtocol(lambda: talk)
    factory.noisy = False
    with socket.socket(fileno=descriptor) as connection:
        connection.setblocking(False)
        reactor.adoptStreamConnection(connection.fileno(), socket.AF_UNIX, factory)


class OldServer:
    """The new server's side. ``owned`` is called at the old one's ``go``, ``withdrawn`` if that
    never comes.
    """

    def __init__(
        self,
        reactor: Any,
        inheritance: Inheritance,
        owned: Callable[[], object],
        withdrawn: Callable[[], object],
    ) -> None:
        self._owned = owned
        self._withdrawn = withdrawn
        self._gone = False
        self._talk = _Talk(self._heard, self._ended)
        _talk(reactor, inheritance.control, self._talk)

    def tell_ready(self) -> None:
        self._talk.sendLine(b"ready %d" % os.getpid())

    def _heard(self, line: bytes) -> None:
        if line == b"go" and not self._gone:
            self._gone = True
            self._owned()

    def _ended(self) -> None:
        if not self._gone:
            self._withdrawn()


class Upgrade:
    """The old server's side: starts a new one, hands over to it once it is ready, and leaves."""

    def __init__(
        self,
        options: MutableMapping[str, Any],
        websockets: WebSocketService,
        embedded: EmbeddedRedis | None,
        reactor: Any,
    ) -> None:
        self.done = False
        """Whether the new server has taken over."""
        self._options = options
        self._websockets = websockets
        self._embedded = embedded
        self._reactor = reactor
        self._under_way = False

    def begin(self) -> None:
        problem = self._obstacle()
        if problem:
            _log.error("SIGUSR2 has no effect: {problem}", problem=problem)
            return
        launch: Launch = self._options["launch"]
        self._talk = talk = _Talk(self._heard, lambda: self._ended(talk))
        try:
            ours, theirs = socket.socketpair()
            _talk(self._reactor, ours.detach(), talk)
        except OSError as error:  # no file descriptor is left
            _log.error("SIGUSR2 has no effect: {problem}", problem=str(error))
            return
        tell_systemd_reloading()
        with theirs:
            variables, descriptors = self._inheritance(theirs.fileno()).passed_on()
            # What a daemon prints before it is one would be lost.
            outputs = {1: "r", 2: "r"} if self._daemon() else {1: 1, 2: 2}
            self._process = _NewServer()
            self._under_way = True
            self._timeout = self._reactor.callLater(
                REPLACEMENT_TIMEOUT, self._give_up, f"{REPLACEMENT_TIMEOUT:.0f} s have passed"
            )
            try:
                with blocked(SERVERS_SIGNALS):
                    self._reactor.spawnProcess(
                        self._process,
                        launch.command[0],
                        launch.command,
                        env={**launch.environment, **variables},
                        path=launch.folder,
                        childFDs={0: 0, **outputs, **descriptors},
                    )
            except OSError as error:
                self._give_up(str(error))

    def cancel(self) -> None:
        """End the new server, if it has not taken over, since this one is stopping."""
        if self._under_way:
            self._end()
            self._end_new_server()

    def leave(self) -> None:
        """End without a refusal, since others serve the same sockets."""
        leave(self._websockets).addErrback(
            lambda failure: _log.failure("The ports were not closed", failure)
        ).addCallback(lambda _: stop(self._reactor))

    def _obstacle(self) -> str | None:
        if not self._websockets.running or self.done:
            return "this process is starting or stopping."
        if self._under_way:
            return "a new server is being started already."
        if os.getpid() == 1:
            return (
                "this is process 1 of its container, which would end with it. Use --workers, whose "
                "parent stays, or an init, such as that of docker run --init."
            )
        if self._embedded is not None and self._embedded.running is None:
            return "the embedded Redis is not running."
        return None

    def _daemon(self) -> bool:
        twistd = self._options["twistd"]
        return "nodaemon" in twistd and not twistd["nodaemon"]

    def _inheritance(self, control: int) -> Inheritance:
        redis = None if self._embedded is None else self._embedded.running
        descriptors = [port.fileno() for port in self._ports()]
        pairs = zip(self._options["config"].listen, descriptors, strict=True)
        return Inheritance(control, list(pairs), redis)

    def _ports(self) -> list[Any]:
        return list(self._websockets.ports)

    def _heard(self, line: bytes) -> None:
        word, _, number = line.partition(b" ")
        if word != b"ready" or not self._under_way:
            return
        self._end()
        heir = int(number)
        _log.info("Process {heir} serves from now on. This one closes its clients.", heir=heir)
        self._let_go(heir)
        self._talk.sendLine(b"go")
        self.leave()

    def _ended(self, talk: _Talk) -> None:
        if talk is self._talk:  # and not an earlier attempt's
            self._give_up("it has ended")

    def _let_go(self, heir: int) -> None:
        self.done = True
        # From the main process systemd takes it in any case, whatever NotifyAccess says.
        tell_systemd(f"MAINPID={heir}")
        for port in self._ports():
            let_go(port, heir)
        if self._embedded is not None:
            self._embedded.let_go()
        self._options["twistd"]["pidfile"] = ""  # of a daemon, which twistd would remove

    def _give_up(self, reason: str) -> None:
        if not self._under_way:
            return
        self._end()
        self._end_new_server()
        _log.critical(
            "The new server was not ready ({reason}), so it is not used. This one goes on.",
            reason=reason,
        )
        tell_systemd("READY=1")

    def _end_new_server(self) -> None:
        self._process.kill()
        self._talk.end()

    def _end(self) -> None:
        self._under_way = False
        if self._timeout.active():
            self._timeout.cancel()


class _NewServer(ProcessProtocol):
    """The new server's process. What a daemon prints before it is one is logged."""

    def __init__(self) -> None:
        self._lines = LineSplitter()

    def outReceived(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            _log.error("The new server: {line}", line=line.decode(errors="replace"))

    errReceived = outReceived

    def kill(self) -> None:
        if self.transport is not None:
            with suppress(ProcessExitedAlready):
                self.transport.signalProcess("KILL")
