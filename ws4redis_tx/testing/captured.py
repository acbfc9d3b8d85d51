"""A captured message, and the criteria that select one. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypedDict

from ws4redis_tx.core.names import facility_text, split_tenant
from ws4redis_tx.redis_store import resolve

_MAX_SHOWN = 200
_NAMED = ("users", "groups", "sessions")


@dataclass(frozen=True)
class CapturedMessage:
    """The message of one call of a publisher. ``channels`` includes those that a subclass adds.
    ``expire`` is in seconds; ``0`` means not persisted. ``position`` is the one that the call
    returned, or ``""`` for a facility without a history.
    """

    payload: bytes
    expire: int
    channels: tuple[str, ...]
    facility: str
    broadcast: bool
    users: frozenset[str]
    groups: frozenset[str]
    sessions: frozenset[str]
    tenant: str = ""
    position: str = ""

    @property
    def text(self) -> str:
        """The text that a browser gets. Raises ``UnicodeDecodeError`` if it would get bytes."""
        return self.payload.decode()

    def json(self) -> Any:
        """The value of the message's JSON. Raises ``ValueError`` if the message is not JSON."""
        return json.loads(self.payload)

    def __str__(self) -> str:
        named = {name: getattr(self, name) for name in _NAMED}
        audience = _audience(self.broadcast, named) or f"channels {list(self.channels)}"
        lasting = f"persisted for {self.expire} s" if self.expire else "not persisted"
        tenant = f" of tenant {self.tenant!r}" if self.tenant else ""
        place = f"facility {self.facility!r}{tenant}"
        return f"{_abbreviate(self.payload)} on {place} to {audience}, {lasting}"


def captured_message(
    channels: Sequence[bytes], payload: bytes, expire: int, prefix: str, position: str = ""
) -> CapturedMessage:
    """Make a captured message, with the audience read from the names of its channels."""
    names = [channel.decode() for channel in channels]
    facility, broadcast, tenant = "", False, ""
    named: dict[str, set[str]] = {"user": set(), "group": set(), "session": set()}
    for name in names:
        tenant, inner = split_tenant(prefix, name)
        kind, _, rest = inner.partition(":")
        if kind == "broadcast":
            facility, broadcast = rest, True
        elif kind in named:
            member, _, facility = rest.rpartition(":")
            named[kind].add(member)
    return CapturedMessage(
        payload,
        expire,
        tuple(names),
        facility,
        broadcast,
        **{f"{kind}s": frozenset(members) for kind, members in named.items()},
        tenant=tenant,
        position=position,
    )


class Criteria(TypedDict, total=False):
    """The criteria for a message besides its text.

    If any part of the audience is given, the whole audience must match: ``users=["john"]`` does not
    match a message to John and Mary, or to everybody.
    """

    json: Any
    facility: str
    tenant: str
    broadcast: bool
    users: Iterable[str]
    groups: Iterable[str]
    sessions: Iterable[str]
    expire: int


class Wanted:
    """The criteria of an assertion. Its text describes them for a failure."""

    def __init__(self, message: str | bytes | None, criteria: Criteria) -> None:
        unknown = criteria.keys() - Criteria.__annotations__.keys()
        if unknown:
            raise TypeError(
                f"{', '.join(sorted(unknown))} is not a criterion for messages. Use "
                f"{', '.join(Criteria.__annotations__)}."
            )
        self._payload = message.encode() if isinstance(message, str) else message
        self._criteria = criteria
        self._broadcast = criteria.get("broadcast", False)
        self._named: dict[str, frozenset[str]] = {}
        for name in _NAMED:
            names: Any = criteria.get(name, ())
            if names is None or names is False:
                raise TypeError(f"{name}={names!r} is not a list of names. Write {name}=['name'].")
            self._named[name] = frozenset(resolve(name.removesuffix("s"), names, None))
        self._has_audience = bool(criteria.keys() & {"broadcast", *_NAMED})

    def matches(self, message: CapturedMessage) -> bool:
        if self._payload is not None and self._payload != message.payload:
            return False
        if self._has_audience and (
            message.broadcast != self._broadcast
            or any(getattr(message, name) != names for name, names in self._named.items())
        ):
            return False
        wanted = self._criteria
        return (
            ("facility" not in wanted or facility_text(wanted["facility"]) == message.facility)
            and ("tenant" not in wanted or wanted["tenant"] == message.tenant)
            and ("expire" not in wanted or wanted["expire"] == message.expire)
            and ("json" not in wanted or _has_json(message, wanted["json"]))
        )

    def __str__(self) -> str:
        wanted = self._criteria
        words = [] if self._payload is None else [_abbreviate(self._payload)]
        if "json" in wanted:
            words.append(f"JSON of {wanted['json']!r}")
        if "facility" in wanted:
            words.append(f"on facility {wanted['facility']!r}")
        if "tenant" in wanted:
            words.append(f"of tenant {wanted['tenant']!r}")
        if self._has_audience:
            words.append(f"to {_audience(self._broadcast, self._named) or 'nobody'}")
        if "expire" in wanted:
            words.append(f"with expire={wanted['expire']}")
        return " ".join(words) or "any"


def _has_json(message: CapturedMessage, wanted: Any) -> bool:
    with suppress(ValueError):
        return bool(message.json() == wanted)
    return False


def _audience(broadcast: bool, named: Mapping[str, Iterable[str]]) -> str:
    parts = ["everybody"] if broadcast else []
    parts += [f"{name} {sorted(names)}" for name, names in named.items() if names]
    return ", ".join(parts)


def _abbreviate(payload: bytes) -> str:
    message: str | bytes = payload
    with suppress(UnicodeDecodeError):
        message = payload.decode()
    abbreviated = repr(message[:_MAX_SHOWN])
    return f"{abbreviated}…" if len(message) > _MAX_SHOWN else abbreviated
