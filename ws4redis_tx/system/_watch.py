"""Runs a command, and terminates it when standard input ends.

Standard input ends with the process that holds its other end, even if that is killed. This is a
script that uses only the standard library.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading


def watch(command: list[str]) -> int:
    os.setsid()  # Ctrl-C goes to the process that started us, which then ends our input.
    # A temporary folder, so that the command neither finds nor leaves files elsewhere.
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        return run(command, folder)


def run(command: list[str], folder: str) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def wait_for_the_end() -> None:
        # Do not read through sys.stdin: its lock would be held when the interpreter exits.
        while os.read(0, 4096):
            pass
        process.terminate()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
