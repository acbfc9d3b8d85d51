"""Fetches for several visitors together what each of them would ask the database or a cache for.

Three queries serve them all: for their sessions, their users, and their users' groups. Only what
Django itself would look up by a key is fetched so. A visitor for whom the answer could differ (a
backend or a manager of the site's own, a question that fails) is left as it was, and looked up
alone. Nothing is decided here, and no callback of the site is called but ``WS4REDIS_TENANT``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from functools import cache
from inspect import getattr_static
from typing import Any

from django.contrib.auth import get_user_model, load_backend
from django.contrib.auth.backends import ModelBackend
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import FieldDoesNotExist
from django.db import router
from django.db.models.fields.related_descriptors import ManyToManyDescriptor

from ws4redis_tx.config import django_settings
from ws4redis_tx.django.databases import close_broken, is_plain, read_rows
from ws4redis_tx.django.session_stores import fetch_together
from ws4redis_tx.django.visitors import Visitor, user_of
from ws4redis_tx.tickets import redeem, will_ask_redis

# A visitor, the backend that finds their user, and the user's primary key.
_Named = tuple[Visitor, Any, Any]


def fetch_for(visitors: Sequence[Visitor]) -> None:
    """Fetch what these visitors have in common. Returns having fetched less if something fails:
    whoever is looked up alone fails alone.
    """
    if django_settings.get_callable("WS4REDIS_PROCESS_REQUEST") is not None:
        return  # it finds session and user in its own way
    for members in _by_tenant(visitors):
        try:
            with suppress(Exception):
                _fetch_for_one_tenant(members)
        finally:
            close_broken()


def _by_tenant(visitors: Iterable[Visitor]) -> Iterator[list[Visitor]]:
    """Groups of visitors of one tenant, whose database or schema is chosen while a group is used.
    Those who are left alone are in none.
    """
    tenants: dict[str, list[Visitor]] = {}
    for visitor in visitors:
        if not will_ask_redis(visitor.handshake):
            with suppress(Exception):
                visitor.ask_tenant()
                tenants.setdefault(visitor.tenant, []).append(visitor)
    for tenant, members in tenants.items():
        if len(members) > 1 and (not tenant or _is_still(tenant, members[0])):
            yield members


def _is_still(tenant: str, visitor: Visitor) -> bool:
    """Ask again: the site's callable may have chosen another tenant's database since."""
    with suppress(Exception):
        visitor.ask_tenant()
        return visitor.tenant == tenant
    return False


def _fetch_for_one_tenant(visitors: Sequence[Visitor]) -> None:
    named: list[_Named] = []
    backends: dict[str, Any] = {}
    for visitor, items in _known_items(visitors):
        with suppress(Exception):
            user = user_of(items)
            if user is not None:
                path, key = user
                if path not in backends:
                    backends[path] = _plain_backend(path)
                if backends[path] is not None:
                    named.append((visitor, backends[path], key))
    if len(named) > 1:
        _fetch_users(named)
        _fetch_groups([visitor for visitor, _, _ in named if visitor.found is not None])


def _known_items(visitors: Sequence[Visitor]) -> Iterator[tuple[Visitor, Any]]:
    """Visitors with the items of their sessions, or their tickets', as far as these are fetched."""
    made: list[tuple[Visitor, SessionBase]] = []
    for visitor in visitors:
        visitor.ticket = ticket = redeem(visitor.handshake, visitor.tenant)
        if ticket is not None and ticket.session is None:
            yield visitor, ticket.user
        else:
            made.append((visitor, visitor.make_session()))
    fetched = set(map(id, fetch_together([session for _, session in made])))
    for visitor, session in made:
        if id(session) in fetched:  # another one may need its own thread's connection to a cache
            visitor.session = session
            yield visitor, session


def _plain_backend(path: str) -> Any:
    """The backend, if it finds users as Django's ``ModelBackend`` does."""
    backend = load_backend(path)
    plain = type(backend).get_user is ModelBackend.get_user
    return backend if plain and is_plain(get_user_model()._default_manager) else None


def _fetch_users(named: Sequence[_Named]) -> None:
    """Somebody who is not found is left alone, as is everybody if the rows cannot be told apart."""
    keys = {key for _, _, key in named}
    found = read_rows(get_user_model()._default_manager, "pk", keys) or {}
    used = set[Any]()
    for visitor, backend, key in named:
        user = found.get(key)
        if user is not None:
            # A callback may change its request's user.
            visitor.found = backend, copy(user) if key in used else user
            used.add(key)


def _fetch_groups(visitors: Sequence[Visitor]) -> None:
    users = {}
    for visitor in visitors:
        assert visitor.found is not None
        users[visitor.found[1].pk] = visitor.found[1]
    field = _plain_groups(get_user_model())
    if field is None or not users:
        return
    model = field.remote_field.model
    databases: dict[str, list[Any]] = {}
    for key, user in users.items():
        databases.setdefault(router.db_for_read(model, instance=user), []).append(key)
    owner = f"{field.related_query_name()}__pk"
    names: dict[Any, list[str]] = {key: [] for key in users}
    for database, keys in databases.items():
        groups = model._default_manager.using(database).filter(**{f"{owner}__in": keys})
        for key, name in groups.values_list(owner, "name"):
            names[key].append(name)
    for visitor in visitors:
        assert visitor.found is not None
        visitor.groups = tuple(names[visitor.found[1].pk])


@cache
def _plain_groups(model: Any) -> Any:
    """The user model's field ``groups``, if it leads to groups with names as Django's own does."""
    try:
        field = model._meta.get_field("groups")
        groups = field.remote_field.model
        groups._meta.get_field("name")
    except (AttributeError, FieldDoesNotExist):
        return None
    descriptor = getattr_static(model, "groups", None)
    plain = type(descriptor) is ManyToManyDescriptor and not descriptor.reverse
    return field if plain and is_plain(groups._default_manager) else None
