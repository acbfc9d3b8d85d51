"""How this process was started, so that it can be started again, and what it was given."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from twisted.python.usage import UsageError

from ws4redis_tx.core.errors import WS4RedisError

_RUN_TWISTD = "from twisted.scripts.twistd import run; run()"

FIRST_SOCKET = 3
"""The first inherited descriptor, after standard input, output and error."""

_VARIABLE = "WS4REDIS_TX_HANDOVER"
# A server that does not know the version of the other one cannot replace it.
_VERSION = 1


@dataclass(frozen=True)
class Launch:
    """The command line, the folder and the environment from before anything changed them.

    They are names, not what they led to: a link to the current release leads to the new one after a
    deployment.
    """

    program: tuple[str, ...]
    """What runs ``twistd``, without its arguments."""

    arguments: tuple[str, ...]
    folder: str
    environment: dict[str, str]

    @classmethod
    def of_this_process(cls) -> Launch:
        return cls(
            tuple(_program(sys.orig_argv, sys.argv)),
            tuple(sys.argv[1:]),
            _folder(),
            dict(os.environ),
        )

    @property
    def command(self) -> list[str]:
        return [*self.program, *self.arguments]

    def worker_command(
        self, arguments: Sequence[str], sockets: int, redis: str | None
    ) -> list[str]:
        """The command of a worker, which serves sockets of this process and logs to it.

        This process was given ``arguments``; ``redis`` is the URL of its embedded Redis, if any.
        """
        inherited = ",".join(str(FIRST_SOCKET + i) for i in range(sockets))
        program = [sys.executable, "-c", _RUN_TWISTD]
        if os.path.basename(self.program[-1]).startswith("twistd"):  # and not "twist"
            program = list(self.program)
        return [
            *program,
            *("--nodaemon", "--pidfile="),
            "--logger=ws4redis_tx.twistd.worker_log.log_to_parent",
            *("ws4redis", f"--inherit={inherited}"),
            *([] if redis is None else [f"--redis={redis}"]),
            *arguments,
        ]


def _program(original: list[str], arguments: list[str]) -> list[str]:
    """The first part of the command line ``original``; ``arguments`` is what Python made of it.

    A script that names its interpreter is run by itself, since its next version may name another.
    """
    script, *rest = arguments
    if original[1:] == arguments and os.access(script, os.X_OK):
        return [script]
    program = original[: len(original) - len(rest)]
    if original == [*program, *rest]:
        return program
    return [sys.executable, "-c", _RUN_TWISTD]


def _folder() -> str:
    """The current folder, under the name by which the shell knows it."""
    folder, named = os.getcwd(), os.environ.get("PWD", "")
    try:
        return named if os.path.isabs(named) and os.path.samefile(named, folder) else folder
    except OSError:
        return folder


@dataclass(frozen=True)
class RunningRedis:
    """An embedded Redis: its port, and our ends of the pipes to the process that watches it.

    The server ends when all copies of ``input`` are closed.
    """

    port: int
    input: int
    output: int


@dataclass(frozen=True)
class Inheritance:
    """What a new server gets from the old one, as descriptors."""

    control: int
    sockets: list[tuple[str, int]]
    """Each listening socket, with the description of its endpoint."""

    redis: RunningRedis | None = None

    @classmethod
    def from_environment(cls) -> Inheritance | None:
        """That of this process, if it was started to replace another one. The processes that this
        one starts get none. Raises ``UsageError`` if it cannot be understood.
        """
        text = os.environ.pop(_VARIABLE, None)
        if text is None:
            return None
        values = json.loads(text)
        if values.pop("version") != _VERSION:
            raise UsageError("The running server is too old or too new to be replaced by SIGUSR2.")
        redis = values.pop("redis")
        inheritance = cls(redis=RunningRedis(**redis) if redis else None, **values)
        for descriptor in inheritance._descriptors():
            os.set_inheritable(descriptor, False)
        return inheritance

    def passed_on(self) -> tuple[dict[str, str], dict[int, int]]:
        """The environment that describes it to another process, and which of that process's
        descriptors are which ones of ours.
        """
        numbers = {ours: number for number, ours in enumerate(self._descriptors(), FIRST_SOCKET)}
        redis = self.redis
        if redis is not None:
            redis = RunningRedis(redis.port, numbers[redis.input], numbers[redis.output])
        values = {
            "version": _VERSION,
            "control": numbers[self.control],
            "sockets": [(text, numbers[ours]) for text, ours in self.sockets],
            "redis": redis and asdict(redis),
        }
        descriptors = {number: ours for ours, number in numbers.items()}
        return {_VARIABLE: json.dumps(values)}, descriptors

    def take_socket(self, description: str) -> int | None:
        """The socket for that endpoint, which is given once; ``None`` if there is none."""
        for entry in self.sockets:
            if entry[0] == description:
                self.sockets.remove(entry)
                return entry[1]
        return None

    def _descriptors(self) -> list[int]:
        sockets = [descriptor for _, descriptor in self.sockets]
        pipes = [] if self.redis is None else [self.redis.input, self.redis.output]
        return [self.control, *sockets, *pipes]


class CannotStart(SystemExit, Exception):
    """Ends the process without a traceback. The log has said why.

    It is also an ``Exception``, because ``twistd`` reports no other to the process that waits for
    its daemon.
    """

    # That process shows the qualified name and the text, cut to 100 bytes.
    __module__ = "ws4redis_tx"

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = 1


def watched(command: list[str]) -> list[str]:
    """The command line that runs ``command`` and terminates it when standard input ends. Raises
    ``WS4RedisError`` on a system that is not POSIX.
    """
    if not hasattr(os, "fork"):
        raise WS4RedisError("Starting a Redis or a server needs a POSIX system: Linux or macOS.")
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("_watch.py")), *command]
