"""Looks up visitors and their rights in Django, in a worker thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from django.core.handlers.wsgi import WSGIRequest
from twisted.internet.defer import Deferred, maybeDeferred

from ws4redis_tx.config import django_settings
from ws4redis_tx.core.admission import (
    Admission,
    Asked,
    Identity,
    by_default_policy,
    check_granted,
    default_policy,
)
from ws4redis_tx.core.handshake import Handshake
from ws4redis_tx.core.names import PUBLISH_RIGHTS, SUBSCRIBE_RIGHTS
from ws4redis_tx.core.tokens import TokenInvalid, Tokens, identity_of_claims, issued_of_claims
from ws4redis_tx.django import memberof
from ws4redis_tx.django.databases import OutageLog, close_broken, tidy
from ws4redis_tx.django.session_stores import expiry_of
from ws4redis_tx.django.sharing import fetch_for
from ws4redis_tx.django.visitors import Visitor, denials, request_on
from ws4redis_tx.threads.lookups import Lookups
from ws4redis_tx.tickets import shows_token

_THREADS = 2

TOGETHER = 64
"""The most visitors who share their queries."""


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
        self._tokens = Tokens(())
        self._context = context
        self._reactor = reactor
        self._known_rights = frozenset(known_rights)
        self._lookups: Lookups | None = None
        self._at_shutdown: Any = None
        self._outages = OutageLog(reactor)
        self._foreign_groups = memberof.ForeignGroups(reactor)

    def take_tokens(self, tokens: Tokens) -> None:
        """Let ``tokens`` judge those that clients show. Before this, none is good."""
        self._tokens = tokens

    def authorize(self, handshake: Handshake, rights: Sequence[str]) -> Deferred[Admission]:
        if shows_token(handshake) and _needs_nothing(rights):
            return maybeDeferred(self._admit_by_token, handshake, rights)
        return self._ask(Visitor(handshake, rights, self._tokens))

    def authorize_facilities(
        self, handshake: Handshake, asked: Sequence[Asked], known: Admission | None = None
    ) -> Deferred[Any] | list[Admission | Exception]:
        if known is not None and self._is_enough(known, asked):
            return by_default_policy(known, asked)
        answer = partial(self._answer_each, asked)
        return self._ask(Visitor(handshake, (), self._tokens, answer, known))

    def _admit_by_token(self, handshake: Handshake, rights: Sequence[str]) -> Admission:
        claims = self._tokens.connection(handshake.credential, recheck=handshake.recheck)
        if claims.tenant:
            raise TokenInvalid("tenant", "names one, and this site has none")
        identity, issued = identity_of_claims(claims), issued_of_claims(claims)
        return Admission(identity, default_policy(rights), None, issued=issued)

    def _is_enough(self, known: Admission, asked: Sequence[Asked]) -> bool:
        """Whether the default policy alone decides."""
        if known.redeemed or not _needs_nothing(("any",)):
            return False
        rights = [right for each in asked for right in each.rights]
        return known.request is None or not self._foreign_groups.may_be_told(known.request, rights)

    def call(
        self, handshake: Handshake, function: Callable[..., Any], *arguments: Any
    ) -> Deferred[Any]:
        """Call ``function`` with the visitor's request and ``arguments``, in a thread of the
        callbacks. Fire with its result, or fail with what it raises.
        """
        question = partial(_call, function, arguments)
        return self._ask(Visitor(handshake, (), self._tokens, question))

    def _ask(self, visitor: Visitor) -> Deferred[Any]:
        if self._lookups is None:
            self._lookups = Lookups(
                self._reactor, _THREADS, "ws4redis-authorizer", tidy, sharing=True
            )
            self._at_shutdown = self._reactor.addSystemEventTrigger(
                "during", "shutdown", self._end_threads
            )
        behind = visitor.handshake.recheck
        answer = self._lookups.ask(self._authorize, visitor, behind=behind)
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

    def _authorize(self, visitor: Visitor) -> Any:
        with self._context():
            try:
                return self._look_up(visitor)
            finally:
                close_broken()

    def _look_up(self, visitor: Visitor) -> Any:
        visitor.ask_tenant()
        fetch_for(visitor, self._waiting)
        identity = visitor.identify()
        if visitor.question is not None:
            return visitor.question(visitor, identity)
        granted: tuple[str, ...] = ()
        if visitor.rights or visitor.handshake.names_facility:  # else it is asked only who it is
            granted = self._granted(visitor, visitor.request, visitor.rights)
        return self._admission(visitor, identity, visitor.request, visitor.rights, granted)

    def _answer_each(
        self, asked: Sequence[Asked], visitor: Visitor, identity: Identity
    ) -> list[Admission | Exception]:
        return [self._answer(each, visitor, identity) for each in asked]

    def _answer(self, asked: Asked, visitor: Visitor, identity: Identity) -> Admission | Exception:
        try:
            if django_settings.get_callable("WS4REDIS_PROCESS_REQUEST") is not None:
                handshake = visitor.handshake.on_facility(*asked)  # it may look at the path
                alone: Admission = self._look_up(Visitor(handshake, asked.rights, self._tokens))
                return alone
            request = visitor.request
            if visitor.ticket is not None:
                visitor.ticket.check_facility(asked.facility)
            if _callback() is not None:
                request = request_on(request, visitor.handshake.on_facility(*asked))
            granted = self._granted(visitor, request, asked.rights)
            return self._admission(visitor, identity, request, asked.rights, granted)
        except Exception as error:
            return error

    def _admission(
        self,
        visitor: Visitor,
        identity: Identity,
        request: Any,
        rights: Sequence[str],
        granted: tuple[str, ...],
    ) -> Admission:
        redeemed = visitor.ticket.text if visitor.ticket else ""
        self._foreign_groups.look(request, identity, rights)
        expires = expiry_of(request.session)
        return Admission(identity, granted, request, expires, redeemed, visitor.issued)

    def _waiting(self) -> list[Visitor]:
        lookups = self._lookups  # None once it has ended
        return [] if lookups is None else [each for (each,) in lookups.waiting(TOGETHER - 1)]

    def _granted(
        self, visitor: Visitor, request: WSGIRequest, rights: Sequence[str]
    ) -> tuple[str, ...]:
        ticket = visitor.ticket
        if ticket is None:
            return self._allowed(request, rights)
        return ticket.narrow(self._allowed(request, ticket.narrow(rights)))

    def _allowed(self, request: WSGIRequest, rights: Sequence[str]) -> tuple[str, ...]:
        callback = _callback()
        if callback is None:
            return default_policy(rights)
        with denials("WS4REDIS_ALLOWED_CHANNELS"):
            granted = callback(request, list(rights))
            try:
                if isinstance(granted, str | bytes):  # each letter would count as a right
                    raise TypeError("a string")
                granted = tuple(dict.fromkeys(granted))
                check_granted(granted, self._known_rights)
            except TypeError as error:
                problem = f"{_returned(granted)}. Return a list of rights, or [] to grant none."
                raise TypeError(problem) from error
            except ValueError as error:
                raise ValueError(f"{_returned(granted)}: {error}") from None
        return granted


def _needs_nothing(rights: Sequence[str]) -> bool:
    """Whether the site's code is not asked about these rights of a visitor who is known."""
    return not (rights and _callback()) and not django_settings.has_tenants()


def _callback() -> Callable[..., Any] | None:
    return django_settings.get_callable("WS4REDIS_ALLOWED_CHANNELS")


def _call(
    function: Callable[..., Any], arguments: tuple[Any, ...], visitor: Visitor, _: Identity
) -> Any:
    return function(visitor.request, *arguments)


def _returned(granted: object) -> str:
    return f"WS4REDIS_ALLOWED_CHANNELS returned {granted!r:.200}"
