"""Other people's implementations of EventSource: from npm, in Node, and the one of Chromium."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase
from twisted.web.resource import Resource

from benchmarks.peers.environments import Unavailable, npm_packages
from benchmarks.peers.programs import debian_packages
from tests.support import ROOT, TIMEOUT
from tests.support.programs import Program
from tests.support.sizes import FULL

FOLDER = ROOT / "tests" / "projects" / "event_sources"
FROM_NPM = (
    "eventsource",
    "launchdarkly-eventsource",
    "event-source-polyfill",
    "@microsoft/fetch-event-source",
)


class Said(Resource):
    """Takes the reports of ``hear.js``."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.entries: DeferredQueue[list[str]] = DeferredQueue()

    def render_POST(self, request: Any) -> bytes:  # noqa: N802
        request.setHeader("Access-Control-Allow-Origin", "*")
        for entry in json.loads(request.content.read()):
            self.entries.put(entry)
        return b""

    def next(self) -> Deferred[list[str]]:
        """Fire with the kind of an event, its data and its id."""
        return self.entries.get().addTimeout(TIMEOUT, reactor)

    @inlineCallbacks
    def first(self, kind: str, data: str | None = None) -> Any:
        """Fire with the next such event, and skip what is before it."""
        while True:
            entry = yield self.next()
            if entry[0] == kind and data in (None, entry[1]):
                return entry


class Page(Resource):
    isLeaf = True

    def __init__(self, path: Path, type: str) -> None:
        super().__init__()
        self._content = path.read_bytes()
        self._type = type

    def render_GET(self, request: Any) -> bytes:  # noqa: N802
        request.setHeader("Content-Type", self._type)
        return self._content


def site(said: Said) -> Resource:
    """The pages for a browser, and what they need."""
    root = Resource()
    root.putChild(b"said", said)
    root.putChild(b"", Page(FOLDER / "page.html", "text/html"))
    root.putChild(b"both", Page(FOLDER / "both.html", "text/html"))
    root.putChild(b"hear.js", Page(FOLDER / "hear.js", "text/javascript"))
    clients = ROOT / "ws4redis_tx" / "static" / "js"
    for name in ("ws4redis.js", "ws4redis.mjs"):
        root.putChild(name.encode(), Page(clients / name, "text/javascript"))
    return root


def start_node(test: TestCase, package: str, origin: str, target: str) -> Program:
    """Listen in Node. Skips the test if there is no Node, or npm has no packages."""
    node = shutil.which("node")
    if node is None:
        raise SkipTest("there is no node (Debian: apt install nodejs)")
    try:
        packages = npm_packages(FOLDER / "package.json")
    except Unavailable as error:
        raise SkipTest(str(error)) from error
    program = Program(
        node, str(FOLDER / "hear.js"), package, origin, target, NODE_PATH=str(packages)
    )
    test.addCleanup(program.end)
    return program


def start_chromium(test: TestCase, url: str) -> Program:
    """Open a page without a window. Skips the test if there is no Chromium; only the full tests
    download one.
    """
    variables: dict[str, str] = {}
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        if not FULL:
            raise SkipTest("there is no Chromium (Debian: apt install chromium)")
        try:
            unpacked = debian_packages("chromium")
        except Unavailable as error:
            raise SkipTest(str(error)) from error
        program = str(unpacked.folder / "usr/lib/chromium/chromium")
        variables.update(unpacked.environment)
    folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    options = ["--headless", "--disable-gpu", f"--user-data-dir={Path(folder) / 'profile'}"]
    if os.getuid() == 0:
        options.append("--no-sandbox")
    browser = Program(program, *options, "--remote-debugging-port=0", url, **variables)
    test.addCleanup(browser.end)
    return browser
