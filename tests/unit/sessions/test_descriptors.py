"""The last file descriptors are kept for answers, and for the process itself."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

from twisted.internet import reactor, tcp
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.errors import Denied
from ws4redis_tx.sessions.descriptors import Descriptors


class DescriptorTests(SynchronousTestCase):
    def setUp(self) -> None:
        # Of so many, 40 are kept for answers and 20 for the process.
        self.limit: int | None = 160
        self.below: list[int] = []
        while not self.below or self.below[-1] < 99:
            self.below += self.open(1)
        self.assertEqual(self.below[-1], 99)
        self.descriptors = Descriptors(reactor.seconds, lambda: self.limit)

    def open(self, number: int) -> list[int]:
        opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(number)]
        for each in opened:
            self.addCleanup(self.close, each)
        return opened

    def close(self, descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def transport(self) -> Any:
        ours, theirs = socket.socketpair()
        for each in ours, theirs:
            self.addCleanup(each.close)
        return tcp.Connection(ours, Protocol(), reactor)

    def test_a_connection_with_one_of_the_last_gets_503(self) -> None:
        error = self.assertRaises(Denied, self.descriptors.check, self.transport())
        self.assertEqual(error.status, 503)
        self.assertEqual([name for name, _ in error.headers], ["Retry-After"])

    def test_any_other_does_not(self) -> None:
        self.limit = 170
        self.descriptors.check(self.transport())
        self.limit = None
        self.descriptors.check(self.transport())

    def test_a_connection_without_a_descriptor_has_none_of_them(self) -> None:
        self.descriptors.check(object())

    def test_each_that_is_used_leaves_less_room(self) -> None:
        self.assertEqual(self.descriptors.room(), 40)
        kept = self.open(30)
        self.assertEqual(self.descriptors.room(), 10)
        self.close(kept[0])  # the lowest number that is free says nothing about the others
        self.assertEqual(self.descriptors.room(), 11)
        self.open(11)
        self.assertLess(self.descriptors.room(), 0)

    def test_one_that_is_free_below_them_does_not_hide_that_they_are_used(self) -> None:
        self.open(30)
        self.assertEqual(self.descriptors.room(), 10)
        for each in self.below[:10]:
            self.close(each)
        self.assertEqual(self.descriptors.room(), 10)

    def test_without_a_limit_there_is_room(self) -> None:
        self.open(100)
        self.limit = None
        self.assertGreater(self.descriptors.room(), 0)
