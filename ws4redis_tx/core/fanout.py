"""In which order publications reach their listeners, and how long that may take at a stretch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any

from ws4redis_tx.core.hub import Hub
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.core.pending import cost

SLICE = 0.004
"""Seconds after which a fan-out lets others have a turn: handshakes, pings, messages of clients.
What a slice wrote is flushed in that turn, which takes as long again."""

# Between two looks at the clock: so many receivers, or so many bytes.
_AT_ONCE, _BYTES_AT_ONCE = 64, 1 << 16


class Fanout:
    """Hands publications to the hub's listeners, all in the order they came, in slices of time.

    One that comes while an earlier one is unfinished waits, whatever its channel is: a connection
    that listens to both gets both in their order. Not reentrant: a listener publishes through
    Redis, or another hub.

    :param seconds: the time.
    :param later: calls a function when others had their turn.
    """

    def __init__(
        self,
        hub: Hub,
        seconds: Callable[[], float],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self._hub = hub
        self._seconds = seconds
        self._later = later
        self._waiting: deque[Publication | Callable[[], object]] = deque()
        self._current: tuple[Publication, Any] | None = None
        self._backlog = 0
        self._busy = False

    @property
    def backlog(self) -> int:
        """Bytes that wait for an earlier one's fan-out."""
        return self._backlog

    @property
    def idle(self) -> bool:
        """Whether everything was handed over."""
        return not self._waiting and self._current is None

    def add(self, publication: Publication) -> None:
        """Take the next one. It goes out with the next ``run``."""
        self._waiting.append(publication)
        self._backlog += cost(publication)

    def then(self, function: Callable[[], object]) -> None:
        """Call ``function`` when all that was added before was handed over: now, if it was."""
        if self.idle:
            function()
        else:
            self._waiting.append(function)

    def run(self) -> None:
        """Hand over, for one slice. The rest follows by itself."""
        if not self._busy:
            self._run()

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Exception:  # the next ones shall have their turn
            self._hub.on_failure()

    def _run(self) -> None:
        self._busy = True
        end = self._seconds() + SLICE
        handed = written = 0
        while self._current is not None or self._waiting:
            if self._current is None:
                following = self._waiting.popleft()
                if not isinstance(following, Publication):
                    self._call(following)
                    continue
                assert following.channel is not None
                self._backlog -= cost(following)
                self._current = following, iter(self._hub.receivers(following.channel))
            publication, receivers = self._current
            size = len(publication.frame)
            most = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // size))
            some = tuple(islice(receivers, most))
            self._hub.hand_over(publication, some)
            if len(some) < most:
                self._current = None
            handed += len(some)
            written += len(some) * size
            if (handed >= _AT_ONCE or written >= _BYTES_AT_ONCE) and not self.idle:
                handed = written = 0
                if self._seconds() >= end:
                    self._later(self._run)
                    return
        self._busy = False
