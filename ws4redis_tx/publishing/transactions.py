"""Publishing when a transaction commits."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections, transaction


def when_committed(
    on_commit: bool, using: str | None, make: Callable[[], Callable[[], object]]
) -> None:
    """Call what ``make`` returns when the current transaction of ``using`` commits; at once outside
    of one. The default is the default database.

    Raises ``ValueError``, before it calls ``make``, for a database that is not there, and for one
    that is named without ``on_commit``.
    """
    if not on_commit:
        raise ValueError(
            f"using={using!r} names the database whose transaction to wait for, and this call "
            "waits for none. Add on_commit=True, or leave it out."
        )
    if using is not None and using not in connections:
        known = ", ".join(map(repr, connections))
        raise ValueError(f"using={using!r} is not in DATABASES. It has {known}.")
    transaction.on_commit(make(), using=using)
