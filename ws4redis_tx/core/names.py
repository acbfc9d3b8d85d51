"""The names of channels and keys in Redis.

*django-websocket-redis* and other programs use the same layout, so it must not change. The name of
a channel is also the key under which its last message is persisted.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
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

# First words of names other than channels. With the prefix ``at``, a channel would look like a
# stamp's key.
_OWN_WORDS = ("at", "ctl", "stream", "presence")


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


def channel_name(prefix: str, audience: str, facility: str, name: str | None = None) -> str:
    """The channel of one audience: ``{prefix:}audience:{name:}facility``.

    ``name`` is the name of the user, group or session; broadcast has none.
    """
    start = f"{prefix}:{audience}" if prefix else audience
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


def stamp_key(prefix: str, channel: bytes) -> bytes:
    """The key that holds the time when the persisted message of ``channel`` was published.

    Its value is the time on Redis' own clock, in microseconds since the epoch, as decimal digits.
    """
    return (f"{prefix}:at:" if prefix else "at:").encode() + channel


def read_stamp(value: bytes) -> int | None:
    """The time in a stamp; ``None`` for anything else that another program wrote to its key."""
    return int(value) if value.isdigit() and len(value) <= _MOST_STAMP_DIGITS else None


def control_channel(prefix: str, name: str) -> bytes:
    """The name of a channel between servers. No client can reach it."""
    return (f"{prefix}:ctl:{name}" if prefix else f"ctl:{name}").encode()


def is_control_channel(channel: bytes) -> bool:
    """Whether ``channel`` is a control channel, under any prefix."""
    first, _, rest = channel.decode(errors="replace").partition(":")
    return first == "ctl" or (first not in AUDIENCES and rest.startswith("ctl:"))


def logouts_key(prefix: str, number: int) -> bytes:
    """The key of one of the lists of the latest logouts."""
    return control_channel(prefix, f"logouts:{number}")


def ticket_key(prefix: str, digest: str) -> bytes:
    """The key that stores a ticket's content until the ticket is redeemed."""
    return (f"{prefix}:ticket:{digest}" if prefix else f"ticket:{digest}").encode()


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
