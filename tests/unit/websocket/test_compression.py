"""permessage-deflate: used only on request, inflated within the limit, deflated once for all."""

from __future__ import annotations

import os
import random
import sys
import tracemalloc
import zlib
from typing import Any
from unittest.mock import patch

from autobahn.exception import PayloadCorruptError, PayloadExceededError
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from tests.support.memory import AllowAll
from tests.support.outboxes import FedOutbox
from tests.support.wires import BINARY, COMPRESSED, TEXT, Written, deflate, rows, unfinished
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.limits import CLOSE, DROP_OLDEST, LATEST
from ws4redis_tx.core.messages import Joined, PersistedMessage, Publication
from ws4redis_tx.delivery.queues import MESSAGE_COST
from ws4redis_tx.tap import Options
from ws4redis_tx.testing import MemoryClient, client_frame, connect, make_memory_factory
from ws4redis_tx.websocket import compression
from ws4redis_tx.websocket.compression import LARGEST, SMALLEST, accept_deflate, fits_all
from ws4redis_tx.websocket.frames import DEFLATED, PLAIN
from ws4redis_tx.websocket.incoming import Inflate

URL = "ws://localhost/ws/foobar?subscribe-broadcast&publish-broadcast&echo"
AGREED = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def inflate(deflated: bytes) -> bytes:
    return zlib.decompressobj(wbits=-15).decompress(deflated + b"\x00\x00\xff\xff")


def calls_of(function: Any, *arguments: Any) -> int:
    """The number of functions, also of those in C, that the call calls."""
    called = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal called
        called += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
    return called


class OfferTests(SynchronousTestCase):
    def test_a_header_full_of_offers_costs_next_to_nothing(self) -> None:
        for filler in (",", ";", "permessage-deflate;a,", ";client_max_window_bits=8", " ", ", "):
            header = ("permessage-deflate" + filler * 15_500)[:15_500]
            self.assertLess(calls_of(accept_deflate, header), 100, filler)

    def test_a_header_of_a_few_offers_is_read_whole(self) -> None:
        others = ", ".join(f"x-vendor-extension-{number}" for number in range(30))
        self.assertEqual(accept_deflate(f"{others}, permessage-deflate"), AGREED)

    def test_what_the_rfc_allows_is_accepted_without_context_takeover(self) -> None:
        for offer in (
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate;client_max_window_bits=15",
            "permessage-deflate ; client_max_window_bits = 8 ; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover",
            "x-other; a=b, permessage-deflate, x-more",
            "permessage-deflate; unknown, permessage-deflate",
        ):
            with self.subTest(offer=offer):
                self.assertEqual(accept_deflate(offer), AGREED)

    def test_the_servers_window_is_as_small_as_the_client_wants_it(self) -> None:
        for value in ("9", '"9"', " 9"):
            offer = f"permessage-deflate; server_max_window_bits={value}"
            self.assertEqual(accept_deflate(offer), f"{AGREED}; server_max_window_bits=9")

    def test_the_first_offer_that_can_be_accepted_is(self) -> None:
        offers = "permessage-deflate; server_max_window_bits=10, permessage-deflate"
        self.assertEqual(accept_deflate(offers), f"{AGREED}; server_max_window_bits=10")

    def test_all_else_is_passed_over(self) -> None:
        for offer in (
            "",
            ", ;",
            "x-webkit-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate;",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=09",
            'permessage-deflate; server_max_window_bits="9',
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        ):
            with self.subTest(offer=offer):
                self.assertIsNone(accept_deflate(offer))

    @given(st.text(alphabet=st.characters(max_codepoint=255), max_size=900))
    def test_no_offer_at_all_raises(self, offer: str) -> None:
        self.assertIn(accept_deflate(f"{offer},x"), (None, AGREED))  # any text may contain an offer
        self.assertEqual(accept_deflate(f"{offer},permessage-deflate"), AGREED)


class InflateTests(SynchronousTestCase):
    def inflate(self, most: int, *pieces: bytes) -> bytes:
        inflater = Inflate(most)
        inflater.start_decompress_message()
        inflated = b"".join(map(inflater.decompress_message_data, pieces))
        inflater.end_decompress_message()
        return inflated

    @given(st.binary(max_size=2000), st.integers(0, 2000), st.booleans())
    def test_it_gives_back_what_was_deflated(self, payload: bytes, cut: int, ended: bool) -> None:
        deflated = deflate(payload, zlib.Z_FINISH if ended else zlib.Z_SYNC_FLUSH)
        self.assertEqual(self.inflate(3000, deflated[:cut], deflated[cut:]), payload)

    def test_a_message_of_the_limits_size_is_the_largest(self) -> None:
        self.assertEqual(self.inflate(1000, deflate(b"x" * 1000)), b"x" * 1000)
        bomb = deflate(b"x" * 1001)
        self.assertRaises(PayloadExceededError, self.inflate, 1000, bomb)
        self.assertRaises(PayloadExceededError, self.inflate, 1000, *_bytes(bomb))

    def test_what_comes_is_limited_too_also_when_nothing_comes_out_of_it(self) -> None:
        empty = deflate(b"") + b"\x00\x00\xff\xff"
        self.assertRaises(PayloadExceededError, self.inflate, 1000, *[empty] * 1000)

    def test_nothing_may_follow_the_end_of_the_stream_and_nothing_of_it_is_kept(self) -> None:
        ended = deflate(b"payload", zlib.Z_FINISH)
        for more in (b"\x00", b"x", deflate(b"more")):
            with self.subTest(more=more):
                inflater = Inflate(1000)
                inflater.start_decompress_message()
                inflater.decompress_message_data(ended)
                self.assertRaises(PayloadCorruptError, inflater.decompress_message_data, more)
        self.assertRaises(PayloadCorruptError, self.inflate, 1000, ended[:-1])

    def test_what_is_not_deflated_or_cut_off_is_corrupt(self) -> None:
        self.assertRaises(PayloadCorruptError, self.inflate, 1000, b"\xff\xff\xff")
        self.assertRaises(PayloadCorruptError, self.inflate, 1000, deflate(b"Hello, hello!")[:6])

    def test_after_a_failure_it_inflates_nothing_more(self) -> None:
        for bad, error in (
            (deflate(bytes(10_000)), PayloadExceededError),
            (b"\xff\xff", PayloadCorruptError),
        ):
            inflater = Inflate(1000)
            inflater.start_decompress_message()
            self.assertRaises(error, inflater.decompress_message_data, bad)
            self.assertEqual(inflater.decompress_message_data(deflate(bytes(10_000))), b"")
            inflater.end_decompress_message()
            inflater.start_decompress_message()
            self.assertEqual(inflater.decompress_message_data(deflate(b"next")), b"")
            inflater.end_decompress_message()

    def test_between_messages_it_holds_nothing(self) -> None:
        inflater = Inflate(1000)
        for _ in range(2):
            inflater.start_decompress_message()
            self.assertEqual(inflater.decompress_message_data(deflate(b"again")), b"again")
            inflater.end_decompress_message()
            self.assertIsNone(inflater._zlib)


class WebSocketTests(SynchronousTestCase):
    def connect(self, offer: str = "permessage-deflate", **options: Any) -> MemoryClient:
        config = ServerConfig(**{"compression": True, "max_message_size": 1000, **options})
        factory = make_memory_factory(config, authorizer=AllowAll())
        return connect(factory, URL, headers={"Sec-WebSocket-Extensions": offer})

    def test_a_compressed_message_is_published_as_it_was_before(self) -> None:
        client = self.connect()
        self.assertEqual(client.response_headers["sec-websocket-extensions"], AGREED)
        client.send_bytes(client_frame(COMPRESSED | TEXT, deflate("grüße".encode() * 50)))
        client.send("not compressed")
        client.send_bytes(client_frame(COMPRESSED | BINARY, deflate(b"\xff" * 1000)))
        self.assertEqual(client.messages, ["grüße" * 50, "not compressed", b"\xff" * 1000])

    def test_it_is_off_unless_it_is_switched_on(self) -> None:
        client = self.connect(compression=ServerConfig().compression)
        self.assertTrue(client.open)
        self.assertNotIn("sec-websocket-extensions", client.response_headers)
        client.send_bytes(client_frame(COMPRESSED | TEXT, deflate(b"text")))
        self.assertEqual(client.close_code, 1002)

    def test_a_client_that_offers_nothing_or_nonsense_is_served_without(self) -> None:
        for offer in ("", "permessage-deflate; server_max_window_bits=99", "permessage-bzip2"):
            with self.subTest(offer=offer):
                client = self.connect(offer)
                self.assertTrue(client.open)
                self.assertNotIn("sec-websocket-extensions", client.response_headers)

    def test_a_bomb_in_many_frames_closes_with_1009_too(self) -> None:
        client = self.connect()
        first, *others = _bytes(deflate(bytes(100_000)))
        client.send_bytes(unfinished(COMPRESSED | BINARY, first))
        for each in others:
            client.send_bytes(unfinished(0, each))
        self.assertEqual((client.close_code, client.messages), (1009, []))

    def test_the_limit_is_that_of_the_message_however_long_it_is_deflated(self) -> None:
        most = 20_000
        for level in range(10):
            for memory in (1, 8):
                for size, code in ((most, None), (most + 1, 1009)):
                    with self.subTest(level=level, memory=memory, size=size):
                        client = self.connect(max_message_size=most)
                        payload = random.Random(size).randbytes(size)
                        deflater = zlib.compressobj(level, zlib.DEFLATED, -15, memory)
                        data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
                        client.send_bytes(client_frame(COMPRESSED | BINARY, data[:-4]))
                        expected = [] if code else [payload]
                        self.assertEqual((client.close_code, client.messages), (code, expected))
                        client.send("x" * size)  # not compressed
                        self.assertEqual(client.close_code, code)
                        client.send("x" * (most + 1))
                        self.assertEqual(client.close_code, 1009)

    def test_what_does_not_inflate_closes_with_1007(self) -> None:
        client = self.connect()
        client.send_bytes(client_frame(COMPRESSED | TEXT, b"\xff\xff\xff"))
        self.assertEqual((client.close_code, client.messages), (1007, []))

    def test_what_inflates_to_bad_utf_8_closes_with_1007(self) -> None:
        client = self.connect()
        client.send_bytes(client_frame(COMPRESSED | TEXT, deflate(b"\xff")))
        self.assertEqual((client.close_code, client.messages), (1007, []))


class DeflateTests(SynchronousTestCase):
    @given(
        st.one_of(
            st.binary(max_size=2000),
            st.binary(max_size=40).map(lambda piece: piece * 50),
            st.text(max_size=40).map(lambda piece: piece.encode() * 50),
        )
    )
    def test_what_is_deflated_is_shorter_and_inflates_to_what_it_was(self, payload: bytes) -> None:
        deflated = compression.deflate(payload)
        if deflated is not None:
            self.assertLess(len(deflated), len(payload))
            self.assertEqual(inflate(deflated), payload)

    def test_long_ones_too_whichever_way_they_are_compressed(self) -> None:
        for size in (SMALLEST, 511, 512, 1 << 14, (1 << 14) + 1, LARGEST):
            with self.subTest(size=size):
                payload = rows(size)
                self.assertEqual(inflate(compression.deflate(payload) or b""), payload)

    def test_the_end_that_each_has_is_left_out(self) -> None:
        deflated = compression.deflate(rows(1000)) or b""
        self.assertEqual(deflated[-1:], b"\x00")
        self.assertFalse(deflated.endswith(b"\x00\x00\xff\xff"))

    def test_one_that_gains_too_little_or_takes_too_long_is_not_tried(self) -> None:
        self.patch(compression.zlib, "compressobj", self.fail)
        self.assertIsNone(compression.deflate(b"x" * (SMALLEST - 1)))
        self.assertIsNone(compression.deflate(b"x" * (LARGEST + 1)))

    def test_one_that_gets_no_shorter_stays_as_it_is(self) -> None:
        self.assertIsNone(compression.deflate(random.Random(1).randbytes(5000)))

    def test_a_client_with_a_smaller_window_is_not_one_of_all(self) -> None:
        self.assertTrue(fits_all(AGREED))
        self.assertTrue(fits_all(f"{AGREED}; server_max_window_bits=15"))
        for bits in range(8, 15):
            self.assertFalse(fits_all(f"{AGREED}; server_max_window_bits={bits}"))


class DeliveryTests(SynchronousTestCase):
    """The queue of a client that takes compressed messages, and the frames that it gets."""

    def delivery(self, most: int = 1 << 20, policy: str = CLOSE) -> FedOutbox:
        self.written = Written()
        self.overflows: list[None] = []
        return FedOutbox(
            self.written, lambda: self.overflows.append(None), most, policy, codec=DEFLATED
        )

    def test_it_is_compressed_once_however_many_get_it(self) -> None:
        receivers = [self.delivery() for _ in range(5)]
        together = [Publication(b"c", rows(300)), Publication(b"c", rows(400))]
        with patch.object(compression.zlib, "compressobj", wraps=zlib.compressobj) as made:
            for receiver in receivers[:3]:
                receiver.go_live()
            for receiver in receivers:
                receiver.deliver(together[0])
                receiver.deliver(Joined(together))
        self.assertEqual(made.call_count, 2)

    def test_nothing_is_compressed_when_nobody_takes_it(self) -> None:
        self.patch(compression.zlib, "compressobj", self.fail)
        delivery = FedOutbox(Written(), self.fail, 1 << 20)
        delivery.deliver(Publication(b"c", rows(300)))
        delivery.go_live()
        delivery.deliver(Joined([Publication(b"c", rows(300)), Publication(b"c", rows(400))]))

    def test_several_that_came_together_are_written_in_one_piece(self) -> None:
        delivery = self.delivery()
        delivery.go_live()
        publications = [Publication(b"c", payload) for payload in (rows(300), b"short", rows(400))]
        delivery.deliver(Joined(publications))
        self.assertEqual(self.written, [b"".join(each.form(DEFLATED) for each in publications)])

    def test_a_large_burst_is_not_compressed_for_who_takes_it_at_once(self) -> None:
        self.patch(compression.zlib, "compressobj", self.fail)
        delivery = self.delivery()
        delivery.go_live()
        together = Joined([Publication(b"c", rows(1000)) for _ in range(20)])
        self.assertGreater(together.size, 1 << 14)
        delivery.deliver(together)
        self.assertEqual(self.written, [together.form(PLAIN)])

    def test_for_who_cannot_take_it_yet_each_is_as_it_would_be_alone(self) -> None:
        delivery = self.delivery()
        publications = [Publication(b"%d" % number, rows(100 + number)) for number in range(20)]
        delivery.deliver(Joined(publications))
        # The last one is persisted, too, and must not arrive twice.
        delivery.send(PersistedMessage(publications[-1].payload, publications[-1].channel))
        delivery.go_live()
        self.assertEqual(self.written, [each.form(DEFLATED) for each in publications])

    def test_what_waits_counts_as_long_as_it_is_compressed(self) -> None:
        for policy in (CLOSE, DROP_OLDEST, LATEST):
            delivery = self.delivery(policy=policy)
            delivery.go_live()
            delivery.pause()
            publication = Publication(b"c", b"x" * 10_000)
            delivery.deliver(publication)
            size = len(publication.form(DEFLATED))
            self.assertLess(size, 100)
            self.assertEqual(delivery.pending, size + MESSAGE_COST)
            delivery.resume()
            self.assertEqual((delivery.pending, len(self.written)), (0, 1))

    def test_when_too_much_waits_the_policy_decides(self) -> None:
        messages = [rows(300, seed) for seed in range(20)]
        frames = [Publication(b"c", message).form(DEFLATED) for message in messages]
        most = sum(len(frame) + MESSAGE_COST for frame in frames[:5])
        for policy, overflows, left in (
            (CLOSE, [None], []),
            (DROP_OLDEST, [], frames[-4:]),
            (LATEST, [], frames[-1:]),
        ):
            with self.subTest(policy=policy):
                delivery = self.delivery(most, policy)
                delivery.go_live()
                delivery.pause()
                for message in messages:
                    delivery.deliver(Publication(b"c", message))
                delivery.resume()
                self.assertEqual(self.overflows, overflows)
                self.assertEqual(self.written[-4:], left)
                self.assertEqual(delivery.dropped, 0 if policy == CLOSE else 20 - len(self.written))

    def test_what_is_persisted_is_not_sent_again_if_it_waits(self) -> None:
        delivery = self.delivery()
        delivery.deliver(Publication(b"c", rows(300)))
        delivery.send(PersistedMessage(rows(300), b"c"))
        delivery.send(PersistedMessage(rows(300), b"other"))
        delivery.send(rows(400))
        delivery.go_live()
        sent = [rows(300), rows(400), rows(300)]
        self.assertEqual(self.written, [Publication(b"", each).form(DEFLATED) for each in sent])

    def test_its_own_message_does_not_come_back(self) -> None:
        delivery = self.delivery()
        delivery.go_live()
        publication = Publication(b"c", rows(300), delivery.feed)
        delivery.deliver(publication)
        self.assertEqual(self.written, [])
        self.assertEqual(publication.forms, {})

    def test_what_waits_does_not_keep_the_plain_message_too(self) -> None:
        delivery = self.delivery()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(50):
            delivery.deliver(Publication(b"c", b"%d" % number * 10_000))
        self.assertLess(tracemalloc.get_traced_memory()[0] - before, delivery.pending * 2)


class SwitchTests(SynchronousTestCase):
    def test_an_option_switches_it_on(self) -> None:
        self.patch(os, "environ", {"PATH": os.environ["PATH"]})  # without Django
        self.patch(sys, "path", sys.path[:])
        for arguments, expected in (([], False), (["--compression"], True)):
            options = Options()
            options.parseOptions(arguments)
            self.assertIs(options["config"].compression, expected)

    def test_a_setting_does_too(self) -> None:
        set_up_django()
        from django.test import override_settings

        from ws4redis_tx.config import django_settings

        self.assertIs(django_settings.server_config().compression, False)
        with override_settings(WS4REDIS_COMPRESSION=True):
            self.assertIs(django_settings.server_config().compression, True)
        with override_settings(WS4REDIS_COMPRESSION="yes"):
            self.assertEqual(
                [str(problem) for problem in django_settings.problems()],
                ["WS4REDIS_COMPRESSION is 'yes'. Use True or False."],
            )


def _bytes(data: bytes) -> list[bytes]:
    return [data[index : index + 1] for index in range(len(data))]
