"""The base of publishers and subscribers: from a request and an audience to channel names.

Knows only two attributes of a request, ``user`` and ``session``. Importing it imports no Django.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, Final, Literal, NoReturn

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.errors import AudienceError
from ws4redis_tx.core.messages import RedisMessage
from ws4redis_tx.core.names import (
    Namespace,
    channel_name,
    check_facility,
    check_within,
    facility_text,
)

__all__ = ["SELF", "RedisMessage", "RedisStore"]


class _Self:
    def __repr__(self) -> str:
        return "SELF"


SELF: Final = _Self()
"""In ``users``, ``groups`` or ``sessions``: the request's own. It names no channel if the request
has none, as for anonymous visitors.
"""

Names = Iterable[Any] | Literal[False] | None
"""Names, ``SELF``, or users, groups and sessions themselves. ``False`` and ``None`` are nobody."""


class _Unnamed(tuple[Any, ...]):
    """The default of an audience, told apart from one that was named and is empty."""


class _UnnamedFlag(int):
    def __repr__(self) -> str:
        return "False"


UNNAMED: Final = _Unnamed()
NO_BROADCAST: Final[Any] = _UnnamedFlag()


_SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"


class _SetByInit:
    """An attribute that is missing unless ``RedisStore.__init__`` was called."""

    def __get__(self, store: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"{owner.__name__}.__init__() has not called super().__init__(…), which every subclass "
            "must do, with the arguments of its base class."
        )


class RedisStore:
    """Computes channel names. Subclasses publish and read through ``connection``."""

    _connection: Any = _SetByInit()
    _publishers: Any = _SetByInit()
    _audience_given = False
    _facility = ""
    # Whose names these are; ``None`` if it is not known, or if the site has no tenants.
    _tenant: str | None = None

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._publishers = set()

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
        **unknown: Any,
    ) -> list[str]:
        """The channels of an audience, without duplicates. Subclasses may add their own.

        Raises ``AudienceError`` for an audience that is not an iterable of names, and for ``SELF``
        without a request; ``TypeError`` for an audience that no class knows.
        """
        if unknown:
            self._refuse(unknown)
        named: list[tuple[str, str | None]] = [("broadcast", None)] if broadcast else []
        for audience, names in (("group", groups), ("user", users), ("session", sessions)):
            if names is None or names is False or names in ([], ()):
                continue
            named += [(audience, name) for name in resolve(audience, names, request)]
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
        self._audience_given = bool(audience) or broadcast is not NO_BROADCAST
        self._audience_given |= any(each is not UNNAMED for each in (groups, users, sessions))
        if not (broadcast is NO_BROADCAST or broadcast is None or isinstance(broadcast, bool)):
            raise AudienceError(f"broadcast is a {type(broadcast).__name__}. Use True or False.")
        text = self._facility = "" if facility is None else facility_text(facility)
        channels = self._get_message_channels(
            request=request,
            facility=text,
            broadcast=bool(broadcast),
            groups=groups,
            users=users,
            sessions=sessions,
            **audience,
        )
        if self._audience_given and facility is None:
            raise ValueError(f"Name the facility: {type(self).__name__}(facility='…', …).")
        check_facility(text, self._audiences(channels))
        if self._tenant:
            check_within(self._namespace(), channels)
        self._publishers = set(channels)

    def _refuse(self, unknown: Mapping[str, object]) -> NoReturn:
        """Raise a ``TypeError`` that names the nearest of the arguments that the classes take."""
        taken: dict[str, Parameter] = {}
        for each in type(self).__mro__:
            if "_get_message_channels" in vars(each):
                taken |= signature(vars(each)["_get_message_channels"]).parameters
        known = [name for name, each in taken.items() if each.kind is not each.VAR_KEYWORD]
        known.remove("self")
        wrong = next(iter(unknown))
        nearest = [f" Did you mean {each!r}?" for each in get_close_matches(wrong, known, 1)]
        raise TypeError(
            f"{type(self).__name__} takes no argument {wrong!r}.{''.join(nearest)} "
            f"It takes {', '.join(known)}."
        )

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
        elif expire is True or not isinstance(expire, int):
            raise ValueError(
                f"expire={expire!r} is not a whole number of seconds. Use a number such as 3600, "
                "or 0 to persist nothing."
            )
        payload = RedisMessage(message)  # type: ignore[arg-type]
        channels = [channel.encode() for channel in sorted(self._publishers)]
        return channels, payload, max(0, expire)


def identity_of(request: Any, groups: tuple[str, ...] | None = None) -> Identity:
    """The sender of ``request``, as Django knows it. Queries the database for the names of the
    user's groups, unless they are given.
    """
    user, session_key = _logged_in(request), session_key_of(getattr(request, "session", None))
    if user is None:
        return Identity(session_key)
    if groups is None:
        groups = _groups_of(user)
    return Identity(session_key, user.get_username() or None, groups, user_id_of(user))


def user_id_of(user: Any) -> str | None:
    """The primary key, which stays the same when the user is renamed."""
    primary_key = getattr(user, "pk", None)
    return None if primary_key is None else str(primary_key)


def session_key_of(session: Any) -> str | None:
    """The session's key; ``None`` also for a signed cookie, whose key is the credential itself."""
    if any(each.__module__ == _SIGNED_COOKIES for each in session.__class__.__mro__):
        return None
    return getattr(session, "session_key", None) or None


def _logged_in(request: Any) -> Any:
    user = getattr(request, "user", None)
    return user if user is not None and user.is_authenticated else None


def _groups_of(user: Any) -> tuple[str, ...]:
    groups = getattr(user, "groups", None)
    return () if groups is None else tuple(groups.values_list("name", flat=True))


def resolve(audience: str, names: Any, request: Any) -> list[str]:
    """The names in an audience. Raises ``AudienceError`` for what is no iterable of names."""
    argument = f"{audience}s"
    if not isinstance(names, list | tuple) and (
        isinstance(names, str | bytes | bool) or not isinstance(names, Iterable)
    ):
        raise AudienceError(
            f"{argument} is a {type(names).__name__}, not a list. Write {argument}=['name'] or "
            f"{argument}=[SELF]."
        )
    resolved: list[str] = []
    for name in names:
        if name is not SELF:
            resolved.append(_name_of(audience, name))
        elif request is None:
            raise AudienceError(
                f"SELF in {argument} stands for the request's own, and there is no request. Pass "
                "request=request too."
            )
        else:
            resolved += _own_names(audience, request)
    # A group may be called ''. A user or session without a name is an anonymous visitor.
    return [name for name in resolved if name or audience == "group"]


def _name_of(audience: str, named: Any) -> str:
    """The name of what stands in a list of names; ``""`` for an anonymous visitor."""
    name: Any = None
    if isinstance(named, str):
        name = named
    elif audience == "user" and hasattr(named, "get_username"):
        name = named.get_username()
    elif audience == "group" and hasattr(named, "pk"):
        name = getattr(named, "name", None)
    elif audience == "session" and hasattr(named, "session_key"):
        name = session_key_of(named) or ""
    if not isinstance(name, str):
        raise AudienceError(
            f"{audience}s contains a {type(named).__name__}, which is neither a name, a {audience} "
            "nor SELF."
        )
    return str.__str__(name)  # the text of an enumeration's member is its value


def _own_names(audience: str, request: Any) -> Iterable[str]:
    """Query the database only for what the audience needs, and not at all if the handshake has
    already looked it up.
    """
    known: Identity | None = getattr(request, "ws4redis_identity", None)
    if audience == "session":
        name = known.session_key if known else session_key_of(getattr(request, "session", None))
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
