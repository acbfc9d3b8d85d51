"""``manage.py runserver`` with websockets, in a project that is edited while it runs."""

from __future__ import annotations

import os
import re
import signal
import socket
from importlib.util import find_spec
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks

from tests.support import PATIENCE, TIMEOUT
from tests.support.clients import exchange, get, open_wire
from tests.support.development import READY, RunserverTestCase, is_alive
from tests.support.pages import DOCS, blocks_of
from tests.support.programs import Program, children, until
from tests.support.wires import handshake_bytes, status_of


class ServingTests(RunserverTestCase):
    @inlineCallbacks
    def test_the_site_websockets_and_events_are_on_one_port(self) -> Any:
        program = yield self.start()
        client = yield self.websocket()
        events = yield self.events()
        self.assertIn(b"published", (yield self.page("/publish")))
        self.assertEqual((yield client.next()), "hello")
        while (event := (yield events.next())).type != "message":
            pass
        self.assertEqual(event.data, "hello")
        self.assertIn(b"body {}", (yield self.page("/static/mysite/page.css")))
        for path in ("websocket", "http_stream"):
            answer = yield exchange(self.port, get(f"/connection/{path}"))
            self.assertIn(status_of(answer), (400, 405, 426), answer)
        client.sendClose(1000)
        yield client.closed
        line = yield program.wait_for(r"Websocket .*\n")
        self.assertRegex(
            line[0], r"^Websocket 'f' closed by the client with 1000 after [\d.]+ s: 1 sent, 0 rec"
        )
        self.assertRegex(program.printed, r'\[\d\d/\w+/\d+ [\d:]+\] "GET /publish HTTP/1.1" 200 9')
        self.assertRegex(program.printed, r"Starting (WSGI )?development server at http://127")
        self.assertIn("You have 1", program.printed)  # unapplied migrations
        self.assertIn(
            f"Websockets at ws://127.0.0.1:{self.port}/ws/, Redis at {self.redis}", program.printed
        )
        yield self.end_by_ctrl_c(program)

    def end_by_ctrl_c(self, program: Program) -> Any:
        os.killpg(program.pid, signal.SIGINT)
        ended = program.ended.addTimeout(TIMEOUT, reactor)
        return ended.addCallback(lambda _: self.assertEqual(program.status, 0, program.printed))

    @inlineCallbacks
    def test_options_of_django_keep_their_meaning(self) -> Any:
        program = yield self.start("--noreload", "--nostatic", "--nothreading", "--skip-checks")
        self.assertIn("--nothreading has no effect", program.printed)
        self.assertNotIn("system checks", program.printed)
        answer = yield exchange(self.port, get("/static/mysite/page.css"))
        self.assertEqual(status_of(answer), 404)
        yield self.end_by_ctrl_c(program)
        program = yield self.start("--noreload", NO_DEBUG="1")
        answer = yield exchange(self.port, get("/static/mysite/page.css"))
        self.assertEqual(status_of(answer), 404)
        yield self.end_by_ctrl_c(program)
        program = yield self.start("--noreload", "--insecure", NO_DEBUG="1")
        yield self.page("/static/mysite/page.css")
        yield self.end_by_ctrl_c(program)

    @inlineCallbacks
    def test_addresses_are_written_as_for_django(self) -> Any:
        for arguments, url in (
            ([f"0:{self.port}"], f"ws://0.0.0.0:{self.port}/ws/"),
            ([f"localhost:{self.port}"], f"ws://localhost:{self.port}/ws/"),
            ([f"[::1]:{self.port}"], f"ws://[::1]:{self.port}/ws/"),
            (["-6", str(self.port)], f"ws://[::1]:{self.port}/ws/"),
        ):
            if "::1" in url and not _has_ipv6():
                continue
            program = self.run_command("runserver", *arguments)
            yield program.wait_for(re.escape(f"{READY}{url}"))
            client = yield self.websocket(address="::1" if "::1" in url else "127.0.0.1")
            yield self.end_by_ctrl_c(program)
            self.assertEqual((yield client.closed), 1012)

    @inlineCallbacks
    def test_the_site_is_served_without_redis(self) -> Any:
        self.redis = f"redis://localhost:{self.redis_port}"
        program = yield self.start()
        self.assertIn("/0 does not answer: websockets get a 503 until it does.", program.printed)
        yield self.end_by_ctrl_c(program)


class EditingTests(RunserverTestCase):
    @inlineCallbacks
    def test_a_template_is_edited_while_a_websocket_stays_open(self) -> Any:
        program = yield self.start()
        client = yield self.websocket()
        self.assertIn(b"first page", (yield self.page("/page")))
        template = self.project / "mysite" / "templates" / "page.html"
        template.write_text("second page")
        while b"second page" not in (yield self.page("/page")):
            pass
        yield self.page("/publish")
        self.assertEqual((yield client.next()), "hello")
        self.assertNotIn("reloading", program.printed)

    @inlineCallbacks
    def test_nobody_is_refused_while_a_view_is_edited(self) -> Any:
        program = yield self.start()
        client = yield self.websocket()
        asked: list[bytes] = []

        @inlineCallbacks
        def ask() -> Any:
            while not (asked and b"second view" in asked[-1]):
                asked.append((yield self.page("/view")))

        @inlineCallbacks
        def come_back() -> Any:
            self.assertEqual((yield client.closed), 1012)
            # At once, and no 503. Autobahn's client would wait for 5 s only.
            wire = yield open_wire(self.port, handshake_bytes("/ws/f?subscribe-broadcast"))
            wire.transport.abortConnection()
            yield wire.ended

        saved = self.save(program, "views.py", "first view", "second view")
        everything = gatherResults([come_back(), ask(), saved])
        yield everything.addTimeout(PATIENCE, reactor)
        self.assertIn(b"first view", asked[0])
        again = yield self.websocket()
        yield self.page("/publish")
        self.assertEqual((yield again.next()), "hello")

    @inlineCallbacks
    def test_what_is_persisted_outlives_a_reload(self) -> Any:
        program = yield self.start()
        yield self.page("/publish")
        yield self.save(program, "views.py", "first view", "second view")
        yield program.wait_for(READY)
        client = yield self.websocket()
        self.assertEqual((yield client.next()), "hello")

    @inlineCallbacks
    def test_a_syntax_error_is_shown_and_recovered_from(self) -> Any:
        program = yield self.start()
        yield self.save(program, "views.py", "def view(request):", "def view(request:")
        yield program.wait_for("SyntaxError")
        waiting = self.page("/view")  # not refused
        yield self.save(program, "views.py", "def view(request:", "def view(request):")
        self.assertIn(b"first view", (yield waiting))
        yield self.websocket()

    @inlineCallbacks
    def test_code_that_is_broken_at_the_start_is_recovered_from(self) -> Any:
        models = self.project / "mysite" / "models.py"
        models.write_text("def (")
        program = self.run_command("runserver", str(self.port), "--insecure")
        yield program.wait_for("SyntaxError")
        yield self.save(program, "models.py", "def (", "")
        yield program.wait_for(READY)
        client = yield self.websocket()
        # And from now on nobody is refused, either.
        change = self.save(program, "views.py", "first view", "second view")
        while b"second view" not in (yield self.page("/view")):
            pass
        yield change
        self.assertEqual((yield client.closed), 1012)
        os.kill(program.pid, signal.SIGTERM)  # Django's process, the parent of our parent
        pids = children(program.pid)
        yield program.ended
        yield until(lambda: not any(map(is_alive, pids)))


class NextCommandTests(RunserverTestCase):
    OURS, THEIRS = "ws4redis_tx.runserver", "django.contrib.staticfiles"
    REST = (
        *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
        *("ws4redis_tx", "mysite"),
    )

    @inlineCallbacks
    def printed(self, apps: list[str], *arguments: str) -> Any:
        program = self.run_command(*arguments, APPS=",".join([*apps, *self.REST]))
        yield program.ended
        return program.printed

    def bases(self, *apps: str) -> Any:
        code = f"from {self.OURS}.management.commands.runserver import Command as C; print(C.mro())"
        return self.printed([self.OURS, *apps], "shell", "-v0", "-c", code)

    @inlineCallbacks
    def test_it_extends_the_command_of_the_next_application(self) -> Any:
        found = yield self.bases()
        self.assertNotIn("staticfiles", found)
        self.assertIn("django.core.management.commands.runserver.Command", found)
        found = yield self.bases(self.THEIRS)
        self.assertIn("staticfiles.management.commands.runserver.Command", found)

    @inlineCallbacks
    def test_whitenoise_keeps_its_command(self) -> Any:
        found = yield self.bases("whitenoise.runserver_nostatic", self.THEIRS)
        self.assertIn("whitenoise.runserver_nostatic.management", found)
        self.assertIn("staticfiles.management.commands.runserver.Command", found)

    if not find_spec("whitenoise"):
        test_whitenoise_keeps_its_command.skip = (  # type: ignore[attr-defined]
            "There is no whitenoise: pip install whitenoise"
        )

    @inlineCallbacks
    def test_a_later_place_is_reported(self) -> Any:
        found = yield self.printed([self.THEIRS, self.OURS], "check")
        self.assertIn("INSTALLED_APPS names 'django.contrib.staticfiles' before", found)
        self.assertIn("HINT: Name 'ws4redis_tx.runserver' first.", found)
        found = yield self.printed([self.OURS, self.THEIRS], "check")
        self.assertIn("no issues", found)


class DocsTests(RunserverTestCase):
    blocks = blocks_of(DOCS / "runserver.md")

    def test_every_block_is_known_here(self) -> None:
        self.assertEqual([block.language for block in self.blocks], ["python", "sh"])

    @inlineCallbacks
    def test_its_settings_and_its_command(self) -> Any:
        settings, commands = (block.code for block in self.blocks)
        self.assertIn('INSTALLED_APPS = [\n    "ws4redis_tx.runserver",\n', settings)
        self.assertIn('    "ws4redis_tx",\n]', settings)
        found: dict[str, Any] = {}
        exec(settings, found)
        self.redis = found["WS4REDIS_CONNECTION"].replace("6379", str(self.redis_port))
        install, run = commands.splitlines()
        self.assertEqual(install, "pip install 'ws4redis-tx[embedded]'")
        self.assertEqual(run, "python manage.py runserver")
        others = ("auth", "contenttypes", "sessions", "staticfiles")
        first, last = found["INSTALLED_APPS"]
        apps = [first, *(f"django.contrib.{each}" for each in others), last, "mysite"]
        yield self.start(APPS=",".join(apps))
        yield self.websocket()


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
