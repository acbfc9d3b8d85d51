"""The commands this package sends to Redis: publish, persist, read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerRefused, BrokerUnavailable
from ws4redis_tx.core.messages import PersistedMessage, Published
from ws4redis_tx.core.names import stamp_key
from ws4redis_tx.core.positions import NOT_KEPT, Kept
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis import scripts
from ws4redis_tx.redis.kept_commands import KeptCommands
from ws4redis_tx.redis.presence.commands import PresenceCommands
from ws4redis_tx.redis.wire.connection import RedisConnection
from ws4redis_tx.redis.wire.protocol import LOST, Command, CommandProtocol, ResponseError
from ws4redis_tx.redis.wire.refusals import Trouble, concerns_server, refuses_scripts
from ws4redis_tx.scheduling.timeouts import Timeouts

_log = Logger()


class Commands(KeptCommands, PresenceCommands):
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
        self.prefix = prefix
        self._outstanding: Timeouts[Deferred[Any]] = Timeouts(timeout, Deferred.cancel, reactor)
        self._connection = RedisConnection(
            address,
            reactor,
            CommandProtocol,
            prepare=self._prepare,
            on_up=on_up,
            on_down=on_down,
        )
        self.scripts_permitted = True
        """Whether this Redis user may run scripts, as far as is known."""

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

    def publish(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept = NOT_KEPT
    ) -> Deferred[Published]:
        """As ``IBroker.publish``, without a sender.

        Without scripts there is no history. With an idempotency key it fails with
        ``BrokerRefused`` then, as nothing would keep the message from being published twice.
        """
        if not channels:
            return succeed(Published(0))
        if kept.once or ((kept.history or kept.info) and self.scripts_permitted):
            return self.publish_and_keep(channels, message, expire, kept)
        if kept.history:
            self.note_no_history("it may not run scripts")
        if expire and self.scripts_permitted:
            outcomes = self.publish_atomically(channels, message, expire)
        else:
            outcomes = self.publish_plainly(channels, message, expire)
        return outcomes.addCallback(lambda answers: Published(scripts.receivers(answers)))

    def record(
        self,
        channel: bytes,
        message: bytes,
        entries: Mapping[bytes, bytes],
        seconds: int = scripts.RECORDED_FOR,
    ) -> Deferred[int]:
        """Publish without persisting, and put an entry at the beginning of each list, for those who
        did not listen. A list lives for ``seconds`` from its last entry. One that cannot be kept
        does not matter.
        """

        def plainly(failure: Failure | None = None) -> Deferred[Any]:
            if failure is not None and not refuses_scripts(failure.value):
                failure.raiseException()
            commands = scripts.plain_record_commands(channel, message, entries, seconds)
            return self.ask(commands, scripts.plain_answer_fits).addCallback(
                lambda answers: scripts.receivers(answers[-1:])
            )

        if not self.scripts_permitted:
            return plainly()
        command = scripts.record_command(channel, message, entries, seconds)
        recorded = self.execute(*command, fits=lambda answer: type(answer) is int)
        return recorded.addErrback(plainly)

    def get(self, channels: Sequence[bytes]) -> Deferred[list[PersistedMessage | None]]:
        """The persisted message of each channel, all read at the same moment."""
        if not channels:
            return succeed([])
        return self.read("MGET", *channels, count=len(channels)).addCallback(
            lambda values: [
                None if value is None else PersistedMessage(value, channel)
                for channel, value in zip(channels, values, strict=True)
            ]
        )

    def put(self, key: bytes, value: bytes, seconds: int) -> Deferred[Any]:
        """Keep ``value`` for so many seconds, or until somebody takes it."""
        return self.execute("SETEX", key, seconds, value)

    def take(self, key: bytes) -> Deferred[bytes | None]:
        """Fire with the value that was put there, if any, and delete it in the same step."""
        return self.execute(
            "GETDEL", key, fits=lambda answer: answer is None or isinstance(answer, bytes)
        )

    def probe(self, channel: bytes) -> Deferred[int]:
        """Have Redis publish its clock, in microseconds, on ``channel``."""
        if self.scripts_permitted:
            return self.execute("EVAL", scripts.PROBE, 0, channel)
        return self.read("TIME", count=2).addCallback(
            lambda now: self.execute("PUBLISH", channel, now[0] + now[1].rjust(6, b"0"))
        )

    def publish_atomically(
        self, channels: Sequence[bytes], message: bytes, expire: int
    ) -> Deferred[list[Any]]:
        parts = list(scripts.portions(channels))

        def judge(answers: list[Any]) -> list[Any] | Deferred[list[Any]]:
            outcomes: list[Any] = []
            refused: list[bytes] = []
            for part, answer in zip(parts, answers, strict=True):
                if isinstance(answer, list):
                    outcomes += map(self.understood, answer)
                elif refuses_scripts(answer):
                    refused += part
                    self.note_no_scripts(str(answer.__cause__))
                else:
                    outcomes.append(answer)
            if not refused:
                return outcomes
            return (
                self.publish_plainly(refused, message, expire)
                .addErrback(lambda failure: [failure.value])
                .addCallback(lambda more: outcomes + more)
            )

        commands = [scripts.atomic_command(self.prefix, part, message, expire) for part in parts]
        return self.ask(commands, scripts.atomic_answer_fits).addCallback(judge)

    def publish_plainly(
        self, channels: Sequence[bytes], message: bytes, expire: int
    ) -> Deferred[list[Any]]:
        return self.ask(
            scripts.plain_commands(channels, message, expire), scripts.plain_answer_fits
        )

    @inlineCallbacks
    def _prepare(self, protocol: CommandProtocol) -> Any:
        """Find out what Redis refuses before the first message. Fail if that is everything.

        A script that is refused later costs the order of the messages.
        """
        try:
            yield protocol.execute_command("EVAL", b"return redis.call('TIME')", 0)
            self.scripts_permitted = True
        except ResponseError as error:
            if concerns_server(error):
                raise
            self.note_no_scripts(str(error))
        stamp = stamp_key(self.prefix, b"")
        try:
            # Two keys: a cluster has them in different places, and does not read them together.
            yield protocol.execute_command("MGET", stamp + b"a", stamp + b"b")
        except ResponseError as error:
            if concerns_server(error):
                raise

    def note_no_scripts(self, why: str) -> None:
        if self.scripts_permitted:
            self.scripts_permitted = False
            _log.warn(
                "Redis does not permit scripts ({why}): messages are persisted and published in "
                "two steps, not atomically. Grant +eval to this user, and do not rename or disable "
                "EVAL or the commands that the script calls, to mend it.",
                why=why,
            )

    def read(self, *command: Any, count: int) -> Deferred[list[Any]]:
        """Fire with ``count`` values, each bytes or ``None``."""
        return self.execute(
            *command,
            fits=lambda answer: (
                isinstance(answer, list)
                and len(answer) == count
                and all(value is None or isinstance(value, bytes) for value in answer)
            ),
        )

    def execute(
        self, *command: Any, fits: Callable[[Any], bool] = lambda answer: True
    ) -> Deferred[Any]:
        """Fire with the answer to one command."""

        def judge(answers: list[Any]) -> Any:
            (answer,) = answers
            if isinstance(answer, BrokerRefused):
                raise answer
            return answer

        return self.ask([command], lambda _, answer: fits(answer)).addCallback(judge)

    def ask(
        self, commands: Sequence[Command], fits: Callable[[Command, Any], bool]
    ) -> Deferred[list[Any]]:
        """Fire with an answer to each command: one that ``fits``, or a ``BrokerRefused``."""

        def judge(answers: list[Any]) -> list[Any]:
            self._outstanding.discard(asked)
            understood = list(map(self.understood, answers))
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

    def understood(self, answer: Any) -> Any:
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
