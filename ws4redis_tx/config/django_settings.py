"""The settings, read from Django when they are asked for; nothing is read at import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from django.apps import apps
from django.conf import settings
from django.utils.module_loading import import_string

from ws4redis_tx.config.server_config import (
    DEFAULT_LISTEN,
    DEFAULT_SUBSCRIBER,
    ServerConfig,
    check_count,
    check_expire,
    check_recheck,
    check_slow_reader,
    check_websocket_url,
)
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.limits import DEFAULT_RATE, make_rate
from ws4redis_tx.core.names import check_prefix
from ws4redis_tx.core.origins import OriginPolicy
from ws4redis_tx.core.proxies import TrustedProxies
from ws4redis_tx.core.redis_address import RedisAddress, parse_redis_address

_UNSET = object()

DEFAULTS: dict[str, Any] = {
    "WEBSOCKET_URL": "/ws/",
    "WS4REDIS_CONNECTION": None,
    "WS4REDIS_PREFIX": None,
    "WS4REDIS_EXPIRE": 3600,
    "WS4REDIS_SUBSCRIBER": DEFAULT_SUBSCRIBER,
    "WS4REDIS_HEARTBEAT": None,
    "WS4REDIS_ALLOWED_CHANNELS": None,
    "WS4REDIS_PROCESS_REQUEST": None,
    "WS4REDIS_ALLOWED_ORIGINS": None,
    "WS4REDIS_REQUIRE_ORIGIN": False,
    "WS4REDIS_TRUSTED_PROXIES": None,
    "WS4REDIS_ON_COMMIT": False,
    "WS4REDIS_TIMEOUT": 5,
    "WS4REDIS_MAX_MESSAGE_SIZE": 1024 * 1024,
    "WS4REDIS_MAX_PENDING": 4 * 1024 * 1024,
    "WS4REDIS_MAX_CONNECTIONS": None,
    "WS4REDIS_MAX_CONNECTIONS_PER_USER": None,
    "WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS": None,
    "WS4REDIS_MAX_AUTHORIZATIONS": 20_000,
    "WS4REDIS_RATE": DEFAULT_RATE,
    "WS4REDIS_SLOW_READER": "close",
    "WS4REDIS_COMPRESSION": False,
    "WS4REDIS_RECHECK": 300,
    "WS4REDIS_REVOKE": True,
}


def get(name: str) -> Any:
    """The setting's value as it stands now, or its default.

    What somebody assigned to the module ``ws4redis_tx.settings``, as old tests do, goes before.
    """
    assigned = vars(sys.modules.get("ws4redis_tx.settings", sys)).get(name, _UNSET)
    return getattr(settings, name, DEFAULTS[name]) if assigned is _UNSET else assigned


def get_callable(name: str) -> Callable[..., Any] | None:
    """The setting's value, imported if it is a dotted name.

    Raises ``ConfigError`` when that cannot be imported or called.
    """
    value = get(name)
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = import_string(value)
        except ImportError as error:
            raise ConfigError(
                name, f"is {value!r}, which cannot be imported: {error}", "Correct the dotted name."
            ) from error
    if not callable(value):
        raise ConfigError(name, f"is {value!r}, which cannot be called", "Name a callable.")
    return value  # type: ignore[no-any-return]


def get_prefix() -> str:
    return check_prefix(get("WS4REDIS_PREFIX"))


def get_expire() -> int:
    return check_expire(get("WS4REDIS_EXPIRE"))


def get_redis_address() -> RedisAddress:
    return parse_redis_address(get("WS4REDIS_CONNECTION"))


def get_origins() -> tuple[str, ...]:
    """The origins let in besides the server's own host; Django's own setting counts too."""
    own = get("WS4REDIS_ALLOWED_ORIGINS")
    if own == "*":
        own = ["*"]
    return (
        *_names("WS4REDIS_ALLOWED_ORIGINS", own, "https://example.com"),
        *settings.CSRF_TRUSTED_ORIGINS,
    )


def get_trusted_proxies() -> tuple[str, ...]:
    name = "WS4REDIS_TRUSTED_PROXIES"
    return _names(name, get(name), "127.0.0.1")


def _names(setting: str, value: object, example: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ConfigError(setting, f"is {value!r}", f"Use a list, such as ['{example}'].")
    return tuple(value)


def get_heartbeat() -> str | None:
    heartbeat = get("WS4REDIS_HEARTBEAT")
    if heartbeat is None:
        return None
    if not isinstance(heartbeat, str) or not heartbeat:
        raise ConfigError("WS4REDIS_HEARTBEAT", f"is {heartbeat!r}", "Use a text, or None.")
    return heartbeat


def get_timeout() -> float:
    """Seconds that a publish or fetch may block."""
    timeout = get("WS4REDIS_TIMEOUT")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0:
        raise ConfigError("WS4REDIS_TIMEOUT", f"is {timeout!r}", "Use a number of seconds.")
    return float(timeout)


def get_count(name: str) -> int:
    return check_count(name, get(name))


def get_count_or_none(name: str) -> int | None:
    return None if get(name) is None else get_count(name)


def get_rate() -> tuple[float, float] | None:
    rate = make_rate(get("WS4REDIS_RATE"))
    return None if rate is None else (rate.messages, rate.size)


def get_flag(name: str) -> bool:
    flag = get(name)
    if not isinstance(flag, bool):
        raise ConfigError(name, f"is {flag!r}", "Use True or False.")
    return flag


def get_allowed_hosts() -> tuple[str, ...]:
    """``ALLOWED_HOSTS``, or what Django takes for it while developing."""
    if settings.DEBUG and not settings.ALLOWED_HOSTS:
        return (".localhost", "127.0.0.1", "[::1]")
    return tuple(settings.ALLOWED_HOSTS)


_CHECKS: tuple[Callable[[], object], ...] = (
    lambda: check_websocket_url(get("WEBSOCKET_URL")),
    get_redis_address,
    get_prefix,
    get_expire,
    lambda: get_callable("WS4REDIS_SUBSCRIBER"),
    get_heartbeat,
    lambda: get_callable("WS4REDIS_ALLOWED_CHANNELS"),
    lambda: get_callable("WS4REDIS_PROCESS_REQUEST"),
    lambda: OriginPolicy(get_origins()),
    get_timeout,
    lambda: get_count("WS4REDIS_MAX_MESSAGE_SIZE"),
    lambda: get_count("WS4REDIS_MAX_PENDING"),
    lambda: get_count_or_none("WS4REDIS_MAX_CONNECTIONS"),
    lambda: get_count_or_none("WS4REDIS_MAX_CONNECTIONS_PER_USER"),
    lambda: get_count_or_none("WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS"),
    lambda: get_count("WS4REDIS_MAX_AUTHORIZATIONS"),
    get_rate,
    lambda: check_slow_reader(get("WS4REDIS_SLOW_READER")),
    lambda: get_flag("WS4REDIS_COMPRESSION"),
    lambda: check_recheck(get("WS4REDIS_RECHECK")),
    lambda: get_flag("WS4REDIS_REQUIRE_ORIGIN"),
    lambda: TrustedProxies(get_trusted_proxies()),
    lambda: get_flag("WS4REDIS_ON_COMMIT"),
    lambda: get_flag("WS4REDIS_REVOKE"),
)


def problems() -> list[ConfigError]:
    """Every setting that cannot work, one error each."""
    found = []
    for check in _CHECKS:
        try:
            check()
        except ConfigError as error:
            found.append(error)
    return found


def server_config(listen: tuple[str, ...] = DEFAULT_LISTEN) -> ServerConfig:
    """The server's configuration according to Django's settings. Raises ``ConfigError``."""
    if not apps.ready:
        raise ConfigError(
            "ServerConfig.from_django()",
            "was called before Django was set up",
            "Name the settings in DJANGO_SETTINGS_MODULE, and call django.setup() first.",
        )
    subscriber = get_callable("WS4REDIS_SUBSCRIBER")
    assert subscriber is not None
    return ServerConfig(
        redis=get_redis_address(),
        listen=listen,
        websocket_url=get("WEBSOCKET_URL"),
        prefix=get_prefix(),
        expire=get_expire(),
        heartbeat=get_heartbeat(),
        subscriber=subscriber,
        allowed_origins=get_origins(),
        allowed_hosts=get_allowed_hosts(),
        require_origin=get_flag("WS4REDIS_REQUIRE_ORIGIN"),
        trusted_proxies=get_trusted_proxies(),
        django=True,
        max_message_size=get_count("WS4REDIS_MAX_MESSAGE_SIZE"),
        max_pending=get_count("WS4REDIS_MAX_PENDING"),
        max_connections=get_count_or_none("WS4REDIS_MAX_CONNECTIONS"),
        max_connections_per_user=get_count_or_none("WS4REDIS_MAX_CONNECTIONS_PER_USER"),
        max_connections_per_address=get_count_or_none("WS4REDIS_MAX_CONNECTIONS_PER_ADDRESS"),
        max_authorizations=get_count("WS4REDIS_MAX_AUTHORIZATIONS"),
        rate=get_rate(),
        slow_reader=check_slow_reader(get("WS4REDIS_SLOW_READER")),
        compression=get_flag("WS4REDIS_COMPRESSION"),
        recheck=check_recheck(get("WS4REDIS_RECHECK")),
    )
