"""The entry point of ``twistd``, named by the plugin in ``twisted/plugins``."""

from __future__ import annotations

import os

from twisted.application.service import IService
from twisted.logger import Logger

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.scheduling.clock import use_monotonic_clock
from ws4redis_tx.scheduling.polling import poll_directly
from ws4redis_tx.system.announcements import versions
from ws4redis_tx.twistd.options import Options

__all__ = ["Options", "makeService"]

_log = Logger()

_NEEDS_POSIX = (
    "The server needs a POSIX system such as Linux or macOS. On Windows, run it in WSL or in a "
    "container. Django publishes there without it."
)


def makeService(options: Options) -> IService:
    """Called by ``twistd`` before it daemonises: starts nothing."""
    if not hasattr(os, "fork"):
        raise SystemExit(f"twistd ws4redis: {_NEEDS_POSIX}")
    from twisted.internet import reactor

    # Before twistd logs anything, as this goes to the top of the log.
    _log.info("{versions}", versions=versions())
    from ws4redis_tx.twistd.assembly import make_parent, make_server

    use_monotonic_clock(reactor)
    poll_directly(reactor)
    try:
        return make_parent(options) if options["workers"] > 1 else make_server(options)
    except ConfigError as error:
        raise SystemExit(f"twistd ws4redis: {options.as_written(error)}") from error
