"""Headless Firefox, driven over its own websocket (WebDriver BiDi).

``marionette_driver`` would do the same, but it blocks, and a tab in which it waits keeps all the
others waiting. Tests drive two tabs and a proxy at a time.
"""

from __future__ import annotations

import base64
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import PATIENCE
from tests.support.clients import open_websocket
from tests.support.programs import Program
from tests.support.tabs import BrowserError, Page

_NAMES = ("firefox-esr", "firefox")
_PREFERENCES = 'user_pref("browser.aboutwelcome.enabled", false);\n'


class FirefoxPage(Page):
    def __init__(self, browser: Firefox, context: str, user: str) -> None:
        self._browser = browser
        self._context = context
        self.user = user

    def call(self, method: str, **parameters: Any) -> Deferred[Any]:
        return self._browser.call(method, context=self._context, **parameters)

    def open(self, url: str) -> Deferred[Any]:
        return self.call("browsingContext.navigate", url=url, wait="complete")

    def reload(self) -> Deferred[Any]:
        return self.call("browsingContext.reload", wait="complete")

    @inlineCallbacks
    def run(self, script: str) -> Any:
        answer = yield self._browser.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({script})))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if answer["type"] == "exception":
            raise AssertionError(f"{script}: {answer['exceptionDetails']['text']}")
        return json.loads(answer["result"].get("value", "null"))

    def before_load(self, script: str) -> Deferred[Any]:
        return self._browser.call(
            "script.addPreloadScript",
            functionDeclaration=f"() => {{ {script} }}",
            contexts=[self._context],
        )

    @inlineCallbacks
    def set_cookies(self, cookies: Mapping[str, str], domain: str = "127.0.0.1") -> Any:
        for name, value in cookies.items():
            yield self._browser.call(
                "storage.setCookie",
                cookie={
                    "name": name,
                    "value": {"type": "string", "value": value},
                    "domain": domain,
                    "path": "/",
                },
                partition={"type": "storageKey", "userContext": self.user},
            )

    def resize(self, width: int, height: int) -> Deferred[Any]:
        return self.call("browsingContext.setViewport", viewport={"width": width, "height": height})

    def screenshot(self) -> Deferred[bytes]:
        taken = self.call("browsingContext.captureScreenshot")
        return taken.addCallback(lambda answer: base64.b64decode(answer["data"]))

    def go_offline(self) -> Deferred[Any]:
        return self._be({"type": "offline"})

    def go_online(self) -> Deferred[Any]:
        return self._be(None)

    def _be(self, conditions: dict[str, str] | None) -> Deferred[Any]:
        return self._browser.call(
            "emulation.setNetworkConditions",
            networkConditions=conditions,
            contexts=[self._context],
        )

    def to_front(self) -> Deferred[Any]:
        return self.call("browsingContext.activate")

    def close(self) -> Deferred[Any]:
        return self.call("browsingContext.close")


class Firefox:
    """A Firefox with a fresh profile, until the end of ``test``. Skips the test where there is
    none.
    """

    def __init__(self, test: TestCase) -> None:
        program = next(filter(None, map(shutil.which, _NAMES)), None)
        if program is None:
            raise SkipTest("there is no Firefox (Debian: apt install firefox-esr)")
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        (Path(folder) / "user.js").write_text(_PREFERENCES)
        self._program = Program(
            program,
            *("--headless", "--no-remote", "--profile", folder),
            *("--remote-debugging-port=0", "about:blank"),
            HOME=folder,
        )
        test.addCleanup(self._program.end)
        self._answers: dict[int, Deferred[Any]] = {}
        self._number = 0

    @inlineCallbacks
    def start(self) -> Any:
        """Fire with the browser when it takes commands."""
        found = yield self._program.wait_for(r"WebDriver BiDi listening on (ws://\S+)")
        self._client = yield open_websocket(f"{found[1]}/session")
        self._client.onMessage = self._take
        yield self.call("session.new", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        return self

    @inlineCallbacks
    def new_page(self, *, apart: bool = False, beside: FirefoxPage | None = None) -> Any:
        """Fire with a tab: ``apart`` from the cookies of the others, or ``beside`` such a one."""
        user = beside.user if beside else "default"
        if apart:
            user = (yield self.call("browser.createUserContext"))["userContext"]
        made = yield self.call("browsingContext.create", type="tab", userContext=user)
        return FirefoxPage(self, made["context"], user)

    def call(self, method: str, **parameters: Any) -> Deferred[Any]:
        """Fire with the answer to a command. Fails with ``BrowserError``."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        answer = self._answers[self._number] = Deferred()
        self._client.sendMessage(json.dumps(command).encode())
        return answer.addTimeout(PATIENCE, reactor)

    def _take(self, payload: bytes, binary: bool) -> None:
        message = json.loads(payload)
        answer = self._answers.pop(message.get("id") or 0, None)
        if answer is None or answer.called:
            return
        if message["type"] == "error":
            answer.errback(BrowserError(message["message"]))
        else:
            answer.callback(message["result"])


@inlineCallbacks
def start_firefox(test: TestCase) -> Any:
    """Fire with a ``Firefox``."""
    return (yield Firefox(test).start())
