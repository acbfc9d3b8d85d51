"""The template tag ``{% websocket_url %}``, after ``{% load ws4redis %}``.

Knows only templates. ``context_processors.websocket_uri`` builds the URI.
"""

from __future__ import annotations

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.template import Context
from django.utils.safestring import SafeString, mark_safe

from ws4redis_tx.context_processors import websocket_uri

register = template.Library()


@register.simple_tag(takes_context=True)
def websocket_url(context: Context, facility: str, *flags: str) -> SafeString:
    """The URI of a facility, with the requested rights.

    ``{% websocket_url 'foobar' 'subscribe-user' 'echo' %}`` gives
    ``ws://example.com/ws/foobar?subscribe-user&echo``.

    The tag does not check flags: the server ignores unknown ones, and a subscriber class may add
    its own. The result is not HTML-escaped, because ``&amp;`` inside a ``<script>`` would lose
    every flag but the first. Percent-encoding leaves no other character that is special in HTML or
    JavaScript.
    """
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured(
            "{% websocket_url %} needs the request in the template's context. Render the template "
            "with render(request, ...), and add 'django.template.context_processors.request' to "
            "the context_processors in TEMPLATES."
        )
    return mark_safe(websocket_uri(request, str(facility), map(str, flags)))
