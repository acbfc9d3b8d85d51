"""What a history costs: Redis' CPU and memory for each message, and resuming from it.

Publishing is measured with the scripts that publishers send, to a Redis with a subscriber that
reads. Messages have 100 bytes. The memory is that of channels with one, ten and fifty messages, a
persisted one included. A client that resumes is compared with one that does not: one handshake at a
time, with 0 to 100 missed messages; 10,000 at once; and fan-out to 2,000 of them.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import valkey

from benchmarks.driving import Clock, audiences
from benchmarks.load import Dialect, Load
from benchmarks.opening import ALL_AT_ONCE, Opening
from benchmarks.report import NEVER_IDLE, Figure, Report, Scale, main
from benchmarks.servers import FACILITY, Redis, Twistd
from ws4redis_tx.core.names import side_channel
from ws4redis_tx.core.positions import History, Kept, position
from ws4redis_tx.redis.history.publishing import kept_command
from ws4redis_tx.redis.scripts import atomic_command
from ws4redis_tx.testing.wire import SUBPROTOCOL

EXPIRE = 3600
HISTORY = History(200, EXPIRE)
KEPT = Kept(HISTORY)
MESSAGE = b"x" * 100
CHANNEL = f"broadcast:{FACILITY}".encode()
MISSED = (0, 1, 10, 100)
LENGTHS = (1, 10, 50)
RATE = 20.0
_BATCH = 50  # calls in one write

# A message follows its position and a line feed. A mark has none, nor has the first frame.
_RESUMED = Dialect(b"\n")


def publish(
    connection: Any, channels: Sequence[bytes], message: bytes, kept: Kept | None
) -> tuple[int, int]:
    """Publish as publishers do. Return the last stamp and that of the beginning, if it is kept."""
    if kept is None:
        connection.execute_command(*atomic_command("", channels, message, EXPIRE))
        return 0, 0
    answer = connection.execute_command(*kept_command("", channels, message, EXPIRE, kept))
    return int(answer[0]), int(answer[1])


class KeepingTwistd(Twistd):
    """Our server with a history, whose clients do not resume."""

    name = "plain clients"

    def __init__(self) -> None:
        super().__init__(f"--history={FACILITY}={HISTORY.size},{HISTORY.seconds}")
        self.connection = valkey.Valkey(port=self.redis_port)

    def publish(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            publish(self.connection, [CHANNEL], message, KEPT)

    def reads(self) -> int:
        """Return the number of scripts that Redis has run."""
        found = self.connection.info("commandstats").get("cmdstat_eval", {})
        return int(found.get("calls", 0))

    def end(self) -> None:
        self.connection.close()
        super().end()


class ResumingTwistd(KeepingTwistd):
    """The same, whose clients resume at ``since``."""

    name = "resumed clients"

    def __init__(self) -> None:
        super().__init__()
        self.since = ""

    def open(self, load: Load, targets: Sequence[str], number: int, **how: Any) -> None:
        headers = [*how.pop("headers", ()), f"Sec-WebSocket-Protocol: {SUBPROTOCOL}"]
        resuming = [f"{target}&since={self.since}" for target in targets]
        super().open(load, resuming, number, headers=headers, dialect=_RESUMED, **how)

    def fill(self, number: int) -> list[str]:
        """Publish ``number`` messages. Return the position of each."""
        given = [publish(self.connection, [CHANNEL], MESSAGE, KEPT) for _ in range(number)]
        return [str(position(*stamps)) for stamps in given]


@contextmanager
def subscriber(redis: Redis, channels: Sequence[bytes]) -> Iterator[None]:
    """Subscribe as a server does, with the markers if there are some, and read what comes."""
    connection = socket.create_connection(("127.0.0.1", redis.port))
    names = [*channels, *(side_channel("", channel) for channel in channels)]
    connection.sendall(b"SUBSCRIBE " + b" ".join(names) + b"\r\n")

    def read() -> None:
        with suppress(OSError):
            while connection.recv(1 << 16):
                pass

    reading = threading.Thread(target=read, daemon=True)
    reading.start()
    try:
        yield
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        reading.join()
        connection.close()


def published(
    redis: Redis, connection: Any, channels: Sequence[bytes], kept: Kept | None, calls: int
) -> dict[str, float]:
    """Return the µs of Redis' CPU for each message."""
    pipeline = connection.pipeline(transaction=False)
    before = redis.cpu()
    for _ in range(0, calls, _BATCH):
        for _ in range(_BATCH):
            if kept is None:
                pipeline.execute_command(*atomic_command("", channels, MESSAGE, EXPIRE))
            else:
                pipeline.execute_command(*kept_command("", channels, MESSAGE, EXPIRE, kept))
        pipeline.execute()
    rounded = -(-calls // _BATCH) * _BATCH
    return {"cpu": (redis.cpu() - before) / (rounded * len(channels)) * 1e6}


def publishing(report: Report, calls: int) -> None:
    channels = [f"user:visitor{number}:{FACILITY}".encode() for number in range(10)]
    redis = Redis()
    try:
        with valkey.Valkey(port=redis.port) as connection, subscriber(redis, channels):
            measures: dict[str, Callable[[], dict[str, float]]] = {}
            for number in (1, 10):
                of = f"{number} channel{'s' * (number > 1)} a call"
                for kept, how in ((None, "without"), (KEPT, "with")):
                    measures[f"publish, {of}, {how} history"] = partial(
                        published, redis, connection, channels[:number], kept, calls // number
                    )
            for measure in measures.values():  # warm up, and fill the histories
                measure()
            found = report.interleave(measures)
    finally:
        redis.end()
    report.add(*(Figure(name, "µs/message", values["cpu"]) for name, values in found.items()))


def filled(length: int, channels: int, kept: Kept | None) -> dict[str, float]:
    """Return the bytes that Redis takes for each of ``channels`` with ``length`` messages."""
    redis = Redis()
    try:
        with valkey.Valkey(port=redis.port) as connection:
            publish(connection, [b"broadcast:warm"], MESSAGE, kept)
            before = connection.info("memory")["used_memory"]
            for first in range(0, channels, 100):
                names = [
                    f"user:visitor{number}:{FACILITY}".encode()
                    for number in range(first, min(first + 100, channels))
                ]
                for _ in range(length):
                    publish(connection, names, MESSAGE, kept)
            return {"bytes": (connection.info("memory")["used_memory"] - before) / channels}
    finally:
        redis.end()


def memory(report: Report, channels: int) -> None:
    measures = {"a channel, persisted message only": partial(filled, 1, channels, None)}
    for length in LENGTHS:
        name = f"a channel, history of {length} message{'s' * (length > 1)}"
        measures[name] = partial(filled, length, channels, Kept(History(length, EXPIRE)))
    found = report.interleave(measures, 1)  # it hardly varies
    report.add(*(Figure(name, "bytes", values["bytes"]) for name, values in found.items()))


def opened(opening: Opening, number: int, at_once: int, since: str | None) -> dict[str, float]:
    """Close all websockets and open ``number``. Return the CPU of each, and Redis' scripts."""
    server: Any = opening.server
    opening.close()
    if since is not None:
        server.since = since
    clock, reads = Clock(server), server.reads()
    cpu = opening.open(number, at_once, refusals=at_once == ALL_AT_ONCE)
    _, redis = clock.per(number)
    failed = sum(each.status != 101 for each in opening.load.handshakes())
    return {
        "cpu": cpu,
        "redis": redis,
        "reads": server.reads() - reads,
        "failed": failed,
        NEVER_IDLE: opening.never_idle(),
    }


def resuming(report: Report, singles: int, storm: int) -> None:
    with Opening(KeepingTwistd()) as plain, Opening(ResumingTwistd()) as resumed:
        keeping: Any = plain.server
        server: Any = resumed.server
        publish(keeping.connection, [CHANNEL], MESSAGE, KEPT)
        positions = server.fill(max(MISSED) + 1)
        each = "one at a time"
        measures = {f"handshake, {each}": partial(opened, plain, singles, 1, None)}
        for missed in MISSED:
            measures[f"resume, {missed} missed, {each}"] = partial(
                opened, resumed, singles, 1, positions[-1 - missed]
            )
        storms = {
            "simultaneous handshakes": partial(opened, plain, storm, ALL_AT_ONCE, None),
            "simultaneous resumes, 1 missed": partial(
                opened, resumed, storm, ALL_AT_ONCE, positions[-2]
            ),
        }
        found = report.interleave({**measures, **storms})
    for name, values in found.items():
        report.add(Figure(name, "µs/handshake", values["cpu"]))
        report.add(Figure(f"{name}, Redis", "µs/handshake", values["redis"]))
    names = list(storms)
    reads = Figure(f"{names[1]}, scripts of Redis", "calls", found[names[1]]["reads"])
    report.add(reads)
    failed = Figure(f"{names[1]}, not served", "handshakes", found[names[1]]["failed"])
    report.goal(f"{names[1]}: failures", failed, 0)
    cpu, base = (Figure(name, "µs/handshake", found[name]["cpu"]) for name in reversed(names))
    report.add(cpu.over(base))


def fan_out(report: Report, number: int, seconds: float) -> None:
    with audiences() as make:
        both = [make(each, number) for each in (KeepingTwistd, ResumingTwistd)]
        found = report.interleave(
            {each.server.name: partial(each.fan_out, seconds, RATE) for each in both}
        )
    plain, resumed = (
        Figure(f"fan-out, {each.server.name}", "µs/delivery", found[each.server.name]["cpu"])
        for each in both
    )
    report.add(plain, resumed)
    text = "fan-out: ratio of resumed clients to plain ones"
    report.goal(text, resumed.over(plain), 1.03)


def run(scale: Scale) -> Report:
    clients, storm = scale.pick(2000, 200), scale.pick(10_000, 300)
    calls, channels = scale.pick(20_000, 1000), scale.pick(10_000, 300)
    report = Report(
        "history",
        scale,
        bytes=len(MESSAGE),
        clients=clients,
        simultaneous=storm,
        channels=channels,
    )
    publishing(report, calls)
    memory(report, channels)
    resuming(report, scale.pick(1000, 50), storm)
    fan_out(report, clients, scale.pick(4, 1))
    return report


if __name__ == "__main__":
    main(run, __doc__)
