"""Installs other people's servers in subfolders that git ignores.

This neither touches the machine's own Python nor starts a service. Each server is installed on
demand, and again when its requirements change. Only nginx needs one empty folder elsewhere.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.build import BUILD
from tests.support.environments import clean_variables, succeeds

_REQUIREMENTS = Path(__file__).parent / "requirements.txt"
_DEBIAN = ("nginx", "libnginx-mod-nchan")
# With nchan, nginx also makes its default folders in this one, whatever the configuration says.
_NGINX_FOLDER = Path("/var/lib/nginx")

# For one command, in seconds.
_PATIENCE = 900

# A reason must fit into a table.
_REASON_LENGTH = 300


class Unavailable(Exception):
    """A server cannot be installed here; the text says why."""


@cache
def python_with_channels() -> str:
    """Return the path of a Python that has Channels, Daphne and uvicorn."""
    folder = BUILD / "channels"
    python = folder / "bin" / "python"
    # Written last, so that an unfinished environment is not used.
    label = folder / "made-from.txt"
    wanted = f"{sys.version}\n{_REQUIREMENTS.read_text()}"
    if not (label.is_file() and label.read_text() == wanted and succeeds(str(python), "-V")):
        shutil.rmtree(folder, ignore_errors=True)
        make(sys.executable, "-m", "venv", str(folder))
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install"]
        make(*pip, "--requirement", str(_REQUIREMENTS))
        label.write_text(wanted)
    return str(python)


@dataclass(frozen=True)
class Nginx:
    program: str
    module: str
    """The path of the nchan module."""
    versions: Mapping[str, str]
    """The versions of the Debian packages."""


@cache
def nginx_with_nchan() -> Nginx:
    """Unpack Debian's packages without installing them."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable(
            "nginx and nchan come from Debian's packages, and this system is not Debian"
        )
    folder = BUILD / "nginx"
    nginx = folder / "usr/sbin/nginx"
    module = folder / "usr/lib/nginx/modules/ngx_nchan_module.so"
    label = folder / "made-from.txt"
    if not label.is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        label.write_text("".join(_unpack_debian_packages(folder)))
    _check_that_it_runs(nginx, module)
    versions = (line.split() for line in label.read_text().splitlines())
    return Nginx(str(nginx), str(module), dict(versions))


def _unpack_debian_packages(folder: Path) -> list[str]:
    """Return a line with the name and version of each package."""
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as packages:
        try:
            make("sh", "-c", 'cd "$0" && exec apt-get download "$@"', packages, *_DEBIAN)
        except Unavailable as error:
            raise Unavailable(f"{error} ('apt-get update' may help)") from error
        found = sorted(map(str, Path(packages).glob("*.deb")))
        for package in found:
            make("dpkg-deb", "--extract", package, str(folder))
        show = "${Package} ${Version}\n"
        return [make("dpkg-deb", "--show", f"--showformat={show}", each) for each in found]


def _check_that_it_runs(nginx: Path, module: Path) -> None:
    try:
        _NGINX_FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        reason = f"nginx needs the folder {_NGINX_FOLDER}, which cannot be made ({error.strerror})"
        raise Unavailable(reason) from error
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        settings = Path(folder) / "nginx.conf"
        settings.write_text(f"load_module {module}; pid {folder}/pid; events {{}}\n")
        make(str(nginx), "-e", "stderr", "-t", "-q", "-c", str(settings))


def python_versions(python: str) -> dict[str, str]:
    """Return the installed versions of the packages in ``requirements.txt``."""
    lines = _REQUIREMENTS.read_text().splitlines()
    names = [line.partition("==")[0] for line in lines if "==" in line]
    code = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    return dict(zip(names, make(python, "-c", code, *names).split(), strict=True))


def make(*command: str) -> str:
    """Run a command and return its output."""
    name = " ".join([Path(command[0]).name, *command[1:3]])
    try:
        done = subprocess.run(
            command,
            env=clean_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{name} did not finish within {_PATIENCE} s") from error
    except OSError as error:
        raise Unavailable(f"{name}: {error.strerror}") from error
    if done.returncode:
        said = " ".join(done.stdout.strip().splitlines()[-3:])
        raise Unavailable(f"{name} failed: {said[-_REASON_LENGTH:]}")
    return done.stdout
