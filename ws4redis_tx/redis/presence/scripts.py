"""The scripts that keep, tell and publish who is present, and their keys.

====================================  ======  ===================================================
name                                  type    holds
====================================  ======  ===================================================
``{namespace:}presence:{channel}``    hash    by client: its server, its user and its info
``{namespace:}presence::{user}``      hash    by client and channel: its server
``{prefix:}alive:{server}``           set     the clients and channels of one server
``{prefix:}alive:servers``            zset    the time until which each server counts as alive
====================================  ======  ===================================================

A server says that it is alive once in a while, and not for each client. If it stops, the others
take its clients away, each in one step with its leave: so a leave is published once, whoever does
it. The times are those of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ws4redis_tx.core.messages import Occupant
from ws4redis_tx.core.names import audience_of, beside, namespace, side_channel, split_tenant
from ws4redis_tx.redis.wire.protocol import Command

EXPIRY = 24 * 3600
"""Seconds after which Redis forgets what no server has confirmed."""

LONGEST = 60
"""No server counts as alive for longer. A later time is of a clock that was set back."""

PORTION = 100
"""Clients of one script. Redis does nothing else meanwhile, for about a millisecond."""

_PAGE = 1000  # clients that a script reads at once

_CLOCK = (
    b"local longest = %d" % LONGEST
    + b"""
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local function lives(score)
    score = tonumber(score or nil)
    return score and score > now and score <= now + longest
end
"""
)

# The server's set comes first, since its size tells the server whether Redis has lost something. A
# key of another type, or a permission that is missing, harms one client alone.
ANNOUNCE = (
    _CLOCK
    + b"""
local server, lasting, expiry = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local answers = {redis.call('SCARD', KEYS[2]), ''}
local function run(...)
    local answer = redis.pcall(...)
    if type(answer) == 'table' and answer.err then
        answers[2] = answer.err
        return nil, true
    end
    return answer, false
end
for i = 1, (#KEYS - 2) / 2 do
    local first = 5 * i - 1
    local presence, online = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
    local client, entry, user = ARGV[first], ARGV[first + 1], ARGV[first + 2]
    local info, side = ARGV[first + 3], ARGV[first + 4]
    redis.call('SADD', KEYS[2], entry)
    local value = server .. ' ' .. #user .. ' ' .. user .. info
    local was, refused = run('HGET', presence, client)
    if not refused then
        run('HSET', presence, client, value)
        run('EXPIRE', presence, expiry)
        if user ~= '' then
            run('HSET', online, entry, server)
            run('EXPIRE', online, expiry)
        end
        if not was and side ~= '' then run('PUBLISH', side, 'join ' .. info) end
    end
end
redis.call('ZADD', KEYS[1], now + lasting, server)
redis.call('EXPIRE', KEYS[1], expiry)
redis.call('EXPIRE', KEYS[2], expiry)
local function those_between(least, most)
    return ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], least, most, 'LIMIT', 0, 8))
end
for _, late in those_between(now + longest, '+inf') do
    redis.call('ZADD', KEYS[1], now + lasting, late)
end
for _, dead in those_between('-inf', now) do answers[#answers + 1] = dead end
return answers
"""
)

# Whoever takes a client away publishes its leave. Those of a dead server are taken only while it is
# dead, and only if no other server has them.
WITHDRAW = (
    _CLOCK
    + b"""
local server, dead = ARGV[1], ARGV[2] == '1'
if dead and lives(redis.call('ZSCORE', KEYS[1], server)) then return 0 end
for i = 1, (#KEYS - 2) / 2 do
    local first = 3 * i
    local presence, online = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
    local client, entry, side = ARGV[first], ARGV[first + 1], ARGV[first + 2]
    local value = redis.pcall('HGET', presence, client)
    if type(value) == 'string' then
        local its, size, told = string.match(value, '^(%S+) (%d+) (.*)$')
        if its == server or not dead then
            redis.call('HDEL', presence, client)
            redis.pcall('HDEL', online, entry)
            if side ~= '' and told then
                redis.pcall('PUBLISH', side, 'leave ' .. string.sub(told, size + 1))
            end
        end
    end
    redis.call('SREM', KEYS[2], entry)
end
local left = redis.call('SCARD', KEYS[2])
if dead and left == 0 then redis.call('ZREM', KEYS[1], server) end
return left
"""
)

# The next cursor, and each client of a living server with what is told of it.
PRESENT = (
    _CLOCK
    + b"""
local scores = {}
local found = redis.call('HSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local answers, page = {found[1]}, found[2]
for i = 1, #page, 2 do
    local server, size, told = string.match(page[i + 1], '^(%S+) (%d+) (.*)$')
    if server then
        if scores[server] == nil then
            scores[server] = lives(redis.call('ZSCORE', KEYS[1], server)) or false
        end
        if scores[server] then
            answers[#answers + 1] = page[i]
            answers[#answers + 1] = string.sub(told, 1, size)
            if ARGV[3] == '1' then answers[#answers + 1] = string.sub(told, size + 1) end
        end
    end
end
return answers
"""
)

ONLINE = (
    _CLOCK
    + b"""
for _, server in ipairs(redis.call('HVALS', KEYS[2])) do
    if lives(redis.call('ZSCORE', KEYS[1], server)) then return 1 end
end
return 0
"""
)


def alive_keys(prefix: str, server: str) -> tuple[bytes, bytes]:
    """The key of all servers' times, and that of the clients of one."""
    start = f"{prefix}:alive:" if prefix else "alive:"
    return f"{start}servers".encode(), f"{start}{server}".encode()


def presence_key(prefix: str, channel: bytes) -> bytes:
    return beside(b"presence", prefix, channel)


def online_key(prefix: str, tenant: str, user: str) -> bytes:
    """No channel's name begins with a colon."""
    space = namespace(prefix, tenant)
    return f"{space}:presence::{user}".encode() if space else f"presence::{user}".encode()


def announce_command(
    prefix: str, server: str, lasting: float, occupants: Sequence[Occupant]
) -> Command:
    """Count the server as alive, and store the clients that it has. Those that are new join."""
    arguments: list[Any] = []
    for each in occupants:
        arguments += (each.client, entry_of(each), each.user, each.info, _side(prefix, each))
    keys = _keys(prefix, server, occupants)
    return ("EVAL", ANNOUNCE, len(keys), *keys, server, lasting, EXPIRY, *arguments)


def announce_answer_fits(answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) >= 2
        and type(answer[0]) is int
        and all(isinstance(each, bytes) for each in answer[1:])
    )


def withdraw_command(
    prefix: str, server: str, occupants: Sequence[Occupant], *, dead: bool
) -> Command:
    arguments: list[Any] = []
    for each in occupants:
        arguments += (each.client, entry_of(each), _side(prefix, each))
    keys = _keys(prefix, server, occupants)
    return ("EVAL", WITHDRAW, len(keys), *keys, server, int(dead), *arguments)


def present_command(prefix: str, channel: bytes, cursor: bytes, *, infos: bool) -> Command:
    """``present_answer_fits`` checks the answer."""
    keys = alive_keys(prefix, "")[0], presence_key(prefix, channel)
    return ("EVAL", PRESENT, len(keys), *keys, cursor, _PAGE, int(infos))


def present_answer_fits(answer: Any, *, infos: bool) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) % (3 if infos else 2) == 1
        and all(isinstance(each, bytes) for each in answer)
    )


def online_command(prefix: str, tenant: str, user: str) -> Command:
    keys = alive_keys(prefix, "")[0], online_key(prefix, tenant, user)
    return ("EVAL", ONLINE, len(keys), *keys)


def entry_of(occupant: Occupant) -> bytes:
    """What the set of its server has of it: ``client size channel user``."""
    channel = occupant.channel
    return b"%b %d %b%b" % (
        occupant.client.encode(), len(channel), channel, occupant.user.encode(),
    )  # fmt: skip


def read_entry(entry: bytes) -> Occupant:
    """Without its info. Raises ``ValueError`` for what another program wrote there."""
    client, size, names = entry.split(b" ", 2)
    end = int(size)
    return Occupant(names[:end], client.decode(), names[end:].decode(), b"")


def _keys(prefix: str, server: str, occupants: Iterable[Occupant]) -> list[bytes]:
    keys = [*alive_keys(prefix, server)]
    for each in occupants:
        tenant, _ = split_tenant(prefix, each.channel.decode(errors="surrogateescape"))
        keys += (presence_key(prefix, each.channel), online_key(prefix, tenant, each.user))
    return keys


def _side(prefix: str, occupant: Occupant) -> bytes:
    """Nobody is told who hears a user's own channel."""
    if audience_of(occupant.channel) == "user":
        return b""
    return side_channel(prefix, occupant.channel)
