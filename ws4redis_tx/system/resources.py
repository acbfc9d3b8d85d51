"""What a process of this server takes of its machine: descriptors, and time for garbage."""

from __future__ import annotations

import ctypes
import gc
import resource
from contextlib import suppress

_M_MMAP_THRESHOLD = -3  # of malloc.h


def collect_garbage_less_often() -> None:
    """Make garbage collection rarer, and exempt the imported modules from it.

    By default, Python collects after every 700 new objects, and scans all objects when a quarter
    more exist. This takes a sixth of the cost of a handshake when thousands of clients connect, and
    this server creates few reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def return_freed_memory() -> None:
    """Return each freed piece of at least 128 KiB to the system, such as a large message.

    By default, glibc raises this bound to the size of the largest piece that was ever freed. The
    process would then keep the memory of a crowd of clients after they have left.
    """
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 128 * 1024)


def raise_file_limit() -> None:
    """Raise the soft limit to the hard one: each websocket needs a file descriptor, and the soft
    limit is usually 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
