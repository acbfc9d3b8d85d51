"""The promised import path of ``ServerConfig``, from ``ws4redis_tx.config.server_config``."""

from ws4redis_tx.config.server_config import ServerConfig as ServerConfig
