"""The chat demo as two servers with one Redis, and its visitors in a browser."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support import PATIENCE
from tests.support.django import cookies_of, environment, log_in, post
from tests.support.javascript_pages import CHAT
from tests.support.npm import node_modules
from tests.support.programs import Program, twistd
from tests.support.redis import RedisServer
from tests.support.tabs import AT_ONCE, WATCHED_SOCKETS, Page

STATUS = "document.querySelector('[data-status]').dataset.status"
LIVE = f"{STATUS} === 'live'"


class ChatTestCase(TestCase):
    """The browsers use the first server, and others publish at the second."""

    timeout = 240
    start_browser: Callable[[TestCase], Any]

    @inlineCallbacks
    def setUp(self) -> Any:
        self.browser = yield type(self).start_browser(self)
        self.packages = str((yield deferToThread(node_modules, CHAT / "package.json")))
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.server, other = self.start(0), self.start(0)
        self.port = yield self.server.site_port()
        self.other = yield other.site_port()
        logins = yield gatherResults([log_in("john"), log_in("mary")])
        self.cookies = dict(zip(("john", "mary"), map(cookies_of, logins), strict=True))

    def start(self, port: int) -> Program:
        server = twistd(
            f"--listen=tcp:{port}:interface=127.0.0.1",
            "--settings=tests.projects.chat_settings",
            "--serve-django",
            WS4REDIS_CONNECTION=str(self.redis.address),
            NODE_MODULES=self.packages,
            **environment(),
        )
        server.patience = PATIENCE
        self.addCleanup(server.end)
        return server

    @inlineCallbacks
    def visit(self, path: str, name: str = "", port: int | None = None) -> Any:
        """Fire with the page of a visitor in a tab of their own, when it is live."""
        page: Page = yield self.browser.new_page(apart=True)
        # Known later, as it does not live through a reload
        yield page.before_load(f"{WATCHED_SOCKETS}; {AT_ONCE}")
        if name:
            yield page.set_cookies(self.cookies[name])
        yield page.open(f"http://127.0.0.1:{port or self.port}{path}")
        yield page.until(LIVE)
        yield page.run("(self.loaded_once = true)")
        return page

    @inlineCallbacks
    def publish(self, *lines: str, name: str = "mary") -> Any:
        """Say it to everybody, by the other server."""
        for line in lines:
            url = f"http://127.0.0.1:{self.other}/broadcast/"
            yield post(url, self.cookies[name], message=line)

    @inlineCallbacks
    def say(self, page: Page, line: str) -> Any:
        """Say it as a visitor does."""
        yield page.type("#id_message", line)
        yield page.run("document.querySelector('form.composer').requestSubmit()")

    @inlineCallbacks
    def assert_shown(self, page: Page, *lines: str) -> Any:
        """Each once, in this order, and nothing else: what is behind the last would be here."""
        texts = "[...document.querySelectorAll('.log:not([hidden]) .text')]"
        texts += ".map((each) => each.textContent)"
        yield page.until(f"{texts}.includes({json.dumps(lines[-1])})")
        self.assertEqual((yield page.run(texts)), list(lines))

    @inlineCallbacks
    def assert_not_reloaded(self, page: Page) -> Any:
        self.assertTrue((yield page.run("self.loaded_once === true")))
