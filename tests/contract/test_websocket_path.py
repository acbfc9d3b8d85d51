"""``{% websocket_path %}``: an address for attributes and ``EventSource``, without a host."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import in_thread, set_up_django
from tests.support.events import open_events
from tests.support.sites import ContractTestCase

set_up_django()

from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.template import Context, Template, engines
from django.test import RequestFactory, override_settings
from django.test.utils import override_script_prefix

from ws4redis_tx.context_processors import websocket_path, websocket_uri

RIGHTS = [f"{verb}-{whom}" for verb in ("subscribe", "publish")
          for whom in ("broadcast", "group", "user", "session")]  # fmt: skip


def render(arguments: str, text: str = "{}", request: Any = None, **context: Any) -> str:
    tag = text.format(f"{{% websocket_path {arguments} %}}")
    template = engines["django"].from_string(f"{{% load ws4redis %}}{tag}")
    return str(template.render(context, request or RequestFactory(HTTP_HOST="localhost").get("/")))


class Attributes(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.values: list[str | None] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.values += [value for _, value in attrs]


class TagTests(SynchronousTestCase):
    def test_it_is_the_path_with_the_flags(self) -> None:
        self.assertEqual(render("'orders' 'subscribe-user'"), "/ws/orders?subscribe-user")
        self.assertEqual(
            render("'foo bar/ü' 'subscribe-broadcast' 'echo'"),
            "/ws/foo%20bar/%C3%BC?subscribe-broadcast&echo",
        )
        self.assertEqual(render("5"), "/ws/5")
        self.assertEqual(websocket_path(RequestFactory().get("/"), "a", ["echo"]), "/ws/a?echo")

    def test_an_attribute_has_the_same_value_that_a_script_has(self) -> None:
        flags = [*RIGHTS, "echo"]
        arguments = "'a\\'\"<>&b' " + " ".join(f"'{flag}'" for flag in flags)
        path = render(arguments)
        self.assertEqual(path, "/ws/a%27%22%3C%3E%26b?" + "&".join(flags))
        for quote in "\"'":
            page = render(arguments, f"<div hx-ext=ws ws-connect={quote}{{}}&since=1.2{quote}>")
            self.assertEqual(Attributes(page).values, ["ws", f"{path}&since=1.2"])
        page = render(arguments.replace("'a", "'b") + " as path", "{}<a href='{{{{ path }}}}'>")
        self.assertEqual(Attributes(page).values, [path.replace("/a", "/b")])

    def test_it_has_the_script_name_that_websocket_url_has(self) -> None:
        request = RequestFactory(SCRIPT_NAME="/app", HTTP_HOST="localhost").get("/page")
        self.assertEqual(render("'a' 'echo'", request=request), "/app/ws/a?echo")
        with override_script_prefix("/app/"):
            self.assertEqual(render("'a' 'echo'"), "/app/ws/a?echo")
        with override_settings(WEBSOCKET_URL="/app/live/"):
            self.assertEqual(render("'a' 'echo'", request=request), "/app/live/a?echo")
        with override_script_prefix("/a'\"<&/"):
            path = render("'a' 'echo'", "<a href='{}'>")
            self.assertEqual(Attributes(path).values, ["/a%27%22%3C%26/ws/a?echo"])

    def test_it_needs_no_host(self) -> None:
        request = RequestFactory(HTTP_HOST="evil.example").get("/")
        self.assertRaises(DisallowedHost, websocket_uri, request, "a")
        self.assertEqual(websocket_path(request, "a"), "/ws/a")
        context = Context({"request": request})
        template = Template("{% load ws4redis %}{% websocket_path 'a' %}")
        self.assertEqual(template.render(context), "/ws/a")

    def test_it_takes_no_mistakes(self) -> None:
        for arguments, expected in (
            ("undefined 'subscribe-user'", "the facility is empty"),
            ("empty", "the facility is empty"),
            ("nothing", "the facility is empty"),
            ("'news' undefined", "a flag is empty"),
            ("'news' 'subscribe-brodcast'", "Did you mean subscribe-broadcast?"),
            ("'news' 'subscribe_user'", "Did you mean subscribe-user?"),
            ("'a:b' 'subscribe-user'", "contains a ':'"),
        ):
            error = self.assertRaises(ValueError, render, arguments, empty="", nothing=None)
            self.assertIn("{% websocket_path %}: ", str(error))
            self.assertIn(expected, str(error))

    def test_the_facility_with_the_empty_name_is_one_if_it_is_written(self) -> None:
        self.assertEqual(render("'' 'echo'"), "/ws/?echo")

    def test_it_needs_the_request(self) -> None:
        template = engines["django"].from_string("{% load ws4redis %}{% websocket_path 'a' %}")
        error = self.assertRaises(ImproperlyConfigured, template.render, {})
        self.assertIn("{% websocket_path %} needs the request", str(error))


class ServedTests(ContractTestCase):
    @inlineCallbacks
    def test_websockets_and_events_open_there(self) -> Any:
        yield self.serve()
        path = yield in_thread(render, "'a b' 'subscribe-broadcast' 'echo'")
        self.url = f"ws://127.0.0.1:{self.port}"
        client = yield self.open(path)
        source = yield open_events(self.port, path)
        self.addCleanup(source.transport.abortConnection)
        opened, live = yield source.take(2)
        self.assertEqual((opened.type, live.type), ("open", "live"))
        yield self.publish("hi", facility="a b", broadcast=True, expire=0)
        self.assertEqual((yield client.next()), "hi")
        self.assertEqual((yield source.next()).data, "hi")
