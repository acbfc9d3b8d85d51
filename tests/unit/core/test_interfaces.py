"""The interfaces of a broker say all that the server asks of one."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support import ROOT
from ws4redis_tx.core.interfaces import IBroker
from ws4redis_tx.core.positions import IHistory
from ws4redis_tx.redis.broker import RedisBroker
from ws4redis_tx.testing.broker import MemoryBroker

PACKAGE = ROOT / "ws4redis_tx"
# What the program starts and stops, and shares with Django: a broker of its own.
OWN = {"commands", "running", "start", "startService", "stop", "stopService"}


def promises() -> dict[str, Any]:
    return {
        name: value
        for interface in (IBroker, IHistory)
        for name, value in vars(interface).items()
        if not name.startswith("_")
    }


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


def asked() -> Iterator[tuple[str, str, ast.Call | None]]:
    """The attributes of a broker that are used, where, and their calls."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if {"redis", "testing"} & set(path.relative_to(PACKAGE).parts):
            continue  # implementers, and what is theirs alone
        tree = ast.parse(path.read_text())
        calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                holder = node.value
                name = getattr(holder, "attr", getattr(holder, "id", ""))
                if name in ("broker", "_broker"):
                    yield node.attr, f"{path.name}:{node.lineno}", calls.get(id(node))


class BrokerTests(SynchronousTestCase):
    def test_those_that_implement_them_take_what_they_say(self) -> None:
        for name, promised in promises().items():
            for broker in (RedisBroker, MemoryBroker):
                if isinstance(promised, property):
                    continue  # in memory, some are attributes
                self.assertEqual(
                    parameters(getattr(broker, name)), parameters(promised), f"{broker} {name}"
                )

    def test_nothing_else_is_asked_of_one(self) -> None:
        known = promises()
        for name, where, call in asked():
            if name in OWN:
                continue
            self.assertIn(name, known, where)
            if call is not None and callable(known[name]):
                named = {each.arg for each in call.keywords if each.arg}
                taken = {each[0] for each in parameters(known[name])}
                self.assertEqual(named - taken, set(), where)

    def test_the_search_finds_something(self) -> None:
        self.assertGreater(len(list(asked())), 40)
