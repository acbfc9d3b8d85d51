"""The bare pages of ``examples/embedded.tac``, ``examples/standalone`` and ``examples/tenants``."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.example_sites import ExampleTestCase
from tests.support.programs import TWISTD, Program

CONNECTING, OPEN = 0, 1
EXAMPLES = ROOT / "examples"


class BarePagesTests(ExampleTestCase):
    start_browser = start_browser

    @inlineCallbacks
    def run_file(self, file: str, **environment: str) -> Any:
        """Fire with the site's address."""
        program = Program(
            *(TWISTD, "--nodaemon", "--pidfile=", "--python", str(EXAMPLES / file)),
            WS4REDIS_CONNECTION=str(self.redis.address),
            LISTEN="tcp:0:interface=127.0.0.1",
            **environment,
        )
        self.addCleanup(program.end)
        port = (yield program.wait_for(r"Site starting on (\d+)"))[1]
        return f"http://127.0.0.1:{port}/"

    @inlineCallbacks
    def test_embedded(self) -> Any:
        address = yield self.run_file("embedded.tac")
        state = CONNECTING
        while state != OPEN:  # refused, as long as the server is not connected to Redis
            page = yield self.visit(address)
            yield page.until(f"sockets.at(-1).readyState !== {CONNECTING}")
            state = yield page.run("sockets.at(-1).readyState")
        yield page.until("document.querySelector('h1').textContent.includes('1 here')")
        yield self.assert_faultless(page)

    @inlineCallbacks
    def test_standalone(self) -> Any:
        key = {"TOKEN_KEY": "a key of thirty-two bytes or more"}
        page = yield self.visit((yield self.run_file("standalone/standalone.tac", **key)))
        yield self.assert_faultless(page)
        folder = EXAMPLES / "standalone"
        issued = Program(sys.executable, str(folder / "tokens.py"), "john", "chat", **key)
        yield issued.ended
        yield page.type("#token", issued.printed.strip())
        yield page.click("#entry button")
        yield page.until("!document.querySelector('#talk').hidden")
        yield page.type("#text", "Hello")
        yield page.run("document.querySelector('#talk').requestSubmit()")
        yield page.until("document.querySelector('#messages li')")
        self.assertIn("Hello", (yield page.texts("#messages li"))[0])
        yield self.assert_faultless(page)

    @inlineCallbacks
    def test_tenants(self) -> Any:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        self.example, self.settings = "tenants", "shops.settings"
        shops = EXAMPLES / "tenants"
        path = f"{shops}:{ROOT}"
        prepared = Program(
            sys.executable, "-m", "shops.prepare", PYTHONPATH=path, SHOPS_FOLDER=folder
        )
        yield prepared.ended
        port = yield self.serve(SHOPS_FOLDER=folder).site_port()
        page = yield self.visit(f"http://acme.localhost:{port}/")
        yield self.assert_faultless(page)
        yield page.type("#id_username", "john")
        yield page.type("#id_password", "acme")
        yield page.click("button")
        yield page.until("self.sockets && sockets.length && sockets.at(-1).readyState === 1")
        yield self.assert_faultless(page)
