"""Waiting for several Deferreds at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure


def gather(deferreds: Iterable[Deferred[Any]]) -> Deferred[list[Any]]:
    """Fire with all results in order, or fail as the first that fails; ``gatherResults`` wraps that
    failure into another, and logs the others as unhandled.
    """

    def unwrap(failure: Failure) -> Failure:
        if isinstance(failure.value, FirstError):
            return failure.value.subFailure
        return failure

    return gatherResults(list(deferreds), consumeErrors=True).addErrback(unwrap)
