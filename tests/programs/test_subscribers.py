"""``examples/subscribers.py``: each example through the real protocol, in memory and on sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, execute, inlineCallbacks
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.brokers import share_commands
from tests.support.django import cookies_of, in_thread, log_in, set_up_django
from tests.support.servers import LISTEN, ServerTestCase
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.service import make_service
from ws4redis_tx.testing import MemoryBroker, MemoryClient, connect, make_memory_factory

set_up_django()

from django.contrib.auth.models import User
from django.test import override_settings

from examples import subscribers
from examples.subscribers import (
    FilteringSubscriber,
    NotAllowed,
    SessionGroupsSubscriber,
    TeamPublisher,
    TeamSubscriber,
    WelcomingSubscriber,
)
from ws4redis_tx.config import django_settings


class AllowAll:
    """Treats everybody as John, and grants every requested right."""

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        john = Identity("abc", "john", ("chatters",))
        return Admission(john, tuple(rights), Request(handshake.path_info, john))


class Request(PlainRequest):
    """Django's would have a session."""


class Teams(TeamSubscriber):
    """John is in two teams."""

    def teams_of(self, request: Any) -> list[str]:
        return ["red", "blue"] if request.ws4redis_identity.username == "john" else []


class Polite(FilteringSubscriber):
    """Knows one bad word, two that are worse, and one that breaks it."""

    def check(self, text: str) -> str | None:
        if "spam" in text:
            return None
        if "attack" in text:
            raise NotAllowed
        if text == "broken":
            raise ValueError("cannot be checked")
        return text.replace("darn", "****")


class Rows(WelcomingSubscriber):
    """Two rows for John."""

    def latest(self, request: Any) -> list[str | bytes]:
        name = request.ws4redis_identity.username
        return [f"row 1 of {name}", b"\xff\xfe"]


class Rooms(SessionGroupsSubscriber):
    """The application's own groups are rooms."""

    def is_own(self, name: str) -> bool:
        return name.startswith("room-")


class AsSpelledBefore(Rows):
    """Overrides the replay under the method's old name."""

    def send_persited_messages(self, websocket: Any) -> None:
        websocket.send("mine alone")


class Threads:
    """Stands in for ``deferToThread``: the work runs when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def defer(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        waiting: Deferred[Any] = Deferred()
        self.waiting.append((waiting, lambda: function(*arguments)))
        return waiting

    def run_one(self) -> None:
        waiting, work = self.waiting.pop(0)
        execute(work).chainDeferred(waiting)

    def run_all(self) -> None:
        while self.waiting:
            self.run_one()


class MemoryTests(SynchronousTestCase):
    """In memory: nothing happens unless the test causes it."""

    subscriber: Any

    def setUp(self) -> None:
        self.threads = Threads()
        self.patch(subscribers, "deferToThread", self.threads.defer)
        self.use()

    def use(self, authorizer: Any = None, **config: Any) -> None:
        self.broker = MemoryBroker()
        self.clock = Clock()
        self.factory = make_memory_factory(
            ServerConfig(**config),
            broker=self.broker,
            authorizer=authorizer or AllowAll(),
            subscriber=self.subscriber,
            clock=self.clock,
        )

    def start(self, flags: str, facility: str = "news") -> MemoryClient:
        return connect(self.factory, f"ws://localhost/ws/{facility}?{flags}")

    def connect(self, flags: str) -> MemoryClient:
        client = self.start(flags)
        self.threads.run_all()
        self.assertTrue(client.open)
        return client

    def channels(self) -> list[bytes]:
        return sorted(self.broker.hub.channels)


class TeamTests(MemoryTests):
    subscriber = Teams

    def test_who_subscribes_to_the_team_hears_all_own_teams_and_no_other(self) -> None:
        client = self.connect("subscribe-team")
        for team in ("red", "green", "blue"):
            self.broker.publish([f"team:{team}:news".encode()], team.encode(), expire=0)
        self.broker.publish([b"team:red:other"], b"another facility", expire=0)
        self.assertEqual(client.messages, ["red", "blue"])

    def test_the_handshake_waits_for_the_teams(self) -> None:
        client = self.start("subscribe-team")
        self.assertFalse(client.open)
        self.assertIsNone(client.refused)
        self.threads.run_one()
        self.assertTrue(client.open)

    def test_the_other_audiences_are_there_as_before_and_wait_for_nothing(self) -> None:
        client = self.start("subscribe-broadcast&subscribe-group&publish-user")
        self.assertTrue(client.open)
        self.assertEqual(self.channels(), [b"broadcast:news", b"group:chatters:news"])
        client.send("mine")
        self.assertEqual(self.broker.persisted, {b"user:john:news": b"mine"})

    def test_a_client_publishes_to_its_teams_when_that_is_granted(self) -> None:
        listening = self.connect("subscribe-team")
        publishing = self.connect("publish-team&publish-broadcast")
        publishing.send("hello")
        self.assertEqual(listening.messages, ["hello", "hello"])
        self.assertEqual(
            set(self.broker.persisted), {b"team:red:news", b"team:blue:news", b"broadcast:news"}
        )
        self.assertEqual(publishing.messages, [])

    def test_what_is_persisted_for_a_team_is_replayed(self) -> None:
        self.broker.publish([b"team:blue:news"], b"before", expire=60)
        self.assertEqual(self.connect("subscribe-team").messages, ["before"])

    def test_the_prefix_stands_before_the_team(self) -> None:
        self.use(prefix="site")
        self.connect("subscribe-team")
        self.assertEqual(self.channels(), [b"site:team:blue:news", b"site:team:red:news"])

    def test_who_is_in_no_team_hears_none(self) -> None:
        class Nobody:
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                nobody = Identity()
                return Admission(nobody, tuple(rights), PlainRequest(handshake.path_info, nobody))

        self.use(Nobody())
        self.connect("subscribe-team&subscribe-broadcast")
        self.assertEqual(self.channels(), [b"broadcast:news"])

    def test_a_facility_that_could_be_mistaken_for_another_is_refused(self) -> None:
        self.assertEqual(self.start("subscribe-team", "a:b").refused, 400)

    def test_a_lookup_that_fails_refuses_the_handshake_and_leaves_nothing(self) -> None:
        client = self.start("subscribe-team&subscribe-broadcast")
        waiting, _ = self.threads.waiting.pop()
        waiting.errback(ValueError("no database"))
        self.assertEqual(client.refused, 500)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.channels(), [])

    def test_release_frees_what_it_added(self) -> None:
        client = self.connect("subscribe-team&subscribe-broadcast&publish-team")
        self.assertEqual(len(self.channels()), 3)
        client.lose_connection()
        self.assertEqual(self.channels(), [])

    def test_who_left_before_the_teams_were_known_subscribes_to_nothing(self) -> None:
        client = self.start("subscribe-team&subscribe-broadcast")
        client.lose_connection()
        self.threads.run_all()
        self.assertEqual(self.channels(), [])

    def test_a_lookup_that_outlasts_the_handshake_subscribes_to_nothing(self) -> None:
        client = self.start("subscribe-team&subscribe-broadcast")
        self.clock.advance(5)
        self.assertEqual(client.refused, 503)
        self.threads.run_all()
        self.assertEqual(self.channels(), [])

    def test_without_a_setting_of_ones_own_publishing_to_the_team_is_refused(self) -> None:
        self.factory = make_memory_factory(broker=self.broker, subscriber=Teams)
        self.assertEqual(self.start("publish-team").refused, 403)

    def test_the_publisher_takes_a_list_of_teams(self) -> None:
        with self.assertRaisesRegex(TypeError, r"teams=\['red'\]"):
            TeamPublisher(facility="news", teams="red")
        with self.assertRaisesRegex(ValueError, "':'"):
            TeamPublisher(facility="a:b", teams=["red"])


class SessionGroupsTests(MemoryTests):
    subscriber = Rooms

    def use(self, authorizer: Any = None, session: Any = None, **config: Any) -> None:
        class WithSession(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                admission = super().authorize(handshake, rights)
                if session is not None:
                    admission.request.session = session  # type: ignore[attr-defined]
                return admission

        super().use(authorizer or WithSession(), **config)

    def test_only_the_applications_own_are_taken_from_the_session(self) -> None:
        for session, expected in (
            (
                {"ws4redis:memberof": ["room-1", "staff"]},
                [b"group:chatters:news", b"group:room-1:news"],
            ),
            ({"ws4redis:memberof": []}, [b"group:chatters:news"]),
            ({}, [b"group:chatters:news"]),
            (None, [b"group:chatters:news"]),
        ):
            self.use(session=session)
            self.connect("subscribe-group")
            self.assertEqual(self.channels(), expected)

    def test_without_the_right_none_is(self) -> None:
        self.use(session={"ws4redis:memberof": ["room-1"]})
        self.connect("subscribe-broadcast&subscribe-user")
        self.assertEqual(self.channels(), [b"broadcast:news", b"user:john:news"])


class FilterTests(MemoryTests):
    subscriber = Polite

    def test_messages_are_dropped_altered_or_let_through(self) -> None:
        listening = self.connect("subscribe-broadcast")
        client = self.connect("publish-broadcast")
        for message in ("hello", "buy spam", "darn!", b"\xff", "x" * 501, "", "x" * 500):
            client.send(message)
        self.threads.run_all()
        self.assertEqual(listening.messages, ["hello", "****!", "", "x" * 500])
        self.assertEqual(self.broker.persisted, {b"broadcast:news": b"x" * 500})

    def test_messages_keep_their_order_as_one_is_checked_after_the_other(self) -> None:
        listening = self.connect("subscribe-broadcast")
        client = self.connect("publish-broadcast")
        for message in ("1", b"\xff", "2", "3"):
            client.send(message)
        for expected in (["1"], ["1", "2"], ["1", "2", "3"]):
            self.assertEqual(len(self.threads.waiting), 1)
            self.threads.run_one()
            self.assertEqual(listening.messages, expected)

    def test_the_own_message_comes_back_with_echo_alone(self) -> None:
        for echo, expected in (("", []), ("&echo", ["****"])):
            client = self.connect("publish-user&subscribe-user" + echo)
            client.messages.clear()
            client.send("darn")
            self.threads.run_all()
            self.assertEqual(client.messages, expected)

    def test_the_clients_close_is_answered_after_its_messages_were_checked(self) -> None:
        listening = self.connect("subscribe-broadcast")
        client = self.connect("publish-broadcast")
        client.send("last words")
        client.close()
        self.assertIsNone(client.close_code)
        self.threads.run_all()
        self.assertEqual(client.close_code, 1000)
        self.assertEqual(listening.messages, ["last words"])

    def test_a_check_that_fails_closes_the_client_with_1011_and_publishes_nothing(self) -> None:
        listening = self.connect("subscribe-broadcast")
        client = self.connect("publish-broadcast")
        client.send("broken")
        self.threads.run_all()
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(listening.messages, [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_is_not_allowed_closes_the_client_with_1008(self) -> None:
        listening = self.connect("subscribe-broadcast")
        client = self.connect("publish-broadcast&subscribe-user")
        for message in ("hello", "attack"):
            client.send(message)
        self.threads.run_all()
        self.assertEqual(client.close_code, 1008)
        self.assertEqual(listening.messages, ["hello"])
        self.assertEqual(self.flushLoggedErrors(), [])
        client.lose_connection()
        self.assertEqual(self.channels(), [b"broadcast:news"])

    def test_nothing_is_published_of_what_a_client_sent_after_it_was_closed(self) -> None:
        listening = self.connect("subscribe-broadcast")
        for last, code in (("attack", 1008), ("broken", 1011)):
            client = self.connect("publish-broadcast")
            for message in (last, "waits for its turn"):
                client.send(message)
            self.threads.run_all()
            client.send("was under way")
            self.threads.run_all()
            self.assertEqual((client.close_code, listening.messages), (code, []))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_what_was_sent_before_the_client_vanished_is_published_and_nothing_is_left(
        self,
    ) -> None:
        client = self.connect("publish-broadcast&subscribe-broadcast")
        client.send("last words")
        client.lose_connection()
        self.threads.run_all()
        self.assertEqual(self.broker.persisted, {b"broadcast:news": b"last words"})
        self.assertEqual(self.channels(), [])


class WelcomeTests(MemoryTests):
    subscriber = Rows

    FIRST = ["Welcome!", "row 1 of john", b"\xff\xfe"]

    def test_the_applications_own_messages_come_before_the_persisted_ones(self) -> None:
        self.broker.publish([b"broadcast:news"], b"persisted", expire=60)
        client = self.connect("subscribe-broadcast")
        self.broker.publish([b"broadcast:news"], b"live", expire=60)
        self.assertEqual(client.messages, [*self.FIRST, "persisted", "live"])

    def test_live_messages_wait_for_the_rows(self) -> None:
        self.broker.publish([b"broadcast:news"], b"persisted", expire=60)
        client = self.start("subscribe-broadcast")
        self.assertTrue(client.open)
        self.broker.publish([b"broadcast:news"], b"live", expire=0)
        self.assertEqual(client.messages, [])
        self.threads.run_all()
        self.assertEqual(client.messages, [*self.FIRST, "persisted", "live"])

    def test_a_message_published_meanwhile_comes_once(self) -> None:
        client = self.start("subscribe-broadcast")
        self.broker.publish([b"broadcast:news"], b"live", expire=60)
        self.threads.run_all()
        self.assertEqual(client.messages, [*self.FIRST, "live"])

    def test_when_redis_was_lost_meanwhile_it_starts_again_and_everything_comes_once(self) -> None:
        self.broker.publish([b"broadcast:news"], b"persisted", expire=60)
        client = self.start("subscribe-broadcast")
        self.broker.generation += 1
        self.threads.run_one()
        self.assertEqual(len(self.threads.waiting), 1)
        self.assertEqual(client.messages, [])
        self.threads.run_all()
        self.assertEqual(client.messages, [*self.FIRST, "persisted"])

    def test_an_override_under_the_old_spelling_counts(self) -> None:
        self.broker.publish([b"broadcast:news"], b"persisted", expire=60)
        self.factory = make_memory_factory(
            broker=self.broker, authorizer=AllowAll(), subscriber=AsSpelledBefore
        )
        self.assertEqual(self.connect("subscribe-broadcast").messages, ["mine alone"])

    def test_rows_that_cannot_be_read_close_the_client_with_1011(self) -> None:
        client = self.start("subscribe-broadcast")
        waiting, _ = self.threads.waiting.pop()
        waiting.errback(ValueError("no database"))
        self.assertEqual(client.close_code, 1011)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_who_left_before_the_rows_were_read_leaves_nothing(self) -> None:
        client = self.start("subscribe-broadcast")
        client.lose_connection()
        self.assertEqual(self.channels(), [])
        self.threads.run_all()
        self.assertEqual(client.messages, [])
        self.assertEqual(self.channels(), [])


class FromTheDatabase(WelcomingSubscriber):
    """Real queries, in a real thread."""

    def latest(self, request: Any) -> list[str]:
        return list(User.objects.order_by("username").values_list("username", flat=True))


class GroupTeams(TeamSubscriber):
    """A team for each of the user's groups, from the database."""

    def teams_of(self, request: Any) -> list[str]:
        return list(request.user.groups.values_list("name", flat=True))


class ServerTests(ServerTestCase):
    """Over sockets, with real threads and a real Redis."""

    @inlineCallbacks
    def serve(self, subscriber: Any) -> Any:
        config = ServerConfig(redis=self.redis.address, listen=LISTEN, subscriber=subscriber)
        service = make_service(config, authorizer=AllowAll())
        self.launch(service)
        yield service.when_ready()
        return service

    @inlineCallbacks
    def test_a_team_hears_its_publisher_and_its_members(self) -> Any:
        service = yield self.serve(Teams)
        share_commands(self, service.factory.broker.commands)
        client = yield self.open("news?subscribe-team")
        self.assertEqual(self.redis.channels(), [b"team:blue:news", b"team:red:news"])
        count = yield in_thread(
            lambda: TeamPublisher(facility="news", teams=["red", "green"]).publish_message("hi")
        )
        self.assertEqual(count, 1)
        self.assertEqual((yield client.next()), "hi")
        member = yield self.open("news?publish-team")
        member.sendMessage(b"from red and blue")
        self.assertEqual((yield client.take(2)), ["from red and blue"] * 2)
        self.assertEqual(self.redis.command("GET", "team:blue:news"), b"from red and blue")
        client.sendClose(1000)
        yield client.closed
        # Commands go out in order: this subscription is listed only after the others were left.
        yield self.open("news?subscribe-broadcast")
        self.assertEqual(self.redis.channels(), [b"broadcast:news"])

    @inlineCallbacks
    def test_a_subscriber_that_asks_nothing_of_django_is_an_option_of_the_server(self) -> Any:
        yield self.start_server(subscriber=Teams)
        yield self.open("news?subscribe-team&subscribe-broadcast")
        self.assertEqual(self.redis.channels(), [b"broadcast:news"])

    @inlineCallbacks
    def test_the_setting_names_it_and_it_asks_the_database_about_djangos_user(self) -> Any:
        settings = override_settings(
            WS4REDIS_SUBSCRIBER=f"{__name__}.GroupTeams",
            WS4REDIS_CONNECTION=str(self.redis.address),
        )
        settings.enable()
        self.addCleanup(settings.disable)
        yield self.start_server(django_settings.server_config(listen=LISTEN))
        john = cookies_of((yield log_in("john")))
        client = yield self.open("news?subscribe-team&subscribe-broadcast", cookies=john)
        self.assertEqual(self.redis.channels(), [b"broadcast:news", b"team:chatters:news"])
        self.redis.command("PUBLISH", "team:chatters:news", "hi")
        self.assertEqual((yield client.next()), "hi")

    @inlineCallbacks
    def test_groups_that_the_application_keeps_in_the_session_are_heard_besides_djangos(
        self,
    ) -> Any:
        settings = override_settings(
            WS4REDIS_SUBSCRIBER=Rooms,
            WS4REDIS_CONNECTION=str(self.redis.address),
            WS4REDIS_ALLOWED_CHANNELS="ws4redis_tx.policies.allow_all",
        )
        settings.enable()
        self.addCleanup(settings.disable)
        yield self.start_server(django_settings.server_config(listen=LISTEN))
        browser = yield log_in("john")

        def write(*names: str) -> None:
            session = browser.session
            session["ws4redis:memberof"] = names
            session.save()

        # "staff" is one of Django's, which the user has left since the login.
        yield in_thread(write, "room-5", "staff", "chatters")
        client = yield self.open(
            "news?subscribe-group&publish-group&echo", cookies=cookies_of(browser)
        )
        self.assertEqual(self.redis.channels(), [b"group:chatters:news", b"group:room-5:news"])
        self.redis.command("PUBLISH", "group:room-5:news", "to the room")
        self.assertEqual((yield client.next()), "to the room")
        client.sendMessage(b"from the room")
        self.assertEqual((yield client.take(2)), ["from the room"] * 2)
        yield in_thread(write)
        yield self.open("other?subscribe-group", cookies=cookies_of(browser))
        self.assertIn(b"group:chatters:other", self.redis.channels())
        self.assertNotIn(b"group:room-5:other", self.redis.channels())

    @inlineCallbacks
    def test_a_hundred_messages_pass_the_filter_in_their_order(self) -> Any:
        yield self.serve(Polite)
        client = yield self.open("news?subscribe-user&publish-user&echo")
        for i in range(100):
            client.sendMessage(b"spam" if i % 10 == 5 else b"darn %d" % i)
        received = yield client.take(90)
        self.assertEqual(received, [f"**** {i}" for i in range(100) if i % 10 != 5])

    @inlineCallbacks
    def test_rows_come_from_the_database_then_what_is_persisted_then_what_is_live(self) -> Any:
        yield self.serve(FromTheDatabase)
        self.redis.command("SETEX", "broadcast:news", 60, "persisted")
        client = yield self.open("news?subscribe-broadcast")
        self.redis.command("PUBLISH", "broadcast:news", "live")
        names = yield in_thread(
            lambda: list(User.objects.order_by("username").values_list("username", flat=True))
        )
        self.assertIn("john", names)
        self.assertEqual(
            (yield client.take(len(names) + 3)), ["Welcome!", *names, "persisted", "live"]
        )
