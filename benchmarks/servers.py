"""The programs under measurement, started as their users start them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from ws4redis_tx.server.embedded_redis import free_port

ROOT = Path(__file__).resolve().parent.parent


class Twistd:
    """``twistd ws4redis --embedded-redis`` with more ``options``, from here to ``end()``."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._process = subprocess.Popen(
            [
                str(Path(sys.executable).with_name("twistd")),
                *("-n", "--pidfile=", "ws4redis", "--embedded-redis"),
                f"--listen=tcp:{self.port}:interface=127.0.0.1",
                *options,
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            ready = re.search(r"Redis at redis://127\.0\.0\.1:(\d+)", line)
            if ready:
                self.redis_port = int(ready[1])
                break
        else:
            raise SystemExit("twistd did not start")
        # A pipe that nobody reads would stop the server.
        self._log = threading.Thread(target=self._read_log, daemon=True)
        self._log.start()

    def _read_log(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if any(word in line for word in ("warn", "error", "critical", "Could not")):
                print(line, end="")

    def memory(self) -> int:
        """Resident bytes of the server process."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
