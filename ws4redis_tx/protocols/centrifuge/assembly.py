"""Puts the protocol together from a configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred

from ws4redis_tx.config.importing import import_callable
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.tokens import Tokens, with_tokens
from ws4redis_tx.protocols.centrifuge.protocol import CentrifugeProtocol
from ws4redis_tx.protocols.client_quota import ClientQuota


def centrifuge(
    config: ServerConfig,
    broker: Any,
    authorizer: Any,
    reactor: Any,
    log: Any,
    version: str,
    occupancy: Any,
    quota: ClientQuota,
) -> tuple[Any, CentrifugeProtocol]:
    """The authorizer, which judges tokens too, and the protocol.

    :param log: has ``failed`` and ``note``, as ``sessions.log.ClientLog``.
    """
    missing = [name for name in ("stream", "missed", "on_lost") if not hasattr(broker, name)]
    if missing:
        raise TypeError(
            f"broker is {broker!r:.200}, which lacks {', '.join(missing)}. Clients of Centrifuge's "
            "protocol need a broker that knows histories: use make_broker(config)."
        )
    tokens = Tokens(config.token_secret, endless=config.endless_tokens)
    authorizer = with_tokens(authorizer, tokens, tenants=config.tenants)
    protocol = CentrifugeProtocol(
        config,
        broker,
        reactor,
        version=version,
        tokens=tokens,
        occupancy=occupancy,
        quota=quota,
        call=_caller(authorizer),
        names=_callable("WS4REDIS_CENTRIFUGE_NAMES", config.centrifuge_names),
        rpc=_callable("WS4REDIS_RPC", config.rpc),
        failed=log.failed,
        note=log.note,
    )
    return authorizer, protocol


def _callable(name: str, found: str | Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The callable that a setting names."""
    return import_callable(name, found) if isinstance(found, str) else found


def _caller(authorizer: Any) -> Callable[..., Deferred[Any]]:
    """Calls a function with the request of a handshake's visitor: in the authorizer's own way, or
    in the reactor thread.
    """
    own: Callable[..., Deferred[Any]] | None = getattr(authorizer, "call", None)
    if own is not None:
        return own

    def call(handshake: Handshake, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        asked: Deferred[Any] = maybeDeferred(authorizer.authorize, handshake, ())
        return asked.addCallback(lambda admission: function(admission.request, *arguments))

    return call
