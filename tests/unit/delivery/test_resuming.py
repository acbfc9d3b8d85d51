"""A feed that catches up: the order of what was missed, what is persisted, and what has arrived."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.limits import CLOSE
from ws4redis_tx.core.messages import PositionedPublication
from ws4redis_tx.core.positions import Missed, Position
from ws4redis_tx.delivery.feed import Feed
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.delivery.resuming import ResumingFeed
from ws4redis_tx.websocket.frames import PLAIN

A, B = b"broadcast:f", b"user:john:f"


class Frames:
    """A writer that keeps the payloads of short frames."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, frame: bytes) -> None:
        self.written.append(frame[2:])


class CatchUpTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.frames = Frames()
        owner: Any = self
        history: Any = None
        outbox = Outbox(self.frames, PLAIN, owner, 1 << 20, CLOSE)
        self.feed = ResumingFeed(outbox, history)

    def grew(self, size: int) -> None:
        """As the owner of the outbox."""

    def message(self, channel: bytes, stamp: int, **more: Any) -> PositionedPublication:
        return PositionedPublication(channel, b"%d" % stamp, Position(stamp, 1), **more)

    def missed(self, *persisted: PositionedPublication) -> Missed:
        return Missed(Position(100, 1), Position(120, 1), [], frozenset({A, B}), persisted)

    def test_a_persisted_message_that_has_arrived_without_a_marker_keeps_its_place(self) -> None:
        """A recovery of plain listeners has read it, and this one too."""
        self.feed.deliver(PositionedPublication(A, b"104", Position(100, 1), marked=False))
        self.feed.deliver(self.message(B, 110))
        self.feed.deliver(self.message(A, 121))
        persisted = [self.message(each, stamp) for each, stamp in ((B, 110), (A, 104))]
        self.feed.catch_up(b"", self.missed(*persisted), b"")
        self.assertEqual(self.frames.written, [b"104", b"110", b"121"])

    def test_one_without_a_marker_carries_the_position_before_it(self) -> None:
        """Else a client that is cut off after it would get the one before it twice."""
        positions: list[Position] = []
        deliver = Feed.deliver

        def spy(feed: Feed, publication: Any) -> None:
            positions.append(publication.position)
            deliver(feed, publication)

        self.patch(Feed, "deliver", spy)
        self.feed.deliver(PositionedPublication(A, b"1", Position(100, 1), marked=False))
        self.feed.deliver(self.message(B, 121))
        self.feed.deliver(PositionedPublication(A, b"2", Position(121, 1), marked=False))
        self.feed.catch_up(b"", self.missed(), b"")
        self.assertEqual(self.frames.written, [b"1", b"121", b"2"])
        self.assertEqual([each.stamp for each in positions], [120, 121, 121])

    def test_one_whose_stamp_is_unknown_comes_when_it_has_arrived(self) -> None:
        self.feed.deliver(self.message(B, 110))
        for _ in range(2):
            self.feed.deliver(PositionedPublication(A, b"old", Position(110, 1), marked=False))
        old = PositionedPublication(A, b"old", Position(100, 1), replayed=True)
        self.feed.catch_up(b"", self.missed(old, self.message(B, 110)), b"")
        self.assertEqual(self.frames.written, [b"110", b"old", b"old"])

    def test_those_without_a_marker_are_not_overtaken_on_their_channel(self) -> None:
        """The last of them is persisted, so its place is known."""
        for text in (b"1", b"2"):
            self.feed.deliver(PositionedPublication(A, text, Position(100, 1), marked=False))
        self.feed.deliver(self.message(B, 110))
        last = PositionedPublication(A, b"2", Position(105, 1))
        self.feed.catch_up(b"", self.missed(last, self.message(B, 110)), b"")
        self.assertEqual(self.frames.written, [b"1", b"2", b"110"])

    def test_one_without_a_marker_follows_what_arrived_before_it(self) -> None:
        """Even if that was read by a recovery, which does not move the position on."""
        self.feed.deliver(self.message(A, 105))
        self.feed.deliver(PositionedPublication(A, b"old", Position(100, 1), marked=False))
        self.feed.catch_up(b"", self.missed(self.message(A, 105), self.message(B, 110)), b"")
        self.assertEqual(self.frames.written, [b"105", b"old", b"110"])
