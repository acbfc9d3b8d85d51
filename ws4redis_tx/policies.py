"""Ready-made values for ``WS4REDIS_ALLOWED_CHANNELS``, and rules to make others of.

Importing this module imports no Django, so that settings may do it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from ws4redis_tx.config.policy_rules import Rule
from ws4redis_tx.core.admission import default_policy
from ws4redis_tx.core.errors import ConfigError, Denied
from ws4redis_tx.core.handshake import WEBSOCKET_URL

__all__ = ["allow", "allow_all"]


def allow_all(request: Any, channels: Sequence[str]) -> Sequence[str]:
    """Grant every requested right, as *django-websocket-redis* did: every visitor may publish to
    everybody.
    """
    return channels


def allow(route: str, test: Callable[..., bool]) -> Rule:
    """A rule about the facilities that match ``route``: they are for visitors who pass ``test``.

    ``route`` is written as for ``django.urls.path``, and must match the whole facility.
    ``test(request, **parts)`` gets the parts of it, converted; it runs in a thread and may query
    the database. ``True`` grants what the visitor would have without the setting: to listen, and to
    publish to oneself. ``False`` is a 403.

    ``WS4REDIS_ALLOWED_CHANNELS`` is one rule or a list of them. The first one that matches decides.
    Facilities that match none follow the default policy. To close them, end the list with
    ``allow("<path:rest>", lambda request, rest: False)`` and, for the facility with the empty name,
    ``allow("", lambda request: False)``.

    A test that returns anything else, or raises, grants nothing. The answer is 403 for
    ``PermissionDenied``, ``Http404`` and the ``DoesNotExist`` of a model, and 500 otherwise. The
    log says why. ``manage.py check`` and the start of the server report an invalid route, and a
    test that is async or does not take the parts.
    """
    return _Allow(route, test)


class _Allow(Rule):
    def __init__(self, route: str, test: Callable[..., bool]) -> None:
        self._route = route
        self._test = test
        self._works = False

    def __repr__(self) -> str:
        return f"allow({self._route!r}, …)"

    def check(self, name: str) -> None:
        if not self._works:  # it is asked at each handshake
            problem, remedy = self._mistake()
            if problem:
                raise ConfigError(name, f"holds {self!r}, {problem}", remedy)
            self._works = True

    def _mistake(self) -> tuple[str, str]:
        from django.core.exceptions import ImproperlyConfigured

        remedy = (
            "Write the part of the URL that follows WEBSOCKET_URL, in the syntax of "
            "django.urls.path: 'orders/<int:pk>'."
        )
        if not isinstance(self._route, str):
            return "whose route is not a string", remedy
        if self._route.startswith("/"):
            return "whose route begins with '/'", remedy
        try:
            parts = self._pattern.converters
        except ImproperlyConfigured as error:
            return f"whose route is not valid: {_phrase(error)}", remedy
        for warning in self._pattern.check():
            return f"whose route is not valid: {_phrase(warning.msg)}", remedy
        arguments = ", ".join(["request", *parts])
        remedy = f"Write a plain function ({arguments}) that returns True or False."
        return _mistake_of_test(self._test, parts), remedy

    def decide(self, request: Any, rights: Sequence[str]) -> Sequence[str] | None:
        from django.core.exceptions import ObjectDoesNotExist
        from django.http import Http404

        found = self._pattern.match(_facility(request))
        if found is None:
            return None
        _, _, parts = found
        try:
            passed = self._test(request, **parts)
        except (Http404, ObjectDoesNotExist) as error:
            raise self._denied(f"raised {type(error).__name__} ({error})") from error
        if passed is False:
            raise self._denied("returned False")
        if passed is not True:
            kind = type(passed).__name__
            raise TypeError(f"The test of {self!r} returned a {kind}. Return True or False.")
        try:
            return default_policy(rights)
        except Denied as error:
            detail = (
                f"{self!r} lets listen, not publish to others. To grant that, set "
                "WS4REDIS_ALLOWED_CHANNELS to a function (request, channels)."
            )
            raise Denied(error.status, error.reason, detail=detail) from None

    def _denied(self, why: str) -> Denied:
        return Denied(403, "This is not allowed.", detail=f"the test of {self!r} {why}")

    @cached_property
    def _pattern(self) -> Any:
        from django.urls.resolvers import RoutePattern

        return RoutePattern(self._route, is_endpoint=True)


def _facility(request: Any) -> str:
    from ws4redis_tx.config import django_settings

    # A server may have been given another URL than the setting's.
    url = request.META.get(WEBSOCKET_URL) or django_settings.get("WEBSOCKET_URL")
    path: str = request.path_info
    if not path.startswith(url):
        raise ValueError(f"The path {path!r:.200} does not begin with {url!r}.")
    return path[len(url) :]


def _phrase(text: object) -> str:
    return str(text).removesuffix(".")


def _mistake_of_test(test: object, parts: Mapping[str, object]) -> str:
    if not callable(test):
        return "whose test cannot be called"
    for each in (test, type(test).__call__):
        if inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each):
            return "whose test is async"
    try:
        inspect.signature(test).bind(None, **parts)
    except TypeError as error:
        return f"whose test does not take the parts of the route: {error}"
    except ValueError:
        pass  # a built-in function without a signature
    return ""
