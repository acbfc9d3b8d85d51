"""The processes of ``twistd ws4redis``: their services, and how these start and stop."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
from contextlib import suppress
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.service import (
    RedisBroker,
    WebSocketService,
    make_broker,
    make_service,
)
from ws4redis_tx.threads.request_threads import RequestThreads
from ws4redis_tx.twistd import log_output
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.options import Options
from ws4redis_tx.twistd.worker import inherited_endpoints, obey_parent, set_exit_alarm
from ws4redis_tx.twistd.workers import Supervisor, Workers, worker_command
from ws4redis_tx.websocket.service import make_endpoint

_log = Logger()

_M_MMAP_THRESHOLD = -3  # of malloc.h

# Seconds for which a new worker waits for Redis before it listens without it.
_REDIS_TIMEOUT = 2


def make_server(options: Options) -> Service:
    """The service of a process that serves websockets: the only process, or a worker."""
    from twisted.internet import reactor

    config: ServerConfig = options["config"]
    endpoints = None
    if options["inherit"] is not None:
        endpoints = inherited_endpoints(config.listen, options["inherit"], make_endpoint, reactor)
    broker = make_broker(config, reactor=reactor)
    websockets = make_service(config, broker=broker, endpoints=endpoints, reactor=reactor)
    websockets.stop_code = 1012
    websockets.drain = options["drain"]
    websockets.factory.session_server.log.share(options["processes"])
    requests = None
    if options["serve-django"]:
        from ws4redis_tx.django.site import make_django_site

        websockets.listener = site = make_django_site(websockets.factory, reactor)
        requests = site.threads
    process = _Process if options["inherit"] is None else _Worker
    return process(options, websockets, broker, _embedded_redis(options), requests)


def make_parent(options: Options) -> Service:
    """The service of the parent, which holds the sockets and starts the workers."""
    from twisted.internet import reactor

    make_server(options)  # reports mistakes now and once, not in each worker
    config: ServerConfig = options["config"]
    redis = str(config.redis) if options["embedded-redis"] else None
    workers = Workers(
        options["workers"],
        worker_command(options["arguments"], len(config.listen), redis),
        options["folder"],
        options["drain"],
        reactor,
    )
    endpoints = [make_endpoint(reactor, description) for description in config.listen]
    return _Process(options, Supervisor(endpoints, workers, _embedded_redis(options)))


def _embedded_redis(options: Options) -> EmbeddedRedis | None:
    from twisted.internet import reactor

    if not options["embedded-redis"]:
        return None
    return EmbeddedRedis(options["config"].redis.port, reactor)


class CannotStart(SystemExit, Exception):
    """Ends the process without a traceback. The log has said why.

    It is also an ``Exception``, because ``twistd`` reports no other to the process that waits for
    its daemon.
    """

    # That process shows the qualified name and the text, cut to 100 bytes.
    __module__ = "ws4redis_tx"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = 1


class _Process(Service):
    """Starts and stops the parts of this process in the right order."""

    def __init__(
        self,
        options: Options,
        websockets: WebSocketService | Supervisor,
        broker: RedisBroker | None = None,
        embedded: EmbeddedRedis | None = None,
        requests: RequestThreads | None = None,
    ) -> None:
        self._config: ServerConfig = options["config"]
        self._websockets = websockets
        self._broker = broker
        self._embedded = embedded
        self._requests = requests
        self._drain: float = options["drain"]
        self._serves_django = options["serve-django"]
        self._workers = options["workers"]
        # A worker's parent has told them.
        self._doubts = options["doubts"] if options["inherit"] is None else []

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        log_output.begin(reactor)
        for each in self._doubts:
            _log.warn("{doubt}", doubt=str(each))
        _raise_file_limit()
        _collect_garbage_less_often()
        _return_freed_memory()
        if self._broker is not None and self._config.django:
            self._share_connection(self._broker)
        self._listen()
        if self._broker is not None:
            self._start_broker(self._broker)
        self._websockets.when_ready().addCallbacks(self._ready, lambda _: None)

    def _listen(self) -> None:
        try:
            self._websockets.startService()
        except CannotListenError as error:
            problem = (
                f"{str(error).rstrip('.')}. Is something running there already? Stop it, or choose "
                "another address with --listen."
            )
            _log.critical("{problem}", problem=problem)
            raise CannotStart(problem) from error

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
        path = self._config.websocket_url
        hosts = self._hosts()
        places = [f"websockets at ws{host}{path}" for host in hosts]
        places += [f"websockets at unix:{file}" for file in self._files()]
        if self._serves_django:
            places += [f"the site at http{host}/" for host in hosts]
        if self._workers > 1:
            places.append(f"{self._workers} workers")
        places.append(f"Redis at {self._config.redis}")
        _log.info("Ready: {places}", places=", ".join(places), ready=True)

    def _hosts(self) -> list[str]:
        """The listening addresses, as the part of a URL that follows ``ws`` or ``http``."""
        return [
            f"{'s' if description.startswith('ssl:') else ''}://{_host(address)}:{address.port}"
            for description, address in self._addresses()
            if isinstance(address, IPv4Address | IPv6Address)
        ]

    def _files(self) -> list[str]:
        return [
            os.fsdecode(address.name)
            for _, address in self._addresses()
            if isinstance(address, UNIXAddress) and address.name
        ]

    def _addresses(self) -> list[tuple[str, Any]]:
        ports = self._websockets.ports
        pairs = zip(self._config.listen, ports, strict=True)
        return [(description, port.getHost()) for description, port in pairs]

    def _stop_immediately_at_next_signal(self) -> None:
        """The first signal stops the process gracefully; a second one stops it immediately."""
        from twisted.internet import reactor

        def stop_immediately(number: int, frame: Any) -> None:
            set_exit_alarm()
            reactor.callFromThread(self._stop_now)  # type: ignore[attr-defined]

        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, stop_immediately)

    def _stop_now(self) -> None:
        self._websockets.stop_now()
        if self._requests is not None:
            self._requests.wait_no_longer()

    def _log_redis_failure(self, failure: Failure) -> None:
        _log.critical("{problem}", problem=failure.getErrorMessage())

    @inlineCallbacks
    def stopService(self) -> Any:
        self._stop_immediately_at_next_signal()
        yield super().stopService()
        # Requests that have begun may end meanwhile. Streaming ones may never do so.
        requests = None if self._requests is None else self._requests.when_idle(self._drain)
        yield self._websockets.stopService()
        yield requests
        if self._broker is not None and self._broker.running:
            yield self._broker.stopService()
        if self._embedded is not None:
            yield self._embedded.stop()


class _Worker(_Process):
    """A worker process, which ends when its parent says so."""

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        obey_parent(reactor, self._stop_now)

    def _listen(self) -> None:
        """Listen when Redis answers: until then, the other workers serve new clients. After
        ``_REDIS_TIMEOUT`` listen anyway, since Redis may be unavailable to all workers.
        """
        from twisted.internet import reactor

        ready = self._websockets.when_ready().addTimeout(_REDIS_TIMEOUT, reactor)
        ready.addErrback(lambda _: None).addCallback(self._listen_now)
        ready.addErrback(lambda failure: _log.failure("A worker cannot listen", failure))

    def _listen_now(self, _: object) -> None:
        if self.running:
            super()._listen()

    def _stop_immediately_at_next_signal(self) -> None:
        pass


def _host(address: IPv4Address | IPv6Address) -> str:
    if address.host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{address.host}]" if isinstance(address, IPv6Address) else address.host


def _collect_garbage_less_often() -> None:
    """Make garbage collection rarer, and exempt the imported modules from it.

    By default, Python collects after every 700 new objects, and scans all objects when a quarter
    more exist. This takes a sixth of the cost of a handshake when thousands of clients connect, and
    this server creates few reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _return_freed_memory() -> None:
    """Return each freed piece of at least 128 KiB to the system, such as a large message.

    By default, glibc raises this bound to the size of the largest piece that was ever freed. The
    process would then keep the memory of a crowd of clients after they have left.
    """
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def _raise_file_limit() -> None:
    """Raise the soft limit to the hard one: each websocket needs a file descriptor, and the soft
    limit is usually 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
