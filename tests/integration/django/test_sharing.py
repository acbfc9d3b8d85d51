"""Visitors who wait together share their queries, and are told the same as if each came alone."""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from unittest import mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support import TIMEOUT
from tests.support.django import environment, set_up_django, statements
from tests.support.programs import python
from tests.support.wires import handshake_bytes
from ws4redis_tx.core.errors import Outage
from ws4redis_tx.core.handshake import Handshake, judge_request
from ws4redis_tx.core.http import read_request
from ws4redis_tx.revocation.recheck_queue import RecheckQueue
from ws4redis_tx.scheduling.deferreds import gather

set_up_django()

from django.apps.registry import Apps
from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.backends import AllowAllUsersModelBackend, ModelBackend
from django.contrib.auth.models import Group, User
from django.contrib.sessions.backends import cache as cache_only
from django.contrib.sessions.backends import cached_db
from django.contrib.sessions.backends import db as db_engine
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.db import connections, transaction
from django.db.backends.utils import CursorWrapper
from django.test import override_settings
from django.utils.timezone import now

from ws4redis_tx.django.authorizer import DjangoAuthorizer
from ws4redis_tx.django.databases import read_rows
from ws4redis_tx.django.visitors import Visitor

RIGHTS = ("subscribe-session", "subscribe-group", "subscribe-user", "subscribe-broadcast")
STOCK = "django.contrib.auth.backends.ModelBackend"
HERE = "tests.integration.django.test_sharing"
SEEDS = 2
ENGINES = ("db", "cached_db", "cache", "file", "signed_cookies")


class OwnBackend(ModelBackend):
    """Finds users in a way of its own."""

    def get_user(self, user_id: Any) -> Any:
        user = super().get_user(user_id)
        return user if user is None or user.first_name != "hidden" else None


class PickyBackend(ModelBackend):
    def user_can_authenticate(self, user: Any) -> bool:
        if user.first_name == "raises":
            raise LookupError("deliberate")
        return super().user_can_authenticate(user) and user.first_name != "hidden"


class EveryoneBackend(AllowAllUsersModelBackend):
    pass


BACKENDS = (
    STOCK,
    *(f"{HERE}.{name}" for name in ("OwnBackend", "PickyBackend", "EveryoneBackend")),
)


class Quiet(Clock):
    """A reactor that does nothing of what threads ask it for."""

    def callFromThread(self, *_: Any) -> None:
        pass


def handshake(key: str | None = None, **options: Any) -> Handshake:
    cookie = None if key is None else f"{settings.SESSION_COOKIE_NAME}={key}"
    headers = {name: options.pop(name) for name in ("X_Tenant", "Host") if name in options}
    data = handshake_bytes("/ws/foobar?x", Cookie=cookie, **{"Host": "localhost"} | headers)
    request = read_request(data.removesuffix(b"\r\n\r\n"))
    judged = judge_request(request, "/ws/", secure=False, peer="127.0.0.1")
    return Handshake(**{name: getattr(judged, name) for name in judged.__slots__} | options)


def make_session(user: Any, backend: str = STOCK, **items: Any) -> str:
    """The key of a new session of the current engine."""
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    if user is not None:
        store[SESSION_KEY] = str(user.pk)
        store[BACKEND_SESSION_KEY] = backend
        store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    for name, value in items.items():
        store[name] = value
    store.save()
    return str(store.session_key)


class SharingTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.authorizer = DjangoAuthorizer(Quiet())
        self.override(AUTHENTICATION_BACKENDS=BACKENDS)
        self.groups = [Group.objects.get_or_create(name=f"shared {n}")[0] for n in range(4)]
        self.addCleanup(lambda: Group.objects.filter(name__startswith="shared ").delete())
        self.addCleanup(lambda: User.objects.filter(username__startswith="shares ").delete())

    def override(self, **values: Any) -> None:
        override = override_settings(**values)
        override.enable()
        self.addCleanup(override.disable)

    def use(self, engine: str) -> None:
        self.override(SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}")

    def make_user(self, name: Any, *groups: int, **values: Any) -> Any:
        user = User.objects.create(username=f"shares {name}", password="!", **values)
        user.groups.add(*(self.groups[number] for number in groups))
        return user

    def alone(self, handshakes: Sequence[Handshake]) -> list[Any]:
        return [self.ask(Visitor(each, RIGHTS)) for each in handshakes]

    def together(self, handshakes: Sequence[Handshake]) -> list[Any]:
        waiting = [Visitor(each, RIGHTS) for each in handshakes]
        answers = []
        with mock.patch.object(self.authorizer, "_waiting", waiting.copy):
            while waiting:
                answers.append(self.ask(waiting.pop(0)))
        return answers

    def ask(self, visitor: Visitor) -> Any:
        try:
            return self.authorizer._authorize(visitor)
        except Exception as error:
            return error

    def assert_same(self, handshakes: Sequence[Handshake]) -> None:
        alone = list(map(described, self.alone(handshakes)))
        self.assertEqual(list(map(described, self.together(handshakes))), alone)


def described(answer: Any) -> Any:
    """All that a handshake, a callback or a subscriber can see of an answer."""
    if isinstance(answer, Exception):
        return type(answer), str(answer)
    request = answer.request
    # A database gives groups in any order, unless their model says which.
    identity = replace(answer.identity, groups=tuple(sorted(answer.identity.groups)))
    return (
        identity, answer.identity is request.ws4redis_identity,
        answer.rights, answer.expires, answer.redeemed,
        type(request.user), request.user.pk, dict(request.session.items()),
        request.session.session_key, request.path,
        vars(request.user).get("username"), type(request.session),
    )  # fmt: skip


class CountTests(SharingTestCase):
    def test_fifty_who_wait_need_three_queries(self) -> None:
        for engine, most in (
            ("db", 3), ("cached_db", 2), ("cache", 2), ("file", 2), ("signed_cookies", 2),
        ):  # fmt: skip
            self.use(engine)
            with transaction.atomic():  # one write to the disk
                users = [self.make_user(f"{engine} {number}", 0, 1) for number in range(50)]
                handshakes = [handshake(make_session(user)) for user in users]
            with statements() as found:
                answers = self.together(handshakes)
            self.assertEqual(len(found), most, found)
            self.assertTrue(all(each.startswith("SELECT ") for each in found))
            for user, answer in zip(users, answers, strict=True):
                self.assertEqual(answer.identity.user_id, str(user.pk))
                self.assertEqual(sorted(answer.identity.groups), ["shared 0", "shared 1"])

    def test_sessions_that_are_not_in_the_cache_are_read_together_and_not_put_there(self) -> None:
        self.use("cached_db")
        keys = [make_session(self.make_user(number)) for number in range(10)]
        caches["default"].clear()
        with statements() as found:
            self.together(list(map(handshake, keys)))
        self.assertEqual(len(found), 3)
        store = import_module(settings.SESSION_ENGINE).SessionStore(keys[0])
        self.assertIsNone(caches["default"].get(store.cache_key))

    def test_many_tabs_of_one_session_share_them_too(self) -> None:
        for engine, most in (("db", 3), ("cache", 2)):
            self.use(engine)
            key = make_session(self.make_user(engine, 1), list=[1])
            with statements() as found:
                answers = self.together([handshake(key)] * 20)
            self.assertEqual(len(found), most)
            answers[0].request.user.first_name = "changed"
            answers[0].request.session["list"].append(2)
            self.assertEqual(answers[1].request.user.first_name, "")
            self.assertEqual(answers[1].request.session["list"], [1])

    def test_a_value_that_changes_is_shared_by_no_two_tabs(self) -> None:
        """As a JSON field is one, which a callback may change."""
        from_db = User.from_db

        @classmethod  # type: ignore[misc]
        def with_list(cls: type[User], *arguments: Any, **options: Any) -> Any:
            user: Any = from_db(*arguments, **options)
            user.options = {"seen": []}
            return user

        key = make_session(self.make_user("json"))
        with mock.patch.object(User, "from_db", with_list):
            answers = self.together([handshake(key)] * 3)
        answers[0].request.user.options["seen"].append("changed")
        self.assertEqual([each.request.user.options["seen"] for each in answers[1:]], [[], []])

    def test_a_session_of_many_tabs_is_decoded_for_each_in_their_own_turn(self) -> None:
        """Not for all of them at once: it may be large."""
        for engine in ("db", "cached_db", "cache"):
            self.use(engine)
            key = make_session(self.make_user(engine))
            waiting = [Visitor(handshake(key), RIGHTS) for _ in range(20)]
            with mock.patch.object(self.authorizer, "_waiting", waiting.copy):
                self.ask(Visitor(handshake(key), RIGHTS))
            sessions: list[Any] = [each.fetched and each.fetched.session for each in waiting]
            self.assertEqual(len(set(map(id, sessions))), 20)
            for each in sessions:
                self.assertFalse(hasattr(each, "_session_cache"))
                self.assertIn(SESSION_KEY, each)

    def test_several_of_djangos_backends_and_nobodies_are_asked_about_together(self) -> None:
        keys = [make_session(self.make_user(n), BACKENDS[(0, 2, 3)[n % 3]]) for n in range(12)]
        keys += [make_session(None) for _ in range(5)] + ["x" * 32, "", "short"]
        with statements() as found:
            self.together(list(map(handshake, keys)))
        self.assertEqual(len(found), 3)

    @staticmethod
    def grant(request: Any, rights: list[str]) -> list[str]:
        """A callback that looks at what was loaded."""
        assert request.user.username and request.session.session_key
        return rights

    def test_callbacks_are_called_one_by_one_and_find_everything_loaded(self) -> None:
        self.override(WS4REDIS_ALLOWED_CHANNELS=self.grant)
        keys = [make_session(self.make_user(number)) for number in range(10)]
        with statements() as found:
            answers = self.together(list(map(handshake, keys)))
        self.assertEqual([each.rights for each in answers], [RIGHTS] * 10)
        self.assertEqual(len(found), 3)


class SameAnswerTests(SharingTestCase):
    """A random population, looked up together and one by one."""

    def population(self, random: Random) -> list[Handshake]:
        users = [
            self.make_user(
                n, *random.sample(range(4), random.randrange(4)), is_active=random.random() < 0.8,
                first_name=random.choice(["", "", "hidden", "raises"]),
            )
            for n in range(12)
        ]  # fmt: skip
        found = [handshake(make_session(user, random.choice(BACKENDS))) for user in users * 2]
        other = User(pk=10**6, password="!")
        old = self.make_user("old", 0)
        with override_settings(SECRET_KEY="old" * 20):
            signed_before = handshake(make_session(old))
            fallback = old.get_session_auth_hash()
        changed = self.make_user("changed", 1)
        changed_key = make_session(changed)
        User.objects.filter(pk=changed.pk).update(password="other")
        ticket = self.ticket(users[0], make_session(users[0]))
        found += [
            handshake(make_session(None)),
            handshake(make_session(None, color="red")),
            handshake(make_session(other)),  # deleted since
            handshake(make_session(users[0], "unknown.Backend")),
            handshake(make_session(users[0], **{SESSION_KEY: "no number"})),
            handshake(make_session(users[0], **{SESSION_KEY: None})),
            handshake(make_session(users[0], **{HASH_SESSION_KEY: ""})),
            handshake(make_session(old, **{HASH_SESSION_KEY: fallback})),
            signed_before,
            handshake(changed_key),
            handshake(make_session(users[1], _session_expiry=(now() + timedelta(1)).isoformat())),
            handshake(make_session(users[1], **{"ws4redis:memberof": ["shared 0", "room"]})),
            handshake(self.expired(users[2])),
            handshake(self.corrupt(users[2])),
            handshake(self.deleted(users[2])),
            handshake(make_session(users[3]).upper()),
            handshake(redeemed=ticket),
            handshake(redeemed=self.ticket(users[1], None)),
            handshake(redeemed=self.ticket(changed, changed_key)),
            handshake(make_session(users[5]), redeemed=self.ticket(users[4], "gone" * 8)),
            *(handshake(key) for key in (None, "", "short", "x" * 32, "é" * 20, "y" * 150)),
        ]  # fmt: skip
        return random.sample(found, 40)

    def ticket(self, user: Any, key: str | None) -> str:
        from json import dumps

        items = {
            SESSION_KEY: str(user.pk), BACKEND_SESSION_KEY: STOCK,
            HASH_SESSION_KEY: user.get_session_auth_hash(),
        }  # fmt: skip
        return dumps({
            "user_id": str(user.pk), "session": key, "user": {} if key else items,
            "facility": None, "rights": None,
        })  # fmt: skip

    def rows(self, key: str) -> Any:
        return Session.objects.filter(session_key=key)

    def expired(self, user: Any) -> str:
        key = make_session(user)
        self.rows(key).update(expire_date=datetime(2020, 1, 1, tzinfo=now().tzinfo))
        return key

    def corrupt(self, user: Any) -> str:
        key = make_session(user)
        self.rows(key).update(session_data="nonsense")
        return key

    def deleted(self, user: Any) -> str:
        key = make_session(user)
        import_module(settings.SESSION_ENGINE).SessionStore(key).delete()
        return key

    def test_everybody_is_told_the_same(self) -> None:
        self.override(SECRET_KEY_FALLBACKS=["old" * 20])
        for seed in range(SEEDS):
            for engine in ENGINES:
                self.use(engine)
                with transaction.atomic():  # one write to the disk
                    User.objects.filter(username__startswith="shares ").delete()
                    population = self.population(Random(seed))
                self.assert_same(population)

    def test_user_models_without_groups_or_with_those_of_a_parent(self) -> None:
        """In separate processes, because the setting cannot be overridden."""
        self.assertEqual(self.check_accounts("accounts"), "True 2")
        # Groups belong to the parent, whose primary keys are others: each is asked for theirs.
        self.assertEqual(self.check_accounts("employees"), "True 7")

    def check_accounts(self, settings: str) -> str:
        made = python(
            "-c",
            "import django; django.setup()\n"
            "from django.core.management import call_command\n"
            "call_command('migrate', run_syncdb=True, verbosity=0)\n"
            "from tests.projects.sharing_accounts import check\n"
            "print(check())\n",
            **environment(),
            DJANGO_SETTINGS_MODULE=f"tests.projects.django_project.{settings}",
        )
        self.assertEqual(made.returncode, 0, made.stderr)
        return made.stdout.split("\n")[-2]


class FailureTests(SharingTestCase):
    def test_one_whose_callback_raises_fails_alone(self) -> None:
        def grant(request: Any, rights: list[str]) -> list[str]:
            if request.user.username == "shares 1":
                raise LookupError("deliberate")
            return rights

        self.override(WS4REDIS_ALLOWED_CHANNELS=grant)
        keys = [make_session(self.make_user(number)) for number in range(4)]
        answers = self.together(list(map(handshake, keys)))
        self.assertIsInstance(answers.pop(1), LookupError)
        self.assertEqual([each.rights for each in answers], [RIGHTS] * 3)

    def test_a_question_that_fails_for_many_is_asked_for_each(self) -> None:
        """As PostgreSQL's does for a text with a NUL character in it."""
        keys = [make_session(self.make_user(number, 1)) for number in range(4)]
        for table in ("django_session", "auth_user", "auth_group"):
            execute = CursorWrapper.execute

            def fail(
                self: Any, sql: str, params: Any = None, table: str = table, execute: Any = execute
            ) -> Any:
                if f'FROM "{table}"' in sql and " IN (" in sql:
                    raise ValueError("deliberate")
                return execute(self, sql, params)

            with mock.patch.object(CursorWrapper, "execute", fail):
                answers = self.together(list(map(handshake, keys)))
            self.assertEqual([each.identity.groups for each in answers], [("shared 1",)] * 4)

    def test_a_cache_that_is_down_costs_one_call_and_the_database_answers(self) -> None:
        calls: list[str] = []

        class Down:
            def get(self, key: str, *_: Any) -> Any:
                calls.append(key)
                raise ConnectionError("deliberate")

            get_many = get

        self.use("cached_db")
        keys = [make_session(self.make_user(number, 1)) for number in range(10)]
        with mock.patch.object(cached_db, "caches", {"default": Down()}), statements() as found:
            answers = self.together(list(map(handshake, keys)))
        self.assertEqual([each.identity.groups for each in answers], [("shared 1",)] * 10)
        self.assertEqual(len(calls), 1)
        self.assertEqual(len(found), 3)

    def test_a_common_question_that_fails_is_tried_once(self) -> None:
        self.use("cache")
        tried: list[Any] = []

        class Down:
            def get_many(self, keys: Any) -> Any:
                tried.append(keys)
                raise ConnectionError("deliberate")

            def get(self, key: str, *_: Any) -> Any:
                raise ConnectionError("deliberate")

        keys = [make_session(self.make_user(number)) for number in range(10)]
        with mock.patch.object(cache_only, "caches", {"default": Down()}):
            answers = self.together(list(map(handshake, keys)))
        self.assertEqual([type(each) for each in answers], [ConnectionError] * 10)
        self.assertEqual(len(tried), 1)

    def test_a_database_that_is_down_is_an_outage_for_each(self) -> None:
        keys = [make_session(self.make_user(number)) for number in range(4)]
        connections.close_all()
        with mock.patch.dict(connections.settings["default"], NAME="/nonexistent/db.sqlite3"):
            answers = self.together(list(map(handshake, keys)))
        connections.close_all()
        for each in answers:
            judged = self.authorizer._outages.judge(Failure(each)).value
            self.assertIsInstance(judged, Outage)

    def test_a_database_that_takes_different_texts_for_equal_is_not_asked_about_many(self) -> None:
        class Row:
            name = "john"

        class Manager:
            def __init__(self, rows: list[Row]) -> None:
                self.rows = rows

            def filter(self, name__in: Any) -> list[Row]:
                return self.rows

        for rows, names, found in (
            ([Row()], {"john", "mary"}, True), ([Row()], {"JOHN"}, False),
            ([Row(), Row()], {"john"}, False), ([], {"john"}, True),
        ):  # fmt: skip
            answer = read_rows(Manager(rows), "name", names)
            self.assertEqual(answer is not None, found)

    def test_a_session_key_in_capitals_is_asked_for_alone(self) -> None:
        """A database may take it for equal to one in small letters."""
        key = make_session(self.make_user("john"))
        asked: list[Any] = []
        execute = CursorWrapper.execute

        def remember(self: Any, sql: str, params: Any = None) -> Any:
            if 'FROM "django_session"' in sql:
                asked.append([each for each in params if isinstance(each, str) and len(each) > 30])
            return execute(self, sql, params)

        keys = [key, key.upper(), make_session(self.make_user("mary"))]
        with mock.patch.object(CursorWrapper, "execute", remember):
            self.together(list(map(handshake, keys)))
        self.assertEqual(len(asked), 2)
        self.assertIn([key.upper()], asked)

    def test_an_engine_that_names_its_model_itself_is_asked_about_that(self) -> None:
        class Own(Session):
            class Meta:
                proxy = True
                app_label = "sessions"
                apps = Apps()

        class SessionStore(db_engine.SessionStore):
            model = Own

        asked: list[Any] = []
        manager: Any = type(Own.objects)
        get_queryset = manager.get_queryset

        def remember(manager: Any) -> Any:
            asked.append(manager.model)
            return get_queryset(manager)

        own_engine: Any = SimpleNamespace(SessionStore=SessionStore)
        with mock.patch.dict(sys.modules, own_engine=own_engine):
            self.override(SESSION_ENGINE="own_engine")
            keys = [make_session(self.make_user(number)) for number in range(4)]
            with mock.patch.object(manager, "get_queryset", remember), statements() as found:
                answers = self.together(list(map(handshake, keys)))
        self.assertTrue(all(each.identity.username for each in answers))
        self.assertEqual(set(asked), {Own})
        self.assertEqual(len(found), 3)

    def test_a_manager_of_ones_own_is_asked_for_each(self) -> None:
        get = type(User._default_manager).get

        def own(manager: Any, *args: Any, **kwargs: Any) -> Any:
            return get(manager, *args, **kwargs)

        keys = [make_session(self.make_user(number)) for number in range(4)]
        with mock.patch.object(type(User._default_manager), "get", own), statements() as found:
            self.together(list(map(handshake, keys)))
        self.assertEqual(sum('FROM "auth_user"' in each for each in found), 4)


class TenantTests(SharingTestCase):
    """Two tenants with a database each, in which John's session, name and number are the same."""

    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.mkdtemp(prefix="ws4redis-tx-")
        self.addCleanup(shutil.rmtree, folder)
        self.john = self.make_user("john", 0)
        self.key = make_session(self.john)
        others = [make_session(self.make_user(number)) for number in range(3)]
        self.keys = [self.key, *others]
        second = Path(folder) / "second.sqlite3"
        shutil.copy(settings.DATABASES["default"]["NAME"], second)
        known = mock.patch.dict(
            connections.settings,
            second={**connections.settings["default"], "NAME": str(second)},
        )
        known.start()
        self.addCleanup(known.stop)
        self.addCleanup(lambda: (connections["second"].close(), connections.__delitem__("second")))
        john = User.objects.using("second").get(pk=self.john.pk)
        john.groups.set([Group.objects.using("second").get(name="shared 1")])
        User.objects.using("second").filter(pk=self.john.pk).update(first_name="second")
        self.chosen = chosen = threading.local()

        class Router:
            def db_for_read(self, model: Any, **hints: Any) -> str:
                return str(chosen.database)

        def tenant_of(request: Any) -> str:
            self.asked += 1
            tenant = request.headers["X-Tenant"]
            chosen.database = "second" if tenant == "b" else "default"
            return str(tenant)

        self.asked = 0
        self.override(WS4REDIS_TENANT=tenant_of, DATABASE_ROUTERS=[Router()])
        self.addCleanup(lambda: setattr(chosen, "database", "default"))

    def of(self, tenant: str, key: str | None = None, host: str | None = None) -> Handshake:
        """A handshake of a tenant's visitor: each tenant has a host, unless it is given."""
        host = f"{tenant}.localhost" if host is None else host
        return handshake(self.key if key is None else key, X_Tenant=tenant, Host=host)

    def test_each_is_looked_up_in_their_own_tenants_database(self) -> None:
        """Also if the hosts do not say whose site it is."""
        seen: list[tuple[str, str]] = []

        def grant(request: Any, rights: list[str]) -> list[str]:
            names = User.objects.get(pk=request.user.pk).groups.values_list("name", flat=True)
            seen.append((request.headers["X-Tenant"], *names))
            self.chosen.database = "nonsense"  # whatever a callback leaves behind
            return rights

        self.override(WS4REDIS_ALLOWED_CHANNELS=grant)
        for seed in range(20):
            random = Random(seed)
            tenants = random.choices("ab", k=8)
            seen.clear()
            self.asked = 0
            hosts = random.choice([(None,), ("one",), ("one", "other")])
            answers = self.together([self.of(each, host=random.choice(hosts)) for each in tenants])
            self.assertEqual(self.asked, 8)  # once for each handshake
            expected = {"a": ("shared 0",), "b": ("shared 1",)}
            for tenant, answer in zip(tenants, answers, strict=True):
                self.assertEqual(answer.identity.tenant, tenant)
                self.assertEqual(answer.identity.groups, expected[tenant])
                database = {"a": "default", "b": "second"}[tenant]
                self.assertEqual(answer.request.user._state.db, database)
            self.assertEqual(seen, [(each, *expected[each]) for each in tenants])

    def test_those_of_one_tenant_share_their_queries(self) -> None:
        handshakes = [self.of(tenant, key) for key in self.keys for tenant in "ab"]
        with statements() as found:
            self.together(handshakes)
        self.assertEqual(len(found), 6)
        self.assertEqual(self.asked, 8)

    def test_a_wrong_guess_costs_those_who_are_asked_about_alone_nothing_more(self) -> None:
        handshakes = [self.of(tenant, key, host="one") for key in self.keys for tenant in "ab"]
        with statements() as found:
            self.together(handshakes)
        self.assertEqual(len(found), 3 + 4 * 3)
        self.assertEqual(self.asked, 8)

    def test_one_whose_tenant_is_refused_harms_nobody_else(self) -> None:
        tenants = ["a", "", "b", "a:b", "b", "a"]
        answers = self.together([self.of(each, host="one") for each in tenants])
        self.assertEqual(
            [getattr(each, "identity", None) and each.identity.groups for each in answers],
            [("shared 0",), None, ("shared 1",), None, ("shared 1",), ("shared 0",)],
        )

    def test_who_comes_alone_has_their_tenant_asked_for_once(self) -> None:
        self.alone([self.of("a")])
        self.assertEqual(self.asked, 1)


class ThreadTests(TestCase):
    """The same through the authorizer's threads."""

    timeout = 60

    @inlineCallbacks
    def test_who_waits_together_is_looked_up_together(self) -> Any:
        authorizer = DjangoAuthorizer(reactor)
        self.addCleanup(authorizer.stop)
        john = User.objects.get(username="john")
        key = make_session(john)
        with statements() as found:
            asked = [authorizer.authorize(handshake(key), RIGHTS) for _ in range(50)]
            answers = yield gather(asked).addTimeout(TIMEOUT, reactor)
        self.assertEqual({each.identity.username for each in answers}, {"john"})
        selected = [each for each in found if each.startswith("SELECT ")]
        self.assertLessEqual(len(selected), 3)

    @inlineCallbacks
    def assert_one_hangs_alone(self, handshakes: Sequence[Handshake], hung: Any) -> Any:
        """Check that everybody else is answered while the first one's look-up hangs."""
        authorizer = DjangoAuthorizer(reactor)
        self.addCleanup(authorizer.stop)
        gate = threading.Event()
        self.addCleanup(gate.set)
        with hung(gate):
            hanging, *asked = [authorizer.authorize(each, RIGHTS) for each in handshakes]
            answers = yield gather(asked).addTimeout(TIMEOUT, reactor)
            self.assertEqual({each.identity.username for each in answers}, {"john"})
            self.assertNoResult(hanging)
            gate.set()
            answer = yield hanging.addTimeout(TIMEOUT, reactor)
        self.assertEqual(answer.identity.username, "john")

    @inlineCallbacks
    def test_a_common_query_that_hangs_keeps_nobody_else_waiting(self) -> Any:
        key = make_session(User.objects.get(username="john"))
        execute = CursorWrapper.execute

        def hung(gate: threading.Event) -> Any:
            def hang(self: Any, sql: str, params: Any = None) -> Any:
                if " IN (" in sql:
                    gate.wait(TIMEOUT)
                return execute(self, sql, params)

            return mock.patch.object(CursorWrapper, "execute", hang)

        yield self.assert_one_hangs_alone([handshake(key)] * 20, hung)

    @inlineCallbacks
    def test_a_tenant_callable_that_hangs_keeps_nobody_else_waiting(self) -> Any:
        key = make_session(User.objects.get(username="john"))
        handshakes = [handshake(key, X_Tenant=f"t{number}") for number in range(20)]

        def hung(gate: threading.Event) -> Any:
            def tenant_of(request: Any) -> str:
                tenant = str(request.headers["X-Tenant"])
                if tenant == "t0":
                    gate.wait(TIMEOUT)
                return tenant

            return override_settings(WS4REDIS_TENANT=tenant_of)

        yield self.assert_one_hangs_alone(handshakes, hung)

    def test_rechecks_that_wait_together_share_their_queries(self) -> None:
        clock = Clock()
        key = make_session(User.objects.get(username="john"))
        asked: list[tuple[Visitor, Deferred[Any]]] = []

        def check(member: int) -> Deferred[None]:
            asked.append((Visitor(handshake(key), RIGHTS), Deferred()))
            return asked[-1][1]

        queue: RecheckQueue[int] = RecheckQueue(check, clock)
        authorizer = DjangoAuthorizer(Quiet())
        with statements() as found:
            for member in range(62):
                queue.eventually(member)
            clock.advance(0)
            rounds = []
            while asked:
                rounds.append(len(asked))
                together, asked[:] = list(asked), []
                waiting = [visitor for visitor, _ in together]
                with mock.patch.object(authorizer, "_waiting", waiting.copy):
                    while waiting:
                        authorizer._authorize(waiting.pop(0))
                for _, done in together:
                    done.callback(None)
                clock.advance(0)
        self.assertEqual(rounds, [2, 4, 8, 16, 32])
        self.assertEqual(len(found), 3 * len(rounds))
