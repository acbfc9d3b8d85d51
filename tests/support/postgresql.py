"""A private PostgreSQL: a new cluster in a temporary folder, on a Unix socket alone."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest

_DEBIAN = Path("/usr/lib/postgresql")


class PostgreSQL:
    """It ends with ``stop``. Skips the test where there is none."""

    def __init__(self) -> None:
        if find_spec("psycopg") is None:
            raise SkipTest("pip install 'psycopg[binary]'")
        self._programs = _programs()
        # The path of a socket has to be short.
        self._folder = tempfile.mkdtemp(prefix="ws4redis-tx-", dir="/tmp")
        self._as_user: tuple[str, ...] = ()
        if os.getuid() == 0:  # it refuses to run as root
            user = pwd.getpwnam("postgres")
            os.chown(self._folder, user.pw_uid, user.pw_gid)
            self._as_user = (
                "setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups",
            )  # fmt: skip
        try:
            data = f"{self._folder}/data"
            self._run("initdb", "--username=tester", "--auth=trust", "--no-sync", "-D", data)
            options = (
                f"-c listen_addresses= -c unix_socket_directories={self._folder} -c fsync=off "
                "-c shared_buffers=16MB"
            )
            self._run(
                "pg_ctl", "start", "--wait", f"--pgdata={data}", f"--options={options}",
                f"--log={self._folder}/log",
            )  # fmt: skip
        except BaseException:
            shutil.rmtree(self._folder)
            raise

    @property
    def database(self) -> dict[str, Any]:
        """The entry of Django's ``DATABASES``."""
        engine = "django.db.backends.postgresql"
        return {"ENGINE": engine, "NAME": "postgres", "USER": "tester", "HOST": self._folder}

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "--mode=immediate", f"--pgdata={self._folder}/data")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command: Sequence[str] = (*self._as_user, str(self._programs / program), *arguments)
        # The server keeps what it inherits, so a pipe would never end.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                timeout=120,
            )  # fmt: skip
            output.seek(0)
            assert done.returncode == 0, output.read().decode()


def _programs() -> Path:
    """The folder of the server's programs, which Debian keeps out of ``PATH``."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = [each for each in _DEBIAN.glob("*/bin") if (each / "initdb").exists()]
    if not versions:
        raise SkipTest("there is no PostgreSQL (Debian: apt install postgresql)")
    return max(versions, key=lambda each: float(each.parent.name))
