"""The two processes of ``runserver``, and what they share.

The parent binds the socket and holds the embedded Redis. It starts a child, and another one when
Django's reloader ends it because a file has changed. The child inherits the socket, so that clients
wait in the system's queue meanwhile, and are not refused.

There may be another parent above ours. When the code is broken at the start, Django runs its own
command instead of ours, and that starts us as its child once the code is repaired. Such a child has
inherited nothing, and becomes the parent of its own child.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from django.utils import autoreload

_VARIABLE = "WS4REDIS_TX_RUNSERVER"
_RELOAD = 3  # the status by which Django's child asks for another one

# Seconds. After Ctrl-C the child ends by itself, since it got the signal, too.
_OWN_END, END_TIMEOUT = 0.5, 2.0


@dataclass(frozen=True)
class Inherited:
    """What a child gets from its parent."""

    listening: socket.socket
    lifeline: int
    """A pipe whose other end is the parent's alone."""

    def end_with_parent(self) -> None:
        """End this process as SIGTERM would when the parent is gone, even if it was killed."""

        def wait() -> None:
            os.read(self.lifeline, 1)
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=wait, name="ws4redis-lifeline", daemon=True).start()


def take_inherited() -> Inherited | None:
    """What this process was given, if it is a child of ours. Its own children get nothing."""
    text = os.environ.pop(_VARIABLE, None)
    if text is None:
        return None
    listening, lifeline = map(int, text.split(","))
    for each in (listening, lifeline):
        os.set_inheritable(each, False)
    return Inherited(socket.socket(fileno=listening), lifeline)


def supervise(listening: socket.socket) -> int:
    """Run the child until it ends without asking for another one, and return its status.

    ``KeyboardInterrupt`` and ``SystemExit`` end the child first, and are raised again.
    """
    lifeline, ours = os.pipe()
    try:
        for each in (listening.fileno(), lifeline):
            os.set_inheritable(each, True)
        environment = {
            **os.environ,
            autoreload.DJANGO_AUTORELOAD_ENV: "true",
            _VARIABLE: f"{listening.fileno()},{lifeline}",
        }
        if "-u" in sys.orig_argv[: -len(sys.argv)]:  # Django repeats other options of Python
            environment.setdefault("PYTHONUNBUFFERED", "1")
        while True:
            status = _run_child(environment)
            if status != _RELOAD:
                return status
    finally:
        os.close(ours)
        os.close(lifeline)


def _run_child(environment: dict[str, str]) -> int:
    # As Django starts it: with all descriptors that may be inherited.
    child = subprocess.Popen(autoreload.get_child_arguments(), env=environment, close_fds=False)
    with _ended(child):
        return child.wait()


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Within the context, a signal ends the child, too."""
    try:
        yield
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_OWN_END)
        raise
    finally:
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(END_TIMEOUT)
        if child.poll() is None:
            child.kill()
            child.wait()
