"""The contract, section 9: presence, with a real Redis, to classic clients and to Centrifuge's."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import inlineCallbacks

from tests.support.centrifuge import open_centrifuge
from tests.support.clients import open_websocket
from tests.support.django import in_thread, set_up_django
from tests.support.pages import DOCS, blocks_of
from tests.support.redis import RedisServer
from tests.support.sites import ContractTestCase

set_up_django()

from django.contrib.auth.models import AnonymousUser, Group, User

from ws4redis_tx import presence
from ws4redis_tx.core.errors import AudienceError, BrokerUnavailable
from ws4redis_tx.policies import allow_all
from ws4redis_tx.redis_store import SELF
from ws4redis_tx.testing import capture_messages

ROOM = "broadcast:chat/room"
CLASSIC = "chat/room?subscribe-broadcast"


class PresenceTestCase(ContractTestCase):
    grace = 0
    settings: dict[str, Any] = {}

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        self.service = yield self.serve_centrifuge(
            WS4REDIS_PRESENCE=["chat/*"],
            WS4REDIS_PRESENCE_GRACE=self.grace,
            WS4REDIS_HISTORY={"chat/kept": (10, 600)},
            WS4REDIS_ALLOWED_CHANNELS=allow_all,
            **self.settings,
        )

    @inlineCallbacks
    def classic(self, user: str | None = None, target: str = CLASSIC) -> Any:
        options = {"cookies": (yield self.log_in(user))} if user else {}
        client = yield self.open(target, **options)
        yield self.settled()
        return client

    @inlineCallbacks
    def multiplexed(self, user: str | None = None, *channels: str) -> Any:
        options = {"cookies": (yield self.log_in(user))} if user else {}
        client = yield open_centrifuge(self.port, **options)
        self.addCleanup(self._close, client.websocket)
        for channel in channels or (ROOM,):
            self.assertIsInstance((yield client.subscribe(channel)), dict)
        yield self.settled()
        return client

    def settled(self) -> Any:
        """Fire when Redis knows of all who have come."""
        protocols = self.service.factory.session_server.protocols
        (occupancy,) = [each.occupancy for each in protocols if hasattr(each, "occupancy")]
        return occupancy.settled()

    @inlineCallbacks
    def event(self, client: Any) -> Any:
        """The next push: of whom it tells what, and where."""
        push = yield client.push()
        (event,) = push.keys() - {"channel"}
        return event, push[event]["info"]["user"], push["channel"]

    @inlineCallbacks
    def who(self, *args: Any, **kwargs: Any) -> Any:
        found = yield in_thread(lambda: presence.who(*args, **kwargs))
        return [each.user for each in found]


class DjangoTests(PresenceTestCase):
    @inlineCallbacks
    def test_who_is_there(self) -> Any:
        yield self.classic("john")
        yield self.classic()
        client = yield self.multiplexed("mary")
        self.assertEqual((yield self.who("chat/room")), ["", "john", "mary"])
        found = yield in_thread(lambda: presence.who("chat/room"))
        self.assertEqual(found[2], presence.Present("mary", client.id))
        self.assertEqual((yield self.who("chat/other")), [])

    @inlineCallbacks
    def test_how_many(self) -> Any:
        for user in ("john", "john", None, None, "mary"):
            yield self.classic(user)
        count = yield in_thread(lambda: presence.count("chat/room"))
        self.assertEqual((count, count.users), (5, 3))
        self.assertEqual((yield in_thread(lambda: presence.count("chat/other"))), 0)

    @inlineCallbacks
    def test_a_group_is_asked_about_by_its_name_or_itself(self) -> Any:
        yield self.classic("john", "chat/room?subscribe-group")
        yield self.classic("mary", "chat/room?subscribe-broadcast")
        group = yield in_thread(lambda: Group.objects.get(name="chatters"))
        self.assertEqual((yield self.who("chat/room", group="chatters")), ["john"])
        self.assertEqual((yield self.who("chat/room", group=group)), ["john"])
        count = yield in_thread(lambda: presence.count("chat/room", group=group))
        self.assertEqual(count, 1)
        self.assertEqual((yield self.who("chat/room")), ["mary"])

    @inlineCallbacks
    def test_who_is_online(self) -> Any:
        yield self.classic("john", "chat/room?subscribe-user")
        yield self.multiplexed("mary", "user:chat/room")
        john = yield in_thread(lambda: User.objects.get(username="john"))
        ask = presence.is_online
        for user, expected in (
            ("john", True), (john, True), ("mary", True), ("nobody", False),
            (AnonymousUser(), False), ("", False),
        ):  # fmt: skip
            self.assertIs((yield in_thread(lambda user=user: ask(user))), expected, user)
        self.assertEqual((yield self.who("chat/room")), [])

    @inlineCallbacks
    def test_async_views_ask_as_well(self) -> Any:
        yield self.classic("john")
        for ask, expected in (
            (lambda: presence.awho("chat/room"), "john"),
            (lambda: presence.acount("chat/room"), 1),
            (lambda: presence.ais_online("john"), True),
            (lambda: presence.ais_online(""), False),
        ):
            answer = yield in_thread(lambda ask=ask: asyncio.run(ask()))
            self.assertEqual(answer[0].user if expected == "john" else answer, expected)

        async def forget() -> None:
            with self.assertRaisesRegex(RuntimeError, "await awho"):
                presence.who("chat/room")
            with self.assertRaisesRegex(RuntimeError, "await acount"):
                presence.count("chat/room")
            with self.assertRaisesRegex(RuntimeError, "await ais_online"):
                presence.is_online("john")

        yield in_thread(lambda: asyncio.run(forget()))

    @inlineCallbacks
    def test_a_facility_that_knows_nobody_is_a_mistake(self) -> Any:
        with self.assertRaisesRegex(ValueError, r"news.*WS4REDIS_PRESENCE is \['chat/\*'\]"):
            yield self.who("news")
        with self.assertRaisesRegex(ValueError, "news"):
            yield in_thread(lambda: presence.count("news"))
        with self.assertRaisesRegex(ValueError, "':'"):
            yield self.who("chat/a:b", group="chatters")
        with self.assertRaisesRegex(TypeError, "tenant"):
            yield self.who("chat/room", tenant="acme")
        with self.assertRaisesRegex(AudienceError, "AnonymousUser"):
            yield self.who("chat/room", group=AnonymousUser())
        request = SimpleNamespace(user=AnonymousUser(), session=None)
        with self.assertRaisesRegex(ValueError, "SELF is not one group"):
            yield self.who("chat/room", group=SELF, request=request)
        self.override(WS4REDIS_PRESENCE=None)
        for ask in (lambda: presence.who("chat/room"), lambda: presence.is_online("john")):
            with self.assertRaisesRegex(ValueError, "WS4REDIS_PRESENCE is not set"):
                yield in_thread(ask)

    @inlineCallbacks
    def test_without_redis_it_says_so(self) -> Any:
        self.redis.stop()
        with self.assertRaises(BrokerUnavailable):
            yield self.who("chat/room")

    @inlineCallbacks
    def test_in_a_test_without_a_server_nobody_is_there(self) -> Any:
        def ask() -> Any:
            with capture_messages() as messages:
                messages.fail_next()
                with self.assertRaises(BrokerUnavailable):
                    presence.who("chat/room")
                return (
                    presence.who("chat/room"),
                    presence.count("chat/room"),
                    presence.is_online("john"),
                )

        self.assertEqual((yield in_thread(ask)), ([], 0, False))


BLOCKS = blocks_of(DOCS / "presence.md")


class PageTests(PresenceTestCase):
    def test_every_block_is_known_here(self) -> None:
        # This is the test of "presence.md".
        self.assertEqual([block.language for block in BLOCKS], ["python", "python"])

    @inlineCallbacks
    def test_the_view_tells_who_is_there(self) -> Any:
        setting: dict[str, Any] = {}
        exec(BLOCKS[0].code, setting)
        self.override(WS4REDIS_PRESENCE=setting["WS4REDIS_PRESENCE"])
        view: dict[str, Any] = {}
        exec(BLOCKS[1].code, view)
        for user in ("mary", "mary", None):
            yield self.classic(user)
        answer = yield in_thread(lambda: view["room"](None, "room"))
        self.assertEqual(
            json.loads(answer.content),
            {"here": ["a guest", "mary", "mary"], "pages": 3, "users": 2, "staff": 0, "mary": True},
        )


class PushTests(PresenceTestCase):
    @inlineCallbacks
    def test_joins_and_leaves_come_in_order_with_messages(self) -> Any:
        for room in (ROOM, "broadcast:chat/kept"):
            client = yield self.multiplexed(None, room)
            self.assertEqual((yield self.event(client)), ("join", "", room))
            for number in range(5):
                facility = room.partition(":")[2]
                yield self.publish(str(number), facility=facility, broadcast=True)
                other = yield self.multiplexed("mary", room)
                other.send({"publish": {"channel": room, "data": number}})
                other.send({"unsubscribe": {"channel": room}})
                self.assertEqual((yield client.data()), number)
                self.assertEqual((yield self.event(client)), ("join", "mary", room))
                self.assertEqual((yield client.data()), number)
                self.assertEqual((yield self.event(client)), ("leave", "mary", room))
                self.assertFalse(client.pushes)

    @inlineCallbacks
    def test_each_kind_of_client_is_heard_of(self) -> Any:
        client = yield self.multiplexed()
        yield self.event(client)
        classic = yield self.classic("john")
        self.assertEqual((yield self.event(client)), ("join", "john", ROOM))
        answer = yield client.ask("presence", channel=ROOM)
        users = sorted(each["user"] for each in answer["presence"].values())
        self.assertEqual(users, ["", "john"])
        stats = yield client.ask("presence_stats", channel=ROOM)
        self.assertEqual(stats, {"num_clients": 2, "num_users": 2})
        classic.sendClose(1000)
        self.assertEqual((yield self.event(client)), ("leave", "john", ROOM))

    @inlineCallbacks
    def test_classic_clients_hear_messages_alone(self) -> Any:
        classic = yield self.classic()
        yield self.multiplexed("mary")
        yield self.publish("hi", facility="chat/room", broadcast=True)
        self.assertEqual((yield classic.next()), "hi")

    @inlineCallbacks
    def test_a_user_s_own_channels_have_none(self) -> Any:
        client = yield self.multiplexed("mary", "user:chat/room", "session:chat/room")
        for channel in ("user:chat/room", "session:chat/room", "broadcast:news"):
            self.assertEqual((yield client.ask("presence", channel=channel)), 108)
            self.assertEqual((yield client.ask("presence_stats", channel=channel)), 108)
        self.assertFalse(client.pushes)

    @inlineCallbacks
    def test_a_client_hears_its_own_join_and_not_its_own_leave(self) -> Any:
        client = yield self.multiplexed("mary")
        self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))
        yield client.ask("unsubscribe", channel=ROOM)
        yield client.subscribe(ROOM)
        self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))


def named(request: Any, name: str) -> str | None:
    return ROOM if name in ("room", ROOM) else None


class NamedTests(PresenceTestCase):
    settings = {"WS4REDIS_CENTRIFUGE_NAMES": named}

    @inlineCallbacks
    def test_joins_and_leaves_carry_the_name_that_each_client_knows(self) -> Any:
        first = yield self.multiplexed("mary", "room")
        self.assertEqual((yield self.event(first)), ("join", "mary", "room"))
        second = yield self.multiplexed("john", ROOM)
        self.assertEqual((yield self.event(first)), ("join", "john", "room"))
        self.assertEqual((yield self.event(second)), ("join", "john", ROOM))
        yield first.ask("unsubscribe", channel="room")
        self.assertEqual((yield self.event(second)), ("leave", "mary", ROOM))
        self.assertEqual((yield self.who("chat/room")), ["john"])


class GraceTests(PresenceTestCase):
    grace = 1

    @inlineCallbacks
    def test_of_three_tabs_one_is_closed(self) -> Any:
        client = yield self.multiplexed()
        yield self.event(client)
        for open_tab in (self.classic, self.multiplexed):
            tabs = []
            for _ in range(3):
                tab = yield open_tab("mary")
                tabs.append(getattr(tab, "websocket", tab))
                self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))
            for left in (2, 1, 0):
                tabs.pop().sendClose(1000)
                self.assertEqual((yield self.event(client)), ("leave", "mary", ROOM))
                self.assertEqual((yield self.who("chat/room")).count("mary"), left)
                online = yield in_thread(lambda: presence.is_online("mary"))
                self.assertIs(online, left > 0)

    @inlineCallbacks
    def test_a_user_who_is_back_is_never_absent(self) -> Any:
        client = yield self.multiplexed()
        yield self.event(client)
        cookies = yield self.log_in("mary")
        old = yield open_websocket(self.url + CLASSIC, cookies=cookies)
        self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))
        old.transport.abortConnection()
        yield old.closed
        yield self.open(CLASSIC, cookies=cookies)
        self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))
        self.assertEqual((yield self.who("chat/room")), ["", "mary", "mary"])
        self.assertEqual((yield self.event(client)), ("leave", "mary", ROOM))
        self.assertEqual((yield self.who("chat/room")), ["", "mary"])


class OutageTests(PresenceTestCase):
    @inlineCallbacks
    def test_a_redis_that_was_emptied_is_told_who_is_there(self) -> Any:
        client = yield self.multiplexed("mary")
        yield self.event(client)
        yield self.classic("john")
        yield self.event(client)
        self.redis.command("FLUSHALL")
        self.assertEqual((yield self.who("chat/room")), [])
        joined = set()
        for _ in range(2):
            joined.add((yield self.event(client)))
        self.assertEqual(joined, {("join", "mary", ROOM), ("join", "john", ROOM)})
        self.assertEqual((yield self.who("chat/room")), ["john", "mary"])

    @inlineCallbacks
    def test_so_is_one_that_takes_the_place_of_another(self) -> Any:
        client = yield self.multiplexed("mary")
        yield self.event(client)
        self.redis.stop()
        self.redis = RedisServer(port=self.redis.port)
        self.assertEqual((yield self.event(client)), ("join", "mary", ROOM))
        self.assertEqual((yield self.who("chat/room")), ["mary"])
        self.assertTrue((yield in_thread(lambda: presence.is_online("mary"))))
