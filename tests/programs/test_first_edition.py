"""The first edition's server and publisher, from this repository's history, beside today's."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from typing import Any
from unittest import skipUnless

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import ROOT, TIMEOUT
from tests.support.clients import open_websocket
from tests.support.programs import TWISTD, Program
from tests.support.redis import RedisServer
from tests.support.sizes import FULL
from ws4redis_tx.core.positions import read_position
from ws4redis_tx.testing.wire import SUBPROTOCOL, Frame, read_frame

FIRST = "36d4564"
"""The last commit of the first edition."""

PUBLISH = """
import sys
from django.conf import settings
settings.configure(WS4REDIS_CONNECTION=sys.argv[1], WS4REDIS_HISTORY={"news": (100, 3600)})
import django
django.setup()
from ws4redis_tx.publisher import RedisPublisher
for message in sys.argv[2:]:
    print("published", RedisPublisher(facility="news", broadcast=True).publish_message(message))
"""


@cache
def first_edition() -> bytes:
    """Its files, as a tar archive. Skips the test where the repository's history is missing."""
    command = ["git", "archive", FIRST, "ws4redis_tx", "twisted"]
    if shutil.which("git") is None:
        raise SkipTest("git is not installed")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if done.returncode:
        raise SkipTest("this is no clone with the whole history of the repository")
    return done.stdout


class EditionsTestCase(TestCase):
    timeout = 120

    def setUp(self) -> None:
        archive = first_edition()
        self.old = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, self.old)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(self.old, filter="data")
        self.new = str(ROOT)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)

    @inlineCallbacks
    def start(self, edition: str) -> Any:
        """Fire with a server, at ``self.url``."""
        options = ["--listen=tcp:0:interface=127.0.0.1", f"--redis={self.redis.address}"]
        if edition == self.new:
            options.append("--history=news=100,3600")
        server = Program(
            *(TWISTD, "-n", "--pidfile=", "ws4redis", *options),
            folder=edition,
            PYTHONPATH=edition,
        )
        self.addCleanup(server.end)
        ready = yield server.wait_for(r"Ready: websockets at (ws://\S+?/ws/)")
        self.url = ready[1]
        return server

    @inlineCallbacks
    def publish(self, edition: str, *messages: str) -> Any:
        publisher = Program(
            *(sys.executable, "-c", PUBLISH, str(self.redis.address), *messages),
            folder=edition,
            PYTHONPATH=edition,
        )
        yield publisher.ended.addTimeout(TIMEOUT, reactor)
        self.assertEqual(publisher.status, 0, publisher.printed)
        self.assertEqual(publisher.printed.count("published"), len(messages))

    @inlineCallbacks
    def open(self, since: str | None = None) -> Any:
        path, protocols = "news?subscribe-broadcast", None
        if since is not None:
            path, protocols = f"{path}&since={since}", [SUBPROTOCOL]
        client = yield open_websocket(self.url + path, protocols=protocols)
        self.addCleanup(client.transport.abortConnection)
        return client

    @inlineCallbacks
    def frame(self, client: Any) -> Any:
        """Fire with the next frame that is no mark."""
        while True:
            received = yield client.next()
            frame = read_frame(received if isinstance(received, bytes) else received.encode())
            if frame.message is not None or frame.status is not None:
                return frame

    @inlineCallbacks
    def told(self, client: Any) -> Any:
        """Fire with what the first frame tells, and its position."""
        first: Frame = yield self.frame(client)
        assert first.status is not None
        return first.status["recovered"], first.position


class BesideTests(EditionsTestCase):
    @inlineCallbacks
    def test_an_old_publisher_feeds_a_new_server(self) -> Any:
        yield self.start(self.new)
        classic = yield self.open()
        resuming = yield self.open("")
        _, position = yield self.told(resuming)
        yield self.publish(self.old, "a\nb", "ü")
        self.assertEqual((yield classic.take(2)), ["a\nb", "ü"])
        for message in "a\nb", "ü":
            frame = yield self.frame(resuming)
            self.assertEqual(frame.message, message.encode())
        # They are in no history: whoever was away is told so, and gets what is persisted.
        late = yield self.open(position)
        self.assertIs((yield self.told(late))[0], False)
        self.assertEqual((yield self.frame(late)).message, "ü".encode())

    @inlineCallbacks
    def test_a_new_publisher_feeds_an_old_server(self) -> Any:
        yield self.start(self.old)
        client = yield self.open()
        yield self.publish(self.new, "a\nb", "ü")
        self.assertEqual((yield client.take(2)), ["a\nb", "ü"])
        for since in None, "":  # it knows no positions
            late = yield self.open(since)
            self.assertEqual((yield late.next()), "ü")
        # Its history is there for whoever is upgraded next.
        self.assertEqual(self.redis.command("LLEN", "stream:broadcast:news"), 2)


@skipUnless(FULL, "make test-all runs this one")
class UpgradeTests(EditionsTestCase):
    @inlineCallbacks
    def test_upgrade_and_rollback(self) -> Any:
        server = yield self.start(self.old)
        client = yield self.open()
        yield self.publish(self.old, "1")
        self.assertEqual((yield client.next()), "1")
        yield server.signal_and_wait("TERM")

        server = yield self.start(self.new)
        client = yield self.open("")
        yield self.told(client)
        self.assertEqual((yield self.frame(client)).message, b"1")
        yield self.publish(self.new, "2")
        frame = yield self.frame(client)
        self.assertEqual(frame.message, b"2")
        yield server.signal_and_wait("TERM")
        yield self.publish(self.new, "3")

        server = yield self.start(self.old)
        old_client = yield self.open()
        self.assertEqual((yield old_client.next()), "3")
        yield server.signal_and_wait("TERM")

        # Back again, nothing of the new publishers is missing.
        server = yield self.start(self.new)
        client = yield self.open(frame.position)
        self.assertEqual((yield self.told(client)), (True, frame.position))
        third = yield self.frame(client)
        self.assertEqual(third.message, b"3")
        self.assertGreater(read_position(third.position), read_position(frame.position))
        yield self.publish(self.old, "4")
        client = yield self.open(third.position)
        self.assertIs((yield self.told(client))[0], False)
        self.assertEqual((yield self.frame(client)).message, b"4")
