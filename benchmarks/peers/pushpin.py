"""pushpin with WebSocket-over-HTTP: it asks a website what to do with each websocket. Messages are
published through its HTTP API. The CPU and memory of the website do not count as pushpin's.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load import Failed, Load
from benchmarks.peers.programs import debian_packages
from benchmarks.peers.protocol_peers import JsonApi
from benchmarks.servers import FACILITY, Program, Server, Site, free_port, wait_until_it_listens

# Debian runs one zurl for the whole system, which asks no website on this machine.
_SYSTEM_ZURL, _OWN_ZURL = "/var/run/zurl/", "{rundir}/{ipc_prefix}"
_DENIED = "deny=127.*,10.*,192.168.*,*.local"
# Debian's settings without the comments, but for the folders, the ports, the log, and the limit of
# 2,500 messages a second in all.
_SETTINGS = """\
[global]
libdir={libdir}
include={{libdir}}/internal.conf
rundir={folder}
ipc_prefix=pushpin-

[runner]
services=condure,zurl,pushpin-proxy,pushpin-handler
http_port=127.0.0.1:{port}
logdir={folder}
log_level=1
client_maxconn=50000
condure_bin={programs}/condure
zurl_bin={programs}/zurl

[proxy]
routesfile={folder}/routes
sig_key=changeme
updates_check=off

[handler]
push_in_spec=ipc://{folder}/push
push_in_sub_specs=ipc://{folder}/push-sub
push_in_http_addr=127.0.0.1
push_in_http_port={api}
command_spec=ipc://{folder}/command
message_rate=1000000
message_hwm=1000000
"""


# Its queue of requests to the website holds a hundred. It answers further ones with 502.
_AT_ONCE = 32
# Ten a second.
_TRIES = 100


class Pushpin(Server):
    name = "pushpin"

    def __init__(self, site: Site | None = None) -> None:  # it does not know visitors
        unpacked = debian_packages("pushpin")
        self.versions = unpacked.versions
        self.port, origin, api = free_port(), free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="ws4redis-tx-")
        folder = Path(self._folder.name)
        programs = unpacked.folder / "usr/bin"
        self._copy_library(unpacked.folder / "usr/lib/pushpin", folder / "lib")
        (folder / "routes").write_text(f"* 127.0.0.1:{origin},over_http\n")
        settings = folder / "pushpin.conf"
        settings.write_text(
            _SETTINGS.format(
                libdir=folder / "lib", folder=folder, programs=programs, port=self.port, api=api
            )
        )
        self._origin = Program(
            [sys.executable, "-m", "benchmarks.peers.pushpin_origin", str(origin)], "ready"
        )
        self.program = Program(
            [str(programs / "pushpin"), f"--config={settings}"],
            "starting",
            **unpacked.environment,
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
        )
        wait_until_it_listens(api)
        self._wait_until_it_asks()
        self._api = JsonApi(api, "/publish/")

    def _wait_until_it_asks(self) -> None:
        """It listens before all of its programs have found each other."""
        for _ in range(_TRIES):
            connection = http.client.HTTPConnection("127.0.0.1", self.port)
            with (
                contextlib.closing(connection),
                contextlib.suppress(OSError, http.client.HTTPException),
            ):
                connection.request("GET", "/")
                if connection.getresponse().status == http.HTTPStatus.OK:
                    return
            time.sleep(0.1)
        raise Failed("pushpin does not ask its website.")

    @staticmethod
    def _copy_library(source: Path, target: Path) -> None:
        """Copy its internal settings, and let it run a zurl of its own."""
        (target / "runner").mkdir(parents=True)
        for name in ("internal.conf", "runner/zurl.conf.template"):
            text = (source / name).read_text()
            text = text.replace(_SYSTEM_ZURL, _OWN_ZURL).replace(_DENIED, "deny=")
            (target / name).write_text(text)

    def targets(self) -> list[str]:
        return [f"/ws/{FACILITY}"]

    def open(self, load: Load, targets: Sequence[str], number: int, **how: Any) -> None:
        how["at_once"] = min(how.get("at_once") or _AT_ONCE, _AT_ONCE)
        super().open(load, targets, number, **how)

    def publish(self, messages: Sequence[bytes]) -> None:
        self._api.post(
            {
                "items": [
                    {
                        "channel": FACILITY,
                        "formats": {"ws-message": {"content": message.decode()}},
                    }
                    for message in messages
                ]
            }
        )

    def end(self) -> None:
        self._api.end()
        super().end()
        self._origin.end()
        self._folder.cleanup()
