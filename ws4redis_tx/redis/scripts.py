"""The scripts, the commands that publish, and the meaning of their answers. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.names import with_stamps
from ws4redis_tx.redis.wire.protocol import Command, ResponseError

# Persist first: a client that subscribes and then reads the key sees the message one way or the
# other. The stamp is Redis' own clock in microseconds. For each channel the script answers with the
# number of subscribers, or with the error. It is sent whole each time: after EVALSHA's NOSCRIPT the
# call would have to be repeated, behind calls that were made later.
PUBLISH = b"""
local now = redis.call('TIME')
local stamp = now[1] .. string.format('%06d', now[2])
local answers = {}
for i = 1, #KEYS, 2 do
    local answer = redis.pcall('SETEX', KEYS[i], ARGV[2], ARGV[1])
    if not answer.err then answer = redis.pcall('SETEX', KEYS[i + 1], ARGV[2], stamp) end
    if not answer.err then answer = redis.pcall('PUBLISH', KEYS[i], ARGV[1]) end
    answers[#answers + 1] = answer
end
return answers
"""
# Redis' clock, in microseconds, and the name of the server whose clock it is. The name is '' for a
# Redis user who may not ask for it.
_CLOCK = b"""
local function clock()
    local now = redis.call('TIME')
    local info = redis.pcall('INFO', 'server')
    local server = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or ''
    return now[1] .. string.format('%06d', now[2]), server
end
"""

# The clock, to a channel of our own.
PROBE = (
    _CLOCK
    + b"""
local now, server = clock()
return redis.call('PUBLISH', ARGV[1], now .. ':' .. server)
"""
)

# Publish, and put an entry at the beginning of each list for some seconds. A list that cannot be
# kept, or is none, keeps nobody from being told.
RECORD = b"""
for i = 1, #KEYS do
    local list = redis.pcall('GET', KEYS[i])
    if type(list) ~= 'string' then list = '' end
    list = ARGV[4 + i] .. string.sub(list, 1, tonumber(ARGV[4]))
    redis.pcall('SETEX', KEYS[i], ARGV[3], list)
end
return redis.call('PUBLISH', ARGV[1], ARGV[2])
"""
RECORDED_FOR = 60  # seconds
_LONGEST_LIST = 32 * 1024  # bytes

# The stamp of a persisted message, or ''. If the two keys expire at different times, the stamp
# belongs to an older message: a publisher that knows no stamps has set the message since. A stamp
# of another type is none.
_STAMP_OF = b"""
local function stamp_of(key, at)
    local stamp = redis.pcall('GET', at)
    if not stamp then return '' end
    if type(stamp) == 'table' then
        if string.find(stamp.err, 'WRONGTYPE', 1, true) then return '' end
        return stamp
    end
    if math.abs(redis.call('PTTL', key) - redis.call('PTTL', at)) > 1 then return '' end
    return stamp
end
"""

# The clock, and then size and stamp for each pair of keys. The size is -1 if there is no message: a
# key of another type is none. A user who may not ask for the size may still read the message.
FIND = (
    _CLOCK
    + _STAMP_OF
    + b"""
local found = {clock()}
for i = 1, #KEYS, 2 do
    local size, stamp = -1, ''
    if redis.call('PTTL', KEYS[i]) ~= -2 then
        local answer = redis.pcall('STRLEN', KEYS[i])
        if type(answer) == 'table' then answer = redis.pcall('GET', KEYS[i]) end
        if type(answer) == 'number' then
            size = answer
        elseif type(answer) == 'string' then
            size = #answer
        elseif answer and not string.find(answer.err, 'WRONGTYPE', 1, true) then
            return answer
        end
    end
    if size >= 0 then stamp = stamp_of(KEYS[i], KEYS[i + 1]) end
    if type(stamp) == 'table' then return stamp end
    found[#found + 1] = size
    found[#found + 1] = stamp
end
return found
"""
)

# For each pair of keys, the message; nothing if its stamp is not the one that was found before, or
# if it is the message with this SHA-1.
READ = (
    _STAMP_OF
    + b"""
local messages = {}
for i = 1, #KEYS, 2 do
    local message, stamp = false, stamp_of(KEYS[i], KEYS[i + 1])
    if type(stamp) == 'table' then return stamp end
    if stamp == ARGV[i] then
        message = redis.pcall('GET', KEYS[i])
        if type(message) == 'table' then message = false end
        if message and ARGV[i + 1] ~= '' and redis.sha1hex(message) == ARGV[i + 1] then
            message = false
        end
    end
    messages[#messages + 1] = message
end
return messages
"""
)

# The same for some bytes of one message. With the last of them comes the SHA-1 of the whole.
READ_PIECE = (
    _STAMP_OF
    + b"""
local stamp = stamp_of(KEYS[1], KEYS[2])
if type(stamp) == 'table' then return stamp end
if stamp ~= ARGV[1] then return {} end
local first, last, size = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if ARGV[2] ~= '' or last + 1 >= size then
    local message = redis.pcall('GET', KEYS[1])
    if type(message) ~= 'string' or #message ~= size then return {} end
    local digest = redis.sha1hex(message)
    if digest == ARGV[2] then return {} end
    return {string.sub(message, first + 1, last + 1), digest}
end
local piece = redis.pcall('GETRANGE', KEYS[1], first, last)
if type(piece) == 'table' then
    piece = redis.pcall('GET', KEYS[1])
    if type(piece) ~= 'string' then return {} end
    piece = string.sub(piece, first + 1, last + 1)
end
return {piece, ''}
"""
)

# Channels of one script. Redis does nothing else meanwhile, for about a millisecond.
PORTION = 100


def portions(channels: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(channels), PORTION):
        yield channels[start : start + PORTION]


def atomic_command(prefix: str, portion: Sequence[bytes], message: bytes, expire: int) -> Command:
    """Persist and publish on each channel in one step. ``atomic_answer_fits`` checks the answer."""
    keys = with_stamps(prefix, portion)
    return ("EVAL", PUBLISH, len(keys), *keys, message, expire)


def atomic_answer_fits(command: Command, answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) * 2 == command[2]
        and all(type(each) is int or isinstance(each, ResponseError) for each in answer)
    )


def record_command(
    channel: bytes, message: bytes, entries: Mapping[bytes, bytes], seconds: int
) -> Command:
    """Publish, and add an entry to each list, in one step."""
    bounds = (seconds, _LONGEST_LIST)
    return ("EVAL", RECORD, len(entries), *entries, channel, message, *bounds, *entries.values())


def plain_record_commands(
    channel: bytes, message: bytes, entries: Mapping[bytes, bytes], seconds: int
) -> list[Command]:
    """The same without scripts: each list has its last entry only."""
    lists: list[Command] = [("SETEX", key, seconds, entry) for key, entry in entries.items()]
    return [*lists, ("PUBLISH", channel, message)]


def plain_commands(channels: Iterable[bytes], message: bytes, expire: int) -> list[Command]:
    """The same in two steps for each channel, or in one if nothing is persisted."""
    commands: list[Command] = []
    for channel in channels:
        if expire:
            commands.append(("SETEX", channel, expire, message))
        commands.append(("PUBLISH", channel, message))
    return commands


def plain_answer_fits(command: Command, answer: Any) -> bool:
    return type(answer) is int if command[0] == "PUBLISH" else answer == b"OK"


def receivers(outcomes: Iterable[Any]) -> int:
    """The sum of the numbers among them. Raises the ``BrokerUnavailable`` among them, if there is
    one; the fate of the message is unknown if other channels did not fail.
    """
    outcomes = list(outcomes)
    failures = [outcome for outcome in outcomes if isinstance(outcome, BrokerUnavailable)]
    if not failures:
        return sum(outcome for outcome in outcomes if type(outcome) is int)
    failure = max(failures, key=lambda each: each.maybe_published)
    if len(failures) < len(outcomes):
        raise BrokerUnavailable(
            f"{failure} It was carried out in part.", maybe_published=True
        ) from failure
    raise failure
