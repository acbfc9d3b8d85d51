"""``python -m tests.fuzz``: fuzz each target for a while, with atheris.

The exit status is 0 if nothing was found, 77 if there is no atheris, and 1 otherwise. An input that
was found stays in a file; ``--replay FILE --target NAME`` tries it again, without atheris.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

from tests.fuzz.environment import (
    ROOT,
    NoAtheris,
    find_python,
    make_environment,
)
from tests.fuzz.inputs import TARGETS
from tests.support.environments import EnvironmentFailed, clean_variables

# Test runners take this status for "skipped".
NOT_FUZZED = 77
# Limits: bytes of one input, seconds for it, and MiB of the process.
LIMITS = ("-max_len=2048", "-timeout=30", "-rss_limit_mb=2048")


def fuzz(python: str, name: str, folder: Path, seconds: int) -> bool:
    """Return whether nothing was found. The corpus is kept and grows."""
    seeds, corpus, found = (folder / name / part for part in ("seeds", "corpus", "found"))
    for each in (seeds, corpus, found):
        each.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (seeds / str(number)).write_bytes(seed)
    words = folder / name / "words.txt"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in TARGETS[name].words))
    before = set(found.iterdir())
    print(f"{name}: {seconds} s", flush=True)
    with open(folder / name / "log.txt", "w") as log:
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={found}/", f"-dict={words}"]
        status = subprocess.run(
            [python, "-m", "tests.fuzz.run", name, *LIMITS, *options, str(corpus), str(seeds)],
            cwd=ROOT,
            env=clean_variables(),
            stdout=log,
            stderr=subprocess.STDOUT,
        ).returncode
    text = (folder / name / "log.txt").read_text(errors="replace")
    print(
        "   " + next((line for line in text.splitlines() if line.startswith("Done ")), "not done")
    )
    if not status:
        return True
    print("\n".join(text.splitlines()[-40:]))
    for each in sorted(set(found.iterdir()) - before):
        print(f"   again: python -m tests.fuzz --target {name} --replay {each}")
    return False


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def main(options: argparse.Namespace) -> None:
    """Raises ``SystemExit`` unless nothing was found."""
    names = [options.target] if options.target else list(TARGETS)
    if options.replay:
        for name in names:
            TARGETS[name].run(options.replay.read_bytes())
        return
    try:
        python = make_environment(options.environment, find_python(options.python))
    except (NoAtheris, EnvironmentFailed) as error:
        print(f"NOTHING was fuzzed with atheris (the tests fuzz with hypothesis). {error}")
        raise SystemExit(NOT_FUZZED) from None
    outcomes = [fuzz(python, name, options.folder, options.seconds) for name in names]
    if not all(outcomes):
        raise SystemExit(1)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description="Fuzz what clients and Redis send, and faults, guided by the code's coverage.",
    )
    parser.add_argument("--seconds", type=int, default=60, help="seconds for each target")
    parser.add_argument("--target", choices=TARGETS, help="fuzz only this target")
    parser.add_argument("--replay", type=Path, help="try this saved input again")
    parser.add_argument("--python", help="path of a CPython 3.11 to 3.13 (default: look for one)")
    parser.add_argument(
        "--environment",
        type=Path,
        default=ROOT / ".venv-fuzz",
        help="folder of the fuzzer's environment, kept between runs",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=ROOT / "build" / "fuzz",
        help="folder for inputs that were found, logs, and the corpus, which is kept between runs",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main(parse_options())
