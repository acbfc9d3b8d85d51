"""Measures a developer's day with ``manage.py runserver``, in seconds.

``python -m benchmarks.runserver`` prints them as a table. ``--python PATH`` measures with another
interpreter and its Django, and may be given several times; ``--guide`` writes the table into
``docs/runserver.md``. Each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

from benchmarks.servers import free_port
from ws4redis_tx.testing import client_frame

ROOT = Path(__file__).resolve().parent.parent
PROJECT = Path(__file__).with_name("development")
GUIDE = ROOT / "docs" / "runserver.md"
BEGIN, END = "<!-- The figures of benchmarks.runserver. -->\n", "<!-- The end of the figures. -->\n"

_PATIENCE = 60.0
_STREAMS = ("/stream",) * 8 + ("/silent", "/__reload__/events/")


class Site:
    """A copy of the project, and ``runserver`` in it."""

    def __init__(self, python: str, folder: Path) -> None:
        self.folder = folder / "mysite"
        self.port = free_port()
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "REDIS": f"embedded://localhost:{free_port()}",
        }
        self.printed = ""
        self._process = subprocess.Popen(
            [python, "manage.py", "runserver", str(self.port)],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # as from a shell: Ctrl-C is for the whole group
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed += line

    def page(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=_PATIENCE) as answer:
            text: str = answer.read().decode()
            return text

    def open(self, path: str, *fields: str) -> socket.socket:
        """A connection whose response has begun."""
        connection = socket.create_connection(("127.0.0.1", self.port), _PATIENCE)
        head = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", *fields]
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 "), path
        return connection

    def websocket(self) -> Websocket:
        return Websocket(self._upgraded())

    def _upgraded(self) -> socket.socket:
        key = base64.b64encode(os.urandom(16)).decode()
        return self.open(
            "/ws/f?subscribe-broadcast",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {key}",
        )

    def edit(self, name: str, old: str, new: str) -> None:
        file = self.folder / name
        file.write_text(file.read_text().replace(old, new))

    def end(self) -> None:
        """Press Ctrl-C, and wait."""
        os.killpg(self._process.pid, signal.SIGINT)
        self._process.wait(_PATIENCE)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE)


class Websocket:
    """An open websocket, whose close is answered as a browser does it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.code: int | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # Short frames only: pings, which are answered, and the close.
        while frame := self._connection.recv(2, socket.MSG_WAITALL):
            payload = self._connection.recv(frame[1], socket.MSG_WAITALL)
            opcode = frame[0] & 15
            self._connection.sendall(client_frame(10 if opcode == 9 else opcode, payload))
            if opcode == 8:
                self.code = int.from_bytes(payload[:2], "big")
                return

    def closed(self) -> int | None:
        """Wait for the close, and return its code."""
        self._thread.join(_PATIENCE)
        return self.code


def seconds_until(condition: Callable[[], bool], pause: float = 0.01) -> float:
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > _PATIENCE:
            raise SystemExit("runserver did not do it within a minute.")
        time.sleep(pause)
    return time.monotonic() - began


def measure(python: str) -> dict[str, float]:
    """One round: everything once, in a project of its own."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as name:
        folder = Path(name) / "project"
        shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
        site = Site(python, folder)
        try:
            return dict(_figures(site))
        finally:
            site.kill()


def _figures(site: Site) -> Iterator[tuple[str, float]]:
    def answers() -> bool:
        with contextlib.suppress(OSError):
            return site.page("/view") == "first view"
        return False

    yield "start, until the first page", seconds_until(answers)

    time.sleep(1.5)  # the reloader looks once a second
    websocket = site.websocket()
    site.page("/page")
    site.edit("templates/page.html", "first", "second")
    yield (
        "a template is saved, until its page is seen",
        seconds_until(lambda: "second" in site.page("/page")),
    )
    assert websocket.code is None

    asked = 0

    def second_view() -> bool:
        nonlocal asked
        asked += 1
        return site.page("/view") == "second view"  # raises if it is refused

    site.edit("views.py", "first view", "second view")
    yield "a view is saved, until its answer is served", seconds_until(second_view, 0.05)
    yield "requests meanwhile, none of which was refused", asked
    assert websocket.closed() == 1012

    time.sleep(1.5)
    site.edit("views.py", "def view(request)", "def view(request")
    yield (
        "a SyntaxError is saved, until it is shown",
        seconds_until(lambda: "SyntaxError" in site.printed),
    )
    time.sleep(1.5)
    site.edit("views.py", "def view(request", "def view(request)")
    yield (
        "it is repaired, until the page is served",
        seconds_until(lambda: site.page("/view") == "second view"),
    )

    time.sleep(1.5)
    streams = [site.open(path) for path in _STREAMS]
    websocket = site.websocket()
    streams.append(site.open("/ws/f?subscribe-broadcast", "Accept: text/event-stream"))
    site.printed = ""
    site.edit("views.py", "second view", "third view")
    seconds_until(lambda: "changed, reloading" in site.printed, 0.001)
    yield (
        "a reload with twelve streams open, from its beginning until it serves",
        seconds_until(lambda: site.page("/view") == "third view"),
    )
    assert websocket.closed() == 1012
    for each in streams:
        each.close()

    streams = [site.open(path) for path in _STREAMS]
    websocket = site.websocket()
    began = time.monotonic()
    site.end()
    yield "Ctrl-C with ten streams and a websocket open", time.monotonic() - began
    assert websocket.closed() == 1012
    for each in streams:
        each.close()


def version_of(python: str) -> str:
    code = "import django, sys; print('Django', django.__version__)"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def table(columns: dict[str, list[dict[str, float]]]) -> str:
    first = next(iter(columns.values()))[0]
    lines = [
        f"| seconds, median of {len(next(iter(columns.values())))} | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in first:
        cells = [statistics.median(each[name] for each in rounds) for rounds in columns.values()]
        form = "{:.0f}" if name.startswith("requests") else "{:.2f}"
        lines.append(f"| {name} | {' | '.join(form.format(each) for each in cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", action="append", help="an interpreter with a Django")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--guide", action="store_true", help="write docs/runserver.md")
    options = parser.parse_args()
    pythons = options.python or [sys.executable]
    columns = {
        version_of(python): [measure(python) for _ in range(options.rounds)] for python in pythons
    }
    print(text := table(columns), end="")
    if options.guide:
        page = GUIDE.read_text()
        figures = re.compile(f"{re.escape(BEGIN)}.*{re.escape(END)}", re.S)
        GUIDE.write_text(figures.sub(lambda _: f"{BEGIN}\n{text}\n{END}", page))


if __name__ == "__main__":
    main()
