"""The load client: very many websockets, in a C program with little overhead (``load.c``)."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from benchmarks.build import compiled

# The seconds that a server may take to deliver all messages, or to open all websockets.
PATIENCE = 120.0


@dataclass(frozen=True)
class Heard:
    """The messages that the websockets received since the last ``start``. Latencies are in ns."""

    timed_out: bool
    open: int
    failed: int
    """The number of handshakes that were refused or not answered."""
    gone: int
    """The number of websockets that the server has closed."""
    frames: int
    bytes: int
    fewest: int
    """The number of messages of the websocket with the fewest."""
    most: int
    lost: int
    """The number of messages that are missing between others."""
    disordered: int
    """The number of messages that arrived after a later one, or twice."""
    compressed: int
    pings: int
    timed: int
    p50: int
    p99: int
    p999: int
    slowest: int

    def check(self, frames: int) -> Heard:
        """Raise unless every websocket is open and has ``frames`` messages, in order."""
        if self.fewest != frames or self.most != frames or self.lost or self.disordered:
            raise Undelivered(
                f"Each of {self.open + self.gone} websockets should have {frames} messages. They "
                f"have {self.fewest} to {self.most}: {self.lost} are missing between others, "
                f"{self.disordered} are out of order."
            )
        return self.check_total(self.frames)

    def check_total(self, frames: int) -> Heard:
        """Raise unless all together have ``frames`` messages, in order, and none is gone."""
        if self.frames != frames or self.lost or self.disordered:
            raise Undelivered(
                f"{frames} messages should have come, and {self.frames} have: {self.lost} are "
                f"missing between others, {self.disordered} are out of order."
            )
        if self.gone or self.failed:
            raise Undelivered(f"The server closed {self.gone} websockets and {self.failed} failed.")
        return self


class Undelivered(AssertionError):
    """The server lost, repeated or reordered messages, or it lost websockets."""


class Failed(SystemExit):
    """A program did not start, has ended, or did not do what it was told. This ends the benchmark,
    unless the program is another server or belongs to one.
    """


@dataclass(frozen=True)
class Opened:
    """One handshake: its status (0 means no answer, or none that says that it is subscribed) and
    its times in ns.
    """

    status: int
    begun: int
    asked: int
    """The time until TCP had connected and the request was sent."""
    took: int
    """The time until it was answered."""
    resent: int
    """How often the request was resent because the server's kernel had no room for it."""


@dataclass(frozen=True)
class Dialect:
    """What the clients of a protocol on top of the websocket understand."""

    marker: bytes
    """What precedes each message in a frame. A message starts with its number, as everywhere; the
    marker before anything but a digit is no message. A frame may hold several.
    """
    ready: bytes = b""
    """What a frame contains when the client is subscribed. Its handshake ends with it; without it,
    the handshake ends as usual.
    """
    ping: bytes = b""
    """A ping of the protocol: a whole frame, or a whole line of a frame."""
    pong: bytes = b""
    """The answer to ``ping``, as a masked frame."""


class Load:
    """Websockets to one server, in a separate process, until ``end()``."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [compiled("load.c")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(
        self,
        port: int,
        targets: Sequence[str],
        number: int,
        *,
        cookies: Sequence[str] = (),
        headers: Sequence[str] = (),
        dialect: Dialect | None = None,
        said: Sequence[bytes] = (),
        at_once: int = 100,
        patience: float | None = None,
        refusals: bool = False,
    ) -> Heard:
        """Open ``number`` more websockets, with at most ``at_once`` handshakes at a time; 0 means
        all at the same time.

        The websockets use the targets and cookies in turn, in the order of their opening. With a
        ``dialect``, which is that of all websockets, they also take turns at what is ``said``: the
        masked frames, in one string, that each sends as soon as it is accepted. Raise if a
        handshake fails, unless ``refusals`` are expected.
        """
        if dialect is not None:
            words = (dialect.marker, dialect.ready, dialect.ping, dialect.pong)
            self._tell("speak " + " ".join(f">{each.hex()}" for each in words))
        lines = []
        for index in range(max(len(targets), len(cookies), len(said))):
            line = [targets[index % len(targets)], *headers]
            if cookies:
                line.append(f"Cookie: {cookies[index % len(cookies)]}")
            if said:
                line.append(f">{said[index % len(said)].hex()}")
            lines.append("\t".join(line))
        with tempfile.NamedTemporaryFile("w", prefix="ws4redis-tx-") as file:
            file.write("\n".join(lines))
            file.flush()
            heard = self._tell(f"open {port} {number} {at_once} {_ms(patience)} {file.name}")
        if not refusals and (heard.failed or heard.timed_out):
            statuses = {opened.status for opened in self.handshakes() if opened.status != 101}
            raise Undelivered(f"{heard.failed} handshakes failed, with the statuses {statuses}.")
        return heard

    def start(self, sequence: int = 0, *, ordered: bool = True) -> None:
        """Reset the counts. If ``ordered``, each message starts with a decimal sequence number,
        which is ``sequence`` for the next message of every websocket and then increases by one.
        """
        self._tell(f"start {sequence} {int(ordered)}")

    def every(self, frames: int, patience: float | None = None) -> Heard:
        """Wait until every websocket has ``frames`` messages."""
        return self._tell(f"every {frames} {_ms(patience)}")

    def total(self, frames: int, patience: float | None = None) -> Heard:
        """Wait until all websockets together have ``frames`` messages."""
        return self._tell(f"total {frames} {_ms(patience)}")

    def heard(self) -> Heard:
        return self._tell("total 0 0")

    def lap(self) -> Heard:
        """Return the counts, with the latencies since the last lap. Resets only the latencies."""
        return self._tell("lap")

    def handshakes(self) -> list[Opened]:
        """Return them in the order in which they were begun."""
        return [Opened(*each) for each in self._ask("handshakes")]

    def close(self) -> None:
        """Close all websockets."""
        self._tell("close")

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _tell(self, command: str) -> Heard:
        return Heard(**self._ask(command))

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Failed(f"The load client ended at the command: {command}")
        return json.loads(answer)


def _ms(patience: float | None) -> int:
    return round((PATIENCE if patience is None else patience) * 1000)
