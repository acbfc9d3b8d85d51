"""Headless Chromium, driven over its own websocket (the DevTools protocol)."""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import PATIENCE
from tests.support.clients import open_websocket
from tests.support.programs import Program
from tests.support.tabs import WATCHED_SOCKETS as WATCHED_SOCKETS
from tests.support.tabs import BrowserError, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome")


class ChromiumPage(Page):
    def __init__(self, browser: Browser, session: str, where: dict[str, str]) -> None:
        self._browser = browser
        self._session = session
        self.where = where

    def call(self, method: str, **parameters: Any) -> Deferred[Any]:
        return self._browser.call(method, session=self._session, **parameters)

    @inlineCallbacks
    def open(self, url: str) -> Any:
        yield self.call("Page.navigate", url=url)
        yield self.until("document.readyState === 'complete'")

    @inlineCallbacks
    def reload(self) -> Any:
        yield self.run("self.before_the_reload = true")
        yield self.call("Page.reload")
        yield self.until("document.readyState === 'complete' && !self.before_the_reload")

    @inlineCallbacks
    def run(self, script: str) -> Any:
        answer = yield self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{script}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def before_load(self, script: str) -> Deferred[Any]:
        return self.call("Page.addScriptToEvaluateOnNewDocument", source=script)

    @inlineCallbacks
    def set_cookies(self, cookies: Mapping[str, str], domain: str = "127.0.0.1") -> Any:
        for name, value in cookies.items():
            yield self.call("Network.setCookie", name=name, value=value, domain=domain, path="/")

    def resize(self, width: int, height: int) -> Deferred[Any]:
        return self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def screenshot(self) -> Deferred[bytes]:
        taken = self.call("Page.captureScreenshot", format="png")
        return taken.addCallback(lambda answer: base64.b64decode(answer["data"]))

    def prefer(self, scheme: str) -> Deferred[Any]:
        """Ask for the colours of ``light`` or ``dark``."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        return self.call("Emulation.setEmulatedMedia", features=features)

    @inlineCallbacks
    def go_offline(self) -> Any:
        """Take the network from this tab, which it is told of."""
        yield self.call("Network.enable")
        yield self._be(offline=True)

    def go_online(self) -> Deferred[Any]:
        return self._be(offline=False)

    def _be(self, *, offline: bool) -> Deferred[Any]:
        limits = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        return self.call("Network.emulateNetworkConditions", offline=offline, **limits)

    def to_front(self) -> Deferred[Any]:
        return self.call("Page.bringToFront")

    def close(self) -> Deferred[Any]:
        return self.call("Page.close")

    def on_event(self, method: str, listener: Callable[[Mapping[str, Any]], object]) -> None:
        self._browser.on_event(method, self._session, listener)

    @inlineCallbacks
    def hold(self, pattern: str) -> Any:
        """Hold back the first request whose URL matches, which may contain ``*``. Fire with it."""
        held = HeldRequest(self)
        self.on_event("Fetch.requestPaused", held.take)
        yield self.call("Fetch.enable", patterns=[{"urlPattern": pattern}])
        return held


class HeldRequest:
    """The first request that a page asks for after ``ChromiumPage.hold``."""

    def __init__(self, page: ChromiumPage) -> None:
        self._page = page
        self._asked: Deferred[None] = Deferred()
        self._id = ""

    def take(self, parameters: Mapping[str, Any]) -> None:
        if not self._asked.called:
            self._id = parameters["requestId"]
            self._asked.callback(None)

    def wait(self) -> Deferred[None]:
        """Fire when the page has asked."""
        return self._asked.addTimeout(PATIENCE, reactor)

    @inlineCallbacks
    def let_go(self) -> Any:
        """Send it, and hold nothing else."""
        yield self._page.call("Fetch.continueRequest", requestId=self._id)
        yield self._page.call("Fetch.disable")


class Browser:
    """A Chromium with a fresh profile, until the end of ``test``. Skips the test where there is
    none.
    """

    def __init__(self, test: TestCase) -> None:
        program = next(filter(None, map(shutil.which, _NAMES)), None)
        if program is None:
            raise SkipTest("there is no Chromium (Debian: apt install chromium)")
        self._folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        test.addCleanup(shutil.rmtree, self._folder, ignore_errors=True)
        self._program = Program(
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--no-first-run",
            "--ignore-certificate-errors",
            f"--user-data-dir={self._folder}",
            "--remote-debugging-port=0",
            "about:blank",
        )
        test.addCleanup(self._program.end)
        self._answers: dict[int, Deferred[Any]] = {}
        self._listeners: dict[tuple[str, str], Callable[[Mapping[str, Any]], object]] = {}
        self._number = 0

    @inlineCallbacks
    def start(self) -> Any:
        """Fire with the browser when it takes commands."""
        found = yield self._program.wait_for(r"DevTools listening on (ws://\S+)")
        self._client = yield open_websocket(found[1])
        self._client.onMessage = self._take
        return self

    @inlineCallbacks
    def new_page(self, *, apart: bool = False, beside: ChromiumPage | None = None) -> Any:
        """Fire with a tab: ``apart`` from the cookies of the others, or ``beside`` such a one."""
        where = beside.where if beside else {}
        if apart:
            where = yield self.call("Target.createBrowserContext")
        target = yield self.call("Target.createTarget", url="about:blank", **where)
        attached = yield self.call(
            "Target.attachToTarget", targetId=target["targetId"], flatten=True
        )
        page = ChromiumPage(self, attached["sessionId"], where)
        yield page.call("Page.enable")
        yield page.call("Emulation.setScrollbarsHidden", hidden=True)
        return page

    def call(self, method: str, *, session: str | None = None, **parameters: Any) -> Deferred[Any]:
        """Fire with the answer to a command. Fails with ``BrowserError``."""
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        answer = self._answers[self._number] = Deferred()
        self._client.sendMessage(json.dumps(command).encode())
        return answer.addTimeout(PATIENCE, reactor)

    def on_event(
        self, method: str, session: str, listener: Callable[[Mapping[str, Any]], object]
    ) -> None:
        self._listeners[method, session] = listener

    def _take(self, payload: bytes, binary: bool) -> None:
        message = json.loads(payload)
        listener = self._listeners.get((message.get("method", ""), message.get("sessionId", "")))
        if listener is not None:
            listener(message["params"])
        answer = self._answers.pop(message.get("id", 0), None)
        if answer is None or answer.called:
            return
        if "error" in message:
            answer.errback(BrowserError(message["error"]["message"]))
        else:
            answer.callback(message["result"])


@inlineCallbacks
def start_browser(test: TestCase) -> Any:
    """Fire with a ``Browser``."""
    return (yield Browser(test).start())
