"""The workers of ``twistd ws4redis --workers N``, as their parent sees them.

Each worker (``worker``) runs the same command with ``--inherit``, and serves the inherited sockets.
They communicate as follows:

- A worker stops immediately when its standard input ends. The parent closes it when it no longer
  wants to wait; it also ends with the parent, even if that is killed.
- A worker that reads something from its standard input has been replaced. It accepts no more
  clients, and stops when the handshakes that have begun are over.
- A worker stops gracefully on SIGTERM, and at once on SIGQUIT. It ignores further SIGTERMs, and all
  other signals: a service manager and Ctrl-C signal the whole process group, and the parent must
  decide.
- A worker writes its log events to its standard output, one per line. The parent logs them.

Knows processes, sockets and logs. It must not know what the workers serve.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.runner.procmon import LoggingProtocol, ProcessMonitor

from ws4redis_tx.scheduling.waiters import Waiters
from ws4redis_tx.system.launch import FIRST_SOCKET
from ws4redis_tx.system.signals import PARENTS_SIGNALS, blocked
from ws4redis_tx.twistd.worker_log import LineSplitter, read_event
from ws4redis_tx.websocket.service import LEAVE_TIMEOUT

_log = Logger()

# Seconds after its drain time at which a worker that has not ended is killed.
_KILL_GRACE = 10.0
# Seconds that an immediate stop of a worker may take.
_STOP_NOW_TIMEOUT = 1.0


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
        self,
        count: int,
        command: list[str],
        folder: str,
        drain: float,
        reactor: Any,
        environment: dict[str, str] | None = None,
    ) -> None:
        """``environment`` defaults to that of this process."""
        super().__init__(reactor)
        self._environment = environment
        self.killTime = drain + _KILL_GRACE  # type: ignore[assignment]
        self._command = command
        self._folder = folder
        self._sockets: dict[int, Any] = {}
        self.names = [f"worker {number}" for number in range(1, count + 1)]
        self._not_yet_ready = set(self.names)
        # The processes that are to replace another one, and those that were replaced.
        self._others: set[_Worker] = set()
        self._ready: Waiters[None] = Waiters()
        self._ended: Waiters[None] = Waiters()
        for name in self.names:
            self.addProcess(name, command)

    def share(self, ports: list[Any]) -> None:
        """Let all workers that start from now on inherit the sockets of ``ports``."""
        self._sockets = {FIRST_SOCKET + i: port.fileno() for i, port in enumerate(ports)}

    def startProcess(self, name: str) -> None:
        if name in self.protocols:
            return
        self.protocols[name] = worker = _Worker(name, self)
        self._spawn(worker)
        self.timeStarted[name] = worker.started

    def replace(self, name: str, seconds: float) -> Deferred[None]:
        """Start another process, and once it is ready, let the one in its place leave.

        Fail, and keep the old one, if the new one ends or is not ready within ``seconds``.
        """
        worker = _Worker(name, self)
        self._others.add(worker)
        replaced = worker.replaced = Deferred(lambda _: worker.give_up())
        self._spawn(worker)
        return replaced.addTimeout(seconds, self._clock)

    def _spawn(self, worker: _Worker) -> None:
        worker.started = self._clock.seconds()
        try:
            with blocked(PARENTS_SIGNALS):
                self._reactor.spawnProcess(
                    worker,
                    self._command[0],
                    self._command,
                    env=self._environment,
                    path=self._folder,
                    childFDs={0: "w", 1: "r", 2: "r", **self._sockets},
                )
        except OSError:
            worker.connectionMade()
            worker.processEnded(Failure())

    def stopService(self) -> Deferred[None]:  # type: ignore[override]
        """Ask all workers to stop. Fire when they have ended."""
        super().stopService()
        for worker in tuple(self._others):
            worker.signal(signal.SIGTERM)
        ended = self._ended.wait()
        self._fire_if_ended()
        return ended

    def stop_now(self) -> None:
        """Make a stop in progress immediate."""
        for worker in self._all():
            worker.end(_STOP_NOW_TIMEOUT)

    def signal(self, number: int) -> None:
        """Send all processes that signal."""
        for worker in self._all():
            worker.signal(number)

    def when_ready(self) -> Deferred[None]:
        ready = self._ready.wait()
        self._fire_if_ready()
        return ready

    def later(self, seconds: float, function: Callable[[], object]) -> Any:
        return self._clock.callLater(seconds, function)

    # Called by the workers

    def ready(self, worker: _Worker) -> None:
        if worker in self._others:
            self._put_in_place(worker)
        self._not_yet_ready.discard(worker.name)
        self._fire_if_ready()

    def other_ended(self, worker: _Worker) -> None:
        self._others.discard(worker)
        self._fire_if_ended()

    def ended(self, name: str, reason: Failure) -> None:
        if self.running:
            delay = max(0.0, self.restart[name].getTime() - self._clock.seconds())
            requested = getattr(reason.value, "exitCode", None) == 0  # after somebody's SIGTERM
            self.log.emit(
                LogLevel.info if requested else LogLevel.error,
                "[{name}] It has ended ({reason}) and will be restarted{when}.",
                name=name,
                reason=describe_exit(reason),
                when=f" in {delay:.0f} s" if delay else "",
            )
        self._fire_if_ended()

    def in_place(self, worker: _Worker) -> bool:
        return self.protocols.get(worker.name) is worker

    def _put_in_place(self, worker: _Worker) -> None:
        replaced, worker.replaced = worker.replaced, None
        if replaced is None or not self.running:
            return  # it has been replaced itself, or came too late
        self._others.discard(worker)
        old: Any = self.protocols.get(worker.name)
        if old is not None:
            self._others.add(old)
            old.leave(self.killTime + LEAVE_TIMEOUT)
        elif (restart := self.restart.get(worker.name)) and restart.active():
            restart.cancel()
        self.protocols[worker.name] = worker
        self.timeStarted[worker.name] = worker.started
        replaced.callback(None)

    def _all(self) -> list[_Worker]:
        return [*self.protocols.values(), *self._others]  # type: ignore[list-item]

    def _fire_if_ready(self) -> None:
        if not self._not_yet_ready:
            self._ready.fire(None)

    def _fire_if_ended(self) -> None:
        if not self.running and not self._all():
            self._ended.fire(None)


class _Worker(LoggingProtocol):
    """The parent's side of one worker. Passes the worker's output to the parent's log."""

    service: Workers
    transport: Any

    def __init__(self, name: str, service: Workers) -> None:
        self.name = name
        self.service = service
        self.started = 0.0
        self.replaced: Deferred[None] | None = None
        """Fires when this process is in another one's place; ``None`` after that."""
        self._output_lines = LineSplitter()
        self._error_lines = LineSplitter()
        self._timers: list[Any] = []

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.transport is not None:
            _log.info("[{name}] Process {pid}.", name=self.name, pid=self.transport.pid)

    def signal(self, number: int) -> None:
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def leave(self, seconds: float) -> None:
        """Have the worker stop without a refusal, and kill it if it takes ``seconds``."""
        self.transport.write(b"leave\n")
        self._later(seconds, self._kill)

    def end(self, seconds: float) -> None:
        """Stop the worker immediately, and kill it if it has not ended after ``seconds``."""
        self.transport.closeStdin()
        self._later(seconds, self._kill)

    def give_up(self) -> None:
        """It was to replace another process, and shall no more."""
        self.replaced = None
        self.end(0)

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
        replaced, self.replaced = self.replaced, None
        if self.service.in_place(self):
            super().processEnded(reason)
            self.service.ended(self.name, reason)
        else:
            self.service.other_ended(self)
        if replaced is not None:
            replaced.errback(reason)

    def _later(self, seconds: float, function: Any) -> None:
        self._timers.append(self.service.later(seconds, function))

    def _kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _log_line(self, line: bytes, level: Any) -> None:
        event = read_event(line)
        if event is not None:
            level = LogLevel.lookupByName(event["level"])
            self._log_as(event["namespace"], level, event["text"])
            if event["ready"]:
                self.service.ready(self)
        else:
            self._log_as(_log.namespace, level, line.decode(errors="replace"))

    def _log_as(self, namespace: str, level: Any, text: str) -> None:
        fields = {"name": self.name, "text": text, "passed_on": True}
        Logger(namespace=namespace).emit(level, "[{name}] {text}", **fields)


def describe_exit(reason: Failure) -> str:
    number = getattr(reason.value, "signal", None)
    if number is not None:
        return signal.Signals(number).name
    status = getattr(reason.value, "exitCode", None)
    return reason.getErrorMessage() if status is None else f"exit status {status}"
