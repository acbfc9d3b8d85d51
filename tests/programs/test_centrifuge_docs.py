"""The guides to Centrifuge's protocol are true: their blocks are run, in Chromium with the package
of npm, in Django, and in a program with the package of PyPI. Issue 17.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from typing import Any
from urllib.parse import quote

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support import ROOT
from tests.support.centrifuge_clients import VERSIONS
from tests.support.cutting import HERE
from tests.support.django import in_thread, set_up_django
from tests.support.javascript_pages import inside, open_page
from tests.support.pages import DOCS, Block, blocks_of
from tests.support.programs import Program
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase

set_up_django()

from django.contrib.auth.models import AnonymousUser, Group, User
from django.core.signals import request_finished, request_started
from django.template import engines
from django.test import RequestFactory

from ws4redis_tx.config import django_settings
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.protocols.centrifuge import errors
from ws4redis_tx.protocols.centrifuge.commands import COMMANDS
from ws4redis_tx.protocols.centrifuge.names import MOST_BYTES
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS
from ws4redis_tx.publisher import RedisPublisher

CODE = "".join(
    each.read_text()
    for each in (ROOT / "ws4redis_tx" / "protocols" / "centrifuge").glob("*.py")
    if each.name != "errors.py"
)
TEXT = (DOCS / "centrifuge.md").read_text()
WEB, MOBILE = (blocks_of(DOCS / name) for name in ("centrifuge.md", "centrifuge-mobile.md"))
(
    URL, THREE_LINES, PUBLISHING, CLIENT_PUBLISHES, RIGHTS, HISTORY, RECOVERY, OLDER, SINCE,
    PRESENCE, JOINS, WHO, SERVER_SIDE, CALLABLES, NAMES, ANSWER, CALL, TRANSPORTS, TOLD,
) = range(19)  # fmt: skip
TOKEN, APP, PROGRAM, ROOM_TOKEN, ROOM = range(5)

CONNECT = """
    const address = `${location.origin.replace("http", "ws")}/connection/websocket`;
    const centrifuge = new Centrifuge(address);
    centrifuge.connect();
"""
SUBSCRIBED = """
    const subscribed = (subscription) => new Promise((done) => subscription.on("subscribed", done));
"""


def run(block: Block, **names: Any) -> dict[str, Any]:
    exec(block.code, names)
    return names


class BlockTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        for blocks, beginnings in (
            (
                WEB,
                [
                    "WS4REDIS_CENTRIFUGE_URL", "const centrifuge", "import json",
                    "await subscription.publish", "from django.core", "WS4REDIS_HISTORY",
                    "const room", "const {publications}", "{% load ws4redis %}",
                    "WS4REDIS_PRESENCE", "const room",
                    "from django.http", "const address", "WS4REDIS_CENTRIFUGE_NAMES",
                    "def channel_of", "from django.core", "const {data}", "const origin",
                    "const told",
                ],
            ),
            (
                MOBILE,
                [
                    "from django.http", "const centrifuge", "import asyncio", "from django",
                    "const room",
                ],
            ),
        ):  # fmt: skip
            self.assertEqual(len(blocks), len(beginnings))
            for block, beginning in zip(blocks, beginnings, strict=True):
                self.assertTrue(block.code.startswith(beginning), block.where)

    def test_the_three_lines_are_three(self) -> None:
        self.assertEqual(WEB[THREE_LINES].code.count("\n"), 3)

    def test_the_settings_are_settings(self) -> None:
        for number in (URL, HISTORY, PRESENCE, CALLABLES):
            for name in run(WEB[number]):
                if name.isupper():
                    self.assertIn(name, django_settings.DEFAULTS)


class TableTests(SynchronousTestCase):
    """The tables, against the code."""

    def test_every_error_and_every_code_is_there(self) -> None:
        told = {
            int(code): message for code, message in re.findall(r"^\| (\d+) ?([^|]*) \|", TEXT, re.M)
        }
        pushed = {errors.SERVER_UNSUBSCRIBE, errors.UNSUBSCRIBE_INSUFFICIENT}
        pushed.add(errors.UNSUBSCRIBE_EXPIRED)
        for name, value in vars(errors).items():
            if not re.search(rf"\b{name}\b", CODE):
                continue  # nothing uses it
            if isinstance(value, errors.Error):
                self.assertTrue(told.get(value.code, "").startswith(value.message), name)
            elif isinstance(value, errors.Disconnection) and value not in pushed:
                self.assertEqual(told.get(value.code), value.reason)

    def test_a_library_stays_away_after_the_codes_that_say_so(self) -> None:
        for code, does in re.findall(r"^\| (3\d+) [^|]*\|[^|]*\| ([^|]*) \|", TEXT, re.M):
            self.assertEqual(does.startswith("stays away"), 3500 <= int(code) < 4000, code)

    def test_every_command_is_told(self) -> None:
        for command in COMMANDS:
            self.assertIn(f"`{command}`", TEXT)

    def test_the_limits_are_those_of_the_code(self) -> None:
        config = ServerConfig()
        for sentence in (
            f"| channels of one connection | {MOST_CHANNELS} |",
            f"| a name | {MOST_BYTES} bytes |",
            f"| every {config.centrifuge_ping:.0f} s, to be answered within "
            f"{config.centrifuge_pong:.0f} s |",
            f"no `connect` within {config.centrifuge_connect_timeout:.0f} s",
        ):
            self.assertIn(sentence, TEXT)

    def test_the_versions_of_the_clients_are_those_that_the_tests_run(self) -> None:
        found = {
            library: tuple(versions.split(", "))
            for library, versions in re.findall(
                r"^\| \[`(centrifuge[^`]*)`\][^|]*\| ([\d., ]+) \|", TEXT, re.M
            )
        }
        self.assertEqual(found, VERSIONS)
        folder = ROOT / "tests" / "projects"
        named = "".join(
            (folder / kind / "package.json").read_text()
            for kind in ("centrifuge", "centrifuge_clients")
        )
        self.assertEqual({*re.findall(r"centrifuge@([\d.]+)", named)}, {*VERSIONS["centrifuge"]})
        go = (folder / "centrifuge_clients" / "go.mod").read_text()
        self.assertEqual(
            tuple(re.findall(r"/centrifuge-go v([\d.]+)", go)), VERSIONS["centrifuge-go"]
        )


class GuideTestCase(ContractTestCase):
    """A server with the settings of the page."""

    timeout = 180

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        settings = {
            name: value
            for number in (URL, HISTORY, PRESENCE)
            for name, value in run(WEB[number]).items()
            if name.isupper()
        }
        callback = run(WEB[RIGHTS])["allowed_channels"]
        named = run(WEB[CALLABLES])
        for number, setting in ((NAMES, "WS4REDIS_CENTRIFUGE_NAMES"), (ANSWER, "WS4REDIS_RPC")):
            settings[setting] = run(WEB[number])[named[setting].rpartition(".")[2]]
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=callback, WS4REDIS_REVOKE=True, **settings)

    @inlineCallbacks
    def open_page(self, user: str | None = "john") -> Any:
        cookies = {} if user is None else (yield self.log_in(user))
        self.page = yield open_page(self, self.port, cookies)

    def request(self, user: str = "john") -> Any:
        request = RequestFactory().get("/")
        request.user = User.objects.get(username=user)
        return request

    @inlineCallbacks
    def assert_shown(self, *values: Any) -> Any:
        yield self.page.until(f"shown.length >= {len(values)}")
        self.assertEqual((yield self.page.run("shown")), list(values))


class PageTests(GuideTestCase):
    """In the browser."""

    @inlineCallbacks
    def test_three_lines_of_javascript_hear_what_a_view_publishes(self) -> Any:
        yield self.open_page()
        wait = "await subscribed(centrifuge.getSubscription('user:orders'));"
        yield self.page.run(inside(WEB[THREE_LINES].code, SUBSCRIBED, wait))
        view = run(WEB[PUBLISHING])["order_shipped"]
        answer = yield in_thread(lambda: view(self.request()))
        self.assertEqual(answer.status_code, 200)
        yield self.assert_shown({"order": 7, "state": "shipped"})

    @inlineCallbacks
    def test_each_name_is_the_channel_that_the_table_says(self) -> Any:
        yield self.open_page()
        (key,) = yield in_thread(lambda: [self.session_key])
        audiences = {
            "broadcast:news": {"broadcast": True},
            "group:chatters:news": {"groups": ["chatters"]},
            "user:news": {"users": ["john"]},
            "session:news": {"sessions": [key]},
        }
        for name in audiences:
            yield self.page.run(
                inside(
                    CONNECT, SUBSCRIBED, f"const it = centrifuge.newSubscription('{name}');",
                    "it.on('publication', ({data}) => show(data)); it.subscribe();",
                    "await subscribed(it);",
                )
            )  # fmt: skip
        for name, audience in audiences.items():
            yield self.publish(json.dumps(name), facility="news", **audience)
        yield self.assert_shown(*audiences)

    @inlineCallbacks
    def log_in(self, username: str) -> Any:
        cookies = yield super().log_in(username)
        self.session_key = cookies["sessionid"]
        return cookies

    @inlineCallbacks
    def test_payloads_arrive_as_the_table_says(self) -> Any:
        yield self.open_page()
        yield self.page.run(
            inside(
                CONNECT, SUBSCRIBED, "const it = centrifuge.newSubscription('broadcast:any');",
                "it.on('publication', ({data, tags}) => show([data, tags ?? null]));",
                "it.subscribe();",
                "await subscribed(it);",
            )
        )  # fmt: skip
        for payload in ('{"a": 1}', "some text", b"\xff\x00", "42", '"42"'):
            yield self.publish(payload, facility="any", broadcast=True)
        yield self.assert_shown(
            [{"a": 1}, None],
            ["some text", {"ws4redis": "text"}],
            ["/wA=", {"ws4redis": "base64"}],
            [42, None],
            ["42", None],
        )

    @inlineCallbacks
    def test_the_callback_decides_who_publishes_and_who_hears_of_the_dashboard(self) -> Any:
        yield self.open_page()
        yield self.page.run(
            inside(
                CONNECT, SUBSCRIBED,
                "const subscription = centrifuge.newSubscription('broadcast:typing');",
                "subscription.on('publication', ({data, info}) => show([data, info.user]));",
                "subscription.subscribe();", WEB[CLIENT_PUBLISHES].code,
                "await centrifuge.publish('broadcast:other', 1).catch(({code}) => show(code));",
                "const staff = centrifuge.newSubscription('broadcast:dashboard');",
                "staff.on('unsubscribed', ({code}) => show(code)); staff.subscribe();",
            )
        )  # fmt: skip
        yield self.assert_shown([{"typing": True}, "john"], 103, 103)

    @inlineCallbacks
    def test_what_was_missed_arrives_once_or_is_told(self) -> Any:
        yield self.open_page()
        yield self.page.run(
            inside(CONNECT, WEB[RECOVERY].code, SUBSCRIBED, "await subscribed(room);")
            .replace("const centrifuge =", "const centrifuge = self.client =")
            .replace("const room =", "const room = self.room =")
        )
        yield self.say("one")
        yield self.assert_shown("one")
        yield self.page.run("client.disconnect(); 0")
        yield self.say("two", "three")
        yield self.page.run("client.connect(); 0")
        yield self.assert_shown("one", "two", "three")
        yield self.page.run("client.disconnect(); 0")
        yield self.say(*map(str, range(101)))
        yield self.page.run("client.connect(); 0")
        yield self.assert_shown("one", "two", "three", "Something may be missing here.")
        found = yield self.page.run(
            inside(
                "const room = self.room;",
                WEB[OLDER].code,
                "return publications.map((each) => each.data);",
            )
        )
        self.assertEqual(found, list(range(100, 80, -1)))

    @inlineCallbacks
    def test_a_page_hears_what_comes_between_its_query_and_its_subscription(self) -> Any:
        def view() -> str:
            request_started.send(sender=None)
            try:
                publisher = RedisPublisher(facility="chat/1", broadcast=True)
                publisher.publish_message('"between"')
                template = engines["django"].from_string(WEB[SINCE].code)
                return str(template.render({"request": self.request()}))
            finally:
                request_finished.send(sender=None)

        yield in_thread(RedisPublisher.position)  # there is nothing before it
        page = yield in_thread(view)
        script = page.partition("<script>")[2].partition("</script>")[0]
        yield self.open_page()
        yield self.page.run(inside(CONNECT, SUBSCRIBED, script, "await subscribed(room);"))
        yield self.say("live")
        yield self.assert_shown("between", "live")

    @inlineCallbacks
    def say(self, *messages: str) -> Any:
        for each in messages:
            yield self.publish(each, facility="chat/1", broadcast=True)

    @inlineCallbacks
    def test_those_who_are_there(self) -> Any:
        yield self.open_page("mary")
        yield self.page.run(
            inside(CONNECT, WEB[JOINS].code).replace("const centrifuge =", "self.centrifuge =")
        )
        yield self.page.until("shown.length >= 2")
        shown = yield self.page.run("shown")
        self.assertEqual(sorted(shown, key=str), [["mary"], "mary is here"])
        view = run(WEB[WHO])["room"]
        answer = yield in_thread(lambda: view(self.request(), 1))
        self.assertEqual(json.loads(answer.content), {"present": ["mary"], "mary": True})
        classic = yield self.open("chat/1?subscribe-broadcast", cookies=(yield self.log_in("john")))
        yield self.page.until("shown.includes('john is here')")
        classic.sendClose(1000)
        yield self.page.until("shown.includes('john has left')")

    @inlineCallbacks
    def test_subscriptions_of_the_server(self) -> Any:
        yield self.open_page()
        wait = "await new Promise((done) => centrifuge.on('connected', done));"
        yield self.page.run(inside(WEB[SERVER_SIDE].code, wait))
        yield self.publish("1", facility="orders", users=["john"])
        yield self.publish("2", facility="orders", broadcast=True)
        yield self.assert_shown(1, 2)

    @inlineCallbacks
    def test_names_of_ones_own_and_remote_calls(self) -> Any:
        yield self.open_page()
        pk = (yield in_thread(lambda: User.objects.get(username="john"))).pk
        answers = yield self.page.run(
            inside(
                CONNECT, SUBSCRIBED, "const answers = [];",
                f"for (const name of ['news', '#{pk}', '#{pk + 1}', 'none', 'broadcast:other']) {{",
                "const it = centrifuge.newSubscription(name);"
                "it.on('publication', ({channel, data}) => show([channel, data])); it.subscribe();",
                "answers.push(await new Promise((done) => { it.on('subscribed', () => done(0));",
                "it.on('unsubscribed', ({code}) => done(code)); })); }",
                WEB[CALL].code, "answers.push(data);",
                "await centrifuge.rpc('other', 1).catch(({code}) => answers.push(code));",
                "return answers;",
            )
        )  # fmt: skip
        self.assertEqual(answers, [0, 0, 102, 102, 0, {"sum": 6}, 103])
        yield self.publish("1", facility="news", broadcast=True)
        yield self.publish("2", facility="inbox", users=["john"])
        yield self.assert_shown(["news", 1], [f"#{pk}", 2])

    @inlineCallbacks
    def test_refusals_are_told(self) -> Any:
        yield self.open_page(None)
        yield self.page.run(
            inside(
                "console.warn = (...told) => show(told.slice(0, 2));",
                CONNECT.replace("/connection/websocket", "/nowhere/websocket"),
                "const subscription = centrifuge.newSubscription('user:orders');",
                WEB[TOLD].code, "self.first = centrifuge;",
            )
        )  # fmt: skip
        yield self.page.until("shown.length === 1")
        yield self.page.run("first.disconnect(); 0")
        yield self.page.run(
            inside(
                CONNECT,
                "const subscription = centrifuge.newSubscription('user:orders');",
                WEB[TOLD].code, "subscription.subscribe();",
            )
        )  # fmt: skip
        yield self.assert_shown(["error", 2], ["disconnected", 0], ["unsubscribed", 103])

    @inlineCallbacks
    def test_other_transports(self) -> Any:
        yield self.open_page()
        tell = "centrifuge.on('connected', ({transport}) => show(transport));"
        hear = (
            "const it = centrifuge.newSubscription('broadcast:any');"
            "it.on('publication', ({data}) => show(data)); it.subscribe();"
            "await new Promise((done) => it.on('subscribed', done)); centrifuge.disconnect();"
        )
        for missing in ("", "self.WebSocket = undefined;", "self.ReadableStream = undefined;"):
            yield self.page.run(inside(missing, WEB[TRANSPORTS].code, tell, hear))
        yield self.assert_shown("websocket", "http_stream", "sse")


class Forbidding(Resource):
    isLeaf = True

    def render_GET(self, request: Any) -> bytes:  # noqa: N802
        request.setResponseCode(403)
        return b""


class MobileTests(GuideTestCase):
    """With tokens."""

    @inlineCallbacks
    def token(self, user: Any) -> Any:
        view = run(MOBILE[TOKEN])["push_token"]

        def ask() -> Any:
            request = RequestFactory().get("/")
            request.user = User.objects.get(username=user) if user else AnonymousUser()
            return view(request)

        return (yield in_thread(ask))

    def local(self, code: str) -> str:
        return code.replace("wss://example.com", f"ws://127.0.0.1:{self.port}")

    @inlineCallbacks
    def app(self, answer: Any) -> Any:
        """Fire with a page without cookies, whose site answers with this."""
        yield self.open_page(None)
        body = answer.content.decode()
        yield self.page.run(
            f"self.fetch = async () => ({{status: {answer.status_code},"
            f"json: async () => ({body})}}); 0"
        )

    @inlineCallbacks
    def test_an_app_connects_with_the_token_of_the_view(self) -> Any:
        yield self.app((yield self.token("john")))
        wait = "await subscribed(centrifuge.getSubscription('user:orders'));"
        yield self.page.run(inside(self.local(MOBILE[APP].code), SUBSCRIBED, wait))
        yield self.publish("7", facility="orders", users=["john"])
        yield self.assert_shown(7)

    @inlineCallbacks
    def test_an_app_without_a_login_stops_and_is_told(self) -> Any:
        yield self.app((yield self.token(None)))
        wait = (
            "return await new Promise((done) =>"
            "centrifuge.on('disconnected', ({code}) => done(code)));"
        )
        code = yield self.page.run(inside(self.local(MOBILE[APP].code), wait))
        self.assertEqual(code, 1)  # "unauthorized", in the library's words

    @inlineCallbacks
    def test_a_room_token_is_the_right_to_the_room(self) -> Any:
        names = run(MOBILE[ROOM_TOKEN], may_enter=lambda user, number: user.username == "john")
        answer = yield in_thread(lambda: names["room_token"](self.request(), 7))
        with self.assertRaises(names["PermissionDenied"]):
            yield in_thread(lambda: names["room_token"](self.request("mary"), 7))
        yield self.open_page()
        yield self.page.run(
            f"self.fetch = async () => ({{json: async () => ({answer.content.decode()})}}); 0"
        )
        yield self.page.run(
            inside(CONNECT, MOBILE[ROOM].code, SUBSCRIBED, "await subscribed(room);")
        )
        yield self.publish("7", facility="room/7", broadcast=True)
        yield self.assert_shown(7)

    @inlineCallbacks
    def test_a_program_in_python(self) -> Any:
        answer = yield self.token("john")
        given = f"data:application/json,{quote(answer.content.decode())}"
        code = self.local(MOBILE[PROGRAM].code).replace("https://example.com/push-token/", given)
        program = self.program(code)
        while "user:john:orders" not in self.channels():
            yield self.broker.fence()
        yield self.publish('"for john"', facility="orders", users=["john"])
        yield program.wait_for("for john")

    @inlineCallbacks
    def test_a_program_without_a_login_stops_and_says_so(self) -> Any:
        port = yield serverFromString(reactor, HERE).listen(Site(Forbidding()))
        self.addCleanup(port.stopListening)
        site = f"http://127.0.0.1:{port.getHost().port}"
        program = self.program(
            self.local(MOBILE[PROGRAM].code).replace("https://example.com", site)
        )
        yield program.wait_for("stopped: unauthorized")

    def program(self, code: str) -> Program:
        if importlib.util.find_spec("centrifuge") is None:
            raise SkipTest("there is no centrifuge-python (pip install -e '.[test]')")
        program = Program(sys.executable, "-u", "-c", code)
        self.addCleanup(program.end)
        return program

    @inlineCallbacks
    def test_groups_are_those_of_the_token(self) -> Any:
        yield self.app((yield self.token("john")))
        yield in_thread(lambda: Group.objects.get(name="chatters"))
        wait = (
            "const it = centrifuge.newSubscription('group:chatters:news'); it.subscribe();"
            "await subscribed(it);"
            "return await new Promise((done) => { const mine = centrifuge.newSubscription("
            "'session:news'); mine.on('unsubscribed', ({code}) => done(code));"
            "mine.subscribe(); });"
        )
        code = yield self.page.run(inside(self.local(MOBILE[APP].code), SUBSCRIBED, wait))
        self.assertEqual(code, 103)
