"""Fetches for several visitors together what each of them would ask the database or a cache for.

Three queries serve them all: for their sessions, their users, and their users' groups. Only what
Django itself would look up by a key is fetched so. Where the answer could differ (a backend or a
manager of the site's own, a question that fails), nothing is fetched, and each visitor asks alone.
Nothing is decided here, and no callback of the site is called.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
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
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.django.databases import close_broken, is_plain, read_rows
from ws4redis_tx.django.session_stores import fetch_together, session_store
from ws4redis_tx.django.visitors import (
    NOTHING,
    Fetched,
    Visitor,
    session_key_in,
    user_of,
)
from ws4redis_tx.tickets import redeem, shows_token, will_ask_redis

# A visitor, their session and the key that it was found by, and what the session says of the user.
_Known = tuple[Visitor, str | None, SessionBase | None, tuple[str, Any] | None]


def fetch_for(visitor: Visitor, waiting: Callable[[], Iterable[Visitor]]) -> None:
    """Fetch for this visitor, whose tenant this thread has asked for, and for those ``waiting`` who
    seem to be of the same tenant. They are asked for together once: if that fails, or while it
    hangs, each of them asks alone.
    """
    if visitor.fetched is not None or _comes_alone(visitor.handshake):
        return
    if django_settings.get_callable("WS4REDIS_PROCESS_REQUEST") is not None:
        return  # it finds session and user in its own way
    together = [visitor, *(each for each in waiting() if _fits(each, visitor))]
    if len(together) < 2:
        return
    for each in together:
        each.fetched = NOTHING
    try:
        _fetch(together, visitor.tenant)
    except Exception:
        close_broken()


def _comes_alone(handshake: Handshake) -> bool:
    """Whether the database has no answer before the visitor's ticket is used up, or none at all."""
    return shows_token(handshake) or will_ask_redis(handshake)


def _fits(other: Visitor, visitor: Visitor) -> bool:
    """A guess, because only one visitor's tenant may have been asked for."""
    ours, theirs = visitor.handshake, other.handshake
    if other.fetched is not None or _comes_alone(theirs):
        return False
    return not visitor.tenant or ours.headers["host"] == theirs.headers["host"]


def _fetch(visitors: Sequence[Visitor], tenant: str) -> None:
    known = list(_known(visitors, tenant))
    users = _fetch_users({named[1] for *_, named in known if named is not None})
    groups = _fetch_groups(users)
    used = set[Any]()
    fetched: list[tuple[Visitor, Fetched]] = []
    for visitor, key, session, named in known:
        primary_key = None if named is None else named[1]
        user = users.get(primary_key)
        if primary_key in used:
            user = deepcopy(user)  # a callback may change its request's user
        used.add(primary_key)
        found = Fetched(tenant, key, session, named, user, groups.get(primary_key))
        fetched.append((visitor, found))
    for visitor, found in fetched:  # from now on, another thread may use it
        visitor.fetched = found


def _known(visitors: Sequence[Visitor], tenant: str) -> Iterator[_Known]:
    """Those whose session, or ticket in its place, is at hand. A user whom a backend of the site's
    own would find is left out.
    """
    made: list[tuple[Visitor, str | None, SessionBase]] = []
    for visitor in visitors:
        with suppress(Exception):
            ticket = redeem(visitor.handshake, tenant)
            if ticket is not None and ticket.session is None:
                yield visitor, None, None, _plain_user(ticket.user)
            else:
                key = session_key_in(visitor.handshake) if ticket is None else ticket.session
                made.append((visitor, key, session_store()(key)))
    fetched = set(map(id, fetch_together([session for *_, session in made])))
    users: dict[str | None, tuple[str, Any] | None] = {}
    for visitor, key, session in made:
        # Another session may need its own thread's connection to a cache.
        if id(session) in fetched:
            with suppress(Exception):
                if key not in users:  # one of many tabs is decoded here
                    users[key] = _plain_user(session)
                yield visitor, key, session, users[key]


def _plain_user(session: SessionBase | Mapping[str, str]) -> tuple[str, Any] | None:
    """The session's user, if a backend finds them as Django's ``ModelBackend`` does."""
    named = user_of(session)
    if named is not None and type(load_backend(named[0])).get_user is ModelBackend.get_user:
        return named
    return None


def _fetch_users(keys: Collection[Any]) -> dict[Any, Any]:
    """Users by primary key. Nobody, if the rows cannot be told apart."""
    manager = get_user_model()._default_manager
    return (read_rows(manager, "pk", keys) or {}) if keys and is_plain(manager) else {}


def _fetch_groups(users: Mapping[Any, Any]) -> dict[Any, tuple[str, ...]]:
    """The names of users' groups, by the user's primary key."""
    field = _plain_groups(get_user_model())
    if field is None:
        return {}
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
    return {key: tuple(found) for key, found in names.items()}


@cache
def _plain_groups(model: Any) -> Any:
    """The user model's own field ``groups``, if it leads to groups with names as Django's does. One
    that belongs to a parent model would be asked about the parent's primary keys.
    """
    try:
        field = model._meta.get_field("groups")
        groups = field.remote_field.model
        groups._meta.get_field("name")
    except (AttributeError, FieldDoesNotExist):
        return None
    descriptor = getattr_static(model, "groups", None)
    plain = type(descriptor) is ManyToManyDescriptor and not descriptor.reverse
    own = field.model._meta.concrete_model is model._meta.concrete_model
    return field if plain and own and is_plain(groups._default_manager) else None
