"""The site of ``docs/lists.md``, written into a folder, block after block."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tests.support import ROOT
from tests.support.pages import DOCS, blocks_of

PAGE = DOCS / "lists.md"
SETTINGS = "mysite.settings"
# Each is a connection of its own to the one database.
WRITERS = ("first", "second", "third")

_SETTINGS = """
import json
import os

SECRET_KEY = "a secret key of a site that exists for one test"
ALLOWED_HOSTS = ["127.0.0.1", "testserver"]
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
    "django.contrib.staticfiles", "ws4redis_tx", "orders",
]
ROOT_URLCONF = "mysite.urls"
TEMPLATES = [{
    "BACKEND": "django.template.backends.django.DjangoTemplates",
    "APP_DIRS": True,
    "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
}]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "/static/"
DEBUG = True  # serves static files
WS4REDIS_CONNECTION = os.environ.get("LISTS_REDIS")
DATABASES = json.loads(os.environ["LISTS_DATABASES"])
STATICFILES_DIRS = json.loads(os.environ.get("LISTS_STATIC", "[]"))
"""


class ListSite:
    """A folder with the project. ``remove`` deletes it."""

    def __init__(self, database: dict[str, Any] | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ws4redis-tx-"))
        for package in ("mysite", "orders"):
            (self.folder / package).mkdir()
            (self.folder / package / "__init__.py").touch()
        (self.folder / "mysite" / "settings.py").write_text(_SETTINGS)
        for block in blocks_of(PAGE):
            self.write(str(block.file), block.code, at_the_end=block.at_the_end)
        database = database or {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self.folder / "orders.sqlite3"),
        }
        self.databases = dict.fromkeys(("default", *WRITERS), database)

    def write(self, name: str, text: str, *, at_the_end: bool = False) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if at_the_end else "w") as file:
            file.write(text)

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of its programs."""
        return {
            "DJANGO_SETTINGS_MODULE": SETTINGS,
            "PYTHONPATH": f"{self.folder}:{ROOT}",
            "LISTS_DATABASES": json.dumps(self.databases),
            **more,
        }

    def remove(self) -> None:
        shutil.rmtree(self.folder)
