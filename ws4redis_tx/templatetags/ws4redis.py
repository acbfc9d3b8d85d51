"""The template tags ``{% websocket_url %}``, ``{% websocket_path %}``, ``{% ws4redis_position %}``,
``{% ws4redis_stream_position %}`` and ``{% ws4redis_token %}``, after ``{% load ws4redis %}``.

Knows only templates. ``context_processors`` builds the URIs.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.template import Context
from django.utils.safestring import SafeString, mark_safe

from ws4redis_tx.config import django_settings
from ws4redis_tx.context_processors import websocket_path as path_of
from ws4redis_tx.context_processors import websocket_uri
from ws4redis_tx.core.admission import check_flags
from ws4redis_tx.core.errors import BrokerUnavailable, Denied
from ws4redis_tx.core.names import check_facility, known_rights
from ws4redis_tx.django.receivers import request_began
from ws4redis_tx.protocols.centrifuge.errors import BAD_REQUEST, CommandError
from ws4redis_tx.protocols.centrifuge.names import Name, read_name
from ws4redis_tx.protocols.centrifuge.wire.codec import epoch_text
from ws4redis_tx.redis_store import identity_of
from ws4redis_tx.threads import bridge
from ws4redis_tx.threads.port import RENDER
from ws4redis_tx.tokens import DEFAULT_SECONDS, connection_token

register = template.Library()

_log = logging.getLogger(__name__)


@register.simple_tag(takes_context=True)
def websocket_url(context: Context, facility: object, *flags: object) -> SafeString:
    """The URI of a facility, with the requested rights.

    ``{% websocket_url 'foobar' 'subscribe-user' 'echo' %}`` gives
    ``ws://example.com/ws/foobar?subscribe-user&echo``.

    Raises ``ValueError`` for an empty variable, and for a URI that the server would refuse with
    400: a misspelt right, an invalid facility. The facility with the empty name is written ``''``.
    The result is not HTML-escaped, because ``&amp;`` inside a ``<script>`` would lose every flag
    but the first. Percent-encoding leaves no other character that is special in HTML or JavaScript.
    """
    request = _request(context, "websocket_url")
    return mark_safe(websocket_uri(request, *_checked("websocket_url", facility, flags)))


@register.simple_tag(takes_context=True)
def websocket_path(context: Context, facility: object, *flags: object) -> SafeString:
    """The same without scheme and host, for attributes of htmx and for ``EventSource``, which
    complete it by the page's own:

    ``<div hx-ext="ws" ws-connect="{% websocket_path 'foobar' 'subscribe-user' %}">`` connects to
    ``/ws/foobar?subscribe-user``, under the script name of the site.

    Raises ``ValueError`` as ``websocket_url`` does. It asks for no host, and so never raises
    ``DisallowedHost``.
    """
    request = _request(context, "websocket_path")
    return mark_safe(path_of(request, *_checked("websocket_path", facility, flags)))


@register.simple_tag
def ws4redis_position() -> SafeString:
    """The position at which the request began, or the present outside of a request. A page that
    connects with it gets everything that was published since, so also what was published between
    the view's queries and the page's connecting:

    ``{% websocket_url 'orders' 'subscribe-user' %}&since={% ws4redis_position %}``

    It is empty if Redis is down, and a page that connects with that begins at the present. Asks
    Redis, and so raises ``RuntimeError`` on an event loop; pass the template
    ``await RedisPublisher.aposition()`` there.
    """
    try:
        return mark_safe(bridge.redis().position(request_began()))
    except BrokerUnavailable as error:
        _log.warning("A page was rendered without a position: %s", error)
        return mark_safe("")


@register.simple_tag(takes_context=True)
def ws4redis_stream_position(context: Context, name: object) -> SafeString:
    """The same as offset and epoch on one channel, for a client of Centrifuge's protocol:

    ``newSubscription("user:orders", {since: {% ws4redis_stream_position "user:orders" %}})``

    The result is JSON, and ``null`` if Redis is down or the visitor has no such channel: a page
    that subscribes with that begins at the present. Raises ``ValueError`` for a name that means
    nothing, and for a facility without a history. Waits for Redis, as ``ws4redis_position`` does.
    """
    request = _request(context, "ws4redis_stream_position")
    found = _name_of(request, str(name))
    if django_settings.get_history(found.facility) is None:
        raise ValueError(
            f"{{% ws4redis_stream_position %}}: the facility {found.facility!r} keeps no history. "
            "Add it to WS4REDIS_HISTORY."
        )
    namespace = django_settings.get_namespace(django_settings.known_tenant(request) or None)
    try:
        channel = found.channel(namespace, identity_of(request, groups=()))
        position = bridge.redis().ask("stream_position", channel, request_began(), instead=RENDER)
    except CommandError:
        return mark_safe("null")  # the server will refuse the subscription
    except BrokerUnavailable as error:
        _log.warning("A page was rendered without a position: %s", error)
        return mark_safe("null")
    if not position:
        return mark_safe("null")
    offset, began = position
    return mark_safe(json.dumps({"offset": offset, "epoch": epoch_text(began)}))


@register.simple_tag(takes_context=True)
def ws4redis_token(
    context: Context, ttl: float = DEFAULT_SECONDS, info: object = None
) -> SafeString:
    """A connection token of the page's visitor, as ``ws4redis_tx.tokens.connection_token`` makes
    it. A page of the site itself needs none, since its browser sends the session cookie.
    """
    request = _request(context, "ws4redis_token")
    tenant = django_settings.known_tenant(request) or None
    user = getattr(request, "user", None)
    return mark_safe(connection_token(user, ttl, info, tenant=tenant))


def _request(context: Context, tag: str) -> Any:
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            f"{{% {tag} %}} needs the request in the template's context. Render the template with "
            "render(request, ...), and add 'django.template.context_processors.request' to the "
            "context_processors in TEMPLATES."
        )
    return request


def _name_of(request: Any, text: str) -> Name:
    """The meaning of a channel's name. Raises ``ValueError`` if it has none."""
    names = django_settings.get_callable("WS4REDIS_CENTRIFUGE_NAMES")
    meaning = text if names is None else names(request, text)
    problem = "is empty. Is a variable undefined or its name misspelt?"
    if text:
        problem = "means nothing to WS4REDIS_CENTRIFUGE_NAMES."
    try:
        if meaning:
            return read_name(str(meaning))
    except CommandError as error:
        problem = "is none of a channel. Write a name such as 'broadcast:news'."
        if error.error == BAD_REQUEST:
            problem = "has more than 255 bytes."
    raise ValueError(f"{{% ws4redis_stream_position %}}: the name {text!r:.200} {problem}")


def _checked(tag: str, facility: object, flags: Sequence[object]) -> tuple[str, list[str]]:
    """The arguments of ``tag`` as text. Raises ``ValueError`` if the server would refuse them."""
    # A literal is a SafeString, also an empty one. An undefined variable is a plain string.
    if facility is None or (facility == "" and not isinstance(facility, SafeString)):
        raise ValueError(
            f"{{% {tag} %}}: the facility is empty. Is a variable undefined or its name misspelt? "
            "If you mean the facility with the empty name, write ''."
        )
    if None in flags or "" in flags:
        raise ValueError(
            f"{{% {tag} %}}: a flag is empty. Is a variable undefined or its name misspelt?"
        )
    names = [str(flag) for flag in flags]
    try:
        _check(str(facility), [name.lower() for name in names])
    except (Denied, ValueError) as error:
        reason = error.reason if isinstance(error, Denied) else error
        raise ValueError(f"{{% {tag} %}}: {reason}") from None
    return str(facility), names


def _check(facility: str, flags: Sequence[str]) -> None:
    known = known_rights(django_settings.get_callable("WS4REDIS_SUBSCRIBER"))
    check_flags(flags, known)
    check_facility(facility, [flag.partition("-")[2] for flag in flags if flag in known])
