"""A log that blocks, and Redis that goes away meanwhile: nothing is lost and nobody waits."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import TIMEOUT
from tests.support.clients import open_websocket
from tests.support.django import environment
from tests.support.programs import twistd
from tests.support.redis import RedisServer
from ws4redis_tx.redis.scripts import PUBLISH

NOISY = "--settings=tests.projects.django_project.noisy"
# As many handshakes write 3 MB: the pipe takes 64 KiB, and 1 MiB may wait.
CLIENTS = 30
MESSAGES = 20


class BlockedLogTests(TestCase):
    timeout = 120

    def setUp(self) -> None:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            channel = "broadcast:f"
            self.redis.command("EVAL", PUBLISH, 2, channel, f"at:{channel}", number, 60)

    @inlineCallbacks
    def assert_nothing_is_lost(self, workers: int) -> Any:
        redis = f"--redis={self.redis.address}"
        program = twistd(
            *(redis, NOISY, "--listen=tcp:0:interface=127.0.0.1", "--drain=0"),
            f"--workers={workers}",
            **environment(),
        )
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"process#info\] Ready: .* ws://127.0.0.1:(\d+)/")
        url = f"ws://127.0.0.1:{ready.group(1)}/ws/f?subscribe-broadcast"
        self.redis.command("DEL", "broadcast:f")
        program.transport.pauseProducing()
        clients = []
        for _ in range(CLIENTS):
            clients.append((yield open_websocket(url).addTimeout(TIMEOUT, reactor)))
        for number in range(MESSAGES):
            if number % 5 == 4:
                self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
            self.publish(number)
            for client in clients:
                text = yield client.next().addTimeout(TIMEOUT, reactor)
                self.assertEqual(text, str(number))
        for client in clients:
            client.sendClose(1000)
        codes = yield gatherResults([client.closed for client in clients])
        self.assertEqual(set(codes), {1000})
        program.transport.resumeProducing()
        yield program.wait_for(r"[1-9]\d* log lines were dropped")
        yield program.signal_and_wait("TERM")
        self.assertNotIn("Traceback", program.printed)

    def test_of_one_process(self) -> Any:
        return self.assert_nothing_is_lost(1)

    def test_of_two_workers(self) -> Any:
        return self.assert_nothing_is_lost(2)
