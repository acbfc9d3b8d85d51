import os
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SECRET_KEY = "development"
DEBUG = not os.environ.get("NO_DEBUG")
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
INSTALLED_APPS = [
    "ws4redis_tx.runserver",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "ws4redis_tx",
    "mysite",
]
if find_spec("django_browser_reload"):
    INSTALLED_APPS.append("django_browser_reload")
if os.environ.get("APPS"):
    INSTALLED_APPS = os.environ["APPS"].split(",")
MIDDLEWARE = []
ROOT_URLCONF = "mysite.urls"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": HERE.parent / "db.sqlite3"}
}
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
STATIC_URL = "/static/"
USE_TZ = True
WS4REDIS_CONNECTION = os.environ["REDIS"]
WS4REDIS_CENTRIFUGE_URL = "/connection/"
