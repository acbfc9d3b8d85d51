"""Client libraries of Centrifuge's protocol that exist, unchanged, with a real ``twistd ws4redis``.
Issue 17.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Sequence
from itertools import chain
from typing import Any

from twisted.internet.defer import gatherResults, inlineCallbacks
from twisted.trial.unittest import SkipTest, TestCase

from tests.support import PATIENCE
from tests.support.brokers import start_broker
from tests.support.centrifuge_clients import (
    URL,
    DrivenClient,
    Go,
    JavaScript,
    Library,
    Python,
    start_client,
)
from tests.support.clients import open_websocket
from tests.support.django import SETTINGS, cookies_of, environment, in_thread, log_in
from tests.support.programs import Program, twistd, until
from tests.support.redis import RedisServer
from tests.support.sizes import FULL
from ws4redis_tx.core.positions import History
from ws4redis_tx.twistd.embedded_redis import free_port

KEPT = History(300, 3600)
CHANNELS = {
    "broadcast:chat/1": b"broadcast:chat/1",
    "user:chat/1": b"user:john:chat/1",
    "group:chatters:chat/1": b"group:chatters:chat/1",
}
"""The names that a client of John's uses, and the channels."""
BROADCAST, USER, GROUP = CHANNELS
CLOSED = "group:strangers:chat/1"
"""John is no member, so that he needs a token."""

KILLS, PUBLISHED = (10, 60) if FULL else (2, 20)
"""How often the server is killed, and how many messages on each channel come before each time, and
again while it is away."""


class ClientTests:
    """What a library has to pass; the classes at the end of this module say which do."""

    timeout = 1800
    library: Library
    every = False
    """Whether ``make test`` runs all tests, and not only those that all libraries have to pass."""
    options: Sequence[str] = ()
    """Of the server."""
    kills = KILLS
    program: Program

    @inlineCallbacks
    def setUp(self) -> Any:
        self.library.command()  # before anything is started: it may not be there
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.port = free_port()
        self.broker = start_broker(self, self.redis.address)
        yield self.broker.when_available()
        self.cookies = cookies_of((yield log_in("john")))

    @inlineCallbacks
    def start(self) -> Any:
        """Fire when the server is ready, again or for the first time."""
        self.program = twistd(
            f"--settings={SETTINGS}", f"--listen=tcp:{self.port}:interface=127.0.0.1",
            f"--redis={self.redis.address}", f"--centrifuge-url={URL}",
            f"--history=chat/*={KEPT.size},{KEPT.seconds}", "--presence=chat/*",
            *self.options, **environment(),
        )  # fmt: skip
        self.addCleanup(self.program.end)
        self.program.patience = PATIENCE
        here = rf"Centrifuge's protocol at ws://127.0.0.1:{self.port}{URL}websocket"
        yield self.program.wait_for(rf"process#info\] Ready: websockets at .*{here}")

    def kill(self) -> Any:
        return self.program.signal_and_wait("KILL")

    def start_again(self) -> Any:
        return self.start()

    @inlineCallbacks
    def connect(self, *channels: str, **options: Any) -> Any:
        """Fire with a client that has subscribed to all of them."""
        options.setdefault("cookies", self.cookies)
        client = start_client(self, self.library, self.port, **options)
        client.do("connect")
        yield client.next("connected")
        for channel in channels:
            client.do("subscribe", channel=channel)
            yield client.next("subscribed", channel=channel)
        return client

    def publish(self, channel: str, message: bytes, kept: History | None = KEPT) -> Any:
        return self.broker.publish([CHANNELS[channel]], message, 3600, None, kept)

    @inlineCallbacks
    def publish_numbers(self, numbers: range) -> Any:
        """Publish them on all channels, as one client of Redis does that does not wait."""
        yield gatherResults(
            [
                self.publish(channel, b'{"number": %d}' % number)
                for number in numbers
                for channel in CHANNELS
            ]
        )

    def check_numbers(self, client: DrivenClient, count: int) -> None:
        for channel in CHANNELS:
            heard = [each["number"] for each in client.heard(channel)]
            if not self.library.ordered:
                heard = sorted(set(heard))
            self.assertEqual(heard, list(range(count)))

    def heard_all(self, client: DrivenClient, count: int) -> Any:
        awaited = {count - 1} if self.library.ordered else {*range(count)}
        return client.until(
            lambda: all(
                awaited <= {each["number"] for each in client.heard(channel)}
                for channel in CHANNELS
            )
        )

    def only_full(self) -> None:
        if not (FULL or self.every):
            raise SkipTest("make test-all runs it")

    @inlineCallbacks
    def check_over_kills(self, client: DrivenClient) -> Any:
        """Publish while the server is killed again and again, and check what was heard."""
        count = 0
        for _ in range(self.kills):
            # The server is killed while it delivers.
            publishing = self.publish_numbers(range(count, count + PUBLISHED))
            yield client.until(lambda count=count: len(client.heard(USER)) > count + 3)
            yield self.kill()
            yield publishing
            count += PUBLISHED
            yield self.publish_numbers(range(count, count + PUBLISHED))
            count += PUBLISHED
            yield self.start_again()
            # It recovers while messages come. More would be more than it may miss.
            for _ in range(100):
                yield self.publish_numbers(range(count, count + 1))
                count += 1
                if client.heard(USER)[-1]["number"] == count - 1:
                    break
            yield self.heard_all(client, count)
        self.check_numbers(client, count)
        again = client.events("subscribed", wasRecovering=True)
        self.assertEqual(len(again), self.kills * len(CHANNELS))
        self.assertEqual({each["recovered"] for each in again}, {True})

    @inlineCallbacks
    def test_nothing_is_missed_or_comes_twice_over_kills(self) -> Any:
        yield self.start()
        yield self.check_over_kills((yield self.connect(*CHANNELS)))

    @inlineCallbacks
    def test_nor_with_subscriptions_of_the_servers(self) -> Any:
        self.only_full()
        yield self.start()
        query = "?facility=chat/1&subscribe-broadcast&subscribe-user&subscribe-group"
        client = yield self.connect(query=query)
        for channel in CHANNELS:
            yield client.until(lambda channel=channel: client.events("subscribed", channel=channel))
        yield self.check_over_kills(client)

    @inlineCallbacks
    def test_classic_clients_and_these_hear_each_other(self) -> Any:
        yield self.start()
        client = yield self.connect(*CHANNELS)
        classic = yield open_websocket(
            f"ws://127.0.0.1:{self.port}/ws/chat/1?subscribe-user&publish-user",
            cookies=self.cookies,
        )
        answer = yield client.ask("publish", channel=USER, data={"from": "library"})
        self.assertNotIn("error", answer)
        self.assertEqual(json.loads((yield classic.next())), {"from": "library"})
        heard = yield client.next("publication", channel=USER)
        self.assertEqual((heard["data"], heard["offset"]), ({"from": "library"}, 1))
        connected = client.events("connected")[-1]
        self.assertEqual(heard["info"]["user"], "john")
        self.assertEqual(heard["info"]["client"], connected["client"])
        classic.sendMessage('"grüße 🎉"'.encode())
        heard = yield client.next("publication", channel=USER)
        self.assertEqual((heard["data"], heard["offset"]), ("grüße 🎉", 2))
        self.assertIsNone(heard.get("info"))
        # Upstream's publishers know of no history.
        for message, kept, data, offset in (
            (b"1", KEPT, 1, 1), (b"no JSON", None, "no JSON", 0), (b"2", KEPT, 2, 2),
        ):  # fmt: skip
            yield self.publish(BROADCAST, message, kept)
            heard = yield client.next("publication", channel=BROADCAST)
            self.assertEqual((heard["data"], heard["offset"]), (data, offset))

    @inlineCallbacks
    def test_comes_back_after_the_server_stopped(self) -> Any:
        self.only_full()
        yield self.start()
        client = yield self.connect(*CHANNELS)
        yield self.publish_numbers(range(10))
        yield self.heard_all(client, 10)
        ended = self.program.signal_and_wait("TERM")
        # Before 0.7, centrifuge-python calls it disconnected, and comes back all the same.
        yield client.until(lambda: client.events("connecting", "disconnected", code=3001))
        yield ended
        yield self.publish_numbers(range(10, 20))
        yield self.start()
        yield self.heard_all(client, 20)
        self.check_numbers(client, 20)

    @inlineCallbacks
    def test_unsubscribes(self) -> Any:
        self.only_full()
        yield self.start()
        client = yield self.connect(*CHANNELS)
        yield self.publish_numbers(range(2))
        yield self.heard_all(client, 2)
        client.do("unsubscribe", channel=USER)
        yield client.next("unsubscribed", channel=USER)
        yield client.ask("history", channel=BROADCAST, limit=0)  # carried out after it
        yield self.publish_numbers(range(2, 4))
        yield client.until(lambda: len(client.heard(GROUP)) == 4)
        self.assertEqual(len(client.heard(BROADCAST)), 4)
        self.assertEqual(len(client.heard(USER)), 2)
        client.do("subscribe", channel=USER)
        yield client.next("subscribed", channel=USER)
        yield self.publish_numbers(range(4, 5))
        yield client.until(lambda: {"number": 4} in client.heard(USER))

    @inlineCallbacks
    def test_turns_the_pages_of_a_history(self) -> Any:
        self.only_full()
        yield self.start()
        client = yield self.connect()
        yield self.publish_numbers(range(25))
        for reverse in (False, True):
            pages: list[list[int]] = []
            since = None
            while not pages or pages[-1]:
                page = yield client.ask(
                    "history", channel=BROADCAST, limit=10, since=since, reverse=reverse
                )
                self.assertNotIn("error", page)
                self.assertEqual(page["offset"], 25)
                found = page["publications"]
                pages.append([each["data"]["number"] for each in found])
                self.assertEqual([each["offset"] - 1 for each in found], pages[-1])
                if found:
                    since = {"offset": found[-1]["offset"], "epoch": page["epoch"]}
            numbers = range(24, -1, -1) if reverse else range(25)
            self.assertEqual([len(page) for page in pages], [10, 10, 5, 0])
            self.assertEqual([*chain(*pages)], list(numbers))
        page = yield client.ask("history", channel="broadcast:other", limit=10)
        self.assertEqual(page["error"], 108)

    @inlineCallbacks
    def test_is_refused_for_good(self) -> Any:
        self.only_full()
        yield self.start()
        client = yield self.connect()
        for channel, code in (("group:strangers:chat/1", 103), ("news", 102)):
            client.do("subscribe", channel=channel)
            yield client.next("unsubscribed", channel=channel, code=code)
        answer = yield client.ask("publish", channel=BROADCAST, data=1)
        self.assertEqual(answer["error"], 103)
        client.do("disconnect")
        yield client.next("disconnected")

    def token(self, channel: str = "", ttl: float = 600, channels: Sequence[str] = ()) -> Any:
        """Fire with a token of John's, for a channel or for a connection."""

        def make() -> str:
            from django.contrib.auth import get_user_model

            from ws4redis_tx.tokens import connection_token, subscription_token

            john = get_user_model().objects.get(username="john")
            if channel:
                return subscription_token(channel, user=john, ttl=ttl)
            return connection_token(john, ttl=ttl, channels=channels)

        return in_thread(make)

    @inlineCallbacks
    def answer(
        self, client: DrivenClient, channel: str = "", ttl: float = 1, channels: Sequence[str] = ()
    ) -> Any:
        """Let a client have the token that it asked for."""
        token = yield self.token(channel, ttl, channels)
        client.do("token", channel=channel, token=token)

    @inlineCallbacks
    def test_asks_for_tokens_before_the_old_ones_end(self) -> Any:
        self.only_full()
        yield self.start()
        client = start_client(self, self.library, self.port, tokens=True)
        client.do("connect")
        channel = CLOSED
        yield client.next("token", channel="")
        yield self.answer(client)
        yield client.next("connected")
        client.do("subscribe", channel=channel, tokens=True)
        yield client.next("token", channel=channel)
        yield self.answer(client, channel)
        yield client.next("subscribed", channel=channel)
        asked = {"": 1, channel: 1}
        # Who asks for the fourth has the third, and its lifetime.
        while min(asked.values()) < 4:
            ask = yield client.until(
                lambda: next(
                    (
                        each
                        for name, count in asked.items()
                        for each in client.events("token", channel=name)[count:]
                    ),
                    None,
                )
            )
            asked[ask["channel"]] += 1
            yield self.answer(client, ask["channel"])
        yield self.broker.publish([channel.encode()], b"1", 3600, None, KEPT)
        yield client.next("publication", channel=channel)
        self.assertEqual(len(client.events("connected")), 1)
        self.assertEqual(len(client.events("subscribed", channel=channel)), 1)

    @inlineCallbacks
    def test_takes_the_channels_that_a_new_token_brings_and_loses_them_with_the_next(self) -> Any:
        self.only_full()
        yield self.start()
        client = start_client(self, self.library, self.port, tokens=True)
        client.do("connect")
        yield client.next("token", channel="")
        yield self.answer(client)
        yield client.next("connected")
        for _ in range(2):
            yield client.next("token", channel="")
            yield self.answer(client, channels=[CLOSED])
            yield client.next("subscribed", channel=CLOSED)
            yield self.broker.publish([CLOSED.encode()], b"1", 3600, None, KEPT)
            yield client.next("publication", channel=CLOSED)
            yield client.next("token", channel="")
            yield self.answer(client)
            yield client.next("unsubscribed", channel=CLOSED)
        self.assertEqual(len(client.events("connected")), 1)

    @inlineCallbacks
    def test_asks_again_for_an_expired_token_but_not_for_a_bad_one(self) -> Any:
        self.only_full()
        yield self.start()
        client = start_client(self, self.library, self.port, tokens=True)
        client.do("connect")
        yield client.next("token", channel="")
        yield self.answer(client, ttl=0.001)
        yield client.next("token", channel="")
        yield self.answer(client)
        yield client.next("connected")
        self.assertEqual((yield client.ask("publish", channel=USER, data=1)).get("error"), None)
        bad = start_client(self, self.library, self.port, tokens=True, cookies=self.cookies)
        bad.do("connect")
        yield bad.next("token", channel="")
        token = yield self.token()
        bad.do("token", channel="", token=token[:-6] + "forged")
        yield bad.next("disconnected", code=3500)

    @inlineCallbacks
    def test_knows_who_is_there(self) -> Any:
        self.only_full()
        yield self.start()
        client = yield self.connect(BROADCAST)
        cookies = cookies_of((yield log_in("mary")))
        mary = yield self.connect(BROADCAST, cookies=cookies)
        id = mary.events("connected")[0]["client"]
        yield client.until(
            lambda: any(each["info"]["client"] == id for each in client.events("join"))
        )
        present = yield client.ask("presence", channel=BROADCAST)
        users = {info["user"] for info in present["clients"].values()}
        self.assertEqual((users, len(present["clients"])), ({"john", "mary"}, 2))
        self.assertIn(id, present["clients"])
        counted = yield mary.ask("presence_stats", channel=BROADCAST)
        self.assertEqual((counted["clients"], counted["users"]), (2, 2))
        yield self.publish(BROADCAST, b'"before"')
        yield mary.next("publication")
        mary.do("unsubscribe", channel=BROADCAST)
        left = yield client.next("leave", channel=BROADCAST)
        self.assertEqual((left["info"]["client"], left["info"]["user"]), (id, "mary"))
        # In order with messages, and each once. Some libraries tell a client's own join, too.
        others = [
            each["event"]
            for each in client.events("join", "publication", "leave")
            if each["event"] == "publication" or each["info"]["user"] == "mary"
        ]
        self.assertEqual(others, ["join", "publication", "leave"])
        present = yield client.ask("presence", channel=BROADCAST)
        self.assertEqual([*present["clients"]], [client.events("connected")[0]["client"]])


class NewestJavaScriptTests(ClientTests, TestCase):
    library = JavaScript("5.8.0")
    every = True


class PythonTests(ClientTests, TestCase):
    library = Python(protobuf=True)


class GoTests(ClientTests, TestCase):
    library = Go()


class FullTests(ClientTests):
    """Of libraries that ``make test`` leaves out."""

    skip = None if FULL else "make test-all runs it"


class NewestJavaScriptProtobufTests(FullTests, TestCase):
    library = JavaScript("5.8.0", protobuf=True)


class Newest4Tests(FullTests, TestCase):
    library = JavaScript("4.1.0")


class Newest4ProtobufTests(FullTests, TestCase):
    library = JavaScript("4.1.0", protobuf=True)


class Oldest5Tests(FullTests, TestCase):
    library = JavaScript("5.0.0")


class Oldest5ProtobufTests(FullTests, TestCase):
    library = JavaScript("5.0.0", protobuf=True)


class Oldest4Tests(FullTests, TestCase):
    library = JavaScript("4.0.0")


class Oldest4ProtobufTests(FullTests, TestCase):
    library = JavaScript("4.0.0", protobuf=True)


class PythonJsonTests(FullTests, TestCase):
    library = Python()


class OlderPythonTests(FullTests, TestCase):
    library = Python("0.4.4", protobuf=True)

    def test_takes_the_channels_that_a_new_token_brings_and_loses_them_with_the_next(self) -> None:
        raise SkipTest("it ignores the push that says so, until it connects anew")

    @inlineCallbacks
    def test_asks_for_tokens_before_the_old_ones_end(self) -> Any:
        """Fault 16: it asks, but says not for which channel. The log has the reason."""
        yield self.start()
        client = start_client(self, self.library, self.port, cookies=self.cookies)
        client.do("connect")
        client.do("subscribe", channel=CLOSED, tokens=True)
        yield client.next("token", channel=CLOSED)
        yield self.answer(client, CLOSED)
        yield client.next("subscribed", channel=CLOSED)
        yield client.next("token", channel=CLOSED)
        yield self.answer(client, CLOSED)
        yield client.next("disconnected", code=3501)
        yield self.program.wait_for("sub_refresh named no channel")


class OlderPythonJsonTests(OlderPythonTests):
    library = Python("0.4.4")


class LastPythonWithFault16Tests(OlderPythonTests):
    library = Python("0.5.0")


class FirstPythonWithoutFault16Tests(FullTests, TestCase):
    library = Python("0.5.1")


class GoJsonTests(FullTests, TestCase):
    library = Go(protobuf=False)


class HttpStreamTests(FullTests, TestCase):
    library = JavaScript("5.8.0", transport="http_stream")


class HttpStreamProtobufTests(FullTests, TestCase):
    library = JavaScript("5.8.0", protobuf=True, transport="http_stream")


class OldestHttpStreamTests(FullTests, TestCase):
    library = JavaScript("4.0.0", transport="http_stream")


class SseTests(FullTests, TestCase):
    library = JavaScript("5.8.0", transport="sse")


class OldestSseTests(FullTests, TestCase):
    library = JavaScript("4.0.0", transport="sse")


class TwoWorkersTests(FullTests):
    """The server has two processes, either of which a request may reach. Both are killed at a time,
    and start again by themselves.
    """

    options = ("--workers=2",)
    kills = 2  # the next time, they wait longer before they start

    def kill(self) -> None:
        self.begun = self.program.printed.count("] Ready: ")
        pids = dict(re.findall(r"\[worker (\d)\] Process (\d+)", self.program.printed))
        for pid in pids.values():
            os.kill(int(pid), signal.SIGKILL)

    def start_again(self) -> Any:
        ready = self.begun + 2
        return until(lambda: self.program.printed.count("] Ready: ") >= ready, PATIENCE)


class TwoWorkersWebsocketTests(TwoWorkersTests, TestCase):
    library = JavaScript("5.8.0")


class TwoWorkersHttpStreamTests(TwoWorkersTests, TestCase):
    library = JavaScript("5.8.0", transport="http_stream")


class TwoWorkersSseTests(TwoWorkersTests, TestCase):
    library = JavaScript("5.8.0", transport="sse")


class TwoWorkersPythonTests(TwoWorkersTests, TestCase):
    library = Python()


class TwoWorkersGoTests(TwoWorkersTests, TestCase):
    library = Go()
