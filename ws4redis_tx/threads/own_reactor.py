"""A reactor of our own, beside the one that ``twisted.internet.reactor`` may install or run.

Importing this module imports much of Twisted, so do it on first use.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from threading import Thread
from time import monotonic
from typing import Any

from twisted.internet import selectreactor
from twisted.python.failure import Failure

try:
    from twisted.internet import pollreactor
except ImportError:  # Windows has no poll(), and eventlet removes it
    pollreactor = None  # type: ignore[assignment]


def make_reactor() -> Any:
    """A reactor for the calling thread. It waits with the ``select`` module as that is now, which
    gevent or eventlet may have replaced since Twisted was imported.
    """
    polls = pollreactor is not None and hasattr(select, "poll")
    reactor: Any = _poll_reactor() if polls else _SelectReactor()
    reactor.threadpool = _LookupThreads()
    reactor.seconds = monotonic  # Twisted's timers would stop when the system clock is set back
    return reactor


class _LookupThreads:
    """The reactor's thread pool, which looks up host names. Each lookup gets a daemon thread. If
    none can be started, because the process is about to end, it blocks the reactor.
    """

    def callInThreadWithCallback(  # noqa: N802
        self, on_result: Callable[[bool, Any], object], function: Callable[..., Any], *given: Any
    ) -> None:
        def look_up() -> None:
            try:
                result = function(*given)
            except Exception:
                on_result(False, Failure())
            else:
                on_result(True, result)

        try:
            Thread(target=look_up, daemon=True).start()
        except RuntimeError:
            look_up()


class _SelectReactor(selectreactor.SelectReactor):
    # The process's own reactor, if it has one, stays the one that Twisted knows.
    _registerAsIOThread = False  # noqa: N815


def _poll_reactor() -> Any:
    class PollReactor(pollreactor.PollReactor):
        _registerAsIOThread = False  # noqa: N815

        def __init__(self) -> None:
            super().__init__()
            self._poller = select.poll()
            for descriptor in self._selectables:
                self._updateRegistration(descriptor)

    return PollReactor()
