"""nginx, Apache and HAProxy in front of a server, configured as the documentation says."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from benchmarks.peers.environments import Unavailable
from benchmarks.peers.programs import debian_packages
from tests.support.pages import DOCS, blocks_of
from tests.support.programs import Program
from ws4redis_tx.twistd.embedded_redis import free_port

_BLOCKS = {block.language: block.code for block in blocks_of(DOCS / "proxies.md")}
_APACHE_MODULES = Path("/usr/lib/apache2/modules")
_REPEATED = ("/connection/", "/emulation")
"""Paths for which the page says that what is there for ``/ws/`` is to be repeated."""

_NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder};
    proxy_temp_path {folder};
    fastcgi_temp_path {folder};
    uwsgi_temp_path {folder};
    scgi_temp_path {folder};
    gzip on;
    gzip_types *;
    gzip_proxied any;
    gzip_min_length 0;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{site}; }}
        {documented}
    }}
}}
"""

_APACHE = """
ServerRoot {folder}
Listen 127.0.0.1:{port}
ServerName localhost
PidFile {folder}/pid
DefaultRuntimeDir {folder}
ErrorLog /dev/stderr
User www-data
Group www-data
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule deflate_module {modules}/mod_deflate.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule setenvif_module {modules}/mod_setenvif.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
SetOutputFilter DEFLATE
{documented}
ProxyPass "/" "http://127.0.0.1:{site}/"
"""

_HAPROXY = """
{documented}
backend site
    server one 127.0.0.1:{site}

frontend all
    bind 127.0.0.1:{port}
    compression algo gzip
    compression type text/event-stream
    use_backend websockets if {{ path_beg /ws/ }}
    default_backend site
"""


@inlineCallbacks
def start_nginx(test: TestCase, server: int, site: int, *without: str) -> Any:
    """Fire with the port of an nginx that passes ``/ws/`` and what is ``_REPEATED`` on to the port
    ``server``, and the rest to ``site``. The documented lines that begin with one of ``without``
    are left out.
    """
    block = _BLOCKS["nginx"]
    location = block[: block.index("\n}\n") + 3]
    parts = [_without(block, *without)]
    parts += [_without(location, "error_page").replace("/ws/", path) for path in _REPEATED]
    documented = "\n".join(parts)
    program, variables = _program("nginx", "nginx", "usr/sbin/nginx")
    written = _write(test, _NGINX, documented, server, site)
    nginx = Program(program, "-e", "stderr", "-c", written.path, **variables)
    test.addCleanup(nginx.end)
    yield nginx.wait_for("event method")
    return written.port


@inlineCallbacks
def start_apache(test: TestCase, server: int, site: int) -> Any:
    program = shutil.which("apache2", path="/usr/sbin")
    if program is None or not (_APACHE_MODULES / "mod_proxy_http.so").exists():
        raise SkipTest("there is no apache2 (Debian: apt install apache2)")
    block = _BLOCKS["apache"]
    lines = [line for line in block.split("\n") if "/ws/" in line]
    repeated = [line.replace("/ws/", path) for path in _REPEATED for line in lines]
    written = _write(test, _APACHE, "\n".join([block, *repeated]), server, site)
    apache = Program(program, "-f", written.path, "-D", "FOREGROUND")
    test.addCleanup(apache.signal_and_wait, "TERM")  # it ends its processes
    yield apache.wait_for("resuming normal operations")
    return written.port


@inlineCallbacks
def start_haproxy(test: TestCase, server: int, site: int) -> Any:
    program, variables = _program("haproxy", "haproxy", "usr/sbin/haproxy")
    written = _write(test, _HAPROXY, _BLOCKS["text"], server, site)
    haproxy = Program(program, "-db", "-V", "-f", written.path, **variables)
    test.addCleanup(haproxy.end)
    yield haproxy.wait_for("as the polling mechanism")
    return written.port


def _without(block: str, *beginnings: str) -> str:
    lines = block.split("\n")
    return "\n".join(line for line in lines if not line.strip().startswith(beginnings or "#"))


class _Written:
    """A configuration in a folder of its own, and the port it listens on."""

    def __init__(self, folder: str, port: int) -> None:
        self.path = str(Path(folder) / "configuration")
        self.port = port


def _write(test: TestCase, frame: str, documented: str, server: int, site: int) -> _Written:
    folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
    test.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    os.chmod(folder, 0o755)  # Apache changes its user
    written = _Written(folder, free_port())
    assert "127.0.0.1:8080" in documented
    Path(written.path).write_text(
        frame.format(
            folder=folder,
            port=written.port,
            site=site,
            modules=_APACHE_MODULES,
            documented=documented.replace("127.0.0.1:8080", f"127.0.0.1:{server}"),
        )
    )
    return written


def _program(name: str, package: str, path: str) -> tuple[str, dict[str, str]]:
    """The path of a program, and its variables."""
    found = shutil.which(name, path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
    if found is not None:
        return found, {}
    try:
        unpacked = debian_packages(package)
    except Unavailable as error:
        raise SkipTest(f"there is no {name}: {error}") from error
    return str(unpacked.folder / path), dict(unpacked.environment)
