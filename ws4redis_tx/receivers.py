"""Signals of Django that this package listens to. None of them may break what sent it."""

from __future__ import annotations

from typing import Any


def remember_groups(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """At login: note the user's groups in the session, where *django-websocket-redis* servers,
    which do not ask the database, look for them.
    """
    groups = getattr(user, "groups", None)
    if request is not None and hasattr(request, "session") and groups is not None:
        request.session["ws4redis:memberof"] = list(groups.values_list("name", flat=True))
