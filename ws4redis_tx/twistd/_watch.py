"""Runs a command until it ends, or until our standard input does: when whoever holds its other end
is gone, however that came about. A script; standard library only.
"""

import os
import signal
import subprocess
import sys
import tempfile
import threading


def watch(command: list[str]) -> int:
    os.setsid()  # Ctrl-C is for whoever started us, who will tell us.
    # In a folder of its own, so that it neither finds nor leaves a file anywhere.
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        return run(command, folder)


def run(command: list[str], folder: str) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())

    def wait_for_the_end() -> None:
        # Not through sys.stdin, whose lock would be held when the interpreter ends.
        while os.read(0, 4096):
            pass
        process.terminate()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    return process.wait()


if __name__ == "__main__":
    sys.exit(watch(sys.argv[1:]))
