"""The services of the processes of ``twistd ws4redis``: how their parts start and stop."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import RedisBroker, WebSocketService
from ws4redis_tx.system.announcements import (
    listening_places,
    remove_pidfile,
    tell_systemd,
    write_pidfile,
)
from ws4redis_tx.system.launch import CannotStart
from ws4redis_tx.system.resources import (
    collect_garbage_less_often,
    raise_file_limit,
    return_freed_memory,
)
from ws4redis_tx.system.signals import (
    obey,
    obey_as_server,
    set_exit_alarm,
    stop,
    stop_at_once_next_time,
)
from ws4redis_tx.threads.request_threads import RequestThreads
from ws4redis_tx.twistd import log_output
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.handover import OldServer, Upgrade
from ws4redis_tx.twistd.options import Options
from ws4redis_tx.twistd.supervisor import Supervisor
from ws4redis_tx.twistd.worker import InheritedUnixPort, obey_parent
from ws4redis_tx.websocket.service import hurry

_log = Logger()

# Seconds for which a new worker waits for Redis before it listens without it.
_REDIS_TIMEOUT = 2
# Seconds for which clients may answer their close when the process ends at once.
_QUIT_TIMEOUT = 1


class ServerProcess(Service):
    """Starts and stops the parts of this process in the right order."""

    def __init__(
        self,
        options: Options,
        websockets: WebSocketService | Supervisor,
        broker: RedisBroker | None = None,
        embedded: EmbeddedRedis | None = None,
        requests: RequestThreads | None = None,
    ) -> None:
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._options = options
        self._config: ServerConfig = options["config"]
        self._websockets = websockets
        self._broker = broker
        self._embedded = embedded
        self._requests = requests
        self._workers = options["workers"]
        self._pidfile: str | None = options["own-pidfile"]
        self._pid_before = ""
        self._upgrade: Supervisor | Upgrade = (
            websockets
            if isinstance(websockets, Supervisor)
            else Upgrade(options, websockets, embedded, reactor)
        )

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        if self._pidfile is not None:
            self._pid_before = write_pidfile(self._pidfile)

    def startService(self) -> None:
        super().startService()
        log_output.begin(self._reactor)
        self._obey_signals()
        self._tell_doubts()
        raise_file_limit()
        collect_garbage_less_often()
        return_freed_memory()
        if self._broker is not None and self._config.django:
            self._share_connection(self._broker)
        self._listen()
        if self._broker is not None:
            self._start_broker(self._broker)
        self._websockets.when_ready().addCallbacks(self._ready, lambda _: None)

    def _obey_signals(self) -> None:
        obey_as_server(self._reactor, log_output.reopen, self._upgrade.begin, self._quit)

    def _tell_doubts(self) -> None:
        for each in self._options["doubts"]:
            _log.warn("{doubt}", doubt=str(each))

    def _listen(self) -> None:
        self._listen_now()

    def _listen_now(self, _: object = None) -> None:
        if not self.running:
            return
        try:
            self._websockets.startService()
        except CannotListenError as error:
            problem = (
                f"{str(error).rstrip('.')}. Is something running there already? Stop it, or choose "
                "another address with --listen."
            )
            _log.critical("{problem}", problem=problem)
            self._give_back_pidfile()
            raise CannotStart(problem) from error
        self._tell_listening()

    def _give_back_pidfile(self) -> None:
        """It may be that of a server that has what this one could not get."""
        if self._pidfile is not None and self._pid_before:
            write_pidfile(self._pidfile, self._pid_before)
        elif self._pidfile is not None:
            remove_pidfile(self._pidfile)

    def _tell_listening(self) -> None:
        tell_systemd("READY=1")

    def _start_broker(self, broker: RedisBroker) -> None:
        if self._embedded is None:
            broker.startService()
        else:
            self._embedded.start().addCallbacks(
                lambda _: broker.startService(), self._log_redis_failure
            )

    def _share_connection(self, broker: RedisBroker) -> None:
        """Let publishers in this process use its reactor and its connection to Redis.

        This must wait for the service's start, because ``twistd`` forks before it to daemonise.
        """
        import crochet

        from ws4redis_tx.threads.bridge import share_commands

        crochet.no_setup()
        share_commands(broker.commands)

    def _ready(self, _: object) -> None:
        ports = self._websockets.ports
        addresses = [port.getHost() for port in ports]
        places = [
            *listening_places(self._config, addresses, site=self._options["serve-django"]),
            *([f"{self._workers} workers"] if self._workers > 1 else []),
            f"Redis at {self._config.redis}",
        ]
        _log.info("Ready: {places}", places=", ".join(places), ready=True)

    # The end

    def _quit(self) -> None:
        """End at once. Only the clients are told, and those that answer in time are waited for."""
        set_exit_alarm()
        if isinstance(self._websockets, Supervisor):
            self._websockets.hurry()
        else:
            hurry(self._websockets)
        stop(self._reactor)
        seconds = _QUIT_TIMEOUT * (2 if self._workers > 1 else 1)
        self._reactor.callLater(seconds, self._stop_now)

    def _stopping(self) -> None:
        stop_at_once_next_time(self._reactor, self._stop_now)
        self._upgrade.cancel()
        if not self._upgrade.done:
            tell_systemd("STOPPING=1")

    def _stop_now(self) -> None:
        self._websockets.stop_now()
        if self._requests is not None:
            self._requests.wait_no_longer()

    def _log_redis_failure(self, failure: Failure) -> None:
        _log.critical("{problem}", problem=failure.getErrorMessage())

    @inlineCallbacks
    def stopService(self) -> Any:
        self._stopping()
        yield super().stopService()
        # Requests that have begun may end meanwhile. Streaming ones may never do so.
        requests = self._requests and self._requests.when_idle(self._options["drain"])
        yield self._websockets.stopService()
        yield requests
        if self._broker is not None and self._broker.running:
            yield self._broker.stopService()
        if self._embedded is not None:
            yield self._embedded.stop()
        if self._pidfile is not None and not self._upgrade.done:
            remove_pidfile(self._pidfile)


class Successor(ServerProcess):
    """A process that replaces another one, once it has reached Redis."""

    def privilegedStartService(self) -> None:
        """The pidfile is the other one's."""

    def startService(self) -> None:
        self._old = OldServer(
            self._reactor, self._options["inheritance"], self._own, self._withdraw
        )
        super().startService()

    def _listen(self) -> None:
        ready = self._websockets.when_ready().addCallback(self._listen_now)
        ready.addErrback(self._cannot_listen)

    def _cannot_listen(self, failure: Failure) -> None:
        if not failure.check(CannotStart):
            _log.failure("The new server cannot listen", failure)
        stop(self._reactor)

    def _tell_listening(self) -> None:
        self._old.tell_ready()

    def _own(self) -> None:
        if not self.running:
            return  # told to end meanwhile
        for text, port in zip(self._config.listen, self._websockets.ports, strict=True):
            if text.startswith("unix:") and isinstance(port, InheritedUnixPort):
                port.own()
        if self._embedded is not None:
            self._embedded.own()
        if self._pidfile is not None:
            write_pidfile(self._pidfile)
        tell_systemd(f"MAINPID={os.getpid()}", "READY=1")

    def _withdraw(self) -> None:
        _log.error("The server that this one was to replace has gone on or ended. This one ends.")
        stop(self._reactor)


class Worker(ServerProcess):
    """A worker process, which ends when its parent says so."""

    def _obey_signals(self) -> None:
        assert isinstance(self._upgrade, Upgrade)
        obey(self._reactor, signal.SIGQUIT, self._quit)
        obey_parent(self._reactor, leave=self._upgrade.leave, stop_now=self._stop_now)

    def _tell_doubts(self) -> None:
        """The parent has told them."""

    def _tell_listening(self) -> None:
        pass

    def _listen(self) -> None:
        """Listen when Redis answers: until then, the other workers serve new clients. After
        ``_REDIS_TIMEOUT`` listen anyway, since Redis may be unavailable to all workers.
        """
        ready = self._websockets.when_ready().addTimeout(_REDIS_TIMEOUT, self._reactor)
        ready.addErrback(lambda _: None).addCallback(self._listen_now)
        ready.addErrback(lambda failure: _log.failure("A worker cannot listen", failure))

    def _stopping(self) -> None:
        pass
