"""Django's session stores, for a lookup that changes nothing and that notices an outage."""

from __future__ import annotations

import pickle
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache, partial
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.sessions.backends import cache as cache_only
from django.contrib.sessions.backends import cached_db
from django.contrib.sessions.backends import db as database
from django.contrib.sessions.backends import file as in_files
from django.contrib.sessions.backends import signed_cookies as in_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.utils import timezone

from ws4redis_tx.core.errors import is_outage
from ws4redis_tx.django.databases import is_plain, read_rows

# The alphabet of Django's own keys. Others may make a question about many fail, or differ in case
# alone from one that a database takes for equal.
_USUAL_KEY = re.compile(r"[a-z0-9]{8,40}")


class _ReadOnlyCache:
    """A cache that ignores writes.

    The ``cached_db`` engine caches each session that it loads. This could restore a session that
    was logged out in the meantime.
    """

    def __init__(self, cache: Any) -> None:
        self.cache = cache
        self.outage: Exception | None = None
        """The failure of a read, if the cache could not be reached."""
        self.fetched: Callable[[], Any] | None = None
        """Returns what the next read returns."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        fetched, self.fetched = self.fetched, None
        try:
            return self.cache.get(*args, **kwargs) if fetched is None else fetched()
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
            row = fetched()
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


def fetch_together(sessions: Sequence[Any]) -> list[Any]:
    """Fetch what these read-only sessions will load: they are of one engine, tenant and database,
    made in this thread, and not loaded yet. Return those that need no query to load now. Two of
    them with one key will load the same, but no object twice.

    Sessions of an engine that loads in a way of its own are not among them. Raises what the
    question raises.
    """
    asking = [each for each in sessions if each.session_key]
    if not asking:
        return []
    engine: Any = type(asking[0]).__mro__[1]
    if engine.load is in_cookies.SessionStore.load:
        return asking
    if engine.load is in_files.SessionStore.load:  # a second reading may find another content
        return list({each.session_key: each for each in asking}.values())
    asking = [each for each in asking if _USUAL_KEY.fullmatch(each.session_key)]
    in_cache: list[Any] = []
    if asking and engine.load in (cache_only.SessionStore.load, cached_db.SessionStore.load):
        in_cache = _fetch_from_cache(asking, last=engine.load is cache_only.SessionStore.load)
        known = set(map(id, in_cache))
        asking = [each for each in asking if id(each) not in known]
    return in_cache + (_fetch_rows(asking) if asking and _reads_rows(asking[0], engine) else [])


def _fetch_from_cache(sessions: Sequence[Any], last: bool) -> list[Any]:
    """Return those that need no database: all of them, if the cache has the ``last`` word. If it
    has not, a cache that fails has nothing, as for Django.
    """
    cache = sessions[0]._cache.cache
    if any(each._cache.cache is not cache for each in sessions):
        return []
    tabs = Counter(each.cache_key for each in sessions)
    try:
        found = cache.get_many(list(tabs))
    except Exception:
        if last:
            raise
        found = {}
    # A callback may change its request's session.
    copies = {key: pickle.dumps(value) for key, value in found.items() if tabs[key] > 1}
    for each in sessions:
        key = each.cache_key
        read = partial(pickle.loads, copies[key]) if key in copies else partial(found.get, key)
        each._cache.fetched = read
    return [each for each in sessions if last or found.get(each.cache_key) is not None]


def _reads_rows(session: Any, engine: Any) -> bool:
    """Whether its engine finds a session as Django's ``db`` does."""
    django: Any = database.SessionStore
    return (
        engine.load in (django.load, cached_db.SessionStore.load)
        and engine._get_session_from_db is django._get_session_from_db
        and is_plain(session.model.objects)
    )


def _fetch_rows(sessions: Sequence[Any]) -> list[Any]:
    keys = {each.session_key for each in sessions}
    rows = sessions[0].model.objects
    found = read_rows(rows, "session_key", keys, expire_date__gt=timezone.now())
    if found is None:
        return []
    for each in sessions:
        each._ws4redis_fetched = partial(found.get, each.session_key)
    return list(sessions)


def expiry_of(session: Any) -> float | None:
    """When the session expires, in seconds since the epoch.

    The date comes from its row, or from the session if an expiry date was set there. Other engines
    know at most an age, hence ``None``. Does not query the database.
    """
    if isinstance(session, in_cookies.SessionStore):
        return None  # Django accepts a signed cookie even after its session's expiry
    when = getattr(session, "_ws4redis_expires", None)
    if when is None and isinstance(session, SessionBase) and session.session_key:
        when = session.get("_session_expiry")
        if isinstance(when, str):  # from the JSON serializer
            with suppress(ValueError):
                when = datetime.fromisoformat(when)
    return when.timestamp() if isinstance(when, datetime) else None


def session_store() -> type[SessionBase]:
    return read_only_store(settings.SESSION_ENGINE)
