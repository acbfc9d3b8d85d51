"""Errors that tell of an outage: something else is down, and this server has no bug."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

# The names that database drivers, caches and HTTP clients give to such errors. Each library has
# classes of its own; most of them have no base that they share with another library.
_NAMES = frozenset({
    "ConnectionError", "ConnectionInterrupted", "HostLookupError", "InterfaceError",
    "MemcacheServerError", "OperationalError", "ServerDead", "ServerDown", "Timeout",
    "TimeoutError", "gaierror",
})  # fmt: skip
_NUMBERS = frozenset({
    errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
})  # fmt: skip


def is_outage(error: BaseException) -> bool:
    """Whether ``error`` says that a database, a cache or another server does not answer."""
    errors = list(_with_causes(error))
    if any(getattr(each, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR for each in errors):
        return False  # SQLite says OperationalError for a table that was never made, too
    return any(
        any(base.__name__ in _NAMES for base in type(each).__mro__)
        or (isinstance(each, OSError) and each.errno in _NUMBERS)
        for each in errors
    )


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        yield each
        each = each.__cause__
