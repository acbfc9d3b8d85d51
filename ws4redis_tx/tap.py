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
from twisted.internet.address import IPv4Address, IPv6Address
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
from ws4redis_tx.service import RedisBroker, WebSocketService, make_broker, make_service

_log = Logger()


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
        ["max-connections", None, None, "Websockets of this process; further ones get 503."],
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
        if self["redis"] is not None and self["embedded-redis"]:
            raise UsageError("Give either --redis or --embedded-redis, not both.")
        settings = self["settings"] or os.environ.get("DJANGO_SETTINGS_MODULE")
        if self["serve-django"] and not settings:
            raise UsageError("--serve-django needs --settings MODULE.")
        try:
            self["drain"] = _number("drain", self["drain"], float)
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


def _number(option: str, value: str, kind: Callable[[str], float]) -> float:
    try:
        number = kind(value)
        if 0 <= number < math.inf:
            return number
    except ValueError:
        pass
    raise ConfigError(f"--{option}", f"is {value!r}", "Write a number, such as 5.")


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
    from twisted.internet import reactor

    config: ServerConfig = options["config"]
    broker = make_broker(config, reactor=reactor)
    try:
        websockets = make_service(config, broker=broker, reactor=reactor)
    except ConfigError as error:
        raise SystemExit(f"twistd ws4redis: {error}") from error
    websockets.stop_code = 1012
    websockets.drain = options["drain"]
    if options["serve-django"]:
        from ws4redis_tx.django_site import make_django_site

        websockets.listener = make_django_site(websockets.factory, reactor)
    embedded = None
    if options["embedded-redis"]:
        embedded = EmbeddedRedis(config.redis.port, reactor)
    return _Process(config, websockets, broker, embedded, serves_django=options["serve-django"])


class _Process(Service):
    """What this process runs, in the order it must start and stop."""

    def __init__(
        self,
        config: ServerConfig,
        websockets: WebSocketService,
        broker: RedisBroker,
        embedded: EmbeddedRedis | None,
        *,
        serves_django: bool,
    ) -> None:
        self._config = config
        self._websockets = websockets
        self._broker = broker
        self._embedded = embedded
        self._serves_django = serves_django

    def startService(self) -> None:
        super().startService()
        _raise_file_limit()
        if self._config.django:
            self._adopt_publishers()
        try:
            self._websockets.startService()
        except CannotListenError as error:
            problem = f"{error}. Is something running there already? See --listen."
            _log.critical("{problem}", problem=problem)
            raise SystemExit(f"twistd ws4redis: {problem}") from error
        if self._embedded is None:
            self._broker.startService()
        else:
            self._embedded.start().addCallbacks(
                lambda _: self._broker.startService(), self._without_redis
            )
        self._websockets.when_ready().addCallbacks(self._ready, lambda _: None)

    def _adopt_publishers(self) -> None:
        """Who publishes in this process uses its reactor and its connection. Not before here:
        until now, ``twistd`` may have forked to become a daemon.
        """
        import crochet

        from ws4redis_tx.bridge import share_commands

        crochet.no_setup()
        share_commands(self._broker.commands)

    def _ready(self, _: object) -> None:
        path = self._config.websocket_url
        places = [f"websockets at ws://{host}{path}" for host in self._hosts()]
        if self._serves_django:
            places += [f"the site at http://{host}/" for host in self._hosts()]
        places.append(f"Redis at {self._config.redis}")
        _log.info("Ready: {places}", places=", ".join(places))

    def _hosts(self) -> list[str]:
        addresses = [port.getHost() for port in self._websockets.ports]
        return [
            f"{'localhost' if address.host in ('0.0.0.0', '::') else address.host}:{address.port}"
            for address in addresses
            if isinstance(address, IPv4Address | IPv6Address)
        ]

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
        if self._broker.running:
            yield self._broker.stopService()
        if self._embedded is not None:
            yield self._embedded.stop()


def _raise_file_limit() -> None:
    """A websocket is a file descriptor, and most systems start processes with 1024 of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
