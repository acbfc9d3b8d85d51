"""Finding members by a key that few of them share."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Member = TypeVar("Member", bound=Hashable)

_FEW = 8


class Index(Generic[Key, Member]):
    """Key → members. Most keys have one member, and a set takes four times the memory of a tuple.

    ``None`` as a key finds nobody.
    """

    def __init__(self) -> None:
        self._members: dict[Key, tuple[Member, ...] | set[Member]] = {}

    def get(self, key: Key) -> Collection[Member]:
        return tuple(self._members.get(key, ()))

    def add(self, key: Key | None, member: Member) -> None:
        if key is None:
            return
        members = self._members.get(key, ())
        if isinstance(members, set):
            members.add(member)
        elif member not in members:
            more = (*members, member)
            self._members[key] = set(more) if len(more) > _FEW else more

    def discard(self, key: Key | None, member: Member) -> None:
        if key is None or key not in self._members:
            return
        members = self._members[key]
        if isinstance(members, set):
            members.discard(member)
        else:
            members = self._members[key] = tuple(each for each in members if each != member)
        if not members:
            del self._members[key]

    def __len__(self) -> int:
        """How many keys there are."""
        return len(self._members)
