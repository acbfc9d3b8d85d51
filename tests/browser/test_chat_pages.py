"""The pages of the chat demo: a strict Content-Security-Policy refuses nothing that they do, axe
finds nothing, and everything can be read in light and dark.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.accessibility import WATCH_VIOLATIONS, faults_in_all_colours
from tests.support.browsers import start_browser
from tests.support.chat_site import LIVE, ChatTestCase
from tests.support.django import post
from tests.support.screenshots import keep_together

LAST = "[...document.querySelectorAll('.text')].at(-1).textContent"
TALK = (
    "Did the build finish?",
    "Two minutes ago, all green.",
    "Then let us ship it.",
    "Done. Look at the numbers!",
)

SHOW_EVERYTHING = """(() => {
    const log = document.querySelector(".log:not([hidden])");
    const message = log.querySelector(".message");
    for (let hue = 0; hue < 360; hue += 15) {  // every name has a colour of its own
        const copy = message.cloneNode(true);
        copy.classList.remove("mine");
        copy.style.setProperty("--hue", hue);
        log.append(copy);
    }
    const line = (author, text, more) => Lines.show(log, {author, text, at: 0, ...more});
    line(null, "12 bytes, not text", {mine: false});
    line("john", "to Mary", {mine: true, to: "mary"});
    Lines.show(log, {missing: true});
    const error = document.querySelector("[data-error]");
    error.hidden = false;
    error.textContent = "Your message was not sent; try again in a moment.";
    const typing = document.querySelector("[data-typing-line]");
    if (typing) typing.textContent = "mary is typing…";
    const pill = document.querySelector("[data-status]");
    for (const [status, text] of [["off", "offline"], ["wait", "reconnecting"]]) {
        const copy = pill.cloneNode(true);
        copy.dataset.status = status;
        copy.textContent = text;
        pill.after(copy);
    }
    for (const each of document.querySelectorAll(".composer :is(input, button, select)")) {
        const copy = each.cloneNode(true);
        copy.disabled = true;
        copy.removeAttribute("id");
        if (!copy.matches("button")) copy.setAttribute("aria-label", "disabled");
        each.after(copy);
    }
})()"""


class PagesTests(ChatTestCase):
    start_browser = start_browser

    @inlineCallbacks
    def visit(self, path: str, name: str = "", port: int | None = None, until: str = "") -> Any:
        page = yield self.browser.new_page(apart=True)
        yield page.before_load(WATCH_VIOLATIONS)
        if name:
            yield page.set_cookies(self.cookies[name])
        yield page.open(f"http://127.0.0.1:{self.port}{path}")
        return page

    @inlineCallbacks
    def assert_faultless(self, page: Any) -> Any:
        self.assertEqual((yield faults_in_all_colours(page)), [])

    @inlineCallbacks
    def test_pages_without_a_conversation(self) -> Any:
        for path, name in (("/", ""), ("/", "john"), ("/login/", "")):
            page = yield self.visit(path, name)
            yield self.assert_faultless(page)
        yield page.type("#id_username", "john")
        yield page.type("#id_password", "wrong")
        yield page.click(".login-fields button")
        yield page.until("document.querySelector('.error')")
        yield self.assert_faultless(page)

    @inlineCallbacks
    def test_conversations(self) -> Any:
        yield self.publish("Hello", "There is a lot to say about this. " * 8)
        for path in ("/broadcast/", "/user/", "/group/"):
            page = yield self.visit(path, "john")
            yield page.until(LIVE)
            yield self.say(page, "I say so")
            yield page.until("document.querySelector('.mine')")
            yield self.assert_faultless(page)
            yield page.run(SHOW_EVERYTHING)
            yield self.assert_faultless(page)

    @inlineCallbacks
    def test_rooms(self) -> Any:
        page = yield self.visit("/rooms/", "john")
        yield page.until(LIVE)
        url = f"http://127.0.0.1:{self.other}/group/"
        yield post(url, self.cookies["mary"], message="a secret", group="chatters")
        yield page.until("document.querySelector('.unread:not([hidden])')")
        yield self.publish("Hello")
        yield self.assert_shown(page, "Hello")
        yield self.assert_faultless(page)
        yield page.run(SHOW_EVERYTHING)
        yield self.assert_faultless(page)
        yield page.click("[data-channel^=user]")
        yield self.assert_faultless(page)

    @inlineCallbacks
    def test_two_people_in_a_room(self) -> Any:
        pages = []
        for name in ("john", "mary"):
            page = yield self.visit("/rooms/", name)
            yield page.until(LIVE)
            yield page.click("[data-channel^=group]")
            pages.append(page)
        for number, line in enumerate(TALK):
            yield self.say(pages[number % 2], line)
            for page in pages:
                yield page.until(f"{LAST} === {line!r}")
        yield self.publish("Lunch is ready")
        for page in pages:
            yield page.until("document.querySelector('.unread:not([hidden])')")
        yield pages[1].type("#id_message", "And the")
        yield pages[0].until("document.querySelector('[data-typing-line]').textContent")
        yield keep_together(self.browser, "chat", pages, 680, 640)

    @inlineCallbacks
    def test_pages_of_a_guest_and_of_a_user_without_groups(self) -> Any:
        page = yield self.visit("/broadcast/")
        yield page.until(LIVE)
        yield self.assert_faultless(page)
        self.packages = "/nowhere"
        server = self.start(0)
        self.port = yield server.site_port()
        page = yield self.visit("/rooms/")
        yield page.until("document.querySelector('[data-wait-for]')")
        yield self.assert_faultless(page)
