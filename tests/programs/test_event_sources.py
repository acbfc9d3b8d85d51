"""Other people's implementations of EventSource hear each message once, however often they are cut
off. Fault 8, through real clients, and the sentence on them in issue 16.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import SkipTest
from twisted.web.server import Site

from tests.support.cutting import HERE, CuttingProxy
from tests.support.event_sources import Said, site, start_chromium, start_node
from tests.support.programs import until
from tests.support.servers import ServerTestCase
from tests.support.sizes import FULL
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.positions import History, Kept
from ws4redis_tx.service import make_broker, make_factory, make_resource
from ws4redis_tx.sse import transport

MESSAGES, CUTS = (3_000, 40) if FULL else (300, 5)
EVENT = 45
"""No event of a message has fewer bytes."""
UNHEARD = 100
"""So many messages are published at most before the client has heard the first of them."""

FLAGS = "?subscribe-broadcast"
AWKWARD = (
    b"", b" leading", b":", b"data: x", b"a\nevent: gap\nid: x\n\n", b"a\revent: gap\rid: x\r\r",
    b"a\r\nb", b"\0", "\u2028".encode(), "\ufeff".encode(), b"\n", b"\n\n", b"\xff\0",
    b"x" * 70_000,
)  # fmt: skip


def text(number: int) -> str:
    """A message, with characters that a cut may go through."""
    return f"{number} ✓ 🎉"


def begins_after_its_id(passed: bytes) -> bool:
    """Whether a cut would leave an id without the empty line that ends the event."""
    lines = passed.rsplit(b"\n", 2)
    return not lines[-1] and len(lines) > 1 and lines[-2].startswith(b"id: ")


class EventSourceTests(ServerTestCase):
    timeout = 600
    awkward: Sequence[bytes] = AWKWARD

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.patch(transport, "_retry", lambda: b"retry: 20\n\n")
        self.random = random.Random(16)
        config = ServerConfig(redis=self.redis.address, history=(("", MESSAGES, 3600),))
        self.broker = make_broker(config)
        self.broker.startService()
        self.addCleanup(self.broker.stopService)
        yield self.broker.when_available()
        factory = make_factory(config, broker=self.broker)
        self.said = Said()
        root = site(self.said)
        root.putChild(b"ws", make_resource(factory))
        pages = Site(root)
        pages.noisy = False
        port = yield serverFromString(reactor, HERE).listen(pages)
        self.addCleanup(port.stopListening)
        self.addCleanup(factory.drain, 1001)
        # All cuts lie within the events, however often a client has to begin again.
        cuts = [self.random.randrange(1, EVENT * MESSAGES // CUTS) for _ in range(CUTS)]
        self.proxy = CuttingProxy(port.getHost().port, cuts)
        self.origin = f"http://127.0.0.1:{(yield self.proxy.start(self))}"

    def publish(self, message: bytes) -> Any:
        kept = Kept(History(MESSAGES, 3600))
        return self.broker.commands.publish([b"broadcast:"], message, 3600, kept)

    @inlineCallbacks
    def hear_all(self) -> Any:
        """Publish while the client is cut off again and again; check what it has heard."""
        yield self.said.first("open")
        heard = 0
        for number in range(MESSAGES):
            yield self.publish(text(number).encode())
            while heard < number - self.random.randrange(UNHEARD):
                yield self.hear(heard)
                heard += 1
        for number in range(heard, MESSAGES):
            yield self.hear(number)
        yield self.publish(text(MESSAGES).encode())
        yield self.hear(MESSAGES)
        self.assertEqual(self.proxy.cuts, [])
        self.assertEqual(len(self.proxy.requests), CUTS + 1)
        yield self.hear_all_bytes()

    @inlineCallbacks
    def hear_all_bytes(self) -> Any:
        """Fault 8."""
        for payload in self.awkward:
            yield self.publish(payload)
            kind, data, _ = yield self.said.next()
            self.assertIn(kind, ("message", "binary"))
            found = data.encode() if kind == "message" else base64.b64decode(data)
            self.assertEqual(found, payload)

    @inlineCallbacks
    def hear(self, number: int) -> Any:
        """Check that the next message is that one, and that no gap was told before it."""
        while True:
            kind, data, _ = yield self.said.next()
            self.assertNotIn(kind, ("gap", "binary"))
            if kind == "message":
                self.assertEqual(data, text(number))
                return

    def start_node(self, package: str, facility: str = "") -> None:
        start_node(self, package, self.origin, f"/ws/{facility}{FLAGS}")

    def test_eventsource(self) -> Any:
        self.start_node("eventsource")
        return self.hear_all()

    def test_launchdarkly_eventsource(self) -> Any:
        self.full()
        self.start_node("launchdarkly-eventsource")
        return self.hear_all()

    @inlineCallbacks
    def test_event_source_polyfill(self) -> Any:
        self.full()
        self.start_node("event-source-polyfill")
        yield self.hear_all()
        self.assertIn(b"&lastEventId=", self.proxy.requests[-1])
        self.assertNotIn(b"Last-Event-ID:", self.proxy.requests[-1])

    def test_fetch_event_source(self) -> Any:
        """It takes an id at the end of its line, before the event ends, and changes some texts."""
        self.full()
        self.awkward = [each for each in AWKWARD if not each.startswith((b"\n", b"\xef\xbb\xbf"))]
        self.proxy.spared = begins_after_its_id
        self.start_node("@microsoft/fetch-event-source")
        return self.hear_all()

    def test_the_browsers_own(self) -> Any:
        start_chromium(self, f"{self.origin}/#/ws/{FLAGS}")
        return self.hear_all()

    @inlineCallbacks
    def hear_once_without_history(self) -> Any:
        """Fire with what is heard after a cut. The message before it has no id, and an id alone has
        followed it.
        """
        self.proxy.cuts.clear()
        yield self.said.first("live")
        yield self.broker.commands.publish([b"broadcast:plain"], b"plain", 3600)
        yield self.said.first("message", "plain")
        yield until(lambda: b":\nid: " in self.proxy.answers.partition(b"data: plain\n\n")[2])
        self.proxy.cut()
        yield self.said.first("open")
        heard = []
        while True:
            kind, data, _ = yield self.said.next()
            if kind == "live":
                return heard
            heard.append((kind, data))

    @inlineCallbacks
    def test_an_id_alone_counts_for_the_browsers_own(self) -> Any:
        start_chromium(self, f"{self.origin}/#/ws/plain{FLAGS}")
        self.assertEqual((yield self.hear_once_without_history()), [])

    @inlineCallbacks
    def test_an_id_alone_does_not_count_for_eventsource(self) -> Any:
        """It hears the message again, behind a gap."""
        self.start_node("eventsource", "plain")
        heard = yield self.hear_once_without_history()
        self.assertEqual(heard[0][0], "gap")
        self.assertEqual(heard[1:], [("message", "plain")])

    def full(self) -> None:
        if not FULL:
            raise SkipTest("make test-all runs it")
