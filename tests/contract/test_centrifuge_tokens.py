"""The contract, section 8: tokens and tickets, as clients of Centrifuge's protocol show them."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks
from twisted.internet.task import Clock

from tests.support import TIMEOUT
from tests.support.centrifuge import CentrifugeClient, open_centrifuge
from tests.support.clients import open_websocket
from tests.support.django import in_thread, set_up_django
from tests.support.logs import log_lines
from tests.support.servers import LISTEN, ServerTestCase
from tests.support.sites import DjangoTests, override
from tests.support.tokens import OTHER, SECRET, token, unsigned
from ws4redis_tx.service import ServerConfig, disconnect, make_service

set_up_django()

from django.core.exceptions import PermissionDenied
from django.test import RequestFactory

from ws4redis_tx.config import django_settings
from ws4redis_tx.tickets import make_ticket
from ws4redis_tx.tokens import connection_token, subscription_token

GROUP = "revoked testers"


def allow_some(request: Any, rights: list[str]) -> list[str]:
    if "forbidden" in request.path_info:
        raise PermissionDenied
    return rights


def break_down(request: Any, rights: list[str]) -> list[str]:
    if "broken" in request.path_info:
        raise ZeroDivisionError
    return rights


def times(seconds: float = 600, **changes: float) -> dict[str, float]:
    now = time.time()
    return {"iat": now, "exp": now + seconds, **changes}


class CentrifugeTokenTestCase(DjangoTests):
    @inlineCallbacks
    def setUp(self) -> Any:
        yield super().setUp()
        _, protocol = self.service.factory.session_server.protocols
        self.clock = Clock()
        self.patch(protocol, "reactor", self.clock)
        self.patch(protocol.tokens, "_reactor", self.clock)
        self.lines = log_lines(self)

    def overrides(self) -> dict[str, Any]:
        return {
            "WS4REDIS_CENTRIFUGE_URL": "/connection/",
            "WS4REDIS_TOKEN_SECRET": SECRET,
            "WS4REDIS_ALLOWED_CHANNELS": allow_some,
            "WS4REDIS_HISTORY": {"kept": (10, 600)},
        }

    @inlineCallbacks
    def connect(self, text: str = "", name: str = "", port: int = 0) -> Any:
        """Fire with a client that shows a token, or has the cookie of a user, or both."""
        options: dict[str, Any] = {"cookies": self.cookies[name]} if name else {}
        request = {"token": text} if text else {}
        client = yield open_centrifuge(port or self.port, connect=request, **options)
        self.addCleanup(self._close, client.websocket)
        return client

    @inlineCallbacks
    def assert_closed_with(self, code: int, client: Any) -> Any:
        self.assertEqual((yield client.closed.addTimeout(TIMEOUT, reactor)), code)

    @inlineCallbacks
    def assert_ends(self, code: int, command: str, client: Any = None, **request: Any) -> Any:
        """Check that a command closes the connection."""
        if client is None:
            url = f"ws://127.0.0.1:{self.port}/connection/websocket"
            cookies = self.cookies["bob"]
            client = CentrifugeClient((yield open_websocket(url, cookies=cookies)))
            self.addCleanup(self._close, client.websocket)
        client.send({command: request})
        yield self.assert_closed_with(code, client)

    def token(self, name: str = "ann", **options: Any) -> Any:
        return in_thread(lambda: connection_token(self.user(name), **options))

    def channel_token(self, channel: str, name: str = "ann", **options: Any) -> Any:
        return in_thread(lambda: subscription_token(channel, self.user(name), **options))

    def assert_told(self, text: str, *secrets: str) -> None:
        lines = "\n".join(self.lines)
        self.assertIn(text, lines)
        for secret in secrets:
            self.assertNotIn(secret, lines)


class ConnectTests(CentrifugeTokenTestCase):
    @inlineCallbacks
    def test_it_needs_no_cookie_and_the_answer_says_how_long_it_lasts(self) -> Any:
        client = yield self.connect((yield self.token(ttl=60, info={"name": "Ann"})))
        self.assertTrue(client.welcome["expires"])
        self.assertIn(client.welcome["ttl"], range(30, 61))
        for name in ("broadcast:x", "user:x", f"group:{GROUP}:x"):
            self.assertEqual((yield client.subscribe(name)), {})
        self.assertEqual((yield client.subscribe("session:x")), 103)
        self.assertEqual((yield client.subscribe("group:others:x")), 103)
        self.assertEqual((yield client.subscribe("broadcast:forbidden")), 103)
        self.redis.command("PUBLISH", "user:ann:x", '"for ann"')
        self.assertEqual((yield client.data()), "for ann")

    @inlineCallbacks
    def test_what_it_says_of_the_user_goes_with_what_they_publish(self) -> Any:
        client = yield self.connect((yield self.token(info={"name": "Ann"})))
        yield client.subscribe("broadcast:x")
        yield client.ask("publish", channel="broadcast:x", data=1)
        push = yield client.push()
        info = push["pub"]["info"]
        self.assertEqual((info["user"], info["conn_info"]), ("ann", {"name": "Ann"}))

    @inlineCallbacks
    def test_it_subscribes_to_its_channels(self) -> Any:
        names = ["broadcast:x", f"group:{GROUP}:x"]
        client = yield self.connect((yield self.token(channels=names)))
        self.assertEqual(set(client.welcome["subs"]), set(names))
        # The token is the right to them, whatever the callback says.
        client = yield self.connect((yield self.token(channels=["broadcast:forbidden"])))
        self.assertEqual(client.welcome["subs"], {"broadcast:forbidden": {}})
        client = yield self.connect((yield self.token(channels=["nonsense"])))
        self.assertEqual(client.welcome, 102)

    @inlineCallbacks
    def test_a_ttl_is_never_0(self) -> Any:
        protocol = self.service.factory.session_server.protocols[1]
        now = time.time()
        self.patch(protocol.tokens, "unix_time", lambda: now + 599.6)
        client = yield self.connect(token(iat=now, exp=now + 600, sub="ann"))
        self.assertEqual((client.welcome["expires"], client.welcome["ttl"]), (True, 1))

    @inlineCallbacks
    def test_one_without_an_end_says_nothing_of_it(self) -> Any:
        override(self, WS4REDIS_ENDLESS_TOKENS=True)
        second = make_service(django_settings.server_config(listen=LISTEN))
        second.startService()
        self.addCleanup(second.stopService)
        yield second.when_ready()
        port = second.ports[0].getHost().port
        client = yield self.connect(token(sub="ann"), port=port)
        self.assertNotIn("expires", client.welcome)
        self.assertEqual((yield client.ask("refresh", token=token(sub="ann"))), {})


class SecurityTests(CentrifugeTokenTestCase):
    @inlineCallbacks
    def test_a_bad_token_beside_a_good_cookie_is_the_end(self) -> Any:
        for claim, text in (
            ("signature", token(OTHER, **times(), sub="bob")),
            ("alg", unsigned(**times(), sub="bob")),
            ("alg", token(header={"alg": "HS512"}, **times(), sub="bob")),
            ("tenant", token(**times(), sub="bob", tenant="acme")),
            ("channel", (yield self.channel_token("broadcast:x", "bob"))),
            ("iat", token(exp=time.time() + 60, sub="bob")),
            ("exp", token(iat=time.time(), sub="bob")),
            ("form", "nonsense"),
        ):
            yield self.assert_ends(3500, "connect", token=text)
            self.assert_told(f"the token's {claim} ", text)

    @inlineCallbacks
    def test_an_expired_one_and_one_of_tomorrow_ask_for_another(self) -> Any:
        for text in (
            token(**times(-1), sub="bob"),
            token(**times(nbf=time.time() + 60), sub="bob"),
            token(**times(iat=time.time() + 60), sub="bob"),
        ):
            client = yield self.connect(text, "bob")
            self.assertEqual(client.welcome, 109)

    @inlineCallbacks
    def test_a_clock_three_seconds_ahead_does_no_harm(self) -> Any:
        client = yield self.connect(token(**times(iat=time.time() + 3), sub="ann"))
        self.assertTrue(client.welcome["expires"])

    @inlineCallbacks
    def test_a_good_one_is_somebody_else_than_the_cookie(self) -> Any:
        client = yield self.connect((yield self.token("ann")), "bob")
        yield client.subscribe("user:x")
        self.redis.command("PUBLISH", "user:bob:x", "1")
        self.redis.command("PUBLISH", "user:ann:x", "2")
        self.assertEqual((yield client.data()), 2)


class ExpiryTests(CentrifugeTokenTestCase):
    @inlineCallbacks
    def test_commands_work_for_25_s_after_the_end(self) -> Any:
        client = yield self.connect((yield self.token(ttl=600)))
        self.clock.advance(600 + 24)
        self.assertEqual((yield client.subscribe("broadcast:x")), {})
        self.clock.advance(1.5)
        yield self.assert_closed_with(3005, client)

    @inlineCallbacks
    def test_a_refresh_prolongs_it(self) -> Any:
        client = yield self.connect((yield self.token(ttl=60)))
        answer = yield client.ask("refresh", token=(yield self.token(ttl=600)))
        self.assertEqual(answer["expires"], True)
        self.assertIn(answer["ttl"], range(500, 601))
        self.clock.advance(100)
        self.assertEqual((yield client.subscribe("broadcast:x")), {})
        self.clock.advance(600)
        yield self.assert_closed_with(3005, client)


class RefreshTests(CentrifugeTokenTestCase):
    @inlineCallbacks
    def test_one_that_cannot_be_taken_is_the_end(self) -> Any:
        for code, text in (
            (3500, token(OTHER, **times(), sub="ann")),
            (3500, unsigned(**times(), sub="ann")),
            (3500, (yield self.token("bob"))),
            (3500, token(**times())),
            (3500, token(**times(), sub="ann", tenant="acme")),
            (3500, (yield self.channel_token("broadcast:x"))),
            (3500, "ws4redis.ticket.x"),
            (3005, token(**times(-1), sub="ann")),
        ):
            client = yield self.connect((yield self.token()))
            yield self.assert_ends(code, "refresh", client, token=text)

    @inlineCallbacks
    def test_what_the_new_one_does_not_give_is_unsubscribed(self) -> Any:
        before = token(
            **times(), sub="ann", groups=["g", "h"], channels=["broadcast:x", "broadcast:y"]
        )
        client = yield self.connect(before)
        for name in ("group:g:x", "group:h:x", "user:x", "broadcast:z"):
            self.assertEqual((yield client.subscribe(name)), {})
        after = token(**times(), sub="ann", groups=["h"], channels=["broadcast:y"])
        self.assertIn("ttl", (yield client.ask("refresh", token=after)))
        ended = []
        for _ in range(2):
            push = yield client.push()
            self.assertEqual(push["unsubscribe"]["code"], 2000)
            ended.append(push["channel"])
        self.assertEqual(sorted(ended), ["broadcast:x", "group:g:x"])
        self.assertEqual((yield client.subscribe("group:g:x")), 103)
        for channel in ("group:h:x", "broadcast:y", "broadcast:z", "user:ann:x"):
            self.redis.command("PUBLISH", channel, f'"{channel}"')
            self.assertEqual((yield client.data()), channel)

    @inlineCallbacks
    def test_a_group_that_it_gives_is_there_from_now_on(self) -> Any:
        client = yield self.connect(token(**times(), sub="ann"))
        self.assertEqual((yield client.subscribe("group:g:x")), 103)
        yield client.ask("refresh", token=token(**times(), sub="ann", groups=["g"]))
        self.assertEqual((yield client.subscribe("group:g:x")), {})

    @inlineCallbacks
    def test_its_new_channels_are_subscribed(self) -> Any:
        client = yield self.connect(token(**times(), sub="ann", channels=["broadcast:x"]))
        self.assertEqual((yield client.subscribe("broadcast:y")), {})
        self.redis.command("PUBLISH", "broadcast:kept", '"too early"')
        after = token(
            **times(), sub="ann", groups=["g"],
            channels=["broadcast:y", "broadcast:kept", "group:g:x", "user:x"],
            subs={"broadcast:told": {"data": {"a": 1}, "info": {"b": 2}}},
        )  # fmt: skip
        self.assertIn("ttl", (yield client.ask("refresh", token=after)))
        self.assertEqual((yield client.push())["unsubscribe"]["code"], 2000)
        begun = {}
        for _ in range(4):
            push = yield client.push()
            begun[push["channel"]] = push["subscribe"]
        position = begun.pop("broadcast:kept")
        self.assertTrue(position.pop("epoch"))
        self.assertEqual(position, {"recoverable": True, "positioned": True})
        self.assertEqual(
            begun, {"group:g:x": {}, "user:x": {}, "broadcast:told": {"data": {"a": 1}}}
        )
        for channel in ("broadcast:y", "broadcast:kept", "group:g:x", "user:ann:x"):
            self.redis.command("PUBLISH", channel, f'"{channel}"')
            self.assertEqual((yield client.data()), channel)
        yield client.ask("publish", channel="broadcast:told", data=1)
        self.assertEqual((yield client.push())["pub"]["info"]["chan_info"], {"b": 2})

    @inlineCallbacks
    def test_the_next_one_takes_them_away_again(self) -> Any:
        client = yield self.connect(token(**times(), sub="ann"))
        for channels, kind in ((["broadcast:forbidden"], "subscribe"), ([], "unsubscribe")) * 2:
            yield client.ask("refresh", token=token(**times(), sub="ann", channels=channels))
            push = yield client.push()
            self.assertEqual(push["channel"], "broadcast:forbidden")
            self.assertIn(kind, push)
        self.redis.command("PUBLISH", "broadcast:forbidden", '"secret"')
        yield self.broker.fence()
        self.assertEqual((yield client.ask("unsubscribe", channel="x")), {})
        self.assertFalse(client.pushes)

    @inlineCallbacks
    def test_a_name_in_it_that_means_nothing_is_an_error_as_with_connect(self) -> Any:
        for code, channels in ((102, ["nonsense"]), (103, ["session:x"])):
            client = yield self.connect(token(**times(), sub="ann"))
            refreshed = token(**times(), sub="ann", channels=["broadcast:x", *channels])
            self.assertEqual((yield client.ask("refresh", token=refreshed)), code)
            self.assertFalse(client.pushes)

    @inlineCallbacks
    def test_a_callback_that_fails_meanwhile_does_no_more_than_that(self) -> Any:
        """The command is answered once, and what comes behind is judged all the same."""
        client = yield self.connect(token(**times(), sub="ann", groups=["g"]))
        for name in ("broadcast:broken", "group:g:x"):
            self.assertEqual((yield client.subscribe(name)), {})
        override(self, WS4REDIS_ALLOWED_CHANNELS=break_down)
        yield client.ask("refresh", token=token(**times(), sub="ann"))
        ended = {}
        for _ in range(2):
            push = yield client.push()
            ended[push["channel"]] = push["unsubscribe"]["code"]
        self.assertEqual(ended, {"broadcast:broken": 2500, "group:g:x": 2000})
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertEqual((yield client.ask("unsubscribe", channel="x")), {})

    @inlineCallbacks
    def test_one_from_before_a_logout_is_the_end(self) -> Any:
        old = yield self.token()
        yield in_thread(lambda: self.browsers["ann"].post("/logout/"))
        yield self.broker.fence()
        client = yield self.connect((yield self.token()))
        yield self.assert_ends(3005, "refresh", client, token=old)


class SubscriptionTokenTests(CentrifugeTokenTestCase):
    @inlineCallbacks
    def test_it_is_the_right_whatever_the_callback_says(self) -> Any:
        client = yield self.connect(name="ann")
        for name in ("broadcast:forbidden", "group:others:x"):
            self.assertEqual((yield client.subscribe(name)), 103)
            text = yield self.channel_token(name, ttl=60, info={"n": 1})
            answer = yield client.subscribe(name, token=text)
            self.assertTrue(answer["expires"])
            self.assertIn(answer["ttl"], range(30, 61))
            self.redis.command("PUBLISH", name, "1")
            self.assertEqual((yield client.data()), 1)

    @inlineCallbacks
    def test_one_that_is_bad_is_refused_on_an_open_channel_too(self) -> Any:
        client = yield self.connect(name="ann")
        x = {"sub": "ann", "channel": "broadcast:x"}
        for code, text in (
            (103, token(OTHER, **times(), **x)),
            (103, unsigned(**times(), **x)),
            (103, token(**times(), sub="ann")),
            (103, token(**times(), **x, tenant="acme")),
            (103, (yield self.token())),
            (109, token(**times(-1), **x)),
        ):
            self.assertEqual((yield client.subscribe("broadcast:x", token=text)), code)
        self.assertEqual((yield client.subscribe("broadcast:x")), {})

    @inlineCallbacks
    def test_for_another_user_or_channel_it_is_the_end(self) -> Any:
        for claim, text in (
            ("sub", (yield self.channel_token("broadcast:x", "bob"))),
            ("sub", token(**times(), channel="broadcast:x")),
            ("channel", (yield self.channel_token("broadcast:y"))),
            ("channel", token(**times(), sub="ann", channel="nonsense")),
        ):
            client = yield self.connect(name="ann")
            yield self.assert_ends(3500, "subscribe", client, channel="broadcast:x", token=text)
            self.assert_told(f"the token's {claim} ", text)
        anonymous = yield self.connect()
        text = yield self.channel_token("broadcast:x")
        yield self.assert_ends(3500, "subscribe", anonymous, channel="broadcast:x", token=text)

    @inlineCallbacks
    def test_nobodys_own_channel_can_be_named(self) -> Any:
        client = yield self.connect(name="ann")
        for name in ("user:x", "session:x"):
            text = token(**times(), sub="ann", channel=name)
            self.assertEqual((yield client.subscribe(name, token=text)), 103)

    @inlineCallbacks
    def test_it_ends_25_s_after_its_time_and_the_connection_stays(self) -> Any:
        client = yield self.connect(name="ann")
        text = yield self.channel_token("broadcast:x", ttl=60)
        yield client.subscribe("broadcast:x", token=text)
        self.clock.advance(86)
        push = yield client.push()
        self.assertEqual((push["channel"], push["unsubscribe"]["code"]), ("broadcast:x", 2501))
        self.assertEqual((yield client.subscribe("broadcast:x")), {})

    @inlineCallbacks
    def test_a_refresh_prolongs_it_and_an_expired_one_prolongs_nothing(self) -> Any:
        client = yield self.connect(name="ann")
        x = {"channel": "broadcast:x"}
        self.assertEqual((yield client.ask("sub_refresh", **x, token="x")), 103)
        yield client.subscribe(**x, token=(yield self.channel_token("broadcast:x", ttl=60)))
        text = yield self.channel_token("broadcast:x", ttl=600)
        answer = yield client.ask("sub_refresh", **x, token=text)
        self.assertTrue(answer["expires"])
        self.clock.advance(200)
        expired = token(**times(-1), **x, sub="ann")
        self.assertEqual((yield client.ask("sub_refresh", **x, token=expired)), 109)
        self.clock.advance(426)
        push = yield client.push()
        self.assertEqual(push["unsubscribe"]["code"], 2501)
        yield client.subscribe(**x, token=(yield self.channel_token("broadcast:x")))
        forged = token(OTHER, **times(), **x, sub="ann")
        yield self.assert_ends(3500, "sub_refresh", client, **x, token=forged)

    @inlineCallbacks
    def test_it_is_void_as_soon_as_its_user_lost_something(self) -> Any:
        client = yield self.connect(name="ann")
        name = f"group:{GROUP}:x"
        text = yield self.channel_token(name)
        yield client.subscribe(name, token=text)
        yield client.subscribe("broadcast:x")
        yield in_thread(lambda: self.user().groups.clear())
        push = yield client.push()
        self.assertEqual((push["channel"], push["unsubscribe"]["code"]), (name, 2000))
        self.assertEqual((yield client.subscribe(name, token=text)), 109)
        self.redis.command("PUBLISH", "broadcast:x", "1")
        self.assertEqual((yield client.data()), 1)

    @inlineCallbacks
    def test_what_it_left_behind_is_forgotten(self) -> Any:
        index = self.service.factory.session_server.revocations._index
        before = index.size
        client = yield self.connect(name="ann")
        text = yield self.channel_token("broadcast:x")
        yield client.subscribe("broadcast:x", token=text)
        yield client.ask("sub_refresh", channel="broadcast:x", token=text)
        self.assertEqual(index.size, before + 2)
        yield client.ask("unsubscribe", channel="broadcast:x")
        self.assertEqual((index.size, len(index._by_token)), (before + 1, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WithoutDjangoTests(ServerTestCase):
    """A server that knows no visitors, and the tokens of some other program."""

    @inlineCallbacks
    def test_a_token_says_who_it_is(self) -> Any:
        config = ServerConfig(
            redis=self.redis.address,
            listen=LISTEN,
            centrifuge_url="/connection/",
            token_secret=(SECRET,),
        )
        service = yield self.start_server(config)
        text = token(**times(), sub="ann", groups=["g"])
        ann = yield open_centrifuge(self.port, connect={"token": text})
        nobody = yield open_centrifuge(self.port)
        for client in (ann, nobody):
            self.addCleanup(self._close, client.websocket)
        for name, codes in {
            "group:g:x": ({}, 103),
            "user:x": ({}, 103),
            "broadcast:x": ({}, {}),
        }.items():
            self.assertEqual(((yield ann.subscribe(name)), (yield nobody.subscribe(name))), codes)
        self.assertEqual((yield ann.ask("publish", channel="broadcast:x", data=1)), 103)
        self.redis.command("PUBLISH", "user:ann:x", "1")
        self.assertEqual((yield ann.data()), 1)
        yield disconnect(config, service.factory.broker, user="ann")
        self.assertEqual((yield ann.closed.addTimeout(TIMEOUT, reactor)), 3005)
        again = yield open_centrifuge(self.port, connect={"token": text})
        self.addCleanup(self._close, again.websocket)
        self.assertEqual(again.welcome, 109)


class TicketTests(CentrifugeTokenTestCase):
    def ticket(self, **options: Any) -> Any:
        def make() -> str:
            request = RequestFactory().post("/ticket/")
            request.user, request.session = self.user(), self.browsers["ann"].session
            return make_ticket(request, **options)

        return in_thread(make)

    @inlineCallbacks
    def test_it_admits_its_owner_once(self) -> Any:
        ticket = yield self.ticket()
        client = yield self.connect(ticket, "bob")
        for name in ("user:x", "session:x"):
            self.assertEqual((yield client.subscribe(name)), {})
        self.redis.command("PUBLISH", "user:ann:x", "1")
        self.assertEqual((yield client.data()), 1)
        again = yield self.connect(ticket, "bob")
        self.assertEqual(again.welcome, 109)
        forged = yield self.connect("ws4redis.ticket.forged", "bob")
        self.assertEqual(forged.welcome, 109)
        self.assertNotIn(ticket, "\n".join(self.lines))

    @inlineCallbacks
    def test_its_facility_and_rights_bound_all_that_the_connection_does(self) -> Any:
        ticket = yield self.ticket(facility="x", rights=["subscribe-user"])
        client = yield self.connect(ticket)
        self.assertEqual((yield client.subscribe("user:x")), {})
        for name in ("user:y", "broadcast:x", "broadcast:y"):
            self.assertEqual((yield client.subscribe(name)), 103)
        self.assertEqual((yield client.ask("publish", channel="user:x", data=1)), 103)

    @inlineCallbacks
    def test_a_logout_ends_it(self) -> Any:
        client = yield self.connect((yield self.ticket()))
        yield in_thread(lambda: self.browsers["ann"].post("/logout/"))
        yield self.assert_closed_with(3503, client)
