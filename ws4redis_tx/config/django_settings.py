"""The settings, read from Django when they are asked for; nothing is read at import."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ws4redis_tx.config.fields_alone import DEFAULT_LISTEN
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.config.setting import Setting
from ws4redis_tx.config.table import BY_FIELD, BY_NAME, SETTINGS
from ws4redis_tx.config.token_secrets import derived
from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import ConfigError, nearest
from ws4redis_tx.core.names import Namespace, check_tenant, namespace
from ws4redis_tx.core.positions import History, HistoryRules, history_of
from ws4redis_tx.core.redis_address import RedisAddress, without_effect

_UNSET = object()
# Names that look like ours.
_OURS = re.compile(r"WS4_?REDIS")

# The last value of a setting that was found to work, and its checked form.
_checked: dict[str, tuple[object, Any]] = {}

DEFAULTS: dict[str, Any] = {row.name: row.default for row in SETTINGS}


def get(name: str) -> Any:
    """The setting's value as it stands now, or its default.

    A value that was assigned to the module ``ws4redis_tx.settings``, as old tests do, goes first.
    """
    assigned = vars(sys.modules.get("ws4redis_tx.settings", sys)).get(name, _UNSET)
    return getattr(settings, name, DEFAULTS[name]) if assigned is _UNSET else assigned


def is_written(name: str) -> bool:
    """Whether the settings have a value of their own for it."""
    return bool(settings.is_overridden(name))


def get_checked(name: str) -> Any:
    """The setting's value as it stands now, in the form that the server uses.

    Raises ``ConfigError`` when it cannot work.
    """
    value = get(name)
    known = _checked.get(name)
    if known is not None and known[0] is value:
        return known[1]
    checked = BY_NAME[name].from_django(value)
    # Every publish asks. A dotted name is imported anew: it may lead elsewhere by now.
    if isinstance(value, str | int | float | None) and not callable(checked):
        _checked[name] = value, checked
    return checked


def get_callable(name: str) -> Callable[..., Any] | None:
    callback: Callable[..., Any] | None = get_checked(name)
    return callback


def get_flag(name: str) -> bool:
    flag: bool = get_checked(name)
    return flag


def get_prefix() -> str:
    """For the names that have no tenant, and for those that name theirs themselves."""
    prefix: str = get_checked("WS4REDIS_PREFIX")
    return prefix


def has_tenants() -> bool:
    return bool(get("WS4REDIS_TENANT"))


def tenant_of(request: Any) -> str:
    """Ask ``WS4REDIS_TENANT`` whose site ``request`` is for; ``""`` if it is not set. Its callable
    may query the database. Raises ``TypeError`` or ``ValueError`` for an answer that is no tenant.
    """
    callback = get_callable("WS4REDIS_TENANT")
    return "" if callback is None else check_tenant(callback(request))


def known_tenant(request: Any) -> str:
    """The tenant whose site ``request`` is for, as its handshake has found out, or else as
    ``tenant_of`` says; ``""`` on a site without tenants.
    """
    if not has_tenants():
        return ""
    known: Identity | None = getattr(request, "ws4redis_identity", None)
    return known.tenant if known else tenant_of(request)


def get_namespace(tenant: str | None) -> Namespace:
    """The beginning of all names of ``tenant``. Raises ``TypeError`` unless a tenant is given, or
    ``""`` or ``None`` on a site without tenants.
    """
    if not has_tenants():
        if tenant:
            raise TypeError(
                f"tenant={tenant!r} needs the setting WS4REDIS_TENANT, which is not set."
            )
        return Namespace(get_prefix())
    if not tenant:
        raise TypeError(
            "WS4REDIS_TENANT is set, and nothing says which tenant this is for. Pass request=… or "
            "tenant=…."
        )
    return namespace(get_prefix(), tenant)


def get_expire() -> int:
    expire: int = get_checked("WS4REDIS_EXPIRE")
    return expire


def get_history(facility: str) -> History | None:
    """The history that the channels of ``facility`` keep, if any."""
    rules: HistoryRules = get_checked("WS4REDIS_HISTORY")
    return history_of(rules, facility)


def get_redis_address() -> RedisAddress:
    address: RedisAddress = get_checked("WS4REDIS_CONNECTION")
    return address


def get_token_secrets() -> tuple[str, ...]:
    """The secrets of tokens, the one that signs first."""
    written: tuple[str, ...] = get_checked("WS4REDIS_TOKEN_SECRET")
    if written:
        return written
    try:
        return derived([settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS])
    except ImproperlyConfigured:  # there is no SECRET_KEY
        return ()


def get_timeout() -> float:
    """Seconds that a publish or fetch may block."""
    timeout: float = get_checked("WS4REDIS_TIMEOUT")
    return timeout


def get_origins() -> tuple[str, ...]:
    """The origins let in besides the server's own host; Django's own setting counts too."""
    row = BY_NAME["WS4REDIS_ALLOWED_ORIGINS"]
    trusted = row.kind.check("CSRF_TRUSTED_ORIGINS", settings.CSRF_TRUSTED_ORIGINS)
    return (*get_checked(row.name), *trusted)


def get_allowed_hosts() -> tuple[str, ...]:
    """``ALLOWED_HOSTS``, or the hosts that Django takes in its place while developing."""
    if settings.DEBUG and not settings.ALLOWED_HOSTS:
        return (".localhost", "127.0.0.1", "[::1]")
    return tuple(settings.ALLOWED_HOSTS)


def mistakes() -> Iterator[tuple[Setting, ConfigError]]:
    """Every setting that cannot work, and why."""
    for row in SETTINGS:
        try:
            get_origins() if row.field == "allowed_origins" else get_checked(row.name)
        except ConfigError as error:
            yield row, error


def doubts() -> Iterator[tuple[str, ConfigError]]:
    """Settings that have no effect, or only a part of it, each with the id of its warning."""
    for name in dir(settings):
        if _OURS.match(name) and name not in BY_NAME:
            problem = "is not a setting of ws4redis_tx, and has no effect"
            yield "W001", ConfigError(name, problem, f"Did you mean {nearest(name, BY_NAME)}?")
    if not apps.is_installed("ws4redis_tx"):
        yield (
            "W002",
            ConfigError(
                "INSTALLED_APPS",
                "lacks 'ws4redis_tx', so a logout or a lost group closes no websocket at once",
                "Add 'ws4redis_tx'.",
            ),
        )
    name = "WS4REDIS_CONNECTION"
    for error in without_effect(get(name)):
        yield "W003", ConfigError(name, error.problem, error.remedy)
    application = settings.WSGI_APPLICATION
    if isinstance(application, str) and application.startswith("ws4redis."):
        yield (
            "W004",
            ConfigError(
                "WSGI_APPLICATION",
                f"is {application!r}, of django-websocket-redis",
                "Name your site's own WSGI application, or None; twistd ws4redis serves the "
                "websockets.",
            ),
        )


def problems() -> list[ConfigError]:
    """Every setting that cannot work, one error each."""
    return [error for _, error in mistakes()]


def server_config(listen: tuple[str, ...] = DEFAULT_LISTEN) -> ServerConfig:
    """The server's configuration according to Django's settings. Raises ``ConfigError``."""
    if not apps.ready:
        raise ConfigError(
            "ServerConfig.from_django()",
            "was called before Django was set up",
            "Name the settings in DJANGO_SETTINGS_MODULE, and call django.setup() first.",
        )
    values = {row.field: get_checked(row.name) for row in BY_FIELD.values() if row.name}
    values["allowed_origins"] = get_origins()
    script_name = (settings.FORCE_SCRIPT_NAME or "").strip("/")
    values["token_secret"] = get_token_secrets()
    values["tenants"] = has_tenants()
    values["script_name"] = f"/{quote(script_name)}" if script_name else ""
    return ServerConfig(**values, listen=listen, allowed_hosts=get_allowed_hosts(), django=True)
