"""``--serve-django``: pages while Redis starts, while others stream, and at the end."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import Stream, exchange, get
from tests.support.programs import twistd
from tests.support.wires import status_of
from ws4redis_tx.twistd.embedded_redis import free_port


class SiteTests(TestCase):
    timeout = 120

    def serve(self, *options: str) -> Any:
        self.port = free_port()
        program = twistd(
            "--serve-django",
            "--settings=tests.projects.served_site",
            "--embedded-redis",
            f"--listen=tcp:{self.port}:interface=127.0.0.1",
            *options,
        )
        self.addCleanup(program.end)
        return program

    @inlineCallbacks
    def open(self, path: str) -> Any:
        """Fire when a request that never ends has been sent."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)
        browser = yield connectProtocol(endpoint, Stream())
        browser.transport.write(get(path))
        self.addCleanup(lambda: browser.ended)
        self.addCleanup(browser.transport.abortConnection)
        return browser

    @inlineCallbacks
    def page(self, path: str = "/") -> Any:
        answer = yield exchange(self.port, get(path))
        self.assertEqual(status_of(answer), 200, answer)
        return answer

    @inlineCallbacks
    def test_a_view_that_publishes_while_redis_starts_waits_for_it(self) -> Any:
        program = self.serve()
        yield program.wait_for("starting on")
        self.assertIn(b"published", (yield self.page("/publish")))

    @inlineCallbacks
    def test_streaming_responses_leave_threads_for_pages_and_end_with_the_process(self) -> Any:
        program = self.serve("--drain=1")
        yield program.wait_for("Ready: ")
        streams = yield gatherResults([self.open("/stream") for _ in range(30)])
        for each in streams:
            yield each.begun.addTimeout(TIMEOUT, reactor)
        yield self.page()
        yield self.open("/hang")
        yield program.signal_and_wait("INT")
        self.assertIn("Server Shut Down", program.printed)
        self.assertNotIn("Traceback", program.printed)

    @inlineCallbacks
    def test_a_second_signal_ends_it_at_once(self) -> Any:
        program = self.serve("--drain=60")
        yield program.wait_for("Ready: ")
        stream = yield self.open("/stream")
        yield stream.begun.addTimeout(TIMEOUT, reactor)
        program.transport.signalProcess("INT")
        yield program.wait_for(r"Port \d+ Closed")
        yield program.signal_and_wait("INT")
        self.assertIn("Server Shut Down", program.printed)
