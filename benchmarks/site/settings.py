"""Settings of the benchmarks' site: those of ``django-admin startproject`` that matter here.

The environment variable ``WS4REDIS_BENCHMARK_DB`` names the SQLite file.
"""

import os

SECRET_KEY = "the benchmarks run on loopback only and have no secrets to keep"
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "ws4redis_tx",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["WS4REDIS_BENCHMARK_DB"],
    },
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
WS4REDIS_TOKEN_SECRET = "the secret of the benchmarks' tokens"
