"""Settings with a user model that inherits from another, with a primary key of its own."""

import os

from tests.projects.django_project.accounts import *  # noqa: F403
from tests.projects.django_project.accounts import DATABASES

AUTH_USER_MODEL = "accounts.Employee"
DATABASES = {
    "default": {**DATABASES["default"], "NAME": os.environ["CHATSERVER_DB"] + "-employees"}
}
