"""The promised import path of the hooks' types, from ``ws4redis_tx.core.interfaces``."""

from ws4redis_tx.core.interfaces import Closing as Closing
from ws4redis_tx.core.interfaces import NullHooks as NullHooks
from ws4redis_tx.core.interfaces import Refusal as Refusal
