"""Publishing when a transaction commits."""

from __future__ import annotations

from collections.abc import Callable

from django.db import connections, transaction

from ws4redis_tx.config import django_settings


def waits_for_commit(on_commit: bool | None, using: str | None) -> bool:
    """Whether a publisher that was given these arguments waits for a transaction.

    Raises ``ValueError`` for a database that is not there, and for one that is named although
    nothing waits for it.
    """
    waits = bool(django_settings.get("WS4REDIS_ON_COMMIT") if on_commit is None else on_commit)
    if using is None:
        return waits
    if not waits:
        raise ValueError(
            f"using={using!r} names the database whose transaction to wait for, and this call waits "
            "for none. Add on_commit=True, or leave it out."
        )
    if using not in connections:
        known = ", ".join(map(repr, connections))
        raise ValueError(f"using={using!r} is not in DATABASES. It has {known}.")
    return waits


def when_committed(using: str | None, publish: Callable[[], object]) -> None:
    """Call ``publish`` when the current transaction of ``using`` commits; at once outside of one.
    The default is the default database.
    """
    transaction.on_commit(publish, using=using)
