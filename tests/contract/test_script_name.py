"""The contract, section 3: sites that are not at the root of their host."""

from __future__ import annotations

import io
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support.clients import exchange
from tests.support.django import set_up_django
from tests.support.sites import ContractTestCase
from tests.support.wires import handshake_bytes, status_of

set_up_django()

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.template import engines
from django.test import RequestFactory, override_settings
from django.test.utils import override_script_prefix
from django.urls import reverse

from ws4redis_tx.context_processors import default
from ws4redis_tx.django.site import make_django_site

TAG = "{% load ws4redis %}{% websocket_url 'news' 'subscribe-broadcast' %}"


def wsgi_request(path: str, script_name: str = "") -> WSGIRequest:
    """What Django makes of a request for ``path`` in a site that is mounted at ``script_name``."""
    return WSGIRequest({
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": script_name, "PATH_INFO": path,
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
    })  # fmt: skip


class TemplateTests(SynchronousTestCase):
    """3. Settings: the address that a page is given"""

    def assert_urls(self, request: Any, start: str = "ws://localhost/app/ws/") -> None:
        self.assertEqual(default(request)["WEBSOCKET_URI"], start)
        tag = engines["django"].from_string(TAG).render({}, request)
        self.assertEqual(tag.replace("&amp;", "&"), f"{start}news?subscribe-broadcast")

    def test_the_urls_have_the_script_prefix_that_reverse_has(self) -> None:
        request = wsgi_request("/page")
        with override_script_prefix("/app/"):
            self.assertTrue(reverse("login").startswith("/app/"))
            self.assert_urls(request)
        self.assert_urls(request, "ws://localhost/ws/")

    def test_the_urls_have_the_script_name_of_the_request(self) -> None:
        # In a thread of the application's own, Django has set no script prefix.
        self.assert_urls(wsgi_request("/page", "/app"))
        self.assert_urls(wsgi_request("", "/app"))
        self.assert_urls(RequestFactory(SCRIPT_NAME="/app", HTTP_HOST="localhost").get("/page"))
        scope = {
            "type": "http", "method": "GET", "path": "/app/page", "root_path": "/app",
            "query_string": b"", "headers": [(b"host", b"localhost")], "scheme": "http",
        }  # fmt: skip
        self.assert_urls(ASGIRequest(scope, io.BytesIO()))

    def test_the_urls_have_the_forced_script_name(self) -> None:
        for name in ("/app", "/app/"):
            with override_settings(FORCE_SCRIPT_NAME=name):
                self.assert_urls(wsgi_request("/page"))

    def test_a_websocket_url_that_names_the_whole_path_is_left_alone(self) -> None:
        with override_settings(WEBSOCKET_URL="/app/ws/"):
            self.assert_urls(wsgi_request("/page", "/app"))
        with override_settings(WEBSOCKET_URL="/apple/ws/"):
            request = wsgi_request("/page", "/app")
            self.assert_urls(request, "ws://localhost/app/apple/ws/")

    def test_no_script_prefix_can_end_a_string_of_a_script(self) -> None:
        with override_script_prefix("/a'\"</script> é/"):
            self.assert_urls(
                wsgi_request("/page"), "ws://localhost/a%27%22%3C/script%3E%20%C3%A9/ws/"
            )


class CallbackTests(ContractTestCase):
    """3. Settings: the path that a callback sees"""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[Any] = []

    def look(self, request: Any, channels: Any) -> Any:
        self.seen.append(
            (request.path, request.path_info, request.get_full_path(), reverse("login"))
        )
        return channels

    @inlineCallbacks
    def assert_heard(self, target: str) -> Any:
        """Check that a websocket there hears the facility ``news``."""
        self.url = f"ws://127.0.0.1:{self.port}"
        client = yield self.open(f"{target}news?subscribe-broadcast")
        yield self.publish("hi", facility="news", broadcast=True, expire=0)
        self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_the_path_is_what_django_makes_of_it(self) -> Any:
        yield self.serve(FORCE_SCRIPT_NAME="/app", WS4REDIS_ALLOWED_CHANNELS=self.look)
        django = wsgi_request("/ws/news")
        self.assertEqual((django.path, django.path_info), ("/app/ws/news", "/ws/news"))
        # A proxy may pass the whole path on, or only what follows the script name.
        for target in ("/app/ws/", "/ws/"):
            yield self.assert_heard(target)
        expected = ("/app/ws/news", "/ws/news", "/app/ws/news?subscribe-broadcast")
        for seen in self.seen:
            self.assertEqual(seen[:3], expected)
            self.assertTrue(seen[3].startswith("/app/"), seen[3])
        for target in ("/ws", "/app/", "/app/app/ws/news", "/apple/ws/news", "/app//ws/news"):
            answer = yield exchange(self.port, handshake_bytes(target))
            self.assertEqual(status_of(answer), 404, target)

    @inlineCallbacks
    def test_a_websocket_url_that_names_the_whole_path(self) -> Any:
        yield self.serve(
            FORCE_SCRIPT_NAME="/app", WEBSOCKET_URL="/app/ws/", WS4REDIS_ALLOWED_CHANNELS=self.look
        )
        yield self.assert_heard("/app/ws/")
        # The path begins with WEBSOCKET_URL, as callbacks and subscribers expect.
        self.assertEqual(
            self.seen[0][:3],
            ("/app/ws/news", "/app/ws/news", "/app/ws/news?subscribe-broadcast"),
        )

    @inlineCallbacks
    def test_a_script_name_that_a_url_must_escape(self) -> Any:
        yield self.serve(FORCE_SCRIPT_NAME="/my é/", WS4REDIS_ALLOWED_CHANNELS=self.look)
        yield self.assert_heard("/my%20%C3%A9/ws/")
        self.assertEqual(self.seen[0][:2], ("/my é/ws/news", "/ws/news"))

    @inlineCallbacks
    def test_at_the_root_nothing_changes(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=self.look)
        yield self.assert_heard("/ws/")
        self.assertEqual(self.seen[0][:2], ("/ws/news", "/ws/news"))

    @inlineCallbacks
    def test_a_site_on_the_same_port_serves_both_paths(self) -> Any:
        service = yield self.serve(FORCE_SCRIPT_NAME="/app")
        site = make_django_site(service.factory, reactor, lambda environ, start: [b""])
        site.startFactory()
        self.addCleanup(site.stopFactory)
        port: Any = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.port = port.getHost().port
        for target in ("/app/ws/", "/ws/"):
            yield self.assert_heard(target)
