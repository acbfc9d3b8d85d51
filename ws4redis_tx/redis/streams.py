"""Reads streams for all who ask in one turn together, each channel once."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks

from ws4redis_tx.core.positions import Stream, Wanted
from ws4redis_tx.redis.commands import Commands
from ws4redis_tx.redis.history.streams import read_streams, streams_command, streams_fit
from ws4redis_tx.redis.scripts import portions


class Streams:
    """Answers over the connection of ``commands``."""

    def __init__(self, commands: Commands, reactor: Any) -> None:
        self._commands = commands
        self._reactor = reactor
        self._asked: dict[bytes, tuple[Wanted, list[Deferred[Stream]]]] = {}

    def ask(self, wanted: Wanted) -> Deferred[Stream]:
        """Fire with the stream of a channel, with everything behind ``wanted.after`` at least.
        Fails with ``BrokerUnavailable``.
        """
        if not self._asked:
            self._reactor.callLater(0, self._read)
        answer: Deferred[Stream] = Deferred()
        earlier, waiting = self._asked.get(wanted.channel, (wanted, []))
        if earlier.after < wanted.after:
            wanted = earlier
        self._asked[wanted.channel] = wanted, [*waiting, answer]
        return answer

    @inlineCallbacks
    def read(self, *wanted: Wanted) -> Any:
        """Fire with a ``Stream`` for each, all of the same moment."""
        command = streams_command(self._commands.prefix, wanted)
        answer = yield self._commands.execute(*command, fits=partial(streams_fit, wanted))
        return read_streams(wanted, answer)

    def _read(self) -> None:
        asked, self._asked = self._asked, {}
        for part in portions(list(asked)):
            questions = [asked[channel] for channel in part]
            read: Deferred[Any] = self.read(*[wanted for wanted, _ in questions])
            waiting = [answers for _, answers in questions]
            read.addCallbacks(_fire, _fail, callbackArgs=(waiting,), errbackArgs=(waiting,))


def _fire(streams: list[Stream], waiting: list[list[Deferred[Stream]]]) -> None:
    for stream, answers in zip(streams, waiting, strict=True):
        for each in answers:
            each.callback(stream)


def _fail(failure: Any, waiting: list[list[Deferred[Stream]]]) -> None:
    for answers in waiting:
        for each in answers:
            each.errback(failure)
