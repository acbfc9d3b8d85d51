"""The benchmarks notice what else the machine does, and measure again what others disturbed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import conditions
from benchmarks.conditions import STEAL, Interval, Look, Process, Watch, between, look, said
from benchmarks.report import Figure, Report, Scale
from tests.support.busy_machine import Machine

TICKS = os.sysconf("SC_CLK_TCK")
KERNEL = 0x00200000
OURS = 10
CPUS = 2


class ProcTests(SynchronousTestCase):
    """Reading ``/proc``."""

    def setUp(self) -> None:
        self.proc = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, self.proc)
        (self.proc / "stat").write_text("cpu  1 2 3 4 5 6 7 250 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n")
        (self.proc / "loadavg").write_text("0.25 1.00 2.00 1/100 4711\n")
        (self.proc / "self").mkdir()

    def process(
        self, pid: int, name: str, parent: int, ticks: tuple[int, int, int, int], flags: int = 0
    ) -> None:
        """``ticks``: its own in user and system mode, and the same of those it has waited for."""
        folder = self.proc / str(pid)
        folder.mkdir()
        used = " ".join(map(str, ticks))
        (folder / "stat").write_text(
            f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 {flags} 100 0 0 0 {used} 20 0 1 0 "
            f"{pid + 1000} 3133440 412\n"
        )

    def test_a_process_has_the_cpu_of_those_that_it_has_waited_for(self) -> None:
        self.process(7, "make", 1, (1, 2, 30, 40))
        found = look(self.proc)
        self.assertEqual(found.processes, {(7, 1007): Process("make", 1, 73 / TICKS, False)})

    def test_steal_is_that_of_all_cpus(self) -> None:
        self.assertEqual(look(self.proc).steal, 250 / TICKS)

    def test_a_name_may_contain_anything(self) -> None:
        self.process(7, "a) S 1 (b c", 3, (1, 0, 0, 0))
        self.assertEqual(look(self.proc).processes[7, 1007].name, "a) S 1 (b c")
        self.assertEqual(look(self.proc).processes[7, 1007].parent, 3)

    def test_threads_of_the_kernel_are_recognized(self) -> None:
        self.process(7, "kworker/0:1", 2, (1, 0, 0, 0), KERNEL | 0x40)
        self.assertTrue(look(self.proc).processes[7, 1007].kernel)

    def test_a_process_that_ends_while_it_is_read_is_left_out(self) -> None:
        (self.proc / "8").mkdir()
        self.process(7, "make", 1, (1, 0, 0, 0))
        self.assertEqual([key[0] for key in look(self.proc).processes], [7])

    def test_a_process_that_ends_while_others_are_read_is_in_none_or_in_its_parent(self) -> None:
        """Its parent may have been read before it has waited for the process. Then the process'
        whole past would count as the parent's use of the next interval.
        """
        self.process(7, "make", 1, (1, 0, 0, 0))
        self.process(8, "cc1", 7, (90, 0, 0, 0))
        read = conditions._read

        def read_while_it_ends(folder: Path) -> str:
            if folder.name == "8":
                shutil.rmtree(folder)
                shutil.rmtree(self.proc / "7")
                self.process(7, "make", 1, (1, 0, 90, 0))
            return read(folder)

        self.patch(conditions, "_read", read_while_it_ends)
        found = look(self.proc).processes
        self.assertEqual(found, {(7, 1007): Process("make", 1, 91 / TICKS, False)})

    def test_the_load_average_is_that_of_the_last_minute(self) -> None:
        self.assertEqual(conditions.load_average(self.proc), 0.25)

    def test_this_machine_can_be_read(self) -> None:
        found = look()
        ours = [process for key, process in found.processes.items() if key[0] == os.getpid()]
        self.assertEqual([process.parent for process in ours], [os.getppid()])
        self.assertLess(0, ours[0].seconds)


def at(when: float, *processes: tuple[int, str, int, float], steal: float = 0.0) -> Look:
    """A look at ``processes``: id, name, parent and CPU seconds of each."""
    return Look(
        when,
        steal,
        {
            (pid, 0): Process(name, parent, seconds, name.startswith("k"))
            for pid, name, parent, seconds in processes
        },
    )


def taken(before: Look, after: Look) -> Interval:
    return between("it", before, after, OURS, CPUS)


class IntervalTests(SynchronousTestCase):
    """Who took how much of the machine between two looks. An interval has 10 s."""

    def test_a_share_is_one_of_the_wall_time_of_all_cpus(self) -> None:
        interval = taken(at(0, (20, "cc1", 1, 3.0)), at(10, (20, "cc1", 1, 5.0)))
        self.assertEqual(interval.takers, {"cc1": 0.1})
        self.assertEqual(interval.seconds, 10)

    def test_programs_of_one_name_are_added_up(self) -> None:
        interval = taken(
            at(0, (20, "cc1", 1, 0.0), (21, "cc1", 1, 0.0)),
            at(10, (20, "cc1", 1, 1.0), (21, "cc1", 1, 3.0)),
        )
        self.assertEqual(interval.takers, {"cc1": 0.2})

    def test_this_process_and_its_descendants_are_not_others(self) -> None:
        interval = taken(
            at(0, (1, "init", 0, 0.0), (OURS, "python", 1, 0.0), (11, "twistd", OURS, 0.0)),
            at(
                10,
                (1, "init", 0, 0.0),
                (OURS, "python", 1, 5.0),
                (11, "twistd", OURS, 5.0),
                (12, "nginx", 11, 5.0),
            ),
        )
        self.assertEqual(interval.takers, {})

    def test_a_parent_of_this_process_is_one_of_the_others(self) -> None:
        interval = taken(
            at(0, (9, "make", 1, 0.0), (OURS, "python", 9, 0.0)),
            at(10, (9, "make", 1, 1.0), (OURS, "python", 9, 9.0)),
        )
        self.assertEqual(interval.takers, {"make": 0.05})

    def test_threads_of_the_kernel_are_not_others(self) -> None:
        interval = taken(at(0, (20, "kworker", 2, 0.0)), at(10, (20, "kworker", 2, 9.0)))
        self.assertEqual(interval.takers, {})

    def test_other_virtual_machines_are_others(self) -> None:
        self.assertEqual(taken(at(0, steal=3), at(10, steal=4)).takers, {STEAL: 0.05})

    def test_a_process_that_has_started_counts_from_its_start(self) -> None:
        self.assertEqual(taken(at(0), at(10, (20, "cc1", 1, 1.0))).takers, {"cc1": 0.05})

    def test_another_process_with_the_same_id_is_another_process(self) -> None:
        before = Look(0, 0, {(20, 1): Process("cc1", 1, 5.0, False)})
        after = Look(10, 0, {(20, 2): Process("ld", 1, 1.0, False)})
        self.assertEqual(taken(before, after).takers, {"ld": 0.05})

    def test_a_process_that_lived_in_between_counts_as_its_parents_use(self) -> None:
        interval = taken(at(0, (20, "make", 1, 1.0)), at(10, (20, "make", 1, 3.0)))
        self.assertEqual(interval.takers, {"make": 0.1})

    def test_what_an_ended_process_used_before_the_interval_does_not_count(self) -> None:
        interval = taken(
            at(0, (20, "make", 1, 1.0), (21, "cc1", 20, 7.0)), at(10, (20, "make", 1, 10.0))
        )
        self.assertEqual(interval.takers, {"make": 0.1})

    def test_the_parent_of_an_ended_process_may_have_ended_too(self) -> None:
        interval = taken(
            at(0, (20, "make", 1, 1.0), (21, "cc", 20, 2.0), (22, "cc1", 21, 7.0)),
            at(10, (20, "make", 1, 12.0)),
        )
        self.assertEqual(interval.takers, {"make": 0.1})

    def test_ended_processes_that_nobody_waited_for_do_not_excuse_others(self) -> None:
        interval = taken(
            at(0, (20, "sh", 1, 0.0), (21, "cc1", 20, 7.0), (30, "cron", 1, 0.0)),
            at(10, (20, "sh", 1, 0.0), (30, "cron", 1, 1.0)),
        )
        self.assertEqual(interval.takers, {"cron": 0.05})

    def test_an_orphan_that_process_1_has_waited_for_does_not_count_twice(self) -> None:
        interval = taken(
            at(
                0, (1, "init", 0, 0.0), (20, "sh", 1, 0.0), (21, "sh", 20, 0.0), (22, "cc", 21, 7.0)
            ),
            at(10, (1, "init", 0, 8.0), (20, "sh", 1, 0.0)),
        )
        self.assertEqual(interval.takers, {"init": 0.05})

    def test_others_may_have_two_ticks_of_an_interval_however_short(self) -> None:
        for ticks, quiet in ((1, True), (2, True), (3, False), (6, False)):
            for seconds in (0.001, 0.2):
                interval = taken(
                    at(0, (20, "sh", 1, 7.0)), at(seconds, (20, "sh", 1, 7.0 + ticks / TICKS))
                )
                self.assertIs(interval.quiet, quiet, (ticks, seconds))

    def test_three_percent_of_a_longer_interval_are_more_than_two_ticks(self) -> None:
        interval = taken(at(0, (20, "sh", 1, 0.0)), at(5, (20, "sh", 1, 0.25)))
        self.assertTrue(interval.quiet)
        self.assertEqual(interval.takers, {"sh": 0.025})

    def test_the_largest_taker_is_named_first_and_no_arguments(self) -> None:
        interval = taken(
            at(0), at(10, (20, "sh", 1, 1.0), (21, "cc1", 1, 3.0), (22, "idle", 1, 0.0))
        )
        self.assertEqual(said(interval.takers), "cc1 15.0 %, sh 5.0 %")

    def test_three_percent_are_quiet_and_more_is_not(self) -> None:
        self.assertTrue(Interval("it", 10, {"a": 0.01, "b": 0.02}).quiet)
        self.assertFalse(Interval("it", 10, {"a": 0.011, "b": 0.02}).quiet)

    def test_orphans_stay_descendants(self) -> None:
        """A process whose parent ends is not one of the others from then on."""
        script = (
            "import os, subprocess, sys\n"
            "from benchmarks.conditions import _family, keep_orphans, look\n"
            "keep_orphans()\n"
            "read, write = os.pipe()\n"
            "shell = f'sleep 60 >&- & echo $! >&{write}'\n"
            "subprocess.run(['sh', '-c', shell], pass_fds=[write])\n"
            "orphan = int(os.read(read, 100))\n"
            "print(orphan in {key[0] for key in _family(os.getpid(), look().processes)})\n"
            "os.kill(orphan, 9)\n"
        )
        done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        self.assertEqual(done.stdout, "True\n")


class WatchTests(SynchronousTestCase):
    def test_a_quiet_machine_is_measured_once(self) -> None:
        machine = Machine(0.01)
        watch = machine.watch()
        self.assertEqual(watch.measure("it", machine.measure), 0)
        self.assertTrue(watch.quiet)
        self.assertEqual((machine.measured, machine.waits), ([0], 0))
        self.assertEqual(watch.record()["others"], {"it": [0.01]})

    def test_an_interval_beside_others_is_measured_again_when_the_machine_is_quiet(self) -> None:
        machine = Machine(0.5, 0.5, 0.4, 0.0, 0.01)
        watch = machine.watch()
        self.assertEqual(watch.measure("it", machine.measure), 1)
        self.assertTrue(watch.quiet)
        self.assertEqual(machine.waits, 3)
        record = watch.record()
        self.assertEqual((record["others"], record["measured again"]), ({"it": [0.01]}, 1))
        self.assertIn("1 measured again", watch.said())

    def test_a_machine_that_does_not_get_quiet_is_given_up(self) -> None:
        machine = Machine(0.12)
        watch = machine.watch()
        for _ in range(3):
            watch.measure("it", machine.measure)
        self.assertFalse(watch.quiet)
        self.assertEqual(machine.measured, [0, 1, 2])  # none was measured again
        self.assertEqual(machine.waits, conditions.PATIENCE / 2)  # one patience for all
        self.assertEqual(watch.record()["programs"], {"pytest": 0.12})
        self.assertEqual(watch.record()["most that others took"], 0.12)
        self.assertIn("during it: pytest 12.0 %", watch.said())
        self.assertIn("NOT QUIET", watch.said())

    def test_no_more_than_so_many_are_measured_again(self) -> None:
        machine = Machine(*[0.5, 0.0] * 100)
        watch = machine.watch(repeats=3)
        for _ in range(2):
            watch.measure("it", machine.measure)
        self.assertEqual(len(machine.measured), 2 + 3)
        self.assertFalse(watch.quiet)

    def test_without_repeats_there_is_no_wait(self) -> None:
        machine = Machine(0.5)
        watch = machine.watch(repeats=0)
        watch.measure("it", machine.measure)
        self.assertEqual((len(machine.measured), machine.waits), (1, 0))

    def test_nothing_measured_is_nothing_quiet(self) -> None:
        self.assertFalse(Machine(0.0).watch().quiet)

    def test_the_load_average_is_that_of_the_beginning_and_of_the_end(self) -> None:
        loads = iter([0.5, 2.5])
        watch = Watch(look=Machine(0.0).look, load=lambda: next(loads))
        self.assertEqual(watch.record()["load average"], [0.5, 2.5])


class MarkTests(SynchronousTestCase):
    """The results carry their conditions."""

    def written(self, machine: Machine) -> tuple[dict[str, Any], str]:
        folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        self.addCleanup(shutil.rmtree, folder)
        report = Report("example", Scale(rounds=2), watch=machine.watch(), clients=2)
        found = report.interleave({"a": lambda: {"cpu": machine.measure() + 1.0}})
        report.goal("low", Figure("a", "times", found["a"]["cpu"]), 1.0)
        return json.loads(report.write(folder).read_text()), report.table()

    def test_quiet_results_say_so(self) -> None:
        result, table = self.written(Machine(0.001))
        self.assertIs(result["quiet"], True)
        self.assertEqual(result["conditions"]["others"], {"a": [0.001, 0.001]})
        self.assertEqual(result["conditions"]["load average"], [1.5, 1.5])
        self.assertIn("load average 1.50 to 1.50, steal 0.0 %", table)
        self.assertNotIn("NOT QUIET", table)

    def test_results_beside_others_are_marked_with_their_share(self) -> None:
        result, table = self.written(Machine(0.25))
        self.assertIs(result["quiet"], False)
        self.assertEqual(result["conditions"]["most that others took"], 0.25)
        self.assertEqual(result["conditions"]["programs"], {"pytest": 0.25})
        self.assertIn("pytest 25.0 %", table)

    def test_a_repeated_measurement_replaces_the_first(self) -> None:
        result, _ = self.written(Machine(0.5, 0.0, 0.0, 0.0))
        self.assertEqual(result["figures"][0]["values"], [2.0, 3.0])
