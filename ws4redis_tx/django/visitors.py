"""One visitor, from the handshake to the session, the user and the groups.

Looking one up is read-only: it never saves, flushes, cycles or deletes a session. Django's own
``get_user`` does so when the password has changed or a fallback key signed the session. Merely
connecting would then log the browser out.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import PermissionDenied
from django.core.handlers.wsgi import WSGIRequest, get_script_name
from django.http.cookie import parse_cookie
from django.urls import set_script_prefix
from django.utils.crypto import constant_time_compare

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.admission import Admission, Identity
from ws4redis_tx.core.errors import Denied
from ws4redis_tx.core.handshake import WEBSOCKET_URL, Handshake
from ws4redis_tx.core.tokens import TokenInvalid, Tokens, identity_of_claims, issued_of_claims
from ws4redis_tx.django import memberof
from ws4redis_tx.django.session_stores import session_store
from ws4redis_tx.django.token_users import user_of_claims
from ws4redis_tx.redis_store import identity_of, session_key_of, user_id_of
from ws4redis_tx.tickets import Ticket, redeem, shows_token


@dataclass(frozen=True, slots=True)
class Fetched:
    """Answers fetched for a visitor together with others, in the database or schema of ``tenant``.

    Each part answers one question, and counts only for that question: which session has this
    ``key``, which ``user`` does the session name, whether or not they may log in, and what are the
    names of their ``groups``. A part that is ``None`` was not fetched.
    """

    tenant: str = ""
    key: str | None = field(default=None, repr=False)
    session: SessionBase | None = None
    named: tuple[str, Any] | None = None
    user: Any = None
    groups: tuple[str, ...] | None = None


NOTHING = Fetched()

_NO_TOKENS = Tokens(())


class Visitor:
    """A visitor who is being looked up, about some ``rights``."""

    __slots__ = (
        "_known", "_tokens", "fetched", "handshake", "issued", "question", "request", "rights",
        "tenant", "ticket",
    )  # fmt: skip

    def __init__(
        self,
        handshake: Handshake,
        rights: Sequence[str],
        tokens: Tokens = _NO_TOKENS,
        question: Callable[[Visitor, Identity], Any] | None = None,
        known: Admission | None = None,
    ) -> None:
        self.question = question
        """Called when the visitor is identified; its result is the answer. ``None``: the answer is
        their admission.
        """
        # An earlier answer about them. One with a ticket does not tell what the ticket grants.
        self._known: Admission | None = None
        if known is not None and known.request is not None and not known.redeemed:
            self._known = known
        self.handshake = handshake
        self.rights = rights
        self._tokens = tokens
        self.issued: float | None = None
        """When the visitor's token was issued, if they showed one."""
        self.request: Any = None
        self.tenant = ""
        self.ticket: Ticket | None = None
        self.fetched: Fetched | None = None
        """``None`` until somebody tries to fetch something. Any thread may set it at any time."""

    def ask_tenant(self) -> None:
        """Make the request, and ask whose site it is for. Comes first, once: the site's callable
        may choose the database or the schema of this thread.
        """
        if self._known is None:
            self.request = make_request(self.handshake)
        else:
            self.request = self._known.request
        with denials("WS4REDIS_TENANT"):
            self.tenant = django_settings.tenant_of(self.request)

    def identify(self) -> Identity:
        """Look up who it is, as far as it was not fetched. Loads the request's ``user`` and
        ``session`` fully, so that no later access queries the database.

        Raises ``Denied`` for an invalid ticket or token, or if the ticket's session or user is
        gone, or the user is another one.
        """
        if self._known is not None:
            return self._known.identity
        if shows_token(self.handshake):
            self.request.ws4redis_identity = identity = self._identify_by_token()
            return identity
        self.ticket = ticket = redeem(self.handshake, self.tenant)
        identity = replace(self._identify(), tenant=self.tenant)
        if ticket is not None and (identity.username is None or identity.user_id != ticket.user_id):
            raise Denied(
                403, "The ticket is not good any more.", detail="its session or user is gone"
            )
        self.request.ws4redis_identity = identity
        return identity

    def _identify_by_token(self) -> Identity:
        handshake, request = self.handshake, self.request
        claims = self._tokens.connection(handshake.credential, recheck=handshake.recheck)
        if claims.tenant != self.tenant:
            raise TokenInvalid("tenant", "is not the tenant of the request")
        self.issued = issued_of_claims(claims)
        request.session, request.user = session_store()(None), user_of_claims(claims)
        return identity_of_claims(claims)

    def _identify(self) -> Identity:
        request, ticket = self.request, self.ticket
        process_request = django_settings.get_callable("WS4REDIS_PROCESS_REQUEST")
        if ticket is not None and ticket.session is not None:
            request.COOKIES = {**request.COOKIES, settings.SESSION_COOKIE_NAME: ticket.session}
        if process_request is None:
            fetched = self.fetched
            if fetched is None or fetched.tenant != self.tenant:
                fetched = NOTHING
            request.session, request.user = self._load_session_and_user(fetched)
            return identity_of(request, fetched.groups if request.user is fetched.user else None)
        with denials("WS4REDIS_PROCESS_REQUEST"):
            process_request(request)
            if getattr(request, "session", None) is None:
                request.session = session_store()(None)
            if getattr(request, "user", None) is None:
                request.user = AnonymousUser()
            return _identity_by_session(request)

    def _load_session_and_user(self, fetched: Fetched) -> tuple[SessionBase, Any]:
        if self.ticket is not None and self.ticket.session is None:
            user = _load_user(self.ticket.user, fetched)
            return session_store()(None), user or AnonymousUser()
        key = self.request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        session = fetched.session
        if session is None or fetched.key != key:
            session = session_store()(key)
        session.get(SESSION_KEY)  # loads the session, if there is one
        user = _load_user(session, fetched)
        if user is None:
            # get_user would have flushed this session, so it belongs to nobody.
            return session_store()(None), AnonymousUser()
        return session, user


def _load_user(session: SessionBase | Mapping[str, str], fetched: Fetched) -> Any:
    """The session's user, or an anonymous one; ``None`` when the session is not valid now."""
    named = user_of(session)
    if named is None:
        return AnonymousUser()
    path, primary_key = named
    backend: Any = load_backend(path)
    if fetched.user is None or fetched.named != named:
        user = backend.get_user(primary_key)
    else:
        user = fetched.user if backend.user_can_authenticate(fetched.user) else None
    if user is None:
        return AnonymousUser()
    if hasattr(user, "get_session_auth_hash"):
        signed = session.get(HASH_SESSION_KEY)
        hashes = _auth_hashes(user)
        if not signed or not any(constant_time_compare(signed, each) for each in hashes):
            return None
    return user


def _auth_hashes(user: Any) -> Iterator[str]:
    yield user.get_session_auth_hash()
    if hasattr(user, "get_session_auth_fallback_hash"):
        yield from user.get_session_auth_fallback_hash()


def user_of(session: SessionBase | Mapping[str, str]) -> tuple[str, Any] | None:
    """The path of the backend and the primary key of the session's user, if it names one."""
    path = session.get(BACKEND_SESSION_KEY)
    if SESSION_KEY not in session or path not in settings.AUTHENTICATION_BACKENDS:
        return None
    primary_key = get_user_model()._meta.pk
    assert primary_key is not None
    return str(path), primary_key.to_python(session[SESSION_KEY])


def session_key_in(handshake: Handshake) -> str | None:
    """The session key in the cookie, as the handshake's request will have it."""
    cookies = handshake.headers.get("cookie", "").encode("latin-1").decode(errors="replace")
    return parse_cookie(cookies).get(settings.SESSION_COOKIE_NAME)


@contextmanager
def denials(setting: str) -> Iterator[None]:
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
        WEBSOCKET_URL: handshake.websocket_url,
    }
    for name, value in headers.items():
        # A name with "_" would shadow the same name with "-".
        if "_" not in name:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    return _request(environ)


def request_on(request: WSGIRequest, handshake: Handshake) -> WSGIRequest:
    """The request of the same visitor, from another handshake that differs in path and query."""
    path = unquote_to_bytes(handshake.path.encode("latin-1")).decode("latin-1")
    other = _request({**request.environ, "PATH_INFO": path, "QUERY_STRING": handshake.query})
    for name, value in vars(request).items():
        if name != "GET":  # read from the query when it is first used
            vars(other).setdefault(name, value)
    return other


def _request(environ: dict[str, Any]) -> WSGIRequest:
    script_name = get_script_name(environ)
    set_script_prefix(script_name)  # for reverse(), as Django's own handlers do
    request = WSGIRequest(environ)
    if script_name and request.path_info.startswith(f"{script_name.rstrip('/')}/"):
        request.path = request.path_info  # WEBSOCKET_URL begins with the script name itself
    return request


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
