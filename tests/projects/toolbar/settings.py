"""A shop with django-debug-toolbar."""

from __future__ import annotations

from typing import Any

from tests.projects.django_project.settings import *  # noqa: F403

INSTALLED_APPS = [*INSTALLED_APPS, "debug_toolbar"]  # noqa: F405
MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware", *MIDDLEWARE]  # noqa: F405
ROOT_URLCONF = "tests.projects.toolbar.shop.urls"
DEBUG_TOOLBAR_PANELS = ["ws4redis_tx.panels.MessagesPanel"]
DEBUG_TOOLBAR_CONFIG = {
    "SHOW_TOOLBAR_CALLBACK": f"{__name__}.always",
    "IS_RUNNING_TESTS": False,
    "RENDER_PANELS": False,  # the toolbar's script asks for them, in each version
}


def always(request: Any) -> bool:
    return True
