"""Sums up the lines of Twisted and Autobahn, and failures, that come again and again.

A client may cause them: a connection when no file descriptor is left, a request that takes too
long, an exception in the code that answers it. The lines of an application are left alone, but for
failures that it leaves to Twisted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.logger import ILogObserver, formatEvent
from twisted.python.threadable import isInIOThread
from zope.interface import implementer

from ws4redis_tx.scheduling.summaries import Summaries, place

_LIBRARIES = ("twisted.", "autobahn.", "txaio")
_APPLICATIONS = ("twisted.web.wsgi.",)  # their `wsgi.errors`
_FAILURES_OF = (*_LIBRARIES, "log_legacy", "ws4redis_tx.")
_LONGEST = 400


@implementer(ILogObserver)
class SummingObserver:
    """Passes events on to ``observer``. Sums up those of the reactor's thread."""

    def __init__(self, observer: Callable[[Any], object], reactor: Any) -> None:
        self._observer = observer
        self._summaries = Summaries(reactor)

    def __call__(self, event: Any) -> None:
        if event.get("passed_on") or not isInIOThread() or self._admits(event):
            self._observer(event)

    def stop(self) -> None:
        """Log what was summed up, and leave no timer."""
        self._summaries.stop()

    def _admits(self, event: Any) -> bool:
        namespace, text = event.get("log_namespace") or "", event.get("log_format")
        failure = event.get("log_failure")
        if failure is None:
            if not namespace.startswith(_LIBRARIES) or namespace.startswith(_APPLICATIONS):
                return True
            kind = (namespace, text, event.get("log_level"))
            return self._summaries.admits(kind, formatEvent(event)[:_LONGEST])
        if not namespace.startswith(_FAILURES_OF):
            return True
        line = f"{formatEvent(event)} ({failure.getErrorMessage()})"[:_LONGEST]
        key = (namespace, text, failure.type, place(failure))
        return self._summaries.admits(("failure", namespace, text), line, key)
