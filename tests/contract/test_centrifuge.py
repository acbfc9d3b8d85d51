"""The contract, section 8: many channels over one connection, by Centrifuge's client protocol."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from twisted.internet.defer import inlineCallbacks

from tests.support.centrifuge import open_centrifuge
from tests.support.django import in_thread, set_up_django
from tests.support.logs import log_lines
from tests.support.sites import ContractTestCase

set_up_django()

from django.contrib.auth.models import Group, User

from ws4redis_tx import disconnect
from ws4redis_tx.policies import allow_all

HISTORY = {"kept": (10, 600)}


asked: list[tuple[str, list[str]]] = []


def narrow(request: Any, rights: list[str]) -> list[str]:
    """Who may what, by the facility."""
    asked.append((request.path_info, rights))
    if "forbidden" in request.path_info:
        raise PermissionDenied
    if "silent" in request.path_info:
        return [right for right in rights if right.startswith("subscribe")]
    if "broken" in request.path_info:
        raise ZeroDivisionError
    return rights


class CentrifugeTestCase(ContractTestCase):
    policy = allow_all
    more: dict[str, Any] = {}

    @inlineCallbacks
    def setUp(self) -> Any:
        super().setUp()
        asked.clear()
        yield self.serve_centrifuge(
            WS4REDIS_HISTORY=HISTORY,
            WS4REDIS_ALLOWED_CHANNELS=type(self).__dict__.get("policy", allow_all),
            WS4REDIS_ALLOWED_ORIGINS="*",
            WS4REDIS_REVOKE=True,
            **self.more,
        )

    @inlineCallbacks
    def connect(self, user: str | None = None, **options: Any) -> Any:
        if user is not None:
            options["cookies"] = yield self.log_in(user)
        client = yield open_centrifuge(self.port, **options)
        self.addCleanup(self._close, client.websocket)
        return client


class NameTests(CentrifugeTestCase):
    @inlineCallbacks
    def test_each_audience_has_its_name_and_hears_what_is_published_there(self) -> Any:
        client = yield self.connect("john")
        names = "broadcast:foobar", "user:foobar", "session:foobar", "group:chatters:foobar"
        for name in names:
            self.assertEqual((yield client.subscribe(name)), {}, name)
        session = yield self.log_in("john")  # another session hears nothing of this one's
        self.assertTrue(session)
        for audience in ({"broadcast": True}, {"users": ["john"]}, {"groups": ["chatters"]}):
            yield self.publish('{"a": 1}', **audience)
        channels = []
        for _ in range(3):
            push = yield client.push()
            self.assertEqual(push["pub"], {"data": {"a": 1}})
            channels.append(push["channel"])
        self.assertEqual(channels, ["broadcast:foobar", "user:foobar", "group:chatters:foobar"])

    @inlineCallbacks
    def test_no_name_reaches_anybody_elses_channel(self) -> Any:
        client = yield self.connect("mary")
        for name, code in {
            "user:john:foobar": 102,
            "session:" + "x" * 32 + ":foobar": 102,
            "group:others:foobar": 103,
            "ctl:revoke": 102,
            "side:broadcast:foobar": 102,
            "foobar": 102,
            "broadcast:": 102,
            "group:foobar": 102,
            "broadcast:" + "x" * 300: 107,
        }.items():
            self.assertEqual((yield client.subscribe(name)), code, name)
            self.assertIn((yield client.ask("publish", channel=name, data=1)), (code, 103), name)
            self.assertIn((yield client.ask("history", channel=name)), (code, 108), name)
        self.assertEqual(self.channels(), set())

    @inlineCallbacks
    def test_an_anonymous_visitor_has_no_user_and_no_session(self) -> Any:
        client = yield self.connect()
        for name in "user:foobar", "session:foobar", "group:chatters:foobar":
            self.assertEqual((yield client.subscribe(name)), 103, name)
        self.assertEqual((yield client.subscribe("broadcast:foobar")), {})

    @inlineCallbacks
    def test_a_channel_can_be_subscribed_once(self) -> Any:
        client = yield self.connect("john")
        yield client.subscribe("user:foobar")
        self.assertEqual((yield client.subscribe("user:foobar")), 105)
        for number in range(127):
            yield client.subscribe(f"broadcast:{number}")
        self.assertEqual((yield client.subscribe("broadcast:one more")), 106)
        yield client.ask("unsubscribe", channel="broadcast:5")
        self.assertEqual((yield client.subscribe("broadcast:one more")), {})


def names(request: Any, name: str) -> str | None:
    """Names of another server. Everybody's own number means their own channel."""
    if name == "broken":
        raise ZeroDivisionError
    known = {"news": "broadcast:news", "latest": "broadcast:news", f"#{request.user}": "user:news"}
    return known.get(name)


def answer(request: Any, method: str, data: Any) -> Any:
    if method == "refuse":
        raise PermissionDenied
    if method == "break":
        raise ZeroDivisionError
    return {"user": request.user.get_username(), "method": method, "data": data}


class CallbackTests(CentrifugeTestCase):
    more = {"WS4REDIS_CENTRIFUGE_NAMES": names, "WS4REDIS_RPC": answer}

    @inlineCallbacks
    def test_an_application_brings_its_own_names(self) -> Any:
        john = yield self.connect("john")
        self.assertEqual((yield john.subscribe("news")), {})
        self.assertEqual((yield john.subscribe("latest")), 105)
        self.assertEqual((yield john.subscribe("#john")), {})
        self.assertEqual((yield john.subscribe("#mary")), 102)
        self.assertEqual((yield john.subscribe("broadcast:news")), 102)
        self.assertEqual((yield john.subscribe("broken")), 100)
        self.flushLoggedErrors(ZeroDivisionError)
        mary = yield self.connect("mary")
        self.assertEqual((yield mary.subscribe("latest")), {})
        yield john.ask("publish", channel="news", data=1)
        for client, name in ((john, "news"), (mary, "latest")):
            push = yield client.push()
            self.assertEqual((push["channel"], push["pub"]["data"]), (name, 1))
        yield john.ask("unsubscribe", channel="news")
        yield mary.ask("publish", channel="latest", data=2)
        self.assertEqual((yield mary.push())["channel"], "latest")

    @inlineCallbacks
    def test_remote_calls(self) -> Any:
        client = yield self.connect("john")
        said = yield client.ask("rpc", method="m", data=[1, "ä"])
        self.assertEqual(said, {"data": {"user": "john", "method": "m", "data": [1, "ä"]}})
        self.assertEqual((yield client.ask("rpc", method="refuse")), 103)
        self.assertEqual((yield client.ask("rpc", method="break")), 100)
        self.flushLoggedErrors(ZeroDivisionError)

    @inlineCallbacks
    def test_a_frame_has_at_most_64_kib(self) -> Any:
        client = yield self.connect()
        client.send({"rpc": {"data": "x" * 65536}})
        self.assertEqual((yield client.closed), 1009)


class RightTests(CentrifugeTestCase):
    policy = narrow

    @inlineCallbacks
    def test_the_callback_decides_for_each_facility(self) -> Any:
        client = yield self.connect("john")
        self.assertEqual(asked, [])
        self.assertEqual((yield client.subscribe("broadcast:forbidden")), 103)
        self.assertEqual((yield client.subscribe("broadcast:broken")), 100)
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual((yield client.subscribe("broadcast:silent")), {})
        said = yield client.ask("publish", channel="broadcast:silent", data=1)
        self.assertEqual(said, 103)
        said = yield client.ask("publish", channel="broadcast:open", data=1)
        self.assertEqual(said, {})

    @inlineCallbacks
    def test_it_is_asked_once_for_the_subscriptions_of_a_frame(self) -> Any:
        client = yield self.connect("john")
        names = "broadcast:a", "user:a", "group:chatters:a", "broadcast:b"
        client.send(*[{"subscribe": {"channel": name}} for name in names])
        for _ in names:
            self.assertEqual((yield client.answer())["subscribe"], {})
        yield client.ask("unsubscribe", channel="user:a")
        yield client.subscribe("user:a")
        paths = [path for path, _ in asked]
        self.assertEqual(paths, ["/ws/a", "/ws/b"])
        self.assertEqual(asked[0][1], ["subscribe-user", "subscribe-group", "subscribe-broadcast"])


class RevocationTests(CentrifugeTestCase):
    @inlineCallbacks
    def test_a_lost_group_takes_its_channels_away_and_leaves_the_others(self) -> Any:
        client = yield self.connect("john")
        for name in "group:chatters:a", "broadcast:b":
            yield client.subscribe(name)

        def leave() -> None:
            User.objects.get(username="john").groups.remove(Group.objects.get(name="chatters"))

        def rejoin() -> None:
            User.objects.get(username="john").groups.add(Group.objects.get(name="chatters"))

        self.addCleanup(in_thread, rejoin)
        yield in_thread(leave)
        push = yield client.push()
        self.assertEqual(push["channel"], "group:chatters:a")
        self.assertEqual(push["unsubscribe"]["code"], 2000)
        yield self.publish("1", facility="b", broadcast=True)
        self.assertEqual((yield client.data()), 1)
        self.assertEqual((yield client.subscribe("group:chatters:a")), 103)

    @inlineCallbacks
    def test_a_disconnected_user_is_closed_for_good(self) -> Any:
        client = yield self.connect("john")
        yield in_thread(lambda: disconnect(user="john"))
        self.assertEqual((yield client.closed), 3503)


class TogetherTests(CentrifugeTestCase):
    @inlineCallbacks
    def test_classic_clients_and_these_hear_each_other(self) -> Any:
        classic = yield self.open("foobar?subscribe-broadcast&publish-broadcast")
        client = yield self.connect("john")
        yield client.subscribe("broadcast:foobar")
        classic.sendMessage(b'{"from": "classic"}')
        self.assertEqual((yield client.data()), {"from": "classic"})
        yield client.ask("publish", channel="broadcast:foobar", data={"n": 1})
        self.assertEqual((yield classic.next()), '{"n": 1}')
        push = yield client.push()
        info = {"user": "john", "client": client.id}
        self.assertEqual(push["pub"], {"data": {"n": 1}, "info": info})

    @inlineCallbacks
    def test_payloads_that_are_no_json_say_how_they_are_wrapped(self) -> Any:
        client = yield self.connect()
        yield client.subscribe("broadcast:foobar")
        for payload, data, tags in (
            ("hello", "hello", {"ws4redis": "text"}),
            (b"\xff\0", "/wA=", {"ws4redis": "base64"}),
            ("[1,\n2]", [1, 2], None),
            ("", "", {"ws4redis": "text"}),
        ):
            yield self.publish(payload, broadcast=True)
            pub = (yield client.push())["pub"]
            self.assertEqual((pub["data"], pub.get("tags")), (data, tags))

    @inlineCallbacks
    def test_server_side_subscriptions_come_with_the_connection(self) -> Any:
        client = yield self.connect("john", query="?facility=a&subscribe-user&subscribe-group")
        self.assertEqual(client.welcome["subs"], {"user:a": {}, "group:chatters:a": {}})
        yield self.publish("1", facility="a", users=["john"])
        self.assertEqual((yield client.data()), 1)


class RecoveryTests(CentrifugeTestCase):
    @inlineCallbacks
    def test_everything_missed_comes_with_the_subscription(self) -> Any:
        client = yield self.connect()
        first = yield client.subscribe("broadcast:kept")
        for number in range(3):
            yield self.publish(str(number), facility="kept", broadcast=True)
        offsets = []
        for _ in range(3):
            offsets.append((yield client.push())["pub"]["offset"])
        self.assertEqual(offsets, [1, 2, 3])
        again = yield self.connect()
        answer = yield again.subscribe(
            "broadcast:kept", recover=True, offset=1, epoch=first["epoch"]
        )
        self.assertTrue(answer["recovered"])
        self.assertEqual([each["data"] for each in answer["publications"]], [1, 2])

    @inlineCallbacks
    def test_an_outage_of_redis_connection_is_healed(self) -> Any:
        client = yield self.connect()
        yield client.subscribe("broadcast:kept")
        yield client.subscribe("broadcast:plain")
        yield self.publish("1", facility="kept", broadcast=True)
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        for number in range(2, 6):
            yield self.publish(str(number), facility="kept", broadcast=True)
        yield self.broker.when_available()
        yield self.publish("6", facility="kept", broadcast=True)
        heard = []
        for _ in range(6):
            push = yield client.push()
            heard.append((push["pub"]["offset"], push["pub"]["data"]))
        self.assertEqual(heard, [(number, number) for number in range(1, 7)])

    @inlineCallbacks
    def test_one_that_no_history_heals_is_told(self) -> Any:
        client = yield self.connect()
        yield client.subscribe("broadcast:kept")
        self.redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        for number in range(20):
            yield self.publish(str(number), facility="kept", broadcast=True)
        push = yield client.push()
        while "pub" in push:  # it may have been back for some of them
            push = yield client.push()
        self.assertEqual(push["unsubscribe"]["code"], 2500)

    @inlineCallbacks
    def test_a_publication_without_a_marker_has_no_offset_and_closes_nobody(self) -> Any:
        client = yield self.connect()
        yield client.subscribe("broadcast:kept")
        yield self.publish("1", facility="kept", broadcast=True)
        self.redis.command("PUBLISH", "broadcast:kept", "2")
        yield self.publish("3", facility="kept", broadcast=True)
        heard = []
        for _ in range(3):
            pub = (yield client.push())["pub"]
            heard.append((pub["data"], pub.get("offset")))
        self.assertEqual(heard, [(1, 1), (2, None), (3, 2)])


class LibraryTests(CentrifugeTestCase):
    @inlineCallbacks
    def test_the_log_says_why_old_releases_of_centrifuge_python_are_disconnected(self) -> Any:
        """Fault 16."""
        lines = log_lines(self)
        client = yield self.connect("john")
        client.send({"sub_refresh": {"token": "some"}})
        self.assertEqual((yield client.closed), 3501)
        told = [line for line in lines if "sub_refresh" in line]
        self.assertEqual(len(told), 1)
        self.assertIn("centrifuge-python before 0.5.1", told[0])
