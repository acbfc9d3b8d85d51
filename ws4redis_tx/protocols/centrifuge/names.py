"""The names of channels as clients know them."""

from __future__ import annotations

from typing import NamedTuple

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.names import (
    AUDIENCES,
    Namespace,
    channel_name,
    check_facility,
    split_tenant,
)
from ws4redis_tx.protocols.centrifuge.errors import (
    BAD_REQUEST,
    DENIED,
    UNKNOWN_CHANNEL,
    CommandError,
)

MOST_BYTES = 255
"""Of a name."""


class Name(NamedTuple):
    """``broadcast:F``, ``group:G:F``, or ``user:F`` and ``session:F``, which mean the client's."""

    text: str
    audience: str
    facility: str
    group: str = ""

    def channel(self, namespace: Namespace, identity: Identity) -> bytes:
        """The channel in Redis. Raises ``CommandError`` for a user or a session that there is
        not.
        """
        owner: str | None = None
        if self.audience == "user":
            owner = identity.username
        elif self.audience == "session":
            owner = identity.session_key
        elif self.audience == "group":
            owner = self.group
        if self.audience != "broadcast" and not owner:
            raise CommandError(DENIED)
        return channel_name(namespace, self.audience, self.facility, owner).encode()


def read_name(text: str) -> Name:
    """Raises ``CommandError`` for a name that means nothing."""
    if len(text.encode()) > MOST_BYTES:
        raise CommandError(BAD_REQUEST)
    audience, _, facility = text.partition(":")
    group = ""
    if audience == "group":
        group, _, facility = facility.rpartition(":")
    if audience not in AUDIENCES or not facility or (audience == "group" and not group):
        raise CommandError(UNKNOWN_CHANNEL)
    try:
        check_facility(facility, {audience})
    except ValueError:
        raise CommandError(UNKNOWN_CHANNEL) from None
    return Name(text, audience, facility, group)


def name_of(prefix: str, channel: bytes) -> str:
    """The name of a channel in Redis. It tells nobody's user name or session key."""
    _, inner = split_tenant(prefix, channel.decode(errors="surrogateescape"))
    audience, _, rest = inner.partition(":")
    if audience in ("user", "session"):
        return f"{audience}:{rest.rpartition(':')[2]}"
    return inner
