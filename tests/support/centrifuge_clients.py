"""Other people's clients of Centrifuge's protocol, unchanged: from npm, PyPI and as a Go module.

Each runs in a program of ``tests/projects/centrifuge_clients``, which takes commands as lines of
JSON and says what happens in the same way.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import PATIENCE, ROOT
from tests.support.environments import clean_variables
from tests.support.npm import node_modules
from tests.support.programs import Program

FOLDER = ROOT / "tests" / "projects" / "centrifuge_clients"
URL = "/connection/"

# Where Go's own installation puts it.
_GO_FOLDER = "/usr/local/go/bin"
_INSTALLED_WITHIN = 600
# Name a file of certificates for Node, and for OpenSSL and Go.
_AUTHORITIES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE")

BEFORE_5_8 = ("4.0.0", "4.1.0", "5.0.0", "5.7.3", "5.7.4")
VERSIONS = {
    "centrifuge": (*BEFORE_5_8, "5.8.0"),
    "centrifuge-python": ("0.4.4", "0.5.0", "0.5.1", "0.7.0"),
    "centrifuge-go": ("0.12.1",),
}
"""All that are run here, and no others; the newest of Python is the one that is installed."""

Event = dict[str, Any]


@dataclass(frozen=True)
class JavaScript:
    """The package ``centrifuge`` in Node."""

    version: str
    protobuf: bool = False
    transport: str = "websocket"

    def __post_init__(self) -> None:
        assert self.version in VERSIONS["centrifuge"]

    def command(self) -> tuple[list[str], Mapping[str, str]]:
        node = shutil.which("node")
        if node is None:
            raise SkipTest("there is no node (Debian: apt install nodejs)")
        packages = node_modules(FOLDER / "package.json")
        return [node, str(FOLDER / "client.js")], {"NODE_PATH": str(packages)}

    @property
    def package(self) -> str:
        return f"centrifuge-{self.version}"

    @property
    def ordered(self) -> bool:
        """Whether it keeps messages in order that come together over HTTP."""
        return self.transport == "websocket" or self.version not in BEFORE_5_8


@dataclass(frozen=True)
class Python:
    """The package ``centrifuge-python``.

    :param version: it and what it needs get an environment of their own; ``""``: the one that is
        installed with the tests.
    """

    version: str = ""
    protobuf: bool = False
    transport = "websocket"
    package = "centrifuge-python"
    ordered = True

    def __post_init__(self) -> None:
        assert self.version in ("", *VERSIONS["centrifuge-python"])

    def command(self) -> tuple[list[str], Mapping[str, str]]:
        return [_python(self.version), str(FOLDER / "client.py")], {}


@dataclass(frozen=True)
class Go:
    """The module ``centrifuge-go``."""

    protobuf: bool = True
    transport = "websocket"
    package = "centrifuge-go"
    ordered = True

    def command(self) -> tuple[list[str], Mapping[str, str]]:
        return [_go_program()], {}


Library = JavaScript | Python | Go


def _python(version: str) -> str:
    if not version:
        if importlib.util.find_spec("centrifuge") is None:
            raise SkipTest("there is no centrifuge-python (pip install -e '.[test]')")
        return sys.executable

    def install(folder: Path) -> None:
        _run(folder, sys.executable, "-m", "venv", ".")
        _run(folder, "bin/python", "-m", "pip", "install", "-q", f"centrifuge-python=={version}")

    folder = _made("python", f"{version} {sys.version}", install)
    return str(folder / "bin" / "python")


def _go_program() -> str:
    go = shutil.which("go", path=f"{os.environ['PATH']}{os.pathsep}{_GO_FOLDER}")
    if go is None:
        raise SkipTest("there is no go (https://go.dev)")
    sources = [FOLDER / name for name in ("client.go", "go.mod", "go.sum")]

    def build(folder: Path) -> None:
        _run(FOLDER, "env", "GOTOOLCHAIN=local", go, "build", "-o", str(folder / "client"), ".")

    made = _made("go", "".join(each.read_text() for each in sources), build)
    return str(made / "client")


@cache
def _failures() -> dict[str, str]:
    return {}


def _made(kind: str, wanted: str, fill: Any) -> Path:
    """A folder that ``fill`` has filled, now or earlier. Blocks. Skips the test if it cannot."""
    parent = ROOT / "build" / kind
    folder = parent / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    if str(folder) in _failures():
        raise SkipTest(_failures()[str(folder)])
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=parent))
        try:
            fill(made)
            os.rename(made, folder)
        except _Failed as error:
            _failures()[str(folder)] = str(error)
            raise SkipTest(str(error)) from error
        except OSError:
            assert folder.exists()  # another test process has made it
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder


class _Failed(Exception):
    pass


def _run(folder: Path, *command: str) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=clean_variables(),
            capture_output=True,
            text=True,
            timeout=_INSTALLED_WITHIN,
        )
    except subprocess.TimeoutExpired:
        raise _Failed(f"{' '.join(command)} does not end") from None
    if done.returncode:
        raise _Failed(f"{' '.join(command)} failed: {(done.stdout + done.stderr).strip()[-300:]}")


class DrivenClient(Program):
    """A running client. All that it has said is in ``said``, in order."""

    def __init__(
        self, library: Library, port: int, query: str, trusts: str, **options: Any
    ) -> None:
        command, variables = library.command()
        variables = {**variables, **dict.fromkeys(_AUTHORITIES, trusts)} if trusts else variables
        tls = "s" if trusts else ""
        scheme = "ws" if library.transport == "websocket" else "http"
        given = {
            "endpoint": f"{scheme}{tls}://127.0.0.1:{port}{URL}{library.transport}{query}",
            "emulation": f"http{tls}://127.0.0.1:{port}/emulation",
            "transport": library.transport,
            "protobuf": library.protobuf,
            "package": library.package,
            **options,
        }
        self.said: list[Event] = []
        self._rest = b""
        self._read = 0
        self._asked = 0
        self._looking: list[tuple[Any, Deferred[Event]]] = []
        super().__init__(*command, json.dumps(given), **variables)

    def outReceived(self, data: bytes) -> None:
        self.printed += data.decode(errors="replace")
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.said += map(json.loads, lines)
        self._search()

    def processEnded(self, reason: Failure) -> None:
        looking, self._looking = self._looking, []
        for _, found in looking:
            found.errback(AssertionError("it ended"))
        super().processEnded(reason)

    def do(self, command: str, **values: Any) -> None:
        line = json.dumps({"do": command, **values})
        self.transport.write(line.encode() + b"\n")

    def ask(self, command: str, **values: Any) -> Deferred[Event]:
        """Fire with the server's answer to a command. Its ``error``, if any, is a code."""
        self._asked = id = self._asked + 1
        self.do(command, id=id, **values)
        return self._find(lambda: _first(self.said, {"event": "answer", "id": id}))

    def next(self, event: str, **values: Any) -> Deferred[Event]:
        """Fire with the next such event after the last one that this has found, once it is there.
        One that was looked for, but not reached yet, is looked for first.
        """
        wanted = {"event": event, **values}

        def look() -> Event | None:
            for number in range(self._read, len(self.said)):
                if _matches(self.said[number], wanted):
                    self._read = number + 1
                    return self.said[number]
            return None

        return self._find(look, wanted)

    def until(self, condition: Any) -> Deferred[Any]:
        """Fire once it returns something true, as seen from all that was said."""
        return self._find(condition)

    def heard(self, channel: str) -> list[Any]:
        """The data of all publications on a channel."""
        return [
            each["data"]
            for each in self.said
            if each["event"] == "publication" and each["channel"] == channel
        ]

    def events(self, *kinds: str, **values: Any) -> list[Event]:
        found = [each for each in self.said if each["event"] in kinds]
        return [each for each in found if _matches(each, values)]

    def _find(self, look: Any, wanted: Any = "what was asked for") -> Deferred[Any]:
        found: Deferred[Any] = Deferred()
        self._looking.append((look, found))
        self._search()
        return found.addTimeout(PATIENCE, reactor).addErrback(self._missed, wanted)

    def _search(self) -> None:
        for entry in tuple(self._looking):
            event = entry[0]()
            if event:
                self._looking.remove(entry)
                entry[1].callback(event)

    def _missed(self, failure: Failure, wanted: Any) -> None:
        raise AssertionError(f"{wanted} did not come ({failure.value}), only:\n{self.printed}")


def _first(events: list[Event], wanted: Event) -> Event | None:
    return next((each for each in events if _matches(each, wanted)), None)


def _matches(event: Event, wanted: Event) -> bool:
    return all(event.get(name) == value for name, value in wanted.items())


def start_client(
    test: TestCase,
    library: Library,
    port: int,
    *,
    query: str = "",
    cookies: Mapping[str, str] | None = None,
    tokens: bool = False,
    trusts: str = "",
) -> DrivenClient:
    """A client that does not connect yet. Skips the test where the library is not to be had.

    :param tokens: it says ``token`` when it wants one.
    :param trusts: the file with the server's certificate, if it speaks TLS.
    """
    cookie = "; ".join(f"{name}={value}" for name, value in (cookies or {}).items())
    client = DrivenClient(library, port, query, trusts, cookie=cookie, tokens=tokens)
    test.addCleanup(client.end)
    return client
