"""Settings with a user model of their own."""

import os

from tests.projects.django_project.settings import *  # noqa: F403
from tests.projects.django_project.settings import DATABASES, INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.projects.accounts"]
AUTH_USER_MODEL = "accounts.Account"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {"default": {**DATABASES["default"], "NAME": os.environ["CHATSERVER_DB"] + "-accounts"}}
