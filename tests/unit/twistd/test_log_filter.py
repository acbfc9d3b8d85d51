"""The lines of Twisted and Autobahn that a client can cause are summed up."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.scheduling.summaries import DIFFERENT, PERIOD
from ws4redis_tx.twistd import log_filter
from ws4redis_tx.twistd.log_filter import SummingObserver


class FilterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lines: list[str] = []
        self.observer = SummingObserver(
            lambda event: self.lines.append(formatEvent(event)), self.clock
        )
        self.in_reactor = True
        self.patch(log_filter, "isInIOThread", lambda: self.in_reactor)
        globalLogPublisher.addObserver(self.observer)
        self.addCleanup(globalLogPublisher.removeObserver, self.observer)

    def log(self, namespace: str, text: str, **fields: Any) -> None:
        event = {"log_namespace": namespace, "log_level": LogLevel.info, "log_format": text}
        self.observer({**event, **fields})

    def failure(self, text: str = "It failed") -> Failure:
        try:
            raise ValueError(text)
        except ValueError:
            return Failure()

    def test_connections_without_a_descriptor_make_few_lines(self) -> None:
        for _ in range(100):
            self.log("twisted.internet.tcp.Port", "EMFILE encountered")
        self.assertEqual(self.lines, ["EMFILE encountered"])
        self.clock.advance(PERIOD)
        sums = ["99 more like this in the last minute: EMFILE encountered"]
        self.assertEqual(self.lines[1:], sums)

    def test_lines_with_an_address_of_a_client_too(self) -> None:
        for number in range(100):
            self.log("twisted.web.http.HTTPChannel", "Timing out client: {peer}", peer=number)
        self.assertEqual(len(self.lines), DIFFERENT)

    def test_a_failure_in_one_place_has_one_traceback(self) -> None:
        for namespace in "log_legacy", "twisted.internet.defer", "ws4redis_tx.redis.dispatcher":
            self.lines.clear()
            for number in range(10):
                self.log(namespace, "Unhandled", log_failure=self.failure(f"number {number}"))
            self.assertEqual(self.lines, ["Unhandled"])
        self.clock.advance(PERIOD)
        self.assertIn("9 more like this in the last minute: Unhandled (number 0)", self.lines)

    def test_an_applications_own_lines_are_left_alone(self) -> None:
        for namespace in "stdout", "stderr", "mysite.views", "twisted.web.wsgi._ErrorStream":
            for _ in range(10):
                self.log(namespace, "hello")
            self.assertEqual(len(self.lines), 10)
            self.lines.clear()

    def test_so_are_those_of_other_threads_and_those_that_a_worker_has_summed_up(self) -> None:
        for number in range(10):
            self.log("twisted.some.where", "[{name}]", name=number, passed_on=True)
        self.in_reactor = False
        for _ in range(10):
            self.log("twisted.some.where", "hello")
        self.assertEqual(len(self.lines), 20)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_error_is_not_taken_for_an_equal_line_that_is_none(self) -> None:
        self.log("twisted.some.where", "hello")
        self.log("twisted.some.where", "hello", log_level=LogLevel.critical)
        self.assertEqual(len(self.lines), 2)

    def test_the_end_logs_what_was_summed_up(self) -> None:
        for _ in range(3):
            self.log("twisted.some.where", "hello")
        self.observer.stop()
        self.assertEqual(self.lines[-1], "2 more like this in the last minute: hello")
        self.assertEqual(self.clock.getDelayedCalls(), [])
