"""In which order publications reach their listeners, and how long that may take at a stretch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.bundles import Bundle, bundle_up
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.queues import MESSAGE_COST

SLICE = 0.004
"""Seconds after which a fan-out lets others have a turn: handshakes, pings, messages of clients."""

# Between two looks at the clock: so many receivers, or so many bytes.
_AT_ONCE, _BYTES_AT_ONCE = 64, 1 << 16

# Of publications for one listener each, that are handed over without a look at the clock.
_QUICK = 256

# What is handed over together: so many bytes, as a socket that takes no more keeps the rest of
# them; and so many channels, with so many listeners, that it is soon known who gets what.
_BATCH_BYTES, _BATCH_CHANNELS, _BATCH_LISTENERS = 1 << 16, 256, 20_000


class Fanout:
    """Hands publications to the hub's listeners, all in the order they came, in slices of time.

    What waits together is handed over together, in one piece to whom that suits. One that comes
    while an earlier one is unfinished waits, whatever its channel is: a connection that listens to
    both gets both in their order. Not reentrant: a listener publishes through Redis, or another
    hub.

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
        self._current: Iterator[tuple[Bundle, Sequence[IListener]]] = iter(())
        self.busy = False
        """Whether a fan-out is unfinished."""

    @property
    def backlog(self) -> int:
        """Bytes that wait for an earlier one's fan-out."""
        waiting = [each.size for each in self._waiting if isinstance(each, Publication)]
        return sum(waiting) + MESSAGE_COST * len(waiting)

    def hand_over(self, publications: Sequence[Publication]) -> None:
        """Hand over what came together, for one slice. The rest follows by itself."""
        if not self.busy and self._are_quick(publications):
            for publication in publications[:_QUICK]:
                self._hub.dispatch(publication)
            publications = publications[_QUICK:]
            if not publications:
                return
        self._waiting += publications
        if not self.busy:
            self._run()

    def _are_quick(self, publications: Sequence[Publication]) -> bool:
        """Whether it is one for a few, or some for one each, of whom nobody gets two."""
        if len(publications) == 1:
            (publication,) = publications
            number = len(self._hub.listeners.get(publication.channel or b"", ()))
            return number < 2 or number <= _at_once(publication)
        receivers: set[IListener] = set()
        size = 0
        for publication in publications:
            listeners = self._hub.listeners.get(publication.channel or b"", ())
            size += publication.size
            if len(listeners) != 1 or size > _BYTES_AT_ONCE:
                return False
            receivers.update(listeners)
        return len(receivers) == len(publications)

    def then(self, function: Callable[[], object]) -> None:
        """Call ``function`` when all that came before was handed over: now, if it was."""
        if self.busy:
            self._waiting.append(function)
        else:
            function()

    def _run(self) -> None:
        self.busy = True
        end = self._seconds() + SLICE
        handed = written = 0
        while True:
            for bundle, receivers in self._current:
                self._hub.hand_over(bundle, receivers)
                handed += len(receivers)
                written += len(receivers) * bundle.publication.size
                if handed >= _AT_ONCE or written >= _BYTES_AT_ONCE:
                    handed = written = 0
                    if self._seconds() >= end:
                        self._later(self._run)
                        return
            if not self._waiting:
                break
            following = self._waiting.popleft()
            if isinstance(following, Publication):
                self._current = _portions(self._bundles(following))
            else:
                self._call(following)
        self.busy = False

    def _bundles(self, first: Publication) -> Iterator[Bundle]:
        """What is handed over next: ``first``, and what fits of that which waits behind it."""
        batch = [first]
        channels = {first.channel}
        size = first.size
        listeners = self._hub.count(first.channel)
        while self._waiting and isinstance(following := self._waiting[0], Publication):
            size += following.size
            if following.channel not in channels:
                channels.add(following.channel)
                listeners += self._hub.count(following.channel)
            if (
                size > _BATCH_BYTES
                or len(channels) > _BATCH_CHANNELS
                or (listeners > _BATCH_LISTENERS and len(channels) > 1)
            ):
                break
            batch.append(following)
            self._waiting.popleft()
        return bundle_up(batch, self._hub.listeners)

    def _call(self, function: Any) -> None:
        try:
            function()
        except Exception:  # the next ones shall have their turn
            self._hub.on_failure()


def _at_once(publication: Publication) -> int:
    """How many receivers of it there may be between two looks at the clock."""
    return max(1, min(_AT_ONCE, _BYTES_AT_ONCE // publication.size))


def _portions(bundles: Iterator[Bundle]) -> Iterator[tuple[Bundle, Sequence[IListener]]]:
    """Each bundle with so many of its receivers as take little time."""
    for bundle in bundles:
        receivers, most = bundle.receivers, _at_once(bundle.publication)
        for start in range(0, len(receivers), most):
            yield bundle, receivers[start : start + most]
