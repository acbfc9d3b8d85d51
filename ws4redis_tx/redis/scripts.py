"""The commands that publish, and the meaning of their answers. Knows no connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.names import stamp_key
from ws4redis_tx.redis.protocol import Command, ResponseError

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
# Channels of one script. Redis does nothing else meanwhile, for about a millisecond.
PORTION = 100


def portions(channels: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(channels), PORTION):
        yield channels[start : start + PORTION]


def atomic_command(prefix: str, portion: Sequence[bytes], message: bytes, expire: int) -> Command:
    """Persist and publish on each channel in one step. ``atomic_answer_fits`` checks the answer."""
    stamp = stamp_key(prefix, b"")
    keys = [key for channel in portion for key in (channel, stamp + channel)]
    return ("EVAL", PUBLISH, len(keys), *keys, message, expire)


def atomic_answer_fits(command: Command, answer: Any) -> bool:
    return (
        isinstance(answer, list)
        and len(answer) * 2 == command[2]
        and all(type(each) is int or isinstance(each, ResponseError) for each in answer)
    )


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
