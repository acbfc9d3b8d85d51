"""The base of publishers and subscribers: from a request and an audience to channel names.

Knows only two attributes of a request, ``user`` and ``session``. Importing it imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import AudienceError
from ws4redis_tx.core.messages import RedisMessage
from ws4redis_tx.core.names import Namespace, channel_name, check_facility, check_within

__all__ = ["SELF", "RedisMessage", "RedisStore"]


class _Self:
    def __repr__(self) -> str:
        return "SELF"


SELF: Final = _Self()
"""In ``users``, ``groups`` or ``sessions``: the request's own. It names no channel if the request
has none, as for anonymous visitors.
"""

Names = Iterable[str | _Self]


class RedisStore:
    """Computes channel names. Subclasses publish and read through ``connection``."""

    _audience_given = False
    # Whose names these are; ``None`` if it is not known, or if the site has no tenants.
    _tenant: str | None = None

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._publishers: set[str] = set()

    def get_prefix(self) -> str:
        """The beginning of all channel names, with its ``:``, or ``''``. Here it is
        ``WS4REDIS_PREFIX``, and the tenant if there are tenants (``prefix:t:tenant:``). Raises
        ``TypeError`` if there are, and it is not known which one this is for.
        """
        namespace = self._namespace()
        return f"{namespace}:" if namespace else ""

    def _namespace(self) -> Namespace:
        from ws4redis_tx.config import django_settings

        return django_settings.get_namespace(self._tenant)

    def _get_message_channels(
        self,
        request: Any = None,
        facility: str = "",
        broadcast: bool = False,
        groups: Names = (),
        users: Names = (),
        sessions: Names = (),
    ) -> list[str]:
        """The channels of an audience, without duplicates. Subclasses may add their own.

        Raises ``AudienceError`` for an audience that is not an iterable of names.
        """
        named: list[tuple[str, str | None]] = [("broadcast", None)] if broadcast else []
        for audience, names in (("group", groups), ("user", users), ("session", sessions)):
            if names in ([], ()):
                continue
            named += [(audience, name) for name in _resolve(audience, names, request)]
        if not named:
            return []
        namespace = Namespace(self.get_prefix().removesuffix(":"))
        channels: dict[str, None] = {}
        for audience, name in named:
            channels[channel_name(namespace, audience, facility, name)] = None
        return list(channels)

    def _address(
        self,
        request: Any,
        facility: str | None,
        broadcast: bool,
        groups: Names,
        users: Names,
        sessions: Names,
        **audience: Any,
    ) -> None:
        """Set the channels to publish on, from a publisher's arguments."""
        self._audience_given = bool(broadcast or groups or users or sessions or audience)
        channels = self._get_message_channels(
            request=request,
            facility=facility or "",
            broadcast=broadcast,
            groups=groups,
            users=users,
            sessions=sessions,
            **audience,
        )
        if channels and facility is None:
            raise ValueError(f"Name the facility: {type(self).__name__}(facility='…', …).")
        check_facility(facility or "", self._audiences(channels))
        if self._tenant:
            check_within(self._namespace(), channels)
        self._publishers = set(channels)

    def _audiences(self, channels: Iterable[str]) -> Iterator[str]:
        start = len(self.get_prefix())
        for channel in channels:
            yield channel[start:].partition(":")[0]

    def _prepared(
        self, message: object, expire: int | None, default: int
    ) -> tuple[list[bytes], bytes, int]:
        """Check the arguments, and return the channels, payload and expiry for the broker."""
        if not self._publishers and not self._audience_given:
            raise AudienceError(
                "This publisher has no audience. Give it broadcast=True, users=[…], groups=[…] or "
                "sessions=[…]."
            )
        if expire is None:
            expire = default
        elif isinstance(expire, bool) or not isinstance(expire, int) or expire < 0:
            raise ValueError(
                f"expire={expire!r} is not a whole number of seconds. Use a number such as 3600, "
                "or 0 to persist nothing."
            )
        payload = RedisMessage(message)  # type: ignore[arg-type]
        return [channel.encode() for channel in sorted(self._publishers)], payload, expire


def identity_of(request: Any) -> Identity:
    """The sender of ``request``, as Django knows it. May query the database for the groups."""
    user = _logged_in(request)
    if user is None:
        return Identity(_session_key(request))
    return Identity(
        _session_key(request), user.get_username() or None, _groups_of(user), user_id_of(user)
    )


def user_id_of(user: Any) -> str | None:
    """The primary key, which stays the same when the user is renamed."""
    primary_key = getattr(user, "pk", None)
    return None if primary_key is None else str(primary_key)


def _session_key(request: Any) -> str | None:
    return getattr(getattr(request, "session", None), "session_key", None) or None


def _logged_in(request: Any) -> Any:
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _groups_of(user: Any) -> tuple[str, ...]:
    groups = getattr(user, "groups", None)
    return () if groups is None else tuple(groups.values_list("name", flat=True))


def _resolve(audience: str, names: object, request: Any) -> list[str]:
    argument = f"{audience}s"
    if not isinstance(names, list | tuple) and (
        isinstance(names, str | bytes | bool) or not isinstance(names, Iterable)
    ):
        raise AudienceError(
            f"{argument}={names!r} is not a list of names. Write {argument}=['name'] or "
            f"{argument}=[SELF]."
        )
    resolved: list[str] = []
    for name in names:
        if name is SELF:
            resolved += _own_names(audience, request)
        elif isinstance(name, str):
            resolved.append(name)
        else:
            raise AudienceError(
                f"{argument} contains {name!r}, which is neither a name nor SELF. Use strings, or "
                "SELF."
            )
    return resolved


def _own_names(audience: str, request: Any) -> Iterable[str]:
    """Query the database only for what the audience needs, and not at all if the handshake has
    already looked it up.
    """
    known: Identity | None = getattr(request, "ws4redis_identity", None)
    if audience == "session":
        name = known.session_key if known else _session_key(request)
    elif known:
        if audience == "group":
            return known.groups
        name = known.username
    else:
        user = _logged_in(request)
        if audience == "group":
            return () if user is None else _groups_of(user)
        name = None if user is None else user.get_username()
    return (name,) if name else ()
