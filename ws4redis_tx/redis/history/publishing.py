"""The scripts that publish with a history and tell the position, and their answers' meaning.

docs/reference/history.md documents the one that publishes, for programs in other languages.
Whatever changes what it leaves in Redis gets another ``VERSION``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from ws4redis_tx.core.names import control_channel, data_set_keys, side_channel, with_history
from ws4redis_tx.core.positions import (
    LONGEST_MEMORY,
    MARKS,
    ONCE_FOR,
    Kept,
    Position,
    position,
)
from ws4redis_tx.redis.wire.protocol import Command, ResponseError

VERSION = 1
"""Of the entries in a channel's list, each of which begins with it. In one of version 2, the length
of what is said of the client, and that, come before the payload.
"""

# A stamp has at most 16 digits: Lua's numbers are exact up to 2^53.
STAMPS = b"""
local function text(stamp)
    return string.format('%.0f', stamp)
end
local function words(key)
    local found, list = redis.pcall('GET', key), {}
    if type(found) == 'string' then
        for word in string.gmatch(found, '%S+') do list[#list + 1] = word end
    end
    return list
end
local function stamp_at(key)
    local word = words(key)[1]
    return word and #word < 17 and string.match(word, '^%d+$') and tonumber(word) or 0
end
local function next_stamp(highest)
    local now = redis.call('TIME')
    return math.max(tonumber(now[1]) * 1000000 + tonumber(now[2]), highest + 1)
end
local function birth_at(key, stamp)
    local birth = stamp_at(key)
    if birth == 0 then
        birth = stamp
        redis.pcall('SET', key, text(birth))
    end
    return birth
end
"""

# For each channel: append the entry, and keep one more than the size, which proves that nothing is
# missing before the oldest one. The count begins at 2 instead of 1, and its beginning is negative,
# if there may have been messages before it that are in no history: no earlier epoch fits then. The
# entry comes first: only that can be refused for the type of a key, and memory that is full refuses
# only the first write. The marker comes next: a user without the permission to publish it leaves
# nothing. In a history that has expired, an entry of version 0 tells of the last message before. A
# channel that fails harms no other.
PUBLISH_KEPT = (
    STAMPS
    + b"""
local message, expire, size, seconds = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local memory, version, once_for, info, width = ARGV[5], ARGV[6], ARGV[7], ARGV[8], 4
local number = #ARGV - 8
local once = KEYS[3 + width * number]
local told = info == '' and '' or ' ' .. info
local function publish(i, stamp)
    local first = 3 + width * (i - 1)
    local channel, at, pos, list = KEYS[first], KEYS[first + 1], KEYS[first + 2], KEYS[first + 3]
    local commands, proof, length = {}, nil, nil
    if expire ~= '0' then
        commands[1] = {'SETEX', channel, expire, message}
        commands[2] = {'SETEX', at, expire, text(stamp)}
    end
    if size > 0 then
        local known = words(pos)
        local count, began, most = tonumber(known[2]), known[3], size + 1
        if not count or not began then
            count, began, most = 0, text(stamp), 1
            if redis.call('EXISTS', list, channel) > 0 then count, began = 1, '-' .. began end
        else
            proof = '0 ' .. text(stamp_at(pos)) .. ' ' .. text(count) .. ' '
        end
        local place = text(stamp) .. ' ' .. text(count + 1)
        local entry = version .. ' ' .. place .. ' ' .. message
        if info ~= '' then
            entry = '2 ' .. place .. ' ' .. #info .. ' ' .. info .. message
        end
        place = place .. ' ' .. began
        table.insert(commands, 1, {'RPUSH', list, entry})
        table.insert(commands, 2, {'PUBLISH', ARGV[8 + i], place .. told})
        table.insert(commands, 3, {'LTRIM', list, -most, -1})
        table.insert(commands, 4, {'EXPIRE', list, seconds})
        commands[#commands + 1] = {'SETEX', pos, memory, place}
    elseif info ~= '' then
        commands[#commands + 1] = {'PUBLISH', ARGV[8 + i], '0 0 0' .. told}
    end
    for place, command in ipairs(commands) do
        local answer = redis.pcall(unpack(command))
        if type(answer) == 'table' and answer.err then
            if size == 0 or place ~= 2 then return answer end
            redis.pcall('RPOP', list)
            return {err = answer.err .. ': ' .. ARGV[8 + i]}
        end
        if place == 1 then length = answer end
        if place == 2 and proof and length == 1 then redis.pcall('LPUSH', list, proof) end
    end
    return redis.pcall('PUBLISH', channel, message)
end
local done = once and words(once) or {}
local highest = stamp_at(KEYS[1])
local stamp = next_stamp(highest)
local birth = size > 0 and birth_at(KEYS[2], stamp) or 0
local last = tonumber(done[1]) or 0
local answers = {}
for i = 1, number do
    local answer = tonumber(done[1 + i])
    if not answer then
        answer = publish(i, stamp)
        if size > 0 and type(answer) == 'number' then
            last = stamp
            stamp = stamp + 1
        end
    end
    answers[i] = answer
end
if last > highest then redis.pcall('SET', KEYS[1], text(last)) end
if once then
    local result = {text(last)}
    for i, answer in ipairs(answers) do
        result[1 + i] = type(answer) == 'number' and text(answer) or '?'
    end
    redis.pcall('SETEX', once, once_for, table.concat(result, ' '))
end
return {text(last), text(birth), unpack(answers)}
"""
)

# Delete what is persisted and kept. An entry of version 0, which is the last message of nothing,
# keeps what is published later from being taken for the continuation.
FORGET = b"""
for i = 1, #KEYS, 4 do
    redis.call('DEL', KEYS[i], KEYS[i + 1], KEYS[i + 3])
    if redis.call('EXISTS', KEYS[i + 2]) == 1 then
        redis.pcall('RPUSH', KEYS[i + 3], '0 0 0 ')
        redis.pcall('EXPIRE', KEYS[i + 3], ARGV[1])
    end
end
return #KEYS / 4
"""

# The highest stamp that may have been given out by now, and that of the data set's beginning. If
# the caller has seen a later position, or the stamp of a later message, the clock went back or
# writes were lost. Then another data set begins, after all that was given out: no history is whole.
POSITION = (
    STAMPS
    + b"""
local last = stamp_at(KEYS[1])
local stamp = next_stamp(last) - 1
local birth = birth_at(KEYS[2], stamp)
local seen, mark, heard = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if birth % tonumber(ARGV[4]) == mark and (stamp < seen or last < heard) then
    local highest = math.max(stamp, seen)
    local begun = redis.pcall('SET', KEYS[2], text(highest))
    if not begun.err then
        redis.pcall('SET', KEYS[1], text(highest))
        stamp, birth = highest, highest
    end
end
return {text(stamp), text(birth)}
"""
)

_WIDTH = 4  # keys of a channel


def kept_command(
    prefix: str, portion: Sequence[bytes], message: bytes, expire: int, kept: Kept
) -> Command:
    """Persist, keep and publish on each channel in one step. ``kept_answer_fits`` checks the
    answer.
    """
    keys = [*data_set_keys(prefix), *with_history(prefix, portion)]
    sides = [side_channel(prefix, channel) for channel in portion]
    if kept.once:
        keys.append(once_key(prefix, portion, kept.once))
    size, seconds = kept.history or (0, 0)
    return (
        "EVAL", PUBLISH_KEPT, len(keys), *keys,
        message, expire, size, seconds, LONGEST_MEMORY, VERSION, ONCE_FOR, kept.info, *sides,
    )  # fmt: skip


def position_command(prefix: str, seen: Position | None = None, heard: int = 0) -> Command:
    """Ask for the position of the present. ``seen`` is a position that Redis gave out before, and
    ``heard`` the stamp of a message of the same data set. ``position_fits`` checks the answer.
    """
    keys = data_set_keys(prefix)
    stamp, mark = seen or (0, -1)
    return ("EVAL", POSITION, len(keys), *keys, stamp, mark, heard, MARKS)


def once_key(prefix: str, channels: Iterable[bytes], once: str) -> bytes:
    """The key of the result of a publish with an idempotency key. The channels belong to it: the
    same key for another audience is another publish.
    """
    digest = hashlib.sha256(b"\0".join([once.encode(), *channels])).hexdigest()
    return control_channel(prefix, f"published:{digest}")


def kept_answer_fits(command: Command, answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) == 2 + (int(command[2]) - 2) // _WIDTH
        and position_fits(answer)
        and all(type(each) is int or isinstance(each, ResponseError) for each in answer[2:])
    )


def position_fits(answer: Any) -> bool:
    """Whether it begins with two stamps."""
    return isinstance(answer, list) and all(
        isinstance(each, bytes) and each.isdigit() for each in answer[:2]
    )


def position_in(answer: Sequence[Any], age: float = 0.0) -> str:
    """The position that the answer begins with, some seconds earlier; ``""`` if no history is kept.
    The data set gave out none before its beginning.
    """
    last, birth = int(answer[0]), int(answer[1])
    stamp = max(last - int(age * 1e6), birth)
    return str(position(stamp, birth)) if last and birth else ""
