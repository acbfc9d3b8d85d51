"""The conditions of a measurement: what else the machine did in the meantime.

Each measured interval is watched: how much CPU other programs used (all but this process, its
descendants, and the kernel's threads, which work for the measured programs too), and how much other
virtual machines took (steal). Both are shares of the machine: of the interval's wall time, times
the number of CPUs. If they are more than ``LIMIT``, the interval is measured again once the machine
is quiet. If it does not get quiet, or if that happens too often, the results say so, and
``benchmarks.page`` refuses them. Two ticks of the kernel's clock are allowed in any case, because
it does not count more finely.

In a container, its own processes are all that can be seen. Work outside shows only as steal, if the
machine is a virtual one and reports it.

Linux only: everything comes from ``/proc``.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

LIMIT = 0.03
"""The share of the machine that others may take."""

REPEATS = 20
"""How many intervals of a program are measured again, at most."""

PATIENCE = 60.0
"""Seconds that a repeated measurement waits, at most, for the machine to get quiet."""

STEAL = "other virtual machines"

_PROC = Path("/proc")
_GLANCE = 2.0
_SCANS = 10
_TICKS = os.sysconf("SC_CLK_TCK")
# The kernel counts in ticks, so others may take this much of any interval, however short.
_ALLOWED = 2 / _TICKS
_MENTIONED = 0.0005
_KERNEL_THREAD = 0x00200000  # PF_KTHREAD
_SET_CHILD_SUBREAPER = 36
_INIT = 1

Result = TypeVar("Result")
Key = tuple[int, int]
"""A process id and the time of the start, because process ids are used again."""


@dataclass(frozen=True)
class Process:
    name: str
    parent: int
    seconds: float
    """The CPU of the process, and of all descendants that have ended and been waited for. So no
    process is missed that starts and ends between two looks."""
    kernel: bool


@dataclass(frozen=True)
class Look:
    """The state of the machine at one moment."""

    when: float
    steal: float
    """The CPU seconds that other virtual machines have taken."""
    processes: Mapping[Key, Process]


@dataclass(frozen=True)
class Interval:
    """What others took of the machine between two looks."""

    name: str
    seconds: float
    takers: Mapping[str, float]
    """Shares of the machine by the names of the programs, the largest first."""

    @property
    def others(self) -> float:
        return sum(self.takers.values())

    @property
    def quiet(self) -> bool:
        return round(self.others, 6) <= LIMIT


def look(proc: Path = _PROC) -> Look:
    steal = (proc / "stat").read_text().split("\n", 1)[0].split()[8]
    return Look(time.monotonic(), int(steal) / _TICKS, _processes(proc))


def _processes(proc: Path) -> dict[Key, Process]:
    """Read all processes. If one ends meanwhile, read them again, because the process that has
    waited for it may have been read before that.
    """
    for _ in range(_SCANS):
        folders = [folder for folder in proc.iterdir() if folder.name.isdecimal()]
        found: dict[Key, Process] = {}
        ended = False
        for folder in folders:
            try:
                key, process = _process(folder)
            except (FileNotFoundError, ProcessLookupError):
                ended = True
            else:
                found[key] = process
        if not ended:
            break
    return found


def _process(folder: Path) -> tuple[Key, Process]:
    # The name may contain spaces and parentheses.
    start, _, rest = _read(folder).rpartition(")")
    fields = rest.split()
    ticks = sum(map(int, fields[11:15]))
    return (int(folder.name), int(fields[19])), Process(
        name=start.partition("(")[2],
        parent=int(fields[1]),
        seconds=ticks / _TICKS,
        kernel=bool(int(fields[6]) & _KERNEL_THREAD),
    )


def _read(folder: Path) -> str:
    return (folder / "stat").read_text(errors="replace")


def between(name: str, before: Look, after: Look, ours: int, cpus: int) -> Interval:
    """Return what others took: neither the process ``ours`` nor a descendant of it."""
    excluded = _family(ours, before.processes) | _family(ours, after.processes)
    takers = {STEAL: after.steal - before.steal}
    for key, cpu in _used(before.processes, after.processes).items():
        process = after.processes[key]
        if key not in excluded and not process.kernel:
            takers[process.name] = takers.get(process.name, 0.0) + max(0.0, cpu)
    seconds = after.when - before.when
    whole = max(seconds * cpus, _ALLOWED / LIMIT)
    largest_first = sorted(takers.items(), key=lambda taker: -taker[1])
    return Interval(name, seconds, {who: cpu / whole for who, cpu in largest_first if cpu > 0})


def _used(before: Mapping[Key, Process], after: Mapping[Key, Process]) -> dict[Key, float]:
    """Return the CPU seconds that each process has used in between, with the children that it has
    waited for.
    """
    used = {key: process.seconds for key, process in after.items()}
    for key, process in before.items():
        # The past of one that has ended now belongs to the process that has waited for it.
        heir = key if key in used else _heir(process, before, used)
        if heir is not None:
            used[heir] -= process.seconds
    # For an orphan, that is process 1 and not the ancestor.
    debt = sum(seconds for seconds in used.values() if seconds < 0)
    return {key: seconds + debt if key[0] == _INIT else seconds for key, seconds in used.items()}


def _heir(ended: Process, processes: Mapping[Key, Process], alive: Iterable[Key]) -> Key | None:
    """Return the nearest ancestor that is still alive."""
    by_pid = {pid: (pid, start) for pid, start in processes}
    while (key := by_pid.get(ended.parent)) is not None:
        if key in alive:
            return key
        ended = processes[key]
    return None


def _family(root: int, processes: Mapping[Key, Process]) -> set[Key]:
    """Return the keys of a process and of all of its descendants."""
    children: dict[int, list[Key]] = {}
    for key, process in processes.items():
        children.setdefault(process.parent, []).append(key)
    found, waiting = set(), [key for key in processes if key[0] == root]
    while waiting:
        key = waiting.pop()
        found.add(key)
        waiting += children.get(key[0], ())
    return found


def percent(share: float) -> str:
    return f"{share * 100:.1f} %"


def said(takers: Mapping[str, float]) -> str:
    """Say who took how much."""
    named = {name: share for name, share in takers.items() if share >= _MENTIONED}
    return ", ".join(f"{name} {percent(share)}" for name, share in named.items())


def keep_orphans() -> None:
    """Become the parent of descendants whose parent ends. The CPU that they have used would
    otherwise count as that of the process with the id 1.
    """
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def load_average(proc: Path = _PROC) -> float:
    """Return the average number of running processes in the last minute."""
    return float((proc / "loadavg").read_text().split()[0])


class Watch:
    """Watches the measurements of one program.

    :param repeats: the number of intervals that may be measured again.
    """

    def __init__(
        self,
        repeats: int = REPEATS,
        *,
        look: Callable[[], Look] = look,
        sleep: Callable[[float], object] = time.sleep,
        load: Callable[[], float] = load_average,
    ) -> None:
        self._repeats = repeats
        self._look = look
        self._sleep = sleep
        self._load = load
        self._first_load = load()
        self._cpus = os.cpu_count() or 1
        self.intervals: list[Interval] = []
        self.repeated = 0

    @property
    def quiet(self) -> bool:
        """Whether everything was measured while others took at most ``LIMIT``."""
        return bool(self.intervals) and all(interval.quiet for interval in self.intervals)

    @property
    def worst(self) -> Interval | None:
        return max(self.intervals, key=lambda interval: interval.others, default=None)

    def measure(self, name: str, call: Callable[[], Result]) -> Result:
        """Return the result of ``call``, and call it again if others took too much."""
        while True:
            before = self._look()
            result = call()
            interval = self._since(before, name)
            if interval.quiet or not self._waits_until_quiet():
                self.intervals.append(interval)
                return result
            self.repeated += 1

    def _since(self, before: Look, name: str = "") -> Interval:
        return between(name, before, self._look(), os.getpid(), self._cpus)

    def _waits_until_quiet(self) -> bool:
        """Wait for the next try, if there is one."""
        if self.repeated >= self._repeats:
            return False
        for _ in range(round(PATIENCE / _GLANCE)):
            before = self._look()
            self._sleep(_GLANCE)
            if self._since(before).quiet:
                return True
        self._repeats = 0  # others do not stop, and the results are no good anyway
        return False

    def record(self) -> dict[str, Any]:
        """Return the conditions until now, for the results."""
        by_name: dict[str, list[float]] = {}
        for interval in self.intervals:
            by_name.setdefault(interval.name, []).append(round(interval.others, 4))
        worst = self.worst
        return {
            "CPUs": self._cpus,
            "load average": [self._first_load, self._load()],
            "steal": round(self._steal(), 4),
            "most that others took": round(worst.others, 4) if worst else None,
            "during": worst.name if worst else None,
            "programs": {name: round(share, 4) for name, share in worst.takers.items()}
            if worst
            else {},
            "measured again": self.repeated,
            "others": by_name,
        }

    def _steal(self) -> float:
        whole = sum(interval.seconds for interval in self.intervals)
        stolen = sum(each.takers.get(STEAL, 0.0) * each.seconds for each in self.intervals)
        return stolen / whole if whole else 0.0

    def said(self) -> str:
        """Say it in one line."""
        first, last = self._first_load, self._load()
        text = f"load average {first:.2f} to {last:.2f}, steal {percent(self._steal())}"
        if (worst := self.worst) is not None:
            text += f"; others took {percent(worst.others)} of {self._cpus} CPUs at most"
            text += f", during {worst.name}: {said(worst.takers)}" if said(worst.takers) else ""
        if self.repeated:
            text += f"; {self.repeated} measured again"
        return text if self.quiet else f"{text}. NOT QUIET: no figures for the page"
