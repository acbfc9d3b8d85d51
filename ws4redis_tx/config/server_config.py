"""The server's configuration: explicit, validated, frozen."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ws4redis_tx.config.document import parameters
from ws4redis_tx.config.table import BY_FIELD
from ws4redis_tx.core.redis_address import RedisAddress


def _default(name: str) -> Any:
    row = BY_FIELD[name]
    return row.from_field(row.default)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """How a server behaves. Raises ``ConfigError`` for values that cannot work.

    Pass only the fields that differ from their defaults.
    """

    redis: RedisAddress = field(default_factory=RedisAddress)
    listen: tuple[str, ...] = _default("listen")
    websocket_url: str = _default("websocket_url")
    centrifuge_url: str | None = _default("centrifuge_url")
    centrifuge_names: str | Callable[..., object] | None = _default("centrifuge_names")  # noqa: RUF009
    rpc: str | Callable[..., object] | None = _default("rpc")  # noqa: RUF009
    centrifuge_ping: float = _default("centrifuge_ping")
    centrifuge_pong: float = _default("centrifuge_pong")
    centrifuge_connect_timeout: float = _default("centrifuge_connect_timeout")
    centrifuge_expired_grace: float = _default("centrifuge_expired_grace")
    script_name: str = _default("script_name")
    prefix: str = _default("prefix")
    expire: int = _default("expire")
    history: tuple[tuple[str, int, int], ...] = _default("history")
    presence: tuple[str, ...] = _default("presence")
    presence_grace: int = _default("presence_grace")
    heartbeat: str | None = _default("heartbeat")
    subscriber: str | Callable[..., object] = _default("subscriber")  # noqa: RUF009
    token_secret: tuple[str, ...] = field(default=_default("token_secret"), repr=False)
    endless_tokens: bool = _default("endless_tokens")
    allowed_origins: tuple[str, ...] = _default("allowed_origins")
    allowed_hosts: tuple[str, ...] | None = _default("allowed_hosts")
    require_origin: bool = _default("require_origin")
    trusted_proxies: tuple[str, ...] = _default("trusted_proxies")
    django: bool = _default("django")
    tenants: bool = _default("tenants")
    max_message_size: int = _default("max_message_size")
    max_pending: int = _default("max_pending")
    slow_reader: str = _default("slow_reader")
    max_pending_total: int = _default("max_pending_total")
    max_connections: int | None = _default("max_connections")
    max_connections_per_user: int | None = _default("max_connections_per_user")
    max_connections_per_address: int | None = _default("max_connections_per_address")
    max_authorizations: int = _default("max_authorizations")
    rate: tuple[float, float] | None = _default("rate")
    client_quota: int | None = _default("client_quota")
    compression: bool = _default("compression")
    recheck: int = _default("recheck")

    @classmethod
    def from_django(cls, **changes: Any) -> ServerConfig:
        """The configuration according to Django's settings, with ``changes`` to its fields.

        Django must be set up. ``django`` is true: the visitors are Django's.
        """
        from ws4redis_tx.config import django_settings

        return replace(django_settings.server_config(), **changes)

    def __post_init__(self) -> None:
        for name, row in BY_FIELD.items():
            object.__setattr__(self, name, row.from_field(getattr(self, name)))


# The table describes the fields.
ServerConfig.__doc__ = "\n\n".join(
    [
        inspect.cleandoc(ServerConfig.__doc__ or ""),
        parameters(
            {each.name: getattr(ServerConfig(), each.name) for each in fields(ServerConfig)}
        ),
    ]
)
