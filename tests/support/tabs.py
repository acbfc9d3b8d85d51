"""What a test does with a tab of a browser, whichever browser it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.defer import TimeoutError as DeferredTimeout

from tests.support import PATIENCE

WATCHED_SOCKETS = """
    const Plain = self.WebSocket;
    self.sockets = [];
    self.WebSocket = class extends Plain {
        constructor(...given) { super(...given); self.sockets.push(this); }
    };
"""
"""A script that keeps each websocket of a page in the list ``sockets``."""

AT_ONCE = "Math.random = () => 0;"
"""A script without which clients pause before an attempt."""


class BrowserError(Exception):
    """The browser refuses a command, or what it was about is gone."""


class Page:
    """One tab. Every tab of a browser has the same cookies, unless it was opened ``apart``."""

    def open(self, url: str) -> Deferred[Any]:
        """Fire when the page and its scripts are loaded."""
        raise NotImplementedError

    def reload(self) -> Deferred[Any]:
        raise NotImplementedError

    def run(self, script: str) -> Deferred[Any]:
        """Fire with the value of a JavaScript expression, or of its promise."""
        raise NotImplementedError

    def before_load(self, script: str) -> Deferred[Any]:
        """Run a script in each page that is opened here, before its own."""
        raise NotImplementedError

    def set_cookies(self, cookies: Mapping[str, str], domain: str = "127.0.0.1") -> Deferred[Any]:
        raise NotImplementedError

    def resize(self, width: int, height: int) -> Deferred[Any]:
        raise NotImplementedError

    def screenshot(self) -> Deferred[bytes]:
        """Fire with what is in sight, as PNG."""
        raise NotImplementedError

    def close(self) -> Deferred[Any]:
        raise NotImplementedError

    @inlineCallbacks
    def until(self, condition: str) -> Any:
        """Fire when a JavaScript expression is true, whatever is loaded meanwhile. The browser
        tells no event for that.
        """
        # Firefox never answers for a page that was left, so the page says it when it goes.
        wait = f"""new Promise((done) => {{
            addEventListener("pagehide", () => done(false));
            (function look() {{
                let holds = false;
                try {{ holds = {condition}; }} catch {{ }}  // part of the page is not there yet
                holds ? done(true) : setTimeout(look, 20);
            }})();
        }})"""
        end = reactor.seconds() + PATIENCE  # type: ignore[attr-defined]
        while reactor.seconds() < end:  # type: ignore[attr-defined]
            try:
                if (yield self.run(wait)):
                    return
            except BrowserError:
                pass  # the page was left
            except DeferredTimeout:
                break
        raise AssertionError(f"not true: {condition}")

    def click(self, selector: str) -> Deferred[Any]:
        """Click what a person would find by ``selector``, as soon as it is there."""
        found = f"document.querySelector({json.dumps(selector)})"
        return self.until(found).addCallback(lambda _: self.run(f"void {found}.click()"))

    def type(self, selector: str, text: str) -> Deferred[Any]:
        return self.run(f"""(() => {{
            const field = document.querySelector({json.dumps(selector)});
            field.value = {json.dumps(text)};
            field.dispatchEvent(new Event("input", {{bubbles: true}}));
        }})()""")

    def texts(self, selector: str) -> Deferred[list[str]]:
        return self.run(
            f"[...document.querySelectorAll({json.dumps(selector)})]"
            ".map((each) => each.textContent.trim())"
        )
