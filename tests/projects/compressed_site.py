"""The site of ``served_site``, which compresses its pages."""

from tests.projects.served_site import *  # noqa: F403

ROOT_URLCONF = "tests.projects.served_site"
MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware"]
