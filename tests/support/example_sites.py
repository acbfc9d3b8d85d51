"""An example that is one module of settings, served by ``twistd`` with a Redis of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import PATIENCE, ROOT
from tests.support.accessibility import WATCH_VIOLATIONS, faults_in_all_colours
from tests.support.programs import TWISTD, Program
from tests.support.redis import RedisServer
from tests.support.tabs import AT_ONCE, WATCHED_SOCKETS


class ExampleTestCase(TestCase):
    """``example`` is its folder, ``settings`` its module."""

    timeout = 240
    example: str
    settings: str
    start_browser: Callable[[TestCase], Any]

    @inlineCallbacks
    def setUp(self) -> Any:
        self.browser = yield type(self).start_browser(self)
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)

    def serve(self, port: int = 0, **environment: str) -> Program:
        server = Program(
            TWISTD,
            *("-n", "--pidfile=", "ws4redis", f"--settings={self.settings}", "--serve-django"),
            f"--listen=tcp:{port}:interface=127.0.0.1",
            folder=ROOT / "examples" / self.example,
            WS4REDIS_CONNECTION=str(self.redis.address),
            **environment,
        )
        server.patience = PATIENCE
        self.addCleanup(server.end)
        return server

    @inlineCallbacks
    def visit(self, url: str, **how: Any) -> Any:
        page = yield self.browser.new_page(**how)
        yield page.before_load(f"{WATCH_VIOLATIONS}; {WATCHED_SOCKETS}; {AT_ONCE}")
        yield page.open(url)
        return page

    @inlineCallbacks
    def assert_faultless(self, page: Any) -> Any:
        self.assertEqual((yield faults_in_all_colours(page)), [])
