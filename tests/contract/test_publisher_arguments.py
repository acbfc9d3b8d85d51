"""The contract, section 4: what a publisher's arguments may be, and what each mistake is told."""

from __future__ import annotations

import asyncio
import enum
import uuid
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.django import in_thread, set_up_django
from ws4redis_tx.core.errors import AudienceError
from ws4redis_tx.testing import CapturedMessages, MemoryBroker, capture_messages

set_up_django()

from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.db import SessionStore
from django.test import RequestFactory
from django.utils.functional import SimpleLazyObject

from ws4redis_tx import disconnect
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.publisher import SELF, RedisMessage, RedisPublisher
from ws4redis_tx.service import Publisher
from ws4redis_tx.tickets import make_ticket

KEY = "abcdefghijklmnopqrstuvwxyz012345"
NARROW = ("users", "groups", "sessions")
NOBODY: tuple[Any, ...] = ([], (), set(), {}, iter([]), None, False)


class Facility(str, enum.Enum):  # noqa: UP042 (unlike that of a StrEnum, its format is its name)
    NEWS = "news"


class TeamPublisher(RedisPublisher):
    """Takes another audience, as the documented example does."""

    def _get_message_channels(
        self, request: Any = None, facility: str = "", teams: Any = (), **audiences: Any
    ) -> list[str]:
        channels = super()._get_message_channels(request=request, facility=facility, **audiences)
        return channels + [f"{self.get_prefix()}team:{team}:{facility}" for team in teams]


def request_of(user: Any = None, session_key: str | None = None) -> Any:
    request: Any = RequestFactory().get("/")
    request.user = user or AnonymousUser()
    request.session = SessionStore(session_key)
    return request


class ArgumentTests(SynchronousTestCase):
    published: CapturedMessages

    def setUp(self) -> None:
        self.published = self.enterContext(capture_messages())

    def publish(self, message: Any = "hi", expire: Any = None, **arguments: Any) -> int:
        arguments.setdefault("facility", "f")
        return RedisPublisher(**arguments).publish_message(message, expire)

    def channels(self, **arguments: Any) -> set[str]:
        return RedisPublisher(**{"facility": "f", **arguments})._publishers

    def assert_told(
        self, kind: type[Exception], *words: str, call: Callable[..., object], **arguments: Any
    ) -> str:
        """Check that the call raises ``kind``, with a text that contains the words."""
        text = str(self.assertRaises(kind, call, **arguments))
        for word in words:
            self.assertIn(word, text)
        return text


class AudienceTests(ArgumentTests):
    def test_self_without_a_request_is_a_value_error_that_names_the_request(self) -> None:
        for argument in NARROW:
            for names in ([SELF], (SELF,), ["a", SELF], {SELF}):
                self.assert_told(
                    ValueError,
                    argument, "SELF", "request=request",
                    call=RedisPublisher, facility="f", **{argument: names},
                )  # fmt: skip
        self.assertEqual(self.channels(users=[SELF], request=request_of()), set())

    def test_it_is_one_for_the_publisher_of_the_reactor_thread_too(self) -> None:
        def make() -> Publisher:
            return Publisher(ServerConfig(), MemoryBroker(), facility="f", users=[SELF])

        self.assert_told(ValueError, "request=request", call=make)

    def test_users_and_groups_themselves_count_as_their_names(self) -> None:
        john = User.objects.get(username="john")
        chatters = Group.objects.get(name="chatters")
        session = SessionStore(KEY)
        for names in ([john], {john}, User.objects.filter(username="john"), [john, "john"]):
            self.assertEqual(self.channels(users=names), {"user:john:f"})
        for names in ([chatters], john.groups.all(), iter([chatters])):
            self.assertEqual(self.channels(groups=names), {"group:chatters:f"})
        self.assertEqual(self.channels(sessions=[session]), {f"session:{KEY}:f"})
        lazy: Any = SimpleLazyObject(lambda: john)
        self.assertEqual(self.channels(users=[lazy]), {"user:john:f"})

    def test_the_testing_kit_compares_with_users_and_groups_themselves(self) -> None:
        john, chatters = User.objects.get(username="john"), Group.objects.get(name="chatters")
        self.publish(users=["john"], groups=["chatters"])
        self.published.assert_published(users=[john], groups=[chatters])
        self.published.assert_not_published(users=[john])

    def test_visitors_without_a_name_are_nobody_as_with_self(self) -> None:
        for names in ({"users": [AnonymousUser()]}, {"sessions": [SessionStore()]}):
            self.assertEqual(self.publish(**names), 0)
        self.assertEqual(self.publish(users=[""], sessions=[""]), 0)
        self.assertEqual(self.published.messages, [])

    def test_a_user_is_no_group_and_a_group_no_user(self) -> None:
        john, chatters = User.objects.get(username="john"), Group.objects.get(name="chatters")
        for arguments in ({"users": [chatters]}, {"groups": [john]}, {"sessions": [john]}):
            [argument] = arguments
            self.assert_told(
                AudienceError, argument, call=RedisPublisher, facility="f", **arguments
            )

    def test_one_user_for_a_list_is_told_to_write_a_list(self) -> None:
        john = User.objects.get(username="john")
        for wrong in (john, SELF, "john", b"john", True, 5):
            self.assert_told(
                AudienceError, "users", "users=[", call=RedisPublisher, facility="f", users=wrong
            )

    def test_the_key_of_a_signed_cookie_is_a_credential_and_never_goes_to_redis(self) -> None:
        request = request_of()
        request.session = signed_cookies.SessionStore("credential")
        self.assertEqual(request.session.session_key, "credential")
        for names in ([SELF], [request.session]):
            self.assertEqual(self.publish(sessions=names, request=request), 0)
        self.assertIsNone(RedisPublisher().fetch_message(request, "f", "session"))

    def test_no_error_shows_a_session_key(self) -> None:
        for wrong in ("s3cret", b"s3cret", [b"s3cret"]):
            text = self.assert_told(
                AudienceError, "sessions", call=RedisPublisher, facility="f", sessions=wrong
            )
            self.assertNotIn("s3cret", text)

    def test_an_audience_that_was_named_and_is_empty_publishes_to_nobody(self) -> None:
        for argument in NARROW:
            for names in NOBODY:
                self.assertEqual(self.publish(**{argument: names}), 0, (argument, names))
        self.assertEqual(self.publish(users=None, groups=False, sessions=[], broadcast=False), 0)
        self.assertEqual(self.publish(users=User.objects.none()), 0)
        self.assertEqual(self.published.messages, [])

    def test_a_broadcast_that_was_computed_to_be_none_is_an_empty_audience_too(self) -> None:
        for nobody in (False, None):
            self.assertEqual(self.publish(broadcast=nobody), 0)
        for wrong in ("false", "", 1, 0, ["john"]):
            self.assert_told(
                AudienceError,
                "broadcast", "True",
                call=RedisPublisher, facility="f", broadcast=wrong,
            )  # fmt: skip

    def test_an_empty_audience_is_nobody_for_all_publishers(self) -> None:
        broker = MemoryBroker()
        publisher = Publisher(ServerConfig(), broker, facility="f", users=[])
        self.assertEqual(self.successResultOf(publisher.publish_message("hi")), 0)
        self.assertEqual(TeamPublisher(facility="f", teams=[]).publish_message("hi"), 0)
        empty = RedisPublisher(facility="f", groups=())
        self.assertEqual(empty.pipeline_publish_message("hi"), 0)
        self.assertEqual(asyncio.run(empty.apublish_message("hi")), 0)

    def test_no_audience_named_at_all_raises_when_it_publishes(self) -> None:
        for publisher in (
            RedisPublisher(facility="f"),
            RedisPublisher(facility="f", request=request_of()),
            TeamPublisher(facility="f"),
            Publisher(ServerConfig(), MemoryBroker(), facility="f"),
        ):
            self.assert_told(
                AudienceError, "broadcast=True", call=publisher.publish_message, message="hi"
            )
        RedisPublisher()  # to fetch messages

    def test_whom_a_fetch_without_a_request_cannot_concern_it_does_not_look_for(self) -> None:
        self.publish(broadcast=True)
        fetch = RedisPublisher().fetch_message
        self.assertEqual(fetch(None, "f"), b"hi")
        for audience in ("session", "user", "group"):
            self.assertIsNone(fetch(None, "f", audience))


class KeywordTests(ArgumentTests):
    def test_an_unknown_keyword_names_the_publisher_and_the_nearest_argument(self) -> None:
        for keyword, nearest in (
            ("user", "users"), ("faciltiy", "facility"), ("broadcats", "broadcast"),
            ("group", "groups"), ("session_", "sessions"), ("a_request", "request"),
        ):  # fmt: skip
            arguments = {"facility": "f", "broadcast": True, keyword: "x"}
            self.assert_told(
                TypeError,
                "RedisPublisher", repr(keyword), f"Did you mean {nearest!r}?",
                call=RedisPublisher, **arguments,
            )  # fmt: skip

    def test_one_that_is_near_to_none_is_told_of_all(self) -> None:
        text = self.assert_told(
            TypeError, "RedisPublisher", "'connection'", call=RedisPublisher, connection=None
        )
        self.assertNotIn("Did you mean", text)
        for each in ("request", "facility", "broadcast", "groups", "users", "sessions"):
            self.assertIn(each, text)

    def test_a_subclass_is_named_with_the_arguments_that_it_adds(self) -> None:
        self.assert_told(
            TypeError,
            "TeamPublisher", "'taems'", "Did you mean 'teams'?",
            call=TeamPublisher, facility="f", taems=["red"],
        )  # fmt: skip
        self.assertEqual(
            TeamPublisher(facility="f", teams=["red"], users=["a"])._publishers,
            {"team:red:f", "user:a:f"},
        )


class FacilityTests(ArgumentTests):
    def test_a_number_or_a_uuid_counts_as_its_text_as_in_a_url(self) -> None:
        number = uuid.UUID("12345678-1234-5678-1234-567812345678")
        for facility, text in (
            (5, "5"), (0, "0"), (number, str(number)), (Facility.NEWS, "news"), ("", ""),
        ):  # fmt: skip
            self.assertEqual(
                self.channels(facility=facility, broadcast=True, users=["a"]),
                {f"broadcast:{text}", f"user:a:{text}"},
            )
            self.publish(facility=facility, broadcast=True)
            self.assertEqual(RedisPublisher().fetch_message(request_of(), facility), b"hi")
            self.published.assert_published("hi", facility=facility)

    def test_it_does_so_wherever_a_facility_is_named(self) -> None:
        self.assertEqual(disconnect(facility=5), 1)
        john = User.objects.get(username="john")
        self.assertTrue(make_ticket(request_of(john), facility=5))

    def test_anything_else_is_a_type_error(self) -> None:
        for facility in (b"f", True, 1.5, object(), ["f"], User(username="f")):
            for call in (
                lambda facility=facility: RedisPublisher(facility=facility, broadcast=True),
                lambda facility=facility: RedisPublisher().fetch_message(request_of(), facility),
                lambda facility=facility: disconnect(facility=facility),
            ):
                self.assert_told(TypeError, "facility", type(facility).__name__, call=call)

    def test_none_is_a_facility_that_was_not_named_whatever_the_audience(self) -> None:
        for audience in ({"broadcast": True}, {"users": []}, {"groups": None}):
            self.assert_told(ValueError, "facility", call=RedisPublisher, **audience)
        self.assert_told(
            TypeError, "facility", call=RedisPublisher().fetch_message,
            request=request_of(), facility=None,
        )  # fmt: skip

    def test_what_the_server_would_refuse_is_a_value_error_for_a_fetch_too(self) -> None:
        for facility in ("x" * 256, "a\nb", "\ud800"):
            for call in (
                lambda facility=facility: self.publish(facility=facility, users=[]),
                lambda facility=facility: RedisPublisher().fetch_message(request_of(), facility),
            ):
                self.assert_told(ValueError, "facility", call=call)

    def test_a_fetch_never_takes_one_group_for_another(self) -> None:
        """``group:a:b:c`` is both group ``a`` with ``b:c`` and group ``a:b`` with ``c``."""
        self.publish("for a:b", facility="c", users=["a:b"])
        self.publish("for all", facility="b:c", broadcast=True)
        request = request_of(User(username="a"))
        fetch = RedisPublisher().fetch_message
        self.assertEqual(fetch(request, "b:c"), b"for all")
        self.assert_told(ValueError, "':'", call=lambda: fetch(request, "b:c", "user"))

    def test_names_that_are_a_str_of_another_class_are_their_text(self) -> None:
        self.assertEqual(self.channels(groups=[Facility.NEWS]), {"group:news:f"})


class MessageTests(ArgumentTests):
    def test_data_is_told_to_become_json(self) -> None:
        for data in ({"a": 1}, ["a"], ("a",), 5, 1.5, None, True):
            for call in (
                lambda data=data: self.publish(data, broadcast=True),
                lambda data=data: RedisMessage(data),
            ):
                self.assert_told(
                    TypeError, type(data).__name__, "json.dumps", "str or bytes", call=call
                )

    def test_what_has_yet_to_arrive_is_told_to_be_awaited(self) -> None:
        async def message() -> str:
            return "hi"

        coming = message()
        self.addCleanup(coming.close)
        self.assert_told(
            TypeError, "coroutine", "await", call=lambda: self.publish(coming, broadcast=True)
        )

    def test_an_expiry_below_zero_persists_nothing(self) -> None:
        for expire in (0, -1, -3600, False):
            self.publish(expire=expire, broadcast=True)
            self.assertEqual(self.published.messages[-1].expire, 0)
            self.assertIsNone(RedisPublisher().fetch_message(None, "f"))
        for wrong in (True, 1.5, "60", b""):
            self.assert_told(
                ValueError, "expire", call=lambda e=wrong: self.publish("hi", e, broadcast=True)
            )


class EventLoopTests(TestCase):
    """Names that only the database knows, on an event loop, where Django refuses queries."""

    timeout = 60

    @inlineCallbacks
    def run_view(self, **arguments: Any) -> Any:
        """Fire with the channels on which an async view has published."""

        async def view() -> set[str]:
            publisher = RedisPublisher(facility="f", **arguments)
            await publisher.apublish_message("hi")
            return publisher._publishers

        with capture_messages():
            return (yield in_thread(asyncio.run, view()))

    @inlineCallbacks
    def test_querysets_and_lazy_users_are_resolved_in_a_thread(self) -> Any:
        lazy: Any = SimpleLazyObject(lambda: User.objects.get(username="john"))
        for users in (User.objects.filter(username="john"), [lazy], (each for each in [lazy])):
            self.assertEqual((yield self.run_view(users=users)), {"user:john:f"})
        groups = Group.objects.filter(name="chatters")
        self.assertEqual((yield self.run_view(groups=groups)), {"group:chatters:f"})

    @inlineCallbacks
    def test_names_alone_are_resolved_at_once(self) -> Any:
        async def view() -> set[str]:
            return RedisPublisher(facility="f", users=["a"], broadcast=True)._publishers

        self.assertEqual((yield in_thread(asyncio.run, view())), {"user:a:f", "broadcast:f"})

    @inlineCallbacks
    def test_mistakes_are_told_at_once_there_too(self) -> Any:
        async def view(arguments: dict[str, Any], words: tuple[str, ...]) -> None:
            with self.assertRaises((TypeError, ValueError)) as caught:
                RedisPublisher(**{"facility": "f", **arguments})
            for word in words:
                self.assertIn(word, str(caught.exception))

        lazy: Any = SimpleLazyObject(lambda: User.objects.get(username="john"))
        for arguments, *words in (
            ({"users": [SELF]}, "request=request"),
            ({"users": [lazy], "groups": "chatters"}, "groups"),
            ({"users": [lazy], "broadcst": True}, "RedisPublisher", "'broadcast'"),
            ({"users": [lazy], "facility": "a\nb"}, "control character"),
            ({"users": [SELF], "request": request_of(), "groups": True}, "groups"),
        ):
            yield in_thread(asyncio.run, view(arguments, tuple(words)))

    @inlineCallbacks
    def test_an_empty_audience_is_nobody_there_too(self) -> Any:
        for nobody in ([], None, False, User.objects.none()):
            self.assertEqual((yield self.run_view(users=nobody)), set())
