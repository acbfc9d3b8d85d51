"""The parts of a recheck: the rule for a loss, packed handshakes, the index, the queue."""

from __future__ import annotations

import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.admission import Admission, Identity, lost
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.revocation.index import Index
from ws4redis_tx.revocation.packing import Packer, unpack
from ws4redis_tx.revocation.recheck_queue import FEWEST, MOST, QUICK, RecheckQueue


class PartsTests(SynchronousTestCase):
    def test_losing_is_judged_by_what_is_used(self) -> None:
        then = Identity("s", "john", ("a", "b"), "1")

        def now(identity: Identity, *rights: str) -> Admission:
            return Admission(identity, rights, None)

        self.assertEqual(lost(then, ["subscribe-group"], now(then, "subscribe-group")), "")
        self.assertEqual(lost(then, [], now(Identity("s", "john", (), "1"))), "")
        self.assertEqual(lost(Identity(), [], now(then, "subscribe-user")), "")
        self.assertEqual(lost(then, ["subscribe-user"], now(then)), "a right")

    def test_a_handshake_is_packed_and_unpacked_whole(self) -> None:
        handshake = Handshake(
            path="/ws/\xe9", query="a&b=\xff", websocket_url="/ws/", flags=("a", "b"),
            headers={"host": "x", "cookie": "a=\x80\x85"}, key="k", subprotocols=("p",),
            secure=True, peer="::1", redeemed="t\xe9",
        )  # fmt: skip
        self.assertEqual(unpack(Packer().pack(handshake)), handshake)

    @given(
        st.dictionaries(
            st.text() | st.sampled_from(["cookie", "sec-websocket-protocol"]), st.text()
        ),
        st.text(),
        st.lists(st.text()),
        st.booleans(),
        st.text(),
    )
    def test_whatever_is_in_it(
        self, headers: dict[str, str], text: str, offered: list[str], secure: bool, redeemed: str
    ) -> None:
        handshake = Handshake(
            text, text, text, (text,), headers, text, tuple(offered), secure, text, redeemed
        )
        self.assertEqual(unpack(Packer().pack(handshake)), handshake)

    def test_credentials_are_not_remembered(self) -> None:
        headers = {
            "cookie": "a=s3cret",
            "authorization": "Bearer s3cret",
            "sec-websocket-protocol": "chat, s3cret",
        }
        packer = Packer()
        packer.pack(
            Handshake(
                path="/ws/", query="", websocket_url="/ws/", flags=(), headers=headers, key="k",
                subprotocols=("chat", "s3cret"), secure=True, peer="::1", redeemed="s3cret",
            )
        )  # fmt: skip
        self.assertTrue(len(packer))
        self.assertNotIn("s3cret", str(packer._known))

    def test_a_browsers_handshake_takes_little_memory(self) -> None:
        head = (
            b"GET /ws/foobar?subscribe-broadcast&subscribe-user HTTP/1.1\r\n"
            b"Host: chat.example.org\r\nConnection: keep-alive, Upgrade\r\nPragma: no-cache\r\n"
            b"User-Agent: Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:128.0) Gecko/20100101 "
            b"Firefox/128.0\r\nAccept: */*\r\nAccept-Language: de,en-US;q=0.7,en;q=0.3\r\n"
            b"Accept-Encoding: gzip, deflate, br, zstd\r\nSec-WebSocket-Version: 13\r\n"
            b"Origin: https://chat.example.org\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
            b"Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n"
            b"Cookie: csrftoken=Vx2bQm9pR4sK7tYw1cZn8dLf3gHj6aEu; "
            b"sessionid=q7w2e9r4t1y8u3i6o5p0a2s4d6f8g1h3\r\n"
            b"Sec-Fetch-Dest: empty\r\nSec-Fetch-Mode: websocket\r\nSec-Fetch-Site: same-origin"
        )

        def packed(number: int, more: bytes = b"") -> Any:
            own = head.replace(b"AQID", b"%04d" % number).replace(b"q7w2", b"%04d" % number)
            peer = f"203.0.113.{number % 50}"
            request = read_request(own + more % number if more else own)
            handshake = judge_request(request, "/ws/", secure=False, peer=peer)
            kept.append(packer.pack(handshake))
            self.assertEqual(unpack(kept[-1]), handshake)

        for more, most in ((b"", 500), (b"\r\nX-Request-Id: %036d", 1000)):
            packer, kept = Packer(), []
            for number in range(100):
                packed(number, more)
            self.assertLess(memory_of(kept) / 100, most)

    def test_what_handshakes_have_in_common_is_remembered_within_bounds(self) -> None:
        packer = Packer()
        for number in range(10_000):
            handshake = Handshake(
                path=f"/ws/{number}" + "x" * 10_000 * (number % 2), query="", websocket_url="/ws/",
                flags=(), headers={"a": f"{number}", "cookie": f"b={number}"}, key="",
                subprotocols=(), secure=True, peer=f"{number}",
            )  # fmt: skip
            self.assertEqual(unpack(packer.pack(handshake)), handshake)
        self.assertLess(len(packer), 5000)
        self.assertLess(memory_of(packer._known), 5_000_000)
        self.assertFalse([value for value in packer._known if "b=" in str(value)])

    def test_an_index_forgets_whom_it_lost(self) -> None:
        index: Index[str, int] = Index()
        for member in range(20):
            index.add("many", member)
            index.add("many", member)
        index.add(None, 1)
        index.add("one", 1)
        self.assertEqual(sorted(index.get("many")), list(range(20)))
        self.assertEqual((index.get("one"), index.get("none")), ((1,), ()))
        for member in range(20):
            index.discard("many", member)
            index.discard("one", member)
        self.assertEqual(len(index), 0)


class RechecksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.running: dict[str, Deferred[None]] = {}
        self.checked: list[str] = []
        self.rechecks: RecheckQueue[str] = RecheckQueue(self.check, self.clock)

    def check(self, member: str) -> Deferred[None]:
        self.checked.append(member)
        self.running[member] = Deferred()
        return self.running[member]

    def finish(self, member: str) -> None:
        self.running.pop(member).callback(None)
        self.clock.advance(0)

    def test_two_are_asked_about_at_once_and_the_urgent_go_first(self) -> None:
        for member in "abcd":
            self.rechecks.eventually(member)
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a", "b"])
        self.rechecks.soon("d")
        self.finish("a")
        self.assertEqual(self.checked, ["a", "b", "d", "c"])

    def test_while_answers_are_quick_more_and_more_are_asked_about_together(self) -> None:
        rounds: list[int] = []
        for member in range(4 * MOST):
            self.rechecks.eventually(str(member))
        self.clock.advance(0)
        while self.checked:
            rounds.append(len(self.checked))
            self.checked.clear()
            self.clock.advance(QUICK / 2)
            for member in list(self.running):
                self.running.pop(member).callback(None)
            self.clock.advance(0)
        self.assertEqual(rounds, [2, 4, 8, 16, 32, 64, 64, 64, 2])

    def test_after_a_slow_answer_few_are_again(self) -> None:
        for member in "abcdef":
            self.rechecks.eventually(member)
        self.clock.advance(0)
        self.finish("a")
        self.assertEqual(self.checked, ["a", "b", "c", "d"])
        self.clock.advance(QUICK + 0.01)
        for member in "bcd":
            self.finish(member)
        self.assertEqual(self.checked, ["a", "b", "c", "d", "e", "f"][: 4 + FEWEST])
        self.rechecks.eventually("g")
        self.clock.advance(0)
        self.assertNotIn("g", self.checked)

    def test_each_waits_once(self) -> None:
        for _ in range(3):
            self.rechecks.eventually("a")
            self.rechecks.soon("a")
            self.rechecks.eventually("a")
        self.clock.advance(0)
        self.finish("a")
        self.assertEqual(self.checked, ["a"])

    def test_who_is_asked_for_during_its_check_is_checked_again_after_it(self) -> None:
        self.rechecks.soon("a")
        self.clock.advance(0)
        self.rechecks.soon("a")
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a"])
        self.finish("a")
        self.assertEqual(self.checked, ["a", "a"])

    def test_a_check_of_who_left_is_cancelled_and_another_one_begins(self) -> None:
        for member in "abc":
            self.rechecks.soon(member)
        self.clock.advance(0)
        cancelled = self.running["a"].addErrback(lambda failure: failure.trap(CancelledError))
        self.rechecks.discard("a")
        self.successResultOf(cancelled)
        self.clock.advance(0)
        self.assertEqual(self.checked, ["a", "b", "c"])

    def test_who_left_is_not_checked(self) -> None:
        self.rechecks.soon("a")
        self.rechecks.eventually("b")
        self.rechecks.discard("a")
        self.rechecks.discard("b")
        self.clock.advance(0)
        self.assertEqual(self.checked, [])

    def test_an_authorizer_that_answers_at_once_leaves_time_for_others(self) -> None:
        checked: list[int] = []

        def check(member: int) -> Deferred[None]:
            checked.append(member)
            return succeed(None)

        rechecks: RecheckQueue[int] = RecheckQueue(check, self.clock)
        for member in range(1000):
            rechecks.eventually(member)
        others: list[int] = []
        self.clock.callLater(0, lambda: others.append(len(checked)))
        self.clock.advance(0)
        self.assertEqual(others, [MOST])
        self.assertEqual(checked, list(range(1000)))


def memory_of(thing: Any, seen: set[int] | None = None) -> int:
    """The memory of a tree of tuples, lists, dictionaries and strings. Shared objects count once,
    and small numbers not at all.
    """
    seen = set() if seen is None else seen
    if id(thing) in seen or thing is None or isinstance(thing, int):
        return 0
    seen.add(id(thing))
    parts = (*thing, *thing.values()) if isinstance(thing, dict) else thing
    parts = () if isinstance(thing, str) else parts
    return sys.getsizeof(thing) + sum(memory_of(part, seen) for part in parts)
