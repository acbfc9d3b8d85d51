"""The contract, section 11: mistakes get an answer."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from unittest.mock import Mock

from asgiref.sync import async_to_sync
from twisted.internet.defer import inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.support.django import set_up_django
from tests.support.logs import log_lines
from tests.support.memory import AllowAll, WebSocketTests
from tests.support.programs import python
from tests.support.sites import ContractTestCase
from tests.support.wires import handshake_bytes, status_of
from ws4redis_tx.config.server_config import ServerConfig
from ws4redis_tx.core.admission import Admission, Identity, PlainRequest
from ws4redis_tx.core.errors import ConfigError
from ws4redis_tx.core.redis_address import RedisAddress
from ws4redis_tx.redis_store import RedisStore
from ws4redis_tx.service import make_factory, make_service
from ws4redis_tx.subscriber import RedisSubscriber
from ws4redis_tx.testing import MemoryBroker, MemoryClient

set_up_django()

from django.core.checks import run_checks
from django.test import override_settings

from ws4redis_tx.config import django_settings
from ws4redis_tx.publisher import RedisPublisher


class Member(AllowAll):
    """Everybody is Mary, who is in ``groups``."""

    groups: tuple[str, ...] = ()

    def authorize(self, handshake: Any, rights: Any) -> Admission:
        identity = Identity("key", "mary", self.groups)
        return Admission(identity, tuple(rights), PlainRequest(handshake.path_info, identity))


class Extended(RedisSubscriber):
    subscription_channels = [*RedisSubscriber.subscription_channels, "subscribe-server"]
    publish_channels = [*RedisSubscriber.publish_channels, "publish-server"]


class MistakesTestCase(WebSocketTests):
    def answer(self, flags: str) -> tuple[int, str]:
        """The status and the text of the answer to a handshake."""
        client = MemoryClient(self.factory)
        client.send_bytes(handshake_bytes(f"/ws/foobar?{flags}"))
        status = 101 if client.open else client.refused
        assert status is not None
        return status, client._received.decode()

    def lines(self) -> list[str]:
        """A list of all log lines from now on."""
        return log_lines(self)


class FlagTests(MistakesTestCase):
    """A flag with a typo"""

    def test_a_misspelt_right_is_a_400_that_names_the_nearest_and_lists_them_all(self) -> None:
        for flag, nearest in (
            ("subscribe-brodcast", "subscribe-broadcast"),
            ("subscribe_user", "subscribe-user"),
            ("Subscribe-Users", "subscribe-user"),
            ("publish-sesion", "publish-session"),
            ("publishgroup", "publish-group"),
            ("subscribe", "subscribe-user"),
            ("subscribe-server", "subscribe-user"),
        ):
            status, text = self.answer(f"subscribe-broadcast&{flag}&echo")
            self.assertEqual(status, 400, flag)
            self.assertIn(f"'{flag.lower()}' is not a right", text)
            self.assertIn(f"Did you mean {nearest}?", text)
            for audience in ("session", "user", "group", "broadcast"):
                self.assertIn(f"subscribe-{audience}", text)
                self.assertIn(f"publish-{audience}", text)

    def test_the_authorizer_is_not_asked_about_it(self) -> None:
        asked: list[Any] = []

        class Noting(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                asked.append(rights)
                return super().authorize(handshake, rights)

        self.use(authorizer=Noting())
        self.assertEqual(self.answer("subscribe_user")[0], 400)
        self.assertEqual(asked, [])

    def test_other_unknown_parameters_are_ignored(self) -> None:
        for flags in ("subscribe-broadcast&v=5&subscriber", "x=subscribe-brodcast&ecco", "&&", ""):
            self.assertEqual(self.answer(flags)[0], 400 if "subscriber" in flags else 101, flags)

    def test_a_site_without_rights_says_so(self) -> None:
        class Silent(RedisSubscriber):
            subscription_channels: list[str] = []
            publish_channels: list[str] = []

        self.use(subscriber=Silent)
        status, text = self.answer("subscribe-user")
        self.assertEqual(status, 400)
        self.assertIn("There are no rights here.", text)

    def test_the_lists_of_a_subclass_count_as_known(self) -> None:
        self.use(subscriber=Extended)
        self.assertEqual(self.answer("subscribe-server&publish-server")[0], 101)
        status, text = self.answer("subscribe-sever")
        self.assertEqual(status, 400)
        self.assertIn("Did you mean subscribe-server?", text)
        self.assertIn("publish-server", text)

    def test_a_long_flag_is_cut_and_holds_no_control_character(self) -> None:
        lines = self.lines()
        status, text = self.answer("subscribe-%0d%0aX:%20y" + 9000 * "x")
        self.assertEqual(status, 400)
        self.assertLess(len(text), 600)
        self.assertEqual(text.count("\n"), 1)
        self.assertLess(max(map(len, lines)), 600)

    def test_a_flag_with_a_value_is_taken(self) -> None:
        self.assertEqual(self.answer("subscribe-broadcast=no")[0], 101)
        self.publish(b"hi")


class NothingToHearTests(MistakesTestCase):
    """A connection that may hear and say nothing, and an audience without members"""

    def test_a_connection_that_asks_for_no_right_is_logged(self) -> None:
        for flags in ("", "echo", "broadcast&subsribe-user"):
            self.use()
            lines = self.lines()
            self.assertEqual(self.answer(flags)[0], 101)
            self.assertIn("may hear and say nothing: its URL asks for no right", lines[0])
            self.assertIn("'foobar'", lines[0])

    def test_a_connection_that_is_granted_no_right_is_logged(self) -> None:
        class Narrow(AllowAll):
            def authorize(self, handshake: Any, rights: Any) -> Admission:
                return super().authorize(handshake, ())

        self.use(authorizer=Narrow())
        lines = self.lines()
        self.connect("subscribe-broadcast&publish-broadcast")
        self.assertIn("may hear and say nothing: none of the rights that it asked for", lines[0])
        self.assertIn("subscribe-broadcast, publish-broadcast", lines[0])

    def test_a_group_right_of_a_user_without_groups_is_logged(self) -> None:
        for flags in ("subscribe-group", "subscribe-group&subscribe-user", "publish-group"):
            self.use(authorizer=Member())
            lines = self.lines()
            self.assertEqual(self.answer(flags)[0], 101)
            self.assertEqual(len(lines), 1)
            self.assertIn("'mary' is in no group", lines[0])
            self.assertIn(flags.partition("&")[0], lines[0])

    def test_a_connection_that_hears_or_says_something_is_not(self) -> None:
        member = Member()
        member.groups = ("staff",)
        for flags in ("subscribe-group", "publish-group", "subscribe-broadcast", "publish-user"):
            self.use(authorizer=member)
            lines = self.lines()
            self.assertEqual(self.answer(flags)[0], 101)
            self.assertEqual(lines, [])

    def test_a_thousand_of_them_write_one_line_a_minute(self) -> None:
        self.use()
        lines = self.lines()
        clients = [self.connect("") for _ in range(1000)]
        self.assertEqual(len(lines), 1)
        self.clock.advance(60)
        self.connect("")
        self.assertEqual(len([line for line in lines if "may hear" in line]), 2)
        self.assertIn("999 more", lines[1])
        for client in clients:
            client.lose_connection()


class ManualTests(ContractTestCase):
    @inlineCallbacks
    def test_a_misspelt_right_is_refused_before_the_session_is_looked_up(self) -> Any:
        yield self.serve()
        status, answer = yield self.refusal("/ws/foobar?subscribe-brodcast")
        self.assertEqual((status, status_of(answer)), (400, 400))
        self.assertIn(b"Did you mean subscribe-broadcast?", answer)


class Answering:
    """An authorizer that gives a fixed answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def authorize(self, handshake: Any, rights: Any) -> Any:
        return self.answer


class AuthorizerTests(MistakesTestCase):
    """A callback of the wrong kind, or one that answers the wrong type: authorizers"""

    def failure(self, answer: Any) -> str:
        """The text in the log after a handshake that must not succeed."""
        self.use(authorizer=Answering(answer))
        self.assertEqual(self.answer("subscribe-broadcast")[0], 500)
        self.assertEqual(list(self.broker.hub.channels), [])
        (failure,) = self.flushLoggedErrors(TypeError, ValueError)
        return str(failure.value)

    def test_one_that_answers_no_admission_is_told(self) -> None:
        who = Identity("key", "mary")
        for answer in (None, ["subscribe-broadcast"], True, "mary", who, Answering(None)):
            text = self.failure(answer)
            self.assertIn(f"The authorizer answered a {type(answer).__name__}", text)
            self.assertIn("Return Admission(identity, rights, request)", text)
            text = self.failure(succeed(answer))
            self.assertIn(f"The authorizer answered a {type(answer).__name__}", text)

    def test_an_admission_of_wrong_parts_is_told(self) -> None:
        request = PlainRequest("/ws/foobar", Identity())
        for identity, rights, expected in (
            (None, (), "identity is a NoneType, not an Identity"),
            ("mary", (), "identity is a str, not an Identity"),
            (Identity(), None, "rights=None is not a tuple of names"),
            (Identity(), 7, "rights=7 is not a tuple of names"),
            (Identity(), (None,), "rights holds None, which is not a name"),
            (Identity(), ("subscribe-brodcast",), "'subscribe-brodcast' is not a right"),
            (Identity(groups=None), (), "groups=None is not a tuple of names"),  # type: ignore
            (Identity(groups=(5,)), (), "groups holds 5, which is not a name"),  # type: ignore
        ):
            self.assertIn(expected, self.failure(Admission(identity, rights, request)))  # type: ignore

    def test_expires_is_a_time_in_seconds(self) -> None:
        now = time.time()
        for expires, expected in (
            (3600, "expires=3600 is before the year 2001. Write a time: time.time() + 3600"),
            (0.5, "expires=0.5 is before the year 2001"),
            (now * 1000, "is after the year 9999. Write seconds since the epoch, not millisec"),
            (float("nan"), "expires=nan is not a time"),
            ("tomorrow", "expires='tomorrow' is not a number"),
            (True, "expires=True is not a number"),
            (datetime.now(UTC), "Write its .timestamp()"),
            (timedelta(hours=1), "is not a number of seconds since the epoch"),
        ):
            answer = Admission(Identity(), (), PlainRequest("/ws/f", Identity()), expires)  # type: ignore
            self.assertIn(expected, self.failure(answer))
        for expires in (None, now - 5, now + 5, now + 1e9, float("inf"), int(now) + 60):
            answer = Admission(Identity(), (), PlainRequest("/ws/f", Identity()), expires)
            self.use(authorizer=Answering(answer))
            self.assertEqual(self.answer("")[0], 101)

    def test_a_recheck_that_answers_the_wrong_type_grants_nothing(self) -> None:
        authorizer = Answering(AllowAll().authorize(PlainRequest("/ws/f", Identity()), ()))
        self.use(authorizer=authorizer, recheck=1)
        client = self.connect()
        authorizer.answer = None
        self.clock.pump([0.5] * 100)
        self.assertEqual(client.close_code, 1011)
        (failure,) = self.flushLoggedErrors(TypeError)
        self.assertIn("The authorizer answered a NoneType", str(failure.value))

    def test_what_is_no_authorizer_is_refused_when_the_server_is_made(self) -> None:
        for authorizer in (object(), AllowAll, AllowAll().authorize, "mary", [AllowAll()]):
            error = self.assertRaises(TypeError, self.use, authorizer=authorizer)
            self.assertIn("authorizer is ", str(error))
            self.assertIn("authorize", str(error))
            broker = MemoryBroker()
            for make in (make_factory, make_service):
                error = self.assertRaises(
                    TypeError, make, ServerConfig(), broker=broker, authorizer=authorizer
                )
                self.assertIn("authorizer is ", str(error))
        self.use()
        with self.assertRaises(TypeError):
            self.factory.authorizer = object()

    def test_what_is_no_broker_or_subscriber_is_refused_when_the_server_is_made(self) -> None:
        for broker in (object(), MemoryBroker, RedisAddress()):
            error = self.assertRaises(TypeError, make_factory, ServerConfig(), broker=broker)
            self.assertIn("broker is ", str(error))
            self.assertIn("make_broker(config)", str(error))
        for subscriber in (object(), 7, RedisStore, RedisPublisher, RedisSubscriber(None)):
            error = self.assertRaises(
                ConfigError, make_factory, ServerConfig(), broker=MemoryBroker(),
                subscriber=subscriber,
            )  # fmt: skip
            self.assertIn("subscriber is ", str(error))
            self.assertRaises(
                ConfigError, make_service, ServerConfig(), broker=MemoryBroker(),
                subscriber=subscriber,
            )  # fmt: skip


async def answer_later(request: Any, channels: Any) -> Any:
    """A callback of the wrong kind."""


async def generate(request: Any, channels: Any) -> Any:
    """A callback of the wrong kind."""
    yield "subscribe-broadcast"


def one(request: Any) -> Any:
    return ["subscribe-broadcast"]


def two(request: Any, channels: Any) -> Any:
    return channels


def three(request: Any, channels: Any, user: Any) -> Any:
    return channels


class Callbacks:
    def method(self, request: Any, channels: Any) -> Any:
        return channels

    async def __call__(self, request: Any, channels: Any) -> Any:
        return channels


class Unhashable(dict[str, Any]):
    def __call__(self, request: Any, channels: Any = ()) -> Any:
        return channels


HERE = __name__


class CallbackTests(SynchronousTestCase):
    """A callback of the wrong kind, or one that answers the wrong type: settings"""

    def complaint(self, **setting: Any) -> str:
        """The text of ``manage.py check``, which is also told at the start."""
        with override_settings(**setting):
            found = [each for each in run_checks() if (each.id or "").startswith("ws4redis_tx.E")]
            self.assertEqual(
                [f"{each.msg} {each.hint}" for each in found],
                [str(error) for error in django_settings.problems()],
            )
        self.assertLessEqual(len(found), 1)
        return f"{found[0].msg} {found[0].hint}" if found else ""

    def test_one_that_is_async_is_told(self) -> None:
        for callback in (answer_later, generate, Callbacks(), f"{HERE}.answer_later"):
            text = self.complaint(WS4REDIS_ALLOWED_CHANNELS=callback)
            self.assertIn("WS4REDIS_ALLOWED_CHANNELS is ", text)
            self.assertIn("is async. Name a plain function", text)
            self.assertIn("(request, channels)", text)
        for name in ("WS4REDIS_PROCESS_REQUEST", "WS4REDIS_SUBSCRIBER"):
            self.assertIn("is async", self.complaint(**{name: answer_later}))

    def test_one_that_takes_other_arguments_is_told(self) -> None:
        for name, callback, expected in (
            ("WS4REDIS_ALLOWED_CHANNELS", one, "(request, channels)"),
            ("WS4REDIS_ALLOWED_CHANNELS", three, "(request, channels)"),
            ("WS4REDIS_ALLOWED_CHANNELS", f"{HERE}.Callbacks.method", "(request, channels)"),
            ("WS4REDIS_ALLOWED_CHANNELS", lambda: (), "(request, channels)"),
            ("WS4REDIS_PROCESS_REQUEST", two, "(request)"),
            ("WS4REDIS_PROCESS_REQUEST", lambda: None, "(request)"),
            ("WS4REDIS_TENANT", two, "(request)"),
            ("WS4REDIS_SUBSCRIBER", two, "a subclass of RedisSubscriber"),
        ):
            text = self.complaint(**{name: callback})
            self.assertIn(f"{name} is ", text)
            self.assertIn("which does not take", text)
            self.assertIn(expected, text)

    def test_a_class_that_is_no_subscriber_is_told(self) -> None:
        for value in (RedisStore, "ws4redis_tx.publisher.RedisPublisher"):
            text = self.complaint(WS4REDIS_SUBSCRIBER=value)
            self.assertIn("WS4REDIS_SUBSCRIBER is ", text)
            self.assertIn("set_pubsub_channels", text)
            self.assertIn("a subclass of RedisSubscriber", text)

    def test_those_that_can_be_called_are_taken(self) -> None:
        for callback in (
            two, Callbacks().method, partial(three, user=None), Unhashable(), Mock(),
            lambda *arguments: (), lambda request, channels, more=None: channels,
            async_to_sync(answer_later), "ws4redis_tx.policies.allow_all",
        ):  # fmt: skip
            self.assertEqual(self.complaint(WS4REDIS_ALLOWED_CHANNELS=callback), "")
        for callback in (one, Unhashable(), Mock()):
            self.assertEqual(self.complaint(WS4REDIS_PROCESS_REQUEST=callback), "")
        for subscriber in (Extended, lambda connection: Extended(connection)):
            self.assertEqual(self.complaint(WS4REDIS_SUBSCRIBER=subscriber), "")


class AnswerTests(ContractTestCase):
    @inlineCallbacks
    def test_a_callback_that_answers_the_wrong_type_is_named_with_what_to_return(self) -> Any:
        for answer, expected in (
            (None, "returned None"),
            (7, "returned 7"),
            (True, "returned True"),
            ([["subscribe-user"]], "returned [['subscribe-user']]"),
            ("subscribe-broadcast", "returned 'subscribe-broadcast'"),
            (["subscribe-brodcast"], "Did you mean subscribe-broadcast?"),
        ):
            yield self.serve()  # each time: the log sums up equal failures
            with override_settings(
                WS4REDIS_ALLOWED_CHANNELS=lambda request, channels, answer=answer: answer
            ):
                status, _ = yield self.refusal()
            self.assertEqual(status, 500)
            (failure,) = self.flushLoggedErrors()
            text = failure.getErrorMessage()
            self.assertIn("WS4REDIS_ALLOWED_CHANNELS", text)
            self.assertIn(expected, text)
            self.assertIn("eturn a list of rights", text)


class OtherHostTests(ContractTestCase):
    """Page and websocket on different hosts"""

    HINT = "a browser sends the cookies of one host to no other"

    @inlineCallbacks
    def refused(self, right: str, **headers: Any) -> Any:
        """Fire with the status, the text that the client gets, and the log's line."""
        lines = self.log_lines()
        status, answer = yield self.refusal(f"/ws/foobar?{right}", **headers)
        (line,) = [line for line in lines if "Refused" in line]
        return status, answer.partition(b"\r\n\r\n")[2].decode(), line

    @inlineCallbacks
    def test_the_refusal_and_the_log_say_that_the_cookie_did_not_come(self) -> Any:
        origins = ["http://www.example.com", "http://localhost:8000"]
        yield self.serve(WS4REDIS_ALLOWED_ORIGINS=origins)
        for right, status in (("subscribe-user", 401), ("subscribe-session", 403)):
            for origin, host in zip(origins, ("www.example.com", "localhost"), strict=True):
                found, text, line = yield self.refused(right, Origin=origin)
                self.assertEqual(found, status)
                for each in (text, line):
                    self.assertIn(f"The page is on {host}, and this websocket on 127.0.0.1", each)
                    self.assertIn(self.HINT, each)
                    self.assertIn("SESSION_COOKIE_DOMAIN", each)
                    self.assertIn("ticket", each)

    @inlineCallbacks
    def test_nobody_is_told_so_who_uses_one_host_or_no_browser(self) -> Any:
        for scheme in (None, "http", "https"):
            yield self.serve()  # each time: the log sums up equal refusals
            headers = {"Origin": f"{scheme}://127.0.0.1:{self.port}"} if scheme else {}
            _, text, line = yield self.refused("subscribe-user", **headers)
            self.assertNotIn(self.HINT, text + line)


class UncapturedTests(SynchronousTestCase):
    """A test without ``capture_messages``"""

    PROGRAM = """
import asyncio, sys
from django.conf import settings
settings.configure(WS4REDIS_CONNECTION="redis://127.0.0.1:1", WS4REDIS_TIMEOUT=0.2)
import django
django.setup()
from django.test.utils import setup_test_environment
from ws4redis_tx.publisher import RedisPublisher
from ws4redis_tx.core.errors import BrokerUnavailable

if sys.argv[1] == "test":
    setup_test_environment()
publisher = RedisPublisher(facility="f", broadcast=True)
for publish in (
    lambda: publisher.publish_message("hi"),
    lambda: asyncio.run(publisher.apublish_message("hi")),
    lambda: publisher.fetch_message(None, "f", "broadcast"),
):
    try:
        publish()
    except BrokerUnavailable as error:
        print(type(error).__name__, error.maybe_published, error)
"""

    def test_publishing_in_a_test_without_redis_names_it(self) -> None:
        lines = python("-c", self.PROGRAM, "test").stdout.splitlines()
        self.assertEqual(len(lines), 3, lines)
        for line in lines:
            self.assertTrue(line.startswith("BrokerUnavailable False "))
            self.assertIn("127.0.0.1:1", line)
            self.assertIn("In a test, wrap it in ws4redis_tx.testing.capture_messages()", line)

    def test_it_is_not_named_elsewhere(self) -> None:
        lines = python("-c", self.PROGRAM, "view").stdout.splitlines()
        self.assertEqual(len(lines), 3, lines)
        self.assertNotIn("capture_messages", "".join(lines))
