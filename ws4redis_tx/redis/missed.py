"""Reads what was missed from the histories of many channels, for all who ask in one turn together.

Each channel is read once, from the earliest position that somebody asks about. A script reads it at
one moment, and looks at its position first: most often nothing was missed. Whatever does
not fit into its answer is read by further scripts, up to the moment of the first one; if something
was trimmed meanwhile, that is a gap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.python.failure import Failure

from ws4redis_tx.core.names import data_set_keys, facility_of, with_history
from ws4redis_tx.core.positions import (
    HistoryRules,
    Missed,
    Position,
    history_of,
    position,
    read_position,
)
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.history.channels import (
    COLUMNS,
    ChannelHistory,
    Question,
    find_missed,
    make_missed,
)
from ws4redis_tx.redis.history.publishing import VERSION, position_fits
from ws4redis_tx.redis.history.reading import READ_MISSED, READ_PERSISTED
from ws4redis_tx.redis.scripts import portions
from ws4redis_tx.redis.wire.protocol import LOST
from ws4redis_tx.redis.wire.refusals import refuses_scripts

MOST_READS = 4
"""So many are under way at once; those who ask meanwhile share the next one. Else many who ask one
after another would each have a copy of the same messages.
"""

ANSWER_BYTES = 256 * 1024
"""An answer ends with the entry with which it exceeds so many bytes."""


class MissedMessages:
    """Answers the questions of ``IHistory.missed`` over the connection of ``commands``."""

    def __init__(self, commands: Commands, rules: HistoryRules, reactor: Any) -> None:
        self.commands = commands
        self._rules = rules
        self.keeps_history = bool(rules)
        self._reactor = reactor
        self._questions: list[Question] = []
        self._reads = 0  # that are under way

    def ask(
        self,
        channels: Sequence[bytes],
        since: Position | None,
        *,
        persisted: bool = False,
        replayed: bool = True,
    ) -> Deferred[Missed]:
        """As ``IHistory.missed``."""
        if not self._questions:
            self._reactor.callLater(0, self._read)
        question = Question(channels, since, persisted, replayed, Deferred())
        self._questions.append(question)
        return question.answer

    @inlineCallbacks
    def now(self) -> Any:
        """As ``IHistory.now``. Without scripts there is no history, and positions are good for
        nothing but to be told so.
        """
        found = read_position((yield self.commands.position()))
        if found is None:
            seconds, micros = yield self.commands.read("TIME", count=2)
            found = Position(int(seconds) * 1_000_000 + int(micros), 0)
        return found

    def _read(self) -> None:
        if not self._questions or self._reads == MOST_READS:
            return
        questions, self._questions = self._questions, []
        self._reads += 1
        answered: Deferred[Any] = self._answer(questions)
        answered.addErrback(self._without_scripts, questions).addErrback(_fail, questions)
        answered.addBoth(self._done)

    def _done(self, _: object) -> None:
        self._reads -= 1
        if self._questions:
            self._reactor.callLater(0, self._read)

    @inlineCallbacks
    def _without_scripts(self, failure: Failure, questions: Sequence[Question]) -> Any:
        """A gap for everybody, and what is persisted."""
        if not refuses_scripts(failure.value):
            failure.raiseException()
        until = yield self.now()
        channels = list(dict.fromkeys(each for question in questions for each in question.channels))
        messages = yield self.commands.get(channels)
        persisted = {each.channel: (bytes(each), 0) for each in messages if each is not None}
        for question in questions:
            gaps = question.channels
            question.answer.callback(make_missed(question, [], gaps, persisted, until, 0))

    @inlineCallbacks
    def _answer(self, questions: Sequence[Question]) -> Any:
        wanted: dict[bytes, list[int]] = {}
        for question in questions:
            if question.since is not None:
                for channel in question.channels:
                    wanted.setdefault(channel, []).append(question.since.stamp)
        now, birth, found = yield self._find(wanted)
        answers = [find_missed(each, now, birth, found) for each in questions]
        asked = dict.fromkeys(
            channel
            for question, (_, gaps) in zip(questions, answers, strict=True)
            for channel in (question.channels if question.persisted else gaps)
        )
        persisted = yield self._read_persisted(list(asked))
        until = position(now, birth)
        for question, (messages, gaps) in zip(questions, answers, strict=True):
            question.answer.callback(make_missed(question, messages, gaps, persisted, until, birth))

    @inlineCallbacks
    def _find(self, wanted: Mapping[bytes, Sequence[int]]) -> Any:
        """Read all channels. Fire with the stamp of the moment, that of the data set's beginning,
        and a ``ChannelHistory`` for each channel.
        """
        found = {channel: ChannelHistory(min(stamps)) for channel, stamps in wanted.items()}
        unread = {channel: each.since for channel, each in found.items()}
        now = birth = 0
        while unread or not now:
            cut_off: dict[bytes, int] = {}
            for part in list(portions(list(unread))) or [()]:
                answer = yield self._ask(part, unread, wanted)
                if birth and int(answer[1]) != birth:
                    raise LOST("Redis was replaced meanwhile")
                now, birth = now or int(answer[0]), int(answer[1])
                for channel, row in zip(part, answer[2:], strict=True):
                    if found[channel].add(*row):
                        after = found[channel].latest(unread[channel])
                        if after < now:
                            cut_off[channel] = after
            unread = cut_off
        for each in found.values():  # what is later comes over pub/sub
            each.entries = [entry for entry in each.entries if entry.stamp <= now]
        return now, birth, found

    def _ask(
        self,
        part: Sequence[bytes],
        since: Mapping[bytes, int],
        wanted: Mapping[bytes, Sequence[int]],
    ) -> Deferred[Any]:
        keys = [*data_set_keys(self.commands.prefix), *with_history(self.commands.prefix, part)]
        arguments: list[int] = []
        for channel in part:
            kept = history_of(self._rules, facility_of(self.commands.prefix, channel) or "")
            size = 0 if kept is None else kept.size
            arguments += (since[channel], size, int(len(set(wanted[channel])) == 1))
        command = ("EVAL", READ_MISSED, len(keys), *keys, ANSWER_BYTES, VERSION, *arguments)
        return self.commands.execute(*command, fits=_fits(len(part)))

    @inlineCallbacks
    def _read_persisted(self, channels: Sequence[bytes]) -> Any:
        """Fire with the persisted message of each channel that has one, and its stamp."""
        found: dict[bytes, tuple[bytes, int]] = {}
        for part in portions(channels):
            keys = with_history(self.commands.prefix, part)
            values = yield self.commands.read(
                "EVAL", READ_PERSISTED, len(keys), *keys, count=2 * len(part)
            )
            for channel, message, stamp in zip(part, values[::2], values[1::2], strict=True):
                if message is not None:
                    found[channel] = message, int(stamp)
        return found


def _fail(failure: Failure, questions: Sequence[Question]) -> None:
    for each in questions:
        each.answer.errback(failure)


def _fits(channels: int) -> Callable[[Any], bool]:
    def fits(answer: Any) -> bool:
        return (
            isinstance(answer, list)
            and len(answer) == 2 + channels
            and position_fits(answer)
            and all(isinstance(row, list) and len(row) >= COLUMNS for row in answer[2:])
        )

    return fits
