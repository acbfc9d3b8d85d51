"""The commands this package sends to Redis: publish, persist, read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import PersistedMessage
from ws4redis_tx.core.names import read_stamp, stamp_key
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis import scripts
from ws4redis_tx.redis.connection import RedisConnection
from ws4redis_tx.redis.protocol import LOST, Command, CommandProtocol, ResponseError
from ws4redis_tx.redis.refusals import Trouble, concerns_server, refuses_scripts
from ws4redis_tx.scheduling.deferreds import gather
from ws4redis_tx.scheduling.timeouts import Timeouts

_log = Logger()

# A persisted message and its stamp, for each pair of keys. If the two expire at different times,
# the stamp belongs to an older message: a publisher that knows no stamps has set the key since. A
# key of another type is no message.
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

    When an answer does not come within ``timeout`` seconds, the command fails and the connection is
    dropped: the fate of this command and of those behind it is unknown. No command is sent twice.
    """

    def __init__(
        self,
        address: RedisAddress,
        prefix: str,
        reactor: Any,
        *,
        timeout: float,
        on_up: Callable[[], None] = lambda: None,
        on_down: Callable[[Trouble], None] = lambda trouble: None,
    ) -> None:
        self._prefix = prefix
        self._outstanding: Timeouts[Deferred[Any]] = Timeouts(timeout, Deferred.cancel, reactor)
        self._connection = RedisConnection(
            address,
            reactor,
            CommandProtocol,
            prepare=self._prepare,
            on_up=on_up,
            on_down=on_down,
        )
        self._scripts = True

    def start(self) -> None:
        self._connection.start()

    def stop(self) -> Deferred[Any]:
        self._outstanding.stop()
        return self._connection.stop()

    @property
    def connected(self) -> bool:
        return self._connection.protocol is not None

    def when_connected(self) -> Deferred[Any]:
        """Fire when there is a connection, or fail as the next attempt that fails."""
        return self._connection.when_connected()

    def publish(self, channels: Sequence[bytes], message: bytes, expire: int) -> Deferred[int]:
        """As ``IBroker.publish``, without a sender."""
        if not channels:
            return succeed(0)
        if expire and self._scripts:
            outcomes = self._publish_atomically(channels, message, expire)
        else:
            outcomes = self._publish_plainly(channels, message, expire)
        return outcomes.addCallback(scripts.receivers)

    def get(self, channels: Sequence[bytes]) -> Deferred[list[PersistedMessage | None]]:
        """The persisted message of each channel, all read at the same moment."""
        if not channels:
            return succeed([])
        return self._read("MGET", *channels, count=len(channels)).addCallback(
            lambda values: [
                None if value is None else PersistedMessage(value, channel)
                for channel, value in zip(channels, values, strict=True)
            ]
        )

    def put(self, key: bytes, value: bytes, seconds: int) -> Deferred[Any]:
        """Keep ``value`` for so many seconds, or until somebody takes it."""
        return self._execute("SETEX", key, seconds, value)

    def take(self, key: bytes) -> Deferred[bytes | None]:
        """Fire with the value that was put there, if any, and delete it in the same step."""
        return self._execute(
            "GETDEL", key, fits=lambda answer: answer is None or isinstance(answer, bytes)
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
        """Read without stamps, if this Redis user may not read those keys."""
        if not refuses_scripts(failure.value):
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

    def _publish_atomically(
        self, channels: Sequence[bytes], message: bytes, expire: int
    ) -> Deferred[list[Any]]:
        parts = list(scripts.portions(channels))

        def judge(answers: list[Any]) -> list[Any] | Deferred[list[Any]]:
            outcomes: list[Any] = []
            refused: list[bytes] = []
            for part, answer in zip(parts, answers, strict=True):
                if isinstance(answer, list):
                    outcomes += map(self._understood, answer)
                elif refuses_scripts(answer):
                    refused += part
                    self._note_no_scripts(str(answer.__cause__))
                else:
                    outcomes.append(answer)
            if not refused:
                return outcomes
            return (
                self._publish_plainly(refused, message, expire)
                .addErrback(lambda failure: [failure.value])
                .addCallback(lambda more: outcomes + more)
            )

        commands = [scripts.atomic_command(self._prefix, part, message, expire) for part in parts]
        return self._ask(commands, scripts.atomic_answer_fits).addCallback(judge)

    def _publish_plainly(
        self, channels: Sequence[bytes], message: bytes, expire: int
    ) -> Deferred[list[Any]]:
        return self._ask(
            scripts.plain_commands(channels, message, expire), scripts.plain_answer_fits
        )

    @inlineCallbacks
    def _prepare(self, protocol: CommandProtocol) -> Any:
        """Find out what Redis refuses before the first message. Fail if that is everything.

        A script that is refused later costs the order of the messages.
        """
        try:
            yield protocol.execute_command("EVAL", b"return redis.call('TIME')", 0)
            self._scripts = True
        except ResponseError as error:
            if concerns_server(error):
                raise
            self._note_no_scripts(str(error))
        stamp = stamp_key(self._prefix, b"")
        try:
            # Two keys: a cluster has them in different places, and does not read them together.
            yield protocol.execute_command("MGET", stamp + b"a", stamp + b"b")
        except ResponseError as error:
            if concerns_server(error):
                raise

    def _note_no_scripts(self, why: str) -> None:
        if self._scripts:
            self._scripts = False
            _log.warn(
                "Redis does not permit scripts ({why}): messages are persisted and published in "
                "two steps, not atomically. Grant +eval to this user, and do not rename or disable "
                "EVAL or the commands that the script calls, to mend it.",
                why=why,
            )

    def _read(self, *command: Any, count: int) -> Deferred[list[Any]]:
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
        self, *command: Any, fits: Callable[[Any], bool] = lambda answer: True
    ) -> Deferred[Any]:
        def judge(answers: list[Any]) -> Any:
            (answer,) = answers
            if isinstance(answer, BrokerRefused):
                raise answer
            return answer

        return self._ask([command], lambda _, answer: fits(answer)).addCallback(judge)

    def _ask(
        self, commands: Sequence[Command], fits: Callable[[Command, Any], bool]
    ) -> Deferred[list[Any]]:
        """Fire with an answer to each command: one that ``fits``, or a ``BrokerRefused``."""

        def judge(answers: list[Any]) -> list[Any]:
            self._outstanding.discard(asked)
            understood = list(map(self._understood, answers))
            for command, answer in zip(commands, understood, strict=True):
                if not isinstance(answer, BrokerRefused) and not fits(command, answer):
                    raise LOST("the answer is to something else")
            return understood

        protocol = self._connection.protocol
        if protocol is None:
            return fail(BrokerUnavailable("There is no connection to Redis."))
        asked: Deferred[list[Any]] = protocol.execute_commands(commands)
        self._outstanding.add(asked)
        understood: Deferred[list[Any]] = asked.addCallback(judge)
        return understood.addErrback(self._lost, protocol, asked)

    def _understood(self, answer: Any) -> Any:
        if not isinstance(answer, ResponseError):
            return answer
        if concerns_server(answer) and self._connection.protocol is not None:
            # Come back when it serves again, or where the master is by now.
            self._connection.drop(self._connection.protocol, answer)
        refused = BrokerRefused(f"Redis refused: {answer}")
        refused.__cause__ = answer
        return refused

    def _lost(self, failure: Failure, protocol: CommandProtocol, asked: Deferred[Any]) -> list[Any]:
        self._outstanding.discard(asked)
        # Answers that are late could not be told from answers to others.
        self._connection.drop(protocol)
        raise BrokerUnavailable(
            "Redis did not answer; whether it carried out the command is unknown.",
            maybe_published=True,
        ) from None


def _recalled(
    channels: Sequence[bytes], found: list[list[bytes | None]]
) -> list[tuple[bytes, bytes, int | None]]:
    values = [value for part in found for value in part]
    return [
        (channel, message, None if stamp is None else read_stamp(stamp))
        for channel, message, stamp in zip(channels, values[::2], values[1::2], strict=True)
        if message is not None
    ]
