"""Installs programs that are distributed as Go modules or as Debian packages.

Each gets a folder of its own that git ignores, on demand. This neither installs anything into the
system nor starts a service. Only nginx needs one empty folder elsewhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.build import BUILD
from benchmarks.peers.environments import Unavailable, make, once

# Go's own installation puts it here, and not everybody adds that to PATH.
_GO_FOLDER = "/usr/local/go/bin"
# With nchan, nginx also makes its default folders in this one, whatever the configuration says.
_NGINX_FOLDER = Path("/var/lib/nginx")


@once
def go_program(module: str, version: str) -> str:
    """Compile the program of a Go module and return its path. This takes minutes, once."""
    go = shutil.which("go", path=f"{os.environ['PATH']}{os.pathsep}{_GO_FOLDER}")
    if go is None:
        raise Unavailable("it is compiled with Go, and there is no go (https://go.dev)")

    def install(folder: Path) -> None:
        make("env", f"GOBIN={folder}", go, "install", f"{module}@{version}")

    (program,) = _made(f"{Path(module).parent.name}-{version}", install).iterdir()
    return str(program)


@dataclass(frozen=True)
class Unpacked:
    """Debian packages in a folder."""

    folder: Path
    versions: Mapping[str, str]
    environment: Mapping[str, str]
    """The variables with which its programs find its libraries."""


@once
def debian_packages(*names: str) -> Unpacked:
    """Unpack Debian packages, with those that they depend on and the system does not have."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Unavailable("it comes from Debian's packages, and this system is not Debian")
    folder = _made(f"debian-{names[0]}", lambda folder: _unpack(names, folder))
    versions = {}
    for name in names:
        (package,) = folder.glob(f"{name}_*.deb")
        show = "--showformat=${Version}"
        versions[name] = make("dpkg-deb", "--show", show, str(package))
    libraries = {str(found.parent) for found in folder.glob("**/*.so.*")}
    return Unpacked(folder, versions, {"LD_LIBRARY_PATH": ":".join(sorted(libraries))})


def _unpack(names: Sequence[str], folder: Path) -> None:
    (folder / "partial").mkdir()  # apt-get wants it
    try:
        make(
            *("apt-get", "-qq", "-o", f"Dir::Cache::archives={folder}", "-o", "Debug::NoLocking=1"),
            *("install", "--yes", "--reinstall", "--download-only", "--no-install-recommends"),
            *names,
        )
    except Unavailable as error:
        raise Unavailable(f"{error} ('apt-get update' may help)") from error
    for package in folder.glob("*.deb"):
        make("dpkg-deb", "--extract", str(package), str(folder))


@dataclass(frozen=True)
class Nginx:
    program: str
    module: str
    """The path of the nchan module."""
    unpacked: Unpacked


@once
def nginx_with_nchan() -> Nginx:
    unpacked = debian_packages("nginx", "libnginx-mod-nchan")
    nginx = unpacked.folder / "usr/sbin/nginx"
    module = unpacked.folder / "usr/lib/nginx/modules/ngx_nchan_module.so"
    _check_that_it_runs(nginx, module, unpacked.environment)
    return Nginx(str(nginx), str(module), unpacked)


def _check_that_it_runs(nginx: Path, module: Path, environment: Mapping[str, str]) -> None:
    try:
        _NGINX_FOLDER.mkdir(exist_ok=True)
    except OSError as error:
        reason = f"nginx needs the folder {_NGINX_FOLDER}, which cannot be made ({error.strerror})"
        raise Unavailable(reason) from error
    variables = [f"{name}={value}" for name, value in environment.items()]
    with tempfile.TemporaryDirectory(prefix="ws4redis-tx-") as folder:
        settings = Path(folder) / "nginx.conf"
        settings.write_text(f"load_module {module}; pid {folder}/pid; events {{}}\n")
        make("env", *variables, str(nginx), "-e", "stderr", "-t", "-q", "-c", str(settings))


def _made(name: str, fill: Callable[[Path], None]) -> Path:
    """Return the folder ``name``, which ``fill`` has filled, now or earlier."""
    folder = BUILD / name
    if not folder.is_dir():
        BUILD.mkdir(exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=BUILD))
        try:
            fill(unfinished)
            unfinished.rename(folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
    return folder
