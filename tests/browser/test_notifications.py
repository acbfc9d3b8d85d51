"""``examples/notifications``: a task's progress and end, on a page with htmx."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.example_sites import ExampleTestCase
from tests.support.firefox import start_firefox
from tests.support.npm import node_modules
from tests.support.programs import Program
from tests.support.screenshots import keep
from tests.support.sizes import FULL

EXAMPLE = ROOT / "examples" / "notifications"
LIVE = "document.querySelector('[data-status]').dataset.status === 'live'"
READY = "document.querySelectorAll('.export .ready').length"
UNREAD = "(document.querySelector('.unread') || {firstChild: {data: '0'}}).firstChild.data"


HALF_DONE = """
from exports.prepare import prepare

prepare()
from django.contrib.auth.models import User

john = User.objects.get(username="john")
for title, percent in (("All customers", 100), ("Stock by warehouse", 45)):
    john.exports.create(title=title, percent=percent)
john.notifications.create(text="Orders of this year is ready.", read=True)
john.notifications.create(text="All customers is ready.")
"""

ONE_STEP = """
from exports.prepare import prepare

prepare()
from exports.models import Export
from exports.tasks import tell

export = Export.objects.get(title="Stock by warehouse")
export.percent += 5
export.save()
tell(export.user)
print("told")
"""


class NotificationsTestCase(ExampleTestCase):
    """Two servers with one database. The page is of the first, and tasks run in the second."""

    example, settings = "notifications", "exports.settings"

    @inlineCallbacks
    def setUp(self) -> Any:
        packages = yield deferToThread(node_modules, EXAMPLE / "package.json")
        yield super().setUp()
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        self.variables = {
            "EXPORTS_DB": f"{folder}/exports.sqlite3",
            "NODE_MODULES": str(packages),
            "EXPORT_SECONDS": "0.2",
        }
        prepare = self.python("-m", "exports.prepare")
        yield prepare.ended
        self.assertIn("log in as john or mary, password secret", prepare.printed)
        self.server, other = self.run_site(), self.run_site()
        self.port = yield self.server.site_port()
        self.other = yield other.site_port()

    def python(self, *arguments: str) -> Program:
        path = f"{EXAMPLE}:{ROOT}"
        redis = str(self.redis.address)
        return Program(
            *(sys.executable, *arguments),
            PYTHONPATH=path,
            WS4REDIS_CONNECTION=redis,
            **self.variables,
        )

    def run_site(self, port: int = 0) -> Program:
        return self.serve(port, **self.variables)

    @inlineCallbacks
    def log_in(self, name: str = "john") -> Any:
        page = yield self.visit(f"http://127.0.0.1:{self.port}/", apart=True)
        yield page.click(f"form:has(input[value={name}]) .hint")
        yield page.until(LIVE)
        return page

    @inlineCallbacks
    def start(self, page: Any, kind: str) -> Any:
        yield page.type("#id_title", kind)
        yield page.click("form.start button")


class Exports:
    """Mixed into tests of one browser."""

    @inlineCallbacks
    def test_all_tabs_of_the_user_see_the_progress_and_the_end(self) -> Any:
        john = yield self.log_in()
        second = yield self.visit(f"http://127.0.0.1:{self.other}/", beside=john)
        mary = yield self.log_in("mary")
        for page in (john, second):
            yield page.until(LIVE)
            yield page.run(WATCH_PROGRESS)
        yield self.start(john, "All customers")
        for page in (john, second):
            yield page.until(f"{READY} === 1 && {UNREAD} === '1'")
            seen = yield page.run("seen")
            self.assertEqual((seen, seen[-1]), (sorted(seen), 100))
            self.assertEqual((yield page.texts(".notes .new span")), ["All customers is ready."])
        self.assertEqual((yield mary.texts(".notes li")), [
            "You are told here when an export is ready."
        ])  # fmt: skip
        yield john.click("button[form=read]")
        for page in (john, second):
            yield page.until(f"{UNREAD} === '0'")

    @inlineCallbacks
    def test_a_step_of_a_task_is_shown(self) -> Any:
        yield self.python("-c", HALF_DONE).ended
        page = yield self.log_in()
        yield page.until("document.querySelector('progress').value === 45")
        step = self.python("-c", ONE_STEP)
        yield step.ended
        self.assertIn("told", step.printed)
        yield page.until("document.querySelector('progress').value === 50")

    @inlineCallbacks
    def test_a_page_whose_server_was_killed_shows_what_happened_meanwhile(self) -> Any:
        john = yield self.log_in()
        second = yield self.visit(f"http://127.0.0.1:{self.other}/", beside=john)
        yield second.until(LIVE)
        yield john.run("(self.loaded_once = true)")
        yield self.server.signal_and_wait("KILL")
        yield john.until(f"!({LIVE})")
        for kind in ("All customers", "Stock by warehouse"):
            yield self.start(second, kind)
        yield second.until(f"{READY} === 2 && {UNREAD} === '2'")
        yield self.run_site(self.port).site_port()
        yield john.until(f"{READY} === 2 && {UNREAD} === '2'")
        self.assertEqual((yield john.texts(".notes .new span")), (
            yield second.texts(".notes .new span")
        ))  # fmt: skip
        self.assertTrue((yield john.run("self.loaded_once === true")))


# Keeps the percentages that the page shows, each once
WATCH_PROGRESS = """(() => {
    self.seen = [];
    new MutationObserver(() => {
        const bar = document.querySelector("progress");
        if (bar && seen.at(-1) !== bar.value) seen.push(bar.value);
    }).observe(document.body, {childList: true, subtree: true, attributes: true});
})()"""


class ChromiumTests(Exports, NotificationsTestCase):
    start_browser = start_browser

    @inlineCallbacks
    def test_the_pages_look_well(self) -> Any:
        page = yield self.visit(f"http://127.0.0.1:{self.port}/", apart=True)
        yield self.assert_faultless(page)
        yield page.click("form:has(input[value=john]) .hint")
        yield page.until(LIVE)
        yield self.assert_faultless(page)
        for number, kind in enumerate(("Orders of this year", "All customers"), 1):
            yield self.start(page, kind)
            yield page.until(f"{READY} === {number} && {UNREAD} === '{number}'")
        yield self.assert_faultless(page)

    @inlineCallbacks
    def test_exports_on_their_way_look_well(self) -> Any:
        yield self.python("-c", HALF_DONE).ended
        page = yield self.log_in()
        yield page.until("document.querySelector('progress').value === 45")
        yield self.assert_faultless(page)
        yield page.prefer("light")
        yield page.resize(960, 500)
        keep("notifications", (yield page.screenshot()))


class FirefoxTests(Exports, NotificationsTestCase):
    skip = None if FULL else "make test-all runs it"
    start_browser = start_firefox
