"""``publish_message`` as its caller sees it, beside a plain client of Redis that does the same.

To one channel: the time until the call returns, and the CPU of this process, in which the thread
that publishes and the reactor's share the interpreter. The other client persists and publishes in
one pipeline: as its default, a transaction, and without. To 1,000 users: at once, and one by one.
Publishers are made anew for each message, as views do.

The other client is ``redis`` where that is installed, else ``valkey``, a fork of it with the same
API, which comes with the tests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from benchmarks.report import Figure, Report, Scale, interleave, main
from benchmarks.servers import SETTINGS, Redis

try:
    import redis as client
except ImportError:
    import valkey as client  # type: ignore[no-redef]

USERS = 1000
EXPIRE = 3600
MESSAGE = b"x" * 128
CHANNEL = "broadcast:load"


def timed(publish: Callable[[], object], number: int) -> dict[str, float]:
    """Microseconds of time and of CPU for each of ``number`` calls."""
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(number):
        publish()
    return {
        "time": (time.perf_counter() - started) / number * 1e6,
        "cpu": (time.process_time() - cpu) / number * 1e6,
    }


def in_a_pipeline(connection: Any, transaction: bool) -> None:
    pipeline = connection.pipeline(transaction=transaction)
    pipeline.setex(CHANNEL, EXPIRE, MESSAGE)
    pipeline.publish(CHANNEL, MESSAGE)
    pipeline.execute()


def to_everybody() -> None:
    from ws4redis_tx.publisher import RedisPublisher

    RedisPublisher(facility="load", broadcast=True).publish_message(MESSAGE)


def to_users(names: list[str]) -> None:
    from ws4redis_tx.publisher import RedisPublisher

    RedisPublisher(facility="load", users=names).publish_message(MESSAGE)


def one_by_one(names: list[str]) -> None:
    for name in names:
        to_users([name])


@contextmanager
def redis_and_django() -> Iterator[Any]:
    """A Redis of our own, Django that knows it, and a connection of the other client."""
    redis = Redis()
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS
    os.environ["WS4REDIS_BENCHMARK_DB"] = ":memory:"
    import django
    from django.conf import settings

    django.setup()
    settings.WS4REDIS_CONNECTION = redis.url
    try:
        with client.Redis(host="127.0.0.1", port=redis.port) as connection:
            yield connection
    finally:
        redis.end()


def run(scale: Scale) -> Report:
    number, rounds_of_users = scale.pick(2000, 200), scale.pick(10, 2)
    names = [f"user{i}" for i in range(USERS)]
    report = Report(
        "publishing",
        scale,
        messages=number,
        bytes=len(MESSAGE),
        users=USERS,
        client=f"{client.__name__} {version(client.__name__)}",
    )
    with redis_and_django() as connection:
        transaction = f"{client.__name__}, setex + publish in a transaction"
        plain = f"{client.__name__}, the same without transaction"
        calls: dict[str, tuple[Callable[[], object], int]] = {
            "publish_message": (to_everybody, number),
            transaction: (partial(in_a_pipeline, connection, True), number),
            plain: (partial(in_a_pipeline, connection, False), number),
            "to 1,000 users at once": (partial(to_users, names), rounds_of_users),
            "to 1,000 users one by one": (partial(one_by_one, names), 1),
        }
        for publish, _ in calls.values():  # connected, imported, compiled
            publish()
        found = interleave(
            {name: partial(timed, *call) for name, call in calls.items()}, scale.rounds
        )
    times = {name: Figure(name, "µs", values["time"]) for name, values in found.items()}
    cpu = {name: Figure(f"CPU: {name}", "µs", values["cpu"]) for name, values in found.items()}
    report.add(*times.values(), *cpu.values())
    ours = times["publish_message"]
    report.goal("one channel, over the client's pipeline", ours.over(times[transaction]), 2.3)
    report.add(ours.over(times[plain]))
    report.goal(
        "1,000 users one by one over at once",
        times["to 1,000 users one by one"].over(times["to 1,000 users at once"]),
        20,
        least=True,
    )
    return report


if __name__ == "__main__":
    main(run, __doc__)
