"""Threads for requests that may take long, such as streaming responses: one thread for each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger()


class RequestThreads:
    """Has the part of a thread pool that Twisted's WSGI uses.

    The threads are daemon threads, which a process that ends does not wait for. Call its methods in
    the reactor thread.

    :param most: the number of requests after which there is ``room`` for no more.
    :param tidy: called in each thread at its end.
    """

    def __init__(self, reactor: Any, most: int, tidy: Callable[[], object]) -> None:
        self._reactor = reactor
        self._most = most
        self._tidy = tidy
        self._busy = 0
        self._idle: Deferred[None] | None = None

    @property
    def room(self) -> bool:
        return self._busy < self._most

    def callInThread(self, function: Callable[..., object], *arguments: Any) -> None:
        work = partial(self._work, function, *arguments)
        Thread(target=work, name="ws4redis-request", daemon=True).start()
        self._busy += 1

    def _work(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            function(*arguments)
            self._tidy()
        except Exception:
            failure = Failure()
            self._reactor.callFromThread(_log.failure, "A request's thread failed", failure)
        finally:
            self._reactor.callFromThread(self._done)

    def _done(self) -> None:
        self._busy -= 1
        if not self._busy and self._idle is not None:
            self.wait_no_longer()

    def when_idle(self, seconds: float) -> Deferred[None]:
        """Fire when no request is under way any more, after ``seconds`` at most. Call it once."""
        self._idle = Deferred()
        idle = self._idle.addTimeout(seconds, self._reactor).addErrback(lambda _: None)
        if not self._busy:
            self.wait_no_longer()
        return idle

    def wait_no_longer(self) -> None:
        """Fire the Deferred of ``when_idle`` now, if there is one."""
        idle, self._idle = self._idle, None
        if idle is not None and not idle.called:
            idle.callback(None)
