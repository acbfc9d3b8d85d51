"""The names of channels and keys in Redis.

*django-websocket-redis* and other programs use the same layout, so it must not change. The name of
a channel is also the key under which its last message is persisted.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterable
from typing import NewType
from uuid import UUID

from ws4redis_tx.core.errors import ConfigError

AUDIENCES = ("session", "user", "group", "broadcast")
SUBSCRIBE_RIGHTS = tuple(f"subscribe-{audience}" for audience in AUDIENCES)
PUBLISH_RIGHTS = tuple(f"publish-{audience}" for audience in AUDIENCES)

MAX_FACILITY_BYTES = 255


def known_rights(subscriber: object) -> frozenset[str]:
    """The rights that a URL may ask for: those in the subscriber's two class attributes, which a
    subclass may extend.
    """
    return frozenset(
        (
            *getattr(subscriber, "subscription_channels", SUBSCRIBE_RIGHTS),
            *getattr(subscriber, "publish_channels", PUBLISH_RIGHTS),
        )
    )


_MOST_STAMP_DIGITS = 20

# First words of names other than upstream's. With the prefix ``at``, a channel would look like a
# stamp's key. Some are for later.
_OWN_WORDS = (
    "at", "ctl", "ticket", "t", "pos", "stream", "side", "last", "birth", "presence", "alive",
)  # fmt: skip

# The keys beside a channel with a history, in the order of the script.
_BESIDE = (b"at", b"pos", b"stream")

_MAX_TENANT_BYTES = 64

Namespace = NewType("Namespace", str)
"""The beginning of all names of one tenant, or of a site that has no tenants, without its last
``:``. The server's own names have the prefix alone.
"""


def check_prefix(prefix: str | None) -> str:
    """Return ``prefix`` as a string (``''`` for none).

    Raises ``ConfigError`` for a prefix that could make two different channels share a name.
    """
    if not prefix:
        return ""
    if not isinstance(prefix, str):
        raise ConfigError(
            "WS4REDIS_PREFIX", f"is {prefix!r}, not a string", "Use a plain word, or None."
        )
    if ":" in prefix or prefix in AUDIENCES + _OWN_WORDS:
        raise ConfigError(
            "WS4REDIS_PREFIX",
            f"is {prefix!r}, which could be mistaken for another part of a name in Redis",
            f"Use a word without ':', and none of {', '.join(AUDIENCES + _OWN_WORDS)}.",
        )
    return prefix


def check_tenant(tenant: object) -> str:
    """Return ``tenant``, the name of one. Raises ``TypeError`` if it is none, and ``ValueError``
    for a name that could spell another tenant's names.
    """
    if not isinstance(tenant, str) or not tenant:
        raise TypeError(
            f"{tenant!r} is not the name of a tenant. WS4REDIS_TENANT returns, and tenant=… takes, "
            "a string that is not empty."
        )
    try:
        if ":" not in tenant and len(tenant.encode()) <= _MAX_TENANT_BYTES:
            return tenant
    except UnicodeEncodeError:
        pass
    raise ValueError(
        f"{tenant[:200]!r} cannot be a tenant in Redis' names. WS4REDIS_TENANT returns, and "
        f"tenant=… takes, at most {_MAX_TENANT_BYTES} bytes of UTF-8 without ':'."
    )


def namespace(prefix: str, tenant: str = "") -> Namespace:
    """``{prefix:}t:{tenant}``; the prefix for ``""``, a site without tenants."""
    if not tenant:
        return Namespace(prefix)
    return Namespace(sys.intern(f"{prefix}:t:{tenant}" if prefix else f"t:{tenant}"))


def split_tenant(prefix: str, name: str) -> tuple[str, str]:
    """The tenant of a name, ``""`` for none, and the rest of it without the prefix."""
    rest = name.removeprefix(f"{prefix}:" if prefix else "")
    word, _, after = rest.partition(":")
    tenant, colon, inner = after.partition(":")
    return (tenant, inner) if word == "t" and colon else ("", rest)


def without_session_key(prefix: str, channel: str) -> str:
    """The name of a channel for people to read. The key of a session, with which one can log in, is
    left out: ``session:…:facility``.
    """
    _, inner = split_tenant(prefix, channel)
    word, _, rest = inner.partition(":")
    if word == "session":
        _, colon, facility = rest.rpartition(":")
        return f"{channel.removesuffix(inner)}session:…{colon}{facility if colon else ''}"
    if word in AUDIENCES or "session:" not in inner:
        return channel
    # A subscriber's or publisher's own name: nobody knows where the key in it ends.
    return f"{channel.removesuffix(inner)}{inner[: inner.index('session:')]}session:…"


def check_within(namespace: Namespace, channels: Iterable[str]) -> None:
    """Raise ``ValueError`` for a channel outside of a tenant's ``namespace``."""
    for channel in channels:
        if not channel.startswith(f"{namespace}:"):
            raise ValueError(
                f"The channel {channel!r} belongs to no tenant. Begin its name with get_prefix()."
            )


def channel_name(
    namespace: Namespace, audience: str, facility: str, name: str | None = None
) -> str:
    """The channel of one audience: ``{namespace:}audience:{name:}facility``.

    ``name`` is the name of the user, group or session; broadcast has none.
    """
    start = f"{namespace}:{audience}" if namespace else audience
    return f"{start}:{facility}" if name is None else f"{start}:{name}:{facility}"


def channels_to_publish_on(channels: Iterable[str | bytes], expire: int | None) -> list[bytes]:
    """The channels that a caller of ``publish(channels, message, expire)`` names.

    Raises ``TypeError`` for the arguments that redis-py's ``publish`` takes.
    """
    if isinstance(channels, str | bytes) or expire is None:
        raise TypeError(
            "publish takes a list of channels, and an expiry: publish([channel], message, expire). "
            "With expire=0 the message is not persisted."
        )
    return [each if isinstance(each, bytes) else each.encode() for each in channels]


def beside(word: bytes, prefix: str, channel: bytes) -> bytes:
    """The name of what stands beside a channel: ``{namespace:}word:{channel}``."""
    start = f"{prefix}:".encode() if prefix else b""
    if channel.startswith(start + b"t:"):  # a tenant's
        start = channel[: channel.find(b":", len(start) + 2) + 1] or start
    return b"%b%b:%b" % (start, word, channel)


def stamp_key(prefix: str, channel: bytes) -> bytes:
    """The key that holds the time when the persisted message of ``channel`` was published:
    ``{namespace:}at:{channel}``.

    Its value is the time on Redis' own clock, in microseconds since the epoch, as decimal digits.
    """
    return beside(b"at", prefix, channel)


def with_stamps(prefix: str, channels: Iterable[bytes]) -> list[bytes]:
    """Each channel, followed by the key of its stamp."""
    return [key for channel in channels for key in (channel, stamp_key(prefix, channel))]


def with_history(prefix: str, channels: Iterable[bytes]) -> list[bytes]:
    """Each channel, followed by the keys of its stamp, its position and its history."""
    return [
        key
        for channel in channels
        for key in (channel, *[beside(word, prefix, channel) for word in _BESIDE])
    ]


def side_channel(prefix: str, channel: bytes) -> bytes:
    """The channel of the markers of ``channel``, each of which precedes its message there."""
    return beside(b"side", prefix, channel)


def about(prefix: str, side: bytes) -> bytes | None:
    """The channel that ``side`` has the markers of; ``None`` for any other name."""
    start = side_channel(prefix, b"")
    if side.startswith(start):
        return side[len(start) :]
    tenant, inner = split_tenant(prefix, side.decode(errors="surrogateescape"))
    word, colon, channel = inner.partition(":")
    if not tenant or word != "side" or not colon:
        return None
    return channel.encode(errors="surrogateescape")


def data_set_keys(prefix: str) -> tuple[bytes, bytes]:
    """The key of the highest stamp that was given out, and that of the stamp with which this data
    set began.
    """
    start = f"{prefix}:".encode() if prefix else b""
    return start + b"last", start + b"birth"


def facility_of(prefix: str, channel: bytes) -> str | None:
    """The facility in the name of a channel; ``None`` for a name that has none."""
    _, inner = split_tenant(prefix, channel.decode(errors="surrogateescape"))
    audience, _, rest = inner.partition(":")
    if audience == "broadcast":
        return rest
    return rest.rpartition(":")[2] if audience in AUDIENCES else None


def audience_of(channel: bytes) -> str:
    """The audience in the name of a channel; ``""`` for a name that has none. No prefix is an
    audience, or ``t``.
    """
    words = channel.decode(errors="surrogateescape").split(":", 4)
    if words[0] not in (*AUDIENCES, "t"):
        del words[0]
    if words[:1] == ["t"]:
        del words[:2]
    return words[0] if words and words[0] in AUDIENCES else ""


def read_stamp(value: bytes) -> int | None:
    """The time in a stamp; ``None`` for anything else that another program wrote to its key."""
    return int(value) if value.isdigit() and len(value) <= _MOST_STAMP_DIGITS else None


def control_channel(prefix: str, name: str) -> bytes:
    """The name of a channel between servers. No client can reach it."""
    return (f"{prefix}:ctl:{name}" if prefix else f"ctl:{name}").encode()


def is_control_channel(channel: bytes) -> bool:
    """Whether ``channel`` is a control channel, under any prefix."""
    first, _, rest = channel.decode(errors="replace").partition(":")
    return first == "ctl" or (first not in (*AUDIENCES, "t") and rest.startswith("ctl:"))


def logouts_key(prefix: str, number: int) -> bytes:
    """The key of one of the lists of the latest logouts."""
    return control_channel(prefix, f"logouts:{number}")


TICKET_PREFIX = "ws4redis.ticket."
"""The beginning of each one-time ticket."""


def ticket_key(namespace: Namespace, digest: str) -> bytes:
    """The key that stores a ticket's content until the ticket is redeemed."""
    return (f"{namespace}:ticket:{digest}" if namespace else f"ticket:{digest}").encode()


def facility_text(facility: object) -> str:
    """A facility as it stands in a URL. A whole number or a UUID counts as its text.

    Raises ``TypeError`` for anything else that is not a string.
    """
    if isinstance(facility, str):
        return str.__str__(facility)  # the text of an enumeration's member is its value
    if isinstance(facility, int | UUID) and not isinstance(facility, bool):
        return str(facility)
    raise TypeError(f"The facility is a {type(facility).__name__}. Use a string.")


def check_facility(facility: str, audiences: Iterable[str]) -> None:
    """Raise ``ValueError`` with the reason unless ``facility`` is valid for all ``audiences``.

    A ``:`` is legal only in a broadcast facility: ``group:a:b:c`` would otherwise be both group
    ``a`` with facility ``b:c`` and group ``a:b`` with facility ``c``.
    """
    try:
        size = len(facility.encode())
    except UnicodeEncodeError:
        raise ValueError("The facility is not valid UTF-8.") from None
    if size > MAX_FACILITY_BYTES:
        raise ValueError(f"The facility is longer than {MAX_FACILITY_BYTES} bytes.")
    if not facility.isprintable() and any(
        unicodedata.category(character) == "Cc" for character in facility
    ):
        raise ValueError("The facility contains a control character.")
    if ":" in facility and any(audience != "broadcast" for audience in audiences):
        raise ValueError("The facility contains a ':', which is allowed only for broadcast.")
