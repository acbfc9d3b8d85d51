"""Django's session stores, for a lookup that changes nothing and that notices an outage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from django.contrib.sessions.backends import cache as cache_only
from django.contrib.sessions.backends import cached_db
from django.contrib.sessions.backends import db as database
from django.contrib.sessions.backends import file as in_files
from django.contrib.sessions.backends import signed_cookies as in_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone

from ws4redis_tx.core.outages import is_outage
from ws4redis_tx.django.databases import close_broken, is_plain, read_rows

# Others may make a question about many fail, or be equal to another one in a database's eyes.
_USUAL_KEY = re.compile(r"[A-Za-z0-9_-]{8,40}")


@dataclass(frozen=True, slots=True)
class _Fetched:
    value: Any
    """``None`` if there is none."""


class _ReadOnlyCache:
    """A cache that ignores writes.

    The ``cached_db`` engine caches each session that it loads. This could restore a session that
    was logged out in the meantime.
    """

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.outage: Exception | None = None
        """The failure of a read, if the cache could not be reached."""
        self.fetched: _Fetched | None = None
        """What the next read returns."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        fetched, self.fetched = self.fetched, None
        try:
            return self.cache.get(*args, **kwargs) if fetched is None else fetched.value
        except Exception as error:
            if is_outage(error):
                self.outage = error
            raise

    def set(self, *args: Any, **kwargs: Any) -> None:
        pass

    delete = add = set


@cache
def read_only_store(engine: str) -> type[SessionBase]:
    """The engine's session store, with writes that do nothing: some engines write while loading."""

    def ignore(self: SessionBase, *args: Any, **kwargs: Any) -> None:
        pass

    def forget_key(self: SessionBase) -> None:
        self._session_key = None

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        store.__init__(self, *args, **kwargs)
        if hasattr(self, "_cache"):
            self._cache = _ReadOnlyCache(self._cache)

    def load(self: Any) -> Any:
        data = store.load(self)  # takes a cache that is down for one without this session
        outage = getattr(getattr(self, "_cache", None), "outage", None)
        if outage is not None:
            raise outage
        return data

    def find_row(self: Any) -> Any:
        fetched, self._ws4redis_fetched = self._ws4redis_fetched, None
        if fetched is None:
            row = store._get_session_from_db(self)
        else:
            row = fetched.value
            if row is None:
                self._session_key = None
        self._ws4redis_expires = getattr(row, "expire_date", None)
        return row

    store = import_module(engine).SessionStore
    methods: dict[str, Any] = dict.fromkeys(("save", "delete", "flush", "cycle_key"), ignore)
    # Django signs session data with a salt that contains this name.
    methods |= {"create": forget_key, "__init__": initialize, "__qualname__": store.__qualname__}
    if hasattr(store, "_get_session_from_db"):
        methods |= {"_get_session_from_db": find_row, "_ws4redis_fetched": None}
    else:
        methods["load"] = load
    return type(store.__name__, (store,), methods)


def fetch_together(sessions: Sequence[SessionBase]) -> list[SessionBase]:
    """Fetch what these read-only sessions will load: they are of one engine, tenant and database,
    and none of them is loaded yet. Return those that load without waiting for anybody now.

    Sessions of an engine that loads in a way of its own are left alone, and so are all if the
    question fails.
    """
    asking = [each for each in sessions if each.session_key]
    if len(asking) < 2:
        return []
    engine: Any = type(asking[0]).__mro__[1]
    if engine.load in (in_cookies.SessionStore.load, in_files.SessionStore.load):
        return asking
    asking = [each for each in asking if _USUAL_KEY.fullmatch(each.session_key or "")]
    in_cache: list[SessionBase] = []
    if engine.load in (cache_only.SessionStore.load, cached_db.SessionStore.load):
        in_cache = _fetch_from_cache(asking, last=engine.load is cache_only.SessionStore.load)
        known = set(map(id, in_cache))
        asking = [each for each in asking if id(each) not in known]
    return in_cache + (_fetch_rows(asking, engine) if _reads_rows(engine) else [])


def _fetch_from_cache(sessions: Sequence[Any], last: bool) -> list[SessionBase]:
    """Return those that need no database: all of them, if the cache has the ``last`` word."""
    if not sessions:
        return []
    cache = sessions[0]._cache.cache
    if any(each._cache.cache is not cache for each in sessions):
        return []
    try:
        found = cache.get_many({each.cache_key for each in sessions})
        used = set[str]()
        for each in sessions:
            key = each.cache_key
            value = found.get(key)
            # A callback may change its request's session.
            each._cache.fetched = _Fetched(deepcopy(value) if key in used else value)
            used.add(key)
    except Exception:
        return []
    return [each for each in sessions if last or each._cache.fetched.value is not None]


def _reads_rows(engine: Any) -> bool:
    """Whether it finds a session as Django's ``db`` does."""
    django: Any = database.SessionStore
    return (
        engine.load in (django.load, cached_db.SessionStore.load)
        and engine._get_session_from_db is django._get_session_from_db
        and is_plain(engine.get_model_class().objects)
    )


def _fetch_rows(sessions: Sequence[Any], engine: Any) -> list[SessionBase]:
    if not sessions:
        return []
    keys = {each.session_key for each in sessions}
    try:
        found = read_rows(
            engine.get_model_class().objects, "session_key", keys, expire_date__gt=timezone.now()
        )
    except Exception:
        close_broken()
        return []
    if found is None:
        return []
    for each in sessions:
        each._ws4redis_fetched = _Fetched(found.get(each.session_key))
    return list(sessions)
