"""The chat over a network that dies, in Chromium and in Firefox: it swallows all that is sent, or
is gone while the tab is hidden. Each line is shown once, and nobody reloads.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.browsers import start_browser
from tests.support.chat_site import LIVE, ChatTestCase
from tests.support.cutting import CuttingProxy
from tests.support.firefox import start_firefox
from tests.support.sizes import FULL


class Networks:
    """Mixed into tests of one browser."""

    path = "/broadcast/"

    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        self.proxy = CuttingProxy(self.port, [])
        port = yield self.proxy.start(self)
        self.page = yield self.visit(self.path, "john", port)
        yield self.publish("one")
        yield self.assert_shown(self.page, "one")

    @inlineCallbacks
    def test_offline_and_back_over_a_proxy_that_swallows(self) -> Any:
        self.proxy.swallow()
        yield self.page.go_offline()
        yield self.page.until(f"!({LIVE})")
        yield self.publish("two", "three")
        self.proxy.pass_again()
        yield self.page.go_online()
        yield self.page.until(LIVE)
        yield self.publish("four")
        yield self.assert_shown(self.page, "one", "two", "three", "four")
        yield self.assert_not_reloaded(self.page)

    @inlineCallbacks
    def test_a_hidden_tab_misses_nothing(self) -> Any:
        front = yield self.browser.new_page(beside=self.page)
        yield front.to_front()
        yield self.page.until("document.hidden")
        yield self.publish("two")
        yield self.assert_shown(self.page, "one", "two")
        self.proxy.cut_all()
        yield self.publish("three", "four")
        yield self.page.to_front()
        yield self.page.until(f"!document.hidden && {LIVE}")
        yield self.publish("five")
        yield self.assert_shown(self.page, "one", "two", "three", "four", "five")
        yield self.assert_not_reloaded(self.page)


class ChromiumTests(Networks, ChatTestCase):
    start_browser = start_browser


class FirefoxTests(Networks, ChatTestCase):
    start_browser = start_firefox


class RoomsInChromiumTests(Networks, ChatTestCase):
    skip = None if FULL else "make test-all runs it"
    path = "/rooms/"
    start_browser = start_browser
