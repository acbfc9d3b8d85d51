"""Pages that keep a list, writers, and a random order of all that they do.

``python -m tests.projects.true_lists SEED VIEWS VARIANT…`` runs in the site of ``docs/lists.md``.
For each variant it renders that many pages, and prints JSON: how many of them were wrong when all
was quiet, and how many gaps they were told of.

No step waits for time to pass. A seed decides the order of the steps, and each one is done when the
next one begins. Each writer has a connection of its own, hence a transaction of its own.
Committing, and calling what was to be called on commit, are two steps, since a thread may be
interrupted in between. Within the request that renders a page, other steps come before and behind
its query. The websockets are real ones.

Each step has random numbers of its own. A position may be some microseconds early, so that a page
hears of a message that it has no need of; what the others do does not change then.

The variants are ``recipe``, and the mistakes that the page warns of: ``late-position``, ``inside``,
``other-database`` and ``values``.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from random import Random
from typing import Any

import django
import websocket

from tests.support.list_site import WRITERS
from ws4redis_tx.testing import RedisProcess, ServerProcess

MOST_PAGES = 3
MOST_ROWS = 8
FLAGS = "subscribe-broadcast"


class Writer:
    """One connection to the database that writes."""

    def __init__(self, simulation: Simulation, alias: str) -> None:
        from django.db import connections

        self._simulation = simulation
        self._alias = alias
        self._connection = connections[alias]
        self._transaction: AbstractContextManager[object] | None = None
        self.locked: set[int] = set()
        """The rows that it has changed, and not committed."""
        self.to_publish: list[Callable[[], object]] = []
        """To be called on commit, and not called yet."""

    @property
    def is_open(self) -> bool:
        return self._transaction is not None

    def steps(self) -> Iterator[Callable[[], object]]:
        """What it can do next."""
        if self.is_open:
            yield self.change
            yield self.commit
            yield self.commit
            yield self.roll_back
        elif self._simulation.transactions and self._simulation.may_write:
            yield self.begin
        if self.to_publish:
            yield self.publish

    def begin(self) -> None:
        from django.db import transaction

        self._simulation.transactions -= 1
        self._transaction = transaction.atomic(using=self._alias)
        self._transaction.__enter__()
        self.change()

    def change(self) -> None:
        from orders.models import Order

        random = self._simulation.random
        table = Order.objects.using(self._alias)
        locked = self._simulation.locked_by_others(self)
        free = sorted(set(table.values_list("pk", flat=True)) - locked)
        some = random.sample(free, random.randint(0, min(3, len(free))))
        rows = table.filter(pk__in=some)
        kind = random.randrange(5)
        title = f"title {random.randrange(1000)}"
        if len(free) < 2 or (kind == 0 and len(free) < MOST_ROWS):
            made = table.bulk_create(Order(title=f"{title}, {each}") for each in range(2))
            some = [each.pk for each in made]
        elif kind == 1:
            rows.delete()
        elif kind == 2:
            rows.update(done=True)
        elif kind == 3:
            rows.update(done=False, title=title)
        else:
            table.bulk_update([Order(pk=pk, title=f"{title}, {pk}") for pk in some], ["title"])
        self.locked |= set(some)
        if some:
            self._simulation.tell(some, self._alias)

    def commit(self) -> None:
        # As if the thread were interrupted behind COMMIT.
        self.to_publish += [function for _, function, *_ in self._connection.run_on_commit]
        self._connection.run_on_commit = []
        self._leave()

    def roll_back(self) -> None:
        from django.db import transaction

        transaction.set_rollback(True, using=self._alias)
        self._leave()

    def _leave(self) -> None:
        assert self._transaction is not None
        self._transaction.__exit__(None, None, None)
        self._transaction = None
        self.locked.clear()

    def publish(self) -> None:
        self.to_publish.pop(0)()


class Page:
    """A page in a browser: its rows, and what its script does."""

    def __init__(self, simulation: Simulation, html: str) -> None:
        self._simulation = simulation
        self.rows = rows_in(html)
        [self._position] = re.findall(r"&since=([\w.~-]+)", html)
        self._socket: Any = None
        self._wanted = False
        self._answer: dict[int, str] | None = None  # of the fetch that is under way

    def steps(self) -> Iterator[Callable[[], object]]:
        if self._socket is None:
            yield self.connect
            yield self.connect
        else:
            yield self.hear
            yield self.disconnect
        if self._answer is not None:
            yield self.take_answer
        elif self._wanted:
            yield self.ask

    def connect(self) -> None:
        url = f"{self._simulation.server.url('orders', FLAGS)}&since={self._position}"
        self._socket = websocket.create_connection(
            url, timeout=60, subprotocols=["ws4redis.resume"]
        )

    def disconnect(self) -> None:
        """What was sent and not heard is lost, and the page connects again later."""
        self._socket.close()
        self._socket = None

    def come_to_rest(self) -> None:
        """Hear and fetch all that is left."""
        if self._socket is None:
            self.connect()
        self.hear()
        while self._wanted or self._answer is not None:
            if self._answer is None:
                self.ask()
            self.take_answer()

    def hear(self) -> None:
        """Hear all that was published until now."""
        token = self._simulation.next_token()
        while True:
            frame = self._socket.recv()
            head, line_feed, message = frame.partition("\n")
            if head.startswith("{"):
                status = json.loads(head)
                self._position = status["position"]
                if status["recovered"] is False:  # the script's resumed()
                    self._simulation.gaps += 1
                    self._wanted = True
                continue
            self._position = head.partition(",")[0]
            if message == token:
                return
            if line_feed and not message.startswith("token"):
                self._take(json.loads(message))

    def _take(self, message: Any) -> None:
        if isinstance(message, dict):  # a mistake: values instead of keys
            for key, title in message.items():
                self.rows.pop(int(key), None)
                if title is not None:
                    self.rows[int(key)] = title
        else:
            self._wanted = True

    def ask(self) -> None:
        self._wanted = False
        self._answer = rows_in(self._simulation.get("/rows/"))

    def take_answer(self) -> None:
        assert self._answer is not None
        self.rows, self._answer = self._answer, None


class Simulation:
    def __init__(self, variant: str, seed: int, server: ServerProcess) -> None:
        from django.db import connection
        from django.test import Client

        self.random = Random()
        self.server = server
        self.gaps = 0
        self.transactions = 0
        """Those that may still begin in this round."""
        self._seed = seed
        self._steps = 0
        self._variant = variant
        self._client = Client()
        self._database = connection
        self._alone = connection.vendor == "sqlite"
        self._tokens = 0
        self._writers = [Writer(self, alias) for alias in WRITERS]

    # Asked by writers and pages

    @property
    def may_write(self) -> bool:
        """SQLite has one writer at a time."""
        return not (self._alone and any(each.is_open for each in self._writers))

    def locked_by_others(self, writer: Writer) -> set[int]:
        """The rows that a writer would have to wait for."""
        return {key for each in self._writers if each is not writer for key in each.locked}

    def tell(self, keys: list[int], alias: str) -> None:
        """Publish that the rows have changed, as the variant does."""
        from orders.models import Order
        from orders.views import changed

        from ws4redis_tx.publisher import RedisPublisher

        publisher = RedisPublisher(facility="orders", broadcast=True)
        if self._variant == "inside":
            publisher.publish_json(keys)
        elif self._variant == "other-database":
            changed(*keys)
        elif self._variant == "values":
            shown = Order.objects.using(alias).filter(pk__in=keys, done=False)
            titles = dict(shown.values_list("pk", "title"))
            values = {key: titles.get(key) for key in keys}
            publisher.publish_json(values, on_commit=True, using=alias)
        else:
            changed(*keys, using=alias)

    def next_token(self) -> str:
        """A message that pages do not act on. All messages before it have been heard with it."""
        from ws4redis_tx.publisher import RedisPublisher

        self._tokens += 1
        token = f"token {self._tokens}"
        RedisPublisher(facility="orders", broadcast=True).publish_message(token)
        return token

    def get(self, path: str) -> str:
        return self._client.get(path).content.decode()

    # The story

    def run(self, views: int) -> int:
        """Render that many pages, and return how many of them were wrong."""
        wrong = rendered = 0
        while rendered < views:
            pages = self._round(min(MOST_PAGES, views - rendered))
            rendered += len(pages)
            right = rows_in(self.get("/rows/"))
            wrong += sum(list(page.rows.items()) != list(right.items()) for page in pages)
            for page in pages:
                page.disconnect()
        return wrong

    def _round(self, most: int) -> list[Page]:
        """Few transactions, so that no later message puts right what an earlier one left wrong."""
        pages: list[Page] = []
        self._next_step()
        rest = self.random.randint(1, most)
        self.transactions = self.random.choice([1, 1, 2, 4])
        while rest or self.transactions or self.random.random() < 0.9:
            self._next_step()
            kind = self.random.choice(("write", "write", "read", "read", "render", "finish"))
            if kind == "write":
                self._let(self.random.choice(self._writers))
            elif kind == "read" and pages:
                self._let(self.random.choice(pages))
            elif kind == "render" and rest:
                pages.append(Page(self, self._rendered()))
                rest -= 1
            elif kind == "finish" and self.transactions and self._may_finish():
                self.transactions -= 1
                self._client.post("/finish/")
        self._become_quiet(pages)
        return pages

    def _next_step(self) -> None:
        self._steps += 1
        self.random = Random(f"{self._seed} {self._steps}")

    def _may_finish(self) -> bool:
        """Whether the view that changes all rows would wait for nobody."""
        return self.may_write and not any(each.locked for each in self._writers)

    def _become_quiet(self, pages: list[Page]) -> None:
        while left := [each for each in self._writers if each.is_open or each.to_publish]:
            self._next_step()
            writer = self.random.choice(left)
            self.random.choice([step for step in writer.steps() if step != writer.change])()
        for page in pages:
            page.come_to_rest()

    def _rendered(self) -> str:
        """A page. Before and behind its query, writers go on."""

        def interrupted(execute: Any, sql: str, *arguments: Any) -> Any:
            if 'FROM "orders_order"' not in sql:
                return execute(sql, *arguments)
            self._write_on()
            try:
                return execute(sql, *arguments)
            finally:
                self._write_on()

        with self._database.execute_wrapper(interrupted):
            return late_page() if self._variant == "late-position" else self.get("/")

    def _write_on(self) -> None:
        writer = self.random.choice(self._writers)
        for _ in range(self.random.randrange(8)):
            self._let(writer)

    def _let(self, actor: Writer | Page) -> None:
        steps = list(actor.steps())
        if steps:
            self.random.choice(steps)()


def rows_in(html: str) -> dict[int, str]:
    return {int(key): title for key, title in re.findall(r'<li data-key="(\d+)">(.*?)</li>', html)}


def late_page() -> str:
    """A mistake: the position is asked for after the rows were read."""
    from django.template.loader import render_to_string
    from orders.models import Order

    from ws4redis_tx.publisher import RedisPublisher

    orders = list(Order.objects.filter(done=False))
    rows = render_to_string("orders/rows.html", {"orders": orders})
    return f"{rows}&since={RedisPublisher.position()}"


def main(seed: str, views: str, *variants: str) -> None:
    redis = RedisProcess()
    os.environ["LISTS_REDIS"] = redis.url
    django.setup()
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", run_syncdb=True, verbosity=0)
    if connections["default"].vendor == "sqlite":  # readers do not keep a writer waiting
        with connections["default"].cursor() as cursor:
            cursor.execute("PRAGMA journal_mode=wal")
    server = ServerProcess(redis.url)
    try:
        found = {}
        for variant in variants:
            simulation = Simulation(variant, int(seed), server)
            wrong = simulation.run(int(views))
            found[variant] = {"wrong": wrong, "gaps": simulation.gaps}
        print(json.dumps(found))
    finally:
        connections.close_all()
        server.stop()
        redis.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
