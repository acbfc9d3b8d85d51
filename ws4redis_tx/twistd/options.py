"""The options of ``twistd ws4redis``, and the configuration that they and the settings mean."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from ws4redis_tx.config.server_config import DEFAULT_LISTEN, ServerConfig, check_expire
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import parse_redis_address
from ws4redis_tx.twistd.embedded_redis import find_server, free_port


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
            "recheck",
            None,
            None,
            "Seconds after which a visitor's rights are looked up again; 0: only when they are "
            "known to have changed (default: 300).",
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
        ["compression", None, "Compress messages (permessage-deflate) with clients that offer it."],
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
        address = parse_redis_address(url)
        if address.password is not None or address.sentinel_password is not None:
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
    "WS4REDIS_RECHECK": "recheck",
}
_NUMBERS = {
    "WS4REDIS_EXPIRE": "expire",
    "WS4REDIS_MAX_MESSAGE_SIZE": "max-message-size",
    "WS4REDIS_MAX_PENDING": "max-pending",
    "WS4REDIS_MAX_CONNECTIONS": "max-connections",
    "WS4REDIS_RECHECK": "recheck",
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

    from ws4redis_tx.threads import bridge

    bridge.reserve_reactor()
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
    from ws4redis_tx.config import django_settings

    problems = django_settings.problems()
    if problems:
        raise UsageError("\n".join(map(str, problems)))
    return django_settings.server_config(listen=tuple(listen) or DEFAULT_LISTEN)
