"""A reactor of our own, beside the one that ``twisted.internet.reactor`` may install or run.

Importing this module imports much of Twisted, so do it on first use.
"""

from __future__ import annotations

import select
from typing import Any

from twisted.internet import selectreactor

try:
    from twisted.internet import pollreactor
except ImportError:  # Windows has no poll(), and eventlet removes it
    pollreactor = None  # type: ignore[assignment]


def make_reactor() -> Any:
    """A reactor for the calling thread. It waits with the ``select`` module as that is now, which
    gevent or eventlet may have replaced since Twisted was imported.
    """
    if pollreactor is None or not hasattr(select, "poll"):
        return _SelectReactor()
    return _poll_reactor()


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
