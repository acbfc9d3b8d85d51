"""Messages that arrive together go out in one piece, with the same content as one by one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.outboxes import FedOutbox
from tests.support.wires import Written
from ws4redis_tx.core.messages import Joined, Publication
from ws4redis_tx.delivery.bundles import bundle_up
from ws4redis_tx.delivery.hub import Hub
from ws4redis_tx.websocket.frames import PLAIN


class Listener:
    """Records the messages that it got, and the number of pieces."""

    def __init__(self, *, takes_joined: bool = True) -> None:
        self.takes_joined = takes_joined
        self.heard: list[bytes] = []
        self.pieces = 0
        self.on_piece: Any = lambda: None

    def deliver(self, publication: Any) -> None:
        if publication.sender is self:
            return
        assert self.takes_joined or isinstance(publication, Publication)
        assert publication.form(PLAIN) == b"".join(each.form(PLAIN) for each in publication.parts)
        self.heard += [each.payload for each in publication.parts]
        self.pieces += 1
        self.on_piece()


CHANNELS = [b"a", b"b", b"c", b"d"]


class BatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.failures = 0
        self.hub = Hub(self._failed)

    def _failed(self) -> None:
        self.failures += 1

    def listen(self, *channels: bytes, takes_joined: bool = True) -> Listener:
        listener = Listener(takes_joined=takes_joined)
        for channel in channels:
            self.hub.add(channel, listener)
        return listener

    def dispatch(self, *messages: tuple[Any, ...]) -> None:
        self.hand_over([Publication(*message) for message in messages])

    def hand_over(self, publications: list[Publication]) -> None:
        for bundle in bundle_up(publications, self.hub):
            bundle.section.hand_over(bundle, 0, len(bundle.section.receivers), self.hub)

    def test_one_piece_for_all_of_a_listeners_channels_in_their_order(self) -> None:
        both, one = self.listen(b"b", b"a"), self.listen(b"a")
        self.dispatch((b"a", b"1"), (b"b", b"2"), (b"a", b"3"), (b"c", b"nobody's"))
        self.assertEqual((both.heard, both.pieces), ([b"1", b"2", b"3"], 1))
        self.assertEqual((one.heard, one.pieces), ([b"1", b"3"], 1))

    def test_those_who_get_the_same_share_the_same_bytes(self) -> None:
        for _ in range(3):
            self.listen(b"a", b"b")
        self.listen(b"b")
        bundles = list(
            bundle_up(
                [Publication(b"a", b"1"), Publication(b"b", b"2"), Publication(b"b", b"3")],
                self.hub,
            )
        )
        self.assertEqual(sorted(len(bundle.section.receivers) for bundle in bundles), [1, 3])
        self.assertTrue(all(isinstance(bundle.publication, Joined) for bundle in bundles))

    def test_who_did_not_ask_for_it_is_given_one_after_the_other(self) -> None:
        listener = self.listen(b"a", b"b", takes_joined=False)
        self.dispatch((b"a", b"1"), (b"b", b"2"))
        self.assertEqual((listener.heard, listener.pieces), ([b"1", b"2"], 2))

    def test_a_sender_gets_all_but_its_own(self) -> None:
        sender, other = self.listen(b"a"), self.listen(b"a")
        self.dispatch((b"a", b"1"), (b"a", b"its own", sender), (b"a", b"2"))
        self.assertEqual(sender.heard, [b"1", b"2"])
        self.assertEqual(other.heard, [b"1", b"its own", b"2"])

    def test_who_leaves_a_channel_before_its_turn_gets_the_others_messages(self) -> None:
        first, second = self.listen(b"a", b"b"), self.listen(b"a", b"b")
        first.on_piece = lambda: self.hub.discard(b"a", second)
        self.dispatch((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
        self.assertEqual(second.heard, [b"2"])

    def test_who_leaves_between_two_pieces_gets_no_more(self) -> None:
        listener = self.listen(b"a", b"b", takes_joined=False)
        listener.on_piece = lambda: self.hub.discard(b"b", listener)
        self.dispatch((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
        self.assertEqual(listener.heard, [b"1", b"3"])

    def test_a_channel_that_all_have_left_and_joined_again_is_another_one(self) -> None:
        first, second = self.listen(b"a", b"b"), self.listen(b"b")
        later: list[Listener] = []

        def leave() -> None:
            self.hub.discard(b"b", first)
            self.hub.discard(b"b", second)
            later.append(self.listen(b"b"))

        first.on_piece = leave
        self.dispatch((b"a", b"1"), (b"b", b"2"))
        self.assertEqual((second.heard, later[0].heard), ([], []))

    def test_a_listener_that_raises_keeps_nothing_from_the_others(self) -> None:
        bad, good = self.listen(b"a"), self.listen(b"a")
        bad.on_piece = lambda: self.fail("deliberate")
        self.dispatch((b"a", b"1"), (b"a", b"2"))
        self.assertEqual((good.heard, self.failures), ([b"1", b"2"], 1))

    def test_a_delivery_that_cannot_write_keeps_the_parts_by_themselves(self) -> None:
        written = Written()
        delivery = FedOutbox(written, self._failed, 1000, "latest")
        delivery.go_live()
        delivery.pause()
        self.hub.add(b"a", delivery.feed)
        self.hub.add(b"b", delivery.feed)
        self.dispatch((b"a", b"1"), (b"b", b"2"), (b"a", b"3"))
        self.assertEqual(delivery.dropped, 1)
        delivery.resume()
        self.assertEqual(written, [Publication(None, each).form(PLAIN) for each in (b"2", b"3")])

    def test_a_delivery_that_overflows_in_the_middle_stops_there(self) -> None:
        written = Written()
        delivery = FedOutbox(written, self._failed, 200)
        self.hub.add(b"a", delivery.feed)
        self.dispatch(*[(b"a", b"x" * 100)] * 5)
        self.assertEqual((delivery.feed.closed, self.failures, written), (True, 1, []))

    @given(st.data())
    def test_everybody_hears_what_a_dispatch_of_each_by_itself_would_bring(
        self, data: st.DataObject
    ) -> None:
        self.setUp()
        listeners = {
            self.listen(*channels, takes_joined=takes_joined): channels
            for channels, takes_joined in data.draw(
                st.lists(
                    st.tuples(st.sets(st.sampled_from(CHANNELS), min_size=1), st.booleans()),
                    max_size=8,
                )
            )
        }
        senders = st.none() | st.sampled_from(list(listeners)) if listeners else st.none()
        messages = [
            Publication(channel, b"%d" % number, sender)
            for number, (channel, sender) in enumerate(
                data.draw(st.lists(st.tuples(st.sampled_from(CHANNELS), senders), min_size=1))
            )
        ]
        self.hand_over(messages)
        for listener, channels in listeners.items():
            expected = [
                message.payload
                for message in messages
                if message.channel in channels and message.sender is not listener
            ]
            self.assertEqual(listener.heard, expected)
            if listener.takes_joined and all(each.sender is not listener for each in messages):
                self.assertLessEqual(listener.pieces, 1)
