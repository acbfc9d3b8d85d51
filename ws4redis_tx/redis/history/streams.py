"""The scripts that read histories by the numbers of their messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ws4redis_tx.core.names import beside, data_set_keys
from ws4redis_tx.core.positions import Stream, Wanted, position
from ws4redis_tx.redis.history.channels import read_entry
from ws4redis_tx.redis.history.publishing import STAMPS, VERSION
from ws4redis_tx.redis.history.reading import ENTRIES
from ws4redis_tx.redis.wire.protocol import Command

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

# The number of a channel's last message up to a stamp, and its last message's place. If nothing
# tells what was before the oldest entry, that is 0, from which nothing is recovered but all.
STREAM_AT = (
    STAMPS
    + ENTRIES
    + b"""
local after, pos, list = tonumber(ARGV[1]), KEYS[3], KEYS[4]
local stamp = next_stamp(stamp_at(KEYS[1])) - 1
local place, length = redis.pcall('GET', pos), redis.pcall('LLEN', list)
if type(place) ~= 'string' then place = '' end
local number = tonumber(words(pos)[2]) or 0
if stamp_at(pos) > after then
    number = 0
    local index = type(length) == 'number' and first_after(list, 0, length, after) or 0
    if index > 0 then
        local _, before = parts(redis.call('LINDEX', list, index - 1))
        number = before or 0
    end
end
return {text(stamp), text(birth_at(KEYS[2], stamp)), text(number), place}
"""
)


def stream_at_command(prefix: str, channel: bytes, stamp: int) -> Command:
    """Ask where a channel's stream was at ``stamp``."""
    keys = [beside(word, prefix, channel) for word in (b"pos", b"stream")]
    keys = [*data_set_keys(prefix), *keys]
    return ("EVAL", STREAM_AT, len(keys), *keys, stamp, VERSION)


def stream_at_fits(answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) == 4
        and all(isinstance(each, bytes) for each in answer)
        and all(each.isdigit() for each in answer[:3])
    )


def stream_at(channel: bytes, answer: Sequence[Any]) -> tuple[int, int]:
    """The number, and the epoch of the stream."""
    number = int(answer[2])
    (stream,) = read_streams([Wanted(channel, 0)], [*answer[:2], [answer[3]]])
    return number, stream.epoch


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
    until, streams = position(now, birth), list[Stream]()
    for each, (place, *rows) in zip(wanted, answer[2:], strict=True):
        numbers = [int(word) for word in place.split()]
        _, top, began = numbers if len(numbers) == 3 else (0, 0, 0)
        entries = [read_entry(row) for row in rows if not row.startswith(b"0 ")]
        proof = read_entry(rows[0]).number if rows else 0
        streams.append(Stream(each.channel, until, birth, top, began, entries, proof))
    return streams
