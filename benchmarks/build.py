"""Compiles the C programs of the benchmarks on demand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
BUILD = FOLDER / "build"


def compiled(source: str) -> str:
    """Return the path of the program compiled from ``source``, a file in this folder. If it cannot
    be compiled, end the process and print the reason.
    """
    path = FOLDER / source
    program = BUILD / path.stem
    if program.exists() and program.stat().st_mtime > path.stat().st_mtime:
        return str(program)
    compiler = os.environ.get("CC") or "cc"
    if shutil.which(compiler) is None:
        raise SystemExit(
            f"The benchmarks need a C compiler, and there is no {compiler!r}. Install one "
            "(Debian: apt install gcc libc6-dev) or name it in the environment variable CC."
        )
    BUILD.mkdir(exist_ok=True)
    # Another process may be running or compiling the same program.
    unfinished = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-D_GNU_SOURCE", "-o", str(unfinished), str(path)],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{source} does not compile:\n{done.stderr}")
    unfinished.rename(program)
    return str(program)
