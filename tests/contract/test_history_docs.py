"""The guide to history and resuming is true: its blocks are run, those of a page by Chromium."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from tests.support.browsers import WATCHED_SOCKETS, start_browser
from tests.support.django import in_thread, set_up_django
from tests.support.pages import DOCS, blocks_of
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase

set_up_django()

from django.template import Context, Template
from django.test import RequestFactory

BLOCKS = blocks_of(DOCS / "history.md")
SCRIPT = (ROOT / "ws4redis_tx" / "static" / "js" / "ws4redis.js").read_text()


def setting() -> dict[str, Any]:
    found: dict[str, Any] = {}
    exec(BLOCKS[0].code, found)
    return found["WS4REDIS_HISTORY"]


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        # This is the test of "history.md".
        languages = [block.language for block in BLOCKS]
        self.assertEqual(languages, ["python", "js", "html", "js"])


class PageTests(ContractTestCase):
    """John's browser, on a page of the server's host."""

    timeout = 120

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        browser = yield start_browser(self)
        self.redis = RedisServer()
        self.addCleanup(lambda: self.redis.stop())
        yield self.serve(WS4REDIS_HISTORY=setting())
        self.page = yield browser.new_page()
        for name, value in (yield self.log_in("john")).items():
            yield self.page.call(
                "Network.setCookie", name=name, value=value, url=f"http://127.0.0.1:{self.port}/"
            )
        yield self.page.open(f"http://127.0.0.1:{self.port}/ws/")
        yield self.page.run(
            f"{WATCHED_SOCKETS}; self.shown = []; self.show = (text) => shown.push(text); {SCRIPT}"
        )

    def say(self, message: str) -> Any:
        return self.publish(message, facility="orders", users=["john"])

    @inlineCallbacks
    def render(self, number: int) -> Any:
        """Fire with the script of a block, rendered as a view does."""
        request = RequestFactory(HTTP_HOST=f"127.0.0.1:{self.port}").get("/")
        template = Template("{% load ws4redis %}" + BLOCKS[number].code)
        context = Context({"request": request})
        text: str = yield in_thread(template.render, context)
        return text.replace("<script>", "").replace("</script>", "")

    @inlineCallbacks
    def run_script(self, number: int) -> Any:
        yield self.page.run(f"{{ {(yield self.render(number))} }}; null")

    @inlineCallbacks
    def assert_shown(self, *texts: str) -> Any:
        yield self.page.until(f"shown.includes({texts[-1]!r})")
        self.assertEqual((yield self.page.run("shown")), list(texts))

    @inlineCallbacks
    def test_the_page_resumes_and_tells_of_a_gap(self) -> Any:
        yield self.run_script(1)
        yield self.page.until("sockets.at(-1).readyState === 1")
        yield self.say("one")
        yield self.assert_shown("one")
        yield self.page.run("Math.random = () => 1000; sockets.at(-1).close()")
        yield self.page.until("sockets.at(-1).readyState === 3")
        yield self.say("two")
        yield self.page.run("dispatchEvent(new Event('online'))")
        yield self.assert_shown("one", "two")
        yield self.page.run("sockets.at(-1).close()")
        yield self.page.until("sockets.at(-1).readyState === 3")
        yield self.say("three")
        self.redis.command("DEL", "stream:user:john:orders")
        yield self.page.run("dispatchEvent(new Event('online'))")
        yield self.assert_shown("one", "two", "Something may be missing: user", "three")

    def test_a_websocket_hears_what_was_published_before_it_was_opened(self) -> Any:
        return self.hears_what_was_published_meanwhile(2)

    def test_a_stream_of_events_does_too(self) -> Any:
        return self.hears_what_was_published_meanwhile(3)

    @inlineCallbacks
    def hears_what_was_published_meanwhile(self, number: int) -> Any:
        yield self.say("before the request")
        script = yield self.render(number)
        yield self.say("meanwhile")
        yield self.page.run(f"{{ {script} }}; null")
        yield self.assert_shown("meanwhile")
        yield self.say("after")
        yield self.assert_shown("meanwhile", "after")

    @inlineCallbacks
    def test_a_stream_of_events_tells_of_a_gap(self) -> Any:
        script = yield self.render(3)
        yield self.say("meanwhile")
        self.redis.command("DEL", "stream:user:john:orders")
        yield self.page.run(f"{{ {script} }}; null")
        yield self.assert_shown("Something may be missing: user", "meanwhile")
