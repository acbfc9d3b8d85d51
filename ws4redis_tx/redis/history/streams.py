"""A channel's history by the numbers of its messages, and the part that a client has missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ws4redis_tx.core.messages import PositionedPublication, Publication
from ws4redis_tx.core.names import beside, data_set_keys
from ws4redis_tx.core.positions import LONGEST_MEMORY, Position, position
from ws4redis_tx.redis.history.channels import Entry, read_entry
from ws4redis_tx.redis.history.publishing import STAMPS
from ws4redis_tx.redis.wire.protocol import Command

MOST = 300
"""So many messages are recovered, or read from a history, at a time."""

# For each channel: its last message's place, then entries. ``after`` and ``most`` choose those that
# follow a number, up to the newest; the one before them proves that nothing is missing between.
# ``before`` chooses the newest ones in front of a number instead.
READ_STREAMS = (
    STAMPS
    + b"""
local stamp = next_stamp(stamp_at(KEYS[1])) - 1
local answers = {text(stamp), text(birth_at(KEYS[2], stamp))}
for i = 1, (#KEYS - 2) / 2 do
    local pos, list = KEYS[2 * i + 1], KEYS[2 * i + 2]
    local first = 4 * i - 3
    local size, after = tonumber(ARGV[first]), tonumber(ARGV[first + 1])
    local before, most = tonumber(ARGV[first + 2]), tonumber(ARGV[first + 3])
    local place, length = redis.pcall('GET', pos), redis.pcall('LLEN', list)
    local row = {type(place) == 'string' and place or ''}
    if type(length) == 'number' and length > 0 and row[1] ~= '' then
        local top = tonumber(words(pos)[2]) or 0
        local oldest = math.max(0, length - size)
        local low, high = length - top + after, length - 1
        if before > 0 then
            high = math.min(high, length - 1 - top + before - 1)
            low = high - most + 1
        end
        low = math.max(oldest, low)
        high = math.min(high, low + most - 1)
        if high >= low or low == length then
            for _, entry in ipairs(redis.call('LRANGE', list, math.max(0, low - 1), high)) do
                row[#row + 1] = entry
            end
        end
    end
    answers[2 + i] = row
end
return answers
"""
)


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

    def __init__(self, channel: bytes, until: Position, birth: int, row: Sequence[bytes]) -> None:
        self.channel = channel
        self.until = until
        self._birth = birth
        place = [int(each) for each in row[0].split()] if row else []
        if len(place) != 3:
            place = [0, 0, 0]
        _, self.top, self.began = place
        """The number of its last message, and the stamp of its first; 0 if there is none."""
        self._entries = [read_entry(each) for each in row[1:] if not each.startswith(b"0 ")]
        # The number before the first entry that is known to be so.
        self._proof = 0 if len(row) < 2 else read_entry(row[1]).number

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


def streams_command(prefix: str, wanted: Sequence[Wanted]) -> Command:
    keys = [beside(word, prefix, each.channel) for each in wanted for word in (b"pos", b"stream")]
    arguments = [
        number for each in wanted for number in (each.size, each.after, each.before, each.most)
    ]
    all_keys = [*data_set_keys(prefix), *keys]
    return ("EVAL", READ_STREAMS, len(all_keys), *all_keys, *arguments)


def streams_fit(wanted: Sequence[Wanted], answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) == 2 + len(wanted)
        and all(isinstance(each, bytes) and each.isdigit() for each in answer[:2])
        and all(isinstance(row, list) and row for row in answer[2:])
    )


def read_streams(wanted: Sequence[Wanted], answer: Sequence[Any]) -> list[Stream]:
    now, birth = int(answer[0]), int(answer[1])
    until = position(now, birth)
    return [
        Stream(each.channel, until, birth, row)
        for each, row in zip(wanted, answer[2:], strict=True)
    ]
