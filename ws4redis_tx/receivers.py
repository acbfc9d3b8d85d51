"""Signals of Django that this package listens to. None of them may break what sent it."""

from __future__ import annotations

import logging
from typing import Any

_log = logging.getLogger(__name__)


def remember_groups(sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
    """At login: note the user's groups in the session, where *django-websocket-redis* servers,
    which do not ask the database, look for them.
    """
    groups = getattr(user, "groups", None)
    if request is None or not hasattr(request, "session") or groups is None:
        return
    try:
        request.session["ws4redis:memberof"] = list(groups.values_list("name", flat=True))
    except Exception:
        _log.exception("A user's groups could not be noted in the session")
