"""The testing kit, for the tests of applications.

``connect``, ``listen``, ``connect_centrifuge``, ``make_memory_factory`` and ``MemoryBroker`` run
the real server in memory, for any test. ``capture_messages`` and ``LiveServer`` are for Django's
tests, the fixtures of ``pytest_plugin`` for pytest.

Knows every room. No other room must know it. Importing it imports nothing else: each name imports
its modules when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ws4redis_tx.testing.broker import MemoryBroker
    from ws4redis_tx.testing.capture import CapturedMessages, capture_messages
    from ws4redis_tx.testing.captured import CapturedMessage
    from ws4redis_tx.testing.centrifuge import (
        CentrifugeClient,
        CentrifugeError,
        Push,
        connect_centrifuge,
    )
    from ws4redis_tx.testing.client import MemoryClient, connect, make_memory_factory
    from ws4redis_tx.testing.events import MemoryEvents, listen
    from ws4redis_tx.testing.live import LiveServer, LiveSite
    from ws4redis_tx.testing.processes import RedisProcess, ServerProcess
    from ws4redis_tx.testing.wire import client_frame

__all__ = [
    "CapturedMessage",
    "CapturedMessages",
    "CentrifugeClient",
    "CentrifugeError",
    "LiveServer",
    "LiveSite",
    "MemoryBroker",
    "MemoryClient",
    "MemoryEvents",
    "Push",
    "RedisProcess",
    "ServerProcess",
    "capture_messages",
    "client_frame",
    "connect",
    "connect_centrifuge",
    "listen",
    "make_memory_factory",
]

_MODULES = {
    "CapturedMessage": "captured",
    "CapturedMessages": "capture",
    "CentrifugeClient": "centrifuge",
    "CentrifugeError": "centrifuge",
    "LiveServer": "live",
    "LiveSite": "live",
    "MemoryBroker": "broker",
    "MemoryClient": "client",
    "MemoryEvents": "events",
    "Push": "centrifuge",
    "RedisProcess": "processes",
    "ServerProcess": "processes",
    "capture_messages": "capture",
    "client_frame": "wire",
    "connect": "client",
    "connect_centrifuge": "centrifuge",
    "listen": "events",
    "make_memory_factory": "client",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
