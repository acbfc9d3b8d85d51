"""The guide to embedding is true: its blocks are run, its names are looked up."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from dataclasses import fields
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.clients import exchange, open_websocket
from tests.support.django import SETTINGS, cookies_of, environment, log_in, set_up_django
from tests.support.memory import AllowAll
from tests.support.pages import DOCS, broken_links
from tests.support.programs import TWISTD, Program, write_file
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx import service
from ws4redis_tx.core.interfaces import Closing, IConnection
from ws4redis_tx.service import ServerConfig, make_service
from ws4redis_tx.testing import client_frame, connect, make_memory_factory

set_up_django()

from ws4redis_tx import signals

GUIDE = (ROOT / "docs" / "embedding.md").read_text()


def block(heading: str) -> str:
    (found,) = re.findall(rf"^## {heading}\n.*?^```python\n(.*?)^```", GUIDE, re.M | re.S)
    return str(found)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "guide"}
    exec(code, names)
    return names


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(re.findall(r"^```(\w+)$", GUIDE, re.M), ["python"] * 7)

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(DOCS / "embedding.md"), [])

    def test_it_names_what_hooks_are_given(self) -> None:
        hooks = GUIDE[GUIDE.index("\n## Hooks") :]
        for name in [each for each in dir(IConnection) if not each.startswith("_")]:
            self.assertIn(f"`{name}`", hooks)
        for each in fields(Closing):
            self.assertIn(f"`{each.name}`", hooks)
        for name in signals.__all__:
            self.assertIn(name, hooks)

    def test_what_it_imports_from_the_service_is_public(self) -> None:
        for names in re.findall(r"^from ws4redis_tx.service import (.+)$", GUIDE, re.M):
            self.assertLess(set(names.split(", ")), set(service.__all__))


class BlockTests(ServerTestCase):
    def here(self, code: str) -> str:
        """The same code on a free port, with this test's Redis."""
        code = code.replace("tcp:8080", "tcp:0")
        code = code.replace("redis://localhost:6379/0", str(self.redis.address))
        return code.replace(
            "config = ServerConfig(websocket_url",
            "from ws4redis_tx.service import parse_redis_address\n"
            f"redis = parse_redis_address({str(self.redis.address)!r})\n"
            "config = ServerConfig(redis=redis, websocket_url",
        )

    def start(self, names: dict[str, Any]) -> list[Any]:
        application = IService(names["application"])
        application.startService()
        self.addCleanup(application.stopService)
        return list(application)

    @inlineCallbacks
    def test_a_service_of_its_own(self) -> Any:
        (websockets,) = self.start(run(self.here(block("A service of its own"))))
        yield websockets.when_ready()
        port = websockets.ports[0].getHost().port
        client = yield open_websocket(
            f"ws://127.0.0.1:{port}/ws/x?subscribe-broadcast",
            origin="https://shop.example",
        )
        self.redis.command("PUBLISH", "shop:broadcast:x", "hello")
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_beside_your_pages(self) -> Any:
        names = run(self.here(block("Beside your pages")))
        *_, site = self.start(names)
        yield names["websockets"].when_ready()
        ports: list[Any] = []
        site._waitingForPort.addCallback(lambda port: ports.append(port) or port)
        url = f"ws://127.0.0.1:{ports[0].getHost().port}/shop/live/x?subscribe-broadcast"
        client = yield open_websocket(url)
        self.redis.command("PUBLISH", "broadcast:x", "hello")
        self.assertEqual((yield client.next()), "hello")
        yield IService(names["application"]).stopService()
        self.assertEqual((yield client.closed), 1001)

    @inlineCallbacks
    def test_publishing_and_listening(self) -> Any:
        main = run(block("Publishing and listening"))["main"]
        heard = yield Deferred.fromCoroutine(main(ServerConfig(redis=self.redis.address)))
        channel = b"broadcast:orders"
        self.assertEqual(heard, [(channel, b"a lamp"), (channel, b"a chair")])
        self.assertEqual(self.redis.command("GET", "user:john:orders"), b"a chair")

    @inlineCallbacks
    def test_djangos_visitors(self) -> Any:
        tac = write_file(self, self.here(block("Django's visitors")))
        program = Program(
            TWISTD,
            "--nodaemon",
            "--pidfile=",
            "--python",
            tac,
            DJANGO_SETTINGS_MODULE=SETTINGS,
            WS4REDIS_CONNECTION=str(self.redis.address),
            **environment(),
        )
        self.addCleanup(program.end)
        port = int((yield program.wait_for(r"Factory starting on (\d+)"))[1])
        foreign = handshake_bytes("/ws/x", Origin="http://evil.example")
        while status_of((yield exchange(port, foreign))) == 503:
            pass  # not connected to Redis yet
        john = cookies_of((yield log_in("john")))
        client = yield open_websocket(f"ws://127.0.0.1:{port}/ws/x?subscribe-user", cookies=john)
        self.redis.command("PUBLISH", "user:john:x", "hello")
        self.assertEqual((yield client.next()), "hello")

    def test_the_system_clock(self) -> None:
        before = reactor.seconds
        self.addCleanup(setattr, reactor, "seconds", before)
        run(block("The system clock"))
        self.assertIsNot(reactor.seconds, before)

    @inlineCallbacks
    def test_signals_in_django(self) -> Any:
        names = run(block("Signals, in Django"))
        names["ShopConfig"].ready(None)
        self.addCleanup(signals.client_connected.disconnect, names["came"])
        self.addCleanup(signals.client_disconnected.disconnect, names["left"])
        config = ServerConfig.from_django(redis=self.redis.address, listen=LISTEN)
        websockets = make_service(config)
        self.launch(websockets)
        yield websockets.when_ready()
        john = cookies_of((yield log_in("john")))
        client = yield open_websocket(self.url + "x", cookies=john)
        self.assertEqual((yield client.next()), "Hello john")
        printed = io.StringIO()
        with redirect_stdout(printed):
            yield websockets.stopService()
        self.assertRegex(printed.getvalue(), r"\Ajohn was here for \d+ s\n\Z")
        yield client.closed


class HooksBlockTests(SynchronousTestCase):
    def test_hooks(self) -> None:
        names = run(block("Hooks"))
        clock = Clock()
        factory = make_memory_factory(authorizer=AllowAll(), hooks=names["Chat"](), clock=clock)
        url = "ws://localhost/ws/room?subscribe-broadcast&publish-broadcast&echo"
        printed = io.StringIO()
        with redirect_stdout(printed):
            client, other = connect(factory, url), connect(factory, url)
            client.send("/who")
            client.send("hello")
            other.send("x" * 1001)
            other.send_bytes(client_frame(8, b""))
            clock.advance(2)
            client.close()
            connect(factory, "ws://localhost/elsewhere")
        self.assertEqual(
            client.messages, ["Welcome to room.", "somebody, somebody", "somebody: hello"]
        )
        self.assertEqual((other.messages[1:], other.close_code), (["somebody: hello"], 1008))
        self.assertEqual(
            printed.getvalue().splitlines(),
            [
                "127.0.0.1 left with 1008 after 0 s",
                "127.0.0.1 left with 1000 after 2 s",
                "127.0.0.1 was refused /elsewhere with 404",
            ],
        )
