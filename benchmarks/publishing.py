"""``publish_message`` as its caller sees it, compared with a plain Redis client.

For one channel, this measures the time until the call returns, and the CPU of this process, in
which the publishing thread and the reactor thread share the interpreter. The other client persists
and publishes in one pipeline, with a transaction, which is its default, and without one. For 1,000
users, it compares one call with a call for each user. It creates a new publisher for each message,
as views do.

The other client is ``redis`` if that is installed, otherwise ``valkey``, a fork with the same API
that the tests need anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from benchmarks.report import Figure, Report, Scale, main
from benchmarks.servers import SETTINGS, Redis

try:
    import redis as client
except ImportError:
    import valkey as client  # type: ignore[no-redef]

USERS = 1000
EXPIRE = 3600
MESSAGE = b"x" * 128
CHANNEL = "broadcast:load"


def timed(publish: Callable[[], object], number: int, seconds: float) -> dict[str, float]:
    """Return the µs of time and of CPU per call, for ``number`` calls or more: for those that fill
    ``seconds``.
    """
    started, cpu = time.perf_counter(), time.process_time()
    calls = 0
    while calls < number or time.perf_counter() < started + seconds:
        publish()
        calls += 1
    return {
        "time": (time.perf_counter() - started) / calls * 1e6,
        "cpu": (time.process_time() - cpu) / calls * 1e6,
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
    """Start a Redis, set up Django to use it, and give a connection of the other client."""
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
    seconds = scale.pick(1, 0)
    names = [f"user{i}" for i in range(USERS)]
    report = Report(
        "publishing",
        scale,
        messages=number,
        seconds_at_least=seconds,
        bytes=len(MESSAGE),
        users=USERS,
        client=f"{client.__name__} {version(client.__name__)}",
    )
    with redis_and_django() as connection:
        transaction = f"{client.__name__}, setex + publish in a transaction"
        plain = f"{client.__name__}, the same without a transaction"
        calls: dict[str, tuple[Callable[[], object], int]] = {
            "publish_message": (to_everybody, number),
            transaction: (partial(in_a_pipeline, connection, True), number),
            plain: (partial(in_a_pipeline, connection, False), number),
            "to 1,000 users at once": (partial(to_users, names), rounds_of_users),
            "to 1,000 users one by one": (partial(one_by_one, names), 1),
        }
        for publish, _ in calls.values():  # warm up
            publish()
        found = report.interleave(
            {name: partial(timed, *call, seconds) for name, call in calls.items()}
        )
    times = {name: Figure(name, "µs", values["time"]) for name, values in found.items()}
    cpu = {name: Figure(f"CPU: {name}", "µs", values["cpu"]) for name, values in found.items()}
    report.add(*times.values(), *cpu.values())
    ours = times["publish_message"]
    report.goal(
        "publishing to one channel: ratio to the client's pipeline",
        ours.over(times[transaction]),
        2.3,
    )
    report.add(ours.over(times[plain]))
    report.goal(
        "publishing to 1,000 users: ratio of single calls to one call",
        times["to 1,000 users one by one"].over(times["to 1,000 users at once"]),
        20,
        least=True,
    )
    return report


if __name__ == "__main__":
    main(run, __doc__)
