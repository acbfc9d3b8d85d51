"""The messages of the control channel: a visitor lost something. Whom do they concern?

A message is a JSON object with one verb, which names one kind of thing and the values it concerns:

    {"logout": {"session": [H]}}       these sessions ended
    {"recheck": {"user": [PK, …]}}     something about these users changed; or "group": [NAME, …]
    {"disconnect": {KIND: [VALUE]}}    "user", "username", "session", "group" or "facility"

``PK`` is a user's primary key as a string. ``H`` is the SHA-256 of a session key, in hexadecimal
digits: the key itself is a credential, which those who may listen to Redis' channels must not get.

On a site with tenants, a message that concerns one of them begins with ``2:``, and names it as
``"tenant"`` beside the verb; the digest is of ``TENANT:KEY``. A message without a tenant concerns
all of them. Messages that begin with another number are those of a later edition.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ws4redis_tx.core.admission import Identity
from ws4redis_tx.core.names import check_tenant, facility_text, logouts_key

LOGOUT, RECHECK, DISCONNECT = "logout", "recheck", "disconnect"
KINDS: dict[str, tuple[str, ...]] = {
    LOGOUT: ("session",),
    RECHECK: ("user", "group"),
    DISCONNECT: ("user", "username", "session", "group", "facility"),
}

# The last word of the control channel's name.
CONTROL_NAME = "revoke"

# The lists of the latest logouts: an entry is a line, with a version and a session's digest.
_LISTS = 16
_VERSION = b"1"
_MESSAGE = re.compile(rb"(\d+):")
_ENTRY = re.compile(rb"1:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Revocation:
    """One message. A ``session`` is given by its digest. Without a ``tenant`` it concerns all."""

    verb: str
    kind: str
    values: tuple[str, ...]
    tenant: str = ""

    @property
    def payload(self) -> bytes:
        named: dict[str, Any] = {self.verb: {self.kind: self.values}}
        if not self.tenant:
            return json.dumps(named).encode()
        return b"2:" + json.dumps({**named, "tenant": self.tenant}).encode()

    def concerns(self, identity: Identity, facility: str) -> bool:
        if self.tenant and identity.tenant != self.tenant:
            return False
        if self.kind == "group":
            return any(group in self.values for group in identity.groups)
        if self.kind == "facility":
            return facility in self.values
        if self.kind == "user":
            return identity.user_id in self.values
        if self.kind == "username":
            return identity.username in self.values
        key = identity.session_key
        return key is not None and digest(key, identity.tenant) in self.values


def digest(session_key: str, tenant: str = "") -> str:
    """The name of a session on the control channel."""
    name = f"{tenant}:{session_key}" if tenant else session_key
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()


def read_revocation(payload: bytes) -> Revocation | None:
    """``None`` for a message of a later edition. Raises ``ValueError`` for anything that is not
    such a message.
    """
    version = _MESSAGE.match(payload)
    if version and version[1] != b"2":
        return None
    tenant = ""
    try:
        content = json.loads(payload[version.end() :] if version else payload)
        if version:
            tenant = check_tenant(content.pop("tenant"))
        [(verb, named)] = content.items()
        [(kind, values)] = named.items()
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError("not a JSON object with one verb and one kind") from error
    if kind not in KINDS.get(verb, ()):
        raise ValueError("an unknown verb or kind")
    if (
        not isinstance(values, list)
        or not values
        or not all(isinstance(value, str) for value in values)
    ):
        raise ValueError("its values are not a list of strings, one at least")
    return Revocation(verb, kind, tuple(values), tenant)


def logout_entries(prefix: str, revocation: Revocation) -> dict[bytes, bytes]:
    """The entries that tell a server of this logout which is started after it, by the keys of their
    lists. ``{}`` for what is no logout.
    """
    entries: dict[bytes, bytes] = {}
    for value in revocation.values if revocation.verb == LOGOUT else ():
        key = logouts_key(prefix, int(value[:8], 16) % _LISTS)
        entries[key] = entries.get(key, b"") + b"%s:%s\n" % (_VERSION, value.encode())
    return entries


def logout_lists(prefix: str) -> list[bytes]:
    """The keys of all lists."""
    return [logouts_key(prefix, number) for number in range(_LISTS)]


def read_logouts(lists: Iterable[bytes | None]) -> list[str]:
    """The digests in these lists. Entries of another version are skipped."""
    entries = [entry for each in lists if each for entry in each.split(b"\n")]
    return [match[1].decode() for entry in entries if (match := _ENTRY.fullmatch(entry))]


def disconnection(
    *,
    user: object = None,
    session: object = None,
    group: object = None,
    facility: object = None,
    tenant: str | None = None,
) -> Revocation:
    """The message that closes the websockets of a user, session or group, or on a facility.

    ``user`` is a username, or an object with a ``pk``, whose name may have changed since; ``group``
    a name, or an object with one; ``session`` a session key, or an object with one.

    Raises ``TypeError`` unless exactly one is given, and for what is none of these.
    """
    given = {
        name: value
        for name, value in (
            ("user", user),
            ("session", session),
            ("group", group),
            ("facility", facility),
        )
        if value is not None
    }
    if len(given) != 1:
        raise TypeError(
            "Say whom to disconnect by exactly one of user=…, session=…, group=… and facility=…, "
            f"not by {', '.join(given) or 'none'}."
        )
    [(kind, value)] = given.items()
    if kind == "user":
        if isinstance(value, str):
            kind = "username"
        else:
            primary_key = getattr(value, "pk", None)
            value = None if primary_key is None else str(primary_key)
    elif kind == "group" and not isinstance(value, str):
        value = getattr(value, "name", None)
    elif kind == "session" and not isinstance(value, str):
        value = getattr(value, "session_key", None)
    elif kind == "facility":
        value = facility_text(value)
    if not isinstance(value, str):
        raise TypeError(
            f"{next(iter(given))}= names nobody: it takes "
            + {
                "user": "a saved user, or a username",
                "username": "a saved user, or a username",
                "session": "a session key, or a session that has one",
                "group": "a group, or its name",
            }[kind]
            + "."
        )
    tenant = "" if tenant is None else check_tenant(tenant)
    value = digest(value, tenant) if kind == "session" else value
    return Revocation(DISCONNECT, kind, (value,), tenant)
