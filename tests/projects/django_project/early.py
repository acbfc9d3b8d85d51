"""Settings with an application that publishes while Django is set up."""

from tests.projects.django_project.settings import *  # noqa: F403
from tests.projects.django_project.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.projects.early"]
