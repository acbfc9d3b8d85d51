"""Several processes that serve the same sockets, ``twistd ws4redis --workers N``: the parent.

It listens, and never accepts: it only holds the sockets, so that those who connect while a
worker is being replaced wait for the others and are not refused. Each worker (``worker``) is the
same command with ``--inherit``: it serves the sockets that it was born with. What parent and
worker say to each other:

- The end of a worker's standard input ends it at once. That is how the parent does not want to
  wait any longer, or is gone itself, however that came about.
- SIGTERM from the parent ends it by and by. It takes repeated ones as one, and ignores SIGINT,
  since a service manager signals the whole group and so does Ctrl-C: the parent decides.
- What a worker logs goes through its standard output, an event a line, into the parent's log.

Knows processes, sockets and logs; neither websockets nor Redis nor Django.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.runner.procmon import LoggingProtocol, ProcessMonitor

from ws4redis_tx.scheduling.waiters import Waiters
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.worker_log import Lines, read_event

_log = Logger()

# Ctrl-C must not reach a worker even before its reactor runs.
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from twisted.scripts.twistd import run; run()"
)
# A worker's first inherited socket, after standard input, output and error.
_FIRST = 3
# Added to the time that a worker has for its drain, before it is killed.
_PATIENCE = 10.0
# How long a worker that was told to end at once may take.
_AT_ONCE = 1.0


class Supervisor(Service):
    """What the parent runs: the sockets, the embedded Redis if there is one, and the workers."""

    def __init__(
        self,
        endpoints: list[Any],
        workers: Workers,
        embedded: EmbeddedRedis | None = None,
    ) -> None:
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._workers = workers
        self._embedded = embedded

    def startService(self) -> None:
        """Raises ``twisted.internet.error.CannotListenError`` if an address cannot be had."""
        super().startService()
        failures: list[Failure] = []
        for endpoint in self._endpoints:
            endpoint.listen(SharedSocket()).addCallbacks(self._hold, failures.append)
        if failures:
            for port in self.ports:
                port.stopListening()
            failures[0].raiseException()
        self._workers.share(self.ports)
        if self._embedded is None:
            self._workers.startService()
        else:
            self._embedded.start().addErrback(self._without_redis).addCallback(self._go_on)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Fire when all workers, and the embedded Redis, have ended."""
        super().stopService()
        stopped = self._workers.stopService() if self._workers.running else None
        for port in self.ports:
            yield port.stopListening()
        yield stopped
        if self._embedded is not None:
            yield self._embedded.stop()

    def stop_now(self) -> None:
        """Have a stop that is under way wait for no client any more."""
        self._workers.stop_now()

    def when_ready(self) -> Deferred[None]:
        """Fire when all workers have been ready."""
        return self._workers.when_ready()

    def _hold(self, port: Any) -> None:
        port.stopReading()
        # To shut a shared socket down would pull it away under the workers: it is just closed.
        port._shouldShutdown = False
        self.ports.append(port)

    def _without_redis(self, failure: Failure) -> None:
        _log.critical("{problem}", problem=failure.getErrorMessage())

    def _go_on(self, _: object) -> None:
        if self.running:
            self._workers.startService()


class SharedSocket(Factory):
    """Of a port whose connections are others' business; its name stands in the log."""

    noisy = False


class Workers(ProcessMonitor):
    """``count`` processes of ``command``, started anew when they end, until the service stops.

    ``drain`` is for how many seconds they may close websockets, ``folder`` where they run.
    """

    log = _log
    # Who dies younger than this is started again after 1 s, 2 s, 4 s …
    threshold = 5
    # … and no more than this; Twisted's hour would be an outage.
    maxRestartDelay = 30

    def __init__(
        self, count: int, command: list[str], folder: str, drain: float, reactor: Any
    ) -> None:
        super().__init__(reactor)
        self.killTime = drain + _PATIENCE  # type: ignore[assignment]
        self._command = command
        self._folder = folder
        self._sockets: dict[int, Any] = {}
        names = [f"worker {number}" for number in range(1, count + 1)]
        self._not_yet_ready = set(names)
        self._ready: Waiters[None] = Waiters()
        self._ended: Waiters[None] = Waiters()
        for name in names:
            self.addProcess(name, command)

    def share(self, ports: list[Any]) -> None:
        """Give the sockets of ``ports`` to all workers that are started from now on."""
        self._sockets = {_FIRST + i: port.fileno() for i, port in enumerate(ports)}

    def startProcess(self, name: str) -> None:
        if name in self.protocols:
            return
        worker = _Worker(name, self)
        self.protocols[name] = worker
        self.timeStarted[name] = self._clock.seconds()
        try:
            self._reactor.spawnProcess(
                worker,
                self._command[0],
                self._command,
                env=None,
                path=self._folder,
                childFDs={0: "w", 1: "r", 2: "r", **self._sockets},
            )
        except OSError:
            worker.connectionMade()
            worker.processEnded(Failure())

    def stopService(self) -> Deferred[None]:  # type: ignore[override]
        """Ask all workers to end; fire when they have."""
        super().stopService()
        ended = self._ended.wait()
        self._look_for_the_end()
        return ended

    def stop_now(self) -> None:
        """Have the workers end at once, in a stop that is under way."""
        for worker in tuple(self.protocols.values()):
            worker.end(_AT_ONCE)  # type: ignore[attr-defined]

    def when_ready(self) -> Deferred[None]:
        ready = self._ready.wait()
        self._look_whether_ready()
        return ready

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        return self._clock.callLater(seconds, function)

    # Told by the workers

    def ready(self, name: str) -> None:
        self._not_yet_ready.discard(name)
        self._look_whether_ready()

    def ended(self, name: str, reason: Failure) -> None:
        if self.running:
            delay = max(0.0, self.restart[name].getTime() - self._clock.seconds())
            asked = getattr(reason.value, "exitCode", None) == 0  # by somebody's SIGTERM
            self.log.emit(
                LogLevel.info if asked else LogLevel.error,
                "[{name}] It has ended ({reason}) and is started again{when}.",
                name=name,
                reason=_how(reason),
                when=f" in {delay:.0f} s" if delay else "",
            )
        self._look_for_the_end()

    def _look_whether_ready(self) -> None:
        if not self._not_yet_ready:
            self._ready.fire(None)

    def _look_for_the_end(self) -> None:
        if not self.running and not self.protocols:
            self._ended.fire(None)


class _Worker(LoggingProtocol):
    """The parent's side of one worker: hands what it says on to the parent's log."""

    service: Workers
    transport: Any

    def __init__(self, name: str, service: Workers) -> None:
        self.name = name
        self.service = service
        self._output_lines = Lines()
        self._error_lines = Lines()
        self._timers: list[Any] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.transport is not None:
            _log.info("[{name}] Process {pid}.", name=self.name, pid=self.transport.pid)

    def end(self, seconds: float) -> None:
        """End it at once, and kill it if it does not within ``seconds``."""
        self.transport.closeStdin()
        self._later(seconds, self._kill)

    def outReceived(self, data: bytes) -> None:
        for line in self._output_lines.of(data):
            self._log_line(line, LogLevel.info)

    def errReceived(self, data: bytes) -> None:
        for line in self._error_lines.of(data):
            self._log_line(line, LogLevel.error)

    def processExited(self, reason: Failure) -> None:
        # A program that it started may hold its output open for ever.
        self._later(_AT_ONCE, self.transport.loseConnection)

    def processEnded(self, reason: Failure) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        super().processEnded(reason)
        self.service.ended(self.name, reason)

    def _later(self, seconds: float, function: Any) -> None:
        self._timers.append(self.service.later(seconds, function))

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    def _log_line(self, line: bytes, level: Any) -> None:
        event = read_event(line)
        if event is not None:
            level = LogLevel.lookupByName(event["level"])
            self._log_as(event["namespace"], level, event["text"])
            if event["ready"]:
                self.service.ready(self.name)
        else:
            self._log_as(_log.namespace, level, line.decode(errors="replace"))

    def _log_as(self, namespace: str, level: Any, text: str) -> None:
        Logger(namespace=namespace).emit(level, "[{name}] {text}", name=self.name, text=text)


def worker_command(arguments: list[str], sockets: int, redis: str | None) -> list[str]:
    """The command of a worker whose parent was given ``arguments``.

    ``redis`` is the URL of the parent's embedded Redis.
    """
    inherited = ",".join(str(_FIRST + i) for i in range(sockets))
    own = [f"--inherit={inherited}", *([] if redis is None else [f"--redis={redis}"])]
    twistd = ["--nodaemon", "--pidfile=", "--logger=ws4redis_tx.twistd.worker_log.log_to_parent"]
    return [sys.executable, "-c", _PROGRAM, *twistd, "ws4redis", *own, *arguments]


def _how(reason: Failure) -> str:
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return signal.Signals(number).name
    status = getattr(reason.value, "exitCode", None)
    return reason.getErrorMessage() if status is None else f"exit status {status}"
