"""The documented Redis user has every permission that the server needs."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import TestCase

from tests.support import ROOT
from tests.support.brokers import Listener, start_broker
from tests.support.redis import RedisServer
from ws4redis_tx.core.messages import Occupant
from ws4redis_tx.core.redis_address import parse_redis_address


class AclTests(TestCase):
    timeout = 60

    @inlineCallbacks
    def test_a_user_with_the_documented_rights_publishes_hears_and_recovers(self) -> Any:
        text = (ROOT / "docs" / "security.md").read_text()
        (rights,) = re.findall(r"for channels, and `(\+[^`]+)`", text)
        redis = RedisServer()
        self.addCleanup(redis.stop)
        redis.command(
            "ACL", "SETUSER", "web", "on", ">s3cret", "~site:*", "&site:*", *rights.split()
        )
        said: list[str] = []

        def observe(event: Any) -> None:
            if event["log_level"] >= LogLevel.warn:
                said.append(str(event.get("log_format")))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        address = parse_redis_address(f"redis://web:s3cret@127.0.0.1:{redis.port}/1")
        broker = start_broker(self, address, "site")
        yield broker.when_available()
        listener = Listener()
        yield broker.listen(b"site:a", listener)
        yield broker.listen(b"site:b", listener)
        self.assertEqual((yield broker.publish([b"site:a", b"site:b"], b"1", 60)), 2)
        yield broker.publish([b"site:a"], b"2", 0)
        self.assertEqual((yield broker.get(b"site:b")), b"1")
        yield broker.commands.put(b"site:ticket:x", b"who", 30)
        for found in (b"who", None):
            self.assertEqual((yield broker.commands.take(b"site:ticket:x")), found)
        yield listener.wait_for(3)
        one = Occupant(b"site:broadcast:a", "one", "mary", b"{}")
        for dead in (False, True):
            yield broker.presence.announce("s", 0 if dead else 60, [one])
            self.assertEqual(len((yield broker.presence.present(one.channel))), 1 - dead)
            self.assertEqual((yield broker.presence.is_online("", "mary")), not dead)
            self.assertEqual(len((yield broker.presence.left_behind("s"))), 1)
            yield broker.presence.withdraw("s", [one], dead=dead)
        self.assertEqual(said, [])

        redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        redis.command("SELECT", 1)
        yield broker.publish([b"site:b"], b"3", 60)
        yield broker.fence().addErrback(lambda _: None)
        yield broker.when_available()
        yield listener.wait_for(4)
        broker.unlisten(b"site:a", listener)
        yield broker.fence()
        self.assertEqual([payload for _, payload in listener.heard], [b"1", b"1", b"2", b"3"])
        self.assertEqual([text for text in said if "permit" in text or "let this user" in text], [])
