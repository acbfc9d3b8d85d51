"""The groups in ``session['ws4redis:memberof']``, where *django-websocket-redis* looked for them.

Only receivers of Django's signals still write them, for old servers. Some applications write names
of their own there; a server that takes a user's groups from the database has to say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.logger import Logger

from ws4redis_tx.core.admission import Identity

_log = Logger()

KEY = "ws4redis:memberof"

_MOST_NAMES = 100
_SHOWN_NAMES, _SHOWN_CHARACTERS = 3, 60


class ForeignGroups:
    """Writes one line in a process about groups that are none of Django's."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._told = False

    def may_be_told(self, request: Any, rights: Iterable[str]) -> bool:
        """Whether there may be a line. Does not query the database."""
        if self._told or not any(right.endswith("-group") for right in rights):
            return False
        return KEY in request.session

    def look(self, request: Any, identity: Identity, rights: Iterable[str]) -> None:
        """Called in the thread of a lookup. Queries the database only if there may be a line."""
        if not self.may_be_told(request, rights):
            return
        names = _foreign(request, identity)
        if names:
            self._told = True
            self._reactor.callFromThread(_tell, names)


def _foreign(request: Any, identity: Identity) -> list[str]:
    written = request.session.get(KEY) if identity.username else None
    if not isinstance(written, list | tuple):
        return []
    names = [each for each in written if isinstance(each, str) and each not in identity.groups]
    model = getattr(getattr(request.user, "groups", None), "model", None)
    if not names or model is None:
        return names
    # The user may have left some of Django's groups since they were written at login.
    names = names[:_MOST_NAMES]
    known = set(model._default_manager.filter(name__in=names).values_list("name", flat=True))
    return [name for name in names if name not in known]


def _tell(names: list[str]) -> None:
    _log.warn(
        "A session has groups in {key!r} that are none of Django's: {names}. They are not used, "
        "unless the subscriber takes them: a user's groups come from the database. The guide to "
        "migrating shows such a subscriber.",
        key=KEY,
        names=", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in names[:_SHOWN_NAMES]),
    )
