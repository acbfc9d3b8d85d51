"""``examples/tenants``: two shops in one process, each with its own database and its own John."""

from __future__ import annotations

import http.client
import re
import shutil
import sys
import tempfile
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import ROOT, TIMEOUT
from tests.support.clients import Client, open_websocket
from tests.support.programs import TWISTD, Program
from tests.support.redis import RedisServer

EXAMPLE = ROOT / "examples" / "tenants"
FLAGS = "subscribe-broadcast&subscribe-user&subscribe-group"


class Browser:
    """John's, on the site of one shop."""

    def __init__(self, shop: str, port: int) -> None:
        self.host = f"{shop}.localhost:{port}"
        self._port = port
        self.cookies: dict[str, str] = {}

    def ask(self, method: str, path: str, **fields: str) -> Any:
        """Fire with the status and the text of a page."""
        return deferToThread(self._ask, method, path, fields)

    def _ask(self, method: str, path: str, fields: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Host": self.host, "Cookie": cookies}
        body = None
        if method == "POST":
            body = urlencode({**fields, "csrfmiddlewaretoken": self.cookies["csrftoken"]})
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                morsels = SimpleCookie(value).items()
                self.cookies |= {name: morsel.value for name, morsel in morsels}
        text = response.read().decode()
        connection.close()
        return response.status, text


class ShopsTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        variables = {"SHOPS_FOLDER": folder, "WS4REDIS_CONNECTION": str(self.redis.address)}
        prepared = Program(sys.executable, "-m", "shops.prepare", folder=EXAMPLE, **{
            **variables, "PYTHONPATH": f"{ROOT}:{EXAMPLE}",
        })  # fmt: skip
        yield prepared.ended.addTimeout(TIMEOUT, reactor)
        self.assertEqual(prepared.status, 0, prepared.printed)
        self.twistd = Program(
            TWISTD, "-n", "--pidfile=", "ws4redis", "--settings=shops.settings", "--serve-django",
            "--listen=tcp:0:interface=127.0.0.1", folder=EXAMPLE, **variables,
        )  # fmt: skip
        self.addCleanup(self.twistd.end)
        self.port = yield self.twistd.site_port()

    @inlineCallbacks
    def log_in(self, shop: str) -> Any:
        """Fire with John's browser, and with the websocket that its page opens."""
        browser = Browser(shop, self.port)
        yield browser.ask("GET", "/login/")
        status, _ = yield browser.ask("POST", "/login/", username="john", password=shop)
        self.assertEqual(status, 302)
        _, page = yield browser.ask("GET", "/")
        found = re.search(r'new WebSocket\(\s*"([^"]+)"', page)
        assert found is not None, page
        url = found[1]
        self.assertEqual(url, f"ws://{browser.host}/ws/news?{FLAGS}")
        client = yield open_websocket(
            url, cookies=browser.cookies, origin=f"http://{browser.host}", address="127.0.0.1"
        )
        self.addCleanup(self.close, client)
        return browser, client

    def close(self, client: Client) -> Any:
        client.sendClose(1000)
        return client.closed

    @inlineCallbacks
    def test_each_john_hears_his_own_shop(self) -> Any:
        acme, acme_news = yield self.log_in("acme")
        bolt, bolt_news = yield self.log_in("bolt")
        for browser, message in ((acme, "from acme"), (bolt, "from bolt")):
            status, _ = yield browser.ask("POST", "/", message=message)
            self.assertEqual(status, 302)
        self.assertEqual((yield acme_news.take(3)), ["from acme"] * 3)
        self.assertEqual((yield bolt_news.take(3)), ["from bolt"] * 3)
        # What is persisted is read by the same John again, and by nobody else.
        _, again = yield self.log_in("acme")
        self.assertEqual((yield again.take(3)), ["from acme"] * 3)
        # John of acme logs out. John of bolt stays.
        yield acme.ask("POST", "/logout/")
        self.assertEqual((yield acme_news.closed.addTimeout(TIMEOUT, reactor)), 1008)
        yield bolt.ask("POST", "/", message="still here")
        self.assertEqual((yield bolt_news.take(3)), ["still here"] * 3)
        channels = {each.decode() for each in self.redis.command("PUBSUB", "CHANNELS")}
        self.assertEqual(
            {each for each in channels if "ctl:" not in each},
            {
                f"t:{shop}:{name}:news"
                for shop in ("acme", "bolt")
                for name in ("broadcast", "user:john", "group:staff")
            },
        )

    @inlineCallbacks
    def test_a_session_of_one_shop_is_none_of_the_others(self) -> Any:
        browser, _ = yield self.log_in("acme")
        other = f"bolt.localhost:{self.port}"
        refused = open_websocket(
            f"ws://{other}/ws/news?subscribe-user", cookies=browser.cookies,
            origin=f"http://{other}", address="127.0.0.1",
        )  # fmt: skip
        error = yield self.assertFailure(refused, Exception)
        self.assertIn("401", str(error))
