"""Nobody reads the log of a real ``twistd ws4redis``, and meanwhile Redis goes away."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.clients import open_websocket
from tests.support.django import environment
from tests.support.programs import twistd
from tests.support.redis import RedisServer
from ws4redis_tx.redis import scripts

# Writes 100 kB for each handshake. A pipe takes 64 KiB, and the server keeps 1 MiB.
NOISY = "--settings=tests.projects.django_project.noisy"
HANDSHAKES = 30


class BlockedLogTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_an_outage_of_redis_passes_as_ever(self) -> Any:
        redis = RedisServer()
        self.addCleanup(lambda: redis.stop())
        program = twistd(
            f"--redis={redis.address}", "--listen=tcp:0:interface=127.0.0.1", "--drain=0", NOISY,
            **environment(),
        )  # fmt: skip
        self.addCleanup(program.end)
        ready = yield program.wait_for(r"Ready: websockets at (ws://\S+/ws/)")
        url = f"{ready[1]}foobar?subscribe-broadcast"
        program.transport.pauseProducing()
        listener = yield open_websocket(url)
        for _ in range(HANDSHAKES):
            client = yield open_websocket(url)
            client.sendClose(1000)
            yield client.closed
        redis.stop()
        refused = False
        while not refused:
            try:
                client = yield open_websocket(url)
            except ConnectionError as error:
                self.assertIn("[503]", str(error))
                refused = True
            else:
                client.sendClose(1000)
                yield client.closed
        redis = yield deferToThread(RedisServer, port=redis.port)
        channel = "broadcast:foobar"
        redis.command("EVAL", scripts.PUBLISH, 2, channel, f"at:{channel}", "heard", 60)
        self.assertEqual((yield listener.next()), "heard")
        listener.sendClose(1000)
        yield listener.closed
        program.transport.resumeProducing()
        yield program.wait_for(r"[1-9]\d* log lines were dropped")
        yield program.signal_and_wait("TERM")
        self.assertNotIn("Traceback", program.printed)
