"""The processes of ``twistd ws4redis``: what they run, and how that starts and ends."""

from __future__ import annotations

import gc
import os
import resource
import signal
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
from ws4redis_tx.twistd.embedded_redis import EmbeddedRedis
from ws4redis_tx.twistd.options import Options
from ws4redis_tx.twistd.worker import end_soon, inherited_endpoints, obey_parent
from ws4redis_tx.twistd.workers import Supervisor, Workers, worker_command
from ws4redis_tx.websocket.service import make_endpoint

_log = Logger()

# How long a new worker waits for Redis, in seconds.
_LISTEN_ANYWAY = 2


def make_server(options: Options) -> Service:
    """A process that serves: the only one, or a worker."""
    from twisted.internet import reactor

    config: ServerConfig = options["config"]
    endpoints = None
    if options["inherit"] is not None:
        endpoints = inherited_endpoints(config.listen, options["inherit"], make_endpoint, reactor)
    broker = make_broker(config, reactor=reactor)
    websockets = make_service(config, broker=broker, endpoints=endpoints, reactor=reactor)
    websockets.stop_code = 1012
    websockets.drain = options["drain"]
    if options["serve-django"]:
        from ws4redis_tx.django.site import make_django_site

        websockets.listener = make_django_site(websockets.factory, reactor)
    process = _Process if options["inherit"] is None else _Worker
    return process(options, websockets, broker, _embedded_redis(options))


def make_parent(options: Options) -> Service:
    """The process that holds the sockets and starts the workers."""
    from twisted.internet import reactor

    make_server(options)  # so that what is wrong is said now, and not by each worker
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
    """Ends the process without a traceback; the log has said why.

    An ``Exception`` as well: a daemon's front process, which waits for word of it, is told of no
    other.
    """

    # A daemon's front process shows 100 bytes of the qualified name and the text.
    __module__ = "ws4redis_tx"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = 1


class _Process(Service):
    """What this process runs, in the order it must start and stop."""

    def __init__(
        self,
        options: Options,
        websockets: WebSocketService | Supervisor,
        broker: RedisBroker | None = None,
        embedded: EmbeddedRedis | None = None,
    ) -> None:
        self._config: ServerConfig = options["config"]
        self._websockets = websockets
        self._broker = broker
        self._embedded = embedded
        self._serves_django = options["serve-django"]
        self._workers = options["workers"]

    def startService(self) -> None:
        super().startService()
        _raise_file_limit()
        _collect_garbage_less_often()
        if self._broker is not None and self._config.django:
            self._adopt_publishers(self._broker)
        self._listen()
        if self._broker is not None:
            self._start_broker(self._broker)
        self._websockets.when_ready().addCallbacks(self._ready, lambda _: None)

    def _listen(self) -> None:
        try:
            self._websockets.startService()
        except CannotListenError as error:
            problem = f"{str(error).rstrip('.')}. Is something running there already? See --listen."
            _log.critical("{problem}", problem=problem)
            raise CannotStart(problem) from error

    def _start_broker(self, broker: RedisBroker) -> None:
        if self._embedded is None:
            broker.startService()
        else:
            self._embedded.start().addCallbacks(
                lambda _: broker.startService(), self._without_redis
            )

    def _adopt_publishers(self, broker: RedisBroker) -> None:
        """Who publishes in this process uses its reactor and its connection. Not before here:
        until now, ``twistd`` may have forked to become a daemon.
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
        """Where it listens, as what comes after ``ws`` or ``http`` in a URL."""
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

    def _end_at_the_next_signal(self) -> None:
        """The first one ends us by and by; who sends another one does not want to wait."""
        from twisted.internet import reactor

        def at_once(number: int, frame: Any) -> None:
            end_soon()
            reactor.callFromThread(self._websockets.stop_now)  # type: ignore[attr-defined]

        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, at_once)

    def _without_redis(self, failure: Failure) -> None:
        _log.critical("{problem}", problem=failure.getErrorMessage())

    @inlineCallbacks
    def stopService(self) -> Any:
        self._end_at_the_next_signal()
        yield super().stopService()
        yield self._websockets.stopService()
        if self._broker is not None and self._broker.running:
            yield self._broker.stopService()
        if self._embedded is not None:
            yield self._embedded.stop()


class _Worker(_Process):
    """One of several such processes; the parent says when to end."""

    def startService(self) -> None:
        from twisted.internet import reactor

        super().startService()
        obey_parent(reactor, self._websockets.stop_now)

    def _listen(self) -> None:
        """When Redis is there: until then, the other workers serve who connects. Or a bit later
        anyway, since it may be away from them all.
        """
        from twisted.internet import reactor

        ready = self._websockets.when_ready().addTimeout(_LISTEN_ANYWAY, reactor)
        ready.addErrback(lambda _: None).addCallback(self._listen_now)
        ready.addErrback(lambda failure: _log.failure("A worker cannot listen", failure))

    def _listen_now(self, _: object) -> None:
        if self.running:
            super()._listen()

    def _end_at_the_next_signal(self) -> None:
        pass


def _host(address: IPv4Address | IPv6Address) -> str:
    if address.host in ("0.0.0.0", "::"):
        return "localhost"
    return f"[{address.host}]" if isinstance(address, IPv6Address) else address.host


def _collect_garbage_less_often() -> None:
    """Python looks for garbage after each 700 objects that were made, and among all objects when
    there are a quarter more: a sixth of what a handshake costs, when thousands connect. Little of
    ours is garbage that only this finds. What has been imported is not looked at any more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _raise_file_limit() -> None:
    """A websocket is a file descriptor, and most systems start processes with 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
