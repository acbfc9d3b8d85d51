"""The commands this package sends to Redis: publish, persist, read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.channels import read_stamp, stamp_key
from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.server.deferreds import gather
from ws4redis_tx.server.redis_connection import RedisConnection
from ws4redis_tx.server.redis_protocol import LOST, CommandProtocol, ResponseError

_log = Logger()

# Persist first: who subscribes and then reads the key sees the message by one way or the other.
# The stamp is Redis' own clock in microseconds. Sent whole each time: after EVALSHA's NOSCRIPT the
# call would have to be repeated, behind calls that were made later.
_PUBLISH = b"""
local now = redis.call('TIME')
redis.call('SETEX', KEYS[1], ARGV[2], ARGV[1])
redis.call('SETEX', KEYS[2], ARGV[2], now[1] .. string.format('%06d', now[2]))
return redis.call('PUBLISH', KEYS[1], ARGV[1])
"""

# A persisted message and its stamp, for each pair of keys. One whose keys expire at different times
# was set by a publisher that knows no stamps, over an older one's; one of another type is nobody's.
_RECALL = b"""
local found = {}
for i = 1, #KEYS, 2 do
    local message = redis.pcall('GET', KEYS[i])
    local stamp = redis.call('GET', KEYS[i + 1])
    if type(message) == 'table' then message = false end
    if stamp and math.abs(redis.call('PTTL', KEYS[i]) - redis.call('PTTL', KEYS[i + 1])) > 1 then
        stamp = false
    end
    found[i] = message
    found[i + 1] = stamp
end
return found
"""
_RECALLED_AT_ONCE = 500

# To a channel of our own: Redis' clock, in microseconds.
_PROBE = b"""
local now = redis.call('TIME')
return redis.call('PUBLISH', ARGV[1], now[1] .. string.format('%06d', now[2]))
"""


class Commands:
    """Publishes and reads over one connection, hence in order.

    A command whose answer does not come within ``timeout`` seconds fails, and with it the
    connection: its fate, and that of those behind it, is unknown. No command is sent twice.
    """

    def __init__(
        self,
        address: RedisAddress,
        prefix: str,
        reactor: Any,
        *,
        timeout: float,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[str], None] = lambda problem: None,
    ) -> None:
        self._prefix = prefix
        self._reactor = reactor
        self._timeout = timeout
        self._connection = RedisConnection(
            address,
            reactor,
            CommandProtocol,
            prepare=self._probe_scripts,
            on_up=on_up,
            on_down=on_down,
        )
        self._scripts = True
        self.start = self._connection.start
        self.stop = self._connection.stop
        self.when_connected = self._connection.when_connected

    @property
    def connected(self) -> bool:
        return self._connection.protocol is not None

    def publish(self, channels: Sequence[bytes], message: bytes, expire: int) -> Deferred[int]:
        """As ``IBroker.publish``, without a sender."""
        if not channels:
            return succeed(0)
        if not self.connected:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        answers = [self._publish(channel, message, expire) for channel in channels]
        return _all_or_perhaps(answers).addCallback(sum)

    def get(self, channels: Sequence[bytes]) -> Deferred[list[PersistedMessage | None]]:
        """What is persisted for each channel, read at one moment."""
        if not channels:
            return succeed([])
        return self._read("MGET", *channels, count=len(channels)).addCallback(
            lambda values: [
                None if value is None else PersistedMessage(value, channel)
                for channel, value in zip(channels, values, strict=True)
            ]
        )

    def recall(self, channels: Sequence[bytes]) -> Deferred[list[tuple[bytes, bytes, int | None]]]:
        """For each channel that has a persisted message: channel, message, and when it was
        published, in microseconds of Redis' clock, if that is known.
        """
        keys = [key for channel in channels for key in (channel, stamp_key(self._prefix, channel))]
        size = 2 * _RECALLED_AT_ONCE
        parts = [keys[i : i + size] for i in range(0, len(keys), size)]
        if self._scripts:
            answers = [
                self._read("EVAL", _RECALL, len(part), *part, count=len(part)).addErrback(
                    self._without_stamps, part
                )
                for part in parts
            ]
        else:
            answers = [self._read_plainly(part) for part in parts]
        return gather(answers).addCallback(lambda found: _recalled(channels, found))

    def _without_stamps(self, failure: Failure, keys: list[bytes]) -> Deferred[list[bytes | None]]:
        """They are keys that this user may not read."""
        if not _is_no_permission(getattr(failure.value, "__cause__", None)):
            failure.raiseException()
        return self._read_plainly(keys)

    def _read_plainly(self, keys: list[bytes]) -> Deferred[list[bytes | None]]:
        """Without stamps: only a script can tell one from that of an older message."""
        return self._read("MGET", *keys[::2], count=len(keys) // 2).addCallback(
            lambda messages: [value for message in messages for value in (message, None)]
        )

    def probe(self, channel: bytes) -> Deferred[int]:
        """Have Redis publish its clock, in microseconds, on ``channel``."""
        if self._scripts:
            return self._execute("EVAL", _PROBE, 0, channel)
        return self._read("TIME", count=2).addCallback(
            lambda now: self._execute("PUBLISH", channel, now[0] + now[1].rjust(6, b"0"))
        )

    def _publish(self, channel: bytes, message: bytes, expire: int) -> Deferred[int]:
        if not expire:
            return self._count("PUBLISH", channel, message)
        if not self._scripts:
            return self._publish_plainly(channel, message, expire)
        stamp = stamp_key(self._prefix, channel)
        return self._count("EVAL", _PUBLISH, 2, channel, stamp, message, expire).addErrback(
            self._without_scripts, channel, message, expire
        )

    def _publish_plainly(self, channel: bytes, message: bytes, expire: int) -> Deferred[int]:
        persisted = self._execute("SETEX", channel, expire, message)
        published = self._count("PUBLISH", channel, message)
        return _all_or_perhaps([persisted, published]).addCallback(lambda answers: answers[1])

    def _probe_scripts(self, protocol: CommandProtocol) -> Deferred[None]:
        """Find out before the first message, so that none overtakes another at a refusal."""

        def refused(failure: Failure) -> None:
            if not _is_no_permission(failure.value):
                failure.raiseException()
            self._note_no_scripts()

        def allowed(_: object) -> None:
            self._scripts = True

        answer: Deferred[Any] = protocol.execute_command("EVAL", b"return 1", 0)
        return answer.addCallbacks(allowed, refused)

    def _without_scripts(
        self, failure: Failure, channel: bytes, message: bytes, expire: int
    ) -> Deferred[int]:
        if not _is_no_permission(getattr(failure.value, "__cause__", None)):
            failure.raiseException()
        self._note_no_scripts()
        return self._publish_plainly(channel, message, expire)

    def _note_no_scripts(self) -> None:
        if self._scripts:
            self._scripts = False
            _log.warn(
                "Redis does not permit scripts to this user: messages are persisted and "
                "published in two steps, not atomically. Grant +eval to mend it."
            )

    def _count(self, *command: object) -> Deferred[int]:
        """Fire with a number."""
        return self._execute(*command, fits=lambda answer: type(answer) is int)

    def _read(self, *command: object, count: int) -> Deferred[list[Any]]:
        """Fire with ``count`` values, each bytes or ``None``."""
        return self._execute(
            *command,
            fits=lambda answer: (
                isinstance(answer, list)
                and len(answer) == count
                and all(value is None or isinstance(value, bytes) for value in answer)
            ),
        )

    def _execute(
        self, *command: object, fits: Callable[[Any], bool] = lambda answer: True
    ) -> Deferred[Any]:
        def judge(answer: Any) -> Any:
            if not fits(answer):
                raise LOST("the answer is to something else")
            return answer

        protocol = self._connection.protocol
        if protocol is None:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        answer: Deferred[Any] = protocol.execute_command(*command)
        answer.addTimeout(self._timeout, self._reactor)
        answer.addCallback(judge)
        return answer.addErrback(self._failed, protocol)

    def _failed(self, failure: Failure, protocol: CommandProtocol) -> None:
        error = failure.value
        if isinstance(error, ResponseError):
            if str(error).startswith("READONLY"):
                # A replica by now: the master is elsewhere.
                self._connection.drop(protocol)
            raise BrokerRefused(f"Redis refused: {error}") from error
        # Answers that are late could not be told from answers to others.
        self._connection.drop(protocol)
        raise BrokerUnavailable(
            "Redis did not answer; whether it carried out the command is unknown.",
            maybe_published=True,
        ) from None


def _all_or_perhaps(answers: list[Deferred[int]]) -> Deferred[list[int]]:
    """All answers, or the first failure: one of unknown fate if others did not fail."""

    def judge(results: list[tuple[bool, Any]]) -> list[int]:
        failures = [result for succeeded, result in results if not succeeded]
        if not failures:
            return [result for _, result in results]
        if len(failures) < len(results):
            raise BrokerUnavailable(
                f"{failures[0].value} It was carried out in part.", maybe_published=True
            ) from failures[0].value
        failures[0].raiseException()
        raise AssertionError  # pragma: no cover

    return DeferredList(answers, consumeErrors=True).addCallback(judge)


def _recalled(
    channels: Sequence[bytes], found: list[list[bytes | None]]
) -> list[tuple[bytes, bytes, int | None]]:
    values = [value for part in found for value in part]
    return [
        (channel, message, None if stamp is None else read_stamp(stamp))
        for channel, message, stamp in zip(channels, values[::2], values[1::2], strict=True)
        if message is not None
    ]


def _is_no_permission(error: BaseException | None) -> bool:
    return isinstance(error, ResponseError) and str(error).startswith("NOPERM")
