"""Plain Django: the views know nothing of connections. Without JavaScript the site works too, and
shows what is new when a page is loaded again.
"""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from exports import tasks
from exports.models import Export

KINDS = ("Orders of this year", "All customers", "Stock by warehouse")


@login_required
def index(request: HttpRequest) -> HttpResponse:
    context = {"kinds": KINDS, **tasks.shown_to(request.user)}
    return render(request, "exports/index.html", context)


def live(request: HttpRequest) -> HttpResponse:
    """Everything that changes. htmx puts it in the place of the elements with the same ids."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)  # not the login page, which htmx would take for a fragment
    return render(request, "exports/live.html", tasks.shown_to(request.user))


@login_required
@require_POST
def start(request: HttpRequest) -> HttpResponse:
    title = request.POST.get("title", "")
    if title not in KINDS:
        return HttpResponse("There is no such export.", status=400)
    export = Export.objects.create(user=request.user, title=title)
    tasks.tell(request.user)
    tasks.start_export(export)
    return done(request)


@login_required
@require_POST
def read(request: HttpRequest) -> HttpResponse:
    request.user.notifications.update(read=True)
    tasks.tell(request.user)
    return done(request)


def done(request: HttpRequest) -> HttpResponse:
    """Nothing for htmx, since the tabs are told; for others the page."""
    return HttpResponse(status=204) if "HX-Request" in request.headers else redirect("index")


def strict_policy(get_response: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """No inline script or style, no other host. Django 6 has a middleware for it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.headers["Content-Security-Policy"] = "default-src 'self'; object-src 'none'"
        return response

    return middleware
