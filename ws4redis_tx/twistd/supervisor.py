"""The parent of several processes that serve the same sockets: ``twistd ws4redis --workers N``.

It listens but never accepts. It only holds the sockets, so clients who connect while a worker is
being replaced wait for another one and are not refused. ``workers`` describes what parent and
worker say to each other.

Knows processes, sockets and logs, and holds the embedded Redis. It must not know what the workers
serve.
"""

from __future__ import annotations

import signal
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, TimeoutError, inlineCallbacks
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.system.announcements import tell_systemd, tell_systemd_reloading
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.handover import REPLACEMENT_TIMEOUT
from ws4redis_tx.twistd.workers import Workers, describe_exit

_log = Logger()


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
        self._replacing = False

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

    def hurry(self) -> None:
        """Make a stop that is about to begin immediate, but tell the clients."""
        self._workers.signal(signal.SIGQUIT)

    # This process is not replaced, but its workers.
    done = False

    def cancel(self) -> None:
        """A stop of the workers ends it anyway."""

    @inlineCallbacks
    def begin(self) -> Any:
        """Replace the workers one by one. If one cannot be replaced, those that are left go on."""
        if self._replacing or not self._workers.running:
            _log.warn("The workers are not replaced: that is under way, or they are not running.")
            return
        self._replacing = True
        tell_systemd_reloading()
        _log.info("Replacing the workers, one by one …")
        try:
            for name in self._workers.names:
                yield self._workers.replace(name, REPLACEMENT_TIMEOUT)
        except (ProcessDone, ProcessTerminated, OSError, TimeoutError) as error:
            if self.running:
                _log.critical(
                    "[{name}] The new process was not ready ({reason}). The workers that have not "
                    "been replaced go on.",
                    name=name,
                    reason=_describe(error),
                )
        else:
            _log.info("All workers have been replaced.")
        finally:
            self._replacing = False
            if self.running:
                tell_systemd("READY=1")

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


def _describe(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"{REPLACEMENT_TIMEOUT:.0f} s have passed"
    return describe_exit(Failure(error))
