"""The server's configuration: explicit, validated, frozen."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.limits import CLOSE, DEFAULT_RATE, SLOW_READER_POLICIES, make_rate
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies
from ws4redis_tx.core.redis_address import RedisAddress

DEFAULT_LISTEN = ("tcp:8080:interface=127.0.0.1",)
DEFAULT_SUBSCRIBER = "ws4redis_tx.subscriber.RedisSubscriber"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server behaves. Raises ``ConfigError`` for values that cannot work.

    Whoever embeds the server writes only what is to differ from the defaults.

    :param redis: the Redis server. Default: ``RedisAddress()``, localhost:6379, database 0.
    :param listen: Twisted endpoint descriptions. Default: ``("tcp:8080:interface=127.0.0.1",)``.
    :param websocket_url: the prefix of every websocket path; starts and ends with ``/``. Default:
        ``"/ws/"``.
    :param prefix: the prefix of all Redis names; ``""`` for none. Default: ``""``.
    :param expire: seconds a message stays persisted; ``0`` or ``None``: it is not. Default:
        ``3600``.
    :param heartbeat: a text sent to every client at least every 5 s, and dropped when a client
        sends it; ``None`` for none. Default: ``None``.
    :param subscriber: a subclass of ``RedisSubscriber``, or its dotted name. Default:
        ``"ws4redis_tx.subscriber.RedisSubscriber"``.
    :param allowed_origins: origins let in besides the server's own host; ``"*"`` for all. Default:
        ``()``.
    :param allowed_hosts: as Django's ``ALLOWED_HOSTS``; ``None``: loopback and the hosts of
        ``allowed_origins``. Default: ``None``.
    :param require_origin: refuse clients that send no ``Origin``. Default: ``False``.
    :param trusted_proxies: addresses and networks of proxies in front, whose ``X-Forwarded-For``,
        ``-Proto`` and ``-Host`` are believed; ``"unix"`` for those that use a Unix socket. Default:
        ``()``.
    :param django: take session, user and rights of a visitor from Django. Default: ``False``.
    :param max_message_size: bytes a client's message may have; a larger one closes with 1009.
        Default: ``1048576``.
    :param max_pending: bytes that may wait for a client that does not read, each message with its
        frame and what it costs to keep it; one is always accepted when nothing waits. Default:
        ``4194304``.
    :param slow_reader: what happens when more would wait: ``"close"``, the client is closed with
        1013; ``"drop_oldest"``, the oldest messages give way; ``"latest"``, of what waits only the
        newest message of each channel is kept. Default: ``"close"``.
    :param max_connections: open websockets of this process; further ones get 503. ``None``: as many
        as it has file descriptors for. Default: ``None``.
    :param max_connections_per_user: websockets of one user, or of one session of nobody; further
        ones get 503. ``None``: any number. Default: ``None``.
    :param max_connections_per_address: the same for a client's address. Default: ``None``.
    :param max_authorizations: handshakes that may wait for the authorizer; further ones get 503
        before it is asked. Default: ``20000``.
    :param rate: messages and bytes a second that a client may send on average, with bursts of 10 s
        of it; one that sends more is closed with 1013. ``None``: any number. Default: ``(1000,
        16777216)``.
    :param compression: agree on permessage-deflate with clients that offer it. Default: ``False``.
    :param recheck: seconds after which each websocket is authorized again; ``0`` or ``None``: only
        when something is known to have changed. Default: ``300``.
    """

    redis: RedisAddress = field(default_factory=RedisAddress)
    listen: tuple[str, ...] = DEFAULT_LISTEN
    websocket_url: str = "/ws/"
    prefix: str = ""
    expire: int = 3600
    heartbeat: str | None = None
    subscriber: str | Callable[..., object] = DEFAULT_SUBSCRIBER
    allowed_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] | None = None
    require_origin: bool = False
    trusted_proxies: tuple[str, ...] = ()
    django: bool = False
    max_message_size: int = 1024 * 1024
    max_pending: int = 4 * 1024 * 1024
    slow_reader: str = CLOSE
    max_connections: int | None = None
    max_connections_per_user: int | None = None
    max_connections_per_address: int | None = None
    max_authorizations: int = 20_000
    rate: tuple[float, float] | None = DEFAULT_RATE
    compression: bool = False
    recheck: int = 300

    @classmethod
    def from_django(cls, **changes: Any) -> ServerConfig:
        """What Django's settings say, but for ``changes``, which are fields. Django must be set up.

        Visitors are Django's then: ``django`` is true.
        """
        from ws4redis_tx.config import django_settings

        return replace(django_settings.server_config(), **changes)

    def __post_init__(self) -> None:
        check_websocket_url(self.websocket_url)
        if not isinstance(self.redis, RedisAddress):
            # Its value may hold a password.
            raise ConfigError(
                "redis",
                f"is a {type(self.redis).__name__}, not a RedisAddress",
                "Use parse_redis_address('redis://localhost:6379/0').",
            )
        object.__setattr__(self, "prefix", check_prefix(self.prefix))
        object.__setattr__(self, "expire", check_expire(self.expire))
        check_count("WS4REDIS_MAX_MESSAGE_SIZE", self.max_message_size)
        check_count("WS4REDIS_MAX_PENDING", self.max_pending)
        check_count("WS4REDIS_MAX_AUTHORIZATIONS", self.max_authorizations)
        for field_name in ("", "_per_user", "_per_address"):
            most = getattr(self, f"max_connections{field_name}")
            if most is not None:
                check_count(f"WS4REDIS_MAX_CONNECTIONS{field_name.upper()}", most)
        make_rate(self.rate)
        check_slow_reader(self.slow_reader)
        object.__setattr__(self, "recheck", check_recheck(self.recheck))
        for name in ("listen", "allowed_origins", "allowed_hosts", "trusted_proxies"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(name, f"is {getattr(self, name)!r}", "Use a tuple of strings.")
        OriginPolicy(self.allowed_origins)
        TrustedProxies(self.trusted_proxies)
        heartbeat = self.heartbeat
        if heartbeat is not None and not (isinstance(heartbeat, str) and heartbeat):
            raise ConfigError("WS4REDIS_HEARTBEAT", f"is {heartbeat!r}", "Use a text, or None.")


def check_websocket_url(url: object) -> str:
    if not isinstance(url, str) or not re.fullmatch(r"/([A-Za-z0-9._~!$&'()*+,;=@-]+/)*", url):
        raise ConfigError(
            "WEBSOCKET_URL",
            f"is {url!r}, which is not a path",
            "Write a path that starts and ends with '/', such as /ws/.",
        )
    return url


def check_count(setting: str, value: object) -> int:
    """A whole number, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(setting, f"is {value!r}", "Use a whole number, at least 1.")
    return value


def check_slow_reader(policy: object) -> str:
    if policy not in SLOW_READER_POLICIES:
        raise ConfigError(
            "WS4REDIS_SLOW_READER",
            f"is {policy!r}",
            f"Use one of {', '.join(SLOW_READER_POLICIES)}.",
        )
    return str(policy)


def check_recheck(recheck: object) -> int:
    """Seconds between two looks at a visitor's rights; ``None`` means ``0``, never."""
    if recheck is None:
        return 0
    if isinstance(recheck, bool) or not isinstance(recheck, int) or not 0 <= recheck < 2**31:
        raise ConfigError(
            "WS4REDIS_RECHECK",
            f"is {recheck!r}",
            "Use whole seconds, or 0 to look only when something is known to have changed.",
        )
    return recheck


def check_expire(expire: object) -> int:
    """Seconds a message stays persisted; ``None`` means ``0``, not at all."""
    if expire is None:
        return 0
    if isinstance(expire, bool) or not isinstance(expire, int) or not 0 <= expire < 2**31:
        raise ConfigError(
            "WS4REDIS_EXPIRE",
            f"is {expire!r}",
            "Use whole seconds, or 0 to persist nothing.",
        )
    return expire
