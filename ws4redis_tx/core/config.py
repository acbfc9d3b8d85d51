"""``ServerConfig`` under its promised name; ``ws4redis_tx.config.server_config`` has it."""

from ws4redis_tx.config.server_config import ServerConfig as ServerConfig
