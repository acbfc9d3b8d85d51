"""``twistd ws4redis --workers 2``: a POST reaches its stream, whichever process has it."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import PATIENCE, TIMEOUT
from tests.support.exchanges import emulated, open_stream, post
from tests.support.programs import children, twistd
from tests.support.redis import RedisServer

MANY = 40


class WorkersTests(TestCase):
    timeout = 300

    @inlineCallbacks
    def setUp(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        self.twistd = twistd(
            "--workers=2", "--listen=tcp:0:interface=127.0.0.1",
            DJANGO_SETTINGS_MODULE="tests.projects.centrifuge.settings",
            WS4REDIS_CONNECTION=str(redis.address),
        )  # fmt: skip
        self.addCleanup(self.twistd.end)
        self.twistd.patience = PATIENCE
        ready = yield self.twistd.wait_for(r"Ready: .*ws://127\.0\.0\.1:(\d+)/")
        self.port = int(ready[1])

    @inlineCallbacks
    def streams(self) -> Any:
        """Fire with a stream of each process."""
        found: dict[str, Any] = {}
        while len(found) < 2:
            stream, said = yield open_stream(self.port)
            self.addCleanup(stream.transport.abortConnection)
            found[said["node"]] = stream, said
        return list(found.values())

    @inlineCallbacks
    def test_all_posts_arrive(self) -> Any:
        for stream, said in (yield self.streams()):
            for number in range(2, MANY):
                command = b'{"id":%d,"unsubscribe":{"channel":"broadcast:plain-x"}}' % number
                self.assertEqual((yield post(self.port, emulated(said, command))), 204)
                self.assertEqual((yield stream.message()), {"id": number, "unsubscribe": {}})

    @inlineCallbacks
    def test_each_post_is_answered_though_the_process_is_frozen_or_dead(self) -> Any:
        """Fault 14."""
        streams = yield self.streams()
        frozen, _ = sorted(children(self.twistd.pid))[-2:]
        os.kill(frozen, signal.SIGSTOP)
        self.addCleanup(self._end, frozen)
        dead = []
        for stream, said in streams:
            statuses = set()
            for _ in range(3):
                statuses.add((yield post(self.port, emulated(said, b'{"id":2}'))))
            self.assertEqual(len(statuses), 1)
            if statuses == {404}:
                dead.append((stream, said))
        self.assertEqual(len(dead), 1)
        os.kill(frozen, signal.SIGKILL)
        [(stream, said)] = dead
        yield stream.ended.addTimeout(TIMEOUT, reactor)
        self.assertEqual((yield post(self.port, emulated(said, b"{}"))), 404)

    def _end(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
