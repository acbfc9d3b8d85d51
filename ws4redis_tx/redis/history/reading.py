"""The scripts that read histories, and persisted messages with their stamps."""

from __future__ import annotations

from ws4redis_tx.redis.history.publishing import STAMPS

# The script's second argument is the version of the entries. ``first_after`` is the index of the
# first one behind a stamp.
ENTRIES = b"""
local version = ARGV[2]
local function parts(entry)
    local its, at, number = string.match(entry or '', '^(%d+) (%d+) (%d+) ')
    if its ~= version and its ~= '0' and its ~= '2' then return nil end
    return tonumber(at), tonumber(number), its == '0'
end
local function first_after(list, low, high, stamp)
    while low < high do
        local middle = math.floor((low + high) / 2)
        local at = parts(redis.call('LINDEX', list, middle))
        if at and at > stamp then high = middle else low = middle + 1 end
    end
    return low
end
"""

# For each channel: the stamp of its last message; whether everything after the position asked about
# is there; the stamp of a persisted message that is in no history, if there is one; whether more
# follows; and the entries. These have consecutive numbers and increasing stamps, so that the first
# one to read is found by halving. The one before it proves that nothing is missing between.
READ_MISSED = (
    STAMPS
    + ENTRIES
    + b"""
local budget, unknown = tonumber(ARGV[1]), 2 ^ 52
local stamp = next_stamp(stamp_at(KEYS[1])) - 1
local answers = {text(stamp), text(birth_at(KEYS[2], stamp))}
local function payload_of(entry)
    local its, rest = string.match(entry, '^(%d+) %d+ %d+ (.*)$')
    if its ~= '2' then return rest end
    local length, more = string.match(rest, '^(%d+) (.*)$')
    return length and string.sub(more, tonumber(length) + 1)
end
local function unkept(channel, at, list, length, last, since)
    if redis.call('EXISTS', channel) == 0 then return 0 end
    if type(redis.pcall('STRLEN', channel)) ~= 'number' then return 0 end
    local its = stamp_at(at)
    if its == 0 or math.abs(redis.call('PTTL', channel) - redis.call('PTTL', at)) > 1 then
        return unknown
    end
    if its > last then return its end
    if its <= since then return 0 end
    local index = first_after(list, 0, length, its - 1)
    local entry = redis.call('LINDEX', list, index)
    local found, _, gone = parts(entry)
    if found ~= its then return index > 0 and its or 0 end
    if gone then return 0 end
    return redis.call('GET', channel) == payload_of(entry) and 0 or unknown
end
local function read(i)
    local first = 3 * i
    local channel, at, pos, list = KEYS[4 * i - 1], KEYS[4 * i], KEYS[4 * i + 1], KEYS[4 * i + 2]
    local since, size, alone = tonumber(ARGV[first]), tonumber(ARGV[first + 1]), ARGV[first + 2]
    local length, last = redis.pcall('LLEN', list), stamp_at(pos)
    if type(length) ~= 'number' then length = 0 end
    if last == 0 and length > 0 then last = parts(redis.call('LINDEX', list, -1)) or 0 end
    local found = {text(last), 1, text(unkept(channel, at, list, length, last, since)), 0}
    if size == 0 then
        if redis.call('EXISTS', channel) == 1 then found[1], found[2] = text(stamp_at(at)), 0 end
        return found
    end
    if last <= since then return found end
    local oldest = math.max(0, length - size - 1)
    local low = first_after(list, oldest, length, since)
    local before
    if low > oldest then
        local at_before, number = parts(redis.call('LINDEX', list, low - 1))
        before = number
    end
    for index = low, length - 1 do
        if budget < 0 then
            found[4] = 1
            return found
        end
        local entry = redis.call('LINDEX', list, index)
        local its, number, gone = parts(entry)
        if not its or gone or number ~= (before or 0) + 1 then
            found[2] = 0
            while #found > 4 do found[#found] = nil end
            if alone == '1' then return found end
        end
        if its and not gone then
            budget = budget - #entry
            found[#found + 1] = entry
        end
        before = number
    end
    if #found == 4 then found[2] = 0 end
    return found
end
for i = 1, (#KEYS - 2) / 4 do answers[2 + i] = read(i) end
return answers
"""
)

# The persisted message of each channel, and its stamp: 0 if that is unknown.
READ_PERSISTED = (
    STAMPS
    + b"""
local answers = {}
for i = 1, #KEYS, 4 do
    local message, stamp = redis.pcall('GET', KEYS[i]), stamp_at(KEYS[i + 1])
    if type(message) ~= 'string' then message = false end
    if math.abs(redis.call('PTTL', KEYS[i]) - redis.call('PTTL', KEYS[i + 1])) > 1 then
        stamp = 0
    end
    answers[#answers + 1] = message
    answers[#answers + 1] = text(stamp)
end
return answers
"""
)
