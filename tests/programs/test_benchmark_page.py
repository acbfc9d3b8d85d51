"""The page of figures, and the goals that the benchmarks print in the end."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import page
from benchmarks.__main__ import PROGRAMS, summarized
from benchmarks.notes import lacks
from benchmarks.peers import servers


def result(program: str, *figures: tuple[str, str, float], **more: Any) -> dict[str, Any]:
    """The results of a program as its JSON has them."""
    return {
        "program": program,
        "quick": False,
        "quiet": True,
        "conditions": {
            "CPUs": 2,
            "load average": [0.1, 0.9],
            "steal": 0.002,
            "most that others took": 0.011,
            "during": "ours",
            "programs": {"cron": 0.011},
        },
        "parameters": {"visitors": 2000},
        "versions": {"CPU": "2 x Example"},
        "figures": [
            {
                "name": name,
                "unit": unit,
                "values": [median] * 7,
                **dict.fromkeys(("median", "lowest", "highest"), median),
            }
            for name, unit, median in figures or [("a", "µs", 1.0)]
        ],
        "goals": [],
        "peers": {},
        "not measured": {},
        **more,
    }


NOISY = {
    "CPUs": 2,
    "most that others took": 0.123,
    "during": "C loop",
    "programs": {"pytest": 0.1, "cc1": 0.023},
}
MISSED = {"text": "g", "figure": "f", "median": 1.5, "at most": 1.2, "met": False}
PEERS = {"Bun + ioredis": {"Bun": "1.2", "zlib": "3"}, "Channels, Daphne": {"daphne": "4"}}


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.results = {program: result(program) for program in PROGRAMS}
        self.results["fanout"] = result(
            "fanout",
            ("ws4redis_tx", "µs/delivery", 8.0),
            ("ws4redis_tx, without a site", "µs/delivery", 7.0),
            ("Bun + ioredis", "µs/delivery", 6.0),
            ("Channels, Daphne", "µs/delivery", 300.0),
            ("ws4redis_tx, latency", "ms, median", 3.0),
            peers=PEERS,
            **{"not measured": {"pushpin": "no package"}},
        )
        self.results["memory"] = result(
            "memory",
            ("ws4redis_tx", "KiB/websocket", 6.0),
            ("Channels, Daphne", "KiB/websocket", 43.0),
            ("ws4redis_tx", "µs/handshake", 1000.0),
            ("Bun + ioredis", "µs/handshake", 90.0),
            peers=PEERS,
        )
        name = "1,000 clients: ours, deliveries alone / C loop"
        self.results["growth"] = result("growth", (name, "times", 1.2))
        self.results["relay"] = result(
            "relay",
            ("ws4redis_tx", "µs/message", 50.0),
            ("Redis of ws4redis_tx", "µs/message", 35.0),
        )
        self.results["idle"] = result("idle", ("2,000 idle visitors", "ms/s", 3.0))

    def write(self) -> tuple[int, str]:
        """Write the page from the results. Return the status and what was printed."""
        for program, content in self.results.items():
            (self.folder / f"{program}.json").write_text(json.dumps(content))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            status = page.write(self.folder, self.folder)
        return status, said.getvalue()

    def test_no_page_is_written_from_what_others_disturbed(self) -> None:
        self.results["growth"].update(quiet=False, conditions=NOISY)
        status, said = self.write()
        self.assertEqual(status, 1)
        self.assertFalse((self.folder / "performance.md").exists())
        self.assertEqual(
            said,
            "no page: growth was not measured on a quiet machine: others took 12.3 % of 2 CPUs, "
            "more than 3 %, during C loop: pytest 10.0 %, cc1 2.3 %\n",
        )

    def test_no_page_is_written_from_results_that_nobody_watched(self) -> None:
        del self.results["growth"]["quiet"], self.results["growth"]["conditions"]
        status, said = self.write()
        self.assertEqual(status, 1)
        self.assertIn("growth was not measured on a quiet machine: nobody has watched", said)

    def test_no_page_is_written_without_all_results(self) -> None:
        del self.results["growth"]
        self.results["idle"]["quick"] = True
        status, said = self.write()
        self.assertEqual(status, 1)
        self.assertEqual(said, "no page: growth is not measured\nno page: idle is not measured\n")

    def test_a_page_is_written_from_what_was_measured_on_a_quiet_machine(self) -> None:
        if find_spec("matplotlib") is None:
            raise SkipTest("matplotlib draws the plots, and it is not installed")
        status, said = self.write()
        self.assertEqual(status, 0, said)
        self.assertTrue((self.folder / "performance.md").read_text().startswith("# Performance\n"))
        self.assertTrue((self.folder / "performance" / "memory.svg").exists())

    def test_all_programs_are_told_with_their_conditions(self) -> None:
        text, _ = page.page(self.results, {})
        for program in PROGRAMS:
            self.assertIn(f"| `benchmarks.{program}` | 7 | 0.10 to 0.90 | 0.2 % | 1.1 % |", text)

    def test_the_programs_tell_their_goals_and_what_disturbed_them(self) -> None:
        self.assertEqual(
            summarized(
                result("growth", goals=[MISSED], **{"not measured": {"nchan": "no package"}})
            ),
            [
                "growth       MISSED g: 1.500, target ≤ 1.200, missed by 25 %.",
                "growth              nchan not measured: no package",
            ],
        )
        (line,) = summarized(result("growth", quiet=False, conditions=NOISY))
        self.assertIn("NOT QUIET others took 12.3 % of 2 CPUs", line)
        self.assertIn("pytest 10.0 %, cc1 2.3 %", line)

    def test_it_opens_with_the_users_that_a_machine_serves(self) -> None:
        text, _ = page.page(self.results, {})
        opening = text[: text.index("## Beside other servers")]
        self.assertIn("2 x Example", opening)
        self.assertIn("| messages a second, each to one client | 20,000 |", opening)
        self.assertIn("| clients that receive a message every second | 120,000 |", opening)
        self.assertIn("| CPU of 10,000 idle visitors | 1.5 % of a core |", opening)
        self.assertIn("| memory of 10,000 idle visitors | 59 MiB |", opening)
        self.assertLess(text.index("## Beside other servers"), text.index("## Goals"))

    def test_all_servers_are_in_one_table_the_better_ones_in_bold(self) -> None:
        text, _ = page.page(self.results, {})
        rows = [line for line in text.splitlines() if line.count("|") == 7]
        self.assertEqual(
            [row.split("|")[1].strip() for row in rows[2:]],
            ["ws4redis_tx", "ws4redis_tx, without a site", "Bun + ioredis", "Channels, Daphne"],
        )
        self.assertTrue(rows[2].startswith("| ws4redis_tx | 8.00 | 6.00 | 1,000 |"))
        self.assertTrue(rows[4].startswith("| Bun + ioredis | **6.00** | — | **90.00** | a lib"))
        self.assertTrue(rows[4].endswith("| Bun 1.2 |"))
        self.assertTrue(rows[5].startswith("| Channels, Daphne | 300 | 43.00 | — |"))
        self.assertIn("A delivery of pushpin was not measured: no package", text)

    def test_missed_goals_are_explained_or_named(self) -> None:
        self.results["growth"]["goals"] = [MISSED]
        text, unexplained = page.page(self.results, {})
        self.assertIn("| g | 1.50 | ≤ 1.20 | **missed** |", text)
        self.assertIn("- **g**: missed by 25 %.", text)
        self.assertEqual(unexplained, ["g"])
        self.patch(page, "REASONS", {"g": "It is hard."})
        text, unexplained = page.page(self.results, {})
        self.assertIn("- **g**: missed by 25 %. It is hard.", text)
        self.assertEqual(unexplained, [])

    def test_each_server_is_told_with_what_it_does_not_do(self) -> None:
        self.assertEqual([peer.name for peer in servers.PEERS if lacks(peer.name) is None], [])
