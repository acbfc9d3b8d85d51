"""The chat demo in Chromium and in Firefox: two users talk, and the server is killed under them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.support.browsers import start_browser
from tests.support.chat_site import LIVE, STATUS, ChatTestCase
from tests.support.firefox import start_firefox
from tests.support.sizes import FULL

CODE = "closed_with"


class Conversation:
    """Mixed into tests of one browser. A line is ``said`` on a page, others are ``published``."""

    path = "/broadcast/"
    revoked = 1008

    @inlineCallbacks
    def visit_both(self) -> Any:
        return (yield gatherResults([self.visit(self.path, "john"), self.visit(self.path, "mary")]))

    @inlineCallbacks
    def test_two_users_talk(self) -> Any:
        john, mary = yield self.visit_both()
        lines = ["Hello Mary", "Hello <b>John</b> ✓ 🎉", "Bye"]
        for number, line in enumerate(lines):
            yield self.say((john, mary)[number % 2], line)
            for page in (john, mary):
                yield self.assert_shown(page, *lines[: number + 1])
        self.assertEqual((yield john.texts(".mine .text")), lines[::2])
        self.assertEqual((yield mary.texts(".mine .text")), lines[1::2])

    @inlineCallbacks
    def test_the_server_is_killed_and_both_come_back_with_each_line_once(self) -> Any:
        pages = yield self.visit_both()
        yield self.publish("one")
        for page in pages:
            yield self.assert_shown(page, "one")
        yield self.server.signal_and_wait("KILL")
        for page in pages:
            yield page.until(f"!({LIVE})")
        yield self.publish("two", "three", "three")
        yield self.start(self.port).site_port()
        for page in pages:
            yield page.until(LIVE)
        yield self.say(pages[0], "four")
        for page in pages:
            yield self.assert_shown(page, "one", "two", "three", "three", "four")
            yield self.assert_not_reloaded(page)

    @inlineCallbacks
    def test_a_logout_in_another_tab_ends_this_one_which_says_so(self) -> Any:
        john, mary = yield self.visit_both()
        yield john.run(
            f"sockets.at(-1).addEventListener('close', ({{code}}) => {{ {CODE} = code }})"
        )
        tab = yield self.browser.new_page(beside=john)
        yield tab.open(f"http://127.0.0.1:{self.port}/")
        yield tab.click("form[action='/logout/'] button")
        yield tab.until("document.querySelector('a[href=\"/login/\"]')")
        yield john.until(f"{STATUS} === 'off' && self.{CODE}")
        self.assertEqual((yield john.run(CODE)), self.revoked)
        self.assertIn("Load the page again", (yield john.texts("[data-error]"))[0])
        yield self.assert_not_reloaded(john)
        yield self.say(mary, "He is gone")
        yield self.assert_shown(mary, "He is gone")


class ChromiumTests(Conversation, ChatTestCase):
    start_browser = start_browser


class FirefoxTests(Conversation, ChatTestCase):
    start_browser = start_firefox


class RoomsInChromiumTests(Conversation, ChatTestCase):
    path = "/rooms/"
    revoked = 3503  # Centrifuge's
    start_browser = start_browser


class RoomsInFirefoxTests(Conversation, ChatTestCase):
    skip = None if FULL else "make test-all runs it"
    path = "/rooms/"
    revoked = 3503  # Centrifuge's
    start_browser = start_firefox
