"""``ws4redis_tx.testing``: its names, which are public."""

from __future__ import annotations

import ast

from twisted.trial.unittest import SynchronousTestCase

from tests.demo import set_up_django
from tests.support import ROOT
from ws4redis_tx import testing

NAMES = [
    "CapturedMessage", "CapturedMessages", "LiveServer", "MemoryBroker", "MemoryClient",
    "RedisProcess", "ServerProcess", "capture_messages", "client_frame", "connect",
    "make_memory_factory",
]  # fmt: skip


class NamesTests(SynchronousTestCase):
    def test_they_are_these_and_can_be_imported(self) -> None:
        set_up_django()
        self.assertEqual(testing.__all__, NAMES)
        self.assertLess(set(NAMES), set(dir(testing)))
        for name in NAMES:
            self.assertEqual(getattr(testing, name).__name__, name)
        with self.assertRaisesRegex(AttributeError, "'ws4redis_tx.testing' has no attribute 'x'"):
            _ = testing.x

    def test_a_type_checker_sees_what_is_imported(self) -> None:
        tree = ast.parse((ROOT / "ws4redis_tx" / "testing" / "__init__.py").read_text())
        (block,) = (each for each in tree.body if isinstance(each, ast.If))
        seen = {
            alias.name: str(each.module).rpartition(".")[2]
            for each in block.body
            if isinstance(each, ast.ImportFrom)
            for alias in each.names
        }
        self.assertEqual(seen, testing._MODULES)
