"""Closes Django's database connections in worker threads, where no request does."""

from __future__ import annotations

from django.db import close_old_connections, connections


def tidy(ending: bool) -> None:
    """Close the connections that Django closes around a request, or all if a thread is ``ending``.

    Call it once for a batch of lookups, not for each: by default Django closes every connection,
    and a new one costs a third of a lookup.
    """
    if ending:
        connections.close_all()
    else:
        close_old_connections()


def close_broken() -> None:
    """Close connections that have failed or whose transaction was left open, so that the next task
    does not use them.
    """
    for connection in connections.all(initialized_only=True):
        as_configured = connection.settings_dict["AUTOCOMMIT"]
        if connection.errors_occurred or connection.autocommit != as_configured:
            connection.close_if_unusable_or_obsolete()
