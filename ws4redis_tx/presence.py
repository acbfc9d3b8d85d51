"""Who is there: the clients that listen to a facility of ``WS4REDIS_PRESENCE``.

``who``, ``count`` and ``is_online`` ask Redis, and know the clients of all servers. A client whose
connection was lost counts as present until the end of its grace; the clients of a server that was
killed, for half a minute or so. The functions whose names begin with ``a`` are for async views.

All raise ``ValueError`` where nobody is ever present, and ``BrokerUnavailable`` when Redis is not
there. They block for at most ``WS4REDIS_TIMEOUT`` seconds. Imports no reactor.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from asgiref.sync import sync_to_async

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.messages import Occupant
from ws4redis_tx.core.names import channel_name, check_facility, facility_text
from ws4redis_tx.redis_store import resolve
from ws4redis_tx.threads import bridge

__all__ = ["Present", "PresentCount", "acount", "ais_online", "awho", "count", "is_online", "who"]


@dataclass(frozen=True, slots=True)
class Present:
    """A client that is present: a page that is open, an app. A user may have several.

    ``user`` is the user's name, ``""`` for an anonymous visitor. ``client`` is another one for each
    connection. ``conn_info`` and ``chan_info`` are what tokens said of it, ``None`` for nothing.
    """

    user: str
    client: str
    conn_info: Any = None
    chan_info: Any = None


class PresentCount(int):
    """The number of clients. ``users`` is the number of different users; all anonymous visitors
    together are one.
    """

    users: int

    def __new__(cls, clients: int, users: int) -> PresentCount:
        count = super().__new__(cls, clients)
        count.users = users
        return count


def who(
    facility: str, *, group: Any = None, request: Any = None, tenant: str | None = None
) -> list[Present]:
    """The clients that hear what is broadcast on ``facility``, or what is sent to ``group`` there,
    sorted by user.

    :param group: a group or its name.
    :param request: names the tenant, on a site with tenants. ``tenant`` does so by itself.
    """
    bridge.must_not_wait_on_event_loop(_WHO[0])
    channel = _channel(facility, group, request, tenant)
    return _sorted(bridge.redis().ask("present", channel, instead=_WHO))


async def awho(
    facility: str, *, group: Any = None, request: Any = None, tenant: str | None = None
) -> list[Present]:
    """``who`` for async views."""
    channel = await sync_to_async(_channel)(facility, group, request, tenant)
    return _sorted(await bridge.redis().aask("present", channel))


def count(
    facility: str, *, group: Any = None, request: Any = None, tenant: str | None = None
) -> PresentCount:
    """The number of those whom ``who`` names, which takes less time."""
    bridge.must_not_wait_on_event_loop(_COUNT[0])
    channel = _channel(facility, group, request, tenant)
    return _count(bridge.redis().ask("present", channel, False, instead=_COUNT))


async def acount(
    facility: str, *, group: Any = None, request: Any = None, tenant: str | None = None
) -> PresentCount:
    """``count`` for async views."""
    channel = await sync_to_async(_channel)(facility, group, request, tenant)
    return _count(await bridge.redis().aask("present", channel, False))


def is_online(user: Any, *, request: Any = None, tenant: str | None = None) -> bool:
    """Whether ``user``, or the user of this name, has a client on any facility of
    ``WS4REDIS_PRESENCE``, even if it hears only what is sent to the user. An anonymous visitor has
    not.
    """
    bridge.must_not_wait_on_event_loop(_ONLINE[0])
    space, name = _user(user, request, tenant)
    return bool(name and bridge.redis().ask("is_online", space, name, instead=_ONLINE))


async def ais_online(user: Any, *, request: Any = None, tenant: str | None = None) -> bool:
    """``is_online`` for async views."""
    space, name = await sync_to_async(_user)(user, request, tenant)
    return bool(name and await bridge.redis().aask("is_online", space, name))


# What to call on an event loop, and in the reactor thread.
_WHO, _COUNT, _ONLINE = (
    (f"await {name}(…)", "the presence of make_broker(config)")
    for name in ("awho", "acount", "ais_online")
)


def _channel(facility: str, group: Any, request: Any, tenant: str | None) -> bytes:
    facility, audience = facility_text(facility), "broadcast" if group is None else "group"
    check_facility(facility, [audience])
    patterns = _patterns()
    if not any(fnmatchcase(facility, each) for each in patterns):
        raise ValueError(
            f"Nobody is ever present on the facility {facility!r}: WS4REDIS_PRESENCE is "
            f"{list(patterns)}. Add it there."
        )
    name = None
    if group is not None:
        names = resolve("group", [group], request)
        if len(names) != 1:
            raise ValueError(f"group={group!r} is not one group. Name one.")
        (name,) = names
    space = django_settings.get_namespace(_tenant(request, tenant))
    return channel_name(space, audience, facility, name).encode()


def _user(user: Any, request: Any, tenant: str | None) -> tuple[str, str]:
    _patterns()
    tenant = _tenant(request, tenant)
    django_settings.get_namespace(tenant)  # or the mistake is told
    return tenant or "", next(iter(resolve("user", [user], request)), "")


def _tenant(request: Any, tenant: str | None) -> str | None:
    if tenant is None and request is not None:
        return django_settings.known_tenant(request)
    return tenant


def _patterns() -> tuple[str, ...]:
    patterns: tuple[str, ...] = django_settings.get_checked("WS4REDIS_PRESENCE")
    if not patterns:
        raise ValueError(
            "Nobody is ever present: WS4REDIS_PRESENCE is not set. Write "
            "WS4REDIS_PRESENCE = ['chat/*'], for example."
        )
    return patterns


def _sorted(found: Sequence[Occupant]) -> list[Present]:
    return [_present(each) for each in sorted(found, key=lambda each: (each.user, each.client))]


def _present(occupant: Occupant) -> Present:
    info = json.loads(occupant.info)
    return Present(occupant.user, occupant.client, info.get("conn_info"), info.get("chan_info"))


def _count(found: Sequence[Occupant]) -> PresentCount:
    return PresentCount(len(found), len({each.user for each in found}))
