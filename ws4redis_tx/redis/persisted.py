"""The persisted messages of many channels: found first, and then read in portions.

An answer has a bounded size, whatever is persisted: everything else that is asked over the same
connection waits behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from ws4redis_tx.core.names import read_stamp, with_stamps
from ws4redis_tx.redis import scripts
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.wire.protocol import LOST, Command
from ws4redis_tx.redis.wire.refusals import refuses_scripts

# One answer has at most so many bytes of messages, or is about so many channels.
PORTION_BYTES = 256 * 1024
_PORTION_CHANNELS = 500


@dataclass(frozen=True, slots=True)
class Persisted:
    """A persisted message that was found, and not read. ``stamp`` is the time of its publishing in
    microseconds of Redis' clock, as it stands in its key, or ``b""`` if that is unknown.
    """

    channel: bytes
    size: int
    stamp: bytes = b""

    @property
    def moment(self) -> int | None:
        return read_stamp(self.stamp)


@dataclass(frozen=True, slots=True)
class RedisClock:
    """Redis' clock in microseconds, and the server whose clock it is: ``b""`` if that is unknown.
    The clocks of two servers cannot be compared.
    """

    now: int
    server: bytes = b""


def read_clock(payload: bytes) -> RedisClock | None:
    """The clock in a probe; ``None`` for anything else that another program published."""
    now, _, server = payload.partition(b":")
    moment = read_stamp(now)
    return None if moment is None else RedisClock(moment, server)


class PersistedMessages:
    """Finds and reads them over the connection of ``commands``."""

    def __init__(self, commands: Commands, prefix: str) -> None:
        self._commands = commands
        self._prefix = prefix

    @inlineCallbacks
    def find(self, channels: Sequence[bytes]) -> Any:
        """Fire with the clock of the stamps, if there are any, and a ``Persisted`` for each channel
        that has a persisted message.
        """
        clocks: dict[bytes, RedisClock] = {}
        found: list[Persisted] = []
        for start in range(0, len(channels), _PORTION_CHANNELS):
            part = channels[start : start + _PORTION_CHANNELS]
            if self._commands.scripts_permitted:
                finding = self._find(part)
                finding.addErrback(self._without_scripts, self._find_plainly, part)
            else:
                finding = self._find_plainly(part)
            clock, more = yield finding
            found += more
            if clock is not None:
                clocks[clock.server] = clock
        if len(clocks) > 1:
            raise LOST("Redis was replaced meanwhile")
        return next(iter(clocks.values()), None), found

    def read(self, portion: Sequence[tuple[Persisted, str]]) -> Deferred[list[bytes | None]]:
        """Fire with the messages that were found; ``None`` for one that is there no more, or whose
        SHA-1 is the string beside it.
        """
        if not self._commands.scripts_permitted:
            return self._read_plainly(portion)
        if len(portion) == 1 and portion[0][0].size > PORTION_BYTES:
            reading = self._read_in_pieces(*portion[0])
        else:
            keys = self._keys([each.channel for each, _ in portion])
            known = [value for each, sha1 in portion for value in (each.stamp, sha1)]
            count = len(portion)
            reading = self._commands.read(
                "EVAL", scripts.READ, len(keys), *keys, *known, count=count
            )
        return reading.addErrback(self._without_scripts, self._read_plainly, portion)

    def _find(
        self, channels: Sequence[bytes]
    ) -> Deferred[tuple[RedisClock | None, list[Persisted]]]:
        keys = self._keys(channels)

        def fits(answer: Any) -> bool:
            return (
                isinstance(answer, list)
                and len(answer) == 2 + len(keys)
                and all(isinstance(each, bytes) for each in (answer[0], *answer[1::2]))
                and answer[0].isdigit()
                and all(type(size) is int for size in answer[2::2])
            )

        def judge(answer: list[Any]) -> tuple[RedisClock, list[Persisted]]:
            return RedisClock(int(answer[0]), answer[1]), [
                Persisted(channel, size, stamp)
                for channel, size, stamp in zip(channels, answer[2::2], answer[3::2], strict=True)
                if size >= 0
            ]

        command = ("EVAL", scripts.FIND, len(keys), *keys)
        return self._commands.execute(*command, fits=fits).addCallback(judge)

    def _find_plainly(
        self, channels: Sequence[bytes]
    ) -> Deferred[tuple[RedisClock | None, list[Persisted]]]:
        """Without stamps: only a script can tell one from that of an older message."""

        def judge(answers: list[Any]) -> tuple[None, list[Persisted]]:
            return None, [
                # A key that Redis does not tell the size of is read by itself.
                Persisted(channel, size if type(size) is int else PORTION_BYTES)
                for channel, size in zip(channels, answers, strict=True)
            ]

        asked: list[Command] = [("STRLEN", channel) for channel in channels]
        return self._commands.ask(asked, lambda _, answer: type(answer) is int).addCallback(judge)

    @inlineCallbacks
    def _read_in_pieces(self, found: Persisted, sha1: str) -> Any:
        pieces: list[bytes] = []
        digest = b""
        for start in range(0, found.size, PORTION_BYTES):
            keys = self._keys([found.channel])
            end = start + PORTION_BYTES - 1
            known = (found.stamp, sha1 if start == 0 else "", start, end, found.size)
            answer = yield self._commands.execute(
                "EVAL", scripts.READ_PIECE, 2, *keys, *known, fits=_piece_fits
            )
            if not answer or not answer[0]:
                return [None]
            pieces.append(answer[0])
            digest = answer[1]
        message = b"".join(pieces)
        # It may have changed between two pieces.
        return [message if hashlib.sha1(message).hexdigest().encode() == digest else None]

    def _read_plainly(
        self, portion: Sequence[tuple[Persisted, str]]
    ) -> Deferred[list[bytes | None]]:
        return self._commands.read(
            "MGET", *(each.channel for each, _ in portion), count=len(portion)
        )

    def _without_scripts(
        self, failure: Failure, plainly: Callable[[Any], Deferred[Any]], argument: Any
    ) -> Deferred[Any]:
        """Do without the script, if this Redis user may not use it on those keys."""
        if not refuses_scripts(failure.value):
            failure.raiseException()
        return plainly(argument)

    def _keys(self, channels: Sequence[bytes]) -> list[bytes]:
        return with_stamps(self._prefix, channels)


def portions(found: Iterable[Persisted]) -> Iterator[list[Persisted]]:
    """In their order, each as much as is read at once: one message at least."""
    portion: list[Persisted] = []
    size = 0
    for each in found:
        if portion and (size + each.size > PORTION_BYTES or len(portion) == _PORTION_CHANNELS):
            yield portion
            portion, size = [], 0
        portion.append(each)
        size += each.size
    if portion:
        yield portion


def _piece_fits(answer: Any) -> bool:
    return isinstance(answer, list) and (
        not answer or (len(answer) == 2 and all(isinstance(each, bytes) for each in answer))
    )
