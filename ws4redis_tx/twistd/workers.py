"""The parent of several processes that serve the same sockets: ``twistd ws4redis --workers N``.

The parent listens but never accepts. It only holds the sockets, so clients who connect while a
worker is being replaced wait for another one and are not refused. Each worker (``worker``) runs the
same command with ``--inherit``, and serves the inherited sockets. They communicate as follows:

- A worker stops immediately when its standard input ends. The parent closes it when it no longer
  wants to wait; it also ends with the parent, even if that is killed.
- A worker stops gracefully on SIGTERM. It ignores further SIGTERMs, and every SIGINT: a service
  manager and Ctrl-C signal the whole process group, and the parent must decide.
- A worker writes its log events to its standard output, one per line. The parent logs them.

Knows processes, sockets and logs, but neither websockets nor Redis nor Django.
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
from ws4redis_tx.twistd.worker_log import LineSplitter, read_event

_log = Logger()

# A worker must ignore Ctrl-C even before its reactor runs.
_PROGRAM = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from twisted.scripts.twistd import run; run()"
)
# A worker's first inherited socket, after standard input, output and error.
_FIRST_SOCKET = 3
# Seconds after its drain time at which a worker that has not ended is killed.
_KILL_GRACE = 10.0
# Seconds that an immediate stop of a worker may take.
_STOP_NOW_TIMEOUT = 1.0


class Supervisor(Service):
    """The parent's service: the sockets, the embedded Redis if there is one, and the workers."""

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
        """Raises ``twisted.internet.error.CannotListenError`` if an address is not available."""
        super().startService()
        failures: list[Failure] = []
        for endpoint in self._endpoints:
            endpoint.listen(SharedSocket()).addCallbacks(self._hold_port, failures.append)
        if failures:
            for port in self.ports:
                port.stopListening()
            failures[0].raiseException()
        self._workers.share(self.ports)
        if self._embedded is None:
            self._workers.startService()
        else:
            self._embedded.start().addErrback(self._log_redis_failure).addCallback(
                self._start_workers
            )

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
        """Make a stop in progress immediate: do not wait for clients any longer."""
        self._workers.stop_now()

    def when_ready(self) -> Deferred[None]:
        """Fire when every worker has been ready once."""
        return self._workers.when_ready()

    def _hold_port(self, port: Any) -> None:
        port.stopReading()
        # Only close the socket: shutting it down would take it away from the workers too.
        port._shouldShutdown = False
        self.ports.append(port)

    def _log_redis_failure(self, failure: Failure) -> None:
        _log.critical("{problem}", problem=failure.getErrorMessage())

    def _start_workers(self, _: object) -> None:
        if self.running:
            self._workers.startService()


class SharedSocket(Factory):
    """The factory of a port that accepts nothing here. Twisted shows its name in the log."""

    noisy = False


class Workers(ProcessMonitor):
    """Runs ``count`` processes of ``command``, and restarts those that end, until it stops.

    They may take ``drain`` seconds to close their websockets. They run in ``folder``.
    """

    log = _log
    # A worker that ends within this time is restarted after 1 s, 2 s, 4 s …
    threshold = 5
    # … up to this limit. Twisted's default of an hour would be an outage.
    maxRestartDelay = 30

    def __init__(
        self, count: int, command: list[str], folder: str, drain: float, reactor: Any
    ) -> None:
        super().__init__(reactor)
        self.killTime = drain + _KILL_GRACE  # type: ignore[assignment]
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
        """Let all workers that start from now on inherit the sockets of ``ports``."""
        self._sockets = {_FIRST_SOCKET + i: port.fileno() for i, port in enumerate(ports)}

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
        """Ask all workers to stop. Fire when they have ended."""
        super().stopService()
        ended = self._ended.wait()
        self._fire_if_ended()
        return ended

    def stop_now(self) -> None:
        """Make a stop in progress immediate."""
        for worker in tuple(self.protocols.values()):
            worker.end(_STOP_NOW_TIMEOUT)  # type: ignore[attr-defined]

    def when_ready(self) -> Deferred[None]:
        ready = self._ready.wait()
        self._fire_if_ready()
        return ready

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        return self._clock.callLater(seconds, function)

    # Called by the workers

    def ready(self, name: str) -> None:
        self._not_yet_ready.discard(name)
        self._fire_if_ready()

    def ended(self, name: str, reason: Failure) -> None:
        if self.running:
            delay = max(0.0, self.restart[name].getTime() - self._clock.seconds())
            requested = getattr(reason.value, "exitCode", None) == 0  # after somebody's SIGTERM
            self.log.emit(
                LogLevel.info if requested else LogLevel.error,
                "[{name}] It has ended ({reason}) and will be restarted{when}.",
                name=name,
                reason=_describe_exit(reason),
                when=f" in {delay:.0f} s" if delay else "",
            )
        self._fire_if_ended()

    def _fire_if_ready(self) -> None:
        if not self._not_yet_ready:
            self._ready.fire(None)

    def _fire_if_ended(self) -> None:
        if not self.running and not self.protocols:
            self._ended.fire(None)


class _Worker(LoggingProtocol):
    """The parent's side of one worker. Passes the worker's output to the parent's log."""

    service: Workers
    transport: Any

    def __init__(self, name: str, service: Workers) -> None:
        self.name = name
        self.service = service
        self._output_lines = LineSplitter()
        self._error_lines = LineSplitter()
        self._timers: list[Any] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.transport is not None:
            _log.info("[{name}] Process {pid}.", name=self.name, pid=self.transport.pid)

    def end(self, seconds: float) -> None:
        """Stop the worker immediately, and kill it if it has not ended after ``seconds``."""
        self.transport.closeStdin()
        self._later(seconds, self._kill)

    def outReceived(self, data: bytes) -> None:
        for line in self._output_lines.feed(data):
            self._log_line(line, LogLevel.info)

    def errReceived(self, data: bytes) -> None:
        for line in self._error_lines.feed(data):
            self._log_line(line, LogLevel.error)

    def processExited(self, reason: Failure) -> None:
        # A program that the worker started may keep the worker's output open for ever.
        self._later(_STOP_NOW_TIMEOUT, self.transport.loseConnection)

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
        fields = {"name": self.name, "text": text, "passed_on": True}
        Logger(namespace=namespace).emit(level, "[{name}] {text}", **fields)


def worker_command(arguments: list[str], sockets: int, redis: str | None) -> list[str]:
    """The command of a worker. Its parent was given ``arguments``; ``redis`` is the URL of the
    parent's embedded Redis, if any.
    """
    inherited = ",".join(str(_FIRST_SOCKET + i) for i in range(sockets))
    own = [f"--inherit={inherited}", *([] if redis is None else [f"--redis={redis}"])]
    twistd = ["--nodaemon", "--pidfile=", "--logger=ws4redis_tx.twistd.worker_log.log_to_parent"]
    return [sys.executable, "-c", _PROGRAM, *twistd, "ws4redis", *own, *arguments]


def _describe_exit(reason: Failure) -> str:
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return signal.Signals(number).name
    status = getattr(reason.value, "exitCode", None)
    return reason.getErrorMessage() if status is None else f"exit status {status}"
