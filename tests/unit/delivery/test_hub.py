"""The hub: the first and last listener of each channel, and dispatch to the right listeners."""

from __future__ import annotations

import sys
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.interfaces import IListener
from ws4redis_tx.core.messages import Publication
from ws4redis_tx.delivery.hub import Hub


class Listener:
    """Keeps its messages, and calls ``then`` for each."""

    def __init__(
        self,
        name: str = "",
        log: list[tuple[str, bytes]] | None = None,
        then: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.then = then
        self.got: list[bytes] = []

    def deliver(self, publication: Publication) -> None:
        self.got.append(publication.payload)
        if self.log is not None:
            self.log.append((self.name, publication.payload))
        if self.then is not None:
            self.then()


class HubTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.failures: list[BaseException | None] = []
        self.hub = Hub(lambda: self.failures.append(sys.exc_info()[1]))


class EdgeTests(HubTestCase):
    def test_the_first_listener_of_a_channel_is_told_apart_from_the_next(self) -> None:
        self.assertTrue(self.hub.add(b"c", Listener()))
        self.assertFalse(self.hub.add(b"c", Listener()))
        self.assertTrue(self.hub.add(b"d", Listener()))

    def test_the_last_listener_of_a_channel_is_told_apart_from_those_before(self) -> None:
        one, other = Listener(), Listener()
        self.hub.add(b"c", one)
        self.hub.add(b"c", other)
        self.assertFalse(self.hub.discard(b"c", one))
        self.assertTrue(self.hub.discard(b"c", other))
        self.assertTrue(self.hub.add(b"c", one))

    def test_adding_twice_is_adding_once(self) -> None:
        listener = Listener()
        self.assertTrue(self.hub.add(b"c", listener))
        self.assertFalse(self.hub.add(b"c", listener))
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertEqual(listener.got, [b"x"])
        self.assertTrue(self.hub.discard(b"c", listener))
        self.assertEqual(list(self.hub.channels), [])

    def test_discarding_what_is_not_there_is_no_edge(self) -> None:
        one, other = Listener(), Listener()
        self.assertFalse(self.hub.discard(b"c", one))
        self.hub.add(b"c", one)
        self.assertFalse(self.hub.discard(b"c", other))
        self.assertFalse(self.hub.discard(b"d", one))
        self.assertTrue(self.hub.discard(b"c", one))
        self.assertFalse(self.hub.discard(b"c", one))

    def test_it_knows_who_listens_where(self) -> None:
        one, other = Listener(), Listener()
        self.hub.add(b"c", one)
        self.assertTrue(self.hub.has(b"c", one))
        self.assertFalse(self.hub.has(b"c", other))
        self.assertFalse(self.hub.has(b"d", one))

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.tuples(st.booleans(), st.sampled_from([b"c", b"d"]), st.integers(0, 2))))
    def test_edges_alternate_and_nothing_stays_after_the_last(
        self, steps: list[tuple[bool, bytes, int]]
    ) -> None:
        hub = Hub(lambda: None)
        listeners = [Listener() for _ in range(3)]
        model: dict[bytes, set[int]] = {b"c": set(), b"d": set()}
        for adding, channel, index in steps:
            before = set(model[channel])
            if adding:
                model[channel].add(index)
                edge = hub.add(channel, listeners[index])
                self.assertEqual(edge, not before)
            else:
                model[channel].discard(index)
                edge = hub.discard(channel, listeners[index])
                self.assertEqual(edge, bool(before) and not model[channel])
            self.assertEqual(set(hub.channels), {name for name in model if model[name]})
        for channel, kept in model.items():
            hub.dispatch(Publication(channel, channel))
            for index, listener in enumerate(listeners):
                self.assertEqual(channel in listener.got, index in kept)


class DispatchTests(HubTestCase):
    def test_every_listener_of_the_channel_and_nobody_else_gets_it(self) -> None:
        here, too, elsewhere = Listener(), Listener(), Listener()
        self.hub.add(b"c", here)
        self.hub.add(b"c", too)
        self.hub.add(b"d", elsewhere)
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertEqual((here.got, too.got, elsewhere.got), ([b"x"], [b"x"], []))

    def test_a_channel_that_nobody_listens_to_is_no_error(self) -> None:
        self.hub.dispatch(Publication(b"c", b"x"))

    def test_listeners_get_it_in_the_order_they_came(self) -> None:
        log: list[tuple[str, bytes]] = []
        for name in "bca":
            self.hub.add(b"c", Listener(name, log))
        self.hub.dispatch(Publication(b"c", b"1"))
        self.hub.dispatch(Publication(b"c", b"2"))
        self.assertEqual(
            log,
            [("b", b"1"), ("c", b"1"), ("a", b"1"), ("b", b"2"), ("c", b"2"), ("a", b"2")],
        )

    def test_all_get_the_same_publication_whose_frame_is_made_once(self) -> None:
        got: list[Publication] = []

        class Keeper:
            def deliver(self, publication: Publication) -> None:
                got.append(publication)

        for _ in range(2):
            self.hub.add(b"c", Keeper())
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertIs(got[0], got[1])

    def test_a_listener_that_leaves_while_it_gets_a_message_costs_nobody_theirs(self) -> None:
        leaving = Listener(then=lambda: self.hub.discard(b"c", leaving))
        before, after = Listener(), Listener()
        for listener in (before, leaving, after):
            self.hub.add(b"c", listener)
        self.hub.dispatch(Publication(b"c", b"1"))
        self.hub.dispatch(Publication(b"c", b"2"))
        self.assertEqual(before.got, [b"1", b"2"])
        self.assertEqual(leaving.got, [b"1"])
        self.assertEqual(after.got, [b"1", b"2"])

    def test_the_last_listener_may_leave_while_it_gets_a_message(self) -> None:
        edges: list[bool] = []
        leaving = Listener(then=lambda: edges.append(self.hub.discard(b"c", leaving)))
        self.hub.add(b"c", leaving)
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertEqual(edges, [True])
        self.assertEqual(list(self.hub.channels), [])

    def test_a_listener_that_was_discarded_gets_nothing_more_even_of_this_message(self) -> None:
        # IBroker.unlisten: no more messages are delivered to the listener.
        victim = Listener()
        self.hub.add(b"c", Listener(then=lambda: self.hub.discard(b"c", victim)))
        self.hub.add(b"c", victim)
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertEqual(victim.got, [])

    def test_a_listener_that_comes_meanwhile_gets_the_next_message(self) -> None:
        newcomer, other = Listener(), Listener()

        def join() -> None:
            self.hub.add(b"c", newcomer)
            self.hub.add(b"d", newcomer)

        self.hub.add(b"c", Listener(then=join))
        self.hub.add(b"c", other)
        self.hub.dispatch(Publication(b"c", b"1"))
        self.hub.dispatch(Publication(b"c", b"2"))
        self.assertEqual(newcomer.got[-1:], [b"2"])
        self.assertEqual(other.got, [b"1", b"2"])

    def test_a_listener_that_fails_is_reported_and_costs_the_others_nothing(self) -> None:
        def fail() -> None:
            raise RuntimeError("boom")

        before, after = Listener(), Listener()
        listeners: tuple[IListener, ...] = (before, Listener(then=fail), after)
        for listener in listeners:
            self.hub.add(b"c", listener)
        self.hub.dispatch(Publication(b"c", b"x"))
        self.assertEqual((before.got, after.got), ([b"x"], [b"x"]))
        self.assertEqual([str(failure) for failure in self.failures], ["boom"])
