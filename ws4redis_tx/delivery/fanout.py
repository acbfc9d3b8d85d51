"""Hands publications to their listeners in order, in bounded slices of time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.bundles import bundle_up
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.delivery.queues import MESSAGE_COST
from ws4redis_tx.delivery.sections import Bundle

SLICE = 0.004
"""Seconds after which a fan-out yields to handshakes, pings and messages of clients."""

# A fan-out reads the clock after this many receivers, or this many bytes.
_CHECK_RECEIVERS, _CHECK_BYTES = 64, 1 << 16

# At most this many publications, for one listener each, are handed over without reading the clock.
_MAX_QUICK = 256

# Bounds of a batch. A socket that is full keeps the rest of the batch, beyond any policy. Grouping
# the listeners of many channels takes time.
_BATCH_BYTES, _BATCH_CHANNELS, _BATCH_LISTENERS = 1 << 16, 256, 20_000


class Fanout:
    """Hands publications to the hub's listeners, all in their order of arrival, in slices of time.

    Publications that are waiting together are handed over together, joined for listeners that take
    them joined. While a fan-out is unfinished, later publications wait, whatever their channels
    are: a listener to both channels gets both messages in order. Not reentrant: a listener must
    publish through Redis, or through another hub.

    :param seconds: returns the time.
    :param later: calls a function after other events have had their turn.
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
        self._current: Iterator[tuple[Bundle, int, int]] = iter(())
        self.busy = False
        """Whether a fan-out is unfinished."""

    @property
    def backlog(self) -> int:
        """Bytes of the publications that wait for an earlier fan-out."""
        waiting = [each.size for each in self._waiting if isinstance(each, Publication)]
        return sum(waiting) + MESSAGE_COST * len(waiting)

    def hand_over(self, publications: Sequence[Publication]) -> None:
        """Hand over publications that arrived together, for one slice. The rest is handed over
        later.
        """
        if not self.busy and self._are_quick(publications):
            for publication in publications[:_MAX_QUICK]:
                self._hub.dispatch(publication)
            publications = publications[_MAX_QUICK:]
            if not publications:
                return
        self._waiting += publications
        if not self.busy:
            self._run()

    def _are_quick(self, publications: Sequence[Publication]) -> bool:
        """Whether this is one publication for a few listeners, or a few for one listener each, all
        different.
        """
        if len(publications) == 1:
            (publication,) = publications
            number = len(self._hub.listeners.get(publication.channel or b"", ()))
            return number < 2 or number <= _receivers_per_check(publication)
        receivers: set[IListener] = set()
        size = 0
        for publication in publications:
            listeners = self._hub.listeners.get(publication.channel or b"", ())
            size += publication.size
            if len(listeners) != 1 or size > _CHECK_BYTES:
                return False
            receivers.update(listeners)
        return len(receivers) == len(publications)

    def then(self, function: Callable[[], object]) -> None:
        """Call ``function`` once all earlier publications are handed over: now, if they are."""
        if self.busy:
            self._waiting.append(function)
        else:
            function()

    def _run(self) -> None:
        self.busy = True
        end = self._seconds() + SLICE
        handed = written = 0
        while True:
            for bundle, start, stop in self._current:
                try:
                    bundle.section.hand_over(bundle, start, stop, self._hub)
                except Exception:  # it must not stop the fan-out
                    self._hub.on_failure()
                handed += stop - start
                written += (stop - start) * bundle.publication.size
                if handed >= _CHECK_RECEIVERS or written >= _CHECK_BYTES:
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
        """The next batch: ``first``, and as many of the publications behind it as fit."""
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
        return bundle_up(batch, self._hub)

    def _call(self, function: Any) -> None:
        try:
            function()
        except Exception:  # it must not stop the fan-out
            self._hub.on_failure()


def _receivers_per_check(publication: Publication) -> int:
    """The number of receivers after which the clock is read."""
    return max(1, min(_CHECK_RECEIVERS, _CHECK_BYTES // publication.size))


def _portions(bundles: Iterator[Bundle]) -> Iterator[tuple[Bundle, int, int]]:
    """Each bundle, with the indices of a portion of its receivers that takes little time."""
    for bundle in bundles:
        number, portion = len(bundle.section.receivers), _receivers_per_check(bundle.publication)
        for start in range(0, number, portion):
            yield bundle, start, min(start + portion, number)
