"""Looks up visitors and their rights in Django, in a worker thread.

The lookup is read-only: it never saves, flushes, cycles or deletes a session. Django's own
``get_user`` does so when the password has changed or a fallback key signed the session. Merely
connecting would then log the browser out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.contrib.auth.models import AnonymousUser
from django.contrib.sessions.backends import signed_cookies
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.urls import set_script_prefix
from django.utils.crypto import constant_time_compare
from twisted.internet.defer import Deferred

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.admission import Admission, Identity, default_policy
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.django import memberof
from ws4redis_tx.django.databases import close_broken, tidy
from ws4redis_tx.django.outages import OutageLog
from ws4redis_tx.django.session_stores import read_only_store
from ws4redis_tx.redis_store import identity_of, session_key_of, user_id_of
from ws4redis_tx.threads.lookups import Lookups
from ws4redis_tx.tickets import Ticket, redeem

_THREADS = 2


class DjangoAuthorizer:
    """An ``IAuthorizer`` that asks Django.

    It has its own threads, so that slow views do not delay handshakes. There are only a few,
    because concurrent lookups slow each other down. They are daemon threads, and end with the
    reactor or through ``stop()``. A lookup that is cancelled before it starts costs nothing.

    :param known_rights: the rights that a callback may grant.
    :param context: a context manager that the thread enters around each lookup.
    """

    def __init__(
        self,
        reactor: Any,
        known_rights: Iterable[str] = SUBSCRIBE_RIGHTS + PUBLISH_RIGHTS,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._context = context
        self._reactor = reactor
        self._known_rights = frozenset(known_rights)
        self._lookups: Lookups | None = None
        self._at_shutdown: Any = None
        self._outages = OutageLog(reactor)
        self._foreign_groups = memberof.ForeignGroups(reactor)

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        if self._lookups is None:
            self._lookups = Lookups(self._reactor, _THREADS, "ws4redis-authorizer", tidy)
            self._at_shutdown = self._reactor.addSystemEventTrigger(
                "during", "shutdown", self._end_threads
            )
        answer = self._lookups.ask(self._authorize, handshake, rights)
        return answer.addErrback(self._outages.judge)

    def stop(self) -> None:
        """End the threads after their current lookups. Returns without waiting for them."""
        if self._lookups is not None:
            self._reactor.removeSystemEventTrigger(self._at_shutdown)
            self._end_threads()

    def _end_threads(self) -> None:
        lookups, self._lookups = self._lookups, None
        if lookups is not None:
            lookups.stop()

    def _authorize(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        with self._context():
            return self._look_up(handshake, rights)

    def _look_up(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        try:
            request = make_request(handshake)
            with _denials("WS4REDIS_TENANT"):
                tenant = django_settings.tenant_of(request)
            ticket = redeem(handshake, tenant)
            identity = replace(_identify(request, ticket), tenant=tenant)
            request.ws4redis_identity = identity  # type: ignore[attr-defined]
            self._foreign_groups.look(request, identity, rights)
            expires = _expiry_of(request.session)
            if ticket is None:
                return Admission(identity, self._granted(request, rights), request, expires)
            granted = ticket.narrow(self._granted(request, ticket.narrow(rights)))
            return Admission(identity, granted, request, expires, redeemed=ticket.text)
        finally:
            close_broken()

    def _granted(self, request: WSGIRequest, rights: Sequence[str]) -> tuple[str, ...]:
        callback = django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS")
        if callback is None:
            return default_policy(rights)
        with _denials("WS4REDIS_ALLOWED_CHANNELS"):
            granted = callback(request, list(rights))
            if isinstance(granted, str | bytes):
                raise TypeError(
                    "WS4REDIS_ALLOWED_CHANNELS returned a string. Return a list of rights."
                )
            granted = tuple(dict.fromkeys(granted))
        unknown = set(granted) - self._known_rights - {"echo"}
        if unknown:
            raise ValueError(
                f"WS4REDIS_ALLOWED_CHANNELS granted unknown rights: {unknown}. Return only rights "
                f"from {sorted(self._known_rights)}."
            )
        return granted


@contextmanager
def _denials(setting: str) -> Iterator[None]:
    """Turn ``PermissionDenied`` into a refusal. A recheck that is refused closes the websocket."""
    try:
        yield
    except PermissionDenied as error:
        detail = f"{setting} raised PermissionDenied ({error})"
        raise Denied(403, "This is not allowed.", detail=detail) from error


def make_request(handshake: Handshake) -> WSGIRequest:
    """The request that Django would have made from this handshake."""
    headers = handshake.headers
    host, _, port = headers["host"].rpartition(":")
    if not port.isdigit():
        host, port = headers["host"], "443" if handshake.secure else "80"
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        # WSGI wants percent-decoded bytes, decoded as latin-1.
        "PATH_INFO": unquote_to_bytes(handshake.path.encode("latin-1")).decode("latin-1"),
        "QUERY_STRING": handshake.query,
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": handshake.peer,
        "wsgi.url_scheme": "https" if handshake.secure else "http",
        "wsgi.input": io.BytesIO(),
    }
    for name, value in headers.items():
        # A name with "_" would shadow the same name with "-".
        if "_" not in name:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    script_name = get_script_name(environ)
    set_script_prefix(script_name)  # for reverse(), as Django's own handlers do
    request = WSGIRequest(environ)
    if script_name and request.path_info.startswith(f"{script_name.rstrip('/')}/"):
        request.path = request.path_info  # WEBSOCKET_URL begins with the script name itself
    return request


def _identify(request: WSGIRequest, ticket: Ticket | None) -> Identity:
    """Identify the sender of ``request``.

    Loads ``user`` and ``session`` fully, so that no later access queries the database. Raises
    ``Denied`` if the ticket's session or user is gone, or the user is another one.
    """
    if ticket is not None and ticket.session is not None:
        request.COOKIES = {**request.COOKIES, settings.SESSION_COOKIE_NAME: ticket.session}
    process_request = django_settings.get_callable("WS4REDIS_PROCESS_REQUEST")
    if process_request is None:
        if ticket is None or ticket.session is not None:
            request.session, request.user = _load_session_and_user(request)
        else:
            request.session, request.user = _load_user_of(ticket)
        identity = identity_of(request)
    else:
        with _denials("WS4REDIS_PROCESS_REQUEST"):
            process_request(request)
            if getattr(request, "session", None) is None:
                request.session = _session_store()(None)
            if getattr(request, "user", None) is None:
                request.user = AnonymousUser()
            identity = _identity_by_session(request)
    if ticket is not None and (identity.username is None or identity.user_id != ticket.user_id):
        raise Denied(403, "The ticket is not good any more.", detail="its session or user is gone")
    return identity


def _identity_by_session(request: WSGIRequest) -> Identity:
    if not hasattr(request.session, "session_key"):
        raise TypeError(
            f"WS4REDIS_PROCESS_REQUEST set request.session to a {type(request.session).__name__}. "
            "Set it to a session, or to None."
        )
    session_key = session_key_of(request.session)
    if not request.user.is_authenticated:
        return Identity(session_key)
    groups = tuple(request.session.get(memberof.KEY, ()))
    return Identity(
        session_key, request.user.get_username() or None, groups, user_id_of(request.user)
    )


def _load_session_and_user(request: WSGIRequest) -> tuple[SessionBase, Any]:
    session = _session_store()(request.COOKIES.get(settings.SESSION_COOKIE_NAME))
    session.get(SESSION_KEY)  # loads the session, if there is one
    user = _load_user(session)
    if user is None:
        # get_user would have flushed this session, so it belongs to nobody.
        return _session_store()(None), AnonymousUser()
    return session, user


def _load_user_of(ticket: Ticket) -> tuple[SessionBase, Any]:
    """The session and user of a ticket that was made without a session."""
    return _session_store()(None), _load_user(ticket.user) or AnonymousUser()


def _load_user(session: SessionBase | Mapping[str, str]) -> Any:
    """The session's user, or an anonymous one; ``None`` when the session is no longer valid."""
    backend_path = session.get(BACKEND_SESSION_KEY)
    if SESSION_KEY not in session or backend_path not in settings.AUTHENTICATION_BACKENDS:
        return AnonymousUser()
    primary_key = get_user_model()._meta.pk
    assert primary_key is not None
    user = load_backend(str(backend_path)).get_user(primary_key.to_python(session[SESSION_KEY]))
    if user is None:
        return AnonymousUser()
    if hasattr(user, "get_session_auth_hash"):
        found = session.get(HASH_SESSION_KEY)
        hashes = [user.get_session_auth_hash()]
        if hasattr(user, "get_session_auth_fallback_hash"):
            hashes += user.get_session_auth_fallback_hash()
        if not found or not any(constant_time_compare(found, each) for each in hashes):
            return None
    return user


def _expiry_of(session: Any) -> float | None:
    """When the session expires, in seconds since the epoch.

    The date comes from its row, or from the session if an expiry date was set there. Other engines
    know at most an age, hence ``None``. Does not query the database.
    """
    if isinstance(session, signed_cookies.SessionStore):
        return None  # Django accepts a signed cookie even after its session's expiry
    when = getattr(session, "_ws4redis_expires", None)
    if when is None and isinstance(session, SessionBase) and session.session_key:
        when = session.get("_session_expiry")
        if isinstance(when, str):  # from the JSON serializer
            with suppress(ValueError):
                when = datetime.fromisoformat(when)
    return when.timestamp() if isinstance(when, datetime) else None


def _session_store() -> type[SessionBase]:
    return read_only_store(settings.SESSION_ENGINE)
