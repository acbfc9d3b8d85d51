from __future__ import annotations

from django.urls import include, path

from tests.projects.toolbar.shop import views

pages = (
    views.order, views.later, views.strange, views.orders, views.survived, views.nothing,
)  # fmt: skip
urlpatterns = [
    *(path(f"{page.__name__}/", page) for page in pages),
    path("__debug__/", include("debug_toolbar.urls")),
]
