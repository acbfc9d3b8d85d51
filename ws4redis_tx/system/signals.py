"""What a process does at a signal.

SIGTERM and SIGINT are obeyed by the reactor, which stops. All others are obeyed from here on.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

_log = Logger()

_OUTPUT = 1  # standard output

SERVERS_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""What the process that somebody started obeys. Whoever sends them may send them to a group."""

PARENTS_SIGNALS = (signal.SIGINT, *SERVERS_SIGNALS)
"""What a worker leaves to its parent."""

# Seconds that an immediate stop may take.
_STOP_NOW_TIMEOUT = 5


def obey(reactor: Any, number: signal.Signals, action: Callable[[], object]) -> None:
    """Call ``action`` in the reactor's thread each time that this process gets the signal."""
    signal.signal(number, lambda *_: reactor.callFromThread(action))


def obey_as_server(
    reactor: Any,
    reopen_log: Callable[[], object],
    upgrade: Callable[[], object],
    quit: Callable[[], object],
) -> None:
    """Obey all signals that are not the reactor's, in a process that somebody started."""
    on_a_terminal = os.isatty(_OUTPUT)

    def reopen(number: signal.Signals) -> None:
        reopen_log()
        _log.info("{signal}: the log was opened again, if it is a file", signal=number.name)

    def hang_up() -> None:
        if on_a_terminal and _has_hung_up(_OUTPUT):
            stop(reactor)  # the terminal was closed in which somebody started it
        else:
            reopen(signal.SIGHUP)

    obey(reactor, signal.SIGHUP, hang_up)
    if signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL:  # else it rotates the log
        obey(reactor, signal.SIGUSR1, lambda: reopen(signal.SIGUSR1))
    obey(reactor, signal.SIGUSR2, upgrade)
    obey(reactor, signal.SIGQUIT, quit)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SERVERS_SIGNALS)


def _has_hung_up(terminal: int) -> bool:
    poll = select.poll()
    poll.register(terminal, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def ignore(numbers: Iterable[signal.Signals]) -> None:
    """Ignore them, those too that arrived while they were ``blocked``. The programs that this
    process starts do not ignore them.
    """
    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


@contextmanager
def blocked(numbers: Iterable[signal.Signals]) -> Iterator[None]:
    """Block them in this process, and in those that it starts meanwhile. These would be ended by
    such a signal to the whole group, and unblock them when they have their handlers.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def stop(reactor: Any) -> bool:
    """Stop the reactor. Return whether it was not stopping already."""
    try:
        reactor.stop()
    except ReactorNotRunning:
        return False
    return True


def stop_at_once_next_time(reactor: Any, stop_now: Callable[[], object]) -> None:
    """The first signal stops the process gracefully; the second one shall call ``stop_now``."""

    def stop_immediately(number: int, frame: Any) -> None:
        set_exit_alarm()
        reactor.callFromThread(stop_now)

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop_immediately)


def set_exit_alarm() -> None:
    """End this process after ``_STOP_NOW_TIMEOUT`` s, even if a thread hangs.

    The system's own alarm does not end process 1 of a container.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    faulthandler.dump_traceback_later(_STOP_NOW_TIMEOUT, exit=True, file=nowhere)
