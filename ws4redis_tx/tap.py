"""The entry point of ``twistd``, named by the plugin in ``twisted/plugins``."""

from __future__ import annotations

from twisted.application.service import IService

from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.twistd.options import Options
from ws4redis_tx.twistd.process import make_parent, make_server

__all__ = ["Options", "makeService"]


def makeService(options: Options) -> IService:
    """Called by ``twistd`` before it daemonises: starts nothing."""
    try:
        return make_parent(options) if options["workers"] > 1 else make_server(options)
    except ConfigError as error:
        raise SystemExit(f"twistd ws4redis: {options.as_written(error)}") from error
