"""Reads of histories: one a channel for all who ask together, and few at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.positions import position
from ws4redis_tx.redis.missed import MOST_READS, MissedMessages

F, G = b"broadcast:f", b"broadcast:g"
BIRTH = 1000
NOW = 2000


class SlowCommands:
    """Answers when the test says so."""

    prefix = ""

    def __init__(self) -> None:
        self.asked: list[tuple[int, Deferred[Any]]] = []

    def execute(self, *command: Any, fits: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((int(command[2]), answer))
        return answer

    def answer(self) -> None:
        """Answer the first one: nothing was missed."""
        keys, answer = self.asked.pop(0)
        rows = [[b"0", 1, b"0", 0]] * ((keys - 2) // 4)
        answer.callback([b"%d" % NOW, b"%d" % BIRTH, *rows])


class ReadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.commands: Any = SlowCommands()
        self.clock = Clock()
        self.missed = MissedMessages(self.commands, (("*", 10, 60),), self.clock)
        self.answers: list[Deferred[Any]] = []

    def ask(self, *channels: bytes, since: int = 1500) -> None:
        self.answers.append(self.missed.ask(channels, position(since, BIRTH)))

    def answered(self) -> int:
        return sum(each.called for each in self.answers)

    def test_all_who_ask_in_one_turn_share_a_read(self) -> None:
        for number in range(1000):
            self.ask(F, G, since=1000 + number)
        self.clock.advance(0)
        self.assertEqual([keys for keys, _ in self.commands.asked], [2 + 2 * 4])
        self.commands.answer()
        self.assertEqual(self.answered(), 1000)

    def test_those_who_ask_while_there_are_enough_reads_share_the_next(self) -> None:
        for _ in range(1000):
            self.ask(F)
            self.clock.advance(0)
        self.assertEqual(len(self.commands.asked), MOST_READS)
        self.commands.answer()
        self.clock.advance(0)
        self.assertEqual((len(self.commands.asked), self.answered()), (MOST_READS, 1))
        while self.commands.asked:
            self.commands.answer()
            self.clock.advance(0)
        self.assertEqual(self.answered(), 1000)

    def test_a_read_that_fails_holds_up_nobody(self) -> None:
        for _ in range(MOST_READS + 1):
            self.ask(F)
            self.clock.advance(0)
        self.commands.asked.pop(0)[1].errback(BrokerUnavailable("lost"))
        self.failureResultOf(self.answers[0], BrokerUnavailable)
        self.clock.advance(0)
        while self.commands.asked:
            self.commands.answer()
            self.clock.advance(0)
        self.assertEqual(self.answered(), MOST_READS + 1)
        for each in self.answers[1:]:
            self.successResultOf(each)
