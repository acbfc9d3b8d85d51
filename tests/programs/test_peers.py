"""The servers with which the benchmarks compare ours do the same work as ours."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import valkey
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from benchmarks.driving import payload
from benchmarks.opening import Opening
from benchmarks.peers import environments
from benchmarks.peers.environments import Unavailable
from benchmarks.peers.plain_peers import Aiohttp, Bun, Picows, PlainPeer, Tornado, Websockets, Ws
from benchmarks.peers.servers import (
    PEERS,
    DaphneCoreLayer,
    DaphnePubSub,
    NchanInMemory,
    NchanRedis,
    UvicornPubSub,
)
from benchmarks.servers import Server, Site
from tests.support.sizes import FULL

MESSAGES = 5
HEAVY = "make test-all runs it"


def start(peer: Any, *arguments: Any) -> Any:
    """Install and start a server. Skip the test if that is not possible here."""
    try:
        return peer(*arguments)
    except Unavailable as error:
        raise SkipTest(str(error)) from error


class DeliveryTests(SynchronousTestCase):
    """Each websocket receives every message once and in order, and none is compressed, even though
    the clients offer compression as browsers do.
    """

    def check(self, peer: type[Server]) -> None:
        if not FULL:
            raise SkipTest(HEAVY)
        self.assertIn(peer, PEERS)
        server = start(peer)
        with Opening(server) as opening:
            self.fan_out(opening)
            opening.close()
            opening.open(20)
            self.fan_out(opening)
            self.assertLess(0, server.memory())
            if isinstance(server, PlainPeer):
                with valkey.Valkey(port=server.redis.port) as redis:
                    subscribed = redis.pubsub_numsub(*redis.pubsub_channels())
                self.assertEqual(subscribed, [(b"broadcast:load", 1)])
        self.assertTrue(server.versions)

    def fan_out(self, opening: Opening) -> None:
        opening.load.start()
        opening.server.publish([payload(number) for number in range(MESSAGES)])
        heard = opening.load.every(MESSAGES).check(MESSAGES)
        self.assertEqual(heard.compressed, 0)

    def test_bun(self) -> None:
        self.check(Bun)

    def test_ws(self) -> None:
        self.check(Ws)

    def test_picows(self) -> None:
        self.check(Picows)

    def test_aiohttp(self) -> None:
        self.check(Aiohttp)

    def test_websockets(self) -> None:
        self.check(Websockets)

    def test_tornado(self) -> None:
        self.check(Tornado)

    def test_nchan_in_memory(self) -> None:
        self.check(NchanInMemory)

    def test_nchan_with_redis(self) -> None:
        self.check(NchanRedis)

    def test_channels_on_daphne(self) -> None:
        self.check(DaphnePubSub)

    def test_channels_on_daphne_with_the_core_layer(self) -> None:
        self.check(DaphneCoreLayer)

    def test_channels_on_uvicorn(self) -> None:
        self.check(UvicornPubSub)


class VisitorTests(SynchronousTestCase):
    """With a site, Channels looks up each visitor's session and user in the site's database."""

    def statuses(self, opening: Opening, cookie: str) -> list[int]:
        opening.close()
        opening.load.open(
            opening.server.port, opening.server.targets(), 2, cookies=[cookie], refusals=True
        )
        return [opened.status for opened in opening.load.handshakes()]

    def test_channels_opens_websockets_for_the_visitors_of_the_site_only(self) -> None:
        if not FULL:
            raise SkipTest(HEAVY)
        with Site(2) as site, Opening(start(DaphnePubSub, site)) as opening:
            for cookie in site.cookies:
                self.assertEqual(self.statuses(opening, cookie), [101, 101])
            self.assertEqual(self.statuses(opening, "sessionid=nobody"), [403, 403])
            self.assertEqual(self.statuses(opening, "csrftoken=1"), [403, 403])


class InstallationTests(SynchronousTestCase):
    """A server that cannot be installed says what is missing, and how to get it."""

    def missing(self, install: Callable[[], object]) -> str:
        self.patch(os, "environ", {**os.environ, "PATH": ""})
        return str(self.assertRaises(Unavailable, install))

    def without_packages(self) -> None:
        """Let npm have installed nothing."""
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        self.patch(environments, "npm_packages", lambda: Path(folder))

    def test_without_npm(self) -> None:
        why = self.missing(environments.npm_packages.__wrapped__)
        self.assertIn("there is no npm (Debian: apt install npm)", why)

    def test_without_node(self) -> None:
        self.without_packages()
        why = self.missing(environments.node_with)
        self.assertIn("there is no node (Debian: apt install nodejs)", why)

    def test_without_bun(self) -> None:
        self.without_packages()
        self.assertIn("npm has no package @oven/bun-", self.missing(environments.bun_with))
