"""The page of figures, and the goals that the benchmarks print in the end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks import page, sections
from benchmarks.__main__ import PROGRAMS, summarized
from benchmarks.notes import REASONS, lacked
from benchmarks.peers import servers
from benchmarks.summary import BARE, OURS
from tests.support import ROOT


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
        "parameters": {
            "visitors": 2000,
            "clients": 1000,
            "handshakes": 1500,
            "simultaneous_reconnects": 10_000,
        },
        "versions": {"CPU": "2 x Example", "ws4redis_tx": "abc"},
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
PEERS = {
    "Bun + ioredis": {"Bun": "1.2", "zlib": "3"},
    "Channels, Daphne": {"daphne": "4"},
    "picows": {"picows": "5"},
}


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
            ("picows", "µs/delivery", 8.1),
            ("ws4redis_tx / picows", "times", 1.25),
            ("ws4redis_tx / Channels, Daphne", "times", 0.025),
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
        self.results["bursts"] = result(
            "bursts",
            ("bursts", "µs/delivery", 0.1),
            ("bursts, rate", "deliveries/s", 5_742_361.0),
        )
        self.results["handshakes"] = result(
            "handshakes",
            ("ws4redis_tx, with a session", "µs/handshake", 1000.0),
            ("simultaneous reconnects", "µs/handshake", 500.0),
            ("simultaneous reconnects", "handshakes/s", 436.0),
            peers=PEERS,
        )

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

    def refused(self) -> str:
        status, said = self.write()
        self.assertEqual(status, 1)
        self.assertFalse((self.folder / "performance.md").exists())
        return said

    def test_no_page_is_written_from_too_few_rounds(self) -> None:
        for program in ("growth", "memory"):
            for figure in self.results[program]["figures"]:
                figure["values"] = figure["values"][:3]
        self.assertEqual(self.refused(), "no page: growth has 3 rounds and not 7\n")
        for figure in self.results["memory"]["figures"]:
            figure["values"] = figure["values"][:2]
        self.assertIn("no page: memory has 2 rounds and not 3\n", self.refused())

    def test_no_page_is_written_without_other_servers(self) -> None:
        for program in ("fanout", "memory", "handshakes"):
            self.results[program].update({"peers": {}, "not measured": {}})
        said = "no page: {} was measured without other servers\n"
        self.assertEqual(
            self.refused(), "".join(map(said.format, ("fanout", "memory", "handshakes")))
        )

    def test_other_servers_that_failed_were_measured(self) -> None:
        self.results["handshakes"].update({"peers": {}, "not measured": {"a": "it failed"}})
        self.assertEqual(page.refusals(self.results), [])

    def test_no_page_is_written_from_different_revisions(self) -> None:
        self.results["idle"]["versions"]["ws4redis_tx"] = "def"
        said = self.refused()
        self.assertIn("no page: the results are of different revisions of ws4redis_tx: ", said)
        self.assertIn("abc (fanout, bursts, ", said)
        self.assertIn("def (idle)", said)

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
        for row in (
            "messages a second, each to one client | 20,000 | "
            "computed from the CPU of a message; measured with 1,000 clients",
            "clients that receive a message every second | 120,000 | "
            "computed from the CPU of a delivery; measured with 1,000 clients",
            "deliveries a second, in bursts of 150 messages | 5,700,000 | "
            "measured, to 1,000 clients",
            "new visitors a second | 1,000 | "
            "computed from the CPU of a handshake; measured with 1,500 visitors, 64 at a time",
            "visitors a second, if all return at once | 440 | measured, with 10,000 visitors",
            "CPU of 10,000 idle visitors | 1.5 % of a core | "
            "computed from the CPU of 2,000 visitors",
            "memory of 10,000 idle visitors | 59 MiB | computed from the memory of 1,000 visitors",
        ):
            self.assertIn(f"| {row} |\n", opening)

    def test_a_rate_that_was_not_measured_is_left_out(self) -> None:
        self.results["bursts"] = result("bursts", ("bursts", "µs/delivery", 0.1))
        self.assertNotIn("in bursts of 150", page.page(self.results, {})[0])

    def test_the_page_opens_with_the_tables(self) -> None:
        text, _ = page.page(self.results, {})
        self.assertLess(text.index("## Beside other servers"), text.index("## Goals"))

    def test_all_servers_are_in_one_table_the_better_ones_in_bold(self) -> None:
        text, _ = page.page(self.results, {})
        rows = [line for line in text.splitlines() if line.count("|") == 8]
        self.assertEqual(
            [row.split("|")[1].strip() for row in rows[2:]],
            [OURS, BARE, "Bun + ioredis", "picows", "Channels, Daphne"],
        )
        kept = "kept nothing for those who reconnect"
        self.assertEqual(rows[2], f"| {OURS} | 8.00 | 1.00 | 6.00 | 1,000 | {kept} |  |")
        self.assertTrue(rows[3].startswith(f"| {BARE} | 7.00 | 0.88 | — | — | knew no visitors; "))
        self.assertIn(kept, rows[3])
        bun = "| Bun + ioredis | **6.00** | **0.75** | — | **90.00** | a library"
        self.assertTrue(rows[4].startswith(bun), rows[4])
        self.assertTrue(rows[4].endswith("| Bun 1.2 |"))
        daphne = "| Channels, Daphne | 300 | 40.00 | 43.00 | — |"
        self.assertTrue(rows[6].startswith(daphne), rows[6])

    def test_a_server_is_better_if_it_was_in_the_rounds_of_its_own_group(self) -> None:
        """Our own figure is that of another group, in which the machine was faster."""
        text, _ = page.page(self.results, {})
        self.assertIn("\n| picows | **8.10** | **0.8** | — | — |", text)
        ratio = self.results["fanout"]["figures"][-3]
        self.assertEqual(ratio["name"], "ws4redis_tx / picows")
        ratio["median"] = 0.8
        text, _ = page.page(self.results, {})
        self.assertIn("\n| picows | 8.10 | 1.25 | — | — |", text)

    def test_what_was_not_measured_is_told(self) -> None:
        text, _ = page.page(self.results, {})
        self.assertIn("A delivery of pushpin was not measured: no package", text)

    def test_goals_that_were_not_measured_are_told_with_the_reason(self) -> None:
        goal = {"text": "ratio to x", "at most": 0.9, "why": "x: no package"}
        self.results["fanout"]["goals not measured"] = [goal]
        text, unexplained = page.page(self.results, {})
        self.assertIn("| ratio to x | not measured: x: no package | ≤ 0.9 | |\n", text)
        self.assertEqual(unexplained, [])
        self.assertIn(
            "fanout              ratio to x: not measured: x: no package; target ≤ 0.9",
            summarized(self.results["fanout"]),
        )

    def test_servers_that_never_became_idle_are_named(self) -> None:
        self.results["memory"]["never idle"] = {"pushpin": 3}
        text, _ = page.page(self.results, {})
        self.assertIn("pushpin was not idle within 20 s", text)
        self.assertIn("(this often: 3)", text)

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

    def test_each_server_is_told_with_what_it_did_not_do(self) -> None:
        self.assertEqual([peer.name for peer in servers.PEERS if lacked(peer.name) is None], [])


class MakeTests(SynchronousTestCase):
    def commands(self, *options: str) -> str:
        if shutil.which("make") is None:
            raise SkipTest("there is no make")
        outside = {name: value for name, value in os.environ.items() if "MAKE" not in name}
        done = subprocess.run(
            ["make", "--dry-run", "bench", *options],
            cwd=ROOT,
            env=outside,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def test_make_bench_writes_the_page_unless_it_is_quick(self) -> None:
        self.assertIn("python -m benchmarks.page", self.commands())
        quick = self.commands("OPTIONS=--quick")
        self.assertIn("python -m benchmarks --quick", quick)
        self.assertNotIn("benchmarks.page", quick)


class GuideTests(SynchronousTestCase):
    """The figures in the guides."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.begin, self.end = sections.marks("history")
        self.page = self.folder / "history.md"
        self.page.write_text(f"before\n{self.begin}old\n{self.end}after\n")

    def write(self, **more: Any) -> tuple[int, str]:
        goal = {"text": "a goal", "median": 1.01, "at most": 1.03, "met": True}
        found = result("history", ("resume", "µs", 12.5), **{"goals": [goal], **more})
        (self.folder / "history.json").write_text(json.dumps(found))
        with contextlib.redirect_stdout(io.StringIO()) as said:
            status = sections.write("history", self.folder, self.page)
        return status, said.getvalue()

    def test_they_take_the_place_of_earlier_ones(self) -> None:
        for _ in range(2):
            self.assertEqual(self.write()[0], 0)
            text = self.page.read_text()
            self.assertTrue(text.startswith(f"before\n{self.begin}\n"), text)
            self.assertTrue(text.endswith(f"\n{self.end}after\n"), text)
            self.assertIn("| resume | 12.50 | 12.50 | 12.50 | µs |", text)
            self.assertIn("- a goal: 1.01, target ≤ 1.03\n", text)
            self.assertNotIn("old", text)

    def test_a_missed_goal_is_told_with_its_reason(self) -> None:
        reason, why = next(iter(REASONS.items()))
        goal = {"text": reason, "median": 1.5, "at most": 1.0, "met": False}
        self.assertEqual(self.write(goals=[goal])[0], 0)
        text = " ".join(self.page.read_text().split())
        self.assertIn(f"- {reason}: 1.50, target ≤ 1.00, **missed** by 50 %. {why}", text)

    def test_none_are_written_that_are_not_good_enough(self) -> None:
        before = self.page.read_text()
        goal = {"text": "a goal", "median": 1.5, "at most": 1.0, "met": False}
        for more, why in (
            ({"quiet": False}, "history was not measured on a quiet machine"),
            ({"quick": True}, "history is not measured"),
            ({"goals": [goal]}, "a goal was missed, and benchmarks/notes.py does not say why"),
        ):
            status, said = self.write(**more)
            self.assertEqual(status, 1)
            self.assertIn(why, said)
            self.assertEqual(self.page.read_text(), before)

    def test_the_guides_have_those_of_the_results_and_no_others(self) -> None:
        for program, guide in sections.GUIDES.items():
            found = page.load(program)
            begin, closing = sections.marks(program)
            _, _, rest = (page.DOCS / guide).read_text().partition(begin)
            shown, end, _ = rest.partition(closing)
            self.assertTrue(end, guide)
            self.assertEqual(shown, "" if found is None else sections.section(found))
