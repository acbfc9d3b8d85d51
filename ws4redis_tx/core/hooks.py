"""What hooks are told, under its promised name; ``ws4redis_tx.core.interfaces`` has it."""

from ws4redis_tx.core.interfaces import Closing as Closing
from ws4redis_tx.core.interfaces import NullHooks as NullHooks
from ws4redis_tx.core.interfaces import Refusal as Refusal
