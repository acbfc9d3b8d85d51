"""``docs/lists.md``: a list that stays true, in a browser and in many random stories."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from typing import Any
from urllib.request import Request, urlopen

from twisted.internet.defer import inlineCallbacks
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import ROOT
from tests.support.browsers import start_browser
from tests.support.list_site import PAGE, ListSite
from tests.support.npm import node_modules
from tests.support.pages import blocks_of, broken_links
from tests.support.postgresql import PostgreSQL
from tests.support.programs import python, twistd
from tests.support.redis import RedisServer

FULL = bool(os.environ.get("WS4REDIS_FULL"))
# With this one, each mistake is found in a hundred pages on both databases.
SEED = 7
MISTAKES = ("late-position", "inside", "other-database", "values")


class TextTests(SynchronousTestCase):
    def test_every_block_is_known_here(self) -> None:
        self.assertEqual(PAGE.name, "lists.md")
        for block in blocks_of(PAGE):
            self.assertIn(block.language, ("python", "html"), block.where)
            self.assertIsNotNone(block.file, block.where)

    def test_its_links_lead_somewhere(self) -> None:
        self.assertEqual(broken_links(PAGE), [])


class StoryTests(SynchronousTestCase):
    """Random stories, in a process of their own."""

    def tell(self, site: ListSite, views: int, seed: int, *variants: str) -> dict[str, Any]:
        """The numbers of wrong pages and of gaps, for each variant."""
        self.addCleanup(site.remove)
        done = subprocess.run(
            [sys.executable, "-m", "tests.projects.true_lists", str(seed), str(views), *variants],
            cwd=ROOT,
            env={**os.environ, **site.environment()},
            capture_output=True,
            text=True,
            timeout=1200 if FULL else 300,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def sqlite(self) -> ListSite:
        return ListSite()

    def postgresql(self) -> ListSite:
        server = PostgreSQL()
        self.addCleanup(server.stop)
        return ListSite(server.database)

    def assert_told_apart(self, site: ListSite) -> None:
        """Check that no page of the recipe is wrong, and that each mistake makes some wrong."""
        views = 600 if FULL else 100
        found = self.tell(site, views, SEED, "recipe", *MISTAKES)
        self.assertEqual(found["recipe"], {"wrong": 0, "gaps": 0})
        for mistake in MISTAKES:
            self.assertGreater(found[mistake]["wrong"], 0, mistake)

    def test_the_recipe_is_right_and_mistakes_are_found_on_sqlite(self) -> None:
        self.assert_told_apart(self.sqlite())

    def test_the_recipe_is_right_and_mistakes_are_found_on_postgresql(self) -> None:
        self.assert_told_apart(self.postgresql())

    def test_pages_that_are_told_of_gaps_are_right_too(self) -> None:
        for history in ('{"orders": (2, 3600)}', "{}"):
            site = self.sqlite()
            site.write("mysite/settings.py", f"WS4REDIS_HISTORY = {history}\n", at_the_end=True)
            found = self.tell(site, 300 if FULL else 60, SEED, "recipe")
            self.assertEqual(found["recipe"]["wrong"], 0)
            self.assertGreater(found["recipe"]["gaps"], 0)


# Catches what the page's script hands over.
WATCH = """
    self.intervals = [];
    const every = self.setInterval;
    self.setInterval = (...given) => { intervals.push(given); return every(...given); };
    self.minute = () => intervals.filter(([, pause]) => pause === 60000).map(([work]) => work());
    let real;
    Object.defineProperty(self, "WS4Redis", {
        set(value) { real = value; },
        get() { return function (options) { self.options = options; return real(options); }; },
    });
"""
ROWS = "[...document.querySelectorAll('#orders > li')].map((each) => each.textContent)"

MORE_URLS = """
from django.shortcuts import render
from orders.models import Order

urlpatterns.append(path("htmx/", lambda request: render(
    request, "orders/htmx.html", {"orders": Order.objects.filter(done=False)}
)))
"""

PRIVATE_SETTINGS = """
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
LOGIN_URL = "/login/"
"""
PRIVATE_URLS = """
from django.http import HttpResponse
from orders import private

urlpatterns = [
    path("", private.index),
    path("rows/", private.rows, name="rows"),
    path("login/", lambda request: HttpResponse("<li>Log in</li>")),
    *urlpatterns,
]
"""
LOG_IN = """
from django.contrib.auth.models import User
from django.test import Client

client = Client()
client.force_login(User.objects.create_user("john"))
print(client.cookies["sessionid"].value)
"""


class BrowserTestCase(TestCase):
    """The site on one port, its page in a browser, and three orders."""

    timeout = 120
    more_settings = ""
    more_urls = MORE_URLS
    static: tuple[tuple[str, str], ...] = ()

    @inlineCallbacks
    def setUp(self) -> Any:
        self.browser = yield start_browser(self)
        redis = RedisServer()
        self.addCleanup(redis.stop)
        self.site = ListSite()
        self.addCleanup(self.site.remove)
        self.site.write("mysite/settings.py", self.more_settings, at_the_end=True)
        self.site.write("mysite/urls.py", self.more_urls, at_the_end=True)
        self.environment = self.site.environment(
            LISTS_REDIS=str(redis.address), LISTS_STATIC=json.dumps(self.static)
        )
        yield self.run_python(
            "from django.core.management import call_command; "
            "call_command('migrate', run_syncdb=True, verbosity=0); "
            "from orders.models import Order; "
            "Order.objects.bulk_create(Order(title=each) for each in 'abc')"
        )
        server = twistd(
            "--settings", "mysite.settings", "--serve-django",
            "--listen=tcp:0:interface=127.0.0.1", **self.environment,
        )  # fmt: skip
        self.addCleanup(server.end)
        port = yield server.site_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.page = yield self.browser.new_page()
        yield self.page.call("Page.addScriptToEvaluateOnNewDocument", source=WATCH)

    @inlineCallbacks
    def run_python(self, code: str) -> Any:
        done = yield deferToThread(
            python, "-c", f"import django; django.setup(); {code}", **self.environment
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def post(self, path: str) -> Any:
        def post() -> int:
            with urlopen(Request(self.url + path, b""), timeout=20) as answer:
                return int(answer.status)

        return deferToThread(post)

    def execute(self, sql: str) -> Any:
        """Change the table without a word to anybody."""

        def execute() -> None:
            with sqlite3.connect(self.site.folder / "orders.sqlite3") as database:
                database.execute(sql)
            database.close()

        return deferToThread(execute)

    @inlineCallbacks
    def assert_rows(self, *titles: str) -> Any:
        yield self.page.until(f"{ROWS}.join() === '{','.join(titles)}'")


class PageTests(BrowserTestCase):
    @inlineCallbacks
    def test_it_follows_messages_and_what_came_before_it_connected(self) -> Any:
        asked = yield self.page.hold("*/js/ws4redis.js")
        yield self.page.call("Page.navigate", url=self.url)
        yield asked.wait()
        yield self.post("finish/2/")
        yield asked.let_go()
        yield self.assert_rows("a", "c")
        yield self.run_python(
            "from orders.models import Order; from orders.views import changed; "
            "order = Order.objects.create(title='d & <e>'); changed(order.pk)"
        )
        yield self.assert_rows("a", "c", "d & <e>")
        yield self.post("finish/")
        yield self.assert_rows()

    @inlineCallbacks
    def test_it_fetches_at_a_gap_and_once_a_minute(self) -> Any:
        yield self.page.open(self.url)
        yield self.assert_rows("a", "b", "c")
        yield self.execute("UPDATE orders_order SET title = 'x' WHERE id = 1")
        yield self.page.run("options.resumed({recovered: true, gap: []})")
        yield self.page.run("options.resumed({recovered: false, gap: ['broadcast']})")
        yield self.assert_rows("x", "b", "c")
        yield self.execute("DELETE FROM orders_order WHERE id = 2")
        self.assertEqual((yield self.page.run("minute().length")), 1)
        yield self.assert_rows("x", "c")

    @inlineCallbacks
    def test_one_fetch_runs_at_a_time_and_none_is_forgotten(self) -> Any:
        yield self.page.open(self.url)
        yield self.page.run("""
            self.answers = [];
            self.fetch = () => new Promise((done) => answers.push(
                (text) => done({ok: true, redirected: false, text: () => text})));
            for (const each of "123") options.receive_message(each);
        """)
        self.assertEqual((yield self.page.run("answers.length")), 1)
        yield self.page.run("answers[0]('<li>old</li>')")
        yield self.page.until("answers.length === 2")
        yield self.page.run("answers[1]('<li>new</li>')")
        yield self.assert_rows("new")
        self.assertEqual((yield self.page.run("answers.length")), 2)

    @inlineCallbacks
    def test_a_fetch_that_fails_changes_nothing_and_is_tried_again(self) -> Any:
        yield self.page.open(self.url)
        yield self.page.run("""
            self.plain = fetch;
            self.fetch = async () => { throw new TypeError("offline"); };
            options.receive_message("1");
        """)
        for answer in ("{ok: false, text}", "{ok: true, redirected: true, text}"):
            yield self.page.run(f"""
                self.text = () => "<li>wrong</li>";
                self.fetch = async () => ({answer});
                options.receive_message("1");
            """)
            yield self.page.run("new Promise((done) => setTimeout(done))")
            yield self.assert_rows("a", "b", "c")
        yield self.execute("DELETE FROM orders_order WHERE id = 2")
        yield self.page.run("self.fetch = plain; options.receive_message('1')")
        yield self.assert_rows("a", "c")


class HtmxTestCase(BrowserTestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        modules = yield deferToThread(
            node_modules, ROOT / "tests" / "projects" / "htmx_pages" / "package.json"
        )
        self.static = tuple(
            ("htmx", str(modules / name / "dist")) for name in ("htmx.org", "htmx-ext-sse")
        )
        yield super().setUp()


class HtmxTests(HtmxTestCase):
    @inlineCallbacks
    def test_it_follows_messages_and_what_came_before_it_connected(self) -> Any:
        asked = yield self.page.hold("*/ws/orders*")
        yield self.page.call("Page.navigate", url=f"{self.url}htmx/")
        yield asked.wait()
        yield self.post("finish/2/")
        yield asked.let_go()
        yield self.assert_rows("a", "c")
        yield self.post("finish/1/")
        yield self.assert_rows("c")

    @inlineCallbacks
    def test_it_fetches_at_a_gap(self) -> Any:
        yield self.page.open(f"{self.url}htmx/")
        source = "document.querySelector('[sse-connect]')['htmx-internal-data'].sseEventSource"
        yield self.page.until(f"{source}.readyState === 1")
        yield self.execute("UPDATE orders_order SET title = 'x' WHERE id = 1")
        yield self.page.run(f"{source}.dispatchEvent(new MessageEvent('gap', {{data: '{{}}'}}))")
        yield self.assert_rows("x", "b", "c")


class PrivateTests(HtmxTestCase):
    """The list is for users who are logged in."""

    more_settings = PRIVATE_SETTINGS
    more_urls = MORE_URLS + PRIVATE_URLS

    @inlineCallbacks
    def keeps_its_rows_after_a_logout(self, path: str) -> Any:
        yield self.page.open(self.url)
        self.assertEqual((yield self.page.texts("li")), ["Log in"])
        key = yield self.run_python(LOG_IN)
        yield self.page.set_cookies({"sessionid": key.strip()})
        yield self.page.open(self.url + path)
        answers = f"performance.getEntriesByName('{self.url}rows/')"
        yield self.post("finish/2/")
        yield self.assert_rows("a", "c")
        before = yield self.page.run(f"{answers}.length")
        yield self.execute("DELETE FROM django_session")
        yield self.post("finish/1/")
        yield self.page.until(f"{answers}.length > {before}")
        self.assertEqual((yield self.page.run(f"{answers}.at(-1).responseStatus")), 401)
        yield self.page.run("new Promise((done) => setTimeout(done))")
        yield self.assert_rows("a", "c")

    def test_the_script_keeps_its_rows_after_a_logout(self) -> Any:
        return self.keeps_its_rows_after_a_logout("")

    def test_htmx_keeps_its_rows_after_a_logout(self) -> Any:
        return self.keeps_its_rows_after_a_logout("htmx/")
