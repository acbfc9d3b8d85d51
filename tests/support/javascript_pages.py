"""A page in Chromium, on the origin of a server that is tested, that runs blocks of JavaScript."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from tests.support import ROOT
from tests.support.browsers import Page, start_browser
from tests.support.npm import node_modules

CHAT = ROOT / "examples" / "chatserver"


def centrifuge_js() -> str:
    """The package of npm, as a page loads it. Skips the test where it is not to be had."""
    return (
        node_modules(CHAT / "package.json") / "centrifuge" / "dist" / "centrifuge.js"
    ).read_text()


@inlineCallbacks
def open_page(test: TestCase, port: int, cookies: dict[str, str], scheme: str = "http") -> Any:
    """Fire with a page that has the library, these cookies, and a function ``show``, whose calls it
    keeps in ``shown``. Skips the test where there is no Chromium.
    """
    library = centrifuge_js()
    browser = yield start_browser(test)
    page: Page = yield browser.new_page()
    yield page.call("Network.enable")
    for name, value in cookies.items():
        yield page.call("Network.setCookie", name=name, value=value, domain="127.0.0.1", path="/")
    # Any answer will do, and a 404 is one.
    yield page.open(f"{scheme}://127.0.0.1:{port}/")
    yield page.run(f"{library};0")
    yield page.run("self.shown = []; self.show = (value) => { shown.push(value); }; 0")
    return page


def inside(*blocks: str) -> str:
    """An expression that runs the blocks one after the other, as one function."""
    return "(async () => {" + "\n".join(blocks) + "})()"
