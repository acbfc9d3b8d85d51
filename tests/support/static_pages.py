"""A site of a few files, beside what is tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.endpoints import serverFromString
from twisted.trial.unittest import TestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site

from tests.support import ROOT
from tests.support.cutting import HERE

CLIENT = (ROOT / "ws4redis_tx" / "static" / "js" / "ws4redis.mjs").read_bytes()
_TYPES = {"ico": "image/x-icon", "js": "text/javascript", "mjs": "text/javascript"}


class _File(Resource):
    isLeaf = True

    def __init__(self, name: str, content: Callable[[], bytes]) -> None:
        super().__init__()
        self._type = _TYPES.get(name.rpartition(".")[2], "text/html")
        self._content = content

    def render_GET(self, request: Any) -> bytes:  # noqa: N802
        request.setHeader("Content-Type", self._type)
        request.setHeader("Content-Security-Policy", "script-src 'self'")
        return self._content()


@inlineCallbacks
def serve_files(
    test: TestCase,
    files: Mapping[str, bytes | Callable[[], bytes]],
    resources: Mapping[bytes, IResource] | None = None,
) -> Any:
    """Serve ``files``, the JavaScript client and ``resources`` until the end of ``test``. No inline
    script may run. Fires with the port.
    """
    root = Resource()
    for name, content in {"favicon.ico": b"", "ws4redis.mjs": CLIENT, **files}.items():
        made = content if callable(content) else lambda content=content: content
        root.putChild(name.encode(), _File(name, made))
    for path, resource in (resources or {}).items():
        root.putChild(path, resource)
    site = Site(root)
    site.noisy = False
    port = yield serverFromString(reactor, HERE).listen(site)
    test.addCleanup(port.stopListening)
    return port.getHost().port
