"""Serves a Django site and its websockets on one port, for development and demos.

The site's WSGI application runs in the reactor's thread pool. ``django.contrib.staticfiles``, if it
is installed, serves the static files as ``runserver`` does.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.servers.basehttp import get_internal_wsgi_application
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from twisted.web.wsgi import WSGIResource

from ws4redis_tx.core.errors import shown
from ws4redis_tx.service import WebSocketFactory, make_resource


def make_django_site(
    factory: WebSocketFactory, reactor: Any, application: Any = None, threads: Any = None
) -> Site:
    """``application`` defaults to that of the settings, ``threads`` to the reactor's pool."""
    if application is None:
        application = get_internal_wsgi_application()
        if apps.is_installed("django.contrib.staticfiles"):
            from django.contrib.staticfiles.handlers import StaticFilesHandler

            application = StaticFilesHandler(application)
    wsgi = WSGIResource(reactor, threads or reactor.getThreadPool(), application)
    site = _Site(_Root(factory, wsgi), requestFactory=_Request, reactor=reactor)
    site.client_log = factory.session_server.log
    site.noisy = False
    return site


class _Site(Site):
    """Logs requests within the bounds of the websockets' log, and without their queries."""

    client_log: Any

    def log(self, request: Any) -> None:
        peer = getattr(request.getClientAddress(), "host", "")
        path = request.uri.decode(errors="replace").partition("?")[0]
        self.client_log.request(
            peer,
            f"{shown(request.method.decode(errors='replace'))} {shown(path)} from {shown(peer)}: "
            f"{request.code}, {request.sentLength} bytes",
        )


class _Request(Request):
    """Twisted's WSGI asks for the host and port of either side. A Unix socket has neither."""

    def getClientAddress(self) -> Any:
        return _with_host(super().getClientAddress())

    def getHost(self) -> Any:
        return _with_host(super().getHost())


def _with_host(address: Any) -> Any:
    return IPv4Address("TCP", "", 80) if isinstance(address, UNIXAddress) else address


class _Root(Resource):
    """Serves websockets below their path, and Django everywhere else."""

    def __init__(self, factory: WebSocketFactory, wsgi: WSGIResource) -> None:
        super().__init__()
        config = factory.config
        paths = (config.websocket_url, config.script_name + config.websocket_url)
        self._websocket_urls = tuple(path.encode() for path in paths)
        self._websockets = make_resource(factory)
        self._wsgi = wsgi

    def getChild(self, path: bytes, request: Any) -> IResource:
        if request.uri.startswith(self._websocket_urls):
            return self._websockets
        # A WSGI application takes the whole path, and this one has no prefix.
        request.postpath.insert(0, request.prepath.pop())
        wsgi: IResource = self._wsgi
        return wsgi
