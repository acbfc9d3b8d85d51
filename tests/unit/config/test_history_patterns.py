"""The setting of histories: what works, and what an error says."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from ws4redis_tx.config.history_patterns import HistoryPatterns
from ws4redis_tx.core.errors import ConfigError


class HistoryPatternsTests(SynchronousTestCase):
    def test_a_mapping_and_the_checked_form_both_work(self) -> None:
        kind = HistoryPatterns()
        checked = (("orders", 100, 3600), ("chat/*", 50, 86400))
        given = {"orders": (100, 3600), "chat/*": [50, 86400]}
        self.assertEqual(kind.check("the_name", given), checked)
        self.assertEqual(kind.check_field("the_name", checked), checked)
        self.assertEqual(kind.read("--the-name", "a=b=1,2"), (("a=b", 1, 2),))

    def test_off_is_none(self) -> None:
        for off in (None, False, ""):
            self.assertEqual(HistoryPatterns().check("the_name", off), ())
        self.assertEqual(HistoryPatterns().check("the_name", ()), ())
        self.assertEqual(HistoryPatterns().check("the_name", {}), ())

    def test_what_cannot_work_is_refused_with_an_example(self) -> None:
        for wrong in (
            7, "orders", ["orders"], {"orders": 100}, {"orders": (100,)}, {1: (100, 3600)},
            {"orders": (100, 3600, 1)},
        ):  # fmt: skip
            error = self.assertRaises(ConfigError, HistoryPatterns().check, "the_name", wrong)
            self.assertEqual(error.setting, "the_name")
            self.assertIn("{'orders': (100, 3600)}", str(error))

    def test_numbers_that_cannot_work_are_named_with_their_facility(self) -> None:
        for pair in ((0, 60), (5, 0), (5, 30 * 86400 + 1), (True, 60), ("5", 60), (5.5, 60)):
            error = self.assertRaises(
                ConfigError, HistoryPatterns().check, "the_name", {"orders": pair}
            )
            self.assertEqual(error.setting, "the_name")
            self.assertIn("'orders'", str(error))

    def test_on_the_command_line_a_mistake_shows_an_example(self) -> None:
        for text in ("orders", "orders=5", "=5,60", "orders=5,60,7"):
            error = self.assertRaises(ConfigError, HistoryPatterns().read, "--history", text)
            self.assertIn("orders=100,3600", str(error))
