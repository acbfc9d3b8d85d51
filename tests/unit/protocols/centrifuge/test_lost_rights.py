"""A client keeps no right that it has lost, however its commands follow each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.support.channels import ChannelsTestCase, John
from tests.support.tokens import SECRET, token
from ws4redis_tx.core.admission import Admission, AnonymousAuthorizer, Identity, by_default_policy
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.protocols.centrifuge.rights import MOST_CHANNELS, MOST_GRANTS, MOST_TOGETHER
from ws4redis_tx.testing import CentrifugeClient, CentrifugeError

RECHECK = 60
STAFF = "group:staff:a"
NOBODY = Identity("the key", "john", (), "7")
"""John, who has left the staff."""


def times() -> dict[str, float]:
    return {"iat": time.time(), "exp": time.time() + 600}


def codes(client: CentrifugeClient, numbers: list[int]) -> list[int]:
    """The code of each answer, 0 for a success."""
    found = [client.answers[number] for number in numbers]
    return [each.code if isinstance(each, CentrifugeError) else 0 for each in found]


class Choosy(John):
    """Has an answer of its own on some facilities."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Callable[[Any], Any]] = {}

    def authorize(self, handshake: Any, rights: Any) -> Any:
        answer = super().authorize(handshake, rights)
        chosen = self.answers.get(handshake.facility)
        return answer if chosen is None else chosen(rights)


class Together(John):
    def authorize_facilities(
        self, handshake: Any, asked: Any, known: Admission | None = None
    ) -> Any:
        return by_default_policy(known or self.authorize(handshake, ()), asked)


class Slow(Together):
    """Takes so many seconds for each facility."""

    seconds = 0.4
    clock: Any = None

    def authorize_facilities(
        self, handshake: Any, asked: Any, known: Admission | None = None
    ) -> Any:
        answers = super().authorize_facilities(handshake, asked, known)
        return deferLater(self.clock, self.seconds * len(asked), lambda: answers)


def denied(rights: Any) -> Any:
    raise Denied(403, "No.")


def fails(rights: Any) -> Any:
    raise ZeroDivisionError


class LostRightsTestCase(ChannelsTestCase):
    def say_to_staff(self) -> None:
        self.broker.publish_elsewhere([STAFF.encode()], b'"secret"')

    def assert_lost(self, client: CentrifugeClient) -> None:
        self.say_to_staff()
        self.assertEqual(client.messages, [])

    def hold_streams(self) -> Callable[[], None]:
        """Let commands that read a history wait. Returns what lets those go on that wait now."""
        stream, waiting = self.broker.stream, list[Any]()

        def hold(*arguments: Any, **options: Any) -> Any:
            waiting.append((Deferred(), arguments, options))
            return waiting[-1][0]

        def go_on() -> None:
            held, waiting[:] = waiting[:], []
            for deferred, arguments, options in held:
                stream(*arguments, **options).chainDeferred(deferred)

        self.patch(self.broker, "stream", hold)
        return go_on


class GrantTests(LostRightsTestCase):
    def test_what_was_just_granted_is_not_forgotten(self) -> None:
        self.use(John(), recheck=RECHECK)
        client = self.connect()
        for number in range(MOST_GRANTS):
            client.publish("user:a" if not number else f"user:{number}", 1)
        client.send_all(
            ("subscribe", {"channel": STAFF}), ("subscribe", {"channel": "broadcast:new"})
        )
        self.assertIn("a", self.state().session.grants)
        self.take_away(facility="a")
        self.assertEqual([each.channel for each in client.pushes], [STAFF])
        self.say_to_staff()
        self.assertEqual(client.messages, [])

    def test_a_further_question_takes_away_what_it_finds_gone(self) -> None:
        john = Choosy()
        self.use(john)
        client = self.connect()
        client.subscribe(STAFF)
        john.identity = NOBODY  # type: ignore[misc]
        client.subscribe("broadcast:a")
        self.assertEqual([(each.channel, each.code) for each in client.pushes], [(STAFF, 2000)])
        self.assert_lost(client)

    def test_of_many_who_lose_a_facility_one_that_leaves_meanwhile_stops_nobody(self) -> None:
        self.use(John())
        clients = [self.connect() for _ in range(450)]
        for client in clients:
            client.subscribe("broadcast:x")
        self.take_away(facility="x")
        waiting = [client for client in clients if not client.pushes]
        self.assertGreater(len(waiting), 200)
        waiting[0].lose_connection()
        self.clock.pump([0.1] * 5)
        self.say(1, facility="x")
        self.assertEqual([client for client in clients if client.messages], [])


class RecheckTests(LostRightsTestCase):
    def test_a_facility_that_fails_keeps_no_other_from_being_judged(self) -> None:
        john = Choosy()
        self.use(john, recheck=RECHECK)
        client = self.connect()
        client.subscribe("broadcast:a")
        client.subscribe("broadcast:b")
        john.answers = {"a": fails, "b": denied}
        self.clock.pump([1.0] * RECHECK)
        self.assertEqual([each.channel for each in client.pushes], ["broadcast:b"])
        self.assertTrue(self.flushLoggedErrors(ZeroDivisionError))

    def test_many_facilities_are_asked_about_in_portions_with_a_limit_each(self) -> None:
        john = Slow()
        john.seconds = 0.1
        self.use(john, recheck=RECHECK)
        john.clock = self.clock
        client = self.connect()
        for number in range(MOST_CHANNELS):
            client.send("subscribe", channel=f"broadcast:{number}")
            self.clock.advance(0.1)
        self.clock.pump([0.5] * 300)
        self.assertTrue(client.connected)
        self.assertEqual(self.flushLoggedErrors(), [])


class FrameTests(LostRightsTestCase):
    def test_those_that_are_too_slow_together_are_asked_about_one_by_one(self) -> None:
        john = Slow()
        self.use(john)
        john.clock = self.clock
        client = self.open()
        names = [f"broadcast:{number}" for number in range(MOST_TOGETHER)]
        numbers = client.send_all(
            ("connect", {}), *[("subscribe", {"channel": name}) for name in names]
        )
        self.clock.pump([0.1] * 200)
        self.assertEqual(set(codes(client, numbers)), {0})

    def test_what_is_known_of_the_visitor_holds_for_their_first_frame(self) -> None:
        john = Together()
        self.use(john, recheck=RECHECK)
        go_on = self.hold_streams()
        client = self.open()
        request = {"channel": "broadcast:kept", "limit": 1}
        client.send_all(("connect", {}), ("subscribe", {"channel": STAFF}), ("history", request))
        john.identity = NOBODY  # type: ignore[misc]
        for _ in range(RECHECK + 1):
            client.send("history", **request)  # something always waits
            self.clock.advance(1)
            go_on()
        self.assertEqual([each.channel for each in client.pushes], [STAFF])
        number = client.send("subscribe", channel=STAFF)
        for _ in range(3):
            go_on()
        self.assertEqual(codes(client, [number]), [103])
        self.assert_lost(client)

    def test_refusals_are_forgotten_with_their_frame(self) -> None:
        self.use(Together())
        go_on = self.hold_streams()
        client = self.connect()
        for round in range(3):
            names = [f"broadcast:{round}/{number}" for number in range(200)]
            publishing = [("publish", {"channel": name, "data": 1}) for name in names]
            client.send_all(*publishing, ("history", {"channel": "broadcast:kept", "limit": 1}))
            self.assertLessEqual(len(self.state().refused), 200)
            go_on()
        self.assertEqual(self.state().refused, {})

    def test_a_failure_is_logged_once_for_a_frame(self) -> None:
        john = Choosy()
        john.answers["a"] = fails
        self.use(john)
        client = self.connect()
        numbers = client.send_all(*[("subscribe", {"channel": "broadcast:a"})] * 1000)
        self.assertEqual(set(codes(client, numbers)), {100})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class RefreshTests(LostRightsTestCase):
    def setUp(self) -> None:
        self.use(AnonymousAuthorizer(), token_secret=SECRET)
        self.old = token(**times(), sub="ann", groups=["staff"])
        self.new = token(**times(), sub="ann", groups=[])

    def test_in_one_frame_with_connect_it_replaces_the_groups_too(self) -> None:
        client = self.open()
        connect, refresh = ("connect", {"token": self.old}), ("refresh", {"token": self.new})
        subscribe = ("subscribe", {"channel": STAFF})
        self.assertEqual(codes(client, client.send_all(connect, refresh, subscribe)), [0, 0, 103])
        client = self.open()
        self.assertEqual(codes(client, client.send_all(connect, subscribe, refresh)), [0, 0, 0])
        self.assert_lost(client)

    def test_after_the_end_of_a_token_commands_work_until_the_grace_is_over(self) -> None:
        client = self.connect(token=self.old)
        tokens = self.state().protocol.tokens
        self.patch(tokens._tokens, "_unix_time", lambda: time.time() + 610)
        client.subscribe(STAFF)
        self.assertEqual(self.connect(token=self.old).error.code, 109)  # type: ignore[union-attr]

    def test_an_error_in_it_leaves_nothing_that_only_the_old_one_gave(self) -> None:
        client = self.connect(token=self.old)
        client.subscribe(STAFF)
        new = token(**times(), sub="ann", groups=[], channels=["nonsense"])
        self.assertEqual(codes(client, [client.send("refresh", token=new)]), [102])
        self.assert_lost(client)


class EndTests(LostRightsTestCase):
    def test_a_name_that_was_asked_for_too_long_is_not_listened_to(self) -> None:
        waiting: list[Deferred[Any]] = []
        self.use(Together(), centrifuge_names=lambda request, name: None)
        (protocol,) = [each for each in self.server.protocols if hasattr(each, "packer")]

        def call(*_: Any) -> Any:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(protocol, "_call", call)
        client = self.connect()
        client.send("subscribe", channel="news")
        waiting.pop().callback("broadcast:news")
        client.send("subscribe", channel="other")
        client.lose_connection()
        waiting.pop().callback("broadcast:news")
        self.assert_nothing_left()

    def test_an_open_client_of_a_full_server_has_all_its_rights(self) -> None:
        self.use(John(), max_connections=1)
        client = self.connect()
        self.assertTrue(client.connected)
        client.subscribe("broadcast:a")

    def test_nothing_comes_before_the_answer_to_connect(self) -> None:
        self.use(John())
        go_on = self.hold_streams()
        client = self.open()
        client.send("connect", subs={"broadcast:a": {}, "broadcast:kept": {}})
        self.say(7, facility="a")
        self.assertEqual((client.websocket.messages, client.messages), ([], []))
        go_on()
        self.assertEqual((client.connected, client.messages), (True, [7]))
