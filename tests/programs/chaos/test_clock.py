"""The system clock is set back and forward by an hour under a real ``twistd ws4redis``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from datetime import datetime
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import CLOSE, Wire, exchange, open_websocket
from tests.support.clocks import SteppingClock
from tests.support.django import SETTINGS, cookies_of, environment, in_thread, log_in
from tests.support.programs import Program, children, twistd
from tests.support.redis import RedisServer
from tests.support.sizes import FULL
from tests.support.wires import handshake_bytes
from ws4redis_tx.sessions.server import PING_INTERVAL, PING_TIMEOUT
from ws4redis_tx.twistd.embedded_redis import free_port

HOUR = 3600
HEAD = handshake_bytes("/ws/foobar")


class SteppedServer(TestCase):
    timeout = 120

    @inlineCallbacks
    def start(self, *options: str, **variables: str) -> Any:
        """Start a server and its Redis, whose clock the test steps."""
        self.clock = SteppingClock(self)
        self.program = twistd(
            "--listen=tcp:0:interface=127.0.0.1", "--embedded-redis", *options,
            **self.clock.environment, **variables,
        )  # fmt: skip
        self.addCleanup(self.program.end)
        ready = yield self.program.wait_for(r"Ready: websockets at (ws://\S+:(\d+)/ws/)")
        self.url, self.port = ready[1], int(ready[2])

    def signal_redis(self, number: signal.Signals) -> None:
        (redis,) = [pid for pid in children(self.program.pid) if not children(pid)]
        os.kill(redis, number)

    def freeze_redis(self) -> None:
        self.signal_redis(signal.SIGSTOP)
        self.addCleanup(self.thaw_redis)  # a frozen process cannot be terminated

    def thaw_redis(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.signal_redis(signal.SIGCONT)

    def connect(self) -> Any:
        """Fire with a connection on which nothing was sent."""
        return connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", self.port), Wire())

    @inlineCallbacks
    def open(self, path: str, **options: Any) -> Any:
        client = yield open_websocket(self.url + path, **options)
        self.addCleanup(self.close, client)
        return client

    def close(self, client: Any) -> Any:
        client.sendClose(1000)
        return client.closed


class SetBackTests(SteppedServer):
    @inlineCallbacks
    def test_heads_heartbeats_rechecks_a_frozen_redis_and_retries_keep_their_times(self) -> Any:
        yield self.start(
            "--heartbeat=beat", "--recheck=1", f"--settings={SETTINGS}", **environment()
        )
        browser = yield log_in("john")
        half_sent = exchange(self.port, HEAD[:-2])
        client = yield self.open("foobar?subscribe-user", cookies=cookies_of(browser))
        self.assertEqual((yield client.next()), "beat")
        self.freeze_redis()
        self.clock.step(-HOUR)
        self.assertEqual((yield half_sent), b"")
        self.assertEqual((yield client.take(2)), ["beat", "beat"])
        yield in_thread(browser.session.delete)
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), 1008)
        yield self.program.wait_for("Redis is unavailable")
        self.clock.step(-HOUR)
        self.thaw_redis()
        yield self.program.wait_for("Redis is available again")
        yield self.open("foobar?subscribe-broadcast")


class SetForwardTests(SteppedServer):
    @inlineCallbacks
    def test_a_head_and_a_message_that_are_under_way_have_all_their_time(self) -> Any:
        yield self.start(f"--settings={SETTINGS}", **environment())
        cookies = cookies_of((yield log_in("john")))
        listener = yield self.open("foobar?subscribe-user", cookies=cookies)
        speaker = yield self.open("foobar?publish-user", cookies=cookies)
        wire = yield self.connect()
        wire.transport.write(HEAD[:-2])
        self.freeze_redis()
        speaker.sendMessage(b"hi")
        yield self.turn()
        self.clock.step(HOUR)
        yield self.turn()
        wire.transport.write(HEAD[-2:])
        yield wire.opened.addTimeout(TIMEOUT, reactor)
        wire.transport.write(CLOSE)
        yield wire.ended.addTimeout(TIMEOUT, reactor)
        self.assertFalse(speaker.closed.called)
        self.thaw_redis()
        self.assertEqual((yield listener.next()), "hi")

    @inlineCallbacks
    def turn(self) -> Any:
        """Fire when the server has read all that was sent before, and looked at its timers."""
        for _ in range(2):
            client = yield self.open("foobar")
            client.sendClose(1000)
            yield client.closed


class LogTests(SteppedServer):
    @inlineCallbacks
    def test_requests_are_logged_with_the_time_of_day(self) -> Any:
        yield self.start(f"--settings={SETTINGS}", "--serve-django", **environment())
        for step in (-HOUR, 2 * HOUR):
            self.clock.step(step)
            head = "HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close"
            yield exchange(self.port, f"GET /page{step}/ {head}\r\n\r\n".encode())
            found = yield self.program.wait_for(rf"(?m)^(\S+) .* 'GET' '/page{step}/' from ")
            logged = datetime.fromisoformat(found[1]).timestamp()
            self.assertLess(abs(time.time() + self.clock.stepped - logged), HOUR / 2)


class PublisherTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_a_publisher_comes_back_to_redis_although_the_clock_was_set_back(self) -> Any:
        clock, port = SteppingClock(self), free_port()
        program = Program(
            *(sys.executable, "-c", KEEP_PUBLISHING, f"redis://127.0.0.1:{port}"),
            **clock.environment,
        )
        self.addCleanup(program.end)
        yield program.wait_for("Redis cannot be reached")
        clock.step(-HOUR)
        redis = yield deferToThread(RedisServer, port=port)
        self.addCleanup(redis.stop)
        yield program.wait_for("published to 0")


KEEP_PUBLISHING = """
import sys

import django
from django.conf import settings

settings.configure(WS4REDIS_CONNECTION=sys.argv[1])
django.setup()

from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.publisher import RedisPublisher

publisher = RedisPublisher(facility="foobar", broadcast=True)
while True:
    try:
        print(f"published to {publisher.publish_message('hi')}")
        break
    except BrokerUnavailable as error:  # when an attempt to connect has failed, or after 5 s
        print(error)
"""


class EmbeddingTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_the_timers_of_an_application_that_asks_for_it_keep_their_times(self) -> Any:
        clock = SteppingClock(self)
        program = Program(sys.executable, "-c", EMBEDDING, **clock.environment)
        self.addCleanup(program.end)
        yield program.wait_for("set")
        clock.step(-HOUR)
        yield program.wait_for("called")


EMBEDDING = """
from twisted.internet import reactor
from ws4redis_tx.service import use_monotonic_clock

use_monotonic_clock()
reactor.callWhenRunning(print, "set")
reactor.callLater(1, print, "called")
reactor.run()
"""


@skipUnless(FULL, "make test-all runs this one")
class LongTests(SteppedServer):
    @inlineCallbacks
    def test_a_client_that_answers_no_ping_is_dropped(self) -> Any:
        yield self.start()
        wire = yield self.connect()
        wire.transport.write(HEAD)
        yield wire.opened.addTimeout(TIMEOUT, reactor)
        self.clock.step(-HOUR)
        yield wire.ended.addTimeout(PING_INTERVAL + PING_TIMEOUT + TIMEOUT, reactor)

    @inlineCallbacks
    def test_workers_keep_their_times_and_those_that_ended_are_restarted(self) -> Any:
        yield self.start("--workers=2", "--heartbeat=beat")
        clients = []
        for _ in range(8):
            clients.append((yield self.open("foobar")))
        half_sent = [exchange(self.port, HEAD[:-2]) for _ in range(8)]
        for client in clients:
            self.assertEqual((yield client.next()), "beat")
        self.clock.step(-HOUR)
        self.assertEqual((yield gatherResults(half_sent)), [b""] * 8)
        for client in clients:
            self.assertEqual((yield client.next()), "beat")
        # One that ran for a while is restarted at once, and one that did not after a second.
        process = r"\[worker 1\] Process (\d+)"
        for count, restart in enumerate((r"restarted\.", r"restarted in 1 s"), start=1):
            pid = re.findall(process, self.program.printed)[-1]
            os.kill(int(pid), signal.SIGKILL)
            yield self.program.wait_for(rf"\[worker 1\] It has ended .* {restart}")
            self.clock.step(-HOUR)
            yield self.program.wait_for(rf"(?s:(?:{process}.*){{{count + 1}}})")
