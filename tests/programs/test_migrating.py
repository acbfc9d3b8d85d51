"""The guide to migrating is true: its blocks are run, its names are looked up."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.brokers import share_commands, start_broker
from tests.support.clients import exchange
from tests.support.django import SETTINGS, cookies_of, in_thread, log_in, set_up_django
from tests.support.pages import DOCS, broken_links
from tests.support.redis import shared_redis
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx.core.redis_address import RedisAddress, without_effect
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.tap import Options
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

set_up_django()

from django.contrib.auth.models import User
from django.template import engines
from django.test import RequestFactory, override_settings

from examples import subscribers
from ws4redis_tx import policies
from ws4redis_tx.config import django_settings
from ws4redis_tx.django import memberof

GUIDE = (ROOT / "docs" / "migrating.md").read_text()


def section(heading: str) -> str:
    """The text below a heading of either level, up to the next."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^##? [A-Z]|\Z)", GUIDE, re.M | re.S)
    assert found, heading
    return found[1]


def blocks(heading: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", section(heading), re.M | re.S)


def run(code: str) -> dict[str, Any]:
    """Execute a block and return the names that it defines."""
    names: dict[str, Any] = {"__name__": "guide"}
    exec(code, names)
    return names


def request_of(username: str) -> Any:
    request = RequestFactory(headers={"host": "127.0.0.1"}).get("/")
    request.user = User.objects.get(username=username)
    return request


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(
            re.findall(r"^```(\w+)$", GUIDE, re.M),
            [
                *("python", "python", "python", "python", "python", "python"),
                *("py", "python", "sh", "ini", "nginx", "py", "python", "html"),
            ],
        )

    def test_the_settings_it_names_exist(self) -> None:
        named = set(re.findall(r"\b(?:WS4REDIS_[A-Z_]+|WEBSOCKET_URL)\b", GUIDE))
        self.assertEqual(named - set(django_settings.DEFAULTS), set())

    def test_the_table_holds_every_setting_with_its_default(self) -> None:
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", section("Settings"), re.M)
        table = dict(rows)
        self.assertEqual(set(table), set(django_settings.DEFAULTS))
        address = RedisAddress()
        self.assertEqual(
            table.pop("WS4REDIS_CONNECTION"),
            f"Redis on `{address.host}:{address.port}`, database {address.db}",
        )
        for name, default in table.items():
            self.assertEqual(
                ast.literal_eval(default.strip("`")), django_settings.DEFAULTS[name], name
            )

    def test_the_names_of_ours_can_be_imported(self) -> None:
        for name in set(re.findall(r"\bws4redis_tx(?:\.\w+)+", GUIDE)):
            namedAny(name)
        for names, module in re.findall(r": (`.+`) \| `(ws4redis_tx\.\w+)` \|$", GUIDE, re.M):
            for name in re.findall(r"`(\w+)`", names):
                namedAny(f"{module}.{name}")

    def test_everything_of_upstreams_is_named_with_what_replaces_it(self) -> None:
        rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section("Imports"), re.M)
        for old, new in (
            ("ws4redis.publisher.redis_connection_pool", "redis.Redis.from_url"),
            ("StrictRedis", "fetch_message"),
            ("ws4redis.django_runserver", "ws4redis_tx.runserver"),
            ("ws4redis.uwsgi_runserver", "twistd ws4redis"),
            ("ws4redis.wsgi_server", "WS4REDIS_PROCESS_REQUEST"),
            ("WSGI_APPLICATION = 'ws4redis.", "own WSGI application"),
        ):
            self.assertTrue(any(old in row[0] and new in row[1] for row in rows), old)

    def test_every_option_of_redis_py_that_is_taken_is_named(self) -> None:
        for name in ("socket_timeout", "decode_responses", "max_connections", "retry_on_timeout"):
            self.assertIn(f"`{name}`", section("Settings"))
            error = next(without_effect({name: "anything"}))
            self.assertIn(name, error.problem)

    def test_the_example_for_groups_that_are_none_of_djangos_is_named(self) -> None:
        text = section("Groups that are none of Django's")
        (name,) = re.findall(r"`(\w+Subscriber)`", text)
        self.assertTrue(issubclass(getattr(subscribers, name), RedisSubscriber))
        self.assertIn(f"session[{memberof.KEY!r}]", text)

    def test_the_subscribers_methods_it_lists_exist(self) -> None:
        rows = re.findall(r"^\| (`.+?) \|", section("Your own subscriber"), re.M)
        names = [name for row in rows for name in re.findall(r"`(\w+)", row)]
        self.assertEqual(len(names), 9)
        for name in names:
            self.assertTrue(hasattr(RedisSubscriber, name), name)

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(DOCS / "migrating.md"), [])

    def test_the_code_of_before_is_python(self) -> None:
        for heading in ("Your own subscriber", "From Channels"):
            (code,) = blocks(heading, "py")
            compile(code, heading, "exec")

    def test_the_commands_are_understood(self) -> None:
        (development,) = blocks("Running the server", "sh")
        (unit,) = blocks("Running the server", "ini")
        (production,) = re.findall(r"^ExecStart=(.+)$", unit, re.M)
        for command, listen in (
            (development, "tcp:8000:interface=127.0.0.1"),
            (production, "unix:/run/mysite/websockets.sock"),
        ):
            words = shlex.split(command)
            self.assertTrue(words[0].endswith("twistd"))
            options = Options()
            given = words[words.index("ws4redis") + 1 :]
            options.parseOptions(
                [SETTINGS if word == "mysite.settings" else word for word in given]
            )
            self.assertEqual(options["config"].listen, (listen,))
            self.assertEqual(options["serve-django"], command == development)


# A browser's headers, sent for a page on https://www.example.com:8443.
BROWSER = {
    "Host": "www.example.com:8443",
    "Origin": "https://www.example.com:8443",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def passed_on(location: str) -> bytes:
    """The browser's request as nginx forwards it with these lines: by default with HTTP/1.0 and
    nginx's own Host, and without hop-by-hop headers.
    """
    headers = {**BROWSER, "Host": "localhost", "Connection": "close"}
    del headers["Upgrade"]
    variables = {
        "$http_upgrade": BROWSER["Upgrade"],
        "$http_host": BROWSER["Host"],
        "$host": BROWSER["Host"].partition(":")[0],
        "$scheme": "https",
        "$proxy_add_x_forwarded_for": "192.0.2.1",
    }
    version = "1.0"
    for directive, value in re.findall(r"^    (proxy_\w+) (.+);$", location, re.M):
        if directive == "proxy_http_version":
            version = value
        elif directive == "proxy_set_header":
            name, value = shlex.split(value)
            headers[name] = variables.get(value, value)
    lines = [f"{name}: {value}" for name, value in headers.items()]
    request = f"GET /ws/news?subscribe-broadcast HTTP/{version}"
    return "\r\n".join([request, *lines, "", ""]).encode()


class NginxTests(SynchronousTestCase):
    def setUp(self) -> None:
        (self.location,) = blocks("Running the server", "nginx")

    def ask(self, location: str, *hosts: str) -> MemoryClient:
        client = MemoryClient(make_memory_factory(ServerConfig(allowed_hosts=hosts)))
        client.send_bytes(passed_on(location))
        return client

    def without(self, start: str) -> str:
        kept = [line for line in self.location.split("\n") if not line.strip().startswith(start)]
        self.assertEqual(len(kept), self.location.count("\n"))
        return "\n".join(kept)

    def test_what_it_passes_on_opens_a_websocket(self) -> None:
        self.assertTrue(self.ask(self.location, "www.example.com").open)

    def test_each_line_of_the_handshake_is_needed_and_is_missed_as_the_guide_says(self) -> None:
        for start, status in (
            ("proxy_http_version", 400),
            ("proxy_set_header Upgrade", 426),
            ("proxy_set_header Connection", 426),
            ("proxy_set_header Host", 400),
        ):
            refused = self.ask(self.without(start), "www.example.com").refused
            self.assertEqual(refused, status, start)
        unnamed = self.ask(self.without("proxy_set_header Host"), "www.example.com", "localhost")
        self.assertEqual(unnamed.refused, 403)

    def test_a_host_without_its_port_is_not_the_origins(self) -> None:
        location = self.location.replace("$http_host", "$host")
        self.assertEqual(self.ask(location, "www.example.com").refused, 403)

    def test_its_path_is_that_of_the_websockets_and_its_socket_that_of_the_unit(self) -> None:
        (path,) = re.findall(r"^location (\S+) {$", self.location, re.M)
        self.assertEqual(path, django_settings.DEFAULTS["WEBSOCKET_URL"])
        (socket,) = re.findall(r"proxy_pass http://(\S+);$", self.location, re.M)
        (unit,) = blocks("Running the server", "ini")
        self.assertIn(f"--listen {socket} ", unit)


class BlockTests(SynchronousTestCase):
    def test_imports(self) -> None:
        (code,) = blocks("Imports", "python")
        names = run(code)
        self.assertEqual(names["ws4redis_settings"].WS4REDIS_EXPIRE, 3600)

    def test_settings(self) -> None:
        (code,) = blocks("Settings", "python")
        values = {name: value for name, value in run(code).items() if name.isupper()}
        apps = values.pop("INSTALLED_APPS")
        self.assertIn("ws4redis_tx", apps)
        self.assertLess(set(values), set(django_settings.DEFAULTS))
        with override_settings(**values):
            self.assertEqual(django_settings.problems(), [])
            self.assertEqual(django_settings.get_redis_address().db, 2)

    def test_the_old_rule(self) -> None:
        code, _ = blocks("Who may publish", "python")
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=run(code)["WS4REDIS_ALLOWED_CHANNELS"]):
            self.assertIs(
                django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS"), policies.allow_all
            )

    def test_the_subscriber_of_after_drops_what_is_not_allowed(self) -> None:
        class AllowAll:
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                john = Identity("abc", "john")
                return Admission(john, tuple(rights), PlainRequest(handshake.path_info, john))

        (code,) = blocks("Your own subscriber", "python")
        names = run(code)
        names["deferToThread"] = maybeDeferred
        factory = make_memory_factory(authorizer=AllowAll(), subscriber=names["Subscriber"])
        client = connect(factory, "ws://localhost/ws/news?subscribe-user&publish-user&echo")
        for message in ("hello", "buy spam", "bye"):
            client.send(message)
        self.assertEqual(client.messages, ["hello", "bye"])

    def test_replaced_whole_set_pubsub_channels_returns_the_deferred_of_subscribe(self) -> None:
        waiting: list[Deferred[None]] = []

        class SlowBroker(MemoryBroker):
            def listen(self, channel: bytes, listener: Any) -> Deferred[None]:
                stands: Deferred[None] = Deferred()
                waiting.append(stands)
                return super().listen(channel, listener).addCallback(lambda _: stands)

        class Whole(RedisSubscriber):
            def set_pubsub_channels(self, request: Any, channels: Any) -> Deferred[Any]:
                self._subscription = self._connection.pubsub()
                subscribed: Deferred[Any] = self._subscription.subscribe("one", "two")
                return subscribed

        factory = make_memory_factory(broker=SlowBroker(), subscriber=Whole)
        waiting.clear()  # the server's own
        client = connect(factory, "ws://localhost/ws/news?subscribe-broadcast")
        for stands in waiting:
            self.assertFalse(client.open)
            stands.callback(None)
        self.assertEqual((len(waiting), client.open), (2, True))


class PublisherBlockTests(TestCase):
    timeout = 60

    def setUp(self) -> Any:
        self.redis = shared_redis()
        self.broker = start_broker(self, self.redis.address)
        share_commands(self, self.broker.commands)
        return self.broker.when_available()

    @inlineCallbacks
    def test_a_publish_that_may_fail(self) -> Any:
        code, _ = blocks("The publisher", "python")
        names = run(code)
        self.assertEqual((yield in_thread(names["tell_everybody"], "hi")), 0)
        self.assertEqual(self.redis.command("GET", "broadcast:news"), b"hi")
        self.assertGreater(60 + 1, self.redis.command("TTL", "broadcast:news"))

        class Unreachable:
            def __init__(self, **audience: Any) -> None:
                pass

            def publish_message(self, message: str, expire: int) -> int:
                raise BrokerUnavailable("gone", maybe_published=maybe)

        names["RedisPublisher"] = Unreachable
        maybe = True
        self.assertIsNone(names["tell_everybody"]("hi"))
        maybe = False
        self.assertRaises(BrokerUnavailable, names["tell_everybody"], "hi")

    @inlineCallbacks
    def test_a_publish_in_a_transaction(self) -> Any:
        class Order:
            pk = 7

            def save(self) -> None:
                if self.pk is None:
                    raise ValueError("no order")

        class Unsaved(Order):
            pk = None

        _, code = blocks("The publisher", "python")
        place_order = run(code)["place_order"]
        yield self.assertFailure(in_thread(place_order, Unsaved()), ValueError)
        yield in_thread(place_order, Order())
        self.assertEqual(self.redis.command("GET", "group:staff:orders"), b"Order 7")


class ServerBlockTests(ServerTestCase):
    """The blocks that concern browsers, with a server that knows Django's visitors."""

    @inlineCallbacks
    def serve(self) -> Any:
        config = ServerConfig(redis=self.redis.address, listen=LISTEN, django=True)
        service = yield self.start_server(config)
        share_commands(self, service.factory.broker.commands)
        self.john = cookies_of((yield log_in("john")))

    @inlineCallbacks
    def test_the_callback_narrows_grants_and_refuses(self) -> Any:
        _, code = blocks("Who may publish", "python")
        yield self.serve()
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=run(code)["allowed_channels"]):
            yield self.open("news?subscribe-broadcast&subscribe-user")
            self.assertEqual(self.redis.channels(), [b"broadcast:news"])
            yield self.open("news?subscribe-user&publish-broadcast", cookies=self.john)
            self.assertEqual(self.redis.channels(), [b"broadcast:news", b"user:john:news"])
            cookie = "; ".join(f"{name}={value}" for name, value in self.john.items())
            refused = yield exchange(
                self.port, handshake_bytes("/ws/staff?subscribe-broadcast", Cookie=cookie)
            )
            self.assertEqual(status_of(refused), 403)

    @inlineCallbacks
    def test_the_page_hears_what_the_view_publishes(self) -> Any:
        (view,) = blocks("From Channels", "python")
        (page,) = blocks("From Channels", "html")
        yield self.serve()
        template = engines["django"].from_string("{% load ws4redis %}" + page)

        def render() -> str:
            return template.render({}, request_of("john"))

        html = yield in_thread(render)
        opened = re.search(r'new WebSocket\("ws://127\.0\.0\.1/ws/(.+)"\)', html)
        self.assertIsNotNone(opened)
        client = yield self.open(opened[1], cookies=self.john)
        publish = run(view)["publish"]
        response = yield in_thread(lambda: publish(request_of("john")))
        self.assertEqual(response.content, b"done")
        self.assertEqual((yield client.take(2)), ["to all", "to you"])
