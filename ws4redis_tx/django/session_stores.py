"""Django's session stores, for a lookup that changes nothing and that notices an outage."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from ws4redis_tx.core.outages import is_outage


class _ReadOnlyCache:
    """A cache that ignores writes.

    The ``cached_db`` engine caches each session that it loads. This could restore a session that
    was logged out in the meantime.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self.outage: Exception | None = None
        """The failure of a read, if the cache could not be reached."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._cache.get(*args, **kwargs)
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

    def remember_expiry(self: Any) -> Any:
        row = store._get_session_from_db(self)
        self._ws4redis_expires = getattr(row, "expire_date", None)
        return row

    store = import_module(engine).SessionStore
    methods: dict[str, Any] = dict.fromkeys(("save", "delete", "flush", "cycle_key"), ignore)
    # Django signs session data with a salt that contains this name.
    methods |= {"create": forget_key, "__init__": initialize, "__qualname__": store.__qualname__}
    if hasattr(store, "_get_session_from_db"):
        methods["_get_session_from_db"] = remember_expiry
    else:
        methods["load"] = load
    return type(store.__name__, (store,), methods)
