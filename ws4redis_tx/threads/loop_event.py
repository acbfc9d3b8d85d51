"""A ``threading.Event`` for coroutines."""

from __future__ import annotations

import asyncio
import contextlib


class LoopEvent:
    """A ``threading.Event`` for which a coroutine waits. Any thread may set it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        await self._event.wait()
