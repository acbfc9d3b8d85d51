"""The commands of histories, positions and idempotency keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.messages import Published
from ws4redis_tx.core.names import with_history
from ws4redis_tx.core.positions import LONGEST_MEMORY, Kept, Position, read_position
from ws4redis_tx.redis import scripts
from ws4redis_tx.redis.history.publishing import (
    FORGET,
    kept_answer_fits,
    kept_command,
    position_command,
    position_fits,
    position_in,
)
from ws4redis_tx.redis.history.streams import stream_at, stream_at_command, stream_at_fits
from ws4redis_tx.redis.wire.protocol import Command
from ws4redis_tx.redis.wire.refusals import refuses_scripts

_log = Logger()


class KeptCommands:
    """A part of ``Commands``, which asks Redis."""

    prefix: str
    scripts_permitted: bool
    ask: Callable[..., Deferred[list[Any]]]
    execute: Callable[..., Deferred[Any]]
    understood: Callable[[Any], Any]
    publish_atomically: Callable[..., Deferred[list[Any]]]
    publish_plainly: Callable[..., Deferred[list[Any]]]

    _keeps_history = True  # as far as is known

    @inlineCallbacks
    def publish_and_keep(
        self, channels: Sequence[bytes], message: bytes, expire: int, kept: Kept
    ) -> Any:
        parts = list(scripts.portions(channels))
        commands = [kept_command(self.prefix, part, message, expire, kept) for part in parts]
        answers = yield self.ask(commands, kept_answer_fits)
        outcomes: list[Any] = []
        refused: list[bytes] = []
        position = ""
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, list):
                outcomes += map(self.understood, answer[2:])
                position = position_in(answer)
            elif kept.once or not refuses_scripts(answer):
                outcomes.append(answer)
            else:
                refused += part
                self.note_no_history(str(answer.__cause__))
        if refused:
            publish = self.publish_atomically if expire else self.publish_plainly
            more = yield publish(refused, message, expire).addErrback(
                lambda failure: [failure.value]
            )
            outcomes += more
        return Published(scripts.receivers(outcomes), position)

    def note_no_history(self, why: str) -> None:
        if self._keeps_history:
            self._keeps_history = False
            _log.warn(
                "Redis lets this user keep no history ({why}): messages are published without one, "
                "and a client that comes back is told of a gap. Grant the permissions that "
                "docs/security.md lists to mend it.",
                why=why,
            )

    @inlineCallbacks
    def warn_of_eviction(self) -> Any:
        """A channel of which Redis has evicted everything looks like one without a message."""
        try:
            answer = yield self.execute("INFO", "memory", fits=lambda each: isinstance(each, bytes))
        except BrokerUnavailable:
            return  # or it does not tell this user
        told = dict(line.split(b":", 1) for line in answer.splitlines() if b":" in line)
        policy = told.get(b"maxmemory_policy", b"noeviction").decode(errors="replace")
        if told.get(b"maxmemory", b"0") != b"0" and policy != "noeviction":
            _log.warn(
                "Redis may evict histories (maxmemory-policy {policy}). A client that comes back "
                "is then not always told that it has missed something. Set maxmemory-policy to "
                "noeviction to mend it.",
                policy=policy,
            )

    def forget(self, channels: Sequence[bytes]) -> Deferred[Any]:
        """Delete what is persisted and kept of the channels. Their count of messages goes on."""
        commands: list[Command] = []
        for part in scripts.portions(channels):
            keys = with_history(self.prefix, part)
            if self.scripts_permitted:
                commands.append(("EVAL", FORGET, len(keys), *keys, LONGEST_MEMORY))
            else:
                commands.append(("DEL", *keys[::4], *keys[1::4], *keys[3::4]))
        return self.ask(commands, lambda _, answer: type(answer) is int).addCallback(
            scripts.receivers
        )

    def position(
        self, began: float | None = None, *, seen: Position | None = None, heard: int = 0
    ) -> Deferred[str]:
        """The position of the present, or of the moment when ``time.monotonic()`` was ``began``;
        ``""`` where no history can be kept.

        If Redis has less than the position ``seen``, or than the message with the stamp ``heard``,
        all earlier positions are good for nothing from now on.
        """
        if not self.scripts_permitted:
            return succeed("")
        asked = self.execute(*position_command(self.prefix, seen, heard), fits=position_fits)
        # The age is known when the answer is there: asking takes time as well.
        return asked.addCallbacks(
            lambda answer: position_in(answer, 0.0 if began is None else monotonic() - began),
            self._no_position,
        )

    @inlineCallbacks
    def stream_position(self, channel: bytes, began: float | None = None) -> Any:
        """The number of the channel's last message at that moment, and the epoch of its stream;
        ``()`` where no history can be kept.
        """
        position = yield self.position(began)
        found = read_position(position)
        return () if found is None else (yield self.stream_at(channel, found))

    @inlineCallbacks
    def stream_at(self, channel: bytes, position: Position) -> Any:
        command = stream_at_command(self.prefix, channel, position.stamp)
        answer = yield self.execute(*command, fits=stream_at_fits)
        return stream_at(channel, answer)

    def _no_position(self, failure: Failure) -> str:
        if not refuses_scripts(failure.value):
            failure.raiseException()
        return ""
