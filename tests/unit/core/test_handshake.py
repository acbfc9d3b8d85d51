"""The opening handshake: reading its bytes, and the first failure, which is answered."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.core.admission import Admission, Identity, check_admission
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import MAX_HEAD_BYTES, make_request, read_request, refusal
from ws4redis_tx.core.origins import OriginPolicy

WS = "/ws/"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="

# Every status that the contract names for a refusal.
STATUSES = {400, 401, 403, 404, 405, 426, 500, 503}

FIELDS: dict[str, str] = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


def head(
    target: str = "/ws/foobar",
    fields: Mapping[str, str | None] | None = None,
    *more: str,
    method: str = "GET",
    version: str = "HTTP/1.1",
) -> bytes:
    """A well-formed handshake's head; ``fields`` replace (``None``: leave out), ``more`` add."""
    merged = {**FIELDS, **(fields or {})}
    lines = [f"{name}: {value}" for name, value in merged.items() if value is not None]
    return "\r\n".join([f"{method} {target} {version}", *lines, *more]).encode("latin-1")


def judge(data: bytes, *, secure: bool = False) -> Handshake:
    return judge_request(read_request(data), WS, secure=secure, peer="192.0.2.7")


def parse_response(data: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers by lower-case name, and the body of one HTTP response."""
    top, separator, body = data.partition(b"\r\n\r\n")
    status_line, *lines = top.decode("ascii").split("\r\n")
    version, status, phrase = status_line.split(" ", 2)
    assert separator and version == "HTTP/1.1" and phrase
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), "a header stands twice"
    headers = {name.lower(): value for name, value in headers.items()}
    assert int(headers["content-length"]) == len(body)
    return int(status), headers, body.decode()


class HandshakeTestCase(SynchronousTestCase):
    def refused(self, data: bytes, status: int) -> Denied:
        denied: Denied = self.assertRaises(Denied, judge, data)
        self.assertEqual(denied.status, status, data)
        return denied

    def header(self, denied: Denied, name: str) -> str | None:
        return dict(denied.headers).get(name)


class ReadTests(HandshakeTestCase):
    def test_a_request_is_its_method_target_and_headers_in_the_order_of_the_wire(self) -> None:
        request = read_request(b"GET /ws/a?b HTTP/1.1\r\nHost:h\r\nX-One:\t 1 \t\r\nX-one: 2")
        self.assertEqual((request.method, request.target), ("GET", "/ws/a?b"))
        self.assertEqual(request.headers, (("host", "h"), ("x-one", "1"), ("x-one", "2")))
        self.assertEqual(request.malformed, "")

    def test_a_request_without_headers_is_read(self) -> None:
        self.assertEqual(read_request(b"GET / HTTP/1.1").headers, ())

    def test_what_is_no_request_line_is_a_400(self) -> None:
        for line in (
            b"",
            b"\r\n",
            b"GET",
            b"GET /ws/",
            b"GET  /ws/ HTTP/1.1",
            b"GET /ws/ HTTP/1.1 ",
            b" GET /ws/ HTTP/1.1",
            b"GET /ws/a b HTTP/1.1",
            b"GET\t/ws/\tHTTP/1.1",
            b"G(T /ws/ HTTP/1.1",
            b"GET /ws/\0 HTTP/1.1",
            b"GET /ws/\n HTTP/1.1",
            b"GET /ws/ HTTP/1.1\nHost: h",
            b"GET /ws/ HTTP/2",
            b"GET /ws/ HTTP/0.9",
            b"GET /ws/ http/1.1",
            b"\x16\x03\x01\x02\x00\x01",
        ):
            with self.subTest(line=line):
                self.assertEqual(self.assertRaises(Denied, read_request, line).status, 400)

    def test_bytes_that_some_libraries_split_lines_at_never_start_another_header(self) -> None:
        for byte in (b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", b"\x85", b"\n", b"\r", b"\0"):
            with self.subTest(byte=byte):
                data = head() + b"\r\nX-Note: a" + byte + b"Cookie: sessionid=stolen"
                self.assertNotIn("cookie", [name for name, _ in read_request(data).headers])
                if byte != b"\x85":
                    self.refused(data, 400)

    def test_byte_85_is_an_ordinary_byte_of_a_value(self) -> None:
        handshake = judge(head() + b"\r\nX-Note: a\x85Cookie: b")
        self.assertEqual(handshake.headers["x-note"], "a\x85Cookie: b")

    def test_a_request_that_was_split_by_someone_else_is_the_same_request(self) -> None:
        pairs = [(b"Host", b"localhost"), (b"X-Note", b"\xff")]
        self.assertEqual(
            make_request(b"GET", b"/ws/a", b"HTTP/1.1", pairs),
            read_request(b"GET /ws/a HTTP/1.1\r\nHost: localhost\r\nX-Note: \xff"),
        )


class JudgeTests(HandshakeTestCase):
    def test_a_well_formed_handshake_is_told_as_it_came(self) -> None:
        handshake = judge(head("/ws/foo%20bar?echo&x=1"), secure=True)
        self.assertEqual((handshake.path, handshake.query), ("/ws/foo%20bar", "echo&x=1"))
        self.assertEqual((handshake.facility, handshake.path_info), ("foo bar", "/ws/foo bar"))
        self.assertEqual((handshake.secure, handshake.peer), (True, "192.0.2.7"))
        self.assertEqual(handshake.key, KEY)
        self.assertEqual(handshake.headers["host"], "localhost")

    def test_a_path_that_is_not_under_the_websocket_url_is_a_404(self) -> None:
        for target in ("/", "/ws", "/wsx/", "/WS/", "//ws/", "/x/ws/", "/?/ws/", "*", "ws/"):
            with self.subTest(target=target):
                self.refused(head(target), 404)

    def test_a_plain_request_is_a_426_with_upgrade_and_one_line_that_explains_the_url(self) -> None:
        for fields in (
            {"Upgrade": None},
            {"Upgrade": "h2c"},
            {"Upgrade": "websockets"},
            {"Connection": None},
            {"Connection": "keep-alive"},
            {"Connection": "close"},
        ):
            with self.subTest(fields=fields):
                denied = self.refused(head(fields=fields), 426)
                self.assertEqual(self.header(denied, "Upgrade"), "websocket")
                self.assertIn("websocket", denied.reason.lower())
                self.assertNotIn("\n", denied.reason)

    def test_an_upgrade_is_understood_in_any_case_and_among_other_words(self) -> None:
        for fields in (
            {"Upgrade": "WebSocket", "Connection": "upgrade"},
            {"Connection": "keep-alive, Upgrade"},
            {"Connection": "keep-alive ,\tUPGRADE,"},
            {"Upgrade": "h2c, websocket"},
        ):
            with self.subTest(fields=fields):
                judge(head(fields=fields))
        judge(head("/ws/", {"Connection": "keep-alive"}, "connection: Upgrade"))

    def test_another_version_is_a_426_that_names_13(self) -> None:
        for version in (None, "8", "7", "0", "14", "013", "13.0", "", "13, 8", "x"):
            with self.subTest(version=version):
                denied = self.refused(head(fields={"Sec-WebSocket-Version": version}), 426)
                self.assertEqual(self.header(denied, "Sec-WebSocket-Version"), "13")

    def test_a_malformed_header_is_a_400(self) -> None:
        for line in (
            "X-Note",
            ": x",
            "X Note: x",
            "X-Note : x",
            " X-Note: x",
            "\tfolded",
            "X-Note: a\x01b",
            "X-Note: a\x7fb",
            "X-N\xf6te: x",
            "X(Note): x",
            "",
        ):
            with self.subTest(line=line):
                self.refused(head("/ws/", None, line), 400)

    def test_host_is_needed_once(self) -> None:
        self.refused(head(fields={"Host": None}), 400)
        self.refused(head(fields={"Host": ""}), 400)
        self.refused(head("/ws/", None, "Host: localhost"), 400)
        self.refused(head("/ws/", None, "host: evil.example"), 400)

    def test_what_decides_and_stands_twice_is_a_400(self) -> None:
        for name, value in (
            ("Origin", "http://localhost"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ):
            with self.subTest(name=name):
                self.refused(head("/ws/", {name: value}, f"{name.lower()}: {value}"), 400)

    def test_a_key_that_is_not_16_bytes_in_base64_is_a_400(self) -> None:
        for key in (
            None,
            "",
            "x",
            "dGhlIHNhbXBsZSBub25j",
            "dGhlIHNhbXBsZSBub25jZSE=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ==x",
            "dGhlIHNhbXBsZSBub25j*Q==",
            "dGhlIHNhbXBsZ SBub25jZQ==",
            "\xfc" * 24,
        ):
            with self.subTest(key=key):
                self.refused(head(fields={"Sec-WebSocket-Key": key}), 400)

    def test_a_body_is_a_400_and_a_length_of_nothing_is_none(self) -> None:
        self.refused(head("/ws/", None, "Content-Length: 5"), 400)
        self.refused(head("/ws/", None, "Content-Length: 0", "Content-Length: 5"), 400)
        self.refused(head("/ws/", None, "Content-Length: x"), 400)
        self.refused(head("/ws/", None, "Transfer-Encoding: chunked"), 400)
        judge(head("/ws/", None, "Content-Length: 0"))

    def test_cookies_that_come_in_two_headers_are_joined_as_cookies_are(self) -> None:
        handshake = judge(head("/ws/", None, "Cookie: a=1", "X: y", "cookie: b=2; c=3"))
        self.assertEqual(handshake.headers["cookie"], "a=1; b=2; c=3")

    def test_other_headers_that_come_twice_are_joined_as_lists_are(self) -> None:
        handshake = judge(head("/ws/", None, "X-Forwarded-For: a", "x-forwarded-for: b"))
        self.assertEqual(handshake.headers["x-forwarded-for"], "a, b")


class OrderTests(HandshakeTestCase):
    """The failure that is answered where the contract's table does not decide."""

    def test_path_and_method_are_judged_before_the_form_of_the_rest(self) -> None:
        self.refused(head("/nowhere", None, "malformed"), 404)
        self.refused(head("/ws/", None, "malformed", method="POST"), 405)

    def test_path_and_method_are_judged_before_the_http_version(self) -> None:
        # Many health checks use HTTP/1.0; its request line can be read.
        self.refused(head("/nowhere", version="HTTP/1.0"), 404)
        self.refused(head(method="POST", version="HTTP/1.0"), 405)

    def test_an_old_http_version_is_a_400(self) -> None:
        self.refused(head(version="HTTP/1.0"), 400)

    def test_what_the_facility_holds_is_not_judged_before_the_visitor(self) -> None:
        for facility in ("%ff", "%00", "a:b", "x" * 300):
            with self.subTest(facility=facility):
                handshake = judge(head(f"/ws/{facility}?subscribe-user"))
                granted = Admission(Identity(), handshake.flags, None)
                denied = self.assertRaises(Denied, check_admission, handshake, granted)
                self.assertEqual(denied.status, 401)


class FlagTests(HandshakeTestCase):
    def flags(self, query: str) -> list[str]:
        return list(judge(head(f"/ws/foobar{query}")).flags)

    def test_no_query_and_an_empty_one_hold_no_flag(self) -> None:
        for query in ("", "?", "?&", "?&&&"):
            with self.subTest(query=query):
                self.assertEqual(self.flags(query), [])

    def test_unknown_flags_are_kept_for_whoever_knows_more(self) -> None:
        self.assertEqual(self.flags("?_=123&subscribe-team"), ["_", "subscribe-team"])

    def test_escaped_names_are_the_same_names(self) -> None:
        self.assertEqual(self.flags("?%65cho&subscribe%2Duser"), ["echo", "subscribe-user"])

    def test_a_value_never_becomes_a_flag(self) -> None:
        self.assertEqual(self.flags("?x=%26echo&y=echo"), ["x", "y"])

    def test_a_second_question_mark_is_part_of_the_query(self) -> None:
        self.assertEqual(self.flags("?echo?x&subscribe-user"), ["echo?x", "subscribe-user"])

    @settings(deadline=None, max_examples=100)
    @given(st.lists(st.sampled_from(["echo", "subscribe-user", "x"])), st.data())
    def test_any_case_any_value_and_any_repetition_give_the_same_flags(
        self, names: list[str], data: st.DataObject
    ) -> None:
        parts = []
        for name in names:
            spelt = data.draw(st.sampled_from([name, name.upper(), name.title()]))
            parts.append(spelt + data.draw(st.sampled_from(["", "=", "=1", "=a=b", "=%26"])))
        self.assertEqual(self.flags("?" + "&".join(parts)), list(dict.fromkeys(names)))


class SubprotocolTests(HandshakeTestCase):
    def test_subprotocols_keep_the_order_in_which_they_were_offered(self) -> None:
        for value, names in (
            (None, ()),
            ("", ()),
            ("chat", ("chat",)),
            ("b, a", ("b", "a")),
            ("b,a,\tC", ("b", "a", "C")),
            (",b,,a,", ("b", "a")),
        ):
            with self.subTest(value=value):
                handshake = judge(head(fields={"Sec-WebSocket-Protocol": value}))
                self.assertEqual(handshake.subprotocols, names)

    def test_offers_in_two_headers_are_one_list(self) -> None:
        data = head("/ws/", {"Sec-WebSocket-Protocol": "b"}, "sec-websocket-protocol: a")
        self.assertEqual(judge(data).subprotocols, ("b", "a"))

    def test_what_is_no_token_is_a_400(self) -> None:
        for value in ("a b", 'a"', "a/b", "a;q=1", "\xe4"):
            with self.subTest(value=value):
                self.refused(head(fields={"Sec-WebSocket-Protocol": value}), 400)


class FacilityTests(HandshakeTestCase):
    def test_the_facility_is_what_follows_the_websocket_url_decoded(self) -> None:
        for path, facility in (
            ("/ws/", ""),
            ("/ws/foobar", "foobar"),
            ("/ws/a/b/", "a/b/"),
            ("/ws//", "/"),
            ("/ws/ws/", "ws/"),
            ("/ws/a%2Fb", "a/b"),
            ("/ws/a%3Ab", "a:b"),
            ("/ws/a+b", "a+b"),
            ("/ws/%C3%BC", "ü"),
            ("/ws/\xc3\xbc", "ü"),
            ("/ws/100%25", "100%"),
            ("/ws/../x", "../x"),
            ("/ws/%252F", "%2F"),
        ):
            with self.subTest(path=path):
                self.assertEqual(judge(head(path)).facility, facility)

    def test_a_query_is_no_part_of_it(self) -> None:
        self.assertEqual(judge(head("/ws/foobar?echo")).facility, "foobar")

    def test_escapes_and_bytes_that_are_not_utf8_are_a_400(self) -> None:
        for path in ("/ws/%ff", "/ws/%C3", "/ws/\xff", "/ws/%ED%A0%80", "/ws/%C0%80"):
            with self.subTest(path=path):
                handshake = judge(head(path))
                with self.assertRaises(Denied) as caught:
                    _ = handshake.facility
                self.assertEqual(caught.exception.status, 400)
                self.assertIsInstance(handshake.path_info, str)

    def test_another_websocket_url_is_cut_off_whole(self) -> None:
        request = read_request(head("/live/socket/foobar"))
        handshake = judge_request(request, "/live/socket/", secure=False, peer="")
        self.assertEqual(handshake.facility, "foobar")


class RefusalTests(HandshakeTestCase):
    def test_every_status_of_the_contract_becomes_a_whole_response(self) -> None:
        for status in sorted(STATUSES):
            with self.subTest(status=status):
                got, headers, body = parse_response(refusal(Denied(status, "Because.")))
                self.assertEqual((got, body), (status, "Because.\n"))
                self.assertEqual(headers["connection"].lower(), "close")

    def test_its_headers_are_sent(self) -> None:
        denied = Denied(503, "Later.", headers=(("Retry-After", "2"),))
        self.assertEqual(parse_response(refusal(denied))[1]["retry-after"], "2")

    def test_the_detail_stays_in_the_log(self) -> None:
        answer = refusal(Denied(403, "No.", detail="Traceback: s3cret"))
        self.assertNotIn(b"s3cret", answer)

    def test_nothing_is_cached(self) -> None:
        self.assertIn("no-store", parse_response(refusal(Denied(403, "No.")))[1]["cache-control"])

    def test_each_refusal_of_a_plain_or_outdated_request_can_be_parsed(self) -> None:
        for data, status, name, value in (
            (head(fields={"Upgrade": None}), 426, "upgrade", "websocket"),
            (head(fields={"Sec-WebSocket-Version": "8"}), 426, "sec-websocket-version", "13"),
            (head(method="POST"), 405, "allow", "GET"),
        ):
            with self.subTest(status=status, name=name):
                got, headers, body = parse_response(refusal(self.refused(data, status)))
                self.assertEqual((got, headers[name]), (status, value))
                self.assertEqual(body.count("\n"), 1)

    def test_nothing_that_the_client_sent_is_repeated(self) -> None:
        for data in (
            head("/nowhere/s3cret"),
            head("/ws/s3cret", method="S3CRET"),
            head("/ws/s3cret", None, "s3cret"),
            head("/ws/", {"Sec-WebSocket-Key": "s3cret"}),
            head("/ws/", {"Sec-WebSocket-Protocol": "s3cret s3cret"}),
            b"s3cret",
        ):
            with self.subTest(data=data):
                denied = self.assertRaises(Denied, judge, data)
                self.assertNotIn(b"s3cret", refusal(denied).lower())


PIECES = st.sampled_from(
    [
        b"GET /ws/ HTTP/1.1",
        b"GET /ws/%ff?%ff&Echo=%00 HTTP/1.1",
        b"POST /ws/ HTTP/1.1",
        b"\r\n",
        b"\r\nHost: localhost",
        b"\r\nHost: [::1",
        b"\r\nUpgrade: websocket",
        b"\r\nConnection: Upgrade",
        b"\r\nSec-WebSocket-Version: 13",
        b"\r\nSec-WebSocket-Key: " + KEY.encode(),
        b"\r\nSec-WebSocket-Protocol: ",
        b"\r\nOrigin: https://localhost:99999",
        b"\r\nCookie: ",
        b": ",
        b"\x85",
        b"\xff",
    ]
)


class AnyBytesTests(HandshakeTestCase):
    def check(self, data: bytes) -> None:
        origins = OriginPolicy(["*"])
        try:
            handshake = judge(data)
            self.assertLessEqual({name.lower() for name in FIELDS}, handshake.headers.keys())
            origins.check(handshake)
            rights = tuple(flag for flag in handshake.flags if flag.startswith("subscribe-"))
            check_admission(handshake, Admission(Identity("s", "u", ("g",)), rights, None))
        except Denied as denied:
            self.assertIn(denied.status, STATUSES - {500, 503})
            self.assertEqual(parse_response(refusal(denied))[0], denied.status)

    @settings(deadline=None, max_examples=150)
    @given(st.binary(max_size=80))
    @example(b"\xff" * MAX_HEAD_BYTES)
    @example(b"\r\n" * 1000)
    def test_no_bytes_raise_anything_but_denied(self, data: bytes) -> None:
        self.check(data)

    @settings(deadline=None, max_examples=250)
    @given(st.lists(st.one_of(PIECES, st.binary(max_size=4)), max_size=12).map(b"".join))
    def test_no_pieces_of_a_handshake_raise_anything_but_denied(self, data: bytes) -> None:
        self.check(data)

    @settings(deadline=None, max_examples=150)
    @given(st.integers(0, 400), st.binary(max_size=3))
    def test_no_damage_to_a_good_handshake_raises_anything_but_denied(
        self, position: int, damage: bytes
    ) -> None:
        data = head(
            "/ws/a%C3%BC?subscribe-user&x=1", {"Origin": "https://localhost"}, "Cookie: a=1"
        )
        position %= len(data)
        self.check(data[:position] + damage + data[position + 1 :])

    @settings(deadline=None, max_examples=100)
    @given(st.text(st.characters(max_codepoint=255), max_size=20))
    def test_whatever_stands_in_a_value_adds_no_header(self, value: str) -> None:
        line = f"X-Note: {value}".replace("\r\n", "")
        names = [name for name, _ in read_request(head("/ws/", None, line)).headers]
        self.assertLessEqual(len(names), len(FIELDS) + 1)
        self.assertLessEqual(set(names), {*map(str.lower, FIELDS), "x-note"})
