"""A channel's history by the numbers of its messages, and the part that a client has missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ws4redis_tx.core.messages import PositionedPublication, Publication
from ws4redis_tx.core.positions import LONGEST_MEMORY, Position


class Entry(NamedTuple):
    """One message of a history. ``info`` is said of the client that published it."""

    stamp: int
    number: int
    info: bytes
    payload: bytes


MOST = 300
"""So many messages are recovered, or read from a history, at a time."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The messages of a channel after a number, the oldest first, at most so many; or, with
    ``before``, the newest ones in front of it.
    """

    channel: bytes
    size: int
    after: int = 0
    before: int = 0
    most: int = MOST


class Stream:
    """One channel's history, as it was at ``until``."""

    def __init__(
        self,
        channel: bytes,
        until: Position,
        birth: int,
        top: int,
        began: int,
        entries: Sequence[Entry],
        proof: int,
    ) -> None:
        self.channel = channel
        self.until = until
        self.top = top
        """The number of its last message; 0 if there is none."""
        self.began = began
        """The stamp of its first message; 0 if there is none."""
        self._birth = birth
        self._entries = entries
        # The number of the first entry, or what proves that nothing is missing in front of it.
        self._proof = proof

    @property
    def epoch(self) -> int:
        """The stamp that stands for this stream: of a channel without a message, the present."""
        return self.began or self.until.stamp

    def fits(self, epoch: int) -> bool:
        """Whether a client that was told ``epoch`` has heard of this stream and of no other."""
        now = self.until.stamp
        return epoch == self.began or (
            self._birth <= epoch < self.epoch + (not self.began)
            and now - epoch < LONGEST_MEMORY * 1_000_000
        )

    def after(self, number: int, size: int) -> list[Publication] | None:
        """All that follows the message with this number; ``None`` if that is not known, or more
        than ``size``.
        """
        if number == self.top:
            return []
        found = [each for each in self._entries if each.number > number]
        whole = [each.number for each in found] == [*range(number + 1, self.top + 1)]
        # Either it is there itself, or what proves that it was the last before the first one.
        proven = len(found) < len(self._entries) or self._proof in (number, number + 1)
        few = len(found) <= min(size, MOST)
        return self.publications(found) if whole and proven and few else None

    def between(self, wanted: Wanted) -> list[Publication]:
        """Those that were asked for, as far as they are there."""
        low, high = wanted.after + 1, wanted.before - 1 if wanted.before else self.top
        found = [
            each
            for each in self._entries
            if low <= each.number <= high and each.number > self.top - wanted.size
        ]
        return self.publications(found[-wanted.most :] if wanted.before else found[: wanted.most])

    def publications(self, entries: Sequence[Entry]) -> list[Publication]:
        made: list[Publication] = []
        for each in entries:
            publication = PositionedPublication(
                self.channel,
                each.payload,
                Position(each.stamp, self.until.mark),
                replayed=True,
                offset=each.number,
                began=self.began,
            )
            publication.info = each.info
            made.append(publication)
        return made
