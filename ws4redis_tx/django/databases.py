"""Django's database connections of a worker thread, which no request closes."""

from __future__ import annotations

from django.db import close_old_connections, connections


def tidy(ending: bool) -> None:
    """Close what Django closes before and after a request, or all, as the thread ends.

    For a whole row of work at once: by default Django closes its connections, and to make a new one
    takes a third of a lookup.
    """
    if ending:
        connections.close_all()
    else:
        close_old_connections()


def close_broken() -> None:
    """Leave what comes next no connection that failed, or whose transaction somebody left open."""
    for connection in connections.all(initialized_only=True):
        as_configured = connection.settings_dict["AUTOCOMMIT"]
        if connection.errors_occurred or connection.autocommit != as_configured:
            connection.close_if_unusable_or_obsolete()
