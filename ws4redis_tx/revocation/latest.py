"""The lists of the latest revocations, from which a server learns what it has missed."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.revocation.messages import logout_lists, read_logouts
from ws4redis_tx.revocation.void_tokens import void_lists
from ws4redis_tx.scheduling.deferreds import gather

_log = Logger()


class LatestRevocations:
    """Reads them from Redis.

    :param tokens: whether there are tokens, which may be void.
    """

    def __init__(self, broker: IBroker, prefix: str, tokens: bool) -> None:
        self._broker = broker
        self._logouts = logout_lists(prefix)
        self._void = void_lists(prefix) if tokens else []

    def read(self) -> Deferred[tuple[list[str], list[Any]]]:
        """Fire with the digests of the sessions that were logged out, and the lists of void tokens.
        Fires with nothing, and says so in the log, if they cannot be read.
        """
        keys = [*self._logouts, *self._void]
        lists = gather([self._broker.get(key) for key in keys])
        return lists.addCallbacks(self._found, _not_read)

    def _found(self, lists: list[Any]) -> tuple[list[str], list[Any]]:
        number = len(self._logouts)
        return read_logouts(lists[:number]), lists[number:]


def _not_read(failure: Failure) -> tuple[list[str], list[Any]]:
    if failure.check(BrokerRefused):
        _log.warn("The latest revocations cannot be read: {problem}", problem=str(failure.value))
    elif not failure.check(BrokerUnavailable):
        _log.failure("The latest revocations were not read", failure=failure)
    return [], []
