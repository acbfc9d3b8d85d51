"""Presence over several processes, one of which is killed; and a client that vanishes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import SkipTest, SynchronousTestCase, TestCase

from tests.support.brokers import share_commands, start_broker
from tests.support.centrifuge import open_centrifuge
from tests.support.clients import open_websocket
from tests.support.django import in_thread, set_up_django
from tests.support.programs import Program, twistd
from tests.support.redis import RedisServer
from ws4redis_tx.occupancy.register import PATIENCE
from ws4redis_tx.sessions.server import PING_INTERVAL
from ws4redis_tx.sse.response import USER_TIMEOUT
from ws4redis_tx.twistd.embedded_redis import free_port

set_up_django()

from django.test import override_settings

from ws4redis_tx import presence

ROOM = "broadcast:room"
TRUE_WITHIN = 60
"""Seconds after a kill."""


class Watcher:
    """A client of Centrifuge's protocol that notes what it hears of others."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.joins: list[tuple[str, str]] = []
        self.leaves: list[tuple[str, str]] = []

    @inlineCallbacks
    def hear(self, joins: int, leaves: int) -> Any:
        """Wait until it has heard so many."""
        while len(self.joins) < joins or len(self.leaves) < leaves:
            push = yield self._push()
            for event, heard in (("join", self.joins), ("leave", self.leaves)):
                if event in push:
                    info = push[event]["info"]
                    heard.append((info["user"], info["client"]))

    @inlineCallbacks
    def _push(self) -> Any:
        """The next push, however long it takes."""
        websocket, pushes = self.client.websocket, self.client.pushes
        while not pushes:
            frame = yield websocket.received.get()
            for message in map(json.loads, frame.split("\n")):
                if message:
                    pushes.append(message["push"])
                else:  # a ping
                    websocket.sendMessage(b"{}")
        return pushes.popleft()


class KilledProcessTests(TestCase):
    timeout = 240

    @inlineCallbacks
    def setUp(self) -> Any:
        redis = RedisServer()
        self.addCleanup(redis.stop)
        settings = override_settings(
            WS4REDIS_CONNECTION=str(redis.address), WS4REDIS_PRESENCE=["room"]
        )
        settings.enable()
        self.addCleanup(settings.disable)
        broker = start_broker(self, redis.address)
        share_commands(self, broker.commands)
        self.ports = [free_port() for _ in range(3)]
        self.servers = [
            twistd(
                f"--listen=tcp:{port}:interface=127.0.0.1",
                DJANGO_SETTINGS_MODULE="tests.projects.present_users",
                WS4REDIS_CONNECTION=str(redis.address),
            )
            for port in self.ports
        ]
        for each in self.servers:
            self.addCleanup(each.end)
            yield each.wait_for("Ready: ")

    @inlineCallbacks
    def open(self, port: int, name: str, classic: bool) -> Any:
        cookies = {"name": name}
        if classic:
            url = f"ws://127.0.0.1:{port}/ws/room?subscribe-broadcast"
            return (yield open_websocket(url, cookies=cookies))
        client = yield open_centrifuge(port, cookies=cookies)
        yield client.subscribe(ROOM)
        return client.websocket

    @inlineCallbacks
    def watch(self, port: int) -> Any:
        client = yield open_centrifuge(port)
        yield client.subscribe(ROOM)
        self.addCleanup(lambda: self.close(client.websocket))
        return Watcher(client)

    def close(self, websocket: Any) -> Any:
        websocket.sendClose(1000)
        return websocket.closed

    @inlineCallbacks
    def users(self) -> Any:
        found = yield in_thread(lambda: presence.who("room"))
        return sorted(each.user for each in found if each.user)

    @inlineCallbacks
    def test_of_fifty_users_of_a_killed_process_half_return_and_the_others_leave_once(self) -> Any:
        left = self.ports[:2]
        watchers = yield gatherResults([self.watch(port) for port in left])
        names = [f"user {number:02}" for number in range(50)]
        yield gatherResults(
            [self.open(self.ports[2], name, number % 2 == 0) for number, name in enumerate(names)]
        )
        # Each watcher hears of itself, and perhaps of the other.
        for watcher in watchers:
            yield watcher.hear(51, 0)
        while len([each for each in watchers[0].joins if each[0]]) < 50:
            yield watchers[0].hear(len(watchers[0].joins) + 1, 0)
        self.assertEqual((yield self.users()), names)
        yield self.servers[2].signal_and_wait("KILL")
        back = names[:25]
        opened = yield gatherResults(
            [self.open(left[number % 2], name, number % 4 < 2) for number, name in enumerate(back)]
        )
        for each in opened:
            self.addCleanup(lambda each=each: self.close(each))
        heard = gatherResults([watcher.hear(76, 50) for watcher in watchers])
        yield heard.addTimeout(TRUE_WITHIN, reactor)
        self.assertEqual((yield self.users()), back)
        for watcher in watchers:
            self.assertEqual(Counter(name for name, _ in watcher.leaves), Counter(names))
            self.assertEqual(max(Counter(watcher.leaves).values()), 1)
            self.assertEqual(max(Counter(watcher.joins).values()), 1)
            clients = {client for _, client in watcher.joins}
            self.assertTrue(clients.issuperset(client for _, client in watcher.leaves))
        for name in names:
            online = yield in_thread(lambda name=name: presence.is_online(name))
            self.assertIs(online, name in back, name)
        for server in self.servers[:2]:
            self.assertNotIn("Traceback", server.printed)

    @inlineCallbacks
    def test_a_process_that_is_told_to_stop_leaves_its_users_until_the_end_of_the_grace(
        self,
    ) -> Any:
        watcher = yield self.watch(self.ports[0])
        yield watcher.hear(1, 0)
        yield self.open(self.ports[2], "mary", True)
        yield watcher.hear(2, 0)
        yield self.servers[2].signal_and_wait("TERM")
        self.assertEqual((yield self.users()), ["mary"])
        yield watcher.hear(2, 1)
        self.assertEqual((yield self.users()), [])


class VanishedStreamTests(TestCase):
    timeout = 120

    @inlineCallbacks
    def test_a_stream_that_vanished_without_a_word_is_present_no_more(self) -> Any:
        if os.geteuid() or subprocess.run(["unshare", "--net", "true"], check=False).returncode:
            raise SkipTest("this machine lets nobody make a network namespace")
        program = Program(
            "/usr/bin/env", "unshare", "--net", sys.executable, "-m",
            "tests.projects.vanishing_stream", "soon",
        )  # fmt: skip
        yield program.wait_for("vanished")
        yield program.wait_for("gone")
        yield program.ended
        self.assertNotIn("Traceback", program.printed)


class BoundTests(SynchronousTestCase):
    def test_the_clocks_keep_the_promised_minute(self) -> None:
        self.assertLess(PING_INTERVAL + 1 + USER_TIMEOUT, TRUE_WITHIN)
        self.assertLess(PATIENCE, TRUE_WITHIN)
