"""A slow client that keeps its position is told of each message that was dropped."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.wires import Written
from ws4redis_tx.core.limits import CLOSE, DROP_OLDEST, LATEST
from ws4redis_tx.core.messages import Notice, PositionedPublication, Publication
from ws4redis_tx.core.positions import Missed, Position
from ws4redis_tx.delivery.codecs import Codec
from ws4redis_tx.delivery.outbox import Outbox
from ws4redis_tx.delivery.queues import MESSAGE_COST
from ws4redis_tx.delivery.resuming import ResumingFeed

CHANNELS = (b"broadcast:f", b"user:john:f", b"group:a:f")


class Log(Codec):
    """Writes what a client is sent as one line each."""

    def encode(self, publication: Publication, /) -> bytes:
        return b"%d %b" % (stamp(publication), publication.payload)

    def notify(self, notice: Notice) -> bytes:
        channels = b" ".join(sorted(notice.gap))
        return b"%d gap %b" % (stamp(notice), channels) if notice.gap else b"%d" % stamp(notice)


def stamp(publication: Any) -> int:
    return int(publication.position.stamp)


class Writer(Written):
    """Takes a few pieces, then pauses the outbox."""

    room = 0
    outbox: Outbox

    def write(self, data: bytes) -> None:
        super().write(data)
        self.room -= 1
        if self.room <= 0:
            self.outbox.pause()


class Slow:
    """A client with room for ``most`` messages that wait."""

    def __init__(self, policy: str, most: int) -> None:
        self.writer = Writer()
        self.outbox = Outbox(self.writer, Log(), self, most * (MESSAGE_COST + 12), policy)
        self.writer.outbox = self.outbox
        self.feed = ResumingFeed(self.outbox, cast(Any, None))
        self.closed = False
        self.writer.room = 10**9
        nothing = Missed(Position(0, 1), Position(0, 1), (), frozenset(), ())
        self.feed.catch_up(b"", nothing, b"")

    def overflow(self) -> None:
        self.closed = True

    def grew(self, size: int) -> None:
        """Nobody adds up what waits."""

    def read(self, count: int) -> None:
        self.writer.room = count
        self.outbox.resume()

    def sent(self) -> list[tuple[int, str, list[bytes]]]:
        """Position, text, and the channels of a gap."""
        found = []
        for line in self.writer:
            position, text, *channels = [*line.split(b" "), b""]
            found.append((int(position), text.decode(), [each for each in channels if each]))
        return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.sampled_from(CHANNELS), st.booleans()),
        st.tuples(st.just("read"), st.integers(0, 6), st.none()),
        st.tuples(st.just("pause"), st.none(), st.none()),
        st.tuples(st.just("half"), st.none(), st.none()),
        st.tuples(st.just("mark"), st.none(), st.none()),
    ),
    max_size=60,
)


class HoleTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=400)
    @given(st.sampled_from([DROP_OLDEST, LATEST]), st.integers(1, 5), STEPS)
    def test_each_message_arrives_once_or_lies_in_a_gap(
        self, policy: str, most: int, steps: Any
    ) -> None:
        client = Slow(policy, most)
        now, published = 0, []
        for kind, argument, marked in steps:
            if kind == "say":
                now += 2 if marked else 0
                text = f"{len(published)}"
                client.feed.deliver(
                    PositionedPublication(argument, text.encode(), Position(now, 1), marked=marked)
                )
                published.append((now, argument, text, marked, len(client.writer)))
            elif kind == "read":
                client.read(argument or 10**9)
            elif kind == "pause":
                client.outbox.pause()
            elif kind == "half":
                client.outbox.drop_half()
            else:
                client.feed.mark(Position(now, 1))
        client.read(10**9)
        sent = client.sent()
        texts = [text for _, text, _ in sent]
        arrived = [int(text) for text in texts if text.isdigit()]
        self.assertEqual(sorted(set(arrived)), arrived)  # once and in order
        for number, (position, channel, text, marked, begun) in enumerate(published):
            if text in texts:
                continue
            # A gap was told since then, before what follows, at a position before the message.
            after = [texts.index(str(each)) for each in arrived if each > number]
            gaps = [
                each
                for each in sent[begun : min(after, default=len(sent))]
                if channel in each[2] and each[0] <= (position - 1 if marked else position)
            ]
            self.assertTrue(gaps, (text, sent))
        # No gap has a position beyond what was sent or told before it.
        missing = {
            int(text): (position, begun) for position, _, text, marked, begun in published if marked
        }
        gaps = []
        for index, (position, text, _) in enumerate(sent):
            if text == "gap":
                for each, begun in missing.values():
                    told = [at for at, number in gaps if number >= begun and at < each]
                    self.assertTrue(each > position or told, (missing, sent))
                gaps.append((position, index))
            elif text:
                missing = {each: missing[each] for each in missing if each > int(text)}

    def test_what_was_dropped_last_is_told_though_nothing_follows(self) -> None:
        client = Slow(DROP_OLDEST, 3)
        client.outbox.pause()
        client.feed.deliver(PositionedPublication(CHANNELS[0], b"1", Position(7, 1)))
        self.assertEqual(len(client.outbox.drop_half()), 1)
        client.read(10)
        self.assertEqual(client.sent(), [(6, "gap", [CHANNELS[0]])])

    def test_a_pause_at_the_gap_lasts(self) -> None:
        client = Slow(DROP_OLDEST, 3)
        client.outbox.pause()
        client.feed.deliver(PositionedPublication(CHANNELS[0], b"1", Position(7, 1)))
        client.outbox.drop_half()
        client.read(1)
        client.feed.deliver(PositionedPublication(CHANNELS[0], b"2", Position(9, 1)))
        self.assertEqual(len(client.sent()), 1)
        self.assertTrue(client.outbox.paused and not client.outbox.flows)

    def test_an_applications_own_message_is_no_gap(self) -> None:
        client = Slow(DROP_OLDEST, 1)
        client.outbox.pause()
        for text in (b"1", b"2"):
            own = PositionedPublication(None, text, Position(7, 1), marked=False)
            client.feed.deliver(own)
        client.read(10)
        self.assertEqual(client.sent(), [(7, "2", [])])
        self.assertEqual(client.outbox.dropped, 1)

    def test_close_tells_nothing(self) -> None:
        client = Slow(CLOSE, 1)
        client.outbox.pause()
        for text in (b"1", b"2"):
            client.feed.deliver(PositionedPublication(CHANNELS[0], text, Position(7, 1)))
        self.assertTrue(client.closed)
        self.assertEqual(client.sent(), [])

    def test_a_catching_up_behind_a_hole_tells_the_hole_first(self) -> None:
        client = Slow(DROP_OLDEST, 2)
        client.outbox.pause()
        for number in range(1, 4):
            text = b"%d" % number
            client.feed.deliver(PositionedPublication(CHANNELS[0], text, Position(number, 1)))
        client.feed.fall_back(Position(3, 1))
        healed = PositionedPublication(CHANNELS[0], b"4", Position(4, 1), replayed=True)
        missed = Missed(Position(3, 1), Position(5, 1), [healed], frozenset(), ())
        client.feed.catch_up(b"", missed, b"")
        client.feed.deliver(PositionedPublication(CHANNELS[0], b"6", Position(6, 1)))
        client.read(10)
        self.assertEqual(
            client.sent(),
            [(0, "gap", [CHANNELS[0]]), (2, "2", []), (3, "3", []), (4, "4", []), (6, "6", [])],
        )

    def test_of_what_is_dropped_while_it_catches_up_only_the_unread_is_a_gap(self) -> None:
        for until, gaps in ((4, []), (1, [(1, "gap", [CHANNELS[0]])])):
            client = Slow(DROP_OLDEST, 2)
            client.feed.fall_back(Position(0, 1))
            messages = [
                PositionedPublication(CHANNELS[0], b"%d" % number, Position(number, 1))
                for number in range(1, 5)
            ]
            for each in messages:
                client.feed.deliver(each)
            read = [each for each in messages if each.position.stamp <= until]
            missed = Missed(Position(0, 1), Position(until, 1), read, frozenset(), ())
            client.feed.catch_up(b"", missed, b"")
            sent = client.sent()
            self.assertEqual([each for each in sent if each[1] == "gap"], gaps)
            expected = ["1", "2", "3", "4"] if until == 4 else ["1", "gap", "3", "4"]
            self.assertEqual([text for _, text, _ in sent], expected)
