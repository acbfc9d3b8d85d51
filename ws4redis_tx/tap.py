"""``twistd ws4redis``: its options, and the service they mean."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import IService, Service
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import inlineCallbacks
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from ws4redis_tx.core.config import DEFAULT_LISTEN, ServerConfig, check_expire
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.server.embedded_redis import EmbeddedRedis, find_server, free_port
from ws4redis_tx.service import (
    RedisBroker,
    WebSocketService,
    make_broker,
    make_endpoint,
    make_service,
)
from ws4redis_tx.worker import inherited_endpoints, obey_parent
from ws4redis_tx.workers import Supervisor, Workers, worker_command

_log = Logger()

# How long a new worker waits for Redis, in seconds.
_LISTEN_ANYWAY = 2


class Options(UsageOptions):
    """What stands on the command line goes before what stands in the settings."""

    synopsis = "[options]"
    longdesc = (
        "Serves websockets that receive what Django, or anybody, publishes through Redis. With "
        "--settings it knows the visitors of a Django site; without, it serves anonymous "
        "broadcasts."
    )
    optParameters = [
        [
            "redis",
            None,
            None,
            "Redis URL: redis://host:6379/0, rediss://…, unix:///path?db=0. One with a password "
            "is not taken here, where any user of the machine can read it: write it into a file "
            "and pass @FILE, or set WS4REDIS_CONNECTION in the settings (without Django: in the "
            "environment).",
        ],
        ["settings", None, None, "Django settings module (default: $DJANGO_SETTINGS_MODULE)."],
        ["websocket-url", None, None, "Prefix of every websocket path (default: /ws/)."],
        ["prefix", None, None, "Prefix of all Redis names."],
        ["expire", None, None, "Seconds a message stays persisted; 0: not (default: 3600)."],
        ["heartbeat", None, None, "Text sent to every client at least every 5 s."],
        ["max-message-size", None, None, "Bytes a client's message may have (default: 1048576)."],
        ["max-connections", None, None, "Websockets of one process; further ones get 503."],
        [
            "max-pending",
            None,
            None,
            "Bytes that may wait for a client that does not read (default: 4194304).",
        ],
        [
            "slow-reader",
            None,
            None,
            "What happens when more would wait: close the client (the default), drop_oldest "
            "message, or keep the latest one of each channel.",
        ],
        [
            "drain",
            None,
            "5",
            "Seconds over which clients are closed on SIGTERM; a second one ends it at once.",
        ],
        ["workers", None, "1", "Processes that serve the same sockets, for several CPUs."],
        ["inherit", None, None, "Used by --workers for the processes that it starts."],
    ]
    optFlags = [
        ["embedded-redis", None, "Start a Redis of our own: in memory, on a free loopback port."],
        ["compression", None, "Accept permessage-deflate from clients that offer it."],
        ["serve-django", None, "Serve the Django site on the same port too, for development."],
    ]

    compData: Any = None

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []
        self["origin"] = []
        self["trusted-proxy"] = []

    def parseOptions(self, options: Any = None) -> None:
        # Workers get the same options, and are started where these were written for.
        self["arguments"] = sys.argv[1:] if options is None else list(options)
        self["folder"] = os.getcwd()
        super().parseOptions(options)

    def opt_listen(self, endpoint: str) -> None:
        """Twisted endpoint to listen on; repeatable (default: tcp:8080:interface=127.0.0.1)."""
        self["listen"].append(endpoint)

    def opt_origin(self, origin: str) -> None:
        """Origin to let in besides the host itself; repeatable. https://*.example.com, '*'."""
        self["origin"].append(origin)

    def opt_trusted_proxy(self, address: str) -> None:
        """Address or network of a proxy in front, whose X-Forwarded-For, -Proto and -Host are
        believed; 'unix' for one that uses a Unix socket; repeatable.
        """
        self["trusted-proxy"].append(address)

    def postOptions(self) -> None:
        """Build the configuration; everything that is wrong is said here, before any start."""
        sys.path.insert(0, os.getcwd())  # as Django's own commands do
        if self["inherit"] is not None:  # a worker, which has what its parent started
            self["inherit"] = [int(number) for number in self["inherit"].split(",")]
            self["workers"], self["embedded-redis"] = "1", 0
        if self["redis"] is not None and self["embedded-redis"]:
            raise UsageError("Give either --redis or --embedded-redis, not both.")
        settings = self["settings"] or os.environ.get("DJANGO_SETTINGS_MODULE")
        if self["serve-django"] and not settings:
            raise UsageError("--serve-django needs --settings MODULE.")
        try:
            self["drain"] = _number("drain", self["drain"], float)
            self["workers"] = _number("workers", self["workers"], int, least=1)
            overrides = self._overrides()
            if settings:
                self["config"] = _django_config(settings, overrides, self["listen"])
            else:
                self["config"] = _plain_config(overrides, self["listen"])
        except ConfigError as error:
            raise UsageError(str(error)) from error

    def _overrides(self) -> dict[str, Any]:
        """The settings that options were given for."""
        given = {
            "WEBSOCKET_URL": self["websocket-url"],
            "WS4REDIS_PREFIX": self["prefix"],
            "WS4REDIS_HEARTBEAT": self["heartbeat"],
            "WS4REDIS_ALLOWED_ORIGINS": self["origin"] or None,
            "WS4REDIS_TRUSTED_PROXIES": self["trusted-proxy"] or None,
            "WS4REDIS_SLOW_READER": self["slow-reader"],
            "WS4REDIS_COMPRESSION": True if self["compression"] else None,
            "WS4REDIS_CONNECTION": self._redis(),
        }
        for name, option in _NUMBERS.items():
            if self[option] is not None:
                given[name] = _number(option, self[option], int)
        return {name: value for name, value in given.items() if value is not None}

    def _redis(self) -> Any:
        if self["embedded-redis"]:
            find_server()
            return f"redis://127.0.0.1:{free_port()}/0"
        url = self["redis"]
        if url is None:
            return None
        if url.startswith("@"):
            try:
                with open(url[1:]) as file:
                    return file.read().strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    "--redis", f"names a file that cannot be read: {error}", "Correct its path."
                ) from error
        if parse_redis_address(url).password is not None:
            raise UsageError(
                "A Redis URL with a password on the command line can be read by every user of "
                "this machine. Write it into a file and pass --redis @FILE, or set "
                "WS4REDIS_CONNECTION in the Django settings (without Django: in the environment)."
            )
        return url


_LIMITS = {
    "WS4REDIS_MAX_MESSAGE_SIZE": "max_message_size",
    "WS4REDIS_MAX_PENDING": "max_pending",
    "WS4REDIS_MAX_CONNECTIONS": "max_connections",
    "WS4REDIS_SLOW_READER": "slow_reader",
    "WS4REDIS_COMPRESSION": "compression",
}
_NUMBERS = {
    "WS4REDIS_EXPIRE": "expire",
    "WS4REDIS_MAX_MESSAGE_SIZE": "max-message-size",
    "WS4REDIS_MAX_PENDING": "max-pending",
    "WS4REDIS_MAX_CONNECTIONS": "max-connections",
}


def _number(option: str, value: str, kind: Callable[[str], float], least: int = 0) -> float:
    try:
        number = kind(value)
        if least <= number < math.inf:
            return number
    except ValueError:
        pass
    remedy = f"Write a number from {least}" if least else "Write a number"
    raise ConfigError(f"--{option}", f"is {value!r}", f"{remedy}, such as 5.")


def _plain_config(overrides: dict[str, Any], listen: list[str]) -> ServerConfig:
    return ServerConfig(
        redis=parse_redis_address(
            overrides.get("WS4REDIS_CONNECTION", os.environ.get("WS4REDIS_CONNECTION"))
        ),
        websocket_url=overrides.get("WEBSOCKET_URL", "/ws/"),
        prefix=overrides.get("WS4REDIS_PREFIX", ""),
        expire=check_expire(overrides.get("WS4REDIS_EXPIRE", 3600)),
        heartbeat=overrides.get("WS4REDIS_HEARTBEAT"),
        allowed_origins=tuple(overrides.get("WS4REDIS_ALLOWED_ORIGINS", ())),
        trusted_proxies=tuple(overrides.get("WS4REDIS_TRUSTED_PROXIES", ())),
        listen=tuple(listen) or DEFAULT_LISTEN,
        **{field: overrides[name] for name, field in _LIMITS.items() if name in overrides},
    )


def _django_config(module: str, overrides: dict[str, Any], listen: list[str]) -> ServerConfig:
    """Set Django up, with the options in place of its settings.

    In the same process its views publish where this server listens, and its pages name this
    server's path. Django sets the process's time zone to its own; it needs it there, and the log's
    times carry their offset.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = module
    import django
    from django.conf import settings

    try:
        for name, value in overrides.items():
            setattr(settings, name, value)
        django.setup()
    except Exception as error:  # a settings module may raise anything
        raise UsageError(
            f"The Django settings {module!r} do not work: {type(error).__name__}: {error}. Name a "
            "module that can be imported from the current folder, such as --settings "
            "mysite.settings."
        ) from error
    from ws4redis_tx import conf

    problems = conf.problems()
    if problems:
        raise UsageError("\n".join(map(str, problems)))
    return conf.server_config(listen=tuple(listen) or DEFAULT_LISTEN)


def makeService(options: Options) -> IService:
    """Called by ``twistd`` before it daemonises: starts nothing."""
    try:
        return _parent(options) if options["workers"] > 1 else _server(options)
    except ConfigError as error:
        raise SystemExit(f"twistd ws4redis: {error}") from error


def _server(options: Options) -> _Process:
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
        from ws4redis_tx.django_site import make_django_site

        websockets.listener = make_django_site(websockets.factory, reactor)
    process = _Process if options["inherit"] is None else _Worker
    return process(options, websockets, broker, _embedded_redis(options))


def _parent(options: Options) -> _Process:
    from twisted.internet import reactor

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
            problem = f"{error}. Is something running there already? See --listen."
            _log.critical("{problem}", problem=problem)
            raise SystemExit(f"twistd ws4redis: {problem}") from error

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

        from ws4redis_tx.bridge import share_commands

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
            f"{'s' if description.startswith('ssl:') else ''}://"
            f"{'localhost' if address.host in ('0.0.0.0', '::') else address.host}:{address.port}"
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


def _raise_file_limit() -> None:
    """A websocket is a file descriptor, and most systems start processes with 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
