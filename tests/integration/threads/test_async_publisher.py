"""Publishing from coroutines: each call has its own clock, holds no thread and can be cancelled."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.support.programs import children
from tests.support.publishers import run_publisher
from tests.support.redis import RedisServer

HANGING = """
import asyncio, os, signal, time
from django.test import override_settings
from ws4redis_tx.core.errors import BrokerUnavailable
from ws4redis_tx import adisconnect

def publisher(text):
    return RedisPublisher(facility=text, broadcast=True)

def start(text):
    return asyncio.create_task(publisher(text).apublish_message(text))

def hang(main, timeout):
    "Run a coroutine while Redis hangs, and print its result and whether it was quick."
    publisher("before").publish_message("before")
    os.kill({server}, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with override_settings(WS4REDIS_TIMEOUT=timeout):
            result = asyncio.run(main())
    finally:
        os.kill({server}, signal.SIGCONT)
    print(result, "quick" if time.monotonic() - began < 15 else "slow")
"""


class HangingTests(SynchronousTestCase):
    def run_while_redis_hangs(self, script: str) -> str:
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        (server,) = children(self.redis.pid)
        script = (HANGING + script).replace("{server}", str(server))
        return run_publisher(script, self.redis.address)

    def test_many_at_once_each_wait_for_their_timeout_and_hold_no_thread(self) -> None:
        printed = self.run_while_redis_hangs(
            "async def main():\n"
            "    tasks = [start(str(number)) for number in range(100)]\n"
            "    await asyncio.sleep(0)\n"
            "    await asyncio.get_running_loop().getaddrinfo('127.0.0.1', 80)\n"
            "    free = not any(task.done() for task in tasks)\n"
            "    results = await asyncio.gather(*tasks, return_exceptions=True)\n"
            "    return free, all(isinstance(each, BrokerUnavailable) for each in results)\n"
            "hang(main, 3)\n"
        )
        self.assertEqual(printed, "(True, True) quick\n")

    def test_a_cancelled_one_ends_at_once(self) -> None:
        printed = self.run_while_redis_hangs(
            "from ws4redis_tx.threads import bridge\n"
            "async def main():\n"
            "    tasks = [\n"
            "        start('cancelled'),\n"
            "        asyncio.create_task(adisconnect(user='john')),\n"
            "        asyncio.create_task(bridge.redis().aput(b'ticket', b'', 30)),\n"
            "    ]\n"
            "    await asyncio.wait(tasks, timeout=0.1)\n"
            "    [task.cancel() for task in tasks]\n"
            "    await asyncio.wait(tasks)\n"
            "    return [task.cancelled() for task in tasks]\n"
            "hang(main, 60)\n"
        )
        self.assertEqual(printed, "[True, True, True] quick\n")

    def test_a_cancelled_one_leaves_the_connection_to_the_others(self) -> None:
        printed = self.run_while_redis_hangs(
            "async def main():\n"
            "    cancelled, other = start('cancelled'), start('other')\n"
            "    await asyncio.wait([cancelled, other], timeout=0.1)\n"
            "    cancelled.cancel()\n"
            "    await asyncio.wait([cancelled])\n"
            "    os.kill({server}, signal.SIGCONT)\n"
            "    return await other\n"
            "hang(main, 60)\n"
        )
        self.assertEqual(printed, "0 quick\n")
