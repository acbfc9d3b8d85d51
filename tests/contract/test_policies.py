"""``ws4redis_tx.policies.allow``: rules about facilities, for ``WS4REDIS_ALLOWED_CHANNELS``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.support.centrifuge import open_centrifuge
from tests.support.clients import exchange
from tests.support.django import in_thread, set_up_django
from tests.support.sites import ContractTestCase
from tests.support.wires import handshake_bytes, status_of

set_up_django()

from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.exceptions import PermissionDenied
from django.http import Http404
from django.test import RequestFactory, override_settings
from django.urls import register_converter
from django.urls.converters import REGISTERED_CONVERTERS

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.policies import allow, allow_all

HERE = __name__
BROADCAST = ["subscribe-broadcast"]
LISTEN = ["subscribe-broadcast", "subscribe-user", "subscribe-group", "subscribe-session"]


def knows(request: Any, pk: int) -> bool:
    return pk == 7


def member(request: Any, room: str) -> bool:
    return room == "garden"


async def knows_later(request: Any, pk: int) -> bool:
    return True


class AsyncTest:
    async def __call__(self, request: Any, pk: int) -> bool:
        return True


rules = [allow("orders/<int:pk>", knows), allow("chat/<slug:room>", member)]
one_rule = allow("orders/<int:pk>", knows)
not_rules = [allow("orders/<int:pk>", knows), allow_all]


class DecisionTests(SynchronousTestCase):
    """What is granted, without a server."""

    def ask(self, value: Any, facility: str, rights: list[str] = BROADCAST) -> list[str]:
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=value):
            policy = django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS")
            assert policy is not None
            url = django_settings.get("WEBSOCKET_URL")
            return list(policy(RequestFactory().get(url + facility), rights))

    def assert_denied(self, value: Any, facility: str, rights: list[str] = BROADCAST) -> Denied:
        error = self.assertRaises(Denied, self.ask, value, facility, rights)
        self.assertEqual(error.status, 403)
        return error

    def test_true_grants_to_listen_and_false_is_403(self) -> None:
        for value in (rules, tuple(rules), f"{HERE}.rules", one_rule, f"{HERE}.one_rule"):
            for rights in (BROADCAST, LISTEN, []):
                self.assertEqual(self.ask(value, "orders/7", rights), rights)
                self.assert_denied(value, "orders/8", rights)

    def test_the_parts_are_converted_as_in_urls(self) -> None:
        seen: list[Any] = []

        def look(request: Any, **parts: Any) -> bool:
            seen.append((request.path_info, parts))
            return True

        for route, facility, parts in (
            ("orders/<int:pk>", "orders/007", {"pk": 7}),
            ("<str:kind>/<slug:name>", "a/b-c", {"kind": "a", "name": "b-c"}),
            ("files/<path:rest>", "files/a/b/c", {"rest": "a/b/c"}),
            ("news", "news", {}),
            ("", "", {}),
        ):
            self.ask([allow(route, look)], facility)
            self.assertEqual(seen.pop(), (f"/ws/{facility}", parts))

    def test_a_converter_of_the_site_is_one_too(self) -> None:
        class Year:
            regex = "[0-9]{4}"

            def to_python(self, value: str) -> int:
                if value == "0000":
                    raise ValueError
                return int(value)

            def to_url(self, value: int) -> str:
                return str(value)

        rule = allow("<year:when>", lambda request, when: when == 2026)
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=[rule]):
            self.assertEqual(len(django_settings.problems()), 1)
        register_converter(Year, "year")
        self.addCleanup(REGISTERED_CONVERTERS.pop, "year")
        self.addCleanup(self.clear_converters)
        self.clear_converters()
        self.assertEqual(self.ask([rule], "2026"), BROADCAST)
        self.assert_denied([rule], "2027")
        self.assertEqual(self.ask([rule], "0000"), BROADCAST)  # it does not match

    def clear_converters(self) -> None:
        from django.urls import converters

        clear = getattr(converters.get_converters, "cache_clear", None)
        if clear is not None:
            clear()

    def test_the_first_rule_that_matches_decides(self) -> None:
        first = allow("orders/new", lambda request: False)
        second = allow("orders/<slug:name>", lambda request, name: True)
        self.assertEqual(self.ask([second, first], "orders/new"), BROADCAST)
        self.assert_denied([first, second], "orders/new")
        self.assertEqual(self.ask([first, second], "orders/old"), BROADCAST)

    def test_where_none_matches_the_default_policy_decides(self) -> None:
        for facility in ("news", "orders/7/lines", "orders/x", "orders", "my/orders/8", "", "/"):
            self.assertEqual(self.ask(rules, facility, LISTEN), LISTEN)
            self.assert_denied(rules, facility, ["publish-broadcast"])

    def test_a_last_rule_closes_the_others(self) -> None:
        closed = [
            *rules,
            allow("<path:rest>", lambda request, rest: False),
            allow("", lambda request: False),
        ]
        self.assertEqual(self.ask(closed, "orders/7"), BROADCAST)
        for facility in ("news", "orders/7/", "/", ""):
            self.assert_denied(closed, facility)

    def test_true_grants_to_publish_to_oneself_and_to_nobody_else(self) -> None:
        own = ["publish-user", "publish-session"]
        self.assertEqual(self.ask(rules, "orders/7", own), own)
        for right in ("publish-broadcast", "publish-group"):
            error = self.assert_denied(rules, "orders/7", [*BROADCAST, right])
            for word in ("allow('orders/<int:pk>', …)", "(request, channels)"):
                self.assertIn(word, error.detail)

    def test_a_subscribers_own_right_is_granted_too(self) -> None:
        self.assertEqual(self.ask(rules, "orders/7", ["subscribe-team"]), ["subscribe-team"])

    def test_what_says_that_something_is_missing_is_a_refusal(self) -> None:
        for error in (Http404("a secret"), User.DoesNotExist("a secret")):

            def missing(request: Any, pk: int, error: Exception = error) -> bool:
                raise error

            denied = self.assert_denied([allow("orders/<int:pk>", missing)], "orders/7")
            self.assertNotIn("secret", denied.reason)
            self.assertIn(type(error).__name__, denied.detail)

    def test_a_test_that_answers_anything_but_true_or_false_grants_nothing(self) -> None:
        for answer in (None, 1, 0, "yes", [], BROADCAST, object()):
            rule = allow("orders/<int:pk>", lambda request, pk, answer=answer: answer)
            error = self.assertRaises(TypeError, self.ask, [rule], "orders/7")
            for word in ("allow('orders/<int:pk>', …)", type(answer).__name__, "True or False"):
                self.assertIn(word, str(error))

    def test_what_it_raises_else_goes_on(self) -> None:
        for kind in (PermissionDenied, ZeroDivisionError):

            def fail(request: Any, pk: int, kind: type[Exception] = kind) -> bool:
                raise kind

            self.assertRaises(kind, self.ask, [allow("orders/<int:pk>", fail)], "orders/7")

    def test_override_settings_and_another_websocket_url_work(self) -> None:
        with override_settings(WEBSOCKET_URL="/live/events/"):
            self.assert_denied(rules, "orders/8")
            self.assertEqual(self.ask(rules, "orders/7"), BROADCAST)
        self.assert_denied(rules, "orders/8")


class MistakeTests(SynchronousTestCase):
    """11. Mistakes get an answer"""

    def complaint(self, value: Any) -> str:
        """The text of ``manage.py check``, which is also told at the start."""
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=value):
            found = [each for each in run_checks() if each.id == "ws4redis_tx.E007"]
            self.assertEqual(
                [f"{each.msg} {each.hint}" for each in found],
                [str(error) for error in django_settings.problems()],
            )
        self.assertLessEqual(len(found), 1)
        return f"{found[0].msg} {found[0].hint}" if found else ""

    def test_those_that_work_are_taken(self) -> None:
        for value in (rules, tuple(rules), one_rule, f"{HERE}.rules", [allow("<path:x>", any_)]):
            self.assertEqual(self.complaint(value), "")

    def test_a_route_that_is_none_is_told(self) -> None:
        for route, word in (
            ("/orders/<int:pk>", "begins with '/'"),
            ("orders/<int:pk", "unmatched"),
            ("orders/<integer:pk>", "'integer'"),
            ("orders/<int:p k>", "whitespace"),
            ("^orders/(?P<pk>[0-9]+)$", "'^'"),
            (7, "not a string"),
        ):
            text = self.complaint([one_rule, allow(route, knows)])  # type: ignore[arg-type]
            for expected in ("WS4REDIS_ALLOWED_CHANNELS", repr(route), word, "django.urls.path"):
                self.assertIn(expected, text)

    def test_a_test_of_the_wrong_kind_is_told(self) -> None:
        for test, word in (
            (knows_later, "async"), (AsyncTest(), "async"), ("shop.knows", "cannot be called"),
            (member, "does not take the parts"), (lambda request: True, "does not take the parts"),
        ):  # fmt: skip
            text = self.complaint([allow("orders/<int:pk>", test)])
            for expected in ("allow('orders/<int:pk>', …)", word, "(request, pk)", "True or False"):
                self.assertIn(expected, text)

    def test_a_list_of_anything_else_is_told(self) -> None:
        for value in (not_rules, f"{HERE}.not_rules", ["ws4redis_tx.policies.allow_all"], [None]):
            self.assertIn("which is not a rule", self.complaint(value))
        for value in ([], ()):
            self.assertIn("holds no rule", self.complaint(value))

    def test_a_server_without_django_can_import_it(self) -> None:
        self.assertEqual(repr(allow("a", knows)), "allow('a', …)")


def any_(request: Any, **parts: str) -> bool:
    return True


class ServedTests(ContractTestCase):
    """All protocols ask the same rules."""

    @inlineCallbacks
    def test_websockets_and_events(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=f"{HERE}.rules")
        client = yield self.open("orders/7?subscribe-broadcast")
        yield self.publish("hi", facility="orders/7", broadcast=True, expire=0)
        self.assertEqual((yield client.next()), "hi")
        for target, status in (
            ("orders/8?subscribe-broadcast", 403),
            ("orders/8", 403),
            ("%6frders/8?subscribe-broadcast", 403),
            ("orders/7?publish-broadcast", 403),
            ("chat/kitchen?subscribe-broadcast", 403),
        ):
            for headers in ({}, {"Accept": "text/event-stream", "Upgrade": None}):
                found, answer = yield self.refusal(f"/ws/{target}", **headers)
                self.assertEqual((found, answer.count(b"allow(")), (status, 0), target)

    @inlineCallbacks
    def test_a_server_may_have_another_url_than_the_site(self) -> Any:
        self.override(WS4REDIS_CONNECTION=str(self.redis.address), WS4REDIS_ALLOWED_CHANNELS=rules)
        config = django_settings.server_config(self.endpoints)
        service = yield self.start_server(replace(config, websocket_url="/push/"))
        self.share(service.factory.broker)
        status, _ = yield self.refusal("/push/orders/8?subscribe-broadcast")
        self.assertEqual(status, 403)
        self.url = f"ws://127.0.0.1:{self.port}/push/"
        for facility in ("orders/7", "news"):
            yield self.open(f"{facility}?subscribe-broadcast")

    def test_a_path_elsewhere_is_an_error(self) -> None:
        with override_settings(WS4REDIS_ALLOWED_CHANNELS=rules):
            policy = django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS")
            assert policy is not None
            request = RequestFactory().get("/push/orders/8")
            error = self.assertRaises(ValueError, policy, request, BROADCAST)
        self.assertEqual(str(error), "The path '/push/orders/8' does not begin with '/ws/'.")

    @inlineCallbacks
    def test_a_broken_test_is_500_and_never_granted(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=[allow("a", lambda request: 1 / 0 > 1)])
        status, _ = yield self.refusal("/ws/a?subscribe-broadcast")
        self.assertEqual(status, 500)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    @inlineCallbacks
    def test_the_log_names_the_rule(self) -> Any:
        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=rules)
        lines = self.log_lines()
        yield self.refusal("/ws/orders/8?subscribe-broadcast")
        self.assertTrue(any("allow('orders/<int:pk>', …) returned False" in each for each in lines))

    @inlineCallbacks
    def test_the_script_name_is_no_part_of_the_facility(self) -> Any:
        yield self.serve(FORCE_SCRIPT_NAME="/app", WS4REDIS_ALLOWED_CHANNELS=rules)
        for start in ("/app/ws/", "/ws/"):
            status, _ = yield self.refusal(f"{start}orders/8?subscribe-broadcast")
            self.assertEqual(status, 403)

    @inlineCallbacks
    def test_a_test_sees_the_user_and_may_query(self) -> Any:
        def is_john(request: Any, pk: int) -> bool:
            return User.objects.filter(pk=request.user.pk, username="john").exists()

        yield self.serve(WS4REDIS_ALLOWED_CHANNELS=allow("orders/<int:pk>", is_john))
        yield self.open("orders/1?subscribe-broadcast", cookies=(yield self.log_in("john")))
        mary = yield self.log_in("mary")
        answer = yield exchange(
            self.port,
            handshake_bytes(
                "/ws/orders/1?subscribe-broadcast",
                Host=f"127.0.0.1:{self.port}",
                Cookie="; ".join(f"{name}={value}" for name, value in mary.items()),
            ),
        )
        self.assertEqual(status_of(answer), 403)

    @inlineCallbacks
    def test_a_right_that_is_lost_closes_at_the_next_recheck(self) -> Any:
        passes = [True]
        yield self.serve(
            WS4REDIS_REVOKE=True, WS4REDIS_ALLOWED_CHANNELS=allow("a", lambda request: passes[0])
        )
        john = yield self.log_in("john")
        client = yield self.open("a?subscribe-broadcast", cookies=john)
        passes[0] = False
        yield in_thread(lambda: User.objects.get(username="john").save())
        self.assertEqual((yield client.closed), 1008)

    @inlineCallbacks
    def test_clients_of_centrifuges_protocol(self) -> Any:
        yield self.serve_centrifuge(WS4REDIS_ALLOWED_CHANNELS=rules)
        client = yield open_centrifuge(self.port)
        self.addCleanup(self._close, client.websocket)
        self.assertEqual((yield client.subscribe("broadcast:orders/7")), {})
        self.assertEqual((yield client.subscribe("broadcast:orders/8")), 103)
        self.assertEqual((yield client.subscribe("broadcast:chat/garden")), {})
        self.assertEqual((yield client.subscribe("broadcast:news")), {})
        answer = yield client.ask("publish", channel="broadcast:orders/7", data=1)
        self.assertEqual(answer, 103)
