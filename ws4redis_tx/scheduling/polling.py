"""The way of an event to its connection, without detours. Knows the inside of Twisted's reactor.

Twisted puts the connection's name into the context of each event, for messages to its old log. In
each turn it looks several times for calls that are due. To a server that mostly passes on small
messages, this is much of its work.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.error import ConnectionFdescWentAway
from twisted.logger import Logger
from twisted.python import log

try:
    from select import EPOLLIN

    from twisted.internet.epollreactor import EPollReactor
except ImportError:  # only Linux has epoll
    EPollReactor = None  # type: ignore[assignment, misc]

_log = Logger()

_LOST = ConnectionFdescWentAway("Filedescriptor went away")

_LONGEST = 86400.0  # seconds; epoll takes no more than some weeks

# The private parts of the reactor that are used here.
_PARTS = (
    "_disconnectSelectable", "_doReadOrWrite", "_justStopped", "_newTimedCalls",
    "_pendingTimedCalls", "_poller", "_selectables", "_started", "threadCallQueue",
)  # fmt: skip


def poll_directly(reactor: Any) -> None:
    """Let Twisted's epoll reactor hand an event straight to its connection. Any other ``reactor``
    is left as it is. Call it before the reactor runs.

    From then on the old log, ``twisted.python.log``, names the connection only with a failure.
    """
    if type(reactor) is EPollReactor and all(hasattr(reactor, each) for each in _PARTS):
        reactor.doIteration = partial(_poll, reactor)  # type: ignore[method-assign]
        reactor.mainLoop = partial(_run, reactor)  # type: ignore[method-assign]


def _run(reactor: Any) -> None:
    while reactor._started:
        try:
            reactor.runUntilCurrent()
            _poll(reactor, reactor.running and reactor.timeout())
            while seconds := _seconds_of_events(reactor):
                _poll(reactor, seconds)
        except BaseException:
            _log.failure("Unexpected error in main loop")
    _log.info("Main loop terminated.")


def _seconds_of_events(reactor: Any) -> float:
    """For how long the reactor has nothing to do but wait for events: 0 if it has to look at its
    calls first, or at its own state.
    """
    if reactor._newTimedCalls or reactor.threadCallQueue:
        return 0.0
    if reactor._justStopped or not reactor._started:
        return 0.0
    calls = reactor._pendingTimedCalls
    seconds: float = calls[0].time - reactor.seconds() if calls else _LONGEST
    return min(max(seconds, 0.0), _LONGEST)


def _poll(reactor: Any, timeout: float | None) -> None:
    """Wait at most ``timeout`` seconds for events, and hand them to their connections."""
    selectables = reactor._selectables
    events = reactor._poller.poll(-1 if timeout is None else timeout, len(selectables))
    for descriptor, event in events:
        selectable = selectables.get(descriptor)
        if selectable is None:
            continue  # an earlier event was its end
        if event != EPOLLIN:
            log.callWithLogger(selectable, reactor._doReadOrWrite, selectable, descriptor, event)
            continue
        try:
            ended = _LOST if selectable.fileno() == -1 else selectable.doRead()
        except BaseException as error:
            log.callWithLogger(selectable, log.err)
            ended = error
        if ended:
            log.callWithLogger(selectable, reactor._disconnectSelectable, selectable, ended, True)
