"""Serves a Django site and its websockets on one port, for development and demos.

The site's WSGI application runs in the reactor's thread pool. ``django.contrib.staticfiles``, if it
is installed, serves the static files as ``runserver`` does.
"""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.core.servers.basehttp import get_internal_wsgi_application
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.web.http import combinedLogFormatter, datetimeToLogString
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from twisted.web.wsgi import WSGIResource

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
    site = Site(
        _Root(factory, wsgi), requestFactory=_Request, logFormatter=_log_line, reactor=reactor
    )
    site.noisy = False
    return site


def _log_line(timestamp: str, request: Request) -> str:
    """The line of a request in the log. Twisted's ``timestamp`` comes from the reactor's clock,
    which is not always the time of day.
    """
    line: str = combinedLogFormatter(datetimeToLogString(), request)
    return line


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
