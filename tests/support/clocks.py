"""A system clock that steps, for real processes."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SkipTest, TestCase

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *step;

__attribute__((constructor)) static void find_step(void) {
    const char *path = getenv("CLOCK_STEP");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        void *map = mmap(NULL, sizeof *step, PROT_READ, MAP_SHARED, file, 0);
        if (map != MAP_FAILED)
            step = map;
        close(file);
    }
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, which, now);
    if (!failed && step && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE))
        now->tv_sec += *step;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    int failed = clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *result) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (result)
        *result = precise.tv_sec;
    return precise.tv_sec;
}
"""


class SteppingClock:
    """The system clock of the processes that are started with its ``environment``. It steps for all
    of them at once. Their monotonic clock is not affected.

    Needs Linux and a C compiler; skips the test where one of them is missing.
    """

    def __init__(self, test: TestCase) -> None:
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        test.addCleanup(shutil.rmtree, folder)
        self._file = Path(folder) / "step"
        self._file.write_bytes(bytes(8))
        self.stepped = 0
        self.environment = {"LD_PRELOAD": _library(), "CLOCK_STEP": str(self._file)}

    def step(self, seconds: int) -> None:
        """Set the clock forward, or back."""
        self.stepped += seconds
        with self._file.open("r+b", buffering=0) as file:
            file.write(self.stepped.to_bytes(8, sys.byteorder, signed=True))


@cache
def _library() -> str:
    """The path of a library that stands before the system's clock."""
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise SkipTest("stepping the clock of a process needs Linux and a C compiler")
    folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
    atexit.register(shutil.rmtree, folder)
    source, library = folder / "clock.c", folder / "clock.so"
    source.write_text(_SOURCE)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", library, source],
        check=True,
    )
    return str(library)
