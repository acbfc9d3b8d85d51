"""Another program as a child process, which ends with this process, even if that is killed."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Mapping

from ws4redis_tx.core.errors import WS4RedisError
from ws4redis_tx.system.launch import watched

# Seconds.
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0


class Program:
    """A running program and its output. All calls block, and need no reactor.

    ``ready`` is the match of the output that showed that it was ready. Raises ``WS4RedisError`` if
    the program ends, or takes a minute, before that.
    """

    ready: re.Match[str]

    def __init__(
        self, command: list[str], ready: str, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            watched(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
        self._lines: list[str] = []
        self._decided = threading.Event()
        # Keep reading, because a full pipe would block the process.
        self._reader = threading.Thread(target=self._read, args=(re.compile(ready),), daemon=True)
        self._reader.start()
        self._decided.wait(_START_TIMEOUT)
        if not hasattr(self, "ready"):
            self.stop()
            raise WS4RedisError(f"{command[0]} did not start. Its output:\n{self.output}")

    @property
    def output(self) -> str:
        return "".join(self._lines)

    def _read(self, ready: re.Pattern[str]) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)
            match = ready.search(line)
            if match and not self._decided.is_set():
                self.ready = match
                self._decided.set()
        self._decided.set()

    def stop(self) -> None:
        """Stop the process, and wait until it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)  # it leads its own session
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
